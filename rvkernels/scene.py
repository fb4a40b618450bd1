"""A scene: one place seen from above, its imagery, its labels and its area of interest.

A dataset is a list of scenes, kept as JSON lines (one scene per line). Pixel (row, col) covers [row, row+1) x
[col, col+1); a geotransform (GDAL's six numbers) maps pixel corners to the CRS:
x = t[0] + col * t[1] + row * t[2], y = t[3] + col * t[4] + row * t[5].
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rvkernels.files import atomic


@dataclass(frozen=True)
class Scene:
    """Imagery and labels of one place.

    images      GDAL paths; their bands are stacked in this order. The first decides grid, CRS and nodata.
    labels      path of the label file (GeoJSON or raster) or None when the scene has no labels
    class_name  the class of the whole scene, for datasets of labelled chips; else None
    aoi         GeoJSON of the area that is labelled; None means everywhere
    group       what must stay together in a split: a tile, a site, a city
    split       the split its publisher put it in ("train", "val", "test"); None when there is none
    crs         as WKT; None when the imagery has no georeference
    """

    id: str
    images: tuple[str, ...]
    rows: int
    cols: int
    bands: int
    dtype: str
    transform: tuple[float, float, float, float, float, float] = (0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    crs: str | None = None
    nodata: float | None = None
    labels: str | None = None
    class_name: str | None = None
    aoi: str | None = None
    group: str = ""
    split: str | None = None


@dataclass(frozen=True)
class Region:
    """A rectangle of a scene that belongs to one split: rows [row, row+rows), columns [col, col+cols).

    Regions of a scene never overlap, and windows never leave their region, so no pixel is in two splits.
    """

    scene: str
    row: int
    col: int
    rows: int
    cols: int
    split: str

    @property
    def extent(self) -> tuple[int, int, int, int]:
        """As rvkernels.ops.windows takes it."""
        return self.row, self.col, self.rows, self.cols


def edges(n: int, size: int) -> np.ndarray:
    """Where 0 .. n is cut into pieces of nearly equal length, about `size`, both ends included."""
    return np.linspace(0, n, max(1, round(n / size)) + 1).round().astype(int)


def write_scenes(path: str | Path, scenes: Iterable[Scene]) -> None:
    """Write scenes as JSON lines, atomically."""
    with atomic(path) as temporary, temporary.open("w") as out:
        for scene in scenes:
            out.write(json.dumps(dataclasses.asdict(scene), allow_nan=False) + "\n")


def read_scenes(path: str | Path) -> dict[str, Scene]:
    """Scenes by id, in file order."""
    scenes = {}
    with open(path) as lines:
        for line in lines:
            fields = json.loads(line)
            fields["images"] = tuple(fields["images"])
            fields["transform"] = tuple(fields["transform"])
            scenes[fields["id"]] = Scene(**fields)
    return scenes


def write_regions(path: str | Path, regions: Iterable[Region]) -> None:
    """Write regions as CSV, atomically."""
    with atomic(path) as temporary, temporary.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow([f.name for f in dataclasses.fields(Region)])
        table.writerows(dataclasses.astuple(r) for r in regions)


def read_regions(path: str | Path) -> list[Region]:
    """Regions in file order."""
    with open(path, newline="") as lines:
        return [
            Region(r["scene"], int(r["row"]), int(r["col"]), int(r["rows"]), int(r["cols"]), r["split"])
            for r in csv.DictReader(lines)
        ]


def check_regions(regions: Iterable[Region], scenes: Mapping[str, Scene]) -> None:
    """Raise ValueError, naming the scene, unless every region lies in one of the scenes and holds a pixel."""
    for region in regions:
        if region.scene not in scenes:
            raise ValueError(f"regions: no scene {region.scene!r}; run `rvk split` again")
        scene, (row, col, rows, cols) = scenes[region.scene], region.extent
        if min(row, col) < 0 or min(rows, cols) < 1 or row + rows > scene.rows or col + cols > scene.cols:
            raise ValueError(
                f"regions: rows {row} to {row + rows} and columns {col} to {col + cols} are no part of scene "
                f"{region.scene}, which has {scene.rows} x {scene.cols} pixels; run `rvk split` again"
            )
