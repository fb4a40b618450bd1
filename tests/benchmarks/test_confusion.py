"""Confusion matrix of two scenes of 4 million pixels, six classes: check, then time."""

from __future__ import annotations

import numpy as np

from rvkernels.ops.confusion import confusion


def test_confusion(benchmark):
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 6, (2, 2000, 2000)).astype(np.uint8)
    want = np.bincount((truth.astype(np.int64) * 6 + predicted).reshape(-1), minlength=36).reshape(6, 6)
    counts = benchmark.pedantic(confusion, (truth, predicted, 6), rounds=5, warmup_rounds=1)
    assert (counts == want).all()
