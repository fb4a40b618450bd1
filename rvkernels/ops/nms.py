"""Non-maximum suppression of boxes, class by class."""

from __future__ import annotations

import numpy as np

from rvkernels.ops import core
from rvkernels.ops._checks import check_array, check_run
from rvkernels.ops.iou import check_boxes, random_boxes, reference_iou
from rvkernels.ops.rotated_iou import check_rotated_boxes, random_rotated_boxes, reference_rotated_iou

TOLERANCE = 0


def nms(
    boxes: np.ndarray,
    scores: np.ndarray,
    classes: np.ndarray,
    iou: float = 0.5,
    *,
    rotated: bool = False,
    kernel: str = "cpp",
    threads: int = 0,
) -> np.ndarray:
    """Boxes that survive greedy non-maximum suppression.

    In order of falling score (ties: lowest index first) a box is kept unless a box of its class that was kept before
    has an IoU with it above `iou`. Boxes without area have IoU 0 with everything, so they are always kept.

    boxes    (n, 4) float32 (ymin, xmin, ymax, xmax), finite and ordered; with `rotated` (n, 5) float64
             (cy, cx, height, width, angle in degrees) as rotated_iou takes them; n < 2^32 - 1
    scores   (n,) float32 without NaN
    classes  (n,) int32
    iou      threshold in [0, 1], compared as float32; with `rotated` as float64, where an IoU within rounding
             (rotated_iou) of the threshold may be taken for either side of it
    Returns (kept,) int64 indices into the input, in order of falling score.
    Raises ValueError for other shapes or dtypes, a bad box, a NaN score, or a threshold outside [0, 1].
    """
    check_run(kernel, threads)
    (check_rotated_boxes if rotated else check_boxes)("boxes", boxes)
    check_array("scores", scores, "float32", (len(boxes),))
    check_array("classes", classes, "int32", (len(boxes),))
    if len(boxes) >= 2**32 - 1:
        raise ValueError(f"boxes: expected fewer than 2^32 - 1, got {len(boxes)}")
    if np.isnan(scores).any():
        raise ValueError(f"scores: score {int(np.argmax(np.isnan(scores)))} is NaN; expected numbers")
    if not 0 <= iou <= 1:
        raise ValueError(f"iou: expected a threshold in [0, 1], got {iou}")
    if kernel == "reference":
        return reference_nms(boxes, scores, classes, iou, rotated)
    return (core().nms_rotated if rotated else core().nms)(boxes, scores, classes, iou, threads)


def reference_nms(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, iou: float, rotated: bool = False
) -> np.ndarray:
    """The definition in NumPy: compare with every kept box."""
    overlap, threshold = (reference_rotated_iou, iou) if rotated else (reference_iou, np.float32(iou))
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable").tolist():
        rivals = [k for k in kept if classes[k] == classes[i]]
        if not (overlap(boxes[i : i + 1], boxes[rivals]) > threshold).any():
            kept.append(i)
    return np.array(kept, np.int64)


op = nms


def cases() -> list[tuple[str, dict]]:
    """Inputs for the parity test and the benchmark."""
    rng = np.random.default_rng(0)
    listed = []
    for name, n, extent, size, classes, iou in (
        ("crowded", 400, 60, 20, 3, 0.5),
        ("sparse", 300, 2000, 20, 2, 0.3),
        ("touching is enough", 200, 100, 20, 1, 0.0),
        ("nothing is enough", 100, 20, 20, 1, 1.0),
        ("huge and tiny", 200, 30, 3000, 2, 0.2),
        ("one", 1, 1, 1, 1, 0.5),
        ("empty", 0, 1, 1, 1, 0.5),
    ):
        boxes = random_boxes(rng, n, extent, size)
        if name == "huge and tiny":
            boxes[::2] *= np.float32(0.001)
        scores = rng.random(n).round(2).astype(np.float32)  # two digits: many ties
        listed.append(
            (
                name,
                {"boxes": boxes, "scores": scores, "classes": rng.integers(0, classes, n).astype(np.int32), "iou": iou},
            )
        )
    boxes = random_rotated_boxes(rng, 150, 60, 30)
    scores = rng.random(150).round(2).astype(np.float32)
    classes = rng.integers(0, 2, 150).astype(np.int32)
    turned = {"boxes": boxes, "scores": scores, "classes": classes, "iou": 0.3, "rotated": True}
    none = {"boxes": boxes[:0], "scores": scores[:0], "classes": classes[:0], "rotated": True}
    return [*listed, ("rotated", turned), ("rotated, empty", none)]
