"""Feeds targets with broken and odd input until the time is over: `python tests/fuzz/run.py --seconds 60 [TARGET ...]`.

A target is a file of this folder with `round(rng, folder)`: it makes an input from the random numbers, hands it to the
package and raises when what comes back is neither right nor a clear error. Meant for a build with AddressSanitizer
(`make sanitize`), where a bad access ends the process. Each round has a seed of its own, kept in a file while it runs,
so that what failed can be repeated: `--seed N --rounds 1`.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
EXPECTED = (ValueError, FileNotFoundError)


def targets() -> list[str]:
    """Names of the targets in this folder, sorted."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem != "run")


def clear(call: Callable, *arguments: object, **options: object) -> object:
    """What the call returns, or None after an error of bad input that is one line; anything else is raised."""
    try:
        return call(*arguments, **options)
    except EXPECTED as error:
        text = str(error)
        if not text.strip() or "\n" in text.strip():
            raise AssertionError(f"expected one line that says what is wrong, got {text!r}") from error
        return None


def run(name: str, seed: int, seconds: float, rounds: int | None, note: Path) -> int:
    """Rounds of one target; the number of them."""
    one = importlib.import_module(name).round
    end, done = time.monotonic() + seconds, 0
    with tempfile.TemporaryDirectory() as folder:
        while (rounds is None and time.monotonic() < end) or (rounds is not None and done < rounds):
            note.write_text(str(seed + done))
            one(np.random.default_rng(seed + done), Path(folder))
            done += 1
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"one of {', '.join(targets())}; all if none")
    parser.add_argument("--seconds", type=float, default=60, help="time for each target; they run side by side")
    parser.add_argument("--rounds", type=int, help="this many rounds instead")
    parser.add_argument("--seed", type=int, help="of the first round; the clock's if none")
    parser.add_argument("--note", type=Path, help=argparse.SUPPRESS)  # a child: where it notes its round's seed
    a = parser.parse_args()
    wanted = a.targets or targets()
    unknown = sorted(set(wanted) - set(targets()))
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(targets())}")
    seed = time.time_ns() // 1_000_000 if a.seed is None else a.seed
    if a.note:
        print(f"fuzz: {wanted[0]}: {run(wanted[0], seed, a.seconds, a.rounds, a.note)} rounds", flush=True)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        notes = {name: Path(folder, name) for name in wanted}
        options = ["--seed", str(seed), "--seconds", str(a.seconds)]
        options += [] if a.rounds is None else ["--rounds", str(a.rounds)]
        children = {
            name: subprocess.Popen([sys.executable, __file__, name, "--note", str(note), *options])
            for name, note in notes.items()
        }
        failed = [name for name, child in children.items() if child.wait() != 0]
        for name in failed:
            at = notes[name].read_text() if notes[name].exists() else seed
            print(f"fuzz: {name} failed; repeat it with {__file__} {name} --rounds 1 --seed {at}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
