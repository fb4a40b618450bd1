"""Blending 49 chips of 256 x 256 x 6 onto a scene of 1,024 x 1,024: check, then time."""

from __future__ import annotations

import numpy as np

from rvkernels.ops.blend import blend


def test_blend(benchmark):
    rng = np.random.default_rng(0)
    scores = rng.random((49, 256, 256, 6), np.float32)
    row, col = (grid.reshape(-1) for grid in np.mgrid[0:7, 0:7].astype(np.int64) * 128)
    arguments = (scores, row.copy(), col.copy(), (1024, 1024))
    want = blend(*arguments, kernel="reference")
    labels, mean = benchmark.pedantic(blend, arguments, rounds=3, warmup_rounds=1)
    assert (labels == want.labels).all()
    assert (mean == want.scores).all()
