"""Chips of two splits that show the same ground are refused, whatever scenes they are of; neighbours are not."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from rvkernels import raster
from rvkernels.chip import chip
from rvkernels.leaks import Places, overlap
from rvkernels.scene import Region, Scene, write_regions, write_scenes
from rvkernels.split import SPLITS

TRAIN, VAL, TEST = range(3)
SIZE = 32


def scene(name: str, x: float = 500000.0, y: float = 4000000.0, pixel: float = 0.5, **more: object) -> Scene:
    given = {"crs": raster_crs(32632), "transform": (x, pixel, 0.0, y, 0.0, -pixel), **more}
    return Scene(id=name, images=(f"{name}.tif",), rows=200, cols=200, bands=1, dtype="uint8", **given)


def raster_crs(code: int) -> str:
    return f"EPSG:{code}"


def places(scenes: list[Scene], *chips: tuple[int, int, int, int]) -> Places:
    """Chips as (number of the scene, row, column, split)."""
    number, row, col, split = np.array(chips, np.int64).T
    return Places(scenes, number, row, col, split, (SIZE, SIZE))


def test_chips_side_by_side_share_nothing():
    rng = np.random.default_rng(0)
    grid = [(0, r, c, int(rng.integers(3))) for r in range(0, 160, SIZE) for c in range(0, 160, SIZE)]
    for one in (scene("a"), scene("a", crs=None)):
        assert overlap(places([one], *grid)) is None


@pytest.mark.parametrize("crs", [raster_crs(32632), None])
def test_one_pixel_within_a_scene(crs):
    found = overlap(places([scene("a", crs=crs)], (0, 0, 0, TRAIN), (0, 64, 64, VAL), (0, SIZE - 1, 0, TEST)))
    assert found[:2] == (0, 2)
    assert 0 < found[2] < 1 / SIZE
    assert overlap(places([scene("a", crs=crs)], (0, 0, 0, TRAIN), (0, SIZE, 0, TEST))) is None


def test_chips_of_one_split_may_overlap():
    assert overlap(places([scene("a"), scene("b")], (0, 0, 0, TRAIN), (0, 1, 1, TRAIN), (1, 0, 0, TRAIN))) is None


def test_two_images_of_one_place():
    far, again = scene("a"), scene("b", x=500000.0 + 50, pixel=0.25)
    # Column 0 of the second is column 100 of the first.
    assert overlap(places([far, again], (0, 0, 0, TRAIN), (1, 0, 0, TEST))) is None
    found = overlap(places([far, again], (0, 0, 90, TRAIN), (1, 0, 0, VAL), (1, 100, 100, TEST)))
    assert found[:2] == (0, 1)
    assert found[2] == pytest.approx(1, abs=0.05)  # all of the smaller chip


@pytest.mark.parametrize(("pixels", "leaks"), [(-0.4, False), (0.4, False), (0.6, True)])
def test_neighbours_on_grids_of_their_own_may_share_half_a_pixel(pixels, leaks):
    pair = [scene("a"), scene("b", x=500000.0 + (SIZE - pixels) * 0.5)]
    assert (overlap(places(pair, (0, 0, 0, TRAIN), (1, 0, 0, TEST))) is not None) == leaks


def test_a_turned_image_is_compared_as_it_lies():
    angle = math.radians(45)
    cos, sin = 0.5 * math.cos(angle), 0.5 * math.sin(angle)
    turned = scene("b", transform=(500040.0, cos, sin, 4000000.0, sin, -cos))
    # Bounding boxes meet; the turned square does not reach the corner.
    corner = scene("a", x=500040.0 - 20, y=4000000.0 - 10)
    box = places([corner, turned], (0, 0, 0, TRAIN), (1, 0, 0, TEST))
    assert overlap(box) is None
    assert overlap(places([scene("a", x=500040.0), turned], (0, 0, 0, TRAIN), (1, 0, 0, TEST)))[:2] == (0, 1)


def test_scenes_of_two_crs():
    there = scene("a", x=499990.0)
    x, y = raster.reproject(np.array([[500000.0, 4000000.0]]), raster_crs(32632), raster_crs(3857))[0]
    for shift, leaks in ((0.0, True), (300.0, False)):
        other = scene("b", x=x + shift, y=y, crs=raster_crs(3857))
        assert (overlap(places([there, other], (0, 0, 0, TRAIN), (1, 0, 0, TEST))) is not None) == leaks


def test_across_the_180th_meridian():
    crs = raster_crs(4326)
    wide = scene("a", x=179.999, y=10.0, pixel=1e-4, crs=crs)
    zone = scene("b", crs=raster_crs(32632))  # at 9 degrees east, which a chip around the Earth would cover
    assert overlap(places([wide, zone], (0, 0, 0, TRAIN), (1, 0, 0, TEST))) is None
    x, y = raster.reproject(np.array([[179.999, 10.0]]), crs, raster_crs(32660))[0]
    near = scene("c", x=x, y=y, crs=raster_crs(32660))
    assert overlap(places([wide, near], (0, 0, 0, TRAIN), (1, 0, 0, TEST))) is not None


def test_scenes_without_crs_are_places_of_their_own():
    plain = [scene("a", crs=None), scene("b", crs=None)]
    assert overlap(places(plain, (0, 0, 0, TRAIN), (1, 0, 0, TEST), (0, 64, 168, VAL), (1, 64, 0, TRAIN))) is None


def test_the_same_as_comparing_every_pair():
    rng = np.random.default_rng(1)
    scenes = [scene("a"), scene("b", x=500060.0)]
    for _ in range(30):
        chips = [
            (int(rng.integers(2)), *(int(v) for v in rng.integers(0, 168, 2)), int(rng.integers(3))) for _ in range(5)
        ]
        corner = [(c + 120 * s, r) for s, r, c, _ in chips]
        expected = any(
            max(abs(corner[i][0] - corner[j][0]), abs(corner[i][1] - corner[j][1])) < SIZE
            for i in range(5) for j in range(i) if chips[i][3] != chips[j][3]
        )  # fmt: skip
        assert (overlap(places(scenes, *chips)) is not None) == expected


# --- in the stage ----------------------------------------------------------------------------------------------------


def cut(folder, transforms, seeds=(0, 1, 2), **more):
    """Chips of three drawn scenes, one per split."""
    (folder / "made.yaml").write_text(
        "title: Made\ntasks: [segmentation]\nform: geojson\nclasses: [{ name: field }]\nbands: [grey]\nlicence: none\n"
    )
    labels = folder / "labels.geojson"
    labels.write_text(json.dumps({"type": "FeatureCollection", "crs": None, "features": []}))
    scenes, regions = [], []
    for name, transform, seed, split in zip("abc", transforms, seeds, SPLITS):
        image = folder / f"{name}.tif"
        pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 1)).astype(np.uint8)
        raster.write_geotiff(image, pixels, raster_crs(32632), transform)
        scenes.append(
            Scene(
                name, (str(image),), 64, 64, 1, "uint8",
                transform=transform, crs=raster.describe(image)["crs"], labels=str(labels),
            )
        )  # fmt: skip
        regions.append(Region(name, 0, 0, 64, 64, split))
    write_scenes(folder / "scenes.jsonl", scenes)
    write_regions(folder / "regions.csv", regions)
    files = (folder / name for name in ("made.yaml", "scenes.jsonl", "regions.csv"))
    settings = {"size": 32, "background": "field", **more}
    chip(*files, task="segmentation", settings=settings, out=folder / "chips", threads=1)
    return json.loads((folder / "chips/leaks.json").read_text())


APART = [(500000.0 + 1000 * i, 0.5, 0.0, 4000000.0, 0.0, -0.5) for i in range(3)]


def test_what_was_looked_at_stands_beside_the_chips(tmp_path):
    found = cut(tmp_path, APART)
    assert found["chips"] == {"train": 4, "val": 4, "test": 4}
    assert (found["georeferenced"], found["overlap"]) == (12, None)
    assert all((pair["exact"], pair["near"]) == (0, 0) for pair in found["duplicates"]["pairs"])


def test_a_leak_stops_the_stage_and_names_both_chips(tmp_path):
    same = [APART[0], APART[1], (APART[0][0] + 16, *APART[0][1:])]
    with pytest.raises(ValueError, match="leak between splits") as error:
        cut(tmp_path, same)
    message = str(error.value)
    assert "chip 1 (train, scene a, row 0, column 32) and chip 8 (test, scene c, row 0, column 0)" in message
    assert "show the same ground, 100.0% of a chip; put scenes of one place into one split" in message
    assert "to overfit on purpose, set chip: shared_ground: true" in message
    assert not (tmp_path / "chips").exists()


def test_who_overfits_on_purpose_says_so(tmp_path, caplog):
    found = cut(tmp_path, APART[:1] * 3, shared_ground=True)
    assert found["overlap"].startswith("chip 0 (train, scene a, row 0, column 0) and chip 4 (val, scene b")
    assert "100.0% of a chip, which the study allows" in caplog.text


def test_pictures_of_two_splits_that_are_the_same_are_a_warning(tmp_path, caplog):
    found = cut(tmp_path, APART, seeds=(0, 1, 0))
    pair = next(p for p in found["duplicates"]["pairs"] if p["split"] == "test" and p["against"] == "train")
    assert (pair["of"], pair["exact"], pair["near"]) == (4, 4, 0)
    assert found["duplicates"]["examples"][0] == {"chip": 8, "like": 0, "bits": None}
    assert "warning: of 4 test chips 4 are in train, too, and 0 nearly so" in caplog.text
