"""The processes in which peers run, see _server."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rvkernels.bench import _server
from rvkernels.progress import LOG

FOLDER = Path(__file__).with_name("peers")
# Libraries of the interpreter that runs rvkernels; all others have an environment of their own.
HERE = ("gdal", "numpy", "shapely")
# How many threads a library starts is for some decided when it is loaded.
THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"),
    *("RAYON_NUM_THREADS", "POLARS_MAX_THREADS"),
)
START_SECONDS = 120.0


class PeerError(Exception):
    """Why a peer has no result, in one line."""


def interpreter(library: str) -> Path:
    """The Python that a library's functions run in: RVK_BENCH_PYTHON, else .venv-bench beside .venv."""
    if library in HERE:
        return Path(sys.executable)
    named = os.environ.get("RVK_BENCH_PYTHON")
    return Path(named) if named else Path(f"{sys.prefix}-bench", "bin/python")


class Process:
    """One library with one number of threads, 0 for all cores: started by the constructor, which waits for nothing.

    failure   why there are no answers, or no more
    versions  of the distributions that the library's file imports, known when it is loaded
    """

    def __init__(self, library: str, threads: int, *, folder: Path, timeout: float) -> None:
        self.versions: dict[str, str] = {}
        self.failure: str | None = None
        self._timeout = timeout
        self._loaded = False
        self._process: subprocess.Popen[bytes] | None = None
        self._sent, self._heard = 0, b""
        source, python = folder / f"{library}.py", interpreter(library)
        if not source.is_file():
            self.failure = f"there is no peers/{library}.py"
        elif not python.is_file():
            self.failure = f"there is no {python}; `make bench` in the checkout sets up the peers' environment"
        if self.failure:
            return
        environment = {name: value for name, value in os.environ.items() if name not in THREADS}
        environment["NO_ALBUMENTATIONS_UPDATE"] = "1"  # else it asks a server for a newer version
        if threads:
            environment.update(dict.fromkeys(THREADS, str(threads)))
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  close() does
        self._process = subprocess.Popen(
            [python, "-I", _server.__file__, source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
            bufsize=0,
        )

    def load(self) -> None:
        """Wait until the library is loaded; `failure` says why it is not."""
        if not (self._loaded or self.failure):
            self._loaded = True
            try:
                self.versions = self._answer_to(0, START_SECONDS)["versions"]
            except PeerError as error:
                self.failure = str(error)

    def send(self, do: str, **fields: object) -> int:
        """Make a request of _server, without waiting for the answer: returns its number, for `answer`."""
        self.load()
        self._sent += 1
        if not self.failure:
            request = json.dumps({"number": self._sent, "do": do, **fields}) + "\n"
            with contextlib.suppress(BrokenPipeError):  # the answer will say how it ended
                self._process.stdin.write(request.encode())
        return self._sent

    def answer(self, number: int) -> dict[str, Any]:
        """The answer to a request; those to earlier ones are gone then.

        Raises PeerError; after a death or a timeout it always does.
        """
        return self._answer_to(number, self._timeout)

    def ask(self, do: str, **fields: object) -> dict[str, Any]:
        """`answer` to `send`."""
        return self.answer(self.send(do, **fields))

    def _answer_to(self, number: int, timeout: float) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        while not self.failure and answer.get("number") != number:
            answer = self._next_answer(timeout)
        if self.failure or "error" in answer:
            raise PeerError(self.failure or answer["error"])
        return answer

    def _next_answer(self, timeout: float) -> dict[str, Any]:
        """The next line of standard output; {} and `failure` set when there is none."""
        stream = self._process.stdout
        while b"\n" not in self._heard:
            with selectors.DefaultSelector() as selector:
                selector.register(stream, selectors.EVENT_READ)
                if not selector.select(timeout):
                    self._process.kill()
                    self.failure = f"no answer in {timeout:g} s"
                    return {}
            some = stream.read(1 << 16)
            if not some:
                self.failure = f"ended with {self._process.wait()}{self._last_words()}"
                return {}
            self._heard += some
        text, _, self._heard = self._heard.partition(b"\n")
        return json.loads(text)

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = [text.strip() for text in self._said.read().split("\n") if text.strip()]
        return f": {lines[-1]}" if lines else ""

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            with contextlib.suppress(BrokenPipeError):  # what it did not read before it ended is still in the buffer
                stream.close()


class Processes:
    """All processes of a run, each started when it is first asked for.

    with Processes(timeout=60, folder=FOLDER) as processes: ...
    """

    def __init__(self, *, timeout: float, folder: Path) -> None:
        self._timeout, self._folder = timeout, folder
        self._of: dict[tuple[str, int], Process] = {}
        self.told: set[str] = set()  # reasons that were logged for all peers of a library

    def start(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Load libraries, given with numbers of threads, side by side, and log once which are missing."""
        missing: dict[str, list[str]] = {}
        for (library, _), process in [(key, self.get(*key)) for key in dict.fromkeys(wanted)]:
            process.load()
            if process.failure and process.failure not in self.told:
                missing.setdefault(process.failure, []).append(library)
        for reason, libraries in missing.items():
            self.told.add(reason)
            LOG.info("peers of %s are left out: %s", ", ".join(sorted(set(libraries))), reason)

    def get(self, library: str, threads: int) -> Process:
        key = (library, threads)
        if key not in self._of:
            self._of[key] = Process(library, threads, folder=self._folder, timeout=self._timeout)
        return self._of[key]

    def versions(self) -> dict[str, str]:
        """Of what the peers imported."""
        return dict(sorted(item for process in self._of.values() for item in process.versions.items()))

    def failures(self) -> dict[str, str]:
        """Libraries that did not load or ended, with the reason."""
        return {library: p.failure for (library, _), p in self._of.items() if p.failure}

    def forget(self) -> None:
        """Free what the peers hold of a case."""
        for process in self._of.values():
            if not process.failure:
                with contextlib.suppress(PeerError):  # which `failure` tells from now on
                    process.ask("forget")

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._of.values():
            process.close()
