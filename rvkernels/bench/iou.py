"""IoU of every box of one set with every box of another, as one float32 matrix that is used again."""

from __future__ import annotations

from typing import Callable

import numpy as np

from rvkernels.bench import Case, Inputs, Peer, Scene
from rvkernels.ops.iou import iou, random_boxes

CHECKED = 300  # rows that are compared with the reference


def cases(scene: Scene, quick: bool) -> list[Case]:
    rng = np.random.default_rng(0)
    n = 800 if quick else 5000
    extent = 2000 * np.sqrt(n / 5000)
    inputs = {name: random_boxes(rng, n, extent, 40) for name in "ab"}
    return [
        Case(
            kernel="iou",
            name=f"{n:,} x {n:,} boxes",
            inputs=inputs,
            ours=run_iou,
            check=rows_as_reference,
            peers=(
                Peer("powerboxes", "powerboxes:iou", check=close),
                Peer("pycocotools", "pycocotools:iou", check=close),
                Peer("NumPy", "numpy:iou", check=close),
                Peer("PyTorch", "torch:iou", check=close),
            ),
            floor=Peer("write the matrix", "numpy:write_matrix"),
        )
    ]


def run_iou(inputs: Inputs, threads: int) -> Callable[[], np.ndarray]:
    out = np.empty((len(inputs["a"]), len(inputs["b"])), np.float32)
    return lambda: iou(inputs["a"], inputs["b"], out, threads=threads)


def rows_as_reference(inputs: Inputs, ours: np.ndarray) -> None:
    part = slice(None, None, -(-len(ours) // CHECKED))
    want = iou(np.ascontiguousarray(inputs["a"][part]), inputs["b"], kernel="reference")
    np.testing.assert_array_equal(ours[part], want)


def close(ours: np.ndarray, theirs: np.ndarray) -> None:
    """To the rounding of float32. Boxes that have no area themselves are 0 / 0 = NaN for some."""
    np.testing.assert_allclose(ours, np.nan_to_num(theirs), rtol=0, atol=2e-6)
