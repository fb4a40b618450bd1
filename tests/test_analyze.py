"""Statistics are those of the training regions' valid pixels, counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rvkernels import raster
from rvkernels.analyze import analyze
from rvkernels.files import read_json
from rvkernels.scene import Region, Scene, write_regions, write_scenes

TRANSFORM = (500000.0, 0.5, 0.0, 4000000.0, 0.0, -0.5)
ROWS, COLS = 1100, 90
TRAIN = [Region("s", 0, 0, 1100, 50, "train"), Region("s", 20, 60, 300, 30, "train")]
REGIONS = [*TRAIN, Region("s", 400, 60, 300, 30, "val"), Region("s", 800, 60, 300, 30, "test")]


def run(folder: Path, scenes: list[Scene], regions: list[Region]) -> dict:
    write_scenes(folder / "scenes.jsonl", scenes)
    write_regions(folder / "regions.csv", regions)
    result = analyze(folder / "scenes.jsonl", folder / "regions.csv", out=folder / "statistics.json", threads=2)
    assert read_json(folder / "statistics.json") == result
    return result


def scene(folder: Path, dtype: str) -> tuple[Scene, np.ndarray, np.ndarray]:
    """A scene, its pixels, and which of its training pixels have data."""
    pixels = np.random.default_rng(5).integers(0, 250, (ROWS, COLS, 2)).astype(dtype)
    pixels[200:260, :20] = 7
    pixels[0, :5, 0] = 7  # one band alone is data
    raster.write_geotiff(folder / "s.tif", pixels, "EPSG:32632", TRANSFORM, nodata=7)
    crs = raster.describe(folder / "s.tif")["crs"]
    made = Scene("s", (str(folder / "s.tif"),), ROWS, COLS, 2, dtype, TRANSFORM, crs, 7.0)
    used = np.zeros((ROWS, COLS), bool)
    for r in TRAIN:
        used[r.row : r.row + r.rows, r.col : r.col + r.cols] = True
    return made, pixels, used & ~(pixels == 7).all(axis=2)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_pixels(tmp_path, dtype):
    made, pixels, used = scene(tmp_path, dtype)
    result = run(tmp_path, [made], REGIONS)
    values = pixels[used].astype(np.float64)
    assert result["mean"] == pytest.approx(values.mean(0), rel=1e-12)
    assert result["std"] == pytest.approx(values.std(0), rel=1e-12)
    assert result["min"] == values.min(0).tolist()
    assert result["max"] == values.max(0).tolist()
    assert result["count"] == [len(values)] * 2
    assert result["nodata_share"] == pytest.approx(1 - len(values) / (1100 * 50 + 300 * 30))
    assert (result["scenes"], result["regions"]) == (1, 2)


def test_whole_pictures(tmp_path):
    rng = np.random.default_rng(2)
    scenes, regions, values = [], [], []
    for i in range(12):
        size = 8 if i < 9 else 10  # the larger ones are read one by one
        array = rng.integers(0, 255, (size, size, 3), np.uint8)
        Image.fromarray(array).save(tmp_path / f"{i}.png")
        scenes.append(Scene(str(i), (str(tmp_path / f"{i}.png"),), size, size, 3, "uint8", class_name="wood"))
        regions.append(Region(str(i), 0, 0, size, size, "train" if i not in (3, 10) else "test"))
        if i not in (3, 10):
            values.append(array.reshape(-1, 3))
    result = run(tmp_path, scenes, regions)
    values = np.concatenate(values).astype(np.float64)
    assert result["mean"] == pytest.approx(values.mean(0), rel=1e-12)
    assert result["std"] == pytest.approx(values.std(0), rel=1e-12)
    assert result["scenes"] == 10


def test_no_training_region(tmp_path):
    made, _, _ = scene(tmp_path, "uint8")
    with pytest.raises(ValueError, match=r"regions\.csv: zero scenes in split 'train'"):
        run(tmp_path, [made], REGIONS[2:])


def test_no_data_at_all(tmp_path):
    made, _, _ = scene(tmp_path, "uint8")
    with pytest.raises(ValueError, match=r"scenes\.jsonl: the 1 training regions: band 0 has no valid value") as error:
        run(tmp_path, [made], [Region("s", 200, 0, 60, 20, "train")])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "statistics.json").exists()
