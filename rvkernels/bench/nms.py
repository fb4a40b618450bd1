"""Suppression among boxes of one class with distinct scores: spread out, in crowds about objects, and rotated."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from rvkernels.bench import Case, Inputs, Peer, Scene
from rvkernels.ops.iou import reference_iou
from rvkernels.ops.nms import nms
from rvkernels.ops.rotated_iou import reference_rotated_iou

CHUNK = 200  # kept boxes that are compared with all at a time to check


def cases(scene: Scene, quick: bool) -> list[Case]:
    rng = np.random.default_rng(0)
    n = 5_000 if quick else 20_000
    extent = 2000 * np.sqrt(n / 20_000)
    corner = rng.random((n, 2)) * extent
    crowds = corner[rng.integers(0, n // 60, n)] + rng.normal(0, 3, (n, 2))
    scores = ((rng.permutation(n) + 1) / n).astype(np.float32)
    floor = Peer("argsort", "numpy:argsort_scores")
    listed = []
    for name, first, least, most in (("", corner, 10, 50), (" in crowds", crowds, 36, 44)):
        boxes = np.concatenate([first, first + rng.uniform(least, most, (n, 2))], 1).astype(np.float32)
        listed.append(
            Case(
                kernel="nms",
                name=f"{n:,} boxes{name}",
                inputs=_inputs(boxes, scores),
                ours=run_nms,
                check=as_defined,
                peers=(
                    Peer("powerboxes rtree_nms", "powerboxes:rtree_nms", check=same_boxes),
                    Peer("powerboxes nms", "powerboxes:nms", check=same_boxes),
                    Peer("OpenCV NMSBoxes", "opencv:nms", check=same_boxes),
                    Peer("NumPy", "numpy:nms", check=same_boxes),
                ),
                floor=floor,
            )
        )
    m = n // 4
    turned = np.concatenate([corner[:m] / 2, rng.uniform(10, 50, (m, 2)), rng.uniform(0, 180, (m, 1))], 1)
    rotated = Case(
        kernel="nms",
        name=f"{m:,} rotated boxes",
        inputs={**_inputs(turned, scores[:m]), "rotated": True},
        ours=run_nms,
        check=as_defined,
        peers=(Peer("powerboxes rtree_rotated_nms", "powerboxes:rtree_rotated_nms", check=same_boxes),),
        floor=floor,
    )
    return [*listed, rotated]


def _inputs(boxes: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    return {"boxes": boxes, "scores": scores, "classes": np.zeros(len(boxes), np.int32), "iou": 0.5, "rotated": False}


def run_nms(inputs: Inputs, threads: int) -> Callable[[], np.ndarray]:
    boxes, scores, classes = (inputs[name] for name in ("boxes", "scores", "classes"))
    return lambda: nms(boxes, scores, classes, inputs["iou"], rotated=inputs["rotated"], threads=threads)


def as_defined(inputs: Inputs, kept: np.ndarray) -> None:
    """In order of falling score, those boxes that overlap no better one of them."""
    boxes, scores = inputs["boxes"], inputs["scores"]
    assert (np.diff(scores[kept]) < 0).all(), "not in order of falling score"
    overlap = reference_rotated_iou if inputs["rotated"] else reference_iou
    suppressed = np.zeros(len(boxes), bool)
    for first in range(0, len(kept), CHUNK):
        part = kept[first : first + CHUNK]
        suppressed |= ((overlap(boxes[part], boxes) > inputs["iou"]) & (scores[part, None] > scores)).any(axis=0)
    np.testing.assert_array_equal(np.sort(kept), np.flatnonzero(~suppressed))


def same_boxes(ours: np.ndarray, theirs: Any) -> None:
    np.testing.assert_array_equal(ours, theirs)
