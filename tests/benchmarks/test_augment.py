"""Timings of augment: pytest tests/benchmarks/test_augment.py --benchmark-only."""

import numpy as np
import pytest

from rvkernels.ops.augment import EVERYTHING, TOLERANCE, augment

PIPELINES = {
    "none": {},
    "flips and turns": {"flip": True, "turn": True},
    "affine": {"flip": True, "turn": True, "scale": [0.8, 1.25], "rotate": 15, "shift": 0.1},
    "flips and colour": {
        "flip": True,
        "turn": True,
        "brightness": 0.2,
        "contrast": 0.2,
        "saturation": 0.2,
        "hue": 0.02,
    },
    "everything": EVERYTHING,
}


@pytest.mark.parametrize("bands", [3, 13])
@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("kernel", ["reference", "cpp"])
def test_augment(benchmark, kernel, pipeline, bands):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (16, 128, 128, bands)).astype(np.uint8)
    arguments = {
        "seed": 1,
        "epoch": 0,
        "mean": np.full(bands, 100),
        "std": np.full(bands, 50),
        "settings": PIPELINES[pipeline],
        "labels": generator.integers(0, 8, images.shape[:3]).astype(np.uint8),
    }
    index = np.arange(len(images))
    batch = augment(images, index, **arguments, kernel=kernel)
    expected = augment(images, index, **arguments, kernel="reference")
    np.testing.assert_allclose(batch.images, expected.images, rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(batch.labels, expected.labels)
    benchmark.extra_info.update(chips=len(images), bytes=images.nbytes + batch.images.nbytes + 2 * batch.labels.nbytes)
    arguments.update(out=batch.images, kernel=kernel)
    benchmark.pedantic(augment, (images, index), arguments, rounds=3 if kernel == "reference" else 10, warmup_rounds=1)
