"""Raster metadata, GeoTIFF and GeoJSON writing, and coordinates."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from osgeo import gdal

from rvkernels import raster
from rvkernels.ops import tile
from rvkernels.ops.polygonize import polygonize
from rvkernels.ops.tile import IDENTITY
from rvkernels.scene import Scene

UTM = (300000.0, 0.5, 0.0, 5000000.0, 0.0, -0.5)


def scene(crs: str | None = "EPSG:32618", transform=UTM, rows=100, cols=80) -> Scene:
    return Scene("s", ("s.tif",), rows, cols, 3, "uint8", transform=transform, crs=crs)


@pytest.mark.parametrize("cog", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_geotiff_round_trip(tmp_path, cog, dtype):
    array = np.random.default_rng(0).integers(0, 250, (300, 270, 4)).astype(dtype)
    path = tmp_path / "a.tif"
    raster.write_geotiff(
        path, array, "EPSG:32618", UTM, nodata=7, cog=cog, photometric="rgb", names=["red", "green", "blue", "nir"]
    )
    found = raster.describe(path)
    assert (found["rows"], found["cols"], found["bands"], found["dtype"]) == (300, 270, 4, dtype)
    assert found["transform"] == UTM
    assert found["nodata"] == 7
    assert found["alpha"] is False  # the fourth band is near infrared
    assert found["block"] == (256, 256)
    assert "32618" in found["crs"]
    np.testing.assert_array_equal(tile.read(str(path), np.array([[0, 0, 300, 270]]))[0], array)
    made = gdal.Open(str(path))
    assert made.GetRasterBand(4).GetDescription() == "nir"
    assert made.GetMetadata("IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
    assert made.GetMetadata("IMAGE_STRUCTURE").get("LAYOUT") == ("COG" if cog else None)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]  # no sidecar, no temporary file


def test_colour_table(tmp_path):
    labels = np.array([[0, 1], [1, 2]], np.uint8)
    raster.write_geotiff(tmp_path / "l.tif", labels, None, IDENTITY, colors={0: (1, 2, 3), 2: (9, 8, 7)}, nodata=255)
    found = raster.describe(tmp_path / "l.tif")
    assert found["palette"][0] == [1, 2, 3, 255]
    assert found["palette"][2] == [9, 8, 7, 255]
    assert found["crs"] is None
    assert found["transform"] == IDENTITY


@pytest.mark.parametrize(
    ("array", "options", "says"),
    [
        (np.zeros((4, 4), np.complex64), {}, "no GeoTIFF of dtype complex64"),
        (np.zeros((4, 4, 3), np.uint8), {"colors": {0: (0, 0, 0)}}, "colour table needs one band"),
        (np.zeros((4, 4, 2), np.uint8), {"names": ["a"]}, "1 band names for 2 bands"),
        (np.zeros((4, 4, 2), np.uint8), {"photometric": "rgb"}, "photometric"),
        (np.zeros((0, 4), np.uint8), {}, r"got \(0, 4\)"),
        (np.zeros((4, 4), np.uint8), {"crs": "EPSG:nothing"}, "no CRS 'EPSG:nothing'"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, array, options, says):
    arguments = {"crs": None, "transform": IDENTITY, **options}
    with pytest.raises(ValueError, match=says):
        raster.write_geotiff(tmp_path / "a.tif", array, **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("cog", [False, True])
def test_a_full_disk_leaves_the_old_file(tmp_path, cog):
    path = tmp_path / "a.tif"
    raster.write_geotiff(path, np.ones((4, 4), np.uint8), None, IDENTITY)
    before = path.read_bytes()
    script = """
import resource, sys
import numpy as np
from rvkernels import raster
array = np.random.default_rng(0).integers(0, 255, (900, 900)).astype("uint8")
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
try:
    raster.write_geotiff(sys.argv[1], array, None, (0, 1, 0, 0, 0, 1), cog=sys.argv[2] == "True")
except ValueError as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", script, str(path), str(cog)],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "a.tif: cannot write a GeoTIFF" in run.stdout
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


def test_describe_many_keeps_order_and_names_the_bad_one(tmp_path):
    paths = []
    for i in range(1, 12):
        paths.append(tmp_path / f"{i}.tif")
        raster.write_geotiff(paths[-1], np.zeros((i, 3), np.uint8), None, IDENTITY)
    assert [d["rows"] for d in raster.describe_many(paths, threads=2)] == list(range(1, 12))
    paths[5].write_bytes(b"II*\0 broken")
    with pytest.raises(ValueError, match=r"6\.tif: not a raster GDAL can open"):
        raster.describe_many(paths, threads=2)
    with pytest.raises(FileNotFoundError, match=r"gone\.tif: no such file"):
        raster.describe(tmp_path / "gone.tif")


def test_describe_a_stack(tmp_path):
    raster.write_geotiff(tmp_path / "a.tif", np.zeros((5, 6, 3), np.uint8), "EPSG:32618", UTM, nodata=float("nan"))
    raster.write_geotiff(tmp_path / "b.tif", np.zeros((5, 6), np.float64), "EPSG:32618", UTM)
    found = raster.describe([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")])
    assert (found["bands"], found["dtype"], found["stored"], found["nodata"]) == (4, "float32", "float64", None)
    raster.write_geotiff(tmp_path / "b.tif", np.zeros((5, 6), np.float64), "EPSG:32611", UTM)
    with pytest.raises(ValueError, match=r"b\.tif: has no pixel on the grid of 5 x 6"):
        raster.describe([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")])


def test_complex_pixels_are_refused(tmp_path):
    path = str(tmp_path / "c.tif")
    gdal.GetDriverByName("GTiff").Create(path, 4, 4, 1, gdal.GDT_CFloat32).FlushCache()
    with pytest.raises(ValueError, match=r"c\.tif: pixels are CFloat32"):
        raster.describe(path)


def test_pixel_corners_map_to_the_geotransform():
    s = scene()
    np.testing.assert_allclose(raster.to_map(s, [[0, 0], [80, 100]], s.crs), [[300000, 5000000], [300040, 4999950]])
    rotated = scene(transform=(10.0, 0.3, 0.4, 20.0, 0.4, -0.3))
    points = np.random.default_rng(0).uniform(0, 80, (50, 2))
    for s in (scene(), rotated):
        there = raster.to_map(s, points, s.crs)
        np.testing.assert_allclose(raster.to_pixels(s, there, s.crs), points, atol=1e-6)
    np.testing.assert_allclose(raster.to_map(rotated, [[1, 0]], rotated.crs), [[10.3, 20.4]])


def test_longitude_comes_first():
    s = scene()
    lon, lat = raster.to_map(s, [[0, 0]])[0]
    assert -78 < lon < -72  # zone 18 north
    assert 45.0 < lat < 45.3
    np.testing.assert_allclose(raster.to_pixels(s, [[lon, lat]]), [[0, 0]], atol=1e-5)
    # the same place through a CRS written latitude first
    np.testing.assert_allclose(raster.to_pixels(s, [[lon, lat]], "urn:ogc:def:crs:EPSG::4326"), [[0, 0]], atol=1e-5)


def test_no_crs():
    with pytest.raises(ValueError, match=r"s\.tif: has no CRS"):
        raster.to_pixels(scene(crs=None), [[0, 0]])
    np.testing.assert_array_equal(raster.to_map(scene(crs=None), [[3, 4]]), [[3, 4]])


def test_points_outside_the_projection_are_an_error():
    with pytest.raises(ValueError, match=r"do not transform|has no place"):
        raster.to_pixels(scene(), [[300000.0, 5000000.0]], "EPSG:4326")


def test_sieve():
    labels = np.zeros((6, 8), np.uint8)
    labels[1, 1:4] = 1  # three pixels in 0
    labels[3:6, 0:2] = 2
    labels[0, 7] = 255  # one pixel, but not looked at
    assert raster.sieve(labels, 1, 255) is labels
    assert (raster.sieve(labels, 3, 255) == labels).all()
    sieved = raster.sieve(labels, 4, 255)
    assert (sieved[1] == 0).all()
    labels[1] = 0
    assert (sieved == labels).all()


@pytest.mark.parametrize("crs", ["EPSG:32618", None])
def test_polygons_to_geojson(tmp_path, crs):
    mask = np.zeros((100, 80), np.uint8)
    mask[10:20, 30:50] = 1
    mask[12, 40] = 0
    s = scene(crs=crs)
    raster.polygons_to_geojson(tmp_path / "a.json", s, polygonize(mask), {"class_id": 1})
    written = json.loads((tmp_path / "a.json").read_text())
    assert ("crs" in written) == (crs is None)
    (feature,) = written["features"]
    assert feature["properties"] == {"class_id": 1}
    assert feature["geometry"]["type"] == "Polygon"
    outer, hole = (np.array(ring) for ring in feature["geometry"]["coordinates"])
    if crs is not None:
        outer, hole = (np.round(raster.to_pixels(s, ring)) for ring in (outer, hole))
    assert outer.tolist() == [[30, 10], [30, 20], [50, 20], [50, 10], [30, 10]]
    assert hole.tolist() == [[41, 12], [41, 13], [40, 13], [40, 12], [41, 12]]


def test_geojson_in_raster_visions_ring_order(tmp_path):
    s = scene()
    path = tmp_path / "boxes.json"
    raster.to_geojson(path, s, [(raster.box_geometry((10, 20, 30, 60)), {"class_id": 0, "score": 0.5})])
    written = json.loads(path.read_text())
    assert "crs" not in written
    (feature,) = written["features"]
    assert feature["properties"] == {"class_id": 0, "score": 0.5}
    ring = feature["geometry"]["coordinates"][0]
    assert all(len(str(abs(v)).split(".")[1]) <= 8 for point in ring for v in point)
    pixels = np.round(raster.to_pixels(s, ring)).tolist()
    assert pixels == [[60, 10], [60, 30], [20, 30], [20, 10], [60, 10]]


def test_geojson_without_crs_is_in_pixels(tmp_path):
    raster.to_geojson(tmp_path / "a.json", scene(crs=None), [(raster.box_geometry((1, 2, 3, 4)), {})])
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["crs"] is None
    assert written["features"][0]["geometry"]["coordinates"][0][0] == [4.0, 1.0]


def test_move_geometries_of_every_kind():
    geometries = [
        {"type": "Point", "coordinates": [1, 2, 9]},
        {"type": "MultiPolygon", "coordinates": [[[[0, 0], [1, 0, 7], [1, 1], [0, 0]]], []]},
        {"type": "MultiPolygon", "coordinates": [[], [[], [[0, 0], [1, 0], [1, 1], [0, 0]]]]},
        {"type": "GeometryCollection", "geometries": [{"type": "LineString", "coordinates": [[0, 0], [2, 2]]}]},
    ]
    moved = raster.move_geometries(geometries, lambda xy: xy + 10)
    assert moved[0]["coordinates"] == [11, 12]
    assert moved[1]["coordinates"][0][0][1] == [11, 10]
    assert moved[2]["coordinates"] == [[], [[], [[10, 10], [11, 10], [11, 11], [10, 10]]]]
    assert moved[3]["geometries"][0]["coordinates"] == [[10, 10], [12, 12]]
    for wrong in (["a", 1], [1], [[1, 2], [3]], [[1, 2], ["3", "4"]], [[0, 0], 5], 7, [[True, False]]):
        with pytest.raises(ValueError, match="are not numbers"):
            raster.move_geometries([{"type": "LineString", "coordinates": wrong}], lambda xy: xy)


def test_read_bytes(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"words")
    assert raster.read_bytes(tmp_path / "a.txt") == b"words"
    with pytest.raises(FileNotFoundError, match=r"gone\.txt"):
        raster.read_bytes(tmp_path / "gone.txt")


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_parts_make_the_same_image(tmp_path, dtype):
    image = (np.random.default_rng(0).random((300, 530, 3)) * 200).astype(dtype)
    transform = (500_000.0, 0.5, 0.0, 4_500_000.0, 0.0, -0.5)
    names = ["a", "b", "c"]
    raster.write_geotiff(tmp_path / "whole.tif", image, "EPSG:32618", transform, names=names)
    with raster.geotiff_parts(
        tmp_path / "parts.tif", image.shape, dtype, "EPSG:32618", transform, names=names
    ) as write:
        for row in range(0, 300, 70):
            for col in (0, 260):
                write(row, col, image[row : row + 70, col : col + 270])
        assert not (tmp_path / "parts.tif").exists()
    whole, parts = (gdal.Open(str(tmp_path / name)) for name in ("whole.tif", "parts.tif"))
    assert (whole.ReadAsArray() == parts.ReadAsArray()).all()
    assert (parts.ReadAsArray() == image.transpose(2, 0, 1)).all()
    assert whole.GetMetadata("IMAGE_STRUCTURE") == parts.GetMetadata("IMAGE_STRUCTURE")
    assert whole.GetGeoTransform() == parts.GetGeoTransform()
    assert whole.GetProjection() == parts.GetProjection()
    assert [parts.GetRasterBand(b).GetDescription() for b in (1, 2, 3)] == names


def test_a_file_written_beside_parts_leaves_gdals_settings_alone(tmp_path):
    gdal.SetThreadLocalConfigOption("GDAL_PAM_ENABLED", "YES")
    try:
        with raster.geotiff_parts(tmp_path / "parts.tif", (10, 10, 1), "uint8", None, IDENTITY) as write:
            write(0, 0, np.ones((10, 10, 1), np.uint8))
            raster.write_geotiff(tmp_path / "whole.tif", np.ones((4, 4), np.uint8), None, IDENTITY)
            assert gdal.GetThreadLocalConfigOption("GDAL_PAM_ENABLED") == "YES"
        assert gdal.GetThreadLocalConfigOption("GDAL_PAM_ENABLED") == "YES"
    finally:
        gdal.SetThreadLocalConfigOption("GDAL_PAM_ENABLED", None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.tif", "whole.tif"]


def test_parts_take_no_blame_for_what_their_maker_does(tmp_path):
    with (
        pytest.raises(RuntimeError, match=r"^mine$"),
        raster.geotiff_parts(tmp_path / "parts.tif", (10, 10, 1), "uint8", None, IDENTITY),
    ):
        raise RuntimeError("mine")
    assert not list(tmp_path.iterdir())


def test_parts_that_do_not_fit_leave_no_file(tmp_path):
    path = tmp_path / "parts.tif"
    for row, shape, dtype, message in (
        (0, (5, 5, 1), "uint8", "expected a part"),
        (0, (5, 5, 2), "float32", "expected a part"),
        (8, (5, 5, 2), "uint8", "inside the image"),
        (-1, (5, 5, 2), "uint8", "inside the image"),
    ):
        with (
            pytest.raises(ValueError, match=message),
            raster.geotiff_parts(path, (10, 10, 2), "uint8", None, IDENTITY) as write,
        ):
            write(row, 0, np.zeros(shape, dtype))
    assert list(tmp_path.iterdir()) == []
    with (
        pytest.raises(ValueError, match="at least 1"),
        raster.geotiff_parts(path, (0, 10, 2), "uint8", None, IDENTITY),
    ):
        pass
