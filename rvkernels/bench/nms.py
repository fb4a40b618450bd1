"""Suppression among 20,000 boxes of one class, of which about half stay, with distinct scores."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from rvkernels.bench import Case, Inputs, Peer, Scene
from rvkernels.ops.nms import nms

CHECKED = 2000  # boxes: the reference compares each with all that are kept


def cases(scene: Scene, quick: bool) -> list[Case]:
    rng = np.random.default_rng(0)
    n = 5_000 if quick else 20_000
    corner = rng.random((n, 2)) * 2000 * np.sqrt(n / 20_000)
    boxes = np.concatenate([corner, corner + 10 + rng.random((n, 2)) * 40], 1).astype(np.float32)
    scores = ((rng.permutation(n) + 1) / n).astype(np.float32)
    inputs = {"boxes": boxes, "scores": scores, "classes": np.zeros(n, np.int32), "iou": 0.5}
    return [
        Case(
            kernel="nms",
            name=f"{n:,} boxes",
            inputs=inputs,
            ours=run_nms,
            check=part_as_reference,
            peers=(
                Peer("powerboxes rtree_nms", "powerboxes:rtree_nms", check=same_boxes),
                Peer("powerboxes nms", "powerboxes:nms", check=same_boxes),
                Peer("OpenCV NMSBoxes", "opencv:nms", check=same_boxes),
                Peer("NumPy", "numpy:nms", check=same_boxes),
            ),
            floor=Peer("argsort", "numpy:argsort_scores"),
        )
    ]


def run_nms(inputs: Inputs, threads: int) -> Callable[[], np.ndarray]:
    return lambda: nms(inputs["boxes"], inputs["scores"], inputs["classes"], inputs["iou"], threads=threads)


def part_as_reference(inputs: Inputs, kept: np.ndarray) -> None:
    """No box that is kept overlaps another; and on the first boxes the kernel equals its reference."""
    assert (np.diff(inputs["scores"][kept]) < 0).all(), "not in order of falling score"
    part = [inputs[name][:CHECKED] for name in ("boxes", "scores", "classes")]
    np.testing.assert_array_equal(nms(*part, inputs["iou"]), nms(*part, inputs["iou"], kernel="reference"))


def same_boxes(ours: np.ndarray, theirs: Any) -> None:
    np.testing.assert_array_equal(ours, theirs)
