"""Step times of a framework on synthetic batches, apart from the studies.

One process measures one framework once, so that one framework's memory, threads and caches are none of another's
business; the workflow starts the processes in rounds, frameworks in turn (rvkernels.timing.turned), and
rvkernels/bench_table.py puts the records together.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rvkernels import timing
from rvkernels.batches import Batch
from rvkernels.models import OwnModel
from rvkernels.ops import philox
from rvkernels.record import utc_now, write_record
from rvkernels.train import Run

BATCHES = 4  # different ones, taken in turn
BOXES = 8  # per image
RATE = 1e-4  # learning rate: low, so that the losses stay finite
SEED = 0
_OP_IMAGES, _OP_LABELS, _OP_BOXES = 130, 131, 132  # philox streams


class Measurement(NamedTuple):
    """One record of the benchmark."""

    experiment: str
    model: str
    framework: str
    batch: int
    round: int

    def path(self, folder: str | Path) -> Path:
        """Its record below `folder`."""
        return Path(folder, self.experiment, self.model, self.framework, str(self.batch), f"{self.round}.json")


def measurements(study: Mapping[str, Any], runs: list[tuple[str, str, str, int]]) -> list[Measurement]:
    """Every measurement of a study in the order in which they are to be made.

    study  the study's settings, complete
    runs   (experiment, model, framework, seed) of its trainings
    """
    frameworks: dict[tuple[str, str], dict[str, None]] = {}
    for experiment, model, framework, _ in runs:
        frameworks.setdefault((experiment, model), {})[framework] = None
    blocks = [
        (experiment, model, batch, number)
        for number in range(study["bench_train"]["rounds"])
        for experiment, model in frameworks
        for batch in study["bench_train"]["batches"] or [study["experiments"][experiment]["train"]["batch"]]
    ]
    return [
        Measurement(experiment, model, framework, batch, number)
        for block, (experiment, model, batch, number) in enumerate(blocks)
        for framework in timing.turned(list(frameworks[experiment, model]), block)
    ]


def synthetic(run: Run, batch: int, number: int) -> Batch:
    """Batch `number` of `batch` chips of the run's shape, the same for every framework.

    Pixels are uniform with mean 0 and variance 1, labels uniform over the classes; images in layout NHWC. Boxes are
    within the chip, an eighth to three eighths of its rows and columns in size.
    """
    rows, cols = run.chips.shape
    classes, kernel = run.graph.classes, run.settings["kernel"]
    shape = (batch, rows, cols, run.graph.bands)
    images = philox.uniform(SEED, 0, number, _OP_IMAGES, math.prod(shape), kernel=kernel).reshape(shape)
    images = (images - np.float32(0.5)) * np.float32(math.sqrt(12))
    truth: dict[str, np.ndarray] = {}
    count = {"classification": batch, "segmentation": batch * rows * cols, "detection": batch * BOXES}[run.graph.task]
    labels = philox.bits(SEED, 0, number, _OP_LABELS, count, kernel=kernel) % np.uint32(classes)
    if run.graph.task == "classification":
        truth["labels"] = labels.astype(np.int32)
        if run.settings["mix"]:
            truth["others"] = np.roll(truth["labels"], -1)
            truth["shares"] = np.full(batch, 0.75, np.float32)
    elif run.graph.task == "segmentation":
        truth["labels"] = labels.astype(np.uint8).reshape(batch, rows, cols)
    else:
        u = philox.uniform(SEED, 0, number, _OP_BOXES, 4 * count, kernel=kernel).reshape(count, 2, 2)
        edge = np.array([rows, cols], np.float32)
        size = (np.float32(0.125) + np.float32(0.25) * u[:, 0]) * edge
        low = u[:, 1] * (edge - size)
        truth["boxes"] = np.concatenate([low, low + size], axis=1)
        truth["box_class"] = labels.astype(np.int32)
        truth["box_start"] = np.arange(0, count + 1, BOXES, dtype=np.int64)
    return Batch(np.arange(batch, dtype=np.int64), images, (rows, cols), **truth)


def bench_train(run: Run, *, batch: int, steps: int, warmup: int, number: int, out: str | Path) -> None:
    """Time training steps of `run`'s model, framework, loss and optimizer; write one record.

    batch   images per step
    steps   that are timed, after `warmup` ones that are timed apart
    number  of the round
    out     the record: times_s import, build, first_step, warmup, step and step_cpu (of the process); result loss: of
            the first step, by which rvkernels.bench_table.bench_table checks that all frameworks did the same work

    Raises ValueError for a loss that is not finite, and writes no record then.
    """
    started, began = utc_now(), time.perf_counter()
    net = run.build(run.initial)
    net.wait()
    build = time.perf_counter() - began
    batches = []
    for i in range(BATCHES):
        made = synthetic(run, batch, i)
        targets = run.task.targets(run.graph, made, **run.settings["assign"])
        images = made.images if net.layout == "NHWC" else np.ascontiguousarray(made.images.transpose(0, 3, 1, 2))
        batches.append((images, targets))
    done = [timing.timed_step(net, *batches[i % BATCHES], RATE) for i in range(warmup + steps)]
    for i, step in enumerate(done):
        if not math.isfinite(step.loss):
            raise ValueError(f"the loss is {step.loss} at step {i + 1} on synthetic batches; no record is written")
    held = net.memory()
    median = float(np.median([s.seconds for s in done[warmup:]]))
    write_record(
        out,
        what="bench-train",
        validated=True,
        check="every loss is finite",
        **run.names,
        threads=run.threads,
        started=started,
        weight_identical=not isinstance(run.graph, OwnModel),
        settings={
            **run.identity["settings"],
            "model": run.identity["model_settings"],
            "batch": batch,
            "steps": steps,
            "warmup": warmup,
            "round": number,
        },
        result={
            "loss": done[0].loss,
            "step_median_s": median,
            "step_cpu_median_s": float(np.median([s.cpu_seconds for s in done[warmup:]])),
        },
        times_s={
            "import": [run.import_seconds],
            "build": [build],
            "first_step": [done[0].seconds],
            "warmup": [s.seconds for s in done[:warmup]],
            "step": [s.seconds for s in done[warmup:]],
            "step_cpu": [s.cpu_seconds for s in done[warmup:]],
        },
        chips_per_s=batch / median,
        peak_device_mb=None if held is None else held / 2**20,
        software_of=run.framework.Framework.versions(),
    )
