"""Labels that a publisher keeps in a form of its own, written anew as GeoJSON in pixels, one file per scene.

A form reads them once, when the scenes are listed; later stages know GeoJSON and label images only (labels.py).
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from rvkernels.files import atomic
from rvkernels.scene import Scene

if TYPE_CHECKING:
    from rvkernels.labels import Classes

Shape = tuple[int, dict]  # class id, GeoJSON geometry whose x is a column and y a row


def converted(
    description: dict, scenes: Sequence[Scene], read: Callable[[Scene, Classes], list[Shape]], threads: int = 0
) -> list[Scene]:
    """The scenes with their labels as GeoJSON files in description["made"], a folder that fetch names.

    read    gives the shapes of a scene; it is asked for scenes that have labels, others have no object
    """
    from rvkernels.labels import Classes  # here, so that a description loads where there is no GDAL

    known, folder = Classes(description["classes"]), Path(description["made"])

    def convert(scene: Scene) -> Scene:
        shapes = [] if scene.labels is None else read(scene, known)
        features = [{"type": "Feature", "properties": {"class_id": c}, "geometry": g} for c, g in shapes]
        path = folder / f"{scene.id}.geojson"
        with atomic(path) as temporary:
            temporary.write_text(json.dumps({"type": "FeatureCollection", "crs": None, "features": features}))
        return dataclasses.replace(scene, labels=str(path))

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        return list(pool.map(convert, scenes))


def from_lines(parse: Callable[[str, Scene, Classes, str], Shape | None]) -> Callable[[Scene, Classes], list[Shape]]:
    """A reader for `converted` of text files with one object per line.

    parse   gets a line without spaces around it, the scene, the classes, and file and line for errors; None is no
            object. Empty lines are skipped.
    """

    def read(scene: Scene, known: Classes) -> list[Shape]:
        shapes = (parse(line, scene, known, where) for where, line in _lines(scene.labels))
        return [shape for shape in shapes if shape is not None]

    return read


def _lines(path: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            yield f"{path}: line {number}", line.strip()


def read_bytes(path: str) -> bytes:
    """A whole file, also one inside an archive. Raises FileNotFoundError."""
    from rvkernels import raster

    return raster.read_bytes(path)


def read_text(path: str) -> str:
    """A whole UTF-8 file, also one inside an archive. Raises ValueError naming it when it is something else."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}; is it a label file?") from None


def read_json(path: str) -> dict:
    """A JSON file that holds an object. Raises ValueError naming the file."""
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def numbers(values: object, count: int, what: str, where: str) -> list[float]:
    """`count` finite numbers, or texts of them, as float. Raises ValueError naming `where` and `what` it should be."""
    found = values if isinstance(values, (list, tuple)) else [values]
    try:
        parsed = [float(v) for v in found if not isinstance(v, bool)]
    except (TypeError, ValueError):
        parsed = []
    if len(parsed) != count or len(found) != count or not all(map(math.isfinite, parsed)):
        raise ValueError(f"{where}: expected {what}, got {' '.join(map(str, found))!r}")
    return parsed


def box(xmin: float, ymin: float, xmax: float, ymax: float, where: str) -> dict:
    """The polygon of a box in pixels. Raises ValueError naming `where` when it has no area."""
    from rvkernels import raster

    if not (xmin < xmax and ymin < ymax):
        raise ValueError(
            f"{where}: the box is empty: x {xmin:g} to {xmax:g}, y {ymin:g} to {ymax:g}; expected corners in the order "
            f"of x and y; correct or remove it"
        )
    return raster.box_geometry((ymin, xmin, ymax, xmax))


def polygon(points: Sequence[Sequence[float]]) -> dict:
    """The polygon of a ring of points (x, y) in pixels, closed."""
    return {"type": "Polygon", "coordinates": [[*map(list, points), list(points[0])]]}
