"""Every instruction set gives the same bits: the tests of what differs, run again at each level below this CPU's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rvkernels.ops import core

LEVELS = ["baseline", "v3", "v4", "vbmi"]
# Of v4 only table lookups of bytes differ from the level above, which parity has.
LOOPS = ["parity", "tiff", "statistics", "augment", "normalize"]
AGAIN = {"baseline": LOOPS, "v3": LOOPS, "v4": ["parity"]}
HERE = Path(__file__).parent


def run(level: str, *command: str) -> subprocess.CompletedProcess:
    # The working directory stays off the path: the checkout's sources have no compiled modules beside them.
    environment = {**os.environ, "RVK_ISA": level, "PYTHONSAFEPATH": "1"}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("level", AGAIN)
def test_at_a_lower_level(level):
    if LEVELS.index(core().isa) <= LEVELS.index(level):
        pytest.skip(f"this run is at level {core().isa} already")
    files = [str(HERE / f"test_{name}.py") for name in AGAIN[level]]
    done = run(level, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *files)
    assert done.returncode == 0, done.stdout[-4000:]


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_is_a_limit(level):
    wanted = min(level, core().isa, key=LEVELS.index)
    assert run(level, "-c", "from rvkernels.ops import core; print(core().isa)").stdout.strip() == wanted


def test_an_unknown_level_is_refused():
    done = run("avx9", "-c", "from rvkernels.ops import core; core()")
    assert done.returncode != 0
    assert "RVK_ISA: expected baseline, v3, v4 or vbmi, got avx9" in done.stderr
