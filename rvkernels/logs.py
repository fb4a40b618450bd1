"""A study's logs for other programs: TensorBoard's event files, or CSV.

For every training <experiment>/<model>/<framework>/<seed>/ below the folder that is written

    tensorboard   an event file; by step: train/loss, train/lr, seconds/step, seconds/step_cpu, seconds/wait; by the
                  step at which the epoch ended: val/<metric>, and epoch/<quantity> of log.csv
    csv           steps.csv, a row per step, and epochs.csv, a row per epoch

A training that has not ended is written as far as it is: its epochs, and its steps up to the last checkpoint.
"""

from __future__ import annotations

import csv
import datetime
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from rvkernels import registry
from rvkernels.checkpoint import read_checkpoint, read_meta
from rvkernels.files import atomic
from rvkernels.runs import Epoch, read_log, read_steps

# Column of steps.npz -> its tag.
STEP_TAGS = {
    "loss": "train/loss",
    "lr": "train/lr",
    "seconds": "seconds/step",
    "cpu_seconds": "seconds/step_cpu",
    "wait_seconds": "seconds/wait",
}
Steps = dict[str, np.ndarray]
Epochs = list[Epoch]
# Writes one training into a folder: that folder, the training's, its steps and its epochs.
Writer = Callable[[Path, Path, Steps, Epochs], None]


def write_logs(results: str | Path, to: str, out: str | Path) -> int:
    """Write the logs of every training of results/STUDY/ into the folder `out`; returns how many there are.

    Raises ValueError for an unknown kind, for one whose package is not installed, and when there is no training.
    """
    if to not in KINDS:
        raise ValueError(f"--to {to}: no such kind of log; {registry.suggest(to, KINDS)}")
    write = KINDS[to]()
    runs = Path(results) / "runs"
    folders = sorted(path.parent for path in runs.glob("*/*/*/*/log.csv"))
    if not folders:
        raise ValueError(f"{results}: no training with a log.csv in runs/<experiment>/<model>/<framework>/<seed>/")
    for folder in folders:
        with atomic(Path(out) / folder.relative_to(runs)) as temporary:
            temporary.mkdir(parents=True)
            write(temporary, folder, _steps(folder), read_log(folder))
    return len(folders)


def _steps(run: Path) -> Steps:
    """The columns of rvkernels.train.STEP_COLUMNS; none before the first checkpoint."""
    if (run / "steps.npz").is_file():
        return read_steps(run)
    return read_checkpoint(run / "last.npz").steps if (run / "last.npz").is_file() else {}


def _csv() -> Writer:
    def write(folder: Path, run: Path, steps: Steps, epochs: Epochs) -> None:
        if steps:
            columns = [column.tolist() for column in steps.values()]
            rows = ([number, *row] for number, row in enumerate(zip(*columns), 1))
            _table(folder / "steps.csv", ["step", *steps], rows)
        _table(folder / "epochs.csv", list(epochs[0]), (row.values() for row in epochs))

    return write


def _table(path: Path, head: list[str], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", newline="") as out:
        table = csv.writer(out, lineterminator="\n")
        table.writerow(head)
        table.writerows(rows)


def _tensorboard() -> Writer:
    # The parts of the package that import neither TensorFlow nor torch; its EventFileWriter does, where there is one.
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError:
        raise ValueError(
            "--to tensorboard: the package tensorboard is not installed: pip install tensorboard"
        ) from None

    def write(folder: Path, run: Path, steps: Steps, epochs: Epochs) -> None:
        started, moments = _started(run), _moments(steps, epochs)
        events = [
            (number, STEP_TAGS[name], value)
            for name, column in steps.items()
            if name in STEP_TAGS
            for number, value in enumerate(column.tolist(), 1)
        ]
        for row in epochs:
            for name, value in row.items():
                if value is not None and name not in ("epoch", "step"):
                    tag = f"val/{name[4:]}" if name.startswith("val_") else f"epoch/{name}"
                    events.append((int(row["step"]), tag, value))
        # A name that TensorBoard looks for; with the start, not with the name of the machine.
        with (folder / f"events.out.tfevents.{int(started)}").open("wb") as out:
            records = RecordWriter(out)
            records.write(Event(wall_time=started, file_version="brain.Event:2").SerializeToString())
            for number, tag, value in sorted(events, key=lambda event: event[0]):
                summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
                time = started + moments.get(number, 0.0)
                records.write(Event(wall_time=time, step=number, summary=summary).SerializeToString())

    return write


def _started(run: Path) -> float:
    """When the training began, seconds since 1970."""
    text = read_meta(run / "last.npz")["course"]["started"]
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z").timestamp()


def _moments(steps: Steps, epochs: Epochs) -> dict[int, float]:
    """Step -> seconds of training until its end: steps, waiting for batches, and the validations before."""
    spent = np.cumsum(steps["seconds"] + steps["wait_seconds"]) if steps else np.zeros(0)
    validations = {int(row["step"]): row["val_seconds"] for row in epochs}
    moments, before = {}, 0.0
    for number, seconds in enumerate(spent.tolist(), 1):
        moments[number] = before + seconds
        before += validations.get(number, 0.0)
    return moments


KINDS: dict[str, Callable[[], Writer]] = {"csv": _csv, "tensorboard": _tensorboard}
