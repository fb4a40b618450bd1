"""Intersection over union of rotated boxes."""

from __future__ import annotations

import numpy as np

from rvkernels.ops import core
from rvkernels.ops._checks import check_array, check_run
from rvkernels.ops.iou import FARTHEST

# The kernel integrates along edges, the reference clips polygons; both err by a few 1e-16 times the sides' ratio.
TOLERANCE = 1e-12


def check_rotated_boxes(name: str, boxes: np.ndarray) -> None:
    """Raise ValueError unless `boxes` is (n, 5) float64 (cy, cx, height, width, angle), finite and within 2^31."""
    check_array(name, boxes, "float64", (None, 5))
    good = (np.abs(boxes[:, :4]) <= FARTHEST).all(1) & (boxes[:, 2:4] >= 0).all(1) & np.isfinite(boxes[:, 4])
    if not good.all():
        first = int(np.argmin(good))
        raise ValueError(
            f"{name}: box {first} is {boxes[first].tolist()}; expected finite (cy, cx, height, width, angle) with no "
            "negative side and no centre or side beyond 2^31"
        )


def rotated_iou(
    a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None, *, kernel: str = "cpp", threads: int = 0
) -> np.ndarray:
    """Intersection over union of every rotated box of `a` with every one of `b`.

    a    (n, 5) float64 boxes (cy, cx, height, width, angle) in pixels and degrees, finite, sides not negative,
         C-contiguous. The angle turns the box about its centre from the axis of columns towards the axis of rows:
         clockwise as an image is shown, as in OpenCV. With angle 0 the box is the axis-aligned one.
    b    (m, 5) float64, likewise
    out  (n, m) float64 array to fill, or None for a new one
    Returns (n, m) float64 in [0, 1]; two boxes without area have 0, also when they are the same. Accurate to a few
    1e-16 times the greatest ratio of a side of one box to a side of the other; the kernel gives exactly 0 for boxes
    that do not overlap.
    Raises ValueError for other shapes or dtypes, and for a box that is not finite or has a negative side.
    """
    check_run(kernel, threads)
    check_rotated_boxes("a", a)
    check_rotated_boxes("b", b)
    shape = (len(a), len(b))
    out = np.empty(shape, np.float64) if out is None else check_array("out", out, "float64", shape, writeable=True)
    if kernel == "reference":
        out[:] = reference_rotated_iou(a, b)
    else:
        core().rotated_iou(a, b, out, threads)
    return out


def corners(boxes: np.ndarray) -> np.ndarray:
    """(n, 4, 2) float64 corners (row, col) of rotated boxes, in the order in which they are met going round."""
    angle = np.deg2rad(boxes[:, 4])
    cos, sin = np.cos(angle), np.sin(angle)
    along_width = np.stack([sin, cos], 1) * boxes[:, 3:4] / 2
    along_height = np.stack([cos, -sin], 1) * boxes[:, 2:3] / 2
    turns = [(-1, -1), (-1, 1), (1, 1), (1, -1)]
    return np.stack([boxes[:, :2] + h * along_height + w * along_width for h, w in turns], 1)


def reference_rotated_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The definition: the polygon of `a` clipped by the four sides of `b` (Sutherland and Hodgman), for each pair."""
    found = np.zeros((len(a), len(b)))
    reach = [np.hypot(boxes[:, 2], boxes[:, 3]) / 2 for boxes in (a, b)]
    apart = np.hypot(a[:, None, 0] - b[:, 0], a[:, None, 1] - b[:, 1])
    for i, j in zip(*np.nonzero(apart < reach[0][:, None] + reach[1])):
        # Relative to a centre, so that pixels far from the origin lose no digits.
        centre = np.array([*b[j, :2], 0, 0, 0])
        inter = _area(_clip(*corners(np.stack([a[i], b[j]]) - centre)))
        union = a[i, 2] * a[i, 3] + b[j, 2] * b[j, 3] - inter
        found[i, j] = min(inter / union, 1.0) if union > 0 else 0.0
    return found


def _clip(polygon: np.ndarray, window: np.ndarray) -> np.ndarray:
    """The part of a convex polygon (k, 2) that lies inside a convex `window` with corners in the same order."""
    for begin, end in zip(window, np.roll(window, -1, 0)):
        if not len(polygon):
            break
        edge = end - begin
        away = polygon - begin
        inside = edge[1] * away[:, 0] - edge[0] * away[:, 1]
        kept = []
        for k, point in enumerate(polygon):
            before, side_before, side = polygon[k - 1], inside[k - 1], inside[k]
            if (side >= 0) != (side_before >= 0):
                kept.append(before + (point - before) * (side_before / (side_before - side)))
            if side >= 0:
                kept.append(point)
        polygon = np.array(kept).reshape(-1, 2)
    return polygon


def _area(polygon: np.ndarray) -> float:
    """The area of a polygon (k, 2), by the shoelace formula."""
    row, col = polygon.T
    return abs(float(row @ np.roll(col, -1) - col @ np.roll(row, -1))) / 2


op = rotated_iou


def random_rotated_boxes(rng: np.random.Generator, n: int, extent: float, size: float) -> np.ndarray:
    """(n, 5) float64 boxes with centres in [0, extent), sides up to `size`, any angle; every tenth without area."""
    boxes = rng.random((n, 5)) * (extent, extent, size, size, 720) - (0, 0, 0, 0, 360)
    boxes[::10, 2] = 0
    return boxes


def cases() -> list[tuple[str, dict]]:
    """Inputs for the parity test and the benchmark."""
    rng = np.random.default_rng(0)
    shapes = {"crowded": (23, 31, 30), "sparse": (33, 17, 200), "one": (1, 1, 1), "empty": (0, 5, 9), "none": (3, 0, 9)}
    listed = [
        (name, {"a": random_rotated_boxes(rng, n, extent, 10), "b": random_rotated_boxes(rng, m, extent, 10)})
        for name, (n, m, extent) in shapes.items()
    ]
    same = random_rotated_boxes(rng, 15, 10, 10)
    quarter = np.ascontiguousarray(same[:, [0, 1, 3, 2, 4]] + np.array([0, 0, 0, 0, 90]))
    whole = rng.integers(1, 6, (20, 5)) * np.array([1.0, 1, 2, 2, 45])  # sides and corners that coincide
    far = same + np.array([2e9, -2e9, 0, 0, 0])
    return [
        *listed,
        ("same", {"a": same, "b": same}),
        ("quarter turn", {"a": same, "b": quarter}),
        ("touching", {"a": whole, "b": whole}),
        ("far", {"a": far, "b": far}),
    ]
