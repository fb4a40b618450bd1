"""What a person sees while a stage runs: a bar on a terminal, plain lines with the time in a log file."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from types import TracebackType

LOG = logging.getLogger("rvkernels")
LINE_SECONDS = 10.0


def start_log(path: str | Path | None = None) -> None:
    """Send the package's log to the file `path` (replaced), or to standard error when it is None.

    Lines start with date and time in a file, and without on standard error. A second call replaces the first.
    """
    for handler in list(LOG.handlers):
        LOG.removeHandler(handler)
        handler.close()
    if path is None:
        handler: logging.Handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, mode="w", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False


def _to_file() -> bool:
    """True when the log goes to a file."""
    return any(isinstance(h, logging.FileHandler) for h in LOG.handlers)


class Progress:
    """Counts to `total`: a bar on a terminal, and log lines, at most one in `LINE_SECONDS` seconds, where there is none
    or the log goes to a file.

    with Progress(len(chips), "predict", "chips") as progress:
        progress.add(16)
    """

    def __init__(self, total: int, label: str, unit: str = "it", start: int = 0) -> None:
        self.total, self.label, self.unit = total, label, unit
        self.done = self._first = start
        self._began = self._told = time.perf_counter()
        self._bar = None
        if sys.stderr.isatty():
            # Imported here: a framework's environment may lack it, and a log file never needs it.
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=label, unit=unit, initial=start, leave=False, dynamic_ncols=True)

    def add(self, count: int = 1, note: str = "") -> None:
        """`count` more are done; `note` is shown behind the numbers."""
        self.done += count
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
            if not _to_file():
                return
        now = time.perf_counter()
        if now - self._told >= LINE_SECONDS and self.done < self.total:
            self._told = now
            rate = (self.done - self._first) / (now - self._began)
            tail = f", {note}" if note else ""
            LOG.info("%s: %d of %d %s, %.1f/s%s", self.label, self.done, self.total, self.unit, rate, tail)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
