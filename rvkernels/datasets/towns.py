"""Two drawn towns: georeferenced scenes with labels for all three tasks, from a seed, without a download.

A scene is a tiled GeoTIFF (UTM, 0.5 m; red, green, blue, near infrared) of fields, woods, water, streets, buildings
and cars, lit by a sun of its own and seen through air, lens and sensor of its own. The two towns differ in street
pattern, roofs, crops, season, sun and haze, and most test scenes lie in the second, of which training sees little.
Colours of classes overlap (dark roofs and asphalt, tiles and bare soil, pitches and crops, water and shadow), so the
colour of a pixel alone does not tell its class.

Every third scene has a collar without data (0), as the edge of a flight strip leaves it; the area of interest leaves
the collar out. Labels are GeoJSON in EPSG:4326 with class_id and class_name: land cover that fills the imaged area
without overlap, and the footprints of cars and buildings of which at least half shows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

from shapely.geometry import mapping

from rvkernels import raster
from rvkernels.datasets._towns.city import CITIES
from rvkernels.datasets._towns.cover import area_of_interest, land_cover, visible_objects
from rvkernels.datasets._towns.layout import plan_scene
from rvkernels.datasets._towns.paint import expose, paint
from rvkernels.files import locked, read_json, write_json
from rvkernels.pool import pool
from rvkernels.scene import Scene

VERSION = 1  # of the drawing: raise it when the pictures change, so that old ones are drawn again
GSD = 0.5  # metres
BANDS = ("red", "green", "blue", "nir")
LAND_COVER = ("field", "woods", "water", "road", "building", "open")
OBJECTS = ("car", "building")
CLASSES = {"classification": LAND_COVER, "segmentation": LAND_COVER, "detection": OBJECTS}
DTYPES = ("uint8", "uint16")
LEAST = 256  # pixels; smaller scenes hold too little of anything


def scenes(
    description: dict,
    files: dict[str, Path],
    *,
    task: str,
    folder: str | Path,
    share: str | None = None,
    seed: int = 0,
    scenes_per_city: int = 7,
    size: int = 1024,
    dtype: str = "uint8",
    threads: int = 0,
) -> list[Scene]:
    """Draw what is not yet in `folder` and list the scenes with the labels of `task`.

    share   name of a folder beside `folder` to draw in instead, so that several descriptions use the same pictures
    Other settings as in `draw`. `files` is not used: nothing is fetched. Raises ValueError when the description's
    classes are not those of the task.
    """
    names = tuple(c["name"] for c in description["classes"])
    if names != CLASSES[task]:
        raise ValueError(
            f"{description['name']}: classes: the labels for {task} have {', '.join(CLASSES[task])}, "
            f"but the description lists {', '.join(names)}; list the former in this order"
        )
    target = Path(folder) if share is None else Path(folder).parent / share
    return draw(
        target,
        seed=seed,
        scenes_per_city=scenes_per_city,
        size=size,
        dtype=dtype,
        objects=task == "detection",
        threads=threads,
    )


def splits(scenes_per_city: int) -> dict[str, str]:
    """Scene id -> split: with 7 scenes per city 8 train, 2 val and 4 test; the test is mostly the second city."""
    n = scenes_per_city
    last = {"a": (1 if n >= 4 else 0, 1), "b": (max(1, round(3 * n / 7)), 1 if n >= 5 else 0)}
    found = {}
    for city, (test, val) in last.items():
        for k in range(n):
            found[f"{city}{k:02d}"] = "test" if k >= n - test else "val" if k >= n - test - val else "train"
    return found


def draw(
    folder: str | Path,
    *,
    seed: int = 0,
    scenes_per_city: int = 7,
    size: int = 1024,
    dtype: str = "uint8",
    objects: bool = False,
    threads: int = 0,
) -> list[Scene]:
    """Draw the scenes of both cities into `folder` and list them.

    folder           gets images/, labels/ and aoi/ and a record per scene, written last; a scene whose record has the
                     same settings is not drawn again
    seed             of everything; the same settings give the same bytes, whatever `threads` is
    scenes_per_city  2 or more, so that each split has a scene
    size             rows and columns in pixels of 0.5 m, 256 or more
    dtype            "uint8" (stretched, as orthophotos are delivered) or "uint16" (10000 times the radiance)
    objects          whether the scenes name the footprints of objects or the land cover as their labels
    threads          processes that draw (0: one per core); they start anew, so a script that calls this needs the
                     usual `if __name__ == "__main__":`

    Raises ValueError naming the setting that is out of range.
    """
    for name, value, least in (("scenes_per_city", scenes_per_city, 2), ("size", size, LEAST), ("seed", seed, 0)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"towns: {name}: expected an integer of at least {least}, got {value!r}")
    if dtype not in DTYPES:
        raise ValueError(f"towns: dtype: expected {' or '.join(DTYPES)}, got {dtype!r}")
    if size % 4:
        raise ValueError(f"towns: size: expected a multiple of 4, got {size}")
    folder = Path(folder)
    split = splits(scenes_per_city)
    todo = [(folder, name, seed, size, dtype) for name in split if not _is_drawn(folder, name, seed, size, dtype)]
    workers = min(threads or os.cpu_count() or 1, len(todo))
    if workers > 1:
        with pool(workers) as drawing:
            list(drawing.map(_draw_scene, *zip(*todo)))
    else:
        for job in todo:
            _draw_scene(*job)
    listed = [_scene(folder, name, size, dtype, split[name], objects) for name in split]
    found = raster.describe_many([s.images[0] for s in listed], threads)
    return [dataclasses.replace(s, crs=f["crs"]) for s, f in zip(listed, found)]


def _record(seed: int, size: int, dtype: str) -> dict:
    return {"version": VERSION, "seed": seed, "size": size, "dtype": dtype}


def _paths(folder: Path, name: str) -> dict[str, Path]:
    return {
        "image": folder / "images" / f"{name}.tif",
        "landcover": folder / "labels" / f"{name}_landcover.geojson",
        "objects": folder / "labels" / f"{name}_objects.geojson",
        "aoi": folder / "aoi" / f"{name}.geojson",
    }


def _is_drawn(folder: Path, name: str, seed: int, size: int, dtype: str) -> bool:
    record = folder / f"{name}.json"
    if not record.exists() or not all(p.exists() for p in _paths(folder, name).values()):
        return False
    known = read_json(record)
    return all(known.get(key) == value for key, value in _record(seed, size, dtype).items())


def _scene(folder: Path, name: str, size: int, dtype: str, split: str | None, objects: bool) -> Scene:
    city = CITIES[[c.name for c in CITIES].index(name[0])]
    number = int(name[1:])
    paths = _paths(folder, name)
    # Scenes of a city lie in rows of four, 200 m apart.
    x = city.origin[0] + (number % 4) * (size * GSD + 200)
    y = city.origin[1] - (number // 4) * (size * GSD + 200)
    return Scene(
        id=name,
        images=(str(paths["image"]),),
        rows=size,
        cols=size,
        bands=len(BANDS),
        dtype=dtype,
        transform=(x, GSD, 0.0, y, 0.0, -GSD),
        crs=city.crs,
        nodata=0.0,
        labels=str(paths["objects" if objects else "landcover"]),
        aoi=str(paths["aoi"]),
        group=f"city {city.name}",
        split=split,
    )


def _draw_scene(folder: Path, name: str, seed: int, size: int, dtype: str) -> None:
    """Draw, write and record one scene, unless another process has done so meanwhile."""
    with locked(folder / f".{name}.lock"):
        if _is_drawn(folder, name, seed, size, dtype):
            return
        record = folder / f"{name}.json"
        record.unlink(missing_ok=True)
        scene = _scene(folder, name, size, dtype, None, False)
        paths = _paths(folder, name)
        number = int(name[1:])
        plan = plan_scene(CITIES[[c.name for c in CITIES].index(name[0])], number, size, seed)
        radiance, seen, valid = paint(plan, seed, number)
        image = expose(radiance, valid, dtype, seed, name[0], number)
        raster.write_geotiff(
            paths["image"], image, scene.crs, scene.transform, nodata=0, names=BANDS, photometric="rgb"
        )
        _write(paths["landcover"], scene, land_cover(plan), LAND_COVER)
        _write(paths["objects"], scene, visible_objects(plan, seen), OBJECTS)
        raster.to_geojson(paths["aoi"], scene, [(mapping(area_of_interest(plan)), {"scene": name})])
        write_json(record, {**_record(seed, size, dtype), "sha256": hashlib.sha256(image).hexdigest()})


def _write(path: Path, scene: Scene, shapes: list, classes: tuple[str, ...]) -> None:
    raster.to_geojson(path, scene, [(mapping(p), {"class_id": classes.index(c), "class_name": c}) for c, p in shapes])
