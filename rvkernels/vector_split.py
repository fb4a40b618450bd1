"""Splits drawn on the map: polygons of a vector file, each with the name of the split that its ground is for.

A region is a rectangle of pixels, and a polygon hardly ever is. So a scene is taken block by block, and a block is in
a split when the polygons of that split cover it wholly. A block on a border is in none: on a slanting border some
ground is lost, but none is in two splits. Blocks of one split that are neighbours become one region.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely

from rvkernels import raster
from rvkernels.registry import suggest
from rvkernels.scene import Region, Scene, edges

# Polygons are written with rounded coordinates; a block on their edge may stick out by this much of a pixel.
EDGE_PIXELS = 0.05


def areas(
    path: str | Path, attribute: str, splits: Sequence[str], layer: str | None = None
) -> tuple[dict[str, shapely.Geometry], str]:
    """Split -> all its polygons as one geometry, for those of `splits` that have some; and the CRS as WKT.

    attribute  of the features: one of `splits`; a feature without a value is of no split
    Raises FileNotFoundError, or ValueError naming the file and what is wrong in it.
    """
    geometries, values, crs = raster.read_polygons(path, attribute, layer)
    of: dict[str, list[shapely.Geometry]] = {}
    for number, (geometry, value) in enumerate(zip(shapely.from_wkb(geometries), values)):
        if value is None:
            continue
        if value not in splits:
            raise ValueError(
                f"{path}: feature {number}: {attribute}: no split {value!r}; {suggest(str(value), splits)}"
            )
        of.setdefault(value, []).append(shapely.make_valid(geometry))
    return {split: shapely.union_all(found) for split, found in of.items()}, crs


def regions(
    scenes: Sequence[Scene],
    splits: Sequence[str],
    *,
    file: str | Path,
    attribute: str = "split",
    layer: str | None = None,
    size: int | None = None,
) -> list[Region]:
    """Regions of the scenes, made of blocks of about `size` pixels as those of by: blocks; None: whole scenes only.

    Raises ValueError when a scene has no CRS, or polygons of two splits cover a block; and as `areas` does.
    """
    covering, crs = areas(file, attribute, splits, layer)
    for area in covering.values():
        shapely.prepare(area)
    found = []
    for scene in scenes:
        if scene.crs is None:
            raise ValueError(f"{scene.images[0]}: has no CRS, so the polygons of {file} have no place in it")
        rows, cols = (edges(n, size or n) for n in (scene.rows, scene.cols))
        blocks = _on_map(scene, rows, cols, crs)
        inside = {split: shapely.covers(area, blocks) for split, area in covering.items()}
        twice = np.argwhere(sum(covered.astype(int) for covered in inside.values()) > 1)
        if len(twice):
            i, j = twice[0]
            names = " and ".join(split for split, covered in inside.items() if covered[i, j])
            raise ValueError(
                f"{file}: polygons of {names} both cover scene {scene.id} at row {rows[i]}, column {cols[j]}; "
                "draw them so that they do not overlap"
            )
        for split, covered in inside.items():
            found += [
                Region(scene.id, int(rows[i]), int(cols[j]), int(rows[m] - rows[i]), int(cols[n] - cols[j]), split)
                for i, j, m, n in rectangles(covered)
            ]
    return found


def rectangles(covered: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Rectangles (first row, first column, row and column after the last) that make up where (rows, cols) is True.

    Each is as wide as there is room in its first row, and as high as all that width is free.
    """
    free, found = covered.copy(), []
    for i, j in np.argwhere(covered):
        if not free[i, j]:
            continue
        n = j + next((k for k, there in enumerate(free[i, j:]) if not there), free.shape[1] - j)
        m = i + next((k for k, row in enumerate(free[i:, j:n]) if not row.all()), len(free) - i)
        free[i:m, j:n] = False
        found.append((int(i), int(j), int(m), int(n)))
    return found


def _on_map(scene: Scene, rows: np.ndarray, cols: np.ndarray, crs: str) -> np.ndarray:
    """Blocks (rows, cols) between edges as polygons in the CRS. Their corners are moved there: blocks are small."""
    top, left = np.meshgrid(rows[:-1] + EDGE_PIXELS, cols[:-1] + EDGE_PIXELS, indexing="ij")
    bottom, right = np.meshgrid(rows[1:] - EDGE_PIXELS, cols[1:] - EDGE_PIXELS, indexing="ij")
    corners = np.stack([[left, top], [right, top], [right, bottom], [left, bottom]]).transpose(2, 3, 0, 1)
    return shapely.polygons(raster.to_map(scene, corners.reshape(-1, 2), crs).reshape(corners.shape))
