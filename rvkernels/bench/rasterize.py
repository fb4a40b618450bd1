"""The buildings of the scene as class masks: 300 chips of 256 x 256 pixels, and the whole scene.

All sides get the same pixel coordinates. Chips are burned from what is kept for a scene: the kernel's index, which
finds a chip's polygons itself, and for the peers a layer or list per chip that holds only those. For the whole scene
the time of making the kernel's index counts.
"""

from __future__ import annotations

import json
from typing import Any, Callable

import numpy as np

from rvkernels import raster
from rvkernels.bench import Case, Inputs, Peer, Scene
from rvkernels.ops.rasterize import POLYGON, Geometries, Rasterizer

CHIP = 256
BOUNDARY = "paints the boundaries of polygons, too, and rounds their corners to whole pixels"


def cases(scene: Scene, quick: bool) -> list[Case]:
    buildings = polygons(scene)
    chips = np.random.default_rng(1).integers(0, (scene.rows - CHIP, scene.cols - CHIP), (60 if quick else 300, 2))
    whole = np.zeros((1, 2), np.int64)
    floor = Peer("memset", "numpy:fill_masks")
    layer = Peer("GDAL RasterizeLayer", "gdal:rasterize", check=same_masks)
    shapes = Peer("rasterio", "rasterio:rasterize", check=same_masks)
    opencv = Peer("OpenCV fillPoly", "opencv:fill_polygons", differs=BOUNDARY, rival=False)
    return [
        Case(
            kernel="rasterize",
            name=f"{len(chips)} chips",
            inputs={**buildings, **_windows(buildings, chips, CHIP, CHIP)},
            ours=run_chips,
            peers=(layer, shapes, opencv),
            floor=floor,
        ),
        Case(
            kernel="rasterize",
            name="whole scene",
            inputs={**buildings, **_windows(buildings, whole, scene.rows, scene.cols)},
            ours=run_scene,
            peers=(Peer("rusterize", "rusterize:rasterize", check=nearly_the_same_mask), layer, shapes, opencv),
            floor=floor,
        ),
    ]


def polygons(scene: Scene) -> dict[str, np.ndarray]:
    """The buildings: `coords`, corners in pixels (x = column), `ring_start`, where each begins, `values`, classes."""
    with open(scene.buildings, encoding="utf-8") as file:
        features = json.load(file)["features"]
    rings = [np.array(feature["geometry"]["coordinates"][0]) for feature in features]
    west, width, _, north, _, height = raster.describe(scene.path("strip"))["transform"]
    coords = (np.concatenate(rings) - (west, north)) / (width, height)
    ring_start = np.concatenate([[0], np.cumsum([len(ring) for ring in rings])]).astype(np.int64)
    values = np.array([feature["properties"]["cls"] for feature in features], np.uint8)
    return {"coords": coords, "ring_start": ring_start, "values": values}


def _windows(buildings: Inputs, places: np.ndarray, rows: int, cols: int) -> dict[str, Any]:
    """The windows, and for who has no index which polygons' boxes meet each: hits[hit_start[i]:hit_start[i + 1]]."""
    starts = buildings["ring_start"][:-1]
    low, high = (f.reduceat(buildings["coords"], starts) for f in (np.minimum, np.maximum))
    begin = places[:, ::-1]
    end = begin + np.array([cols, rows])
    hits = [np.flatnonzero(((low < b) & (high > a)).all(axis=1)) for a, b in zip(begin, end)]
    hit_start = np.concatenate([[0], np.cumsum([len(hit) for hit in hits])]).astype(np.int64)
    return {"places": places, "rows": rows, "cols": cols, "hits": np.concatenate(hits), "hit_start": hit_start}


def rasterizer(inputs: Inputs, threads: int) -> Rasterizer:
    n = len(inputs["values"])
    each = np.arange(n + 1)
    geometries = Geometries(inputs["coords"], inputs["ring_start"], each, each, np.full(n, POLYGON, np.uint8))
    return Rasterizer(geometries, inputs["values"], threads=threads)


def run_chips(inputs: Inputs, threads: int) -> Callable[[], np.ndarray]:
    index = rasterizer(inputs, threads)
    out = np.empty((len(inputs["places"]), inputs["rows"], inputs["cols"]), np.uint8)
    return lambda: index.windows(inputs["places"], inputs["rows"], inputs["cols"], out)


def run_scene(inputs: Inputs, threads: int) -> Callable[[], np.ndarray]:
    out = np.empty((1, inputs["rows"], inputs["cols"]), np.uint8)
    return lambda: rasterizer(inputs, threads).windows(inputs["places"], inputs["rows"], inputs["cols"], out)


def same_masks(ours: np.ndarray, theirs: Any) -> None:
    np.testing.assert_array_equal(ours, theirs)


def nearly_the_same_mask(ours: np.ndarray, theirs: Any) -> None:
    """Up to one pixel in ten million: rusterize rounds elsewhere than GDAL where an edge meets a pixel's centre."""
    different = int((ours != theirs).sum())
    assert different <= ours.size * 1e-7, f"{different} pixels differ"
