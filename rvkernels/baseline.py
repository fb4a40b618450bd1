"""The row every network has to beat: logistic regression on what a pixel or a chip looks like, without any context.

classification  on each band's mean and standard deviation over the chip
segmentation    on a pixel's band values
detection       on a pixel's band values, inside or outside the boxes; connected pixels of a class make a box

Its predictions are made, written and evaluated by the same code as a network's (predict.py, evaluate.py).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rvkernels import predict, record
from rvkernels.chips import IGNORE, Chips
from rvkernels.files import atomic
from rvkernels.ops import philox
from rvkernels.progress import LOG
from rvkernels.scene import Region, Scene
from rvkernels.tasks.classification import probabilities as softmax

PIXELS, SEED = 50_000, 0  # training pixels that are drawn, and the seed of the draw
PENALTY = 1e-4  # of the squared coefficients
LEAST = 4  # detection: fewer connected pixels are noise and make no box
_OP_PIXELS = 120  # philox stream of the draw


def baseline(
    *,
    task: str,
    chips: str | Path,
    scenes: Mapping[str, Scene],
    regions: Sequence[Region],
    classes: Sequence[Mapping[str, Any]],
    predict_settings: Mapping[str, Any],
    out: str | Path,
    split: str = "test",
    threads: int = 1,
    dataset: str | None = None,
) -> None:
    """Fit on the training chips, predict the regions of `split`; write out/predictions and out/record.json.

    chips             the folder of `rvk chip`
    predict_settings  keyword-only parameters of predict.complete_settings
    The result depends on nothing but these and the data. Raises ValueError or FileNotFoundError.
    """
    predict_settings = {**predict_settings, "views": 1}  # it knows colours only, and all views have the same
    if task == "segmentation":
        # Windows need no overlap, since no pixel depends on another; speckle makes no areas worth a polygon, and
        # scores that do not compress. The label map is what is compared.
        predict_settings.update(stride=predict_settings.get("size"), crop=0, polygons=None, scores="none")
    predict_settings = predict.for_task(predict_settings, task)
    opened = Chips.open(chips)
    if opened.task != task:
        raise ValueError(f"{chips}: these chips are for {opened.task}, not for {task}")
    opened.check_classes(len(classes))
    model, learned = _learn(task, opened, len(classes))
    out = Path(out)
    about = {
        "dataset": dataset,
        "task": task,
        "model": "baseline",
        "framework": "logistic",
        "seed": 0,
        "device": "cpu",
        "threads": threads,
        "settings": {"predict": predict_settings},
    }
    with atomic(out / "predictions") as folder:
        folder.mkdir()
        times, counts = predict.predict_scenes(
            functools.partial(SCORES[task], model),
            task=task,
            multiple=1,
            scenes=scenes,
            regions=regions,
            split=split,
            bands=opened.bands,
            classes=classes,
            settings=predict_settings,
            folder=folder,
            threads=threads,
        )
        record.write_record(
            folder / "record.json",
            what="predict",
            validated=True,
            check=predict.CHECK,
            result=counts,
            times_s=times,
            chips_per_s=counts["windows"] / max(sum(times["network"]), 1e-9),
            **about,
        )
    record.write_record(out / "record.json", what="baseline", **learned, **about)


def _learn(task: str, chips: Chips, classes: int) -> tuple[Logistic, dict[str, Any]]:
    """What the training chips teach, and what the record says of that."""
    began = time.perf_counter()
    features, labels = SAMPLES[task](chips, chips.rows("train"), classes)
    read = time.perf_counter()
    model = fit(features, labels, classes + (task == "detection"), penalty=PENALTY)
    fitted = time.perf_counter()
    LOG.info("baseline: %d samples, %d steps, %.1f s", len(labels), model.steps, fitted - began)
    right = float((model.logits(features).argmax(1) == labels).mean())
    return model, {
        "validated": model.converged,
        "check": "the solver converged",
        "result": {"samples": len(labels), "steps": model.steps, "loss": model.loss, "training_accuracy": right},
        "times_s": {"sample": [read - began], "fit": [fitted - read]},
    }


# --- logistic regression -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Logistic:
    """Multinomial logistic regression on standardised features."""

    mean: np.ndarray  # (features,)
    std: np.ndarray  # (features,)
    weight: np.ndarray  # (features, classes)
    bias: np.ndarray  # (classes,)
    loss: float
    steps: int
    converged: bool

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(..., features) -> (..., classes) float32."""
        weight = self.weight / self.std[:, None]
        bias = self.bias - self.mean @ weight
        return features.astype(np.float32) @ weight.astype(np.float32) + bias.astype(np.float32)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """(..., features) -> (..., classes) float32."""
        return softmax(self.logits(features))


def fit(features: np.ndarray, labels: np.ndarray, classes: int, *, penalty: float) -> Logistic:
    """Minimise mean cross-entropy + penalty / 2 * sum(weight^2) over all samples, by L-BFGS from zero.

    features  (n, features) float64
    labels    (n,) class ids below `classes`; a class without samples gets probability near 0
    Raises ValueError when there is no sample.
    """
    from scipy.optimize import minimize

    if not len(features):
        raise ValueError("baseline: no labelled sample in the training chips")
    mean, std = features.mean(0), features.std(0)
    std[std == 0] = 1.0  # a constant feature says nothing; it becomes 0
    x = np.ascontiguousarray(((features - mean) / std).T)  # samples last: sums over classes run along memory
    count, n = x.shape
    each = np.arange(n)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = flat[: count * classes].reshape(count, classes), flat[count * classes :]
        logits = weight.T @ x + bias[:, None]
        top = logits.max(0)
        scores = np.exp(logits - top)
        total = scores.sum(0)
        value = np.mean(np.log(total) + top - logits[labels, each]) + penalty / 2 * np.sum(weight**2)
        scores /= total
        scores[labels, each] -= 1
        gradient = np.concatenate([(x @ scores.T / n + penalty * weight).ravel(), scores.mean(1)])
        return float(value), gradient

    start = np.zeros((count + 1) * classes)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-9, "gtol": 1e-5})
    weight, bias = found.x[: count * classes].reshape(count, classes), found.x[count * classes :]
    return Logistic(mean, std, weight, bias, float(found.fun), int(found.nit), bool(found.success))


# --- training samples ----------------------------------------------------------------------------------------------


def chip_features(images: np.ndarray) -> np.ndarray:
    """Mean and standard deviation of every band: (n, rows, cols, bands) -> (n, 2 bands) float64."""
    values = images.reshape(len(images), -1, images.shape[-1]).astype(np.float64)
    return np.concatenate([values.mean(1), values.std(1)], 1)


def _chip_sample(chips: Chips, rows: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    features = np.concatenate(
        [chip_features(chips.images[part]) for part in np.array_split(rows, len(rows) // 256 + 1)]
    )
    return features, chips.labels[rows].astype(np.int64)


def _places(chips: Chips, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`count` random pixels (chip, row, col) of the chips `rows`, sorted by chip so that a file is read in order."""
    words = philox.bits(SEED, 0, 0, _OP_PIXELS, 2 * count).astype(np.uint64)
    high, wide = chips.shape
    chip = rows[(words[0::2] * np.uint64(len(rows)) >> np.uint64(32)).astype(np.int64)]
    pixel = (words[1::2] * np.uint64(high * wide) >> np.uint64(32)).astype(np.int64)
    order = np.argsort(chip, kind="stable")
    return chip[order], pixel[order] // wide, pixel[order] % wide


def _pixel_sample(chips: Chips, rows: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    chip, row, col = _places(chips, rows, PIXELS)
    labels = chips.labels[chip, row, col].astype(np.int64)
    known = labels != IGNORE
    return chips.images[chip[known], row[known], col[known]].astype(np.float64), labels[known]


def _box_sample(chips: Chips, rows: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the classes and of the background (the last class), as many of each where there are enough.

    Objects cover little of a scene: among pixels drawn evenly the background would always be the best guess.
    """
    chip, row, col = _places(chips, rows, 4 * PIXELS)
    labels = np.full(len(chip), classes, np.int64)
    first = np.searchsorted(chip, rows)
    last = np.searchsorted(chip, rows, side="right")
    for index, low, high in zip(rows, first, last):
        for box in range(int(chips.box_start[index]), int(chips.box_start[index + 1])):
            ymin, xmin, ymax, xmax = chips.boxes[box]
            y, x = row[low:high] + 0.5, col[low:high] + 0.5  # a pixel belongs to a box that holds its centre
            inside = (y >= ymin) & (y < ymax) & (x >= xmin) & (x < xmax)
            labels[low:high][inside] = chips.box_class[box]
    share = max(1, PIXELS // (classes + 1))
    kept = np.concatenate([_spread(np.flatnonzero(labels == c), share) for c in range(classes + 1)])
    return chips.images[chip[kept], row[kept], col[kept]].astype(np.float64), labels[kept]


def _spread(index: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of `index`, evenly spaced, so that they come from all chips."""
    return index if len(index) <= count else index[np.linspace(0, len(index) - 1, count).astype(np.int64)]


SAMPLES = {"classification": _chip_sample, "segmentation": _pixel_sample, "detection": _box_sample}


# --- predictions ---------------------------------------------------------------------------------------------------


def _chip_scores(model: Logistic, images: np.ndarray) -> np.ndarray:
    return model.probabilities(chip_features(images))


def _pixel_scores(model: Logistic, images: np.ndarray) -> np.ndarray:
    return np.stack([model.probabilities(image) for image in images])


def _component_boxes(model: Logistic, images: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    classes = len(model.bias) - 1
    return [boxes_of(model.probabilities(image), classes, LEAST) for image in images]


SCORES = {"classification": _chip_scores, "segmentation": _pixel_scores, "detection": _component_boxes}


def boxes_of(scores: np.ndarray, classes: int, least: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A box around every connected area (8 neighbours) of one class in pixel scores (rows, cols, classes + 1).

    The last class is the background. Areas of fewer than `least` pixels are left out. A box's score is the mean
    probability of its class over the area. Returns (boxes (k, 4) float32, scores (k,) float32, classes (k,) int32).
    """
    from scipy import ndimage

    best = scores.argmax(-1)
    boxes, means, ids = [], [], []
    for c in range(classes):
        areas, count = ndimage.label(best == c, structure=np.ones((3, 3)))
        if not count:
            continue
        size = np.bincount(areas.ravel(), minlength=count + 1)[1:]
        mean = np.bincount(areas.ravel(), scores[..., c].ravel().astype(np.float64), count + 1)[1:] / size
        for place, pixels, score in zip(ndimage.find_objects(areas), size, mean):
            if pixels >= least:
                boxes.append((place[0].start, place[1].start, place[0].stop, place[1].stop))
                means.append(score)
                ids.append(c)
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(means, np.float32), np.array(ids, np.int32)
