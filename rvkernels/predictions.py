"""Predictions on disk: what `rvk predict-regions` and `rvk predict` write and `rvk evaluate` reads.

One folder per run:
    predictions.npz   the exact numbers, for evaluation:
                      meta       JSON: task, split, classes (names), scenes (ids), settings
                      regions    (r, 5) int64: scene, row, col, rows, cols; what was predicted
                      classification  cells (n, 5) int64: scene, row, col, rows, cols; scores (n, classes) float32
                      detection  boxes (m, 4) float32 pixels of the scene, box_scene (m,) int64, box_class (m,) int32,
                                 scores (m,) float32; best score first within a scene
    for people and GIS, in Raster Vision's forms:
    classification    <scene>.json for a scene of several cells, predictions.csv for scenes that are one cell
    segmentation      <scene>/labels.tif (class ids, 255 where there is none), <scene>/scores.tif,
                      <scene>/polygons/class-<id>-<name>.json; labels.tif is exact and is what evaluation reads
    detection         <scene>.json
"""

from __future__ import annotations

import contextlib
import csv
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rvkernels import raster
from rvkernels.files import atomic
from rvkernels.ops.polygonize import polygonize
from rvkernels.scene import Region, Scene

FILE = "predictions.npz"
RECORD = "record.json"  # beside them
UNSEEN = 255  # in labels.tif: no prediction here
ARRAYS = {
    "classification": ("cells", "scores"),
    "segmentation": (),
    "detection": ("boxes", "box_scene", "box_class", "scores"),
}


@dataclass(frozen=True)
class Predictions:
    """What predictions.npz holds; the module says what its arrays are."""

    task: str
    split: str
    classes: list[str]
    scenes: list[str]
    settings: dict
    regions: np.ndarray
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def write(self, folder: str | Path) -> None:
        """Write predictions.npz, atomically."""
        meta = {k: getattr(self, k) for k in ("task", "split", "classes", "scenes", "settings")}
        with atomic(Path(folder) / FILE) as temporary:
            np.savez(temporary, meta=np.array(json.dumps(meta)), regions=self.regions, **self.arrays)

    @staticmethod
    def read(folder: str | Path) -> Predictions:
        """FileNotFoundError when the folder holds no predictions, ValueError naming the file when it is damaged."""
        path = Path(folder) / FILE
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; run `rvk predict-regions` first")
        try:
            with np.load(path, allow_pickle=False) as file:
                meta = json.loads(str(file["meta"]))
                arrays = {name: file[name] for name in ARRAYS[meta["task"]]}
                return Predictions(**meta, regions=file["regions"], arrays=arrays)
        except (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError) as error:
            raise ValueError(f"{path}: not readable predictions ({error}); run `rvk predict-regions` again") from None

    def scene_regions(self, scene: str) -> list[Region]:
        """The predicted regions of one scene, in order."""
        index = self.scenes.index(scene)
        return [Region(scene, *map(int, r[1:]), self.split) for r in self.regions if r[0] == index]


def scene_file(folder: str | Path, scene: str, name: str) -> Path:
    """<folder>/<scene><name>; ValueError when the scene's id would lead out of the folder, or to the run's record."""
    if ".." in Path(scene).parts or Path(scene).is_absolute():
        raise ValueError(f"scene {scene!r}: its id is used as a file name; '..' and absolute paths are not allowed")
    if f"{scene}{name}" == RECORD:
        raise ValueError(f"scene {scene!r}: its predictions would be {RECORD}, which is the run's; rename the scene")
    return Path(folder) / f"{scene}{name}"


def write_cells(
    folder: str | Path, scene: Scene, cells: np.ndarray, scores: np.ndarray, classes: Sequence[str]
) -> None:
    """<scene>.json: a box per cell (n, 4: row, col, rows, cols) with class_id, class_name and scores (n, classes)."""
    features = []
    for (row, col, rows, cols), row_scores in zip(cells.tolist(), scores):
        best = int(row_scores.argmax())
        properties = {"class_id": best, "class_name": classes[best], "scores": _decimals(row_scores)}
        features.append((raster.box_geometry((row, col, row + rows, col + cols)), properties))
    raster.to_geojson(scene_file(folder, scene.id, ".json"), scene, features)


def write_table(folder: str | Path, scenes: Sequence[str], scores: np.ndarray, classes: Sequence[str]) -> None:
    """predictions.csv: scene, class_id, class_name and a score_<class> per class, for scenes that are one cell each."""
    with atomic(Path(folder) / "predictions.csv") as temporary, temporary.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(["scene", "class_id", "class_name", *(f"score_{name}" for name in classes)])
        for scene, row_scores in zip(scenes, scores):
            best = int(row_scores.argmax())
            table.writerow([scene, best, classes[best], *_decimals(row_scores)])


def write_boxes(
    folder: str | Path,
    scene: Scene,
    boxes: np.ndarray,
    box_class: np.ndarray,
    scores: np.ndarray,
    classes: Sequence[str],
) -> None:
    """<scene>.json: one polygon per box with class_id, class_name and score."""
    features = [
        (
            raster.box_geometry(box),
            {"class_id": int(c), "class_name": classes[c], "score": _decimals(np.atleast_1d(score))[0]},
        )
        for box, c, score in zip(boxes, box_class, scores)
    ]
    raster.to_geojson(scene_file(folder, scene.id, ".json"), scene, features)


def score_parts(
    folder: str | Path, scene: Scene, dtype: str, classes: Sequence[str]
) -> contextlib.AbstractContextManager[Callable[[int, int, np.ndarray], None]]:
    """scores.tif, a band per class, uint8 = round(255 score) or float32, part by part (raster.geotiff_parts)."""
    path = scene_file(folder, scene.id, "") / "scores.tif"
    shape = (scene.rows, scene.cols, len(classes))
    return raster.geotiff_parts(path, shape, dtype, scene.crs, scene.transform, names=list(classes))


def write_labels(
    folder: str | Path,
    scene: Scene,
    labels: np.ndarray,
    classes: Sequence[str],
    colors: Sequence[Sequence[int]],
    *,
    polygons: int | None = 1,
) -> None:
    """labels.tif with a colour table, and the polygons.

    labels    (rows, cols) uint8 class ids, UNSEEN = none
    polygons  pixels of the smallest area that is a polygon of its own; None: no polygons
    """
    place = scene_file(folder, scene.id, "")
    table = {i: tuple(color) for i, color in enumerate(colors)}
    raster.write_geotiff(
        place / "labels.tif", labels, scene.crs, scene.transform, nodata=UNSEEN, colors=table, cog=True
    )
    if polygons is None:
        return
    sieved = raster.sieve(labels, polygons, UNSEEN)
    for class_id, name in enumerate(classes):
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        raster.polygons_to_geojson(
            place / "polygons" / f"class-{class_id}-{safe}.json",
            scene,
            polygonize((sieved == class_id).view(np.uint8)),
            {"class_id": class_id, "class_name": name},
        )


def _decimals(scores: np.ndarray) -> list[float]:
    """Scores to six decimals: text for people; predictions.npz has them exactly."""
    return np.round(scores.astype(np.float64), 6).tolist()
