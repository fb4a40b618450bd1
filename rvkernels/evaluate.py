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
                   with the highest score, with truth, prediction and score. Segmentation: of windows that are
                   labelled by half at least, if there are any, those with the largest share of wrong pixels, with
                   wrong (a share) and known (pixels). Detection: windows with the most errors, with missed and false
                   boxes and those found, all above the score shown

Of several jobs (rvkernels/parts.py) each counts its part of the blocks (segmentation), cells (classification) or scenes
(detection, since boxes match across any other border), and `gather` makes the measures of all counts.

What is counted: segmentation pixels, classification cells, detection boxes; only inside the predicted regions and the
area of interest. Pixels do not count where labels say ignore or the imagery has no data, nor do cells that are labelled
by shapes and lack more data than a chip may.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from rvkernels import labels, metrics, raster, registry
from rvkernels.files import atomic, to_json, write_json
from rvkernels.metrics import ClassCounts, Detected, divide
from rvkernels.ops import tile
from rvkernels.ops.confusion import confusion
from rvkernels.ops.windows import tiles
from rvkernels.parts import WHOLE, Part, check_complete
from rvkernels.predictions import FILE, UNSEEN, Predictions, scene_file
from rvkernels.scene import Region, Scene, edges

BLOCK = 2048  # rows and columns evaluated at a time
WINDOW = 256  # about the rows and columns of which it is said how wrong they are
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
    nodata_max: float = 0.5,
    threads: int = 1,
    part: Part | None = None,
) -> None:
    """Evaluate the folder `predictions` and write `out` (eval.json); with `part` that part's counts, an .npz file.

    scenes, classes     those of the dataset
    background          class of what no shape covers (segmentation: pixels, classification: cells); None: not counted
    all_touched         segmentation: burn every pixel a shape touches
    min_share           classification: share of a cell that a class must cover
    min_area            detection: share of its area that a labelled box must have in the predicted region to be looked
                        for; boxes with less are ignored
    nodata_max          classification: greatest share of pixels without data of a cell that counts
    These are to be what the training chips were labelled with (rvkernels/chip.py).

    Raises ValueError when the predictions are of other classes or scenes, when a labelled pixel with data has no
    prediction, and when nothing was labelled at all.
    """
    judge = _judge(predictions, classes)
    unknown = [s for s in judge.made.scenes if s not in scenes]
    if unknown:
        raise ValueError(f"{predictions}: scene {unknown[0]!r} is not in the dataset")
    how = _How(scenes, background, all_touched, min_share, min_area, nodata_max, threads)
    counts = judge.count(how, part or WHOLE)
    if part is None:
        _write(out, judge, counts)
        return
    with atomic(out) as temporary, temporary.open("wb") as file:
        np.savez(file, part=[part.number, part.count], of=judge.digest, **counts)


def gather(
    parts: Sequence[str | Path],
    *,
    predictions: str | Path,
    classes: Sequence[Mapping[str, Any]],
    out: str | Path,
) -> None:
    """Write `out` (eval.json) from the counts of all parts: the file of a single job.

    Raises FileNotFoundError for a missing part, and ValueError when the parts are not those of one whole or of other
    predictions, and when nothing was labelled at all.
    """
    judge = _judge(predictions, classes)
    found = [_read_part(Path(path), judge) for path in parts]
    check_complete((path, part) for path, (part, _) in zip(parts, found))
    counts = [counts for _, counts in found]
    _write(out, judge, {name: judge.merge([one[name] for one in counts]) for name in counts[0]})


def _read_part(path: Path, judge: _Judge) -> tuple[Part, dict[str, np.ndarray]]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; run `rvk evaluate --part` first")
    try:
        with np.load(path, allow_pickle=False) as file:
            counts = {name: file[name] for name in file.files}
        part, of = Part(*counts.pop("part").tolist()), str(counts.pop("of"))
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, AttributeError) as error:
        raise ValueError(f"{path}: not counts of `rvk evaluate --part` ({error}); run it again") from None
    if of != judge.digest:
        raise ValueError(f"{path}: counts of other predictions than {judge.folder}; run `rvk evaluate --part` again")
    return part, counts


def _judge(predictions: str | Path, classes: Sequence[Mapping[str, Any]]) -> _Judge:
    made = Predictions.read(predictions)
    names = [c["name"] for c in classes]
    if made.classes != names:
        raise ValueError(f"{predictions}: predicted classes are {', '.join(made.classes)}, not {', '.join(names)}")
    return JUDGES[made.task](made, Path(predictions), classes)


def _write(out: str | Path, judge: _Judge, counts: Mapping[str, np.ndarray]) -> None:
    made = judge.made
    primary = registry.load("tasks", made.task).PRIMARY
    about = {"task": made.task, "split": made.split, "primary": primary}
    write_json(out, to_json({**about, **judge.result(counts)}))


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
    """Items of detection counts and average precisions (metrics.detection_curves)."""
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


@dataclass(frozen=True)
class _How:
    """What is counted how: see `evaluate`."""

    scenes: Mapping[str, Scene]
    background: str | None
    all_touched: bool
    min_share: float
    min_area: float
    nodata_max: float
    threads: int


class _Judge(ABC):
    """Predictions of one task: what a part of them counts, and what all counts together say.

    merge  makes one array of those that the parts have under a name
    """

    merge: Callable[[list[np.ndarray]], np.ndarray]

    def __init__(self, made: Predictions, folder: Path, classes: Sequence[Mapping]) -> None:
        self.made, self.folder, self.classes = made, folder, classes
        self.regions = [region for name in made.scenes for region in made.scene_regions(name)]

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the file of predictions, for which counts are kept with it."""
        return hashlib.sha256((self.folder / FILE).read_bytes()).hexdigest()

    @abstractmethod
    def count(self, how: _How, part: Part) -> dict[str, np.ndarray]:
        """The counts of a part."""

    @abstractmethod
    def result(self, counts: Mapping[str, np.ndarray]) -> dict:
        """Items, summaries and the worst, of the counts of all parts."""


def _matrix_result(whole: np.ndarray, matrices: Mapping[str, np.ndarray], names: Sequence[str], number: type) -> dict:
    return {
        "overall": matrix_items(whole, names, number),
        "per_scene": {scene: matrix_items(matrix, names, number) for scene, matrix in matrices.items()},
        "summary": {
            "overall": metrics.matrix_summary(whole),
            "per_scene": {scene: metrics.matrix_summary(matrix) for scene, matrix in matrices.items()},
        },
    }


class _Segmentation(_Judge):
    """Counts: matrix (scenes, classes, classes), and known and wrong pixels of every window of all regions' grids."""

    merge = staticmethod(sum)

    def count(self, how: _How, part: Part) -> dict[str, np.ndarray]:
        made, classes = self.made, len(self.classes)
        grids = [_Grid(region) for region in self.regions]
        matrix = np.zeros((len(made.scenes), classes, classes), np.int64)
        blocks = [(i, block) for i, r in enumerate(self.regions) for some in tiles(r.extent, BLOCK) for block in some]
        first, last = part.bounds(len(blocks))
        for name, some in itertools.groupby(blocks[first:last], key=lambda block: self.regions[block[0]].scene):
            scene = how.scenes[name]
            predicted = tile.Raster(scene_file(self.folder, name, "") / "labels.tif")
            options = {"background": how.background, "all_touched": how.all_touched, "threads": how.threads}
            truths = labels.SceneMasks(scene, self.classes, **options)
            for index, block in some:  # one at a time: a block of this size is work for all threads
                window = block[None]
                truth = truths.read(window)
                found = predicted.read(window, threads=how.threads)[..., 0]
                _check_covered(scene, window, truth, found, how.threads)
                pair = confusion(truth, found, classes, ignore=labels.IGNORE, threads=how.threads)
                matrix[made.scenes.index(name)] += pair
                known = (truth != labels.IGNORE) & (found != UNSEEN)
                grids[index].count("known", block, known[0])
                grids[index].count("wrong", block, (known & (truth != found))[0])
        return {"matrix": matrix, **_flat(grids, ("known", "wrong"))}

    def result(self, counts: Mapping[str, np.ndarray]) -> dict:
        if not counts["matrix"].any():
            raise _nothing(self.folder, "labelled pixel")
        matrices = dict(zip(self.made.scenes, counts["matrix"]))
        items = _matrix_result(counts["matrix"].sum(axis=0), matrices, self.made.classes, float)
        return {**items, "worst": _worst_windows(_windows(self.regions, counts, ("known", "wrong")))}


class _Grid:
    """Counts per window of a region, which is cut evenly into windows of about WINDOW rows and columns.

    rows, cols  the first ones of the windows, counted from the region's corner, and the end of the last
    """

    def __init__(self, region: Region) -> None:
        self.region = region
        self.rows, self.cols = (edges(length, WINDOW) for length in (region.rows, region.cols))
        self.shape = (len(self.rows) - 1, len(self.cols) - 1)
        self.counts: dict[str, np.ndarray] = {}

    def count(self, name: str, window: np.ndarray, mask: np.ndarray) -> None:
        """Count the pixels of `mask` (rows, cols), which lies at `window` (row, col, rows, cols) of the scene."""
        row, col, rows, cols = (int(v) for v in window)
        down = _place(self.rows, row - self.region.row + np.arange(rows))
        right = _place(self.cols, col - self.region.col + np.arange(cols))
        by_row = np.add.reduceat(mask, np.flatnonzero(np.diff(down, prepend=-1)), axis=0, dtype=np.int64)
        sums = np.add.reduceat(by_row, np.flatnonzero(np.diff(right, prepend=-1)), axis=1)
        total = self.counts.setdefault(name, np.zeros(self.shape, np.int64))
        total[np.ix_(np.unique(down), np.unique(right))] += sums

    def count_points(self, name: str, points: np.ndarray) -> None:
        """Count points (n, 2) of rows and columns of the region."""
        total = self.counts.setdefault(name, np.zeros(self.shape, np.int64))
        np.add.at(total, (_place(self.rows, points[:, 0]), _place(self.cols, points[:, 1])), 1)


def _place(ends: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The piece that each point lies in; one beyond the ends in the nearest."""
    return np.clip(np.searchsorted(ends, points, side="right") - 1, 0, len(ends) - 2)


def _flat(grids: Sequence[_Grid], names: Sequence[str]) -> dict[str, np.ndarray]:
    """The counts of all grids one after the other."""
    flat = {}
    for name in names:
        counts = [grid.counts.get(name, np.zeros(grid.shape, np.int64)).ravel() for grid in grids]
        flat[name] = np.concatenate([np.zeros(0, np.int64), *counts])
    return flat


def _windows(regions: Sequence[Region], flat: Mapping[str, np.ndarray], names: Sequence[str]) -> list[dict]:
    """Every window of the regions' grids with its counts, of those of `_flat`."""
    found = []
    for r in regions:
        grid = _Grid(r)
        for i, j in np.ndindex(grid.shape):
            (row, last_row), (col, last_col) = grid.rows[i : i + 2].tolist(), grid.cols[j : j + 2].tolist()
            place = {"row": r.row + row, "col": r.col + col, "rows": last_row - row, "cols": last_col - col}
            found.append({"scene": r.scene, **place, **{name: int(flat[name][len(found)]) for name in names}})
    return found


def _worst_windows(windows: Sequence[Mapping]) -> list[dict]:
    """Of those that are labelled by half at least, the ones with the largest share of wrong pixels."""
    labelled = [w for w in windows if 2 * w["known"] >= w["rows"] * w["cols"]] or [w for w in windows if w["known"]]
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
            f"run `rvk predict-regions` again"
        )


class _Classification(_Judge):
    """Counts: truth (cells,), the class of each or -1."""

    merge = staticmethod(np.concatenate)

    def count(self, how: _How, part: Part) -> dict[str, np.ndarray]:
        known = labels.Classes(self.classes)
        first, last = part.bounds(len(self.made.arrays["cells"]))
        cells = self.made.arrays["cells"][first:last]
        truth = np.full(len(cells), -1, np.int64)
        bounds = np.searchsorted(cells[:, 0], np.arange(len(self.made.scenes) + 1))
        for name, start, end in zip(self.made.scenes, bounds, bounds[1:]):
            if start == end:
                continue
            scene, some = how.scenes[name], cells[start:end, 1:]
            if scene.class_name is not None:
                truth[start:end] = known.id(scene.class_name, f"scene {name}")
            else:
                options = {"min_share": how.min_share, "background": how.background}
                found = labels.cells(scene, some, self.classes, **options)
                counted = labels.in_aoi(some, labels.aoi(scene)) & (_lacking(scene, some, how) <= how.nodata_max)
                truth[start:end] = np.where(counted, found, -1)
        return {"truth": truth}

    def result(self, counts: Mapping[str, np.ndarray]) -> dict:
        made, truth = self.made, counts["truth"]
        counted = truth >= 0
        if not counted.any():
            raise _nothing(self.folder, "labelled cell")
        cells, scores, truth = made.arrays["cells"][counted], made.arrays["scores"][counted], truth[counted]
        bounds = np.searchsorted(cells[:, 0], np.arange(len(made.scenes) + 1))
        parts = {name: slice(bounds[i], bounds[i + 1]) for i, name in enumerate(made.scenes)}
        matrices = {
            name: metrics.score_matrix(scores[part], truth[part])
            for name, part in parts.items()
            if part.stop - part.start > 1
        }
        result = _matrix_result(metrics.score_matrix(scores, truth), matrices, made.classes, int)
        result["summary"]["overall"]["ece"], result["calibration"] = metrics.calibration(scores, truth)
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


def _lacking(scene: Scene, cells: np.ndarray, how: _How) -> np.ndarray:
    """The share of pixels without data of each cell (n, 4), float64."""
    about = [raster.describe(image) for image in scene.images]
    if not any(a["nodata"] is not None or a["alpha"] or a["mask"] or a["dtype"] == "float32" for a in about):
        return np.zeros(len(cells))
    image, share = tile.Raster(scene.images), np.empty(len(cells))
    for size in np.unique(cells[:, 2:], axis=0):
        of_size = np.flatnonzero((cells[:, 2:] == size).all(1))
        step = max(1, BLOCK**2 // int(size.prod()))
        for first in range(0, len(of_size), step):
            some = of_size[first : first + step]
            _, valid = image.read(np.ascontiguousarray(cells[some]), valid=True, threads=how.threads)
            share[some] = 1 - valid.mean(axis=(1, 2), dtype=np.float64)
    return share


class _Detection(_Judge):
    """Counts, region by region: the arrays of Detected one after the other with how many each has, found, missed and
    false boxes of every window of its grid; scene by scene, as JSON: its items and summary."""

    merge = staticmethod(np.concatenate)

    def count(self, how: _How, part: Part) -> dict[str, np.ndarray]:
        made, show = self.made, self.made.settings["score_show"]
        first, last = part.bounds(len(made.scenes))
        bounds = np.searchsorted(made.arrays["box_scene"], np.arange(len(made.scenes) + 1))
        images: list[Detected] = []
        grids: list[_Grid] = []
        told = []
        for index in range(first, last):
            name, some = made.scenes[index], slice(bounds[index], bounds[index + 1])
            boxes, box_class, scores = (made.arrays[k][some] for k in ("boxes", "box_class", "scores"))
            features = labels.load_features(how.scenes[name], self.classes)
            area = labels.aoi(how.scenes[name])
            regions = made.scene_regions(name)
            found = [detected_in(region, features, area, boxes, box_class, scores, how.min_area) for region in regions]
            images += found
            grids += [_box_errors(region, image.above(show)) for region, image in zip(regions, found)]
            told.append(json.dumps(to_json(_boxes_result(found, made.classes, show)[:2])))
        return {**_packed(images), **_flat(grids, _ERRORS), "told": np.array(told, np.str_)}

    def result(self, counts: Mapping[str, np.ndarray]) -> dict:
        made = self.made
        images = _unpacked(counts)
        if not sum((~image.ignored).sum() for image in images):
            raise _nothing(self.folder, "labelled box")
        told = {name: json.loads(text) for name, text in zip(made.scenes, counts["told"].tolist())}
        items, summary, curves = _boxes_result(images, made.classes, made.settings["score_show"])
        windows = _windows(self.regions, counts, _ERRORS)
        windows.sort(key=lambda w: -(w["missed"] + w["false"]))
        return {
            "per_scene": {name: items for name, (items, _) in told.items()},
            "summary": {"per_scene": {name: summary for name, (_, summary) in told.items()}, "overall": summary},
            "overall": items,
            "curves": _curves(curves, made.classes),
            "worst": [w for w in windows[:WORST] if w["missed"] + w["false"]],
        }


JUDGES: dict[str, type[_Judge]] = {
    "classification": _Classification,
    "segmentation": _Segmentation,
    "detection": _Detection,
}
_ERRORS = ("found", "missed", "false")
# The arrays of Detected with a row per labelled box, and with one per detection.
_TRUTH, _FOUND = ("truth", "truth_class", "ignored"), ("boxes", "box_class", "scores")


def _packed(images: Sequence[Detected]) -> dict[str, np.ndarray]:
    empty = Detected()  # arrays have their shapes also when there is no image
    packed = {name: np.concatenate([getattr(image, name) for image in (empty, *images)]) for name in (*_TRUTH, *_FOUND)}
    packed["truth_count"] = np.array([len(image.truth) for image in images], np.int64)
    packed["box_count"] = np.array([len(image.boxes) for image in images], np.int64)
    return packed


def _unpacked(packed: Mapping[str, np.ndarray]) -> list[Detected]:
    truth, boxes = (np.cumsum([0, *packed[count]]) for count in ("truth_count", "box_count"))
    return [
        Detected(
            **{name: packed[name][truth[i] : truth[i + 1]] for name in _TRUTH},
            **{name: packed[name][boxes[i] : boxes[i + 1]] for name in _FOUND},
        )
        for i in range(len(packed["truth_count"]))
    ]


def _box_errors(region: Region, image: Detected) -> _Grid:
    """Boxes found, missed and false per window, each counted where its centre is."""
    matched = metrics.match(image)
    right = np.zeros(len(image.truth), bool)
    right[matched[matched >= 0]] = True
    grid = _Grid(region)
    centres = (image.truth[:, :2] + image.truth[:, 2:]) / 2
    grid.count_points("found", centres[right])
    grid.count_points("missed", centres[~right & ~image.ignored])
    grid.count_points("false", ((image.boxes[:, :2] + image.boxes[:, 2:]) / 2)[matched == -1])
    return grid


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
