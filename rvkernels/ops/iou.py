"""Intersection over union of boxes."""

from __future__ import annotations

import numpy as np

from rvkernels.ops import core
from rvkernels.ops._checks import check_array, check_run

TOLERANCE = 0
FARTHEST = 2.0**31


def check_boxes(name: str, boxes: np.ndarray) -> None:
    """Raise ValueError unless `boxes` is (n, 4) float32 (ymin, xmin, ymax, xmax), finite, ordered and within 2^31."""
    check_array(name, boxes, "float32", (None, 4))
    # Over the whole array first: a reduction along rows of four is ten times as slow, and needed for the message only.
    if (np.abs(boxes) <= FARTHEST).all() and (boxes[:, :2] <= boxes[:, 2:]).all():
        return
    good = (np.abs(boxes) <= FARTHEST).all(1) & (boxes[:, 0] <= boxes[:, 2]) & (boxes[:, 1] <= boxes[:, 3])
    first = int(np.argmin(good))
    raise ValueError(
        f"{name}: box {first} is {boxes[first].tolist()}; expected finite (ymin, xmin, ymax, xmax) with "
        "ymin <= ymax, xmin <= xmax and no coordinate beyond 2^31"
    )


def iou(
    a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None, *, kernel: str = "cpp", threads: int = 0
) -> np.ndarray:
    """Intersection over union of every box of `a` with every box of `b`.

    a    (n, 4) float32 boxes (ymin, xmin, ymax, xmax), finite, ymin <= ymax, xmin <= xmax, C-contiguous
    b    (m, 4) float32, likewise
    out  (n, m) float32 array to fill, or None for a new one
    Returns (n, m) float32 in [0, 1]; two boxes without area have 0, also when they are the same.
    Raises ValueError for other shapes or dtypes, and for a box that is not finite or not ordered.
    """
    check_run(kernel, threads)
    check_boxes("a", a)
    check_boxes("b", b)
    shape = (len(a), len(b))
    out = np.empty(shape, np.float32) if out is None else check_array("out", out, "float32", shape, writeable=True)
    if kernel == "reference":
        out[:] = reference_iou(a, b)
    else:
        core().iou(a, b, out, threads)
    return out


def reference_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The definition in NumPy, rounded to float32 at every step as the kernels do."""
    zero = np.float32(0)
    height = np.maximum(np.minimum(a[:, None, 2], b[:, 2]) - np.maximum(a[:, None, 0], b[:, 0]), zero)
    width = np.maximum(np.minimum(a[:, None, 3], b[:, 3]) - np.maximum(a[:, None, 1], b[:, 1]), zero)
    area_a = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1])
    area_b = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    inter = height * width
    union = area_a[:, None] + area_b - inter
    return inter / np.where(union > 0, union, np.float32(1))


op = iou


def random_boxes(rng: np.random.Generator, n: int, extent: float, size: float) -> np.ndarray:
    """(n, 4) float32 boxes with corners in [0, extent) and sides up to `size`, every tenth without area."""
    corner = rng.random((n, 2)) * extent
    side = rng.random((n, 2)) * size
    side[::10, 0] = 0
    return np.concatenate([corner, corner + side], 1).astype(np.float32)


def cases() -> list[tuple[str, dict]]:
    """Inputs for the parity test and the benchmark."""
    rng = np.random.default_rng(0)
    shapes = {
        "crowded": (57, 131, 40),
        "sparse": (33, 17, 1000),
        "one": (1, 1, 1),
        "empty": (0, 5, 10),
        "none": (3, 0, 10),
    }
    listed = [
        (name, {"a": random_boxes(rng, n, extent, 10), "b": random_boxes(rng, m, extent, 10)})
        for name, (n, m, extent) in shapes.items()
    ]
    same = random_boxes(rng, 29, 20, 10)
    far = (random_boxes(rng, 21, 20, 10) * np.float32(7e7)).astype(np.float32)
    return [*listed, ("same", {"a": same, "b": same}), ("far", {"a": far, "b": far})]
