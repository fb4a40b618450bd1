"""Statistics are those of the training regions' valid pixels, counted by hand; labels are counted where pixels are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from rvkernels import raster
from rvkernels.analyze import analyze
from rvkernels.files import read_json
from rvkernels.scene import Region, Scene, write_regions, write_scenes

TRANSFORM = (500000.0, 0.5, 0.0, 4000000.0, 0.0, -0.5)
ROWS, COLS = 1100, 90  # more than one piece, and a rest
TRAIN = [Region("s", 0, 0, 1100, 50, "train"), Region("s", 20, 60, 300, 30, "train")]
REGIONS = [*TRAIN, Region("s", 400, 60, 300, 30, "val"), Region("s", 800, 60, 300, 30, "test")]
SHAPES = [(0, (0, 0, 500, 40)), (1, (100, 30, 130, 80)), (1, (10, 41, 18, 49))]  # class, (ymin, xmin, ymax, xmax)


def run(folder: Path, scenes: list[Scene], regions: list[Region], task: str, **settings: object) -> dict:
    description = {
        "title": "Tiny",
        "tasks": [task],
        "form": "geojson",
        "classes": [{"name": "field"}, {"name": "wood"}, {"name": "lake"}],
        "bands": ["a", "b", "c"][: scenes[0].bands],
        "licence": "none",
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(description))
    write_scenes(folder / "scenes.jsonl", scenes)
    write_regions(folder / "regions.csv", regions)
    files = (folder / name for name in ("tiny.yaml", "scenes.jsonl", "regions.csv"))
    result = analyze(*files, task=task, settings=settings, out=folder / "statistics.json", threads=2)
    assert read_json(folder / "statistics.json") == result
    return result


def scene(folder: Path, dtype: str) -> tuple[Scene, np.ndarray, np.ndarray]:
    """A scene, its pixels, and which of its training pixels have data."""
    pixels = np.random.default_rng(5).integers(0, 250, (ROWS, COLS, 2)).astype(dtype)
    pixels[200:260, :20] = 7
    pixels[0, :5, 0] = 7  # one band alone is data
    raster.write_geotiff(folder / "s.tif", pixels, "EPSG:32632", TRANSFORM, nodata=7)
    features = []
    for class_id, (ymin, xmin, ymax, xmax) in SHAPES:
        ring = [[xmin, ymin], [xmax, ymin], [xmax, ymax], [xmin, ymax], [xmin, ymin]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "properties": {"class_id": class_id}, "geometry": geometry})
    labels = folder / "s.geojson"
    labels.write_text(json.dumps({"type": "FeatureCollection", "crs": None, "features": features}))
    made = Scene(
        id="s",
        images=(str(folder / "s.tif"),),
        rows=ROWS,
        cols=COLS,
        bands=2,
        dtype=dtype,
        transform=TRANSFORM,
        crs=raster.describe(folder / "s.tif")["crs"],
        nodata=7.0,
        labels=str(labels),
    )
    used = np.zeros((ROWS, COLS), bool)
    for r in TRAIN:
        used[r.row : r.row + r.rows, r.col : r.col + r.cols] = True
    return made, pixels, used & ~(pixels == 7).all(axis=2)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_pixels(tmp_path, dtype):
    made, pixels, used = scene(tmp_path, dtype)
    result = run(tmp_path, [made], REGIONS, "segmentation", size=32)
    values = pixels[used].astype(np.float64)
    assert result["mean"] == pytest.approx(values.mean(0), rel=1e-12)
    assert result["std"] == pytest.approx(values.std(0), rel=1e-12)
    assert result["min"] == values.min(0).tolist()
    assert result["max"] == values.max(0).tolist()
    assert result["count"] == [len(values)] * 2
    assert result["nodata_share"] == pytest.approx(1 - len(values) / (1100 * 50 + 300 * 30))
    assert (result["scenes"], result["regions"]) == (1, 2)


def test_classes_of_pixels(tmp_path):
    made, _, used = scene(tmp_path, "uint8")
    truth = np.full((ROWS, COLS), 255)
    for class_id, (ymin, xmin, ymax, xmax) in SHAPES:
        truth[ymin:ymax, xmin:xmax] = class_id
    result = run(tmp_path, [made], REGIONS, "segmentation", size=32)
    counts = [int((used & (truth == c)).sum()) for c in range(3)]
    assert result["class_unit"] == "pixels"
    assert result["class_counts"] == counts
    assert result["class_shares"] == pytest.approx(np.array(counts) / sum(counts))
    assert result["class_weights"] == pytest.approx([sum(counts) / (3 * n) if n else 0 for n in counts])
    everywhere = run(tmp_path, [made], REGIONS, "segmentation", size=32, background="lake")
    assert everywhere["class_counts"][2] == int((used & (truth == 255)).sum())


def test_classes_of_boxes(tmp_path):
    made, _, _ = scene(tmp_path, "uint8")
    result = run(tmp_path, [made], REGIONS, "detection", size=32)
    # The centre of the second box, column 55, is in neither region.
    assert (result["class_unit"], result["class_counts"]) == ("boxes", [1, 1, 0])


def test_classes_of_cells(tmp_path):
    made, _, _ = scene(tmp_path, "uint8")
    result = run(tmp_path, [made], REGIONS, "classification", size=30, min_cover=0.4)
    # In the left region 16 cells lie in the field and one to two thirds; in the right one .44 of one is wood.
    assert (result["class_unit"], result["class_counts"]) == ("cells", [17, 1, 0])


def test_whole_pictures(tmp_path):
    rng = np.random.default_rng(2)
    scenes, regions, values, counts = [], [], [], [0, 0, 0]
    for i in range(12):
        size = 8 if i < 9 else 10  # the larger ones are read one by one
        array = rng.integers(0, 255, (size, size, 3), np.uint8)
        Image.fromarray(array).save(tmp_path / f"{i}.png")
        name = ("field", "wood")[i % 2]
        scenes.append(Scene(str(i), (str(tmp_path / f"{i}.png"),), size, size, 3, "uint8", class_name=name))
        regions.append(Region(str(i), 0, 0, size, size, "train" if i not in (3, 10) else "test"))
        if i not in (3, 10):
            values.append(array.reshape(-1, 3))
            counts[i % 2] += 1
    result = run(tmp_path, scenes, regions, "classification", size=8)
    values = np.concatenate(values).astype(np.float64)
    assert result["mean"] == pytest.approx(values.mean(0), rel=1e-12)
    assert result["std"] == pytest.approx(values.std(0), rel=1e-12)
    assert result["class_counts"] == counts


def test_no_training_region(tmp_path):
    made, _, _ = scene(tmp_path, "uint8")
    with pytest.raises(ValueError, match=r"regions\.csv: zero scenes in split 'train'"):
        run(tmp_path, [made], REGIONS[2:], "segmentation", size=32)


def test_no_data_at_all(tmp_path):
    made, _, _ = scene(tmp_path, "uint8")
    with pytest.raises(ValueError, match=r"scenes\.jsonl: the 1 training regions: band 0 has no valid value") as error:
        run(tmp_path, [made], [Region("s", 200, 0, 60, 20, "train")], "segmentation", size=8)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "statistics.json").exists()
