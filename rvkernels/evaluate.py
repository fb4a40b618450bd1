"""Predictions against labels: eval.json with Raster Vision's keys and ours.

    overall        Raster Vision's items, one per class and the average
    per_scene      the same by scene id; classification: of scenes with several cells
    task, split    what was evaluated
    primary        the name of the task's main metric, a key of the summaries
    summary        {"overall": {metric: value}, "per_scene": {scene: {metric: value}}}; null = undefined
    calibration    classification: the reliability table (metrics.calibration)
    curves         classification and detection (IoU 0.5): per class_id and class_name the precision and the score at
                   recalls 0, 0.01, ..., 1 (metrics.Curves)
    worst          up to 24, the worst first, with scene, row, col, rows and cols. Classification: cells that are wrong
                   with the highest score, with truth, prediction and score. Segmentation: windows with the largest
                   share of wrong pixels, with wrong (a share) and known (pixels). Detection: windows with the most
                   errors, with missed and false boxes and those found, all above the score shown

What is counted: segmentation pixels, classification cells, detection boxes; only inside the predicted regions and the
area of interest, and not where labels say ignore or the imagery has no data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from rvkernels import labels, metrics, registry
from rvkernels.dataset import is_vector
from rvkernels.files import write_json
from rvkernels.metrics import ClassCounts, Detected, divide
from rvkernels.ops import tile
from rvkernels.ops.confusion import confusion
from rvkernels.ops.windows import tiles
from rvkernels.predictions import UNSEEN, Predictions, scene_file
from rvkernels.scene import Region, Scene

BLOCK = 2048  # rows and columns evaluated at a time
WINDOW = 256  # rows and columns of which it is said how wrong they are
WORST = 24  # of which it is said
METRICS = ("recall", "precision", "f1", "sensitivity", "specificity")


def evaluate(
    *,
    predictions: str | Path,
    scenes: Mapping[str, Scene],
    classes: Sequence[Mapping[str, Any]],
    out: str | Path,
    background: str | None = None,
    all_touched: bool = False,
    min_share: float = 0.5,
    min_area: float = 0.5,
    threads: int = 1,
) -> None:
    """Evaluate the folder `predictions` and write `out` (eval.json).

    scenes, classes     those of the dataset
    background          class of what no shape covers (segmentation: pixels, classification: cells); None: not counted
    all_touched         segmentation: burn every pixel a shape touches
    min_share           classification: share of a cell that a class must cover
    min_area            detection: share of its area that a labelled box must have in the predicted region to be looked
                        for; boxes with less are ignored
    These are to be what the training chips were labelled with (rvkernels/chip.py).

    Raises ValueError when the predictions are of other classes or scenes, when a labelled pixel with data has no
    prediction, and when nothing was labelled at all.
    """
    made = Predictions.read(predictions)
    names = [c["name"] for c in classes]
    if made.classes != names:
        raise ValueError(f"{predictions}: predicted classes are {', '.join(made.classes)}, not {', '.join(names)}")
    unknown = [s for s in made.scenes if s not in scenes]
    if unknown:
        raise ValueError(f"{predictions}: scene {unknown[0]!r} is not in the dataset")
    how = {
        "background": background,
        "all_touched": all_touched,
        "min_share": min_share,
        "min_area": min_area,
        "threads": threads,
    }
    judge = {"classification": _classification, "segmentation": _segmentation, "detection": _detection}[made.task]
    result = judge(made, Path(predictions), scenes, classes, how)
    primary = registry.load("tasks", made.task).PRIMARY
    write_json(out, metrics.to_json({"task": made.task, "split": made.split, "primary": primary, **result}))


# --- items in Raster Vision's form ---------------------------------------------------------------------------------


def _item(counts: ClassCounts, c: int, name: str, number: type) -> dict:
    """What all tasks say of a class. F1 is undefined where precision and recall are both 0, as Raster Vision has it."""
    precision, recall = float(counts.precision[c]), float(counts.recall[c])
    truth, predicted = int(counts.tp[c] + counts.fn[c]), int(counts.tp[c] + counts.fp[c])
    return {
        "class_id": c,
        "class_name": name,
        "gt_count": number(truth),
        "pred_count": number(predicted),
        "count_error": number(abs(truth - predicted)),
        "metrics": {
            "recall": recall,
            "precision": precision,
            "f1": float(divide(2 * precision * recall, precision + recall)),
            "sensitivity": recall,
            "specificity": float(counts.specificity[c]),
        },
    }


def _average(items: Sequence[Mapping], number: type) -> dict:
    """Means weighted by gt_count, undefined values counted as 0; sums of the counts."""
    weights = np.array([item["gt_count"] for item in items], np.float64)
    values = np.array([[item["metrics"][m] for m in METRICS] for item in items], np.float64)
    total = weights.sum()
    mean = weights @ np.nan_to_num(values) / total if total else np.zeros(len(METRICS))
    return {
        "class_name": "average",
        "metrics": dict(zip(METRICS, mean.tolist())),
        **{key: number(sum(item[key] for item in items)) for key in ("gt_count", "pred_count", "count_error")},
    }


def matrix_items(matrix: np.ndarray, names: Sequence[str], number: type) -> list[dict]:
    """Items of a confusion matrix (classes, classes), rows = truth; counts are `number` (int or float)."""
    counts = ClassCounts.of_matrix(matrix)
    total = int(matrix.sum())
    items = []
    for c, name in enumerate(names):
        cells = {key: number(getattr(counts, key.lower())[c]) for key in ("TN", "FP", "FN", "TP")}
        shares = {key: float(divide(value, total)) for key, value in cells.items()}
        items.append(
            {
                **_item(counts, c, name, number),
                "relative_frequency": float(divide(counts.tp[c] + counts.fn[c], total)),
                "conf_mat": [[cells["TN"], cells["FP"]], [cells["FN"], cells["TP"]]],
                "conf_mat_frac": [[shares["TN"], shares["FP"]], [shares["FN"], shares["TP"]]],
                "conf_mat_dict": cells,
                "conf_mat_frac_dict": shares,
                "iou": float(counts.iou[c]),
            }
        )
    average = {
        **_average(items, number),
        "conf_mat": [[number(v) for v in row] for row in matrix],
        "conf_mat_frac": divide(matrix, total).tolist(),
    }
    return [*items, average]


def detection_items(counts: ClassCounts, precision: Mapping[str, np.ndarray], names: Sequence[str]) -> list[dict]:
    """Items of detection counts and average precisions (metrics.average_precision)."""
    items = []
    for c, name in enumerate(names):
        item = _item(counts, c, name, float)
        item["metrics"]["specificity"] = float("nan")  # there are no boxes that are rightly absent to count
        found = {"true_pos": counts.tp[c], "false_pos": counts.fp[c], "false_neg": counts.fn[c]}
        items.append(
            {**item, **{k: float(v) for k, v in found.items()}, **{k: float(v[c]) for k, v in precision.items()}}
        )
    return [*items, _average(items, float)]


def _curves(curves: metrics.Curves, names: Sequence[str]) -> list[dict]:
    return [
        {
            "class_id": c,
            "class_name": name,
            "precision": curves.precision[c].round(6),
            "score": curves.score[c].round(6),
        }
        for c, name in enumerate(names)
    ]


def _nothing(predictions: Path, what: str) -> ValueError:
    return ValueError(f"{predictions}: no {what} in the predicted regions, so there is nothing to evaluate")


# --- tasks ---------------------------------------------------------------------------------------------------------


def _matrix_result(whole: np.ndarray, matrices: Mapping[str, np.ndarray], names: Sequence[str], number: type) -> dict:
    return {
        "overall": matrix_items(whole, names, number),
        "per_scene": {scene: matrix_items(matrix, names, number) for scene, matrix in matrices.items()},
        "summary": {
            "overall": metrics.matrix_summary(whole),
            "per_scene": {scene: metrics.matrix_summary(matrix) for scene, matrix in matrices.items()},
        },
    }


def _segmentation(
    made: Predictions, folder: Path, scenes: Mapping[str, Scene], classes: Sequence[Mapping], how: Mapping
) -> dict:
    matrices, errors = {}, []
    for name in made.scenes:
        scene = scenes[name]
        predicted = tile.Raster(scene_file(folder, name, "") / "labels.tif")
        features = labels.load_features(scene, classes) if is_vector(scene.labels or "") else None
        options = {"features": features, "background": how["background"], "all_touched": how["all_touched"]}
        matrix = np.zeros((len(classes), len(classes)), np.int64)
        for region in made.scene_regions(name):
            grid = _Grid(region)
            for windows in tiles(region.extent, BLOCK):
                for window in windows[:, None]:  # one at a time: a block of this size is work for all threads
                    truth = labels.masks(scene, window, classes, **options, threads=how["threads"])
                    found = predicted.read(window, threads=how["threads"])[..., 0]
                    _check_covered(scene, window, truth, found, how["threads"])
                    matrix += confusion(truth, found, len(classes), ignore=labels.IGNORE, threads=how["threads"])
                    known = (truth != labels.IGNORE) & (found != UNSEEN)
                    grid.count("known", window[0], known[0])
                    grid.count("wrong", window[0], (known & (truth != found))[0])
            errors += grid.windows()
        matrices[name] = matrix
    whole = np.sum(list(matrices.values()), axis=0)
    if not whole.any():
        raise _nothing(folder, "labelled pixel")
    return {**_matrix_result(whole, matrices, made.classes, float), "worst": _worst_windows(errors)}


class _Grid:
    """Counts per window of WINDOW rows and columns of a region."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.shape = (-(-region.rows // WINDOW), -(-region.cols // WINDOW))
        self.counts: dict[str, np.ndarray] = {}

    def count(self, name: str, window: np.ndarray, mask: np.ndarray) -> None:
        """Count the pixels of `mask` (rows, cols), which lies at `window` (row, col, rows, cols) of the scene."""
        row, col, rows, cols = (int(v) for v in window)
        down = (row - self.region.row + np.arange(rows)) // WINDOW
        right = (col - self.region.col + np.arange(cols)) // WINDOW
        by_row = np.add.reduceat(mask, np.flatnonzero(np.diff(down, prepend=-1)), axis=0, dtype=np.int64)
        sums = np.add.reduceat(by_row, np.flatnonzero(np.diff(right, prepend=-1)), axis=1)
        total = self.counts.setdefault(name, np.zeros(self.shape, np.int64))
        total[np.ix_(np.unique(down), np.unique(right))] += sums

    def count_points(self, name: str, points: np.ndarray) -> None:
        """Count points (n, 2) of rows and columns of the region."""
        total = self.counts.setdefault(name, np.zeros(self.shape, np.int64))
        place = np.clip((points // WINDOW).astype(np.int64), 0, np.array(self.shape) - 1)
        np.add.at(total, tuple(place.T), 1)

    def windows(self) -> list[dict]:
        """Every window with its counts."""
        r = self.region
        found = []
        for i, j in np.ndindex(self.shape):
            row, col = i * WINDOW, j * WINDOW
            size = {"rows": min(WINDOW, r.rows - row), "cols": min(WINDOW, r.cols - col)}
            counts = {name: int(values[i, j]) for name, values in self.counts.items()}
            found.append({"scene": r.scene, "row": r.row + row, "col": r.col + col, **size, **counts})
        return found


def _worst_windows(windows: Sequence[Mapping]) -> list[dict]:
    """Of those that are labelled by half at least, the ones with the largest share of wrong pixels."""
    labelled = [w for w in windows if 2 * w["known"] >= WINDOW * WINDOW] or [w for w in windows if w["known"]]
    worst = sorted(labelled, key=lambda w: -w["wrong"] / w["known"])[:WORST]
    return [{**w, "wrong": w["wrong"] / w["known"]} for w in worst if w["wrong"]]


def _check_covered(scene: Scene, window: np.ndarray, truth: np.ndarray, found: np.ndarray, threads: int) -> None:
    """A labelled pixel without a prediction is left out only where the imagery has no data."""
    missing = (found == UNSEEN) & (truth != labels.IGNORE)
    if not missing.any():
        return
    _, valid = tile.read(scene.images, window, valid=True, threads=threads)
    if (valid[missing] == 1).any():
        raise ValueError(
            f"scene {scene.id}: {int((valid[missing] == 1).sum())} labelled pixels have data but no prediction; "
            f"run `rvk predict` again"
        )


def _classification(
    made: Predictions, folder: Path, scenes: Mapping[str, Scene], classes: Sequence[Mapping], how: Mapping
) -> dict:
    known = labels.Classes(classes)
    cells, scores = made.arrays["cells"], made.arrays["scores"]
    truth = np.full(len(cells), -1, np.int64)
    start = 0
    for index, name in enumerate(made.scenes):
        end = start + int(np.searchsorted(cells[start:, 0], index, side="right"))
        scene, some = scenes[name], cells[start:end, 1:]
        if scene.class_name is not None:
            truth[start:end] = known.id(scene.class_name, f"scene {name}")
        else:
            options = {"min_share": how["min_share"], "background": how["background"]}
            found = labels.cells(scene, some, classes, **options)
            truth[start:end] = np.where(labels.in_aoi(some, labels.aoi(scene)), found, -1)
        start = end
    counted = truth >= 0
    if not counted.any():
        raise _nothing(folder, "labelled cell")
    cells, scores, truth = cells[counted], scores[counted], truth[counted]
    bounds = np.searchsorted(cells[:, 0], np.arange(len(made.scenes) + 1))
    parts = {name: slice(bounds[i], bounds[i + 1]) for i, name in enumerate(made.scenes)}
    matrices = {
        name: metrics.score_matrix(scores[part], truth[part])
        for name, part in parts.items()
        if part.stop - part.start > 1
    }
    result = _matrix_result(metrics.score_matrix(scores, truth), matrices, made.classes, int)
    result["summary"]["overall"] = metrics.classification_summary(scores, truth)
    result["calibration"] = metrics.calibration(scores, truth)[1]
    result["curves"] = _curves(metrics.score_curves(scores, truth), made.classes)
    predicted = scores.argmax(1)
    wrong = np.flatnonzero(predicted != truth)
    worst = wrong[np.argsort(-scores[wrong, predicted[wrong]], kind="stable")][:WORST]
    result["worst"] = [
        {
            "scene": made.scenes[cells[i, 0]],
            **dict(zip(("row", "col", "rows", "cols"), cells[i, 1:])),
            "truth": made.classes[truth[i]],
            "prediction": made.classes[predicted[i]],
            "score": scores[i, predicted[i]],
        }
        for i in worst
    ]
    return result


def _detection(
    made: Predictions, folder: Path, scenes: Mapping[str, Scene], classes: Sequence[Mapping], how: Mapping
) -> dict:
    images = {}
    start = 0
    for index, name in enumerate(made.scenes):
        end = start + int(np.searchsorted(made.arrays["box_scene"][start:], index, side="right"))
        boxes, box_class, scores = (made.arrays[k][start:end] for k in ("boxes", "box_class", "scores"))
        features = labels.load_features(scenes[name], classes)
        area = labels.aoi(scenes[name])
        images[name] = [
            detected_in(region, features, area, boxes, box_class, scores, how["min_area"])
            for region in made.scene_regions(name)
        ]
        start = end
    every = [image for found in images.values() for image in found]
    if not sum((~image.ignored).sum() for image in every):
        raise _nothing(folder, "labelled box")
    show = made.settings["score_show"]
    result: dict = {"per_scene": {}, "summary": {"per_scene": {}}}
    for name, found in images.items():
        result["per_scene"][name], result["summary"]["per_scene"][name], _ = _boxes_result(found, made.classes, show)
    result["overall"], result["summary"]["overall"], curves = _boxes_result(every, made.classes, show)
    result["curves"] = _curves(curves, made.classes)
    regions = [region for name in images for region in made.scene_regions(name)]
    windows = [w for region, image in zip(regions, every) for w in _box_errors(region, image.above(show))]
    windows.sort(key=lambda w: -(w["missed"] + w["false"]))
    result["worst"] = [w for w in windows[:WORST] if w["missed"] + w["false"]]
    return result


def _box_errors(region: Region, image: Detected) -> list[dict]:
    """Boxes found, missed and false per window, each counted where its centre is."""
    matched = metrics.match(image)
    right = np.zeros(len(image.truth), bool)
    right[matched[matched >= 0]] = True
    grid = _Grid(region)
    centres = (image.truth[:, :2] + image.truth[:, 2:]) / 2
    grid.count_points("found", centres[right])
    grid.count_points("missed", centres[~right & ~image.ignored])
    grid.count_points("false", ((image.boxes[:, :2] + image.boxes[:, 2:]) / 2)[matched == -1])
    return grid.windows()


def detected_in(
    region: Region,
    features: labels.Features,
    area: Sequence[shapely.Polygon] | None,
    boxes: np.ndarray,
    box_class: np.ndarray,
    scores: np.ndarray,
    min_area: float = 0.5,
) -> Detected:
    """Truth and detections of one region.

    Labelled boxes are cut at the region's edges. A box of which less than `min_area` is left, or whose centre lies
    outside the area of interest, is ignored: whoever finds it is neither right nor wrong. Detections belong to the
    region that holds their centre; those with a centre outside the area of interest are dropped.
    """
    window = (region.row, region.col, region.rows, region.cols)
    truth, rows = labels.boxes_in(features.boxes, window, min_share=0.0)
    whole, part = features.boxes[rows].astype(np.float64), truth.astype(np.float64)
    share = divide(np.prod(part[:, 2:] - part[:, :2], 1), np.prod(whole[:, 2:] - whole[:, :2], 1))
    ignored = (share < min_area) | ~_centre_in(whole, area)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = (centre >= (region.row, region.col)).all(1)
    inside &= (centre < (region.row + region.rows, region.col + region.cols)).all(1)
    inside &= _centre_in(boxes, area)
    corner = np.array([region.row, region.col, region.row, region.col], np.float32)
    return Detected(
        truth,
        features.class_ids[rows].astype(np.int64),
        ignored,
        boxes[inside] - corner,
        box_class[inside],
        scores[inside],
    )


def _centre_in(boxes: np.ndarray, area: Sequence[shapely.Polygon] | None) -> np.ndarray:
    """Which boxes (n, 4) have their centre in the polygons, bool (n,); all when there are no polygons (None)."""
    if area is None:
        return np.ones(len(boxes), bool)
    whole = shapely.union_all(list(area))
    shapely.prepare(whole)
    return shapely.intersects_xy(whole, (boxes[:, 1] + boxes[:, 3]) / 2, (boxes[:, 0] + boxes[:, 2]) / 2)


def _boxes_result(
    images: Sequence[Detected], names: Sequence[str], show: float
) -> tuple[list[dict], dict[str, float], metrics.Curves]:
    """Items, summary and curves: precision over all detections, counts over those with a score of at least `show`."""
    precision, curves = metrics.detection_curves(images, len(names))
    counts = metrics.detection_counts([image.above(show) for image in images], len(names))
    tp, fp, fn = (int(values.sum()) for values in (counts.tp, counts.fp, counts.fn))
    summary = {
        **{name: metrics.mean_defined(values) for name, values in precision.items()},
        "precision": float(divide(tp, tp + fp)),
        "recall": float(divide(tp, tp + fn)),
        "f1": float(divide(2 * tp, 2 * tp + fp + fn)),
        "macro_f1": metrics.mean_defined(counts.f1),
    }
    return detection_items(counts, precision, names), summary, curves
