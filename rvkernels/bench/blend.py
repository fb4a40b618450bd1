"""Scores of overlapping chips put on a scene: their weighted sums, and labels from the sums.

Chips of 256 x 256 pixels, a window every 128, six classes: eight rows of windows over a scene 10,000 pixels wide.
"""

from __future__ import annotations

from typing import Callable

import numpy as np

from rvkernels.bench import Case, Inputs, Peer, Scene
from rvkernels.ops.blend import Blend, Blended

SIZE, STRIDE, CLASSES = 256, 128, 6


def cases(scene: Scene, quick: bool) -> list[Case]:
    rng = np.random.default_rng(0)
    down, along = (2, 4) if quick else (8, 77)
    row, col = (grid.ravel() * STRIDE for grid in np.mgrid[0:down, 0:along].astype(np.int64))
    chips = rng.random((len(row), SIZE, SIZE, CLASSES), np.float32)
    inputs = {"row": row, "col": col, "shape": (int(row[-1]) + SIZE, int(col[-1]) + SIZE)}
    sums = Blend(*inputs["shape"], CLASSES, size=SIZE)
    sums.add(chips, row, col)
    weights = sums.window[:, None] * sums.window
    return [
        Case(
            kernel="blend",
            name="accumulate",
            inputs={**inputs, "chips": chips, "weights": weights},
            ours=run_add,
            check=as_reference,
            peers=(
                Peer("PyTorch addcmul_", "torch:add_chips", check=proportional),
                Peer("OpenCV accumulateProduct", "opencv:add_chips", check=proportional),
                Peer("NumPy", "numpy:add_chips", check=proportional),
            ),
            floor=Peer("copy the chips", "numpy:copy_chips"),
        ),
        Case(
            kernel="blend",
            name="labels from sums",
            inputs={**inputs, "sums": sums.total},
            ours=run_finish,
            check=as_argmax,
            peers=(
                Peer("NumPy argmax", "numpy:argmax", check=same_labels),
                Peer("PyTorch argmax", "torch:argmax", check=same_labels),
            ),
            floor=Peer("read the sums", "numpy:read_sums"),
        ),
    ]


def run_add(inputs: Inputs, threads: int) -> Callable[[], np.ndarray]:
    canvas = Blend(*inputs["shape"], CLASSES, size=SIZE, threads=threads)

    def run() -> np.ndarray:
        canvas.add(inputs["chips"], inputs["row"], inputs["col"])
        return canvas.total

    return run


def run_finish(inputs: Inputs, threads: int) -> Callable[[], np.ndarray]:
    """Labels of the means: the sums divided by the weights, which the peers leave out."""
    canvas = Blend(*inputs["shape"], CLASSES, size=SIZE, means="none", threads=threads)
    chips = np.zeros((1, SIZE, SIZE, CLASSES), np.float32)
    for row, col in zip(inputs["row"], inputs["col"]):
        canvas.add(chips, np.array([row]), np.array([col]))
    canvas.total[:] = inputs["sums"]
    labels = np.empty(inputs["shape"], np.uint8)
    return lambda: canvas.finish(Blended(labels, None)).labels


def proportional(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Sums grow with each run, so they are compared up to a factor."""
    ours, theirs = (sums[::7].astype(np.float64) for sums in (ours, theirs))
    np.testing.assert_allclose(ours / ours.mean(), theirs / theirs.mean(), rtol=1e-4, atol=1e-7)


def as_reference(inputs: Inputs, ours: np.ndarray) -> None:
    want = Blend(*inputs["shape"], CLASSES, size=SIZE, kernel="reference")
    want.add(inputs["chips"], inputs["row"], inputs["col"])
    np.testing.assert_array_equal(ours, want.total)


def as_argmax(inputs: Inputs, ours: np.ndarray) -> None:
    np.testing.assert_array_equal(ours, inputs["sums"].argmax(2))


def same_labels(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_array_equal(ours, theirs)
