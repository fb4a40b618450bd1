"""A user's own GeoTIFFs with GeoJSON labels: patterns, lists, stacked bands, and what may be wrong with them."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from rvkernels import raster
from rvkernels.fetch import fetch

TRANSFORM = (500000.0, 0.5, 0.0, 4000000.0, 0.0, -0.5)


def image(workplace, name: str, bands: int = 3, crs: str | None = "EPSG:32632", rows: int = 20, dtype: str = "uint16"):
    path = workplace.folder / "mine" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    raster.write_geotiff(path, np.ones((rows, 24, bands), dtype), crs, TRANSFORM)


def shapes(workplace, name: str, **properties: object) -> None:
    ring = [[9.0, 36.14], [9.0001, 36.14], [9.0001, 36.1401], [9.0, 36.14]]
    feature = {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    path = workplace.folder / "mine" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))


def run(workplace, **layout):
    path = workplace.describe(
        tasks=["segmentation", "detection"],
        form="geojson",
        layout={"folder": "mine", **layout},
        classes=[{"name": "field"}, {"name": "wood"}],
    )
    return fetch(path, workplace.downloads, None, workplace.folder / "scenes.jsonl")


PATTERNS = {"images": "images/{name}.tif", "labels": "labels/{name}.geojson", "aoi": "aoi/{name}.geojson"}


def test_patterns(workplace):
    for name in ("east", "west"):
        image(workplace, f"images/{name}.tif")
        shapes(workplace, f"labels/{name}.geojson", class_name="wood")
    shapes(workplace, "aoi/west.geojson")
    scenes = run(workplace, **PATTERNS)
    assert [s.id for s in scenes] == ["east", "west"]
    assert [s.aoi is None for s in scenes] == [True, False]
    assert scenes[0].transform == TRANSFORM
    assert "32632" in scenes[0].crs
    assert scenes[0].dtype == "uint16"


def test_a_list_of_scenes_with_stacked_bands(workplace):
    image(workplace, "rg.tif", 2)
    image(workplace, "b.tif", 1)
    shapes(workplace, "labels.json", label="field")
    scenes = run(
        workplace,
        scenes=[{"id": "a", "images": ["rg.tif", "b.tif"], "labels": "labels.json", "group": "g", "split": "test"}],
    )
    assert [(s.id, s.bands, s.group, s.split) for s in scenes] == [("a", 3, "g", "test")]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"properties": {"class_name": "woods"}}, r"feature 0: class 'woods' is not in the class list; .*'wood'"),
        ({"crs": None}, r"has no CRS, so labels in EPSG:4326 have no place in it"),
        ({"bands": 4}, r"scene a has 4 bands, but tiny names 3: red, green, blue"),
        ({"labels": None}, r"scene a has no labels, which segmentation needs"),
    ],
)
def test_labels_and_rasters_that_do_not_fit(workplace, bad, message):
    image(workplace, "a.tif", bad.get("bands", 3), bad.get("crs", "EPSG:32632"))
    shapes(workplace, "a.geojson", **bad.get("properties", {"class_id": 1}))
    with pytest.raises(ValueError, match=message) as error:
        run(workplace, scenes=[{"images": "a.tif", "labels": bad.get("labels", "a.geojson")}])
    assert "\n" not in str(error.value)
    assert not (workplace.folder / "scenes.jsonl").exists()


def test_scenes_of_two_data_types(workplace):
    for name, dtype in (("a", "uint8"), ("b", "uint16")):
        image(workplace, f"{name}.tif", dtype=dtype)
        shapes(workplace, f"{name}.geojson", class_id=0)
    with pytest.raises(ValueError, match=r"scene b is uint16, but scene a is uint8"):
        run(workplace, scenes=[{"images": f"{n}.tif", "labels": f"{n}.geojson"} for n in "ab"])


def test_two_scenes_of_one_id(workplace):
    image(workplace, "a.tif")
    shapes(workplace, "a.geojson", class_id=0)
    with pytest.raises(ValueError, match=r"two scenes have the id 'a'"):
        run(workplace, scenes=[{"images": "a.tif", "labels": "a.geojson"}] * 2)


def test_stacked_bands_on_two_grids(workplace):
    image(workplace, "a.tif", 2)
    image(workplace, "b.tif", 1, rows=19)
    shapes(workplace, "a.geojson", class_id=0)
    scenes = run(workplace, scenes=[{"images": ["a.tif", "b.tif"], "labels": "a.geojson"}])
    assert (scenes[0].rows, scenes[0].cols, scenes[0].bands) == (20, 24, 3)  # the first one's grid
    image(workplace, "b.tif", 1, rows=19, crs=None)
    with pytest.raises(ValueError, match=r"b\.tif: has 19 x 24 pixels, not 20 x 24"):
        run(workplace, scenes=[{"images": ["a.tif", "b.tif"], "labels": "a.geojson"}])


def test_missing_files(workplace):
    image(workplace, "a.tif")
    with pytest.raises(FileNotFoundError, match=r"scenes\[0\]: no file .*b\.tif"):
        run(workplace, scenes=[{"images": "b.tif"}])
    with pytest.raises(FileNotFoundError, match=r"scenes\[0\]: no file .*b\.geojson"):
        run(workplace, scenes=[{"images": "a.tif", "labels": "b.geojson"}])
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder"):
        run(workplace, folder="nowhere", **PATTERNS)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({}, r"layout: give either scenes \(a list\) or images"),
        ({"scenes": [{"image": "a.tif"}]}, r"scenes\[0\]: unknown key 'image'; .*Did you mean 'images'\?"),
        ({"scenes": [{"labels": "a.json"}]}, r"scenes\[0\]: images is missing"),
        ({"scenes": []}, r"tiny: no scene found"),
    ],
)
def test_layouts_that_cannot_be(workplace, layout, message):
    with pytest.raises(ValueError, match=message):
        run(workplace, **layout)


def spacenet(workplace, images: tuple[int, ...], labels: tuple[int, ...], **layout):
    """Tiles and buildings in one archive, paired by number, their names having other beginnings."""
    image(workplace, "tile.tif")
    data = (workplace.folder / "mine" / "tile.tif").read_bytes()
    shapes(workplace, "buildings.geojson")
    text = (workplace.folder / "mine" / "buildings.geojson").read_text()
    members = {f"Train/RGB-PanSharpen/RGB-PanSharpen_AOI_2_img{i}.tif": data for i in images}
    members.update({f"Train/geojson/buildings/buildings_AOI_2_img{i}.geojson": text for i in labels})
    workplace.archive("tiles.zip", members)
    path = workplace.describe(
        tasks=["segmentation"],
        form="geojson",
        files=[{"name": "tiles.zip"}],
        layout={
            "archive": "tiles.zip",
            "images": "Train/RGB-PanSharpen/*_img{number}.tif",
            "labels": "Train/geojson/buildings/*_img{number}.geojson",
            **layout,
        },
        classes=[{"name": "building", "aliases": [""]}],
    )
    return fetch(path, workplace.downloads, workplace.mirror, workplace.folder / "scenes.jsonl")


def test_spacenet_tiles(workplace):
    scenes = spacenet(workplace, (1, 2, 30), (30, 1, 2))
    assert [s.id for s in scenes] == ["1", "2", "30"]
    assert scenes[2].labels.endswith("buildings_AOI_2_img30.geojson")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ((1, 2, 3), (1, 2), r"_img3\.tif has no label file by pattern .* \(1 of 3 images have none\)"),
        ((1, 2), (1, 2, 1000), r"_img1000\.geojson has no image by pattern"),
    ],
)
def test_half_a_spacenet_tile(workplace, caplog, images, labels, message):
    with pytest.raises(ValueError, match=message):
        spacenet(workplace, images, labels)
    with caplog.at_level("WARNING", "rvkernels"):
        assert [s.id for s in spacenet(workplace, images, labels, skip_unpaired=True)] == ["1", "2"]
    assert re.search(message + ".*; left out", caplog.text)


def test_paths_may_be_files_of_the_description(workplace):
    image(workplace, "tile.tif")
    shapes(workplace, "labels.geojson", class_id=0)
    for name in ("tile.tif", "labels.geojson"):
        (workplace.folder / "mine" / name).rename(workplace.mirror / name)
    path = workplace.describe(
        tasks=["detection"],
        form="geojson",
        files=[{"name": "tile.tif"}, {"name": "labels.geojson"}],
        layout={"scenes": [{"images": "tile.tif", "labels": "labels.geojson"}]},
        classes=[{"name": "building"}],
    )
    (scene,) = fetch(path, workplace.downloads, workplace.mirror)
    assert scene.labels == str(workplace.downloads / "tiny" / "labels.geojson")
