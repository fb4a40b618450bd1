"""20,000 polygons of 7 vertices on a scene: 100 chips of 256 x 256, and a 2,048 x 2,048 corner. Check, then time."""

from __future__ import annotations

import numpy as np
import pytest

from rvkernels.ops.rasterize import Geometries, Rasterizer


@pytest.fixture(scope="module")
def polygons():
    rng = np.random.default_rng(0)
    centres, radii = rng.random((20_000, 1, 2)) * 10_000, 10 + 30 * rng.random((20_000, 7, 1))
    angles = np.linspace(0, 2 * np.pi, 7, endpoint=False)
    rings = centres + radii * np.stack([np.cos(angles), np.sin(angles)], 1)
    geometries = Geometries.from_shapes({"type": "Polygon", "coordinates": [ring]} for ring in rings)
    return geometries, rng.integers(1, 7, 20_000)


@pytest.mark.parametrize("all_touched", [False, True], ids=["centres", "touched"])
def test_chips(benchmark, polygons, all_touched):
    scene = Rasterizer(*polygons, (10_000, 10_000), all_touched=all_touched)
    places = np.random.default_rng(1).integers(0, 10_000 - 256, (100, 2))
    out = np.empty((100, 256, 256), np.uint8)
    benchmark.pedantic(scene.windows, (places, 256, 256, out), rounds=5, warmup_rounds=1)
    row, col = places[7].tolist()
    assert (out[7] == scene.window(row - 100, col - 100, 500, 500)[100:356, 100:356]).all()
    assert out.any()


def test_corner(benchmark, polygons):
    scene = Rasterizer(*polygons, (10_000, 10_000))
    mask = benchmark.pedantic(scene.window, (0, 0, 2048, 2048), rounds=3, warmup_rounds=1)
    assert (mask[500:756, 900:1156] == scene.window(500, 900, 256, 256)).all()


def test_index(benchmark, polygons):
    scene = benchmark.pedantic(Rasterizer, (*polygons, (10_000, 10_000)), rounds=3, warmup_rounds=1)
    assert scene.window(0, 0, 256, 256).any()
