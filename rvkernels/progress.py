"""What a person sees while a stage runs: a bar on a terminal, plain lines with the time in a log file, and for
`rvk watch` how far a training is.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from types import TracebackType

from rvkernels.files import remove

LOG = logging.getLogger("rvkernels")
LINE_SECONDS = 10.0
STATUS_SECONDS = 1.0


def start_log(path: str | Path | None = None, *, errors_only: bool = False) -> None:
    """Send the package's log to the file `path` (replaced), or to standard error when it is None.

    Lines start with date and time in a file, and without on standard error. A second call replaces the first.
    Processes beside the one whose log it is add their errors, and nothing else: `errors_only`.
    """
    for handler in list(LOG.handlers):
        LOG.removeHandler(handler)
        handler.close()
    if path is None:
        handler: logging.Handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if not errors_only:
            Path(path).write_text("")
        handler = logging.FileHandler(path, mode="a", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.ERROR if errors_only else logging.INFO)
    LOG.propagate = False


def tell_error(line: str) -> None:
    """`line` to standard error, and to the log where that is a file."""
    print(line, file=sys.stderr, flush=True)
    if _to_file():
        LOG.error(line)


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
        if sys.stderr.isatty() and LOG.isEnabledFor(logging.WARNING):
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


class Status:
    """How far a training is, in a JSON file that is replaced at most once in STATUS_SECONDS seconds.

    Replacing takes about 0.15 ms, between steps. The file holds `fixed` and the values that `tell` was given last, and

        process, born, boot  the process, when it started and on which start of which machine: whether it still runs
        updated              seconds since 1970
        cores, steps_per_s   processor cores that the process kept busy, and steps per second, since the last writing

    It is removed by `end`; what a killed process leaves tells how far it came.
    """

    def __init__(self, path: str | Path, **fixed: object) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        process = os.getpid()
        self._values = {**fixed, "process": process, "born": birth(process), "boot": boot()}
        self._told = time.monotonic()
        self._busy = time.process_time()
        self._step: int | None = None

    def tell(self, phase: str, *, now: bool = True, **values: object) -> None:
        """The training is in `phase` with these `values`; unless `now`, the file is written only when it is time."""
        seconds = time.monotonic() - self._told
        if not now and seconds < STATUS_SECONDS:
            return
        busy, step = time.process_time(), values.get("step")
        self._values.update(values, phase=phase, updated=time.time())
        if seconds > 0:
            self._values["cores"] = round((busy - self._busy) / seconds, 2)
        # A rate across a phase without steps would be none.
        known = not now and isinstance(step, int) and self._step is not None
        self._values["steps_per_s"] = (step - self._step) / seconds if known else self._values.get("steps_per_s")
        self._step = step if isinstance(step, int) else None
        self._told, self._busy = time.monotonic(), busy
        # Always under one name, as nobody else writes here: a quarter of the time of files.atomic.
        temporary = self.path.with_name(f".{self.path.name}.part")
        temporary.write_text(json.dumps(self._values))
        os.replace(temporary, self.path)

    def end(self) -> None:
        remove(self.path)


def birth(process: int) -> str | None:
    """When a process started, in the system's ticks; None when it is gone or its parent has not yet taken note."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def boot() -> str | None:
    """A name of this start of this machine, where the system gives one."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.is_file() else None
