"""Timings of normalize: pytest tests/benchmarks/test_normalize.py --benchmark-only."""

import numpy as np
import pytest

from rvkernels.ops.normalize import LAYOUTS, normalize


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bands", [3, 13])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("kernel", ["reference", "cpp"])
def test_normalize(benchmark, kernel, dtype, bands, layout):
    images = np.random.default_rng(0).integers(0, 256, (16, 128, 128, bands)).astype(dtype)
    arguments = {"mean": np.full(bands, 100), "std": np.full(bands, 50), "layout": layout}
    out = normalize(images, **arguments, kernel=kernel)
    np.testing.assert_array_equal(out, normalize(images, **arguments, kernel="reference"))
    benchmark.extra_info.update(chips=len(images), bytes=images.nbytes + out.nbytes)
    benchmark.pedantic(normalize, (images,), {**arguments, "out": out, "kernel": kernel}, rounds=5, warmup_rounds=1)
