"""Polygons on the map decide the split: blocks that they cover wholly, in whatever CRS and format they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from osgeo import gdal

from rvkernels import raster
from rvkernels.scene import Scene
from rvkernels.split import SPLITS, split
from rvkernels.vector_split import rectangles

UTM = "EPSG:32632"
ROWS, COLS = 120, 160
TRANSFORM = (500000.0, 0.5, 0.0, 4000000.0, 0.0, -0.5)


def scene(name: str = "a", **more: object) -> Scene:
    given = {"crs": UTM, "transform": TRANSFORM, **more}
    return Scene(id=name, images=(f"{name}.tif",), rows=ROWS, cols=COLS, bands=3, dtype="uint8", **given)


def write(path, *features: tuple[object, list[tuple[float, float]]], crs: str = UTM, name: str = "split") -> str:
    """A file of (value of the attribute, corners as row and column of `scene`)."""
    made = []
    for value, corners in features:
        pixels = np.array([*corners, corners[0]], float)[:, ::-1]
        ring = raster.to_map(scene(), pixels, crs).tolist()
        made.append(
            {
                "type": "Feature",
                "properties": {name: value},
                "geometry": {"type": "Polygon", "coordinates": [ring]},
            }
        )
    content = {"type": "FeatureCollection", "features": made}
    if crs != raster.MAP:
        content["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(content))
    return str(path)


def box(top: float, left: float, bottom: float, right: float) -> list[tuple[float, float]]:
    return [(top, left), (top, right), (bottom, right), (bottom, left)]


THIRDS = (
    ("train", box(-10, -10, 130, 80)),
    ("val", box(-10, 80, 60, 170)),
    ("test", box(60, 80, 130, 170)),
)


def windows(regions) -> list[tuple[str, int, int, int, int]]:
    return [(r.split, r.row, r.col, r.rows, r.cols) for r in regions]


@pytest.mark.parametrize("crs", [UTM, raster.MAP, "EPSG:3857"])
def test_parts_of_a_scene_in_any_crs(tmp_path, crs):
    file = write(tmp_path / "areas.geojson", *THIRDS, crs=crs)
    regions = split([scene()], {"by": "vector", "file": file, "size": 20})
    assert windows(regions) == [("train", 0, 0, 120, 80), ("val", 0, 80, 60, 80), ("test", 60, 80, 60, 80)]


def test_geopackage_with_layers_and_an_attribute_of_another_name(tmp_path):
    source = write(tmp_path / "areas.geojson", *THIRDS, name="part")
    file = str(tmp_path / "areas.gpkg")
    gdal.VectorTranslate(file, source, format="GPKG", layerName="mine")
    gdal.VectorTranslate(file, source, format="GPKG", layerName="other", accessMode="append")
    chosen = {"by": "vector", "file": file, "size": 20, "attribute": "part"}
    with pytest.raises(ValueError, match="has 2 layers, name one as `layer`; there are mine, other"):
        split([scene()], chosen)
    with pytest.raises(ValueError, match=r"no layer 'mime'; .*Did you mean 'mine'\?"):
        split([scene()], {**chosen, "layer": "mime"})
    assert len(split([scene()], {**chosen, "layer": "mine"})) == 3


def test_whole_scenes_and_those_that_lie_in_none(tmp_path):
    file = write(
        tmp_path / "areas.geojson",
        ("train", box(-1, -1, 121, 161)),
        ("val", box(-1, 999, 121, 1161)),
        ("test", box(-1, 1999, 121, 2161)),
        (None, box(-1, 2999, 121, 3161)),
    )
    scenes = [
        scene(str(i), transform=(500000.0 + x, *TRANSFORM[1:])) for i, x in enumerate((0, 500, 1000, 1500, 30, 9000))
    ]
    regions = split(scenes, {"by": "vector", "file": file})
    assert [(r.scene, r.split) for r in regions] == [("0", "train"), ("1", "val"), ("2", "test")]
    assert {(r.row, r.col, r.rows, r.cols) for r in regions} == {(0, 0, ROWS, COLS)}


def test_only_blocks_wholly_inside_a_slanting_polygon(tmp_path):
    slanting = [(0, 0), (0, 160), (120, 0)]
    file = write(
        tmp_path / "areas.geojson",
        ("train", slanting),
        ("val", box(100, 100, 120, 120)),
        ("test", box(100, 140, 120, 160)),
    )
    regions = split([scene()], {"by": "vector", "file": file, "size": 20})
    owner = np.full((ROWS, COLS), -1)
    for r in regions:
        window = owner[r.row : r.row + r.rows, r.col : r.col + r.cols]
        assert (window == -1).all()
        window[:] = SPLITS.index(r.split)
    rows, cols = np.mgrid[0:ROWS:20, 0:COLS:20]
    inside = (rows + 20) / 120 + (cols + 20) / 160 <= 1
    np.testing.assert_array_equal(owner[::20, ::20] == 0, inside)
    assert (owner == 1).sum() == (owner == 2).sum() == 400


def test_touching_polygons_of_one_split_are_one_area(tmp_path):
    halves = (("train", box(-1, -1, 61, 71)), ("train", box(-1, 71, 61, 161)))
    rest = (("val", box(61, -1, 121, 80)), ("test", box(61, 80, 121, 161)))
    file = write(tmp_path / "areas.geojson", *halves, *rest)
    regions = split([scene()], {"by": "vector", "file": file, "size": 20})
    assert windows(regions)[0] == ("train", 0, 0, 60, 160)


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=7))
def test_rectangles_make_up_the_mask_without_overlap(rows):
    mask = np.array(rows)
    covered = np.zeros(mask.shape, int)
    for i, j, m, n in rectangles(mask):
        covered[i:m, j:n] += 1
    np.testing.assert_array_equal(covered, mask.astype(int))


@pytest.mark.parametrize(
    ("features", "more", "message"),
    [
        (THIRDS, {"attribute": "part"}, r"areas\.geojson: no attribute 'part'; there are split"),
        ((("trian", box(0, 0, 9, 9)),), {}, r"feature 0: split: no split 'trian'; .*Did you mean 'train'\?"),
        (
            (*THIRDS, ("test", box(0, 0, 60, 60))),
            {"size": 20},
            r"of train and test both cover scene a at row 0, column 0",
        ),
        (THIRDS, {}, r"zero scenes in 'train' \(by: vector, 1 scenes in all\)"),
    ],
)
def test_files_that_do_not_fit(tmp_path, features, more, message):
    file = write(tmp_path / "areas.geojson", *features)
    with pytest.raises(ValueError, match=message):
        split([scene()], {"by": "vector", "file": file, **more})


def test_what_has_no_place_on_the_ground(tmp_path):
    file = write(tmp_path / "areas.geojson", *THIRDS)
    with pytest.raises(ValueError, match=r"a\.tif: has no CRS, so the polygons of"):
        split([scene(crs=None)], {"by": "vector", "file": file})
    shapes = tmp_path / "none.shp"
    gdal.VectorTranslate(str(shapes), file, format="ESRI Shapefile")
    shapes.with_suffix(".prj").unlink()
    with pytest.raises(ValueError, match=r"none\.shp: has no CRS"):
        split([scene()], {"by": "vector", "file": str(shapes)})


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"split: file: no file nowhere\.gpkg; the path is relative"):
        split([scene()], {"by": "vector", "file": "nowhere.gpkg"})
    (tmp_path / "text.geojson").write_text("no vector file")
    with pytest.raises(ValueError, match=r"text\.geojson: cannot be read as a vector file"):
        split([scene()], {"by": "vector", "file": str(tmp_path / "text.geojson")})
    points = {"type": "Feature", "properties": {"split": "train"}, "geometry": {"type": "Point", "coordinates": [9, 5]}}
    (tmp_path / "points.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [points]}))
    with pytest.raises(ValueError, match=r"points\.geojson: feature 0: expected a polygon, got POINT"):
        split([scene()], {"by": "vector", "file": str(tmp_path / "points.geojson")})
