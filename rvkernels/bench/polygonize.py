"""Polygons of the scene's buildings, as one mask and as five classes."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import shapely

from rvkernels.bench import Case, Inputs, Peer, Scene
from rvkernels.bench.components import buildings
from rvkernels.ops.polygonize import Polygons, polygonize
from rvkernels.raster import describe

CHECKED = 128  # rows and columns: the reference walks edge by edge


def cases(scene: Scene, quick: bool) -> list[Case]:
    labels = buildings(scene)
    if quick:  # GDAL takes 0.1 s for all of the small scene
        labels = np.ascontiguousarray(labels[:1024, :1024])
    mask = (labels > 0).view(np.uint8)
    transform = describe(scene.path("strip"))["transform"]
    return [
        Case(
            kernel="polygonize",
            name=f"{name}, {connectivity} neighbours",
            inputs={"labels": raster, "connectivity": connectivity, "transform": transform},
            ours=run_polygonize,
            check=part_as_reference,
            peers=(
                Peer("GDAL", "gdal:polygonize", check=same_polygons),
                Peer("rasterio", "rasterio:polygonize", check=as_many_polygons),
            ),
            floor=Peer("read uint8", "numpy:largest"),
        )
        for name, raster, connectivity in (("buildings", mask, 4), ("buildings", mask, 8), ("classes", labels, 4))
    ]


def run_polygonize(inputs: Inputs, threads: int) -> Callable[[], Polygons]:
    labels, transform, connectivity = inputs["labels"], inputs["transform"], inputs["connectivity"]
    return lambda: polygonize(labels, transform, connectivity=connectivity, threads=threads)


def part_as_reference(inputs: Inputs, found: Polygons) -> None:
    part = np.ascontiguousarray(inputs["labels"][:CHECKED, :CHECKED])
    arguments = (part, inputs["transform"])
    got = polygonize(*arguments, connectivity=inputs["connectivity"])
    want = polygonize(*arguments, connectivity=inputs["connectivity"], kernel="reference")
    for name in ("coords", "ring_start", "polygon_start", "values"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
    pixels = shapely.area(found.geometries()).sum() / abs(inputs["transform"][1] * inputs["transform"][5])
    assert round(pixels) == np.count_nonzero(inputs["labels"]), "not the area of the foreground"


def same_polygons(ours: Polygons, theirs: dict[str, Any]) -> None:
    """The same rings, wherever they begin and in whatever order they come."""
    start, wkb = theirs["wkb_start"].tolist(), theirs["wkb"].tobytes()
    geometries = shapely.from_wkb([wkb[begin:end] for begin, end in zip(start, start[1:])])

    def in_order(values: np.ndarray, geometries: np.ndarray) -> list[tuple[int, bytes]]:
        return sorted(zip(values.tolist(), shapely.to_wkb(shapely.normalize(geometries)).tolist()))

    assert in_order(ours.values, ours.geometries()) == in_order(theirs["values"], geometries), "not the same polygons"


def as_many_polygons(ours: Polygons, theirs: dict[str, Any]) -> None:
    """rasterio returns nested lists, which would take longer to hand over than to make: polygons, rings and points."""
    got = (len(ours), len(ours.ring_start) - 1, len(ours.coords))
    assert got == tuple(theirs["counts"]), f"{got} polygons, rings and points, theirs are {theirs['counts']}"
