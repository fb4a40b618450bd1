"""Every metric, in one place: formulas on counts, scores and boxes; no files, no frameworks.

Divisions by zero give NaN, which means "undefined" and becomes null in JSON (rvkernels.files.to_json). A class that
occurs neither in the truth nor among the predictions has undefined IoU and F1 and counts in no mean over classes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from rvkernels.ops.iou import iou as pairwise_iou

COCO_THRESHOLDS = tuple(0.5 + 0.05 * i for i in range(10))
RECALLS = np.linspace(0.0, 1.0, 101)  # at which precision is given, as COCO does


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b in float64, NaN where b is 0."""
    a, b = np.broadcast_arrays(np.asarray(a, np.float64), np.asarray(b, np.float64))
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b != 0)


def mean_defined(values: np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN when there are none."""
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


# --- counts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassCounts:
    """One against the rest, per class: true and false positives and negatives, int64 (classes,)."""

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    tn: np.ndarray

    @classmethod
    def of_matrix(cls, matrix: np.ndarray) -> ClassCounts:
        """From a confusion matrix (classes, classes) of counts, rows = truth."""
        matrix = np.asarray(matrix, np.int64)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"matrix: expected (classes, classes), got {matrix.shape}")
        tp = np.diag(matrix).copy()
        fp = matrix.sum(0) - tp
        fn = matrix.sum(1) - tp
        return cls(tp, fp, fn, matrix.sum() - tp - fp - fn)

    @property
    def precision(self) -> np.ndarray:
        return divide(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> np.ndarray:
        return divide(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> np.ndarray:
        return divide(self.tn, self.tn + self.fp)

    @property
    def f1(self) -> np.ndarray:
        """2 tp / (2 tp + fp + fn): 0 when nothing is right, NaN only when the class does not occur at all."""
        return divide(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> np.ndarray:
        """tp / (tp + fp + fn), the Jaccard index."""
        return divide(self.tp, self.tp + self.fp + self.fn)


def accuracy(matrix: np.ndarray) -> float:
    """Share of counts on the diagonal; NaN for an empty matrix."""
    matrix = np.asarray(matrix, np.int64)
    return float(divide(np.trace(matrix), matrix.sum()))


def kappa(matrix: np.ndarray) -> float:
    """Cohen's kappa: (po - pe) / (1 - pe), pe = sum over classes of truth share times predicted share.

    NaN when chance alone explains everything (one class in truth and prediction). Cohen (1960), doi
    10.1177/001316446002000104.
    """
    matrix = np.asarray(matrix, np.int64)
    total = int(matrix.sum())
    if total == 0:
        return float("nan")
    expected = float(np.sum((matrix.sum(1) / total) * (matrix.sum(0) / total)))
    return float(divide(np.trace(matrix) / total - expected, 1.0 - expected))


def matrix_summary(matrix: np.ndarray) -> dict[str, float]:
    """accuracy, kappa, miou and macro_f1 of a confusion matrix (classes, classes), rows = truth.

    miou and macro_f1 are means over the classes that occur in truth or prediction.
    """
    counts = ClassCounts.of_matrix(matrix)
    return {
        "accuracy": accuracy(matrix),
        "kappa": kappa(matrix),
        "miou": mean_defined(counts.iou),
        "macro_f1": mean_defined(counts.f1),
    }


# --- scores --------------------------------------------------------------------------------------------------------


def calibration(scores: np.ndarray, truth: np.ndarray, bins: int = 15) -> tuple[float, list[dict]]:
    """Expected calibration error of the most probable class, and the reliability table behind it.

    scores  (n, classes) probabilities
    truth   (n,) class ids
    bins    equal-width bins of confidence (low, high]; confidence 0 falls into the first
    Returns ECE = sum over bins of count / n * |accuracy - confidence| (Guo et al. 2017, arXiv:1706.04599), NaN for
            n = 0, and per bin {low, high, count, confidence, accuracy}.
    """
    scores, truth = np.asarray(scores), np.asarray(truth)
    if scores.ndim != 2 or truth.shape != scores.shape[:1]:
        raise ValueError(f"scores, truth: expected (n, classes) and (n,), got {scores.shape} and {truth.shape}")
    confidence = scores.max(1).astype(np.float64) if len(scores) else np.zeros(0)
    right = (scores.argmax(1) == truth).astype(np.float64) if len(scores) else np.zeros(0)
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    mean_confidence = divide(np.bincount(index, confidence, bins), count)
    mean_right = divide(np.bincount(index, right, bins), count)
    seen = count > 0
    error = (
        float(np.sum(count[seen] * np.abs(mean_right - mean_confidence)[seen]) / len(truth)) if len(truth) else np.nan
    )
    table = [
        {
            "low": i / bins,
            "high": (i + 1) / bins,
            "count": int(count[i]),
            "confidence": float(mean_confidence[i]),
            "accuracy": float(mean_right[i]),
        }
        for i in range(bins)
    ]
    return error, table


def score_matrix(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Confusion matrix int64 (classes, classes), rows = truth, of probabilities (n, classes) and class ids (n,)."""
    classes = scores.shape[1]
    predicted = scores.argmax(1) if len(scores) else np.zeros(0, np.int64)
    return np.bincount(np.asarray(truth, np.int64) * classes + predicted, minlength=classes**2).reshape(
        classes, classes
    )


@dataclass(frozen=True)
class Curves:
    """Precision against recall, per class at RECALLS: float64 (classes, 101).

    precision   the best that any score reaches with at least this recall; 0 where no score does, NaN for a class that
                does not occur
    score       the score that the detections or predictions reaching it have at least
    """

    precision: np.ndarray
    score: np.ndarray


def score_curves(scores: np.ndarray, truth: np.ndarray) -> Curves:
    """Each class against the rest, of probabilities (n, classes) and class ids (n,)."""
    scores, truth = np.asarray(scores, np.float64), np.asarray(truth)
    classes = scores.shape[1]
    precision, at = np.zeros((classes, len(RECALLS))), np.zeros((classes, len(RECALLS)))
    for c in range(classes):
        order = np.argsort(-scores[:, c], kind="stable")
        # Predictions of equal score are taken together.
        last = np.flatnonzero(np.append(np.diff(scores[order, c]) != 0, True)) if len(order) else order
        found = np.cumsum(truth[order] == c)[last]
        if not len(found) or not found[-1]:
            precision[c], at[c] = np.nan, np.nan
            continue
        best = np.maximum.accumulate((found / (last + 1))[::-1])[::-1]
        place = np.searchsorted(found / found[-1], RECALLS - 1e-12)
        precision[c], at[c] = best[place], scores[order, c][last][place]
    return Curves(precision, at)


# --- boxes ---------------------------------------------------------------------------------------------------------


def _boxes() -> np.ndarray:
    return np.zeros((0, 4), np.float32)


def _ids() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Detected:
    """Truth and detections of one image. Boxes are (ymin, xmin, ymax, xmax) float32 pixels.

    A detection that lies at least half inside an `ignored` truth box of its class counts neither as right nor as
    wrong; the ignored box itself is not to be found.
    """

    truth: np.ndarray = field(default_factory=_boxes)  # (n, 4)
    truth_class: np.ndarray = field(default_factory=_ids)  # (n,)
    ignored: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))  # (n,)
    boxes: np.ndarray = field(default_factory=_boxes)  # (m, 4)
    box_class: np.ndarray = field(default_factory=_ids)  # (m,)
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))  # (m,)

    def __post_init__(self) -> None:
        n, m = len(self.truth), len(self.boxes)
        shapes = {
            "truth": (self.truth, (n, 4)),
            "truth_class": (self.truth_class, (n,)),
            "ignored": (self.ignored, (n,)),
            "boxes": (self.boxes, (m, 4)),
            "box_class": (self.box_class, (m,)),
            "scores": (self.scores, (m,)),
        }
        for name, (array, shape) in shapes.items():
            if np.shape(array) != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {np.shape(array)}")

    def above(self, score: float) -> Detected:
        """Only the detections with at least this score."""
        kept = self.scores >= score
        return replace(self, boxes=self.boxes[kept], box_class=self.box_class[kept], scores=self.scores[kept])


def match(image: Detected) -> np.ndarray:
    """Which truth box each detection finds: int64 (m,), -1 = none, -2 = none, but it lies in an ignored box.

    A pair may match when the classes are equal and IoU >= 0.5; a box is in at most one pair. Detections choose in
    order of score (ties: lowest index), the largest IoU first. When all boxes a detection could take are taken, earlier
    ones move to another box they may match, if that frees one (augmenting paths), so as many boxes are found as any
    one-to-one assignment can find, and a higher score never loses its match to a lower one.
    """
    matched = np.full(len(image.boxes), -1, np.int64)
    for cls in np.unique(image.box_class):
        mine = np.flatnonzero(image.box_class == cls)
        mine = mine[np.argsort(-image.scores[mine], kind="stable")]
        wanted = np.flatnonzero((image.truth_class == cls) & ~image.ignored)
        found = _assign(_candidates(image.boxes[mine], image.truth[wanted]), len(wanted))
        matched[mine[found >= 0]] = wanted[found[found >= 0]]
        excused = image.truth[(image.truth_class == cls) & image.ignored]
        free = mine[found < 0]
        if len(excused) and len(free):
            matched[free[(_shares_inside(image.boxes[free], excused) >= 0.5).any(1)]] = -2
    return matched


def _candidates(boxes: np.ndarray, truth: np.ndarray) -> list[np.ndarray]:
    """Per box the indices of truth boxes with IoU >= 0.5, largest IoU first (ties: lowest index)."""
    truth = np.ascontiguousarray(truth, np.float32)
    if len(truth) == 0:
        return [_ids()] * len(boxes)
    candidates = []
    for start in range(0, len(boxes), 1024):  # bounds memory when a scene has tens of thousands of boxes
        overlap = pairwise_iou(np.ascontiguousarray(boxes[start : start + 1024], np.float32), truth)
        for row in overlap:
            near = np.flatnonzero(row >= 0.5)
            candidates.append(near[np.argsort(-row[near], kind="stable")])
    return candidates


def _assign(candidates: Sequence[np.ndarray], count: int) -> np.ndarray:
    """One-to-one assignment by augmenting paths, in the order given: index of the item, or -1, per candidate list."""
    owner = np.full(count, -1, np.int64)
    taken = np.full(len(candidates), -1, np.int64)
    for first in range(len(candidates)):
        reached_by: dict[int, int] = {}
        queue, free = [first], -1
        while queue and free < 0:
            current = queue.pop(0)
            for item in candidates[current]:
                if item not in reached_by:
                    reached_by[item] = current
                    if owner[item] < 0:
                        free = item
                        break
                    queue.append(owner[item])
        while free >= 0:  # walk back along the path; everyone on it moves to the item it reached
            current = reached_by[free]
            previous = taken[current]
            owner[free], taken[current] = current, free
            free = previous
    return taken


def _shares_inside(boxes: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """The share of each box's area that lies inside each of `areas`, float64 (n, m); 0 for a box without area."""
    boxes, areas = np.asarray(boxes, np.float64)[:, None], np.asarray(areas, np.float64)[None]
    low, high = np.maximum(boxes[..., :2], areas[..., :2]), np.minimum(boxes[..., 2:], areas[..., 2:])
    inside = np.prod(np.clip(high - low, 0, None), -1)
    return np.nan_to_num(divide(inside, np.prod(boxes[..., 2:] - boxes[..., :2], -1)))


def detection_counts(images: Sequence[Detected], classes: int) -> ClassCounts:
    """True and false positives and false negatives per class over all images, by `match`; tn is 0 (undefined)."""
    tp, fp, truth = (np.zeros(classes, np.int64) for _ in range(3))
    for image in images:
        matched = match(image)
        tp += np.bincount(image.box_class[matched >= 0], minlength=classes)
        fp += np.bincount(image.box_class[matched == -1], minlength=classes)
        truth += np.bincount(image.truth_class[~image.ignored], minlength=classes)
    return ClassCounts(tp, fp, truth - tp, np.zeros(classes, np.int64))


def separate(image: Detected, most: int = 24) -> list[Detected]:
    """The same truth and detections as several images, none with more than about `most` truth boxes that can be found.

    Boxes that may be matched at an IoU of 0.5 or more stay together, so every measure that matches within images at
    such an IoU and pools all images finds the same (detections of equal score may change places). Matching that loops
    over detections times truth boxes, as pycocotools does, then takes a second for thousands of boxes and not minutes.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n, m = len(image.truth), len(image.boxes)
    pairs = [np.zeros((0, 2), np.int64)]
    for cls in np.unique(image.box_class):
        mine, theirs = np.flatnonzero(image.box_class == cls), np.flatnonzero(image.truth_class == cls)
        truth = np.ascontiguousarray(image.truth[theirs], np.float32)
        ignored = image.ignored[theirs]
        for start in range(0, len(mine) if len(theirs) else 0, 1024):
            some = mine[start : start + 1024]
            boxes = np.ascontiguousarray(image.boxes[some], np.float32)
            near = pairwise_iou(boxes, truth) > 0.49  # below 0.5, since others compute the IoU with other roundings
            near[:, ignored] |= _shares_inside(boxes, truth[ignored]) > 0.49
            found = np.argwhere(near)
            pairs.append(np.stack([some[found[:, 0]], theirs[found[:, 1]]], 1))
    box, truth = np.concatenate(pairs).T
    links = coo_array((np.ones(len(box), bool), (box, m + truth)), shape=(m + n, m + n))
    group = connected_components(links, directed=False)[1]
    # Whatever is linked to nothing can share one image; other groups are packed in order of their first box.
    size = np.bincount(group[m:], minlength=group.max(initial=-1) + 1)
    alone = np.bincount(group, minlength=len(size)) == 1
    size[alone] = 0
    part = np.where(alone, 0, 1 + (np.cumsum(size) - size) // most)[group]
    pieces = []
    for number in np.unique(part):
        boxes, truths = np.flatnonzero(part[:m] == number), np.flatnonzero(part[m:] == number)
        if number == 0:  # detections without truth here, truth without detections there: neither loops over the other
            pieces.append(_choose(image, truths, boxes[:0]))
            truths = truths[:0]
        pieces.append(_choose(image, truths, boxes))
    return pieces


def _choose(image: Detected, truths: np.ndarray, boxes: np.ndarray) -> Detected:
    return Detected(
        image.truth[truths],
        image.truth_class[truths],
        image.ignored[truths],
        image.boxes[boxes],
        image.box_class[boxes],
        image.scores[boxes],
    )


def detection_curves(images: Sequence[Detected], classes: int) -> tuple[dict[str, np.ndarray], Curves]:
    """COCO's average precision per class, and the curves at an IoU of 0.5 that ap50 is the mean of.

    ap50, ap75 and ap50_95 (mean over IoU 0.50:0.05:0.95), float64 (classes,), by pycocotools over all box sizes and
    without its limit of 100 detections per image, since an aerial scene holds thousands. NaN for a class without truth
    boxes. COCO matches greedily (no augmenting paths).
    """
    return coco_curves([piece for image in images for piece in separate(image)], classes)


def coco_curves(images: Sequence[Detected], classes: int) -> tuple[dict[str, np.ndarray], Curves]:
    """As `detection_curves`, image by image as they are: minutes for an image with thousands of boxes."""
    from pycocotools.coco import COCO  # optional at import time: only detection needs it
    from pycocotools.cocoeval import COCOeval

    def dataset(annotations: list[dict]) -> COCO:
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(len(images))],
            "categories": [{"id": c} for c in range(classes)],
            "annotations": [
                {"id": number, **a} for number, a in enumerate(annotations, 1)
            ],  # COCO takes id 0 for "none"
        }
        coco.createIndex()
        return coco

    def annotation(image: int, box: np.ndarray, cls: int, **more: object) -> dict:
        y, x, bottom, right = (float(v) for v in box)
        width, height = right - x, bottom - y
        return {
            "image_id": image,
            "category_id": int(cls),
            "bbox": [x, y, width, height],
            "area": width * height,
            "iscrowd": 0,
            **more,
        }

    truth = [
        annotation(i, box, cls, iscrowd=int(ignored))
        for i, image in enumerate(images)
        for box, cls, ignored in zip(image.truth, image.truth_class, image.ignored)
    ]
    found = [
        annotation(i, box, cls, score=float(score))
        for i, image in enumerate(images)
        for box, cls, score in zip(image.boxes, image.box_class, image.scores)
    ]
    names = {"ap50": [0], "ap75": [5], "ap50_95": list(range(10))}
    if not truth:
        nothing = np.full((classes, len(RECALLS)), np.nan)
        return {name: np.full(classes, np.nan) for name in names}, Curves(nothing, nothing)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        judge = COCOeval(dataset(truth), dataset(found), "bbox")
        judge.params.iouThrs = np.array(COCO_THRESHOLDS)
        judge.params.areaRng, judge.params.areaRngLbl = [[0.0, 1e10]], ["all"]
        judge.params.maxDets = [max(1, max(len(image.boxes) for image in images))]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, 0]  # (threshold, recall, class); -1 where a class has no truth
    precision = np.where(precision < 0, np.nan, precision)
    scores = judge.eval["scores"][0, :, :, 0, 0]
    average = {name: precision[rows].mean((0, 1)) for name, rows in names.items()}
    return average, Curves(precision[0].T, np.where(scores < 0, np.nan, scores).T)
