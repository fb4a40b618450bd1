"""IoU of every rotated box of one set with every one of another, of which about one pair in 25 overlaps."""

from __future__ import annotations

from typing import Callable

import numpy as np

from rvkernels.bench import Case, Inputs, Peer, Scene
from rvkernels.ops.rotated_iou import TOLERANCE, rotated_iou

CHECKED = 20  # rows that are compared with the reference


def cases(scene: Scene, quick: bool) -> list[Case]:
    rng = np.random.default_rng(0)
    n = 300 if quick else 1000
    low, high = np.array([0, 0, 20, 20, 0]), np.array([1000, 1000, 160, 160, 180])
    inputs = {name: low + rng.random((n, 5)) * (high - low) for name in "ab"}
    return [
        Case(
            kernel="rotated_iou",
            name=f"{n:,} x {n:,} boxes",
            inputs=inputs,
            ours=run_rotated_iou,
            check=rows_as_reference,
            peers=(
                Peer("powerboxes", "powerboxes:rotated_iou", check=close),
                Peer("OpenCV rotatedRectangleIntersection", "opencv:rotated_iou", check=close_in_float32),
            ),
            floor=Peer("write the matrix", "numpy:write_wide_matrix"),
        )
    ]


def run_rotated_iou(inputs: Inputs, threads: int) -> Callable[[], np.ndarray]:
    out = np.empty((len(inputs["a"]), len(inputs["b"])))
    return lambda: rotated_iou(inputs["a"], inputs["b"], out, threads=threads)


def rows_as_reference(inputs: Inputs, ours: np.ndarray) -> None:
    part = slice(None, None, -(-len(ours) // CHECKED))
    want = rotated_iou(np.ascontiguousarray(inputs["a"][part]), inputs["b"], kernel="reference")
    np.testing.assert_allclose(ours[part], want, rtol=0, atol=TOLERANCE)


def close(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11)


def close_in_float32(ours: np.ndarray, theirs: np.ndarray) -> None:
    """OpenCV computes corners in float32, to the size of the image."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-3)
