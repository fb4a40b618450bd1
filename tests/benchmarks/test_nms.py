"""Suppression among 20,000 boxes of two classes: check against every pair, then time."""

from __future__ import annotations

import numpy as np

from rvkernels.ops.iou import iou, random_boxes
from rvkernels.ops.nms import nms


def test_nms(benchmark):
    rng = np.random.default_rng(0)
    n = 20_000
    boxes = random_boxes(rng, n, 2000, 40)
    scores, classes = rng.random(n).astype(np.float32), rng.integers(0, 2, n).astype(np.int32)
    kept = benchmark.pedantic(nms, (boxes, scores, classes), rounds=5, warmup_rounds=1)
    some = kept[:3000]
    close = (iou(boxes[some], boxes[some]) > 0.5) & (classes[some][:, None] == classes[some])
    assert not np.triu(close, 1).any()
    part = slice(0, 2000)
    inputs = (boxes[part], scores[part], classes[part])
    assert (nms(*inputs) == nms(*inputs, kernel="reference")).all()
