"""Object detection by an anchor-free one-stage detector: every location of every level scores classes and a box.

A location (level with stride s, row r, column c) stands for the point ((r + 0.5) s, (c + 0.5) s) of the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from rvkernels.batches import Batch
from rvkernels.frameworks import Framework
from rvkernels.metrics import RECALLS
from rvkernels.models import Graph
from rvkernels.ops.iou import iou as pairwise_iou
from rvkernels.ops.nms import nms

PRIMARY = "ap50"
METRICS = ("ap50", "recall50")
LOSS = {"name": "detection"}
BACKGROUND = -1
LIMIT = 300  # detections of an image


class Detections(NamedTuple):
    """Objects found in one image, best score first."""

    boxes: np.ndarray  # (k, 4) float32 (ymin, xmin, ymax, xmax) in pixels
    scores: np.ndarray  # (k,) float32 probabilities
    classes: np.ndarray  # (k,) int32


class Level(NamedTuple):
    """The locations of one pyramid level: numbers first to first + rows * cols - 1, row by row."""

    stride: int
    rows: int
    cols: int
    first: int


def levels(graph: Graph, shape: tuple[int, int]) -> list[Level]:
    """The levels of an image of `shape` (rows, cols), in the order of Graph.strides."""
    found: list[Level] = []
    first = 0
    for stride in graph.strides:
        rows, cols = -(-shape[0] // stride), -(-shape[1] // stride)
        found.append(Level(stride, rows, cols, first))
        first += rows * cols
    return found


def locations(graph: Graph, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Points (locations, 2) float32 (y, x) in pixels and strides (locations,) float32 of an image of `shape`."""
    points, strides = [], []
    for level in levels(graph, shape):
        row, col = np.divmod(np.arange(level.rows * level.cols), level.cols)
        points.append((np.stack([row, col], axis=1) + 0.5) * level.stride)
        strides.append(np.full(len(row), level.stride))
    return np.concatenate(points).astype(np.float32), np.concatenate(strides).astype(np.float32)


def targets(graph: Graph, batch: Batch, *, radius: float = 1.5, reach: float = 4.0) -> tuple[np.ndarray, np.ndarray]:
    """Which location is to find which object.

    After Tian et al. (2019), "FCOS": a location is given an object when its point lies inside the box, at most
    `radius` strides from the box's centre in each axis, and its largest distance to an edge suits its level: above
    `reach` times the stride of the level before (0 for the first level), and at most `reach` times its own (infinity
    for the last). Of several objects the smallest area wins, then the lowest index.

    An object that is given no location so (smaller than a stride, or all its locations went to smaller ones) takes the
    nearest free one of the level that suits half its longer side: smallest objects first, never the only location of
    another object. Where the point lies outside the box, distances are cut at 0. An object stays without a location
    only when its level has none left.

    Returns labels (n, locations) int32, class or -1 for background, and distances (n, locations, 4) float32 from the
    point to the edges (top, left, bottom, right) in strides; 0 for background.
    """
    grid = levels(graph, batch.shape)
    points, strides = locations(graph, batch.shape)
    owner = np.full((len(batch.rows), len(points)), -1, np.int64)
    if len(batch.boxes):
        image = np.repeat(np.arange(len(batch.rows)), np.diff(batch.box_start))
        # float64 keeps the comparisons with radius and reach the same in every NumPy.
        _give(owner, grid, batch.boxes.astype(np.float64), image, points.astype(np.float64), radius, reach)
    labels = np.full(owner.shape, BACKGROUND, np.int32)
    distances = np.zeros((*owner.shape, 4), np.float32)
    given = owner >= 0
    labels[given] = batch.box_class[owner[given]]
    _, place = np.nonzero(given)
    box = batch.boxes[owner[given]]
    spans = np.concatenate([points[place] - box[:, :2], box[:, 2:] - points[place]], axis=1)
    distances[given] = np.maximum(spans, 0) / strides[place, None]
    return labels, distances


def _suiting_level(extent: np.ndarray, grid: Sequence[Level], reach: float) -> np.ndarray:
    """Index of the level whose range of largest distances holds `extent` (pixels)."""
    return np.searchsorted([reach * level.stride for level in grid[:-1]], extent, side="left")


def _give(
    owner: np.ndarray,
    grid: Sequence[Level],
    boxes: np.ndarray,
    image: np.ndarray,
    points: np.ndarray,
    radius: float,
    reach: float,
) -> None:
    """Write the number of the box that each location is given into `owner` (images, locations)."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    flat = owner.reshape(-1)

    # Only the few locations around each box's centre are looked at: (boxes, window, window) pairs per level.
    pairs_box, pairs_place = [], []
    steps = np.arange(int(2 * radius) + 1)
    for index, level in enumerate(grid):
        low = np.ceil(centre / level.stride - 0.5 - radius).astype(np.int64)
        row = np.broadcast_to((low[:, :1] + steps)[:, :, None], (len(boxes), len(steps), len(steps)))
        col = np.broadcast_to((low[:, 1:] + steps)[:, None, :], row.shape)
        box = np.broadcast_to(np.arange(len(boxes))[:, None, None], row.shape)
        there = (row >= 0) & (row < level.rows) & (col >= 0) & (col < level.cols)
        row, col, box = row[there], col[there], box[there]
        point = (np.stack([row, col], axis=1) + 0.5) * level.stride
        spans = np.concatenate([point - boxes[box, :2], boxes[box, 2:] - point], axis=1)
        near = np.abs(point - centre[box]).max(axis=1) <= radius * level.stride
        suits = _suiting_level(spans.max(axis=1), grid, reach) == index
        good = near & suits & (spans.min(axis=1) > 0)
        pairs_box.append(box[good])
        pairs_place.append(image[box[good]] * len(points) + level.first + row[good] * level.cols + col[good])
    box, place = np.concatenate(pairs_box), np.concatenate(pairs_place)
    order = np.lexsort((box, area[box], place))
    taken, first = np.unique(place[order], return_index=True)
    flat[taken] = box[order][first]

    held = np.bincount(flat[flat >= 0], minlength=len(boxes))
    home = _suiting_level((boxes[:, 2:] - boxes[:, :2]).max(axis=1) / 2, grid, reach)
    without = np.flatnonzero(held == 0)
    for box in without[np.lexsort((without, area[without]))]:
        level = grid[home[box]]
        places = level.first + np.arange(level.rows * level.cols)
        mine = owner[image[box], places]
        free = (mine < 0) | (held[np.maximum(mine, 0)] > 1)
        if not free.any():
            continue
        away = np.square(points[places] - centre[box]).sum(axis=1)
        place = places[free][np.argmin(away[free])]
        if owner[image[box], place] >= 0:
            held[owner[image[box], place]] -= 1
        owner[image[box], place] = box
        held[box] = 1


def probabilities(outputs: np.ndarray) -> np.ndarray:
    """Independent class probabilities (..., classes) of outputs (..., classes + 4): the logistic function."""
    return 0.5 * (1 + np.tanh(0.5 * outputs[..., :-4]))


def decode(
    outputs: np.ndarray,
    graph: Graph,
    shape: tuple[int, int],
    *,
    score: float = 0.05,
    iou: float = 0.5,
    candidates: int = 1000,
    limit: int = LIMIT,
) -> list[Detections]:
    """Boxes from the outputs (n, locations, classes + 4) float32 for images of `shape` (rows, cols).

    Of all (location, class) pairs with a probability of at least `score`, the best `candidates` per image (ties: lowest
    location, then class) span boxes of stride * softplus(raw) pixels to each side, cut at the image's edges;
    class-aware non-maximum suppression at `iou` keeps at most `limit`.
    """
    points, strides = locations(graph, shape)
    if outputs.shape[1:] != (len(points), graph.classes + 4):
        raise ValueError(f"outputs: shape is {outputs.shape}, expected (n, {len(points)}, {graph.classes + 4})")
    edge = np.array([*shape, *shape], np.float32)
    found = []
    for raw in outputs:
        scores = probabilities(raw).reshape(-1)
        best = np.flatnonzero(scores >= score)
        best = best[np.argsort(-scores[best], kind="stable")[:candidates]]
        place, classes = np.divmod(best, graph.classes)
        away = np.logaddexp(np.float32(0), raw[place, -4:]) * strides[place, None]
        boxes = np.concatenate([points[place] - away[:, :2], points[place] + away[:, 2:]], axis=1)
        boxes = np.ascontiguousarray(np.clip(boxes, 0, edge), np.float32)
        # A location of the last level may predict a box that ends outside the image on one side.
        solid = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        boxes, picked, classes = boxes[solid], scores[best][solid].astype(np.float32), classes[solid].astype(np.int32)
        kept = nms(boxes, picked, classes, iou=iou)[:limit]
        found.append(Detections(boxes[kept], picked[kept], classes[kept]))
    return found


def merge(views: Sequence[Detections], *, iou: float = 0.5, limit: int = LIMIT) -> Detections:
    """What several views of one image, in its own pixels, found: class-aware non-maximum suppression over all of it."""
    boxes, scores, classes = (np.ascontiguousarray(np.concatenate(part)) for part in zip(*views))
    kept = nms(boxes, scores, classes, iou=iou)[:limit]
    return Detections(boxes[kept], scores[kept], classes[kept])


def average_precision(
    truths: Sequence[tuple[np.ndarray, np.ndarray]], found: Sequence[Detections], classes: int, iou: float = 0.5
) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and recall per class at one IoU threshold, float64 (classes,), NaN for a class without truth.

    truths  per image boxes (m, 4) float32 and classes (m,)
    found   per image detections

    Detections of a class choose in order of score (ties: lower image, then lower index) the free truth box of their
    image and class with the largest IoU (ties: lowest index) that is at least `iou`; each truth box is found once.
    Average precision is COCO's: the mean, over RECALLS, of the best precision at that recall or a higher one. It equals
    metrics.detection_curves, which takes ten times as long through pycocotools: too long for after every epoch.
    """
    precision, recall = np.full(classes, np.nan), np.full(classes, np.nan)
    for c in range(classes):
        hits, scores, total = [], [], 0
        for (boxes, box_class), image in zip(truths, found):
            truth = boxes[box_class == c]
            mine = np.flatnonzero(image.classes == c)
            mine = mine[np.argsort(-image.scores[mine], kind="stable")]
            total += len(truth)
            scores.append(image.scores[mine])
            hits.append(_hits(image.boxes[mine], truth, iou))
        if total == 0:
            continue
        order = np.argsort(-np.concatenate(scores), kind="stable")
        right = np.cumsum(np.concatenate(hits)[order])
        envelope = np.maximum.accumulate((right / np.arange(1, len(right) + 1))[::-1])[::-1]
        precision[c] = np.append(envelope, 0.0)[np.searchsorted(right / total, RECALLS)].mean()
        recall[c] = right[-1] / total if len(right) else 0.0
    return precision, recall


def _hits(boxes: np.ndarray, truth: np.ndarray, iou: float) -> np.ndarray:
    """Which of `boxes` (best score first) find a truth box of their own, bool (len(boxes),)."""
    hit = np.zeros(len(boxes), bool)
    if not len(truth) or not len(boxes):
        return hit
    overlap = pairwise_iou(np.ascontiguousarray(boxes), np.ascontiguousarray(truth))
    for i in np.flatnonzero(overlap.max(axis=1) >= iou):
        j = int(np.argmax(overlap[i]))
        if overlap[i, j] >= iou:
            hit[i] = True
            overlap[:, j] = -1
    return hit


def _truths(batch: Batch) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start, end in zip(batch.box_start[:-1], batch.box_start[1:]):
        yield batch.boxes[start:end], batch.box_class[start:end]


def false_alarms(framework: Framework, graph: Graph, stream: Iterable[Batch]) -> np.ndarray:
    """Sums of the scores of what is found in the chips of `stream`, which have no object: float64 (chips,)."""
    return np.array(
        [
            found.scores.sum(dtype=np.float64)
            for batch in stream
            for found in decode(framework.predict(batch.images), graph, batch.shape)
        ]
    )


def validate(framework: Framework, graph: Graph, stream: Iterable[Batch]) -> dict[str, float]:
    """ap50 and recall50, means over the classes that occur in the truth, over all batches of `stream`; NaN without."""
    truths: list[tuple[np.ndarray, np.ndarray]] = []
    found: list[Detections] = []
    for batch in stream:
        truths += _truths(batch)
        found += decode(framework.predict(batch.images), graph, batch.shape)
    precision, recall = average_precision(truths, found, graph.classes)
    known = ~np.isnan(precision)
    if not known.any():
        return {"ap50": float("nan"), "recall50": float("nan")}
    return {"ap50": float(precision[known].mean()), "recall50": float(recall[known].mean())}
