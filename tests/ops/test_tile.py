"""What windowed reading promises beyond parity: order, single decoding, masks, stacks, archives, errors."""

from __future__ import annotations

import gzip
import http.server
import os
import re
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import ClassVar

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from osgeo import gdal, gdal_array, osr

from rvkernels import _raster
from rvkernels.ops import tile

gdal.UseExceptions()

TILED = ("TILED=YES", "BLOCKXSIZE=64", "BLOCKYSIZE=64", "COMPRESS=DEFLATE")


def noise(rows: int, cols: int, bands: int, dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(rows + cols + bands).integers(0, 250, (rows, cols, bands)).astype(dtype)


def write(
    path: Path, array: np.ndarray, options=TILED, nodata=None, alpha=False, driver="GTiff", geo=None, epsg=None
) -> str:
    memory = gdal_array.OpenNumPyArray(np.ascontiguousarray(array), False)
    for b in range(memory.RasterCount if nodata is not None else 0):
        memory.GetRasterBand(b + 1).SetNoDataValue(nodata)
    if alpha:
        memory.GetRasterBand(memory.RasterCount).SetColorInterpretation(gdal.GCI_AlphaBand)
    if geo is not None:
        memory.SetGeoTransform(geo)
    if epsg is not None:
        reference = osr.SpatialReference()
        reference.ImportFromEPSG(epsg)
        memory.SetSpatialRef(reference)
    gdal.GetDriverByName(driver).CreateCopy(str(path), memory, 0, list(options)).FlushCache()
    return str(path)


def grid(rows: int, cols: int, size: int, stride: int) -> np.ndarray:
    corners = [(r, c, size, size) for r in range(0, rows - size + 1, stride) for c in range(0, cols - size + 1, stride)]
    return np.array(corners, np.int64)


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        (TILED, "uint8"),
        ((*TILED, "INTERLEAVE=BAND"), "uint16"),
        (("COMPRESS=LZW", "PREDICTOR=2", "BLOCKYSIZE=7"), "int16"),
        (("COMPRESS=DEFLATE", "PREDICTOR=3", "BLOCKYSIZE=1"), "float32"),
        ((), "uint8"),
    ],
)
def test_shuffled_windows_equal_slices(tmp_path, options, dtype):
    array = noise(201, 333, 3, dtype)
    path = write(tmp_path / "a.tif", array, options)
    windows = np.random.default_rng(1).permutation(grid(201, 333, 37, 20))
    got = tile.read(path, windows, threads=2)
    assert got.dtype == array.dtype
    for image, (row, col, rows, cols) in zip(got, windows):
        np.testing.assert_array_equal(image, array[row : row + rows, col : col + cols])


def test_each_block_is_decoded_once(tmp_path):
    path = write(tmp_path / "a.tif", noise(512, 448, 3))
    windows = np.random.default_rng(2).permutation(grid(512, 448, 100, 10))  # every pixel is in up to 100 windows
    for threads in (1, 2):
        counts: dict = {}
        tile.read(path, windows, counts=counts, threads=threads)
        assert counts == {"blocks": 8 * 7}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc/self/io")
def test_the_file_is_read_once(tmp_path):
    """GDAL's cache holds less than a block here, so decoding a block again would read its bytes again."""
    array = np.random.default_rng(0).integers(0, 65536, (512, 512, 2)).astype("uint16")
    path = write(tmp_path / "a.tif", array, ("TILED=YES", "BLOCKXSIZE=128", "BLOCKYSIZE=128", "COMPRESS=DEFLATE"))
    script = """
import sys
import numpy as np
from rvkernels.ops import tile
def read_bytes():
    return int(open("/proc/self/io").readline().split()[1])
windows = np.array([(r, c, 96, 96) for r in range(0, 416, 24) for c in range(0, 416, 24)], np.int64)
windows = np.random.default_rng(0).permutation(windows)
for kernel in ("cpp", "reference"):
    tile.read(sys.argv[1], windows[:1], kernel=kernel)
    before = read_bytes()
    tile.read(sys.argv[1], windows, kernel=kernel, threads=2)
    print(read_bytes() - before)
"""
    environment = {**os.environ, "GDAL_CACHEMAX": "1KB"}
    run = subprocess.run(
        [sys.executable, "-c", script, path],
        env=environment, cwd=os.path.dirname(path), capture_output=True, text=True, check=True,
    )  # fmt: skip
    once, again = map(int, run.stdout.split())
    size = os.path.getsize(path)
    assert once < 1.1 * size
    assert again > 3 * size  # the measure sees what it is to see: the plain loop does decode again


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(data=st.data())
def test_any_layout_and_any_windows(data):
    draw = data.draw
    rows, cols, bands = draw(st.integers(1, 90)), draw(st.integers(1, 90)), draw(st.integers(1, 4))
    dtype = draw(st.sampled_from(sorted(tile.DTYPES)))
    options = [f"INTERLEAVE={draw(st.sampled_from(['PIXEL', 'BAND']))}", "COMPRESS=DEFLATE"]
    if draw(st.booleans()):
        options += ["TILED=YES", "BLOCKXSIZE=16", f"BLOCKYSIZE={draw(st.sampled_from([16, 48]))}"]
    else:
        options.append(f"BLOCKYSIZE={draw(st.integers(1, 20))}")
    array = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 3, (rows, cols, bands)).astype(dtype)
    path = write("/vsimem/any.tif", array, options, nodata=draw(st.sampled_from([None, 0, 1])))
    size = (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    corners = draw(st.lists(st.tuples(st.integers(-50, 120), st.integers(-50, 120)), max_size=12))
    windows = np.array([(*corner, *size) for corner in corners], np.int64).reshape(-1, 4)
    wanted = draw(st.lists(st.integers(0, bands - 1), min_size=1, max_size=5))
    options = {"bands": wanted, "fill": draw(st.sampled_from([0, 77])), "valid": True}
    got = tile.read(path, windows, threads=2, **options)
    for actual, expected in zip(got, tile.read(path, windows, kernel="reference", **options)):
        np.testing.assert_array_equal(actual, expected)


def test_off_edge_fill_and_mask(tmp_path):
    array = noise(50, 70, 2, "uint16")
    path = write(tmp_path / "a.tif", array, nodata=3)
    array[10:20, 5:9] = 3
    array[30, 30] = (3, 4)  # one band holds data
    write(tmp_path / "a.tif", array, nodata=3)
    windows = np.array([[-8, -9, 40, 40], [20, 40, 40, 40], [200, 200, 40, 40], [5, 0, 40, 40]])
    got, valid = tile.read(path, windows, fill=65535, valid=True)
    padded = np.full((300, 300, 2), 65535, np.uint16)
    padded[20:70, 20:90] = array
    inside = np.zeros((300, 300), bool)
    inside[20:70, 20:90] = ~(array == 3).all(axis=2)
    for image, mask, (row, col, rows, cols) in zip(got, valid, windows):
        part = np.s_[row + 20 : row + 20 + rows, col + 20 : col + 20 + cols]
        np.testing.assert_array_equal(image, padded[part])
        np.testing.assert_array_equal(mask, inside[part])


def test_nodata_of_selected_bands_only(tmp_path):
    array = np.ones((20, 20, 2), np.uint8)
    array[5, 5, 0] = 0
    path = write(tmp_path / "a.tif", array, nodata=0)
    window = np.array([[0, 0, 20, 20]])
    for kernel in ("cpp", "reference"):
        assert tile.read(path, window, valid=True, kernel=kernel)[1].all()
        assert tile.read(path, window, bands=[0], valid=True, kernel=kernel)[1].sum() == 399


def test_nan_is_no_data_even_when_nothing_says_so(tmp_path):
    array = np.ones((20, 20, 1), np.float32)
    array[3, 4] = np.nan
    path = write(tmp_path / "a.tif", array)
    for kernel in ("cpp", "reference"):
        valid = tile.read(path, np.array([[0, 0, 20, 20]]), valid=True, kernel=kernel)[1]
        assert np.argwhere(valid == 0).tolist() == [[0, 3, 4]]


def test_alpha_is_a_mask_and_no_band(tmp_path):
    array = noise(40, 40, 4)
    array[..., 3] = 255
    array[:10, :, 3] = 0
    path = write(tmp_path / "a.tif", array, (*TILED, "ALPHA=YES"), alpha=True)
    for kernel in ("cpp", "reference"):
        image, valid = tile.read(path, np.array([[0, 0, 40, 40]]), valid=True, kernel=kernel)
        np.testing.assert_array_equal(image[0], array[..., :3])
        np.testing.assert_array_equal(valid[0], array[..., 3] > 0)


def test_mask_band(tmp_path):
    path = write(tmp_path / "a.tif", noise(40, 40, 3))
    dataset = gdal.Open(path, gdal.GA_Update)
    dataset.CreateMaskBand(gdal.GMF_PER_DATASET)
    mask = np.full((40, 40), 255, np.uint8)
    mask[7:9, 30:] = 0
    dataset.GetRasterBand(1).GetMaskBand().WriteArray(mask)
    del dataset
    for kernel in ("cpp", "reference"):
        valid = tile.read(path, np.array([[0, 0, 40, 40]]), valid=True, kernel=kernel)[1]
        np.testing.assert_array_equal(valid[0], mask > 0)


def test_stack_of_rasters_and_band_order(tmp_path):
    a, b = noise(90, 80, 3), noise(90, 80, 2, "uint16")
    paths = [write(tmp_path / "a.tif", a), write(tmp_path / "b.tif", b, ("COMPRESS=LZW",))]
    both = np.concatenate([a.astype(np.uint16), b], axis=2)
    got = tile.read(paths, np.array([[10, 20, 30, 40]]))
    np.testing.assert_array_equal(got[0], both[10:40, 20:60])
    got = tile.read(paths, np.array([[10, 20, 30, 40]]), bands=[4, 0, 4])
    np.testing.assert_array_equal(got[0], both[10:40, 20:60][..., [4, 0, 4]])
    counts: dict = {}
    tile.read(paths, np.array([[0, 0, 90, 80]]), bands=[1], counts=counts)
    assert counts["blocks"] == 4  # the raster without a wanted band is not decoded


@pytest.mark.parametrize(
    ("array", "geo", "says"),
    [
        (noise(91, 80, 1), None, "has 91 x 80 pixels, not 90 x 80"),
        (noise(90, 80, 1), (5, 1, 0, 0, 0, -1), "has another geotransform"),
    ],
)
def test_stack_on_another_grid_is_refused(tmp_path, array, geo, says):
    paths = [write(tmp_path / "a.tif", noise(90, 80, 3)), write(tmp_path / "b.tif", array, geo=geo)]
    with pytest.raises(ValueError, match=says) as error:
        tile.read(paths, np.array([[0, 0, 9, 9]]))
    assert all(p in str(error.value) for p in paths)


def test_out_is_filled_and_wider_dtypes_are_allowed(tmp_path):
    array = noise(30, 30, 3)
    path = write(tmp_path / "a.tif", array)
    out = np.full((1, 30, 30, 3), -1, np.float32)
    assert tile.read(path, np.array([[0, 0, 30, 30]]), out=out) is out
    np.testing.assert_array_equal(out[0], array)
    write(tmp_path / "b.tif", noise(30, 30, 3, "uint16"))
    with pytest.raises(ValueError, match=r"out: uint8 cannot hold the uint16 pixels of .*b\.tif"):
        tile.read(str(tmp_path / "b.tif"), np.array([[0, 0, 30, 30]]), out=np.empty((1, 30, 30, 3), np.uint8))


def test_no_windows(tmp_path):
    path = write(tmp_path / "a.tif", noise(30, 30, 3))
    assert tile.read(path, np.empty((0, 4), np.int64)).shape == (0, 0, 0, 3)
    image, valid = tile.read(path, np.empty((0, 4), np.int64), out=np.empty((0, 8, 8, 3), np.uint8), valid=True)
    assert image.shape == (0, 8, 8, 3)
    assert valid.shape == (0, 8, 8)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"windows": np.array([[0, 0, 8, 8], [0, 0, 8, 9]])}, "windows: .* the same"),
        ({"windows": np.array([[0, 0, 0, 8]])}, "windows: .* positive"),
        ({"windows": np.array([[0.0, 0, 8, 8]])}, r"windows: expected integers \(n, 4\)"),
        ({"windows": np.array([0, 0, 8, 8])}, r"windows: expected integers \(n, 4\)"),
        ({"bands": [3]}, "bands: expected indices from 0 to 2"),
        ({"bands": []}, "bands: expected indices from 0 to 2"),
        ({"fill": 256}, "fill: uint8 has no value 256"),
        ({"fill": 0.5}, "fill: uint8 has no value 0.5"),
        ({"layout": "HWC"}, "layout: no 'HWC'; there are NCHW, NHWC"),
        ({"out": np.empty((1, 8, 8, 2), np.uint8)}, r"out: expected shape \(1, 8, 8, 3\)"),
        ({"out": np.empty((1, 8, 8, 6), np.uint8)[..., ::2]}, "out: must be C-contiguous"),
        ({"valid": np.empty((1, 8, 8), np.int8)}, "valid: expected dtype uint8"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, options, says):
    path = write(tmp_path / "a.tif", noise(30, 30, 3))
    with pytest.raises(ValueError, match=says):
        tile.read(path, **{"windows": np.array([[0, 0, 8, 8]]), **options})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"windows": np.zeros((2, 3), np.int64)}, r"windows: expected shape \(2, 4\), got \(2, 3\)"),
        ({"bands": [0, 3]}, "bands: expected indices from 0 to 2, got 3"),
        ({"out": [[[[0, 0], [0, 0]]]]}, "out: expected a NumPy array"),
        ({"out": np.zeros((1, 8, 8, 2), np.float64)}, "out: expected dtype uint8, .* got float64"),
        ({"out": np.zeros((1, 8, 8, 4), np.uint8)[..., ::2]}, "out: must be C-contiguous"),
        ({"out": np.zeros((1, 8, 8, 3), np.uint8)}, r"out: expected shape \(1, 8, 8, 2\), got \(1, 8, 8, 3\)"),
        ({"out": np.zeros((8, 8, 2), np.uint8)}, r"out: expected 4 axes"),
        ({"out": np.zeros((2, 8, 8, 2), np.uint8)}, r"out: expected shape \(1, 8, 8, 2\)"),
        ({"layout": "NCHW"}, r"out: expected shape \(1, 2, 8, 2\), got \(1, 8, 8, 2\)"),
        ({"valid": np.zeros((1, 8, 7), np.uint8)}, r"valid: expected shape \(1, 8, 8\)"),
    ],
)
def test_the_compiled_module_writes_nowhere_else(tmp_path, given, says):
    stack = _raster.Stack([write(tmp_path / "a.tif", noise(30, 30, 3))])
    arguments = {"windows": np.array([[0, 0, 8, 8]]), "bands": [0, 1], "out": np.zeros((1, 8, 8, 2), np.uint8)}
    options = {"fill": 0.0, "valid": None, "threads": 1, **given}
    with pytest.raises(ValueError, match=says):
        stack.read(**{**arguments, **options})


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ([[0]], "out: expected a NumPy array"),
        (np.zeros((1, 8, 9, 3), np.uint16), "out: expected dtype uint8, got uint16"),
        (np.zeros((1, 8, 9, 6), np.uint8)[..., ::2], "out: must be C-contiguous"),
        (np.zeros((2, 8, 9, 3), np.uint8), r"out: expected shape \(1, 8, 9, 3\), got \(2, 8, 9, 3\)"),
    ],
)
def test_many_images_go_nowhere_else(tmp_path, out, says):
    many = _raster.Many([write(tmp_path / "a.png", noise(8, 9, 3), (), driver="PNG")])
    with pytest.raises(ValueError, match=says):
        many.read(out, threads=1)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.tif: no such file"):
        tile.read(str(tmp_path / "gone.tif"), np.array([[0, 0, 8, 8]]))


def test_damaged_block_is_an_error_that_names_the_file_and_prints_nothing(tmp_path, capfd):
    path = write(tmp_path / "a.tif", noise(512, 512, 3))
    data = bytearray(Path(path).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    Path(path).write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.tif: cannot decode rows \d+ to \d+"):
        tile.read(path, grid(512, 512, 64, 64), threads=2)
    assert tile.read(path, np.array([[0, 0, 64, 64]])).shape == (1, 64, 64, 3)  # what is whole can still be read
    assert capfd.readouterr() == ("", "")


def test_truncated_jpeg_is_an_error(tmp_path, capfd):
    path = write(tmp_path / "a.jpg", noise(200, 200, 3), (), driver="JPEG")
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"a\.jpg: cannot decode"):
        tile.read(path, np.array([[0, 0, 200, 200]]))
    with pytest.raises(ValueError, match=r"a\.jpg: cannot decode"):
        tile.read_many([path])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("driver", "name"), [("JPEG", "a.jpg"), ("PNG", "a.png"), ("COG", "a_cog.tif")])
def test_other_formats(tmp_path, driver, name):
    path = write(tmp_path / name, noise(150, 130, 3), (), driver=driver)
    windows = np.random.default_rng(3).permutation(grid(150, 130, 32, 16))
    np.testing.assert_array_equal(tile.read(path, windows, threads=2), tile.read(path, windows, kernel="reference"))


def test_vrt_and_archive(tmp_path):
    array = noise(150, 130, 3)
    path = write(tmp_path / "a.tif", array)
    vrt = str(tmp_path / "a.vrt")
    gdal.Translate(vrt, path, options="-of VRT").FlushCache()
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, "in side/a.tif")
    windows = np.random.default_rng(3).permutation(grid(150, 130, 32, 16))
    expected = np.stack([array[r : r + 32, c : c + 32] for r, c, _, _ in windows])
    for form in (vrt, f"/vsizip/{tmp_path}/a.zip/in side/a.tif"):
        np.testing.assert_array_equal(tile.read(form, windows, threads=2), expected)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_many_small_images_in_an_archive(tmp_path, compression):
    with zipfile.ZipFile(tmp_path / "many.zip", "w", compression) as archive:
        for i in range(40):
            archive.write(write(tmp_path / f"{i}.png", noise(16, 20, 3) + np.uint8(i), (), driver="PNG"), f"d/{i}.png")
    for root in (f"/vsizip/{tmp_path}/many.zip", f"/vsizip/{{{tmp_path}/many.zip}}", None):
        paths = [f"{root}/d/{i}.png" if root else str(tmp_path / f"{i}.png") for i in range(40)]
        got = tile.read_many(paths, threads=2)
        assert got.shape == (40, 16, 20, 3)
        for i in (0, 17, 39):
            np.testing.assert_array_equal(got[i], noise(16, 20, 3) + np.uint8(i))
        np.testing.assert_array_equal(got, tile.read_many(paths, kernel="reference"))


def test_many_refuses_what_differs(tmp_path):
    paths = [write(tmp_path / f"{n}.tif", noise(16, n, 3)) for n in (16, 17)]
    with pytest.raises(ValueError, match=r"17\.tif: is 16 x 17 x 3 uint8, but .*16\.tif is 16 x 16 x 3"):
        tile.read_many(paths)
    with pytest.raises(FileNotFoundError, match=r"gone\.tif"):
        tile.read_many([paths[0], str(tmp_path / "gone.tif")])
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("a.png", b"no picture")
    with pytest.raises(ValueError, match=r"bad\.zip/a\.png: not a raster") as error:
        tile.read_many([f"/vsizip/{tmp_path}/bad.zip/a.png"])
    assert "vsimem" not in str(error.value)


# Grids

UTM = (500000.0, 0.5, 0.0, 4000000.0, 0.0, -0.5)
METHODS = {"nearest": "near", "bilinear": "bilinear", "cubic": "cubic", "average": "average"}


def overviews(path: str, *factors: int) -> str:
    gdal.Open(path, gdal.GA_Update).BuildOverviews("AVERAGE", list(factors))
    return path


def whole(raster: tile.Raster, **options) -> np.ndarray:
    return raster.read(np.array([[0, 0, raster.rows, raster.cols]]), **options)


@pytest.mark.parametrize("gsd", [0.3, 0.8, 1.0, 1.7, 2.0, 6.0])
@pytest.mark.parametrize("resampling", METHODS)
def test_another_pixel_size_equals_gdalwarp(resampling, gsd):
    path = overviews(write("/vsimem/gsd.tif", noise(300, 260, 3), geo=UTM, epsg=32632), 2, 4)
    raster = tile.Raster(path, gsd=gsd, resampling=resampling)
    level = {True: -1, gsd >= 1: 0, gsd >= 2: 1}[True] if resampling != "nearest" else -1
    source = gdal.OpenEx(path, open_options=[f"OVERVIEW_LEVEL={level}"] if level >= 0 else [])
    t = raster.grid.transform
    bounds = (t[0], t[3] + raster.rows * t[5], t[0] + raster.cols * t[1], t[3])
    expected = gdal.Warp(
        "", source, format="MEM", outputBounds=bounds, width=raster.cols, height=raster.rows, dstAlpha=True,
        resampleAlg=METHODS[resampling], errorThreshold=0, overviewLevel="NONE",
    ).ReadAsArray()  # fmt: skip
    image, valid = whole(raster, valid=True)
    # gdalwarp takes coordinates through the map and the kernels' scale from the extent: sums round differently.
    difference = np.abs(image[0].astype(int) - expected[:3].transpose(1, 2, 0))
    if resampling == "average":  # of pixels half on the raster gdalwarp takes no mean
        difference = difference[: int(150 / gsd), : int(130 / gsd)]
    assert difference.max() <= (0 if resampling == "nearest" else 1)
    np.testing.assert_array_equal(valid[0], expected[3] > 0)


@pytest.mark.parametrize("resampling", METHODS)
@pytest.mark.parametrize("gsd", [None, 0.4, 1.3, 5.0])
def test_resampled_windows_equal_the_reference(resampling, gsd):
    """A coarser raster with nodata, one with a mask and overviews, and one of another CRS, on the first one's grid."""
    one = overviews(write("/vsimem/one.tif", noise(300, 260, 3), geo=UTM, epsg=32632), 2, 4)
    array = noise(90, 80, 2, "uint16")
    array[10:20, 5:30] = 3
    array[50, 50, 0] = 3
    two = write("/vsimem/two.tif", array, geo=(499990.0, 2.0, 0, 4000004.0, 0, -2.0), epsg=32632, nodata=3)
    warped = gdal.Warp("/vsimem/degrees.tif", one, dstSRS="EPSG:4326", width=150, height=140)
    geo = warped.GetGeoTransform()
    del warped
    array = noise(140, 150, 1, "float32")
    array[30:50, 60:70] = np.nan
    three = write("/vsimem/three.tif", array, geo=geo, epsg=4326)
    windows = np.array([[-10, -20, 60, 50], [30, 20, 60, 50], [50, 60, 60, 50], [1000, 1000, 60, 50]])
    sizes = np.array([[-10, -20, 60, 50], [20, 10, 30, 25], [40, 30, 130, 45], [0, 0, 300, 260]])
    for images, out in (([one, two], None), ([three, one], None), ([one, three], np.float32), (two, np.float32)):
        raster = tile.Raster(images, gsd=None if images[0] == three else gsd, resampling=resampling)
        for places, size in ((windows, None), (sizes, (60, 50))):
            options = {"size": size, "dtype": out, "valid": True, "fill": 9}
            got = raster.read(places, threads=2, **options)
            expected = raster.read(places, kernel="reference", **options)
            np.testing.assert_array_equal(got[1], expected[1])
            if out is np.float32:
                np.testing.assert_allclose(got[0], expected[0], rtol=1e-5)
            else:
                np.testing.assert_allclose(got[0].astype(float), expected[0].astype(float), atol=1, equal_nan=True)


def test_alpha_and_mask_on_another_grid():
    array = noise(80, 90, 4)
    array[..., 3] = 255
    array[10:30, 20:50, 3] = 0
    alpha = write("/vsimem/alpha.tif", array, (*TILED, "ALPHA=YES"), alpha=True, geo=(0, 1, 0, 80, 0, -1))
    masked = write("/vsimem/masked.tif", array[..., :3], geo=(0, 1, 0, 80, 0, -1))
    dataset = gdal.Open(masked, gdal.GA_Update)
    dataset.CreateMaskBand(gdal.GMF_PER_DATASET)
    dataset.GetRasterBand(1).GetMaskBand().WriteArray(array[..., 3])
    del dataset
    for path in (alpha, masked):
        raster = tile.Raster(path, gsd=2, resampling="average")
        image, valid = whole(raster, valid=True, fill=77)
        expected = np.ones((40, 45), np.uint8)
        expected[5:15, 10:25] = 0
        np.testing.assert_array_equal(valid[0], expected)
        assert (image[0][expected == 0] == 77).all()
        mean = array[..., :3].reshape(40, 2, 45, 2, 3).mean(axis=(1, 3))
        assert np.abs(image[0].astype(float) - mean)[expected == 1].max() <= 0.5


def test_overviews_without_their_mask_are_not_used(tmp_path):
    path = write(tmp_path / "unmasked.tif", noise(256, 256, 1), geo=UTM)
    gdal.Open(path).BuildOverviews("AVERAGE", [2])  # opened for reading: they go to a file of their own
    dataset = gdal.Open(path, gdal.GA_Update)
    gdal.SetConfigOption("GDAL_TIFF_INTERNAL_MASK", "YES")
    dataset.CreateMaskBand(gdal.GMF_PER_DATASET)
    gdal.SetConfigOption("GDAL_TIFF_INTERNAL_MASK", None)
    mask = np.full((256, 256), 255, np.uint8)
    mask[:128] = 0
    dataset.GetRasterBand(1).GetMaskBand().WriteArray(mask)
    del dataset
    for kernel in ("cpp", "reference"):
        valid = whole(tile.Raster(path, gsd=1.0), valid=True, kernel=kernel)[1]
        assert valid[0, :63].max() == 0
        assert valid[0, 65:].min() == 1


def test_a_map_function_keeps_its_place_in_another_crs():
    """Pixels that hold a smooth function of longitude and latitude hold it in UTM too: no half-pixel shift."""
    lon, lat = (9.0, 1e-5), (36.0, -1e-5)
    cols, rows = 900, 800
    x, y = (start + step * (np.arange(n) + 0.5) for (start, step), n in ((lon, cols), (lat, rows)))
    value = (np.sin((x - 9) * 2000)[None] * 100 + (y - 36)[:, None] * 20000).astype(np.float32)
    degrees = write("/vsimem/map.tif", value[..., None], geo=(*(9.0, 1e-5, 0), *(36.0, 0, -1e-5)), epsg=4326)
    blank = write("/vsimem/utm.tif", noise(300, 320, 1), geo=(500100.0, 1.5, 0, 3983800.0, 0, -1.5), epsg=32632)
    got, valid = whole(tile.Raster([blank, degrees], resampling="cubic"), bands=[1], valid=True)
    assert valid.all()
    move = osr.CoordinateTransformation(*(tile_crs(code) for code in (32632, 4326)))
    for row, col in ((0, 0), (10, 300), (150, 160), (299, 319)):
        px, py, _ = move.TransformPoint(500100 + 1.5 * (col + 0.5), 3983800 - 1.5 * (row + 0.5))
        expected = np.sin((px - 9) * 2000) * 100 + (py - 36) * 20000
        assert abs(got[0, row, col, 0] - expected) < 0.05  # a shift of half a pixel would be 1


def tile_crs(code: int) -> osr.SpatialReference:
    reference = osr.SpatialReference()
    reference.ImportFromEPSG(code)
    reference.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    return reference


def test_a_given_grid():
    array = noise(90, 80, 2)
    path = write("/vsimem/given.tif", array, geo=UTM, epsg=32632)
    grid = tile.Grid(30, 20, (500010.0, 0.5, 0, 3999980.0, 0, -0.5), "EPSG:32632")
    raster = tile.Raster(path, grid=grid)
    assert (raster.rows, raster.cols) == (30, 20)
    np.testing.assert_array_equal(whole(raster)[0], array[40:70, 20:40])
    # Off the grid there is nothing, also where the raster has pixels.
    image, valid = raster.read(np.array([[-5, -5, 40, 30]]), valid=True, fill=7, size=(80, 60))
    assert (image[0, :10] == 7).all()
    assert valid[0].sum() == 60 * 40
    assert (image[0, 10:70, 10:50] != 7).mean() > 0.9
    south_up = tile.Grid(30, 20, (500010.0, 0.5, 0, 3999965.0, 0, 0.5), "EPSG:32632")
    np.testing.assert_array_equal(whole(tile.Raster(path, grid=south_up))[0], array[40:70, 20:40][::-1])


def test_grids_of_another_pixel_size():
    grid = tile.Grid(90, 80, UTM, "EPSG:32632")
    assert grid.at(1) == tile.Grid(45, 40, (500000.0, 1.0, 0, 4000000.0, 0, -1.0), "EPSG:32632")
    assert (grid.at((0.7, 100)).rows, grid.at((0.7, 100)).cols) == (64, 1)
    for gsd in (0, -1, (1, 0), float("nan")):
        with pytest.raises(ValueError, match="gsd: expected a positive number"):
            grid.at(gsd)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc/self/io")
def test_coarse_pixels_are_read_from_overviews(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (2048, 2048, 3)).astype(np.uint8)
    path = overviews(write(tmp_path / "a.tif", array, (*TILED, "BLOCKXSIZE=256"), geo=UTM), 2, 4, 8)
    plain = write(tmp_path / "b.tif", array, geo=UTM)
    script = """
import sys
import numpy as np
from rvkernels.ops import tile
def read_bytes():
    return int(open("/proc/self/io").readline().split()[1])
for path in sys.argv[1:]:
    before = read_bytes()
    raster = tile.Raster(path, gsd=4.0)
    raster.read(np.array([(r, c, 64, 64) for r in range(0, 256, 32) for c in range(0, 256, 32)]))
    tile.Raster(path).read(np.array([[0, 0, 2048, 1024], [0, 1024, 2048, 1024]]), size=128)
    print(read_bytes() - before)
"""
    command = [sys.executable, "-c", script, path, plain]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    few, many = map(int, run.stdout.split())
    assert few < 1_500_000  # overviews of 256 x 256 x 3 values, and the headers
    assert many > 11_000_000


# Windows of other sizes than their output


def test_stretched_windows_follow_the_formula():
    array = noise(200, 180, 3)
    path = write("/vsimem/stretch.tif", array)
    windows = np.array([[10, 20, 40, 60], [100, 60, 80, 120], [33, 41, 20, 30], [150, 120, 47, 53]])
    got = tile.read(path, windows, size=(40, 60), resampling="nearest")
    for image, (row, col, rows, cols) in zip(got, windows):
        y = np.floor(row + (np.arange(40) + 0.5) * rows / 40 + 1e-9).astype(int)
        x = np.floor(col + (np.arange(60) + 0.5) * cols / 60 + 1e-9).astype(int)
        np.testing.assert_array_equal(image, array[y][:, x])
    got = tile.read(path, windows, size=(40, 60), resampling="average", dtype="float32")
    np.testing.assert_array_equal(got[0], array[10:50, 20:80])
    mean = array[100:180, 60:180].reshape(40, 2, 60, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(got[1], mean, rtol=1e-6)
    got = tile.read(path, windows[2:3], size=(40, 60), dtype="float32")  # bilinear, twice as fine
    a, y, x = array.astype(float), 33 + (np.arange(40) + 0.5) / 2 - 0.5, 41 + (np.arange(60) + 0.5) / 2 - 0.5
    r, c, fr, fc = np.floor(y).astype(int), np.floor(x).astype(int), y % 1, x % 1
    upper = a[r][:, c] * (1 - fc)[None, :, None] + a[r][:, c + 1] * fc[None, :, None]
    lower = a[r + 1][:, c] * (1 - fc)[None, :, None] + a[r + 1][:, c + 1] * fc[None, :, None]
    expected = upper * (1 - fr)[:, None, None] + lower * fr[:, None, None]
    np.testing.assert_allclose(got[0], expected, rtol=1e-5)


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(data=st.data())
def test_windows_of_any_sizes(data):
    """Equal to the reference, and each the same alone as among others."""
    draw = data.draw
    bands = draw(st.integers(1, 5))
    array = noise(70, 60, bands, draw(st.sampled_from(["uint8", "uint16", "int16", "float32"])))
    array[10:40, 20:50, 0] = 3
    path = write("/vsimem/sizes.tif", array, nodata=draw(st.sampled_from([None, 3])))
    place, length = st.integers(-40, 90), st.integers(1, 60)
    windows = np.array(draw(st.lists(st.tuples(place, place, length, length), min_size=1, max_size=6)), np.int64)
    size = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    options = {
        "size": size,
        "resampling": draw(st.sampled_from(["nearest", "bilinear", "average"])),
        "valid": True,
        "fill": 8,
        "bands": draw(st.sampled_from([None, [0], [bands - 1, 0]])),
        "layout": draw(st.sampled_from(["NHWC", "NCHW"])),
    }
    got = tile.read(path, windows, threads=2, **options)
    alone = [tile.read(path, w[None], **options) for w in windows]
    for k, expected in enumerate(tile.read(path, windows, kernel="reference", **options)):
        np.testing.assert_array_equal(got[k], expected)
        np.testing.assert_array_equal(got[k], np.concatenate([a[k] for a in alone]))


RASTERIO = {"nearest": gdal.GRIORA_NearestNeighbour, "bilinear": gdal.GRIORA_Bilinear, "average": gdal.GRIORA_Average}


@pytest.mark.parametrize("dtype", tile.DTYPES)
@pytest.mark.parametrize("resampling", RASTERIO)
def test_stretched_windows_equal_rasterio(resampling, dtype):
    """Down to 1/5 and up to 3 times, at the edges, too; kernels just below the raster's own pixel size as well."""
    array = noise(200, 180, 3, dtype) * np.dtype(dtype).type(1 if dtype == "uint8" else 100)
    path = write("/vsimem/rasterio.tif", array)
    sizes = [(200, 180), (160, 150), (80, 120), (41, 62), (40, 60), (39, 58), (30, 31), (13, 20)]
    corners = [(min(10 * i, 200 - r), min(7 * i, 180 - c)) for i, (r, c) in enumerate(sizes)]
    corners += [(200 - r, 180 - c) for r, c in sizes]
    windows = np.array([(*corner, *size) for corner, size in zip(corners, 2 * sizes)])
    got = tile.read(path, windows, size=(40, 60), resampling=resampling)
    dataset = gdal.Open(path)
    for image, (row, col, rows, cols) in zip(got, windows.tolist()):
        box = {"buf_xsize": 60, "buf_ysize": 40, "resample_alg": RASTERIO[resampling]}
        expected = dataset.ReadAsArray(col, row, cols, rows, **box).transpose(1, 2, 0)
        if resampling == "nearest":
            np.testing.assert_array_equal(image, expected)
        elif dtype == "float32":
            np.testing.assert_allclose(image, expected, rtol=1e-5, atol=1e-2)
        else:  # halves, where sums in float and double fall on either side
            difference = np.abs(image.astype(int) - expected)
            assert difference.max() <= 1
            assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("resampling", ["bilinear", "average"])
def test_overviews_are_resampled_as_rasterio_does(resampling):
    """Windows between pixels of the overview: 2.4 and 5 pixels of the raster are 1.2 and 1.25 of an overview."""
    path = overviews(write("/vsimem/fractions.tif", noise(300, 260, 3)), 2, 4)
    windows = np.array([[11, 13, 120, 96], [49, 9, 250, 200], [0, 60, 120, 96]])
    got = tile.read(path, windows, size=(50, 40), resampling=resampling, dtype="float32")
    for image, (row, col, rows, cols), level in zip(got, windows.tolist(), (0, 1, 0)):
        overview = gdal.OpenEx(path, open_options=[f"OVERVIEW_LEVEL={level}"])
        box = [v / 2 ** (level + 1) for v in (col, row, cols, rows)]
        how = {"buf_xsize": 40, "buf_ysize": 50, "resample_alg": RASTERIO[resampling], "buf_type": gdal.GDT_Float32}
        expected = overview.ReadAsArray(*box, **how).transpose(1, 2, 0)
        inner = slice(1, -1) if resampling == "average" else slice(None)  # RasterIO's areas end with the window
        np.testing.assert_allclose(image[inner, inner], expected[inner, inner], atol=0.501)  # it rounds as bytes


def test_only_pixels_with_data_are_weighed():
    """By the formula, each band by itself; no fill creeps in."""
    array = noise(60, 60, 2, "float32")
    array[20:40, 10:30, 0] = np.nan
    array[25:45, 20:50, 1] = np.nan
    path = write("/vsimem/gaps.tif", array)
    window = np.array([[3, 1, 50, 55]])
    got, valid = tile.read(path, window, size=(20, 22), fill=-999, valid=True)
    axes = []
    for first, length, count in ((3, 50, 20), (1, 55, 22)):
        centre = first + (np.arange(count) + 0.5) * length / count
        distance = np.abs(np.arange(60) + 0.5 - centre[:, None])
        axes.append(np.maximum(0, 1 - distance * count / length))
    has = ~np.isnan(array)
    share = np.einsum("ip,jq,pqc->ijc", *axes, has)
    mean = np.einsum("ip,jq,pqc->ijc", *axes, np.nan_to_num(array)) / np.maximum(share, 1e-9)
    np.testing.assert_array_equal(valid[0], (share > 0).any(axis=2))
    np.testing.assert_allclose(got[0], np.where(share > 0, mean, -999), rtol=1e-4)
    assert (share == 0).all(axis=2).any()


def test_stretched_windows_decode_each_block_once():
    array = noise(512, 448, 3)
    raster = tile.Raster(write("/vsimem/once.tif", array))
    windows = np.array([(r, c, n, n) for n in (60, 100, 130) for r in range(0, 380, 50) for c in range(0, 310, 50)])
    counts: dict = {}
    raster.read(np.random.default_rng(0).permutation(windows), size=64, threads=1, counts=counts)
    assert counts == {"blocks": 8 * 7}
    raster.read(windows, size=64, counts=counts)
    assert counts == {"blocks": 8 * 7}


def test_large_windows_are_resampled_in_strips():
    array = noise(2500, 2100, 1, "uint16")
    path = write("/vsimem/large.tif", array, ("TILED=YES",))
    for resampling in RASTERIO:
        windows = np.array([[0, 0, 2500, 2100], [3, 5, 2400, 2000]])
        options = {"size": (20, 30), "resampling": resampling}
        got = tile.read(path, windows, **options)
        np.testing.assert_array_equal(got, tile.read(path, windows, kernel="reference", **options))


@pytest.mark.parametrize("gsd", [None, 0.8])
def test_resampled_planes(gsd):
    path = write("/vsimem/planes.tif", noise(200, 180, 3), geo=UTM, nodata=3)
    windows = np.array([[10, 20, 40, 60], [100, 60, 80, 120], [-20, 90, 40, 60]])
    raster = tile.Raster(path, gsd=gsd)
    pixels, valid = raster.read(windows, size=(40, 60), bands=[2, 0], valid=True)
    for dtype in (None, "float32"):
        planes, mask = raster.read(windows, size=(40, 60), bands=[2, 0], valid=True, layout="NCHW", dtype=dtype)
        np.testing.assert_array_equal(mask, valid)
        np.testing.assert_allclose(planes.transpose(0, 2, 3, 1).astype(float), pixels.astype(float), atol=0.5)


def test_size_is_checked(tmp_path):
    path = write(tmp_path / "a.tif", noise(30, 30, 3))
    for size in (0, (3, 0), (-1, 3)):
        with pytest.raises(ValueError, match="size: expected positive"):
            tile.read(path, np.array([[0, 0, 8, 8]]), size=size)
    assert tile.read(path, np.empty((0, 4), np.int64), size=8).shape == (0, 8, 8, 3)
    with pytest.raises(ValueError, match="resampling: no 'lanczos'"):
        tile.read(path, np.array([[0, 0, 8, 8]]), size=4, resampling="lanczos")
    with pytest.raises(ValueError, match="gsd: give it or the grid"):
        tile.Raster(path, gsd=2, grid=tile.Grid(3, 3))


@pytest.mark.parametrize(
    ("geo", "epsg", "says"),
    [
        ((900000.0, 1, 0, 4000000.0, 0, -1), 32632, "has no pixel on the grid of 90 x 80"),
        ((9.0, 1e-5, 0, 36.0, 0, -1e-5), None, "than .*one scene must share a grid, or all say where they lie"),
        ((900000.0, 1, 0, 4000000.0, 0, -1), 4326, "has no pixel on|no place"),
    ],
)
def test_a_raster_from_elsewhere_is_refused(tmp_path, geo, epsg, says):
    paths = [
        write(tmp_path / "a.tif", noise(90, 80, 1), geo=UTM, epsg=32632),
        write(tmp_path / "b.tif", noise(90, 80, 1), geo=geo, epsg=epsg),
    ]
    with pytest.raises(ValueError, match=rf"b\.tif: .*({says})"):
        tile.Raster(paths)


# Dtypes


def test_a_narrower_dtype_rounds_and_clips(tmp_path):
    values = np.array([[-3.0, -0.5, 0.5, 1.5, 254.5, 255.4, 300, np.nan, np.inf, -np.inf]], np.float32)
    path = write(tmp_path / "a.tif", values[..., None], ())
    window = np.array([[0, 0, 1, 11]])
    for kernel in ("cpp", "reference"):
        got = tile.read(path, window, dtype="uint8", fill=7, kernel=kernel)
        assert got.dtype == np.uint8
        assert got[0, 0, :, 0].tolist() == [0, 0, 0, 2, 254, 255, 255, 7, 255, 0, 7]
    signed = write(
        tmp_path / "b.tif", np.array([[-9999, -1, 0, 255, 256, 32767]], np.int16)[..., None], (), nodata=-9999
    )
    got, valid = tile.read(signed, np.array([[0, 0, 1, 6]]), dtype="uint8", valid=True)
    assert got[0, 0, :, 0].tolist() == [0, 0, 0, 255, 255, 255]
    assert valid[0, 0].tolist() == [0, 1, 1, 1, 1, 1]  # what is clipped to 0 is no nodata
    wide = write(tmp_path / "c.tif", np.array([[0, 32767, 32768, 65535]], np.uint16)[..., None], ())
    out = np.empty((1, 1, 4, 1), np.int16)
    assert tile.read(wide, np.array([[0, 0, 1, 4]]), dtype="int16", out=out) is out
    assert out.ravel().tolist() == [0, 32767, 32767, 32767]
    assert tile.read(wide, np.array([[0, 0, 1, 4]]), dtype="float32").ravel().tolist() == [0, 32767, 32768, 65535]
    with pytest.raises(ValueError, match=r"dtype: expected uint8, .*, got float64"):
        tile.read(wide, np.array([[0, 0, 1, 4]]), dtype="float64")
    with pytest.raises(ValueError, match="out: expected dtype uint8"):
        tile.read(wide, np.array([[0, 0, 1, 4]]), dtype="uint8", out=out)


# Where files lie


class Server(http.server.SimpleHTTPRequestHandler):
    """Files of one folder, also in parts (Range), as object stores serve them."""

    protocol_version = "HTTP/1.1"
    served: ClassVar[list[int]] = []

    def log_message(self, *args) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = Path(self.directory) / self.path.lstrip("/").split("?")[0]
        if not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(wanted[1]), int(wanted[2] or len(data) - 1)) if wanted else (0, len(data) - 1)
        part = data[first : last + 1]
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command == "GET":
            self.served.append(len(part))
            self.wfile.write(part)


@pytest.fixture
def server(tmp_path):
    def handler(*args):
        return Server(*args, directory=str(tmp_path))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        Server.served.clear()
        yield running.server_address[1]
        running.shutdown()
        thread.join()


def test_over_http_and_from_an_object_store(tmp_path, server):
    array = np.random.default_rng(3).integers(0, 256, (1024, 1024, 3)).astype(np.uint8)
    options = ("BLOCKSIZE=128", "COMPRESS=DEFLATE", "OVERVIEW_RESAMPLING=AVERAGE")
    (tmp_path / "bucket").mkdir()
    path = write(tmp_path / "bucket/cog.tif", array, options, driver="COG", geo=UTM)
    store = {
        "AWS_S3_ENDPOINT": f"127.0.0.1:{server}",
        "AWS_NO_SIGN_REQUEST": "YES",
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    }
    windows = np.array([[100, 60, 64, 64], [300, 500, 64, 64]])
    coarse = tile.Raster(path, gsd=2.0).read(windows[:1])
    for name, value in store.items():
        gdal.SetConfigOption(name, value)
    try:
        for url in (f"/vsicurl/http://127.0.0.1:{server}/bucket/cog.tif", "/vsis3/bucket/cog.tif"):
            Server.served.clear()
            got = tile.read(url, windows, threads=2)
            for image, (row, col, rows, cols) in zip(got, windows):
                np.testing.assert_array_equal(image, array[row : row + rows, col : col + cols])
            np.testing.assert_array_equal(tile.Raster(url, gsd=2.0).read(windows[:1]), coarse)
            assert 0 < sum(Server.served) < 0.3 * os.path.getsize(path)
        with pytest.raises((FileNotFoundError, ValueError), match=r"none\.tif"):
            tile.Raster(f"/vsicurl/http://127.0.0.1:{server}/bucket/none.tif")
    finally:
        for name in store:
            gdal.SetConfigOption(name, None)


def test_gzip(tmp_path):
    array = noise(150, 130, 3)
    path = write(tmp_path / "a.tif", array)
    with gzip.open(tmp_path / "a.tif.gz", "wb") as packed:
        packed.write(Path(path).read_bytes())
    got = tile.read(f"/vsigzip/{tmp_path}/a.tif.gz", grid(150, 130, 32, 16), threads=2)
    np.testing.assert_array_equal(got, tile.read(path, grid(150, 130, 32, 16)))


def test_mosaic_of_differently_blocked_files(tmp_path):
    array = noise(200, 300, 3)
    array[:, 250:] = 0
    layouts = (TILED, ("COMPRESS=LZW", "BLOCKYSIZE=7"), ("TILED=YES", "BLOCKXSIZE=16", "BLOCKYSIZE=48"))
    places = ((slice(0, 200), slice(0, 100)), (slice(0, 90), slice(100, 250)), (slice(90, 200), slice(100, 250)))
    paths = [
        write(tmp_path / f"{i}.tif", array[rows, cols], options, geo=(cols.start, 1, 0, -rows.start, 0, -1))
        for i, ((rows, cols), options) in enumerate(zip(places, layouts))
    ]
    mosaic = gdal.BuildVRT(str(tmp_path / "all.vrt"), paths, outputBounds=(0, -200, 300, 0), VRTNodata=0, srcNodata=0)
    mosaic.FlushCache()
    windows = np.random.default_rng(3).permutation(grid(200, 300, 40, 30))
    got, valid = tile.read(str(tmp_path / "all.vrt"), windows, valid=True, threads=2)
    for image, mask, (row, col, rows, cols) in zip(got, valid, windows):
        part = array[row : row + rows, col : col + cols]
        np.testing.assert_array_equal(image, part)
        np.testing.assert_array_equal(mask, (part != 0).any(axis=2))


def test_cog_with_mask_and_overviews(tmp_path):
    array = noise(512, 512, 3)
    plain = gdal.Open(write("/vsimem/cog_source.tif", array, geo=UTM), gdal.GA_Update)
    plain.CreateMaskBand(gdal.GMF_PER_DATASET)
    mask = np.full((512, 512), 255, np.uint8)
    mask[128:256, 64:320] = 0
    plain.GetRasterBand(1).GetMaskBand().WriteArray(mask)
    path = str(tmp_path / "cog.tif")
    gdal.GetDriverByName("COG").CreateCopy(path, plain, 0, ["BLOCKSIZE=128", "COMPRESS=DEFLATE"]).FlushCache()
    _, valid = whole(tile.Raster(path), valid=True)
    np.testing.assert_array_equal(valid[0], mask > 0)
    _, valid = whole(tile.Raster(path, gsd=1.0, resampling="average"), valid=True)
    np.testing.assert_array_equal(valid[0], mask[::2, ::2] > 0)


def test_palette_values_are_read_as_they_are(tmp_path):
    path = write(tmp_path / "a.png", noise(40, 50, 1) % 3, (), driver="PNG")
    dataset = gdal.Translate("", path, format="MEM")
    table = gdal.ColorTable()
    for value in range(3):
        table.SetColorEntry(value, (value * 100, 0, 0, 255))
    dataset.GetRasterBand(1).SetColorTable(table)
    coloured = str(tmp_path / "b.png")
    gdal.GetDriverByName("PNG").CreateCopy(coloured, dataset).FlushCache()
    np.testing.assert_array_equal(whole(tile.Raster(coloured))[0], noise(40, 50, 1) % 3)
    half = whole(tile.Raster(coloured, gsd=2, resampling="nearest"))[0]
    np.testing.assert_array_equal(half, (noise(40, 50, 1) % 3)[1::2, 1::2])


def test_one_object_serves_several_threads(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    array = noise(256, 256, 3)
    raster = tile.Raster(write(tmp_path / "a.tif", array))
    windows = grid(256, 256, 32, 32)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: raster.read(windows, threads=1), range(8)):
            np.testing.assert_array_equal(got[9], array[32:64, 32:64])


@pytest.mark.mirror
def test_eurosat_through_its_archive():
    mirror = os.environ.get("RVK_MIRROR")
    archive = Path(mirror or "", "eurosat", "EuroSAT_RGB.zip")
    if not mirror or not archive.exists():
        pytest.skip("RVK_MIRROR does not point to a folder with eurosat/EuroSAT_RGB.zip")
    with zipfile.ZipFile(archive) as members:
        names = [n for n in members.namelist() if n.endswith(".jpg")][::90]
    paths = [f"/vsizip/{archive}/{n}" for n in names]
    got = tile.read_many(paths, threads=2)
    assert got.shape == (300, 64, 64, 3)
    np.testing.assert_array_equal(got[::30], tile.read_many(paths[::30], kernel="reference"))
