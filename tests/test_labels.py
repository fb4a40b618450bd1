"""Labels in pixels: GeoJSON, label images, cells, areas of interest."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely

from rvkernels import labels, raster
from rvkernels.ops.tile import IDENTITY
from rvkernels.scene import Scene

CLASSES = [
    {"name": "field", "color": "#00ff00"},
    {"name": "water", "color": "#0000ff", "aliases": ["lake"]},
    {"name": "road", "color": "#808080"},
]
UTM = (300000.0, 0.5, 0.0, 5000000.0, 0.0, -0.5)
SCENE = Scene("s", ("s.tif",), 100, 80, 3, "uint8", transform=UTM, crs="EPSG:32618")
PLAIN = replace(SCENE, crs=None, transform=IDENTITY)


def square(row: float, col: float, size: float) -> dict:
    return raster.box_geometry((row, col, row + size, col + size))


def geojson(folder: Path, features: list[tuple[dict | None, dict]], name="l.geojson", **members) -> str:
    path = folder / name
    found = [{"type": "Feature", "geometry": g, "properties": p} for g, p in features]
    path.write_text(json.dumps({"type": "FeatureCollection", **members, "features": found}))
    return str(path)


def in_pixels(folder: Path, features: list[tuple[dict | None, dict]], **options) -> Scene:
    return replace(PLAIN, labels=geojson(folder, features, crs=None, **options))


def grid(size: int, rows=100, cols=80) -> np.ndarray:
    return np.array([(r, c, size, size) for r in range(0, rows, size) for c in range(0, cols, size)], np.int64)


# --- GeoJSON


def test_longitude_latitude_to_pixels(tmp_path):
    path = tmp_path / "l.geojson"
    raster.to_geojson(path, SCENE, [(square(10, 20, 30), {"class_id": 1}), (square(60, 5, 8), {"class_name": "road"})])
    found = labels.load_features(replace(SCENE, labels=str(path)), CLASSES)
    assert found.class_ids.tolist() == [1, 2]
    assert found.class_ids.dtype == np.int32
    assert found.boxes.dtype == np.float32
    np.testing.assert_allclose(found.boxes, [[10, 20, 40, 50], [60, 5, 68, 13]], atol=0.01)
    assert found.geometries[0].area == pytest.approx(900, abs=0.5)


def test_crs_member(tmp_path):
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32618"}}
    geometry = {"type": "Polygon", "coordinates": [[[300005, 4999995], [300010, 4999995], [300010, 4999990]]]}
    geometry["coordinates"][0].append(geometry["coordinates"][0][0])
    scene = replace(SCENE, labels=geojson(tmp_path, [(geometry, {"label": "lake"})], crs=crs))
    found = labels.load_features(scene, CLASSES)
    np.testing.assert_allclose(found.boxes, [[10, 10, 20, 20]], atol=1e-5)
    assert found.class_ids.tolist() == [1]


def test_collections_are_split_and_empty_geometries_dropped(tmp_path):
    two = {"type": "MultiPolygon", "coordinates": [square(0, 0, 5)["coordinates"], square(9, 9, 5)["coordinates"]]}
    mixed = {
        "type": "GeometryCollection",
        "geometries": [
            square(30, 30, 4),
            {"type": "Point", "coordinates": [3, 4]},
            {"type": "Polygon", "coordinates": []},
        ],
    }
    features = [(None, {"class_id": 0}), (two, {"class_id": 1}), (mixed, {"class_id": 2})]
    found = labels.load_features(in_pixels(tmp_path, features), CLASSES)
    assert found.class_ids.tolist() == [1, 1, 2, 2]
    assert [g.geom_type for g in found.geometries] == ["Polygon", "Polygon", "Polygon", "Point"]


def test_a_bow_tie_keeps_both_halves(tmp_path):
    tie = {"type": "Polygon", "coordinates": [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]}
    found = labels.load_features(in_pixels(tmp_path, [(tie, {"class_id": 0})]), CLASSES)
    assert all(g.is_valid for g in found.geometries)
    assert sum(g.area for g in found.geometries) == pytest.approx(50)


def test_no_features(tmp_path):
    found = labels.load_features(in_pixels(tmp_path, []), CLASSES)
    assert (found.geometries, found.class_ids.shape, found.boxes.shape) == ([], (0,), (0, 4))


@pytest.mark.parametrize(
    ("properties", "says"),
    [
        (
            {"class_name": "watr"},
            r"l\.geojson: feature 1: class 'watr' is not in the class list; .*Did you mean 'water'",
        ),
        ({}, r"feature 1: class '' is not in the class list; there are field, road, water"),
        ({"class_id": 3}, "feature 1: class_id 3 is not one of 0 to 2"),
        ({"class_id": -1}, "feature 1: class_id -1 is not one of 0 to 2"),
        ({"class_id": 0.5}, "feature 1: class_id 0.5 is not"),
        ({"class_id": "1"}, "feature 1: class_id '1' is not"),
        ({"class_id": True}, "feature 1: class_id True is not"),
        ({"class_id": 0, "class_name": "water"}, "class_id 0 is 'field' in the class list, but its name is 'water'"),
    ],
)
def test_a_class_outside_the_list_is_refused(tmp_path, properties, says):
    features = [(square(0, 0, 5), {"class_id": 0}), (square(0, 0, 5), properties)]
    with pytest.raises(ValueError, match=says) as error:
        labels.load_features(in_pixels(tmp_path, features), CLASSES)
    assert "\n" not in str(error.value)


def test_georeferenced_labels_need_a_georeferenced_image(tmp_path):
    scene = replace(PLAIN, labels=geojson(tmp_path, [(square(0, 0, 5), {"class_id": 0})]))
    with pytest.raises(ValueError, match=r"l\.geojson: s\.tif: has no CRS"):
        labels.load_features(scene, CLASSES)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "expected a GeoJSON FeatureCollection, got list"),
        ('{"type": "Topology"}', "got Topology"),
        ('{"type": "FeatureCollection", "features": [1]}', "feature 0: expected type Feature"),
        ('{"type": "FeatureCollection", "features": 1.5}', "features: expected a list, got float"),
        (
            '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": 7}]}',
            "0: properties: ",
        ),
        ('{"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": [1]}]}', "0: geometry: "),
        ('{"type": "FeatureCollection", "crs": "x", "features": []}', "crs: expected a named CRS"),
    ],
)
def test_what_is_no_geojson_is_refused(tmp_path, text, says):
    (tmp_path / "l.geojson").write_text(text)
    with pytest.raises(ValueError, match=rf"l\.geojson: .*{says}"):
        labels.load_features(replace(PLAIN, labels=str(tmp_path / "l.geojson")), CLASSES)


def test_broken_coordinates_name_the_file(tmp_path):
    features = [({"type": "Polygon", "coordinates": [[["a", 1], [2, 3]]]}, {"class_id": 0})]
    with pytest.raises(ValueError, match=r"l\.geojson: feature 0: coordinates \['a', 1\] are not numbers"):
        labels.load_features(in_pixels(tmp_path, features), CLASSES)
    features = [({"type": "Polygon", "coordinates": [[[0, 1], [2, 3]]]}, {"class_id": 0})]
    with pytest.raises(ValueError, match=r"l\.geojson: feature 0: "):
        labels.load_features(in_pixels(tmp_path, features), CLASSES)


@pytest.mark.parametrize("x", [float("nan"), float("inf"), 1e308])
def test_coordinates_that_are_nowhere_are_refused(tmp_path, x):
    """An infinite one was repaired again and again until Python gave up."""
    features = [({"type": "Polygon", "coordinates": [[[0, 0], [x, 0], [5, 5], [0, 0]]]}, {"class_id": 0})]
    with pytest.raises(ValueError, match=r"l\.geojson: (feature 0: )?coordinates \(.* more than 2\^29 pixels"):
        labels.load_features(in_pixels(tmp_path, features), CLASSES)


def test_a_hole_in_a_shell_of_one_point_burns_nothing(tmp_path):
    """GEOS cannot overlay the two; the shell has no area, so nothing is left of the polygon."""
    rings = [[[2, 0], [2, 0], [2, 0], [2, 0]], [[0, 2], [2, 1], [1, 1], [0, 2]]]
    features = [({"type": "Polygon", "coordinates": rings}, {"class_id": 0})]
    assert labels.load_features(in_pixels(tmp_path, features), CLASSES).geometries == []


def test_an_open_ring_is_closed_and_heights_are_dropped(tmp_path):
    """Neither stops the other features of a file from being read."""
    ring = [[2, 3, 70], [12, 3, 70], [12, 9, 70.5]]
    features = [(square(0, 0, 5), {"class_id": 1}), ({"type": "Polygon", "coordinates": [ring]}, {"class_id": 2})]
    found = labels.load_features(in_pixels(tmp_path, features), CLASSES)
    assert [g.area for g in found.geometries] == [25, 30]
    assert not any(g.has_z for g in found.geometries)
    assert found.class_ids.tolist() == [1, 2]


def test_missing_labels(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.geojson"):
        labels.load_features(replace(PLAIN, labels=str(tmp_path / "gone.geojson")), CLASSES)
    with pytest.raises(ValueError, match="scene s has no labels"):
        labels.load_features(PLAIN, CLASSES)


# --- label images


def image(folder: Path, array: np.ndarray, **options) -> Scene:
    raster.write_geotiff(folder / "l.tif", array, None, IDENTITY, **options)
    return replace(PLAIN, rows=array.shape[0], cols=array.shape[1], labels=str(folder / "l.tif"))


def test_colours_to_classes(tmp_path):
    rgb = np.array([[[0, 255, 0], [0, 0, 255]], [[128, 128, 128], [0, 0, 0]], [[0, 255, 1], [1, 2, 3]]], np.uint8)
    got = labels.SceneMasks(image(tmp_path, rgb, photometric="rgb"), CLASSES).read(np.array([[0, 0, 4, 3]]))
    assert got.dtype == np.uint8
    assert got[0].tolist() == [[0, 1, 255], [2, 255, 255], [255, 255, 255], [255, 255, 255]]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32"])
def test_ids_and_nodata(tmp_path, dtype):
    ids = np.array([[0, 1, 2], [255, 2, 9]]).astype(dtype)
    got = labels.SceneMasks(image(tmp_path, ids, nodata=9), CLASSES).read(np.array([[0, 1, 2, 3]]))
    assert got[0].tolist() == [[1, 2, 255], [2, 255, 255]]
    with pytest.raises(ValueError, match=r"l\.tif: holds 9, but classes are 0 field, 1 water, 2 road;"):
        labels.SceneMasks(image(tmp_path, ids), CLASSES).read(np.array([[0, 0, 2, 3]]))


def test_colour_table(tmp_path):
    values = np.array([[0, 1, 7], [1, 1, 0]], np.uint8)
    by_color = image(tmp_path, values, colors={0: (0, 0, 255), 1: (0, 255, 0), 7: (9, 9, 9)})
    assert labels.SceneMasks(by_color, CLASSES).read(np.array([[0, 0, 2, 3]]))[0].tolist() == [[1, 0, 255], [0, 0, 1]]
    by_value = image(tmp_path, values % 3, colors={0: (5, 0, 0), 1: (6, 0, 0)})
    assert labels.SceneMasks(by_value, CLASSES).read(np.array([[0, 0, 2, 3]]))[0].tolist() == [[0, 1, 1], [1, 1, 0]]


def test_values_of_classes(tmp_path):
    values = np.array([[0, 255, 7], [255, 0, 0]], np.uint8)
    classes = [{"name": "ground", "value": 0}, {"name": "building", "value": 255}, {"name": "road", "value": 7}]
    window = np.array([[0, 0, 2, 3]])
    scene = image(tmp_path, values)
    assert labels.SceneMasks(scene, classes).read(window)[0].tolist() == [[0, 1, 2], [1, 0, 0]]
    assert labels.SceneMasks(scene, [classes[0], classes[2]]).read(window)[0].tolist() == [[0, 255, 1], [255, 0, 0]]
    with pytest.raises(ValueError, match=r"l\.tif: holds 7, but classes are 0 ground, 255 building;"):
        labels.SceneMasks(scene, classes[:2]).read(window)


def test_wrong_label_images_are_refused(tmp_path):
    scene = image(tmp_path, np.zeros((4, 5), np.uint8))
    window = np.array([[0, 0, 2, 2]])
    with pytest.raises(ValueError, match=r"l\.tif: has 4 x 5 pixels, but s\.tif has 9 x 5"):
        labels.SceneMasks(replace(scene, rows=9), CLASSES).read(window)
    rgb = image(tmp_path, np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(ValueError, match=r"l\.tif: is a colour image, but class 'b' has no color"):
        labels.SceneMasks(rgb, [{"name": "a", "color": "#000000"}, "b"]).read(window)
    same = [{"name": "a", "color": "#000000"}, {"name": "b", "color": "#000000"}]
    with pytest.raises(ValueError, match="classes 'a' and 'b' have the same color"):
        labels.SceneMasks(rgb, same).read(window)
    with pytest.raises(ValueError, match="of one band"):
        labels.SceneMasks(image(tmp_path, np.zeros((4, 5, 2), np.uint8)), CLASSES).read(window)


@pytest.mark.parametrize(
    ("crs", "transform", "says"),
    [
        ("EPSG:4326", (10.0, 1e-5, 0.0, 50.0, 0.0, -1e-5), ""),
        ("EPSG:4326", (10.0, 1e-5 * (1 + 1e-8), 0.0, 50.0, 0.0, -1e-5), ""),  # as rounded in a file
        ("EPSG:4326", (10.0, 1.001e-5, 0.0, 50.0, 0.0, -1e-5), "another geotransform"),  # 10 pixels in 10,000
        ("EPSG:4326", (10.0 + 1e-6, 1e-5, 0.0, 50.0, 0.0, -1e-5), "another geotransform"),  # a tenth of a pixel
        ("EPSG:4269", (10.0, 1e-5, 0.0, 50.0, 0.0, -1e-5), "another CRS"),
        (None, IDENTITY, ""),  # says nothing of where it lies
    ],
)
def test_a_label_image_lies_on_the_scenes_grid(tmp_path, crs, transform, says):
    scene = replace(image(tmp_path, np.ones((40, 30), np.uint8)), crs="EPSG:4326")
    scene = replace(scene, transform=(10.0, 1e-5, 0.0, 50.0, 0.0, -1e-5))
    raster.write_geotiff(scene.labels, np.ones((40, 30), np.uint8), crs, transform)
    refused = pytest.raises(ValueError, match=rf"l\.tif: has {says} than s\.tif; warp it") if says else nullcontext()
    with refused:
        assert (labels.SceneMasks(scene, CLASSES).read(np.array([[0, 0, 40, 30]])) == 1).all()


# --- shapes to masks


def test_shapes_burn_in_file_order(tmp_path):
    features = [(square(10, 10, 20), {"class_id": 0}), (square(20, 20, 20), {"class_id": 1})]
    scene = in_pixels(tmp_path, features)
    expected = np.full((100, 80), 255, np.uint8)
    expected[10:30, 10:30] = 0
    expected[20:40, 20:40] = 1
    for background, value in ((None, 255), ("road", 2)):
        whole = np.where(expected == 255, value, expected)
        padded = np.full((140, 120), 255, np.uint8)
        padded[20:120, 20:100] = whole
        windows = np.array([[0, 0, 30, 25], [15, 15, 30, 25], [-20, -20, 30, 25], [85, 70, 30, 25], [30, 5, 30, 25]])
        got = labels.SceneMasks(scene, CLASSES, background=background).read(windows)
        for mask, (row, col, rows, cols) in zip(got, windows):
            np.testing.assert_array_equal(mask, padded[row + 20 : row + 20 + rows, col + 20 : col + 20 + cols])


def test_lines_are_as_wide_as_their_class_says(tmp_path):
    """In the unit of the image's CRS, here pixels of 0.5 m, with round ends; in pixels without a CRS."""
    classes = ["field", {"name": "road", "line_width": 6}, {"name": "path"}]
    line = {"type": "LineString", "coordinates": [[20, 50], [60, 50]]}
    path = {"type": "LineString", "coordinates": [[20.5, 80.5], [60.5, 80.5]]}
    features = [(line, {"class_id": 1}), (path, {"class_id": 2}), (square(0, 0, 5), {"class_id": 1})]
    in_metres = tmp_path / "m.geojson"
    raster.to_geojson(in_metres, SCENE, [(g, p) for g, p in features])
    for scene, width in ((replace(SCENE, labels=str(in_metres)), 12), (in_pixels(tmp_path, features), 6)):
        found = labels.load_features(scene, classes)
        half = width / 2
        np.testing.assert_allclose(found.boxes[0], [50 - half, 20 - half, 50 + half, 60 + half], atol=0.01)
        mask = labels.SceneMasks(scene, classes, background="field").read(np.array([[0, 0, 100, 80]]))[0]
        assert (mask[:, 40] == 1).sum() == width
        assert (mask[80] == 2).sum() == 41
        assert (mask[:10] == 1).sum() == 25
        assert (mask[30:70] == 1).sum() == pytest.approx(40 * width + np.pi * half**2, rel=0.02)


def test_masks_ignore_what_is_outside_the_area_of_interest(tmp_path):
    scene = in_pixels(tmp_path, [(square(0, 0, 50), {"class_id": 1})])
    scene = replace(scene, aoi=geojson(tmp_path, [(square(20, 20, 40), {})], name="aoi.geojson", crs=None))
    got = labels.SceneMasks(scene, CLASSES, background="field").read(np.array([[10, 10, 60, 60]]))[0]
    expected = np.full((60, 60), 255, np.uint8)
    expected[10:50, 10:50] = 0
    expected[10:40, 10:40] = 1
    np.testing.assert_array_equal(got, expected)


# --- cells


def test_the_greatest_area_wins_not_the_greatest_ratio(tmp_path):
    # A polygon of one pixel lies wholly in the cell; the other covers most of the cell but is mostly elsewhere.
    scene = in_pixels(tmp_path, [(square(1, 1, 1), {"class_id": 0}), (square(0.5, 0, 60), {"class_id": 1})])
    assert labels.cells(scene, np.array([[0, 0, 10, 10]]), CLASSES).tolist() == [1]


def test_cells(tmp_path):
    features = [
        (square(0, 0, 10), {"class_id": 2}),
        (square(0, 10, 6), {"class_id": 0}),  # where the two overlap counts once
        (square(2, 12, 6), {"class_id": 0}),
        (square(0, 20, 7), {"class_id": 1}),
        (square(0, 30, 10), {"class_id": 2}),  # a tie of two classes: the lowest id
        (square(0, 30, 10), {"class_id": 1}),
        ({"type": "LineString", "coordinates": [[40, 0], [50, 10]]}, {"class_id": 0}),
    ]
    scene = in_pixels(tmp_path, features)
    windows = np.array([(0, c, 10, 10) for c in range(0, 60, 10)], np.int64)
    features = labels.load_features(scene, CLASSES)
    np.testing.assert_allclose(
        labels.class_areas(features, windows, 3),
        [[0, 0, 100], [56, 0, 0], [0, 49, 0], [0, 100, 100], [0, 0, 0], [0, 0, 0]],
    )
    assert labels.cells(scene, windows, CLASSES).tolist() == [2, 0, -1, 1, -1, -1]
    assert labels.cells(scene, windows, CLASSES, min_share=0.4, background="road").tolist() == [2, 0, 1, 1, 2, 2]
    assert labels.cells(scene, windows, CLASSES, min_share=0.6).tolist() == [2, -1, -1, 1, -1, -1]
    assert labels.cells(scene, windows, CLASSES, min_share=0).tolist() == [2, 0, 1, 1, -1, -1]
    # The order of the windows, and which there are, does not change their classes.
    assert labels.cells(scene, windows[[3, 0]], CLASSES).tolist() == [1, 2]
    assert labels.cells(scene, windows[:0], CLASSES).tolist() == []


# --- boxes


def test_boxes_in_a_window():
    boxes = np.array([[0, 0, 10, 10], [5, 5, 15, 15], [12, 12, 20, 20], [19, 0, 29, 10], [50, 50, 60, 60]], np.float32)
    got, rows = labels.boxes_in(boxes, (10, 10, 10, 10))
    assert rows.tolist() == [1, 2]  # the first only touches, the fourth is beside it
    assert got.tolist() == [[0, 0, 5, 5], [2, 2, 10, 10]]
    assert got.dtype == np.float32
    assert labels.boxes_in(boxes, (10, 10, 10, 10), min_share=0.3)[1].tolist() == [2]
    assert labels.boxes_in(boxes[:0], (0, 0, 5, 5))[0].shape == (0, 4)


# --- areas of interest


def test_area_of_interest(tmp_path):
    path = tmp_path / "aoi.geojson"
    raster.to_geojson(path, SCENE, [(square(0, 0, 40), {}), (square(0, 40, 40), {})])
    polygons = labels.aoi(replace(SCENE, aoi=str(path)))
    assert len(polygons) == 2
    windows = np.array(
        [(0, 0, 40, 40), (0, 20, 40, 40), (0, 40, 40, 40), (1, 0, 40, 40), (-1, 0, 40, 40), (60, 0, 5, 5)]
    )
    assert labels.in_aoi(windows, polygons).tolist() == [True, True, True, False, False, False]
    assert labels.in_aoi(windows, None).all()
    assert labels.aoi(SCENE) is None


def test_an_area_of_interest_without_polygon_is_refused(tmp_path):
    line = {"type": "LineString", "coordinates": [[0, 0], [1, 1]]}
    scene = replace(PLAIN, aoi=geojson(tmp_path, [(line, {})], name="aoi.geojson", crs=None))
    with pytest.raises(ValueError, match=r"aoi\.geojson: holds no polygon"):
        labels.aoi(scene)


# --- real files


def mirror(*parts: str) -> Path:
    root = os.environ.get("RVK_MIRROR")
    path = Path(root or "", *parts)
    if not root or not path.exists():
        pytest.skip(f"RVK_MIRROR does not point to a folder with {'/'.join(parts)}")
    return path


def described(path: str, **members) -> Scene:
    found = raster.describe(path)
    fields = ("rows", "cols", "bands", "dtype", "transform", "crs", "nodata")
    return Scene("s", (path,), **{k: found[k] for k in fields}, **members)


@pytest.mark.mirror
def test_buildings_lie_on_their_tile():
    folder = mirror("spacenet_sample")
    classes = [{"name": "building", "aliases": [""]}]
    scene = described(str(folder / "sample_geotiff.tif"), labels=str(folder / "geotiff_labels.geojson"))
    found = labels.load_features(scene, classes)
    assert len(found.geometries) >= 43
    tile = shapely.box(0, 0, 900, 900)
    assert all(g.intersects(tile) for g in found.geometries)
    mask = labels.SceneMasks(scene, classes).read(np.array([[0, 0, 900, 900]]))[0]
    area = sum(g.intersection(tile).area for g in found.geometries)
    assert (mask == 0).sum() == pytest.approx(area, rel=0.05)


@pytest.mark.mirror
def test_dubai_colours_are_classes():
    archive = mirror("dubai", "Semantic_segmentation_dataset.zip")
    colors = {"Building": "#3c1098", "Land": "#8429f6", "Road": "#6ec1e4", "Vegetation": "#fedd3a", "Water": "#e2a929"}
    tile = f"/vsizip/{archive}/Semantic segmentation dataset/Tile 1"
    scene = described(f"{tile}/images/image_part_001.jpg", labels=f"{tile}/masks/image_part_001.png")
    masks = labels.SceneMasks(scene, [{"name": n, "color": c} for n, c in colors.items()])
    got = masks.read(np.array([[0, 0, scene.rows, scene.cols]]))
    assert (got == 255).mean() < 0.05
    assert len(np.unique(got)) >= 4
