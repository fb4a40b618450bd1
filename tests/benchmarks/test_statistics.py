"""Statistics of 4 million pixels of four bands with a valid mask: check, then time."""

from __future__ import annotations

import numpy as np
import pytest

from rvkernels.ops.statistics import statistics


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_statistics(benchmark, dtype):
    rng = np.random.default_rng(0)
    images = (rng.standard_normal((1000, 1000, 4)).clip(-4, 4) * 30 + 127).astype(dtype)
    valid = (rng.random((1000, 1000)) < 0.9).astype(np.uint8)
    found = benchmark.pedantic(statistics, (images, valid), rounds=3, warmup_rounds=1)
    kept = images[valid != 0].astype(np.float64)
    assert np.allclose(found["mean"], kept.mean(0), rtol=1e-12)
    assert np.allclose(found["std"], kept.std(0), rtol=1e-12)
