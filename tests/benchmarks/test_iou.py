"""IoU of 1,000 with 1,000 boxes into an array that is reused: check, then time."""

from __future__ import annotations

import numpy as np

from rvkernels.ops.iou import iou, random_boxes


def test_iou(benchmark):
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 1000, 500, 40), random_boxes(rng, 1000, 500, 40)
    out = np.empty((1000, 1000), np.float32)
    want = iou(a, b, kernel="reference")
    assert (benchmark.pedantic(iou, (a, b, out), rounds=5, warmup_rounds=1) == want).all()
