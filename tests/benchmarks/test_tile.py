"""Windows of a deflated GeoTIFF and many small images, against the plain loop; results are compared while timed."""

from __future__ import annotations

import numpy as np
import pytest

from rvkernels import raster
from rvkernels.ops import tile


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("tile") / "scene.tif"
    noise = np.random.default_rng(0).normal(0, 3, (1024, 1024, 4))
    slope = np.add.outer(np.arange(1024), np.arange(1024))[..., None] / 16
    raster.write_geotiff(path, (noise + slope + 40).astype(np.uint8), None, raster.IDENTITY)
    return str(path)


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    corners = [(row, col, 256, 256) for row in range(0, 769, 64) for col in range(0, 769, 64)]
    return np.random.default_rng(0).permutation(np.array(corners, np.int64))


@pytest.mark.parametrize("kernel", ["reference", "cpp"])
@pytest.mark.benchmark(group="tile-overlapping-windows")
def test_overlapping_windows(benchmark, scene, windows, kernel):
    expected = tile.read(scene, windows[:8], kernel="reference")
    out = np.empty((len(windows), 256, 256, 4), np.uint8)
    benchmark.pedantic(tile.read, (scene, windows), {"out": out, "kernel": kernel}, rounds=3, warmup_rounds=1)
    np.testing.assert_array_equal(out[:8], expected)


@pytest.mark.parametrize("kernel", ["reference", "cpp"])
@pytest.mark.benchmark(group="tile-many-small-images")
def test_many_small_images(benchmark, tmp_path, kernel):
    paths = []
    for i in range(200):
        paths.append(str(tmp_path / f"{i}.tif"))
        raster.write_geotiff(paths[-1], np.full((64, 64, 3), i, np.uint8), None, raster.IDENTITY)
    got = benchmark.pedantic(tile.read_many, (paths,), {"kernel": kernel}, rounds=3, warmup_rounds=1)
    np.testing.assert_array_equal(got[:, 0, 0, 0], np.arange(200))
