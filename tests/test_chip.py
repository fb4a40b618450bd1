"""Chips show the scene's pixels and labels where chips.csv says, lie in one region each, and every split has some."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from rvkernels import raster
from rvkernels.assemble import Window
from rvkernels.chip import chip, complete_settings, plan
from rvkernels.chips import Chips
from rvkernels.predict import Reader
from rvkernels.scene import Region, Scene, write_regions, write_scenes

# One place each: chips of two splits must not show the same ground.
TRANSFORMS = {name: (500000.0 + 1000 * i, 0.5, 0.0, 4000000.0, 0.0, -0.5) for i, name in enumerate("abc")}
CRS = "EPSG:32632"
CLASSES = [{"name": "field", "color": "#102030"}, {"name": "wood", "color": "#405060"}]
DESCRIPTION = {
    "title": "Tiny",
    "tasks": ["segmentation", "detection", "classification"],
    "form": "geojson",
    "classes": CLASSES,
    "bands": ["red", "green"],
    "licence": "none",
}
ROWS, COLS = 40, 48
SPLITS = ("train", "val", "test")


def box(ymin: float, xmin: float, ymax: float, xmax: float, **properties: object) -> dict:
    ring = [[xmin, ymin], [xmax, ymin], [xmax, ymax], [xmin, ymax], [xmin, ymin]]
    return {
        "type": "Feature",
        "properties": properties,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }


def run_chip(folder: Path, scenes: dict[str, Scene], regions: list[Region], task: str, **settings: object) -> Chips:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(DESCRIPTION))
    write_scenes(folder / "scenes.jsonl", scenes.values())
    write_regions(folder / "regions.csv", regions)
    files = (folder / name for name in ("tiny.yaml", "scenes.jsonl", "regions.csv"))
    chip(*files, task=task, settings=settings, out=folder / "chips", threads=2)
    return Chips.open(folder / "chips")


class Study:
    """Three scenes, one per split, whose pixels say where they are: band 0 is the row, band 1 the column."""

    def __init__(self, folder: Path, features: list[dict], dtype: str = "uint16", nodata: float | None = None) -> None:
        self.folder = folder
        self.pixels = np.stack(np.indices((ROWS, COLS)) + 1, -1).astype(dtype)
        self.scenes = {}
        for name in "abc":
            image = folder / f"{name}.tif"
            raster.write_geotiff(image, self.pixels, CRS, TRANSFORMS[name], nodata=nodata)
            labels = folder / f"{name}.geojson"
            labels.write_text(json.dumps({"type": "FeatureCollection", "crs": None, "features": features}))
            self.scenes[name] = Scene(
                id=name,
                images=(str(image),),
                rows=ROWS,
                cols=COLS,
                bands=2,
                dtype=dtype,
                transform=TRANSFORMS[name],
                crs=raster.describe(image)["crs"],
                nodata=nodata,
                labels=str(labels),
            )
        self.regions = [Region(name, 0, 0, ROWS, COLS, split) for name, split in zip("abc", SPLITS)]

    def change(self, name: str, **fields: object) -> None:
        scene = self.scenes[name]
        self.scenes[name] = Scene(**{**scene.__dict__, **fields})

    def chip(self, task: str, **settings: object) -> Chips:
        chips = run_chip(self.folder, self.scenes, self.regions, task, **settings)
        assert chips.task == task
        return chips


def places(chips) -> list[tuple[str, str, int, int]]:
    t = chips.table
    return [(s, n, int(r), int(c)) for s, n, r, c in zip(t["split"], t["scene"], t["row"], t["col"])]


HALF = [box(0, 0, ROWS, 20, class_id=0), box(0, 20, 15, 48, class_name="wood")]


def test_segmentation(tmp_path):
    study = Study(tmp_path, HALF)
    chips = study.chip("segmentation", size=16, stride=10)
    truth = np.full((ROWS, COLS), 255, np.uint8)
    truth[:, :20] = 0
    truth[:15, 20:] = 1
    found = places(chips)
    for (_, _, row, col), image, mask in zip(found, chips.images, chips.labels):
        assert (image == study.pixels[row : row + 16, col : col + 16]).all()
        assert (mask == truth[row : row + 16, col : col + 16]).all()
    # Training chips overlap by the stride, the others do not; where nothing is labelled there is no chip.
    train = [(r, c) for s, _, r, c in found if s == "train"]
    assert train == [(r, c) for r in (0, 10, 20, 24) for c in (0, 10, 20, 30, 32) if not (r > 14 and c >= 20)]
    assert [(r, c) for s, _, r, c in found if s == "val"] == [
        (0, 0),
        (0, 16),
        (0, 32),
        (16, 0),
        (16, 16),
        (24, 0),
        (24, 16),
    ]
    assert [s for s, *_ in found] == sorted((s for s, *_ in found), key=SPLITS.index)


def test_segmentation_with_a_background_class(tmp_path):
    chips = Study(tmp_path, HALF[:1]).chip("segmentation", size=8, background="wood")
    assert len(chips) == 3 * 30
    assert set(np.unique(chips.labels)) == {0, 1}


def test_segmentation_from_a_colour_image(tmp_path):
    study = Study(tmp_path, [])
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 3, (ROWS, COLS))
    colors = np.array([[0x10, 0x20, 0x30], [0x40, 0x50, 0x60], [0, 0, 0]], np.uint8)
    path = tmp_path / "mask.png"
    Image.fromarray(colors[ids]).save(path)
    for name in "abc":
        study.change(name, labels=str(path))
    chips = study.chip("segmentation", size=8)
    truth = np.array([0, 1, 255])[ids]
    for (_, _, row, col), mask in zip(places(chips), chips.labels):
        assert (mask == truth[row : row + 8, col : col + 8]).all()


def test_detection_clips_boxes_and_limits_empty_chips(tmp_path):
    # The first lies in one chip; the second has .7 of its area in the left chip, .3 in the right one.
    study = Study(tmp_path, [box(2, 3, 6, 8, class_id=1), box(17, 9, 20, 19, class_id=0)])
    chips = study.chip("detection", size=16, negatives=0.5)
    found = places(chips)
    boxes = {
        place: (chips.boxes[a:b].tolist(), chips.box_class[a:b].tolist())
        for place, a, b in zip(found, chips.box_start, chips.box_start[1:])
    }
    assert boxes["val", "b", 0, 0] == ([[2, 3, 6, 8]], [1])
    assert boxes["val", "b", 16, 0] == ([[1, 9, 4, 16]], [0])
    assert boxes["val", "b", 16, 16] == ([], [])
    counts = Counter((s, len(boxes[s, n, r, c][0]) > 0) for s, n, r, c in found)
    assert counts == {
        ("train", True): 2,
        ("train", False): 2,
        ("val", True): 2,
        ("val", False): 7,
        ("test", True): 2,
        ("test", False): 7,
    }
    assert Counter(places(study.chip("detection", size=16, negatives=0.0)))[("train", "a", 0, 0)] == 1
    assert Counter(s for s, *_ in places(study.chip("detection", size=16, negatives=0)))["train"] == 2
    assert Counter(s for s, *_ in places(study.chip("detection", size=16, negatives=1)))["train"] == 9


def test_classification_of_cells(tmp_path):
    chips = Study(tmp_path, HALF).chip("classification", size=10, min_cover=0.5)
    found = dict(zip(places(chips), chips.labels.tolist()))
    # Cells stay on their grid: 4 x 4, without one that would be moved to the last columns.
    assert found["train", "a", 0, 0] == 0
    assert found["train", "a", 30, 10] == 0
    assert found["train", "a", 10, 20] == 1
    assert ("train", "a", 20, 20) not in found
    assert max(c for _, _, _, c in found) == 30
    assert chips.table["class"][0] == "field"
    assert len(Study(tmp_path, HALF).chip("classification", size=10, background="wood")) == 3 * 16


def pictures(folder: Path, sizes=(8,) * 30) -> tuple[dict[str, Scene], list[Region]]:
    scenes, regions = {}, []
    rng = np.random.default_rng(3)
    for i, size in enumerate(sizes):
        path = folder / f"p{i}.png"
        Image.fromarray(rng.integers(0, 255, (size, size, 3), np.uint8)).save(path)
        name = "field" if i % 3 else "wood"
        scenes[f"p{i}"] = Scene(f"p{i}", (str(path),), size, size, 3, "uint8", class_name=name)
        regions.append(Region(f"p{i}", 0, 0, size, size, SPLITS[i % 5 // 2]))
    return scenes, sorted(regions, key=lambda r: SPLITS.index(r.split))


def test_whole_pictures(tmp_path):
    scenes, regions = pictures(tmp_path)
    chips = run_chip(tmp_path, scenes, regions, "classification")
    assert [n for _, n, _, _ in places(chips)] == [r.scene for r in regions]
    for name, image, label in zip(chips.table["scene"], chips.images, chips.labels):
        assert (image == np.asarray(Image.open(scenes[name].images[0]))).all()
        assert CLASSES[label]["name"] == scenes[name].class_name


def test_limit_is_balanced_and_drawn_by_seed(tmp_path):
    scenes, regions = pictures(tmp_path)

    def run(**settings):
        return run_chip(tmp_path, scenes, regions, "classification", **settings)

    chips = run(limit={"train": 6, "test": 100})
    assert Counter(chips.table["split"]) == {"train": 6, "val": 12, "test": 6}
    assert Counter(c for c, s in zip(chips.table["class"], chips.table["split"]) if s == "train") == {
        "field": 3,
        "wood": 3,
    }
    names = [run(limit={"train": 6}, seed=seed).table["scene"][:6] for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]


def test_pixels_without_data(tmp_path):
    study = Study(tmp_path, HALF, dtype="float32", nodata=-9.0)
    study.pixels[:12] = -9
    study.pixels[12, 0] = np.nan
    for scene in study.scenes.values():
        Path(scene.images[0]).unlink()
        raster.write_geotiff(scene.images[0], study.pixels, CRS, scene.transform, nodata=-9.0)
    chips = study.chip("segmentation", size=16, nodata_max=0.7)
    assert min(int(r) for _, _, r, _ in places(chips)) == 16
    chips = study.chip("segmentation", size=16, nodata_max=0.8)
    found = places(chips)
    first = found.index(("val", "b", 0, 0))
    assert float(chips.table["nodata_share"][first]) == pytest.approx((12 * 16 + 1) / 256, abs=1e-5)
    assert (chips.images[first, :12] == 0).all()
    assert (chips.images[first, 12, 0] == 0).all()
    assert (chips.images[first, 13] == study.pixels[13, :16]).all()
    assert (chips.labels[first, :12] == 255).all()
    assert (chips.labels[first, 13:] == 0).all()
    # A prediction sees the same numbers as training.
    reader = Reader([Window(0, 0, 0)], [study.regions[1]], study.scenes, 16, 1, 1, valid=False)
    [(_, images, _)] = list(reader)
    assert (images[0] == chips.images[first]).all()


def test_random_chips_stay_in_their_region(tmp_path):
    study = Study(tmp_path, HALF)
    study.regions[0] = Region("a", 4, 2, 30, 18, "train")
    chips = study.chip("segmentation", size=8, method="random", count=50, seed=4)
    found = [(r, c) for s, _, r, c in places(chips) if s == "train"]
    assert len(found) == 50
    assert all(4 <= r <= 26 and 2 <= c <= 12 for r, c in found)
    assert found == [
        (r, c)
        for s, _, r, c in places(study.chip("segmentation", size=8, method="random", count=50, seed=4))
        if s == "train"
    ]


def test_chips_lie_in_the_area_of_interest(tmp_path):
    study = Study(tmp_path, HALF)
    area = tmp_path / "aoi.geojson"
    area.write_text(json.dumps({"type": "FeatureCollection", "crs": None, "features": [box(0, 0, 16, 33)]}))
    study.change("b", aoi=str(area))
    found = places(study.chip("segmentation", size=8))
    assert [(r, c) for s, _, r, c in found if s == "val"] == [(r, c) for r in (0, 8) for c in (0, 8, 16, 24)]
    area.write_text(json.dumps({"type": "FeatureCollection", "crs": None, "features": [box(0, 0, 5, 5)]}))
    with pytest.raises(
        ValueError, match=r"zero chips in split 'val': the area of interest and the labels leave no chip"
    ):
        study.chip("segmentation", size=8)


def test_chips_that_meet_the_area_of_interest(tmp_path):
    study = Study(tmp_path, HALF)
    area = tmp_path / "aoi.geojson"
    area.write_text(json.dumps({"type": "FeatureCollection", "crs": None, "features": [box(0, 0, 16, 33)]}))
    study.change("b", aoi=str(area))
    chips = study.chip("segmentation", size=8, aoi="intersects")
    found = places(chips)
    assert [(r, c) for s, _, r, c in found if s == "val"] == [(r, c) for r in (0, 8) for c in (0, 8, 16, 24, 32)]
    for (split, _, _, col), mask in zip(found, chips.labels):
        if split == "val" and col == 32:
            assert (mask[:, 1:] == 255).all()
            assert (mask[:7, 0] == 1).all()


def test_training_chips_show_targets(tmp_path):
    """wood covers rows 0 to 15 of columns 20 to 48: of chips of 8 pixels, 3 with less than 32 pixels of it."""
    study = Study(tmp_path, HALF, dtype="uint8")

    def shown(chips: Chips, split: str) -> list[int]:
        return [int((mask == 1).sum()) for s, mask in zip(chips.table["split"], chips.labels) if s == split]

    everything = study.chip("segmentation", size=8)
    for share, least in ((0, 33), (0.5, 33), (1, 33), (0, 1)):
        chips = study.chip("segmentation", size=8, targets=["wood"], target_pixels=least, negatives=share)
        train = shown(chips, "train")
        positive = sum(n >= least for n in shown(everything, "train"))
        assert sum(n >= least for n in train) == positive
        negatives = len(train) - positive
        available = sum(n < least for n in shown(everything, "train"))
        assert negatives == {0: 0, 0.5: min(available, positive), 1: available}[share]
        assert len(shown(chips, "val")) == len(shown(everything, "val"))  # measured on all
    with pytest.raises(ValueError, match=r"zero chips in split 'train': .*too many show no target"):
        study.chip("segmentation", size=8, targets=["wood"], target_pixels=65, negatives=0)


def test_a_failed_run_leaves_the_old_chips(tmp_path):
    study = Study(tmp_path, HALF)
    study.chip("segmentation", size=8)
    before = sorted((p.name, p.read_bytes()) for p in (tmp_path / "chips").iterdir())
    Path(study.scenes["c"].images[0]).write_bytes(b"not a raster")
    with pytest.raises(ValueError, match=r"c\.tif"):
        study.chip("segmentation", size=10)
    assert sorted((p.name, p.read_bytes()) for p in (tmp_path / "chips").iterdir()) == before
    assert [p.name for p in tmp_path.iterdir() if "part" in p.name] == []


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("segmentation", {"size": 41}, r"size 41 is larger than scene a \(40 x 48 pixels in split train\)"),
        ("segmentation", {"size": 8, "background": "woods"}, r"background: no class 'woods'; .*Did you mean 'wood'\?"),
        ("segmentation", {"size": 8, "targets": ["woods"]}, r"targets: no class 'woods'; .*Did you mean 'wood'\?"),
        (
            "segmentation",
            {"size": 8, "nodata_max": 0.0},
            r"zero chips in split 'train': all have more than nodata_max 0",
        ),
        ("classification", {}, r"size is missing; scene a has no class as a whole"),
        ("detection", {"size": 8, "negatives": 0}, r"zero chips in split 'train': .*too many have no box"),
    ],
)
def test_chips_that_cannot_be(tmp_path, task, settings, message):
    features = [] if task == "detection" else HALF
    study = Study(tmp_path, features, dtype="uint8", nodata=200.0)
    if settings.get("nodata_max") == 0:
        study.pixels[::4, ::4] = 200
        for scene in study.scenes.values():
            raster.write_geotiff(scene.images[0], study.pixels, CRS, scene.transform, nodata=200.0)
    with pytest.raises(ValueError, match=message) as error:
        study.chip(task, **settings)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "chips").exists()


def test_no_region_is_said():
    description = {"classes": [{"name": "a"}]}
    with pytest.raises(ValueError, match=r"regions: there is none; run `rvk split` again"):
        plan(description, {}, [], task="classification", settings={})


def test_pictures_of_two_sizes_need_a_size(tmp_path):
    scenes, regions = pictures(tmp_path, (8,) * 10 + (9,))
    with pytest.raises(ValueError, match=r"size is missing; scene p10 is 9 x 9 pixels, scene p0 8 x 8"):
        run_chip(tmp_path, scenes, regions, "classification")
    assert len(run_chip(tmp_path, scenes, regions, "classification", size=8)) == 11


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("segmentation", {"sise": 8}, r"unknown setting 'sise'; .*Did you mean 'size'\?"),
        ("segmentation", {}, r"size is missing"),
        ("segmentation", {"size": 0}, r"size is 0, expected a whole number of at least 1"),
        ("segmentation", {"size": True}, r"size is True"),
        ("segmentation", {"size": 8, "method": "rnd"}, r"method: no 'rnd'; there are random, sliding\."),
        ("segmentation", {"size": 8, "method": "random"}, r"count is missing"),
        ("detection", {"size": 8, "negatives": 2}, r"negatives is 2, expected a number from 0 to 1"),
        ("segmentation", {"size": 8, "seed": -1}, r"seed is -1"),
        ("segmentation", {"size": 8, "aoi": "near"}, r"aoi: no 'near'; there are intersects, within\."),
        ("detection", {"size": 8, "aoi": "intersects"}, r"aoi: only for segmentation, not detection"),
        ("detection", {"size": 8, "targets": ["wood"]}, r"targets: only for segmentation, not detection"),
        ("segmentation", {"size": 8, "targets": "wood"}, r"targets is 'wood', expected a list of class names"),
        ("segmentation", {"size": 8, "target_pixels": 0}, r"target_pixels is 0"),
        ("classification", {"limit": {"trian": 1}}, r"limit: no split 'trian'; .*Did you mean 'train'\?"),
        ("classification", {"limit": {"train": 0}}, r"limit: train is 0"),
    ],
)
def test_settings_that_cannot_be(task, settings, message):
    with pytest.raises(ValueError, match=f"study: chip: {message}"):
        complete_settings(settings, task, "study: chip")
