"""GeoTIFF decoded without GDAL: the same pixels, masks and errors as GDAL gives, for every way to store them."""

from __future__ import annotations

import contextlib
import itertools
import struct
import zipfile
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from osgeo import gdal, gdal_array

from rvkernels import _raster

gdal.UseExceptions()

ROWS, COLS = 83, 71
DTYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")
READ_AS = {name: name if name in ("uint8", "uint16", "int16") else "float32" for name in DTYPES}
WINDOWS = np.array([(r, c, 40, 33) for r in range(-15, 90, 21) for c in range(-9, 80, 17)], np.int64)
COMPRESSIONS = [c for c in ("lzw", "deflate", "zstd") if c in _raster.codecs]


def image(dtype: str, bands: int, rows: int = ROWS, cols: int = COLS, seed: int = 0) -> np.ndarray:
    """Smooth with some noise, so that it compresses, with runs and the extremes of its type."""
    random = np.random.default_rng(seed + bands)
    row, col, band = np.ogrid[:rows, :cols, :bands]
    values = 40 * np.sin(row / 9) + 30 * np.cos((col + 3 * band) / 7) + random.integers(0, 9, (rows, cols, bands)) + 90
    values[rows // 3 : rows // 2, : cols // 2] = 7
    if dtype.startswith("float"):
        values += random.random((rows, cols, bands))
        values[rows // 2, cols // 2] = np.nan
        return values.astype(dtype)
    array = values.astype(dtype)
    array[0, 0], array[-1, -1] = np.iinfo(dtype).min, np.iinfo(dtype).max
    return array


def write(path: str | Path, array: np.ndarray, options=(), nodata: float | None = None) -> str:
    rows, cols, bands = array.shape
    kind = gdal_array.NumericTypeCodeToGDALTypeCode(array.dtype)
    made = gdal.GetDriverByName("GTiff").Create(str(path), cols, rows, bands, kind, ["ALPHA=NO", *options])
    if nodata is not None:
        made.GetRasterBand(1).SetNoDataValue(nodata)
    made.WriteArray(np.moveaxis(array, 2, 0))
    made.FlushCache()
    return str(path)


def read(
    path: str, *, direct: bool, windows=WINDOWS, bands=None, dtype=None, layout="NHWC", stack=None
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Pixels, valid and counts of blocks."""
    stack = stack or _raster.Stack([path], direct=direct)
    dtype = dtype or READ_AS[stack.dtype]
    bands = list(range(stack.bands)) if bands is None else bands
    n, (rows, cols) = len(windows), windows[0, 2:]
    shape = (n, rows, cols, len(bands)) if layout == "NHWC" else (n, len(bands), rows, cols)
    out, valid = np.full(shape, 77, dtype), np.full((n, rows, cols), 77, np.uint8)
    stack.read(windows, bands, out, 5.0, valid, 2, layout)
    return out, valid, stack.counts


def assert_same_as_gdal(path: str, **options) -> dict:
    """Returns the counts of the direct read."""
    ours, valid, counts = read(path, direct=True, **options)
    theirs, their_valid, their_counts = read(path, direct=False, **options)
    assert their_counts["by_gdal"] == their_counts["decoded"] > 0
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(valid, their_valid)
    return counts


def predictors(dtype: str, compression: str) -> list[int]:
    return [1, 2, 3] if dtype.startswith("float") else [1, 2]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tiled", [True, False])
def test_every_way_to_store_pixels(dtype, tiled):
    blocks = ["TILED=YES", "BLOCKXSIZE=32", "BLOCKYSIZE=48"] if tiled else ["BLOCKYSIZE=7"]
    ways = [("NONE", 1), *((c.upper(), p) for c in COMPRESSIONS for p in predictors(dtype, c))]
    layouts = itertools.product(("PIXEL", "BAND"), ("LITTLE", "BIG"))
    bands = itertools.cycle((1, 3, 4, 2, 5, 8, 17))
    for (compression, predictor), (interleave, order) in itertools.product(ways, layouts):
        array = image(dtype, next(bands))
        options = [f"COMPRESS={compression}", f"INTERLEAVE={interleave}", f"ENDIANNESS={order}", *blocks]
        options += [f"PREDICTOR={predictor}"] * (predictor > 1) + ["BIGTIFF=YES"] * (order == "BIG")
        path = write("/vsimem/way.tif", array, options, nodata=7)
        counts = assert_same_as_gdal(path)
        assert counts["by_gdal"] == 0, options
        if predictor == 3 and order == "BIG":
            continue  # libtiff 4.5 writes what no reader, itself included, reads back
        got = read(path, direct=True, windows=np.array([[0, 0, ROWS, COLS]]))[0][0]
        np.testing.assert_array_equal(got, array.astype(READ_AS[dtype]), err_msg=str(options))


@pytest.mark.parametrize(
    "options",
    [
        ("COMPRESS=PACKBITS",),
        ("NBITS=12",),
        ("COMPRESS=JPEG", "TILED=YES", "BLOCKXSIZE=32", "BLOCKYSIZE=32"),
        ("COMPRESS=JPEG", "PHOTOMETRIC=YCBCR", "INTERLEAVE=PIXEL"),
        ("PHOTOMETRIC=CIELAB",),
    ],
)
def test_other_ways_are_left_to_gdal(options):
    array = image("uint16" if "NBITS=12" in options else "uint8", 3)
    path = write("/vsimem/other.tif", array.clip(0, 255), options)
    counts = assert_same_as_gdal(path)
    assert counts["by_gdal"] == counts["decoded"] > 0


@pytest.mark.parametrize("endian", ["LITTLE", "BIG"])
@pytest.mark.parametrize("nodata", [None, 9])
@pytest.mark.parametrize("interleave", ["PIXEL", "BAND"])
@pytest.mark.parametrize("compression", ["NONE", *(c.upper() for c in COMPRESSIONS)])
def test_blocks_that_are_not_in_the_file(compression, interleave, nodata, endian):
    options = ["SPARSE_OK=TRUE", "TILED=YES", "BLOCKXSIZE=32", "BLOCKYSIZE=32", f"INTERLEAVE={interleave}"]
    options.append(f"ENDIANNESS={endian}")
    path = "/vsimem/sparse.tif"
    made = gdal.GetDriverByName("GTiff").Create(
        path, COLS, ROWS, 3, gdal.GDT_UInt16, [*options, f"COMPRESS={compression}"]
    )
    if nodata is not None:
        made.GetRasterBand(1).SetNoDataValue(nodata)
    made.GetRasterBand(2).WriteArray(np.full((20, 20), 300, np.uint16), 30, 40)
    made = None
    assert assert_same_as_gdal(path)["by_gdal"] == 0


def test_the_image_is_read_not_its_overviews_or_mask():
    path = write("/vsimem/cog.tif", image("uint8", 3, 300, 260), ["TILED=YES", "COMPRESS=DEFLATE"])
    gdal.SetThreadLocalConfigOption("GDAL_TIFF_INTERNAL_MASK", "YES")
    source = gdal.Open(path, gdal.GA_Update)
    source.CreateMaskBand(gdal.GMF_PER_DATASET)
    mask = np.full((300, 260), 255, np.uint8)
    mask[20:90, 100:] = 0
    source.GetRasterBand(1).GetMaskBand().WriteArray(mask)
    source = None
    for options in ("-co COMPRESS=LZW -co PREDICTOR=2", "-co COMPRESS=NONE", "-co COMPRESS=DEFLATE -co BIGTIFF=YES"):
        cog = "/vsimem/made_cog.tif"
        gdal.Translate(cog, path, options=f"-of COG -co BLOCKSIZE=128 -co OVERVIEW_COUNT=2 {options}")
        counts = assert_same_as_gdal(cog, windows=WINDOWS * 3)
        assert counts["by_gdal"] == 0
        valid = read(cog, direct=True, windows=np.array([[0, 0, 300, 260]]))[1]
        np.testing.assert_array_equal(valid[0], mask > 0)


@pytest.mark.parametrize("interleave", ["PIXEL", "BAND"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_layouts_and_bands(dtype, bands, interleave):
    array = image(dtype, bands)
    path = write("/vsimem/layout.tif", array, ["COMPRESS=LZW", f"INTERLEAVE={interleave}", "BLOCKYSIZE=5"])
    random = np.random.default_rng(bands)
    orders = [list(range(bands)), list(range(bands))[::-1], random.permutation(bands)[: (bands + 1) // 2].tolist(), [0]]
    for wanted in [*orders, [0, bands - 1, 0]]:
        pixels, valid, _ = read(path, direct=True, bands=wanted, layout="NHWC")
        planes, again, _ = read(path, direct=True, bands=wanted, layout="NCHW")
        theirs, their_valid, _ = read(path, direct=False, bands=wanted)
        np.testing.assert_array_equal(pixels, theirs)
        np.testing.assert_array_equal(np.moveaxis(planes, 1, 3), theirs)
        np.testing.assert_array_equal(valid, their_valid)
        np.testing.assert_array_equal(again, their_valid)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_wider_types(dtype):
    path = write("/vsimem/wide.tif", image(dtype, 3), ["COMPRESS=DEFLATE", "PREDICTOR=2"], nodata=7)
    for wider in ("uint16", "int16", "float32"):
        if np.can_cast(dtype, wider):
            assert assert_same_as_gdal(path, dtype=wider)["by_gdal"] == 0


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_outputs_larger_than_the_caches(layout):
    """They are written past the caches, in whole lines, and any part of a line is written, too."""
    array = image("uint8", 3, 400, 400)
    path = write("/vsimem/large.tif", array, ["TILED=YES", "BLOCKXSIZE=80", "BLOCKYSIZE=64", "COMPRESS=LZW"], nodata=7)
    random = np.random.default_rng(0)
    windows = np.column_stack([random.integers(-20, 220, (200, 2)), np.tile([201, 199], (200, 1))])
    assert 200 * 201 * 199 * 3 > 16 << 20
    assert_same_as_gdal(path, windows=windows, layout=layout)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("noise", [1, 2, 5, 250])
def test_long_blocks_of_any_entropy(compression, noise):
    """One value repeated is the longest strings of LZW, each made of the one before and its own first byte."""
    array = np.random.default_rng(noise).integers(0, noise, (512, 512, 1)).astype(np.uint8)
    array[100:300] = array[100]
    options = ["TILED=YES", "BLOCKXSIZE=512", "BLOCKYSIZE=512", f"COMPRESS={compression}"]
    path = write("/vsimem/entropy.tif", array, options)
    got, _, counts = read(path, direct=True, windows=np.array([[0, 0, 512, 512]]))
    np.testing.assert_array_equal(got[0], array)
    assert counts == {"decoded": 1, "by_gdal": 0, "cached": 0}


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(data=st.data())
def test_any_file_and_any_windows(data):
    draw = data.draw
    rows, cols, bands = draw(st.integers(1, 90)), draw(st.integers(1, 90)), draw(st.integers(1, 6))
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    compression = draw(st.sampled_from(["none", *COMPRESSIONS]))
    options = [f"COMPRESS={compression}", f"INTERLEAVE={draw(st.sampled_from(['PIXEL', 'BAND']))}"]
    if compression != "none":
        options.append(f"PREDICTOR={draw(st.sampled_from(predictors(dtype, compression)))}")
    if draw(st.booleans()):
        options += ["TILED=YES", "BLOCKXSIZE=16", f"BLOCKYSIZE={draw(st.sampled_from([16, 48]))}"]
    else:
        options.append(f"BLOCKYSIZE={draw(st.integers(1, 100))}")
    path = write("/vsimem/any.tif", image(dtype, bands, rows, cols), options, nodata=draw(st.sampled_from([None, 7])))
    size = (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    corners = draw(st.lists(st.tuples(st.integers(0, rows - 1), st.integers(0, cols - 1)), min_size=1, max_size=12))
    windows = np.array([(*corner, *size) for corner in corners], np.int64)
    wanted = draw(st.lists(st.integers(0, bands - 1), min_size=1, max_size=7))
    layout = draw(st.sampled_from(["NHWC", "NCHW"]))
    assert assert_same_as_gdal(path, windows=windows, bands=wanted, layout=layout)["by_gdal"] == 0


def outcome(path: str, direct: bool) -> tuple[np.ndarray, np.ndarray, dict] | str:
    """What `read` gives, or its error without the rows, which come in other pieces."""
    try:
        return read(path, direct=direct, windows=np.array([[0, 0, ROWS, COLS]]))
    except (ValueError, MemoryError) as error:
        return str(error).partition(" rows ")[0]


@pytest.mark.parametrize("compression", ["none", *COMPRESSIONS])
@pytest.mark.parametrize("tiled", ["YES", "NO"])
def test_damaged_files_give_what_gdal_gives(compression, tiled, tmp_path, capfd):
    """Bits turned in blocks and in the directory, and files cut short: the same pixels, or the same error."""
    array = image("uint8", 3)
    path = write(tmp_path / "whole.tif", array, [f"COMPRESS={compression}", f"TILED={tiled}", "BLOCKYSIZE=16"])
    whole = Path(path).read_bytes()
    random = np.random.default_rng(len(whole))
    errors = compared = 0
    for trial in range(150):
        data = bytearray(whole)
        if trial % 5 == 0:
            data = data[: random.integers(9, len(data))]
        else:
            # The directory is at the beginning: every third file is damaged there.
            end = 400 if trial % 3 == 0 else len(data)
            for at in random.integers(8, end, random.integers(1, 4)):
                data[at] ^= 1 << random.integers(0, 8)
        broken = tmp_path / f"{trial}.tif"
        broken.write_bytes(data)
        with contextlib.suppress(FileNotFoundError):
            ours, theirs = outcome(str(broken), True), outcome(str(broken), False)
            if isinstance(theirs, str):
                assert ours == theirs
                assert broken.name in theirs
                errors += 1
            else:
                assert not isinstance(ours, str), (trial, ours)
                if ours[2]["by_gdal"]:
                    continue  # for some damaged blocks GDAL gives what its memory held before
                compared += 1
                np.testing.assert_array_equal(ours[0], theirs[0], err_msg=str(trial))
                np.testing.assert_array_equal(ours[1], theirs[1], err_msg=str(trial))
    assert errors > 20
    assert compared > 0
    assert capfd.readouterr() == ("", "")


FILL_ORDER = struct.pack("<HHIHH", 266, 3, 1, 1, 0)  # which GDAL does not write; 1: highest bit first


def directory(path: str) -> tuple[bytearray, dict[int, int]]:
    """A little-endian classic TIFF and where in it the value of each field of its only directory lies.

    The directory is moved to the end of the file, and has a FillOrder.
    """
    data = bytearray(Path(path).read_bytes())
    (offset,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, offset)
    entries = [data[at : at + 12] for at in range(offset + 2, offset + 2 + 12 * count, 12)]
    entries = sorted([*entries, FILL_ORDER], key=lambda entry: struct.unpack_from("<H", entry))
    data += bytes(len(data) % 2)
    struct.pack_into("<I", data, 4, len(data))
    places = {struct.unpack_from("<H", e)[0]: len(data) + 2 + 12 * i + 8 for i, e in enumerate(entries)}
    data += struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return data, places


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (256, 0),  # no columns
        (258, 4),  # bits of a sample
        (259, 7),  # compression
        (266, 2),  # lowest bit first
        (277, 0),  # samples of a pixel
        (278, 0),  # rows of a strip
        (278, 2**32 - 1),
        (284, 3),  # neither pixel nor band
        (317, 9),  # predictor
        (339, 6),  # complex numbers
        (273, 2**32 - 2),  # the strips' table lies behind the end
        (279, 2**32 - 2),
    ],
)
def test_odd_directories_are_gdals_to_judge(tag, value, tmp_path):
    path = write(tmp_path / "a.tif", image("uint8", 1), ["COMPRESS=LZW", "PREDICTOR=2", "BLOCKYSIZE=16"])
    data, places = directory(path)
    struct.pack_into("<I" if tag in (273, 278, 279) else "<H", data, places[tag], value)
    Path(path).write_bytes(data)
    ours, theirs = outcome(path, True), outcome(path, False)
    assert type(ours) is type(theirs)
    if isinstance(theirs, str):
        assert ours == theirs
    else:
        np.testing.assert_array_equal(ours[0], theirs[0])


@pytest.mark.parametrize("kind", [6, 8, 9])
def test_signed_numbers_of_a_directory_are_gdals_to_read(kind, tmp_path):
    array = image("uint8", 1)
    path = write(tmp_path / "a.tif", array, ["COMPRESS=LZW", "PREDICTOR=2", "BLOCKYSIZE=16"])
    data, places = directory(path)
    struct.pack_into("<H", data, places[317] - 6, kind)
    Path(path).write_bytes(data)
    for direct in (True, False):
        np.testing.assert_array_equal(outcome(path, direct)[0], array[None])


def test_a_tile_that_lacks_rows_beyond_the_image_is_gdals_to_judge(tmp_path):
    whole = np.array([[0, 0, 20, 60]])
    path = write(tmp_path / "a.tif", image("uint8", 1, 20, 60), ["TILED=YES", "BLOCKXSIZE=64", "BLOCKYSIZE=64"])
    data, places = directory(path)
    assert struct.unpack_from("<I", data, places[325]) == (64 * 64,)
    struct.pack_into("<I", data, places[325], 64 * 20)
    Path(path).write_bytes(data)
    for direct in (True, False):
        with pytest.raises(ValueError, match=r"a\.tif: cannot decode rows 0 to 20"):
            read(path, direct=direct, windows=whole)


@pytest.mark.skipif("zstd" not in _raster.codecs, reason="built without libzstd")
@pytest.mark.parametrize(("window", "behind", "refused"), [(0, b"", False), (31, b"", True), (0, b"behind", False)])
def test_zstd_frames_are_refused_where_gdal_refuses_them(window, behind, refused, tmp_path):
    """A window of 2 TiB, which asks a decoder for that much memory, is; bytes behind the frame are not."""
    array = image("uint8", 1, 16, 16)
    path = write(tmp_path / "a.tif", array, ["COMPRESS=ZSTD", "BLOCKYSIZE=16"])
    raw = array.tobytes()
    # RFC 8878, 3.1.1: magic number, a header without the content's size, the window's exponent, one last raw block.
    frame = struct.pack("<IBB", 0xFD2FB528, 0, window << 3) + struct.pack("<I", 1 | len(raw) << 3)[:3] + raw + behind
    data, places = directory(path)
    struct.pack_into("<I", data, places[273], len(data))
    struct.pack_into("<H", data, places[279], len(frame))
    Path(path).write_bytes(data + frame)
    for direct in (True, False):
        if refused:
            with pytest.raises(ValueError, match=r"a\.tif: cannot decode rows 0 to 16"):
                read(path, direct=direct, windows=np.array([[0, 0, 16, 16]]))
        else:
            pixels, _, counts = read(path, direct=direct, windows=np.array([[0, 0, 16, 16]]))
            np.testing.assert_array_equal(pixels, array[None])
            assert counts["by_gdal"] == (not direct)


def test_lzw_that_lost_its_first_clear_code_is_gdals_to_judge(tmp_path):
    path = write(tmp_path / "a.tif", image("uint8", 1), ["COMPRESS=LZW", f"BLOCKYSIZE={ROWS}"])
    data, places = directory(path)
    (strip,) = struct.unpack_from("<I", data, places[273])
    assert data[strip] == 256 >> 1  # the upper bits of a clear code
    for first in range(128):
        data[strip] = first
        Path(path).write_bytes(data)
        ours, theirs = outcome(path, True), outcome(path, False)
        if isinstance(theirs, str):
            assert ours == theirs
        else:
            assert ours[2]["by_gdal"] == 1
            np.testing.assert_array_equal(ours[0], theirs[0])


def test_directories_in_a_circle_end(tmp_path):
    path = write(tmp_path / "a.tif", image("uint8", 1))
    data, _ = directory(path)
    (offset,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, offset)
    struct.pack_into("<I", data, offset + 2 + 12 * count, offset)
    Path(path).write_bytes(data)
    ours, theirs = outcome(path, True), outcome(path, False)
    np.testing.assert_array_equal(ours[0], theirs[0])


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_behind_gdals_file_systems(tmp_path, compression):
    path = write(tmp_path / "a.tif", image("uint8", 3), ["TILED=YES", "BLOCKXSIZE=16", "BLOCKYSIZE=16", "COMPRESS=LZW"])
    with zipfile.ZipFile(tmp_path / "a.zip", "w", compression) as archive:
        archive.write(path, "a.tif")
    inside = f"/vsizip/{tmp_path}/a.zip/a.tif"
    assert assert_same_as_gdal(inside)["by_gdal"] == 0
    np.testing.assert_array_equal(read(inside, direct=True)[0], read(path, direct=True)[0])


def test_small_calls_find_blocks_of_earlier_ones():
    array = image("uint16", 4, 128, 128)
    options = ["TILED=YES", "BLOCKXSIZE=64", "BLOCKYSIZE=64", "COMPRESS=LZW"]
    path = write("/vsimem/cached.tif", array, options)
    windows = np.array([(r, c, 24, 24) for r in range(0, 104, 8) for c in range(0, 104, 8)], np.int64)
    expected = read(path, direct=False, windows=windows)[0]
    block = 64 * 64 * 4 * 2
    for room, decoded in ((4 * block, 4), (block, 169), (0, None)):
        stack = _raster.Stack([path], cache_mb=room / 2**20)
        for i in range(len(windows)):
            got = read(path, direct=True, windows=windows[i : i + 1], stack=stack)[0]
            np.testing.assert_array_equal(got[0], expected[i])
        counts = stack.counts
        touched = sum(len({(y // 64, x // 64) for y in (r, r + 23) for x in (c, c + 23)}) for r, c, _, _ in windows)
        assert counts["decoded"] + counts["cached"] == touched
        if decoded == 4:
            assert counts["decoded"] == 4
        elif decoded is None:
            assert counts["decoded"] == touched
        else:  # one block at a time is kept
            assert 4 < counts["decoded"] < touched


@pytest.mark.parametrize("interleave", ["PIXEL", "BAND"])
def test_cached_blocks_are_told_apart_by_file_plane_and_place(interleave):
    arrays = [image("uint8", 3, seed=seed) for seed in (0, 1)]
    options = [f"INTERLEAVE={interleave}", "COMPRESS=LZW", "TILED=YES", "BLOCKXSIZE=32", "BLOCKYSIZE=32"]
    stack = _raster.Stack([write(f"/vsimem/{i}.tif", array, options) for i, array in enumerate(arrays)])
    both, whole = np.concatenate(arrays, axis=2), np.array([[0, 0, ROWS, COLS]])
    for _ in range(2):
        for band in range(6):
            got = read("", direct=True, windows=whole, bands=[band], stack=stack)[0][0, ..., 0]
            np.testing.assert_array_equal(got, both[..., band])
    assert stack.counts["cached"] > 0


def test_a_call_larger_than_the_cache_leaves_it_alone():
    array = image("uint8", 1, 256, 256)
    path = write("/vsimem/scan.tif", array, ["TILED=YES", "BLOCKXSIZE=64", "BLOCKYSIZE=64", "COMPRESS=LZW"])
    stack = _raster.Stack([path], cache_mb=4 * 4096 / 2**20)
    corner, all_of_it = np.array([[0, 0, 64, 64]]), np.array([[0, 0, 256, 256]])
    for windows, decoded, cached in ((corner, 1, 0), (all_of_it, 16, 1), (corner, 16, 2)):
        read(path, direct=True, windows=windows, stack=stack)
        assert stack.counts == {"decoded": decoded, "by_gdal": 0, "cached": cached}


def test_wrong_options_are_named():
    path = write("/vsimem/options.tif", image("uint8", 1))
    with pytest.raises(ValueError, match="cache_mb: expected a number that is not negative, got -1"):
        _raster.Stack([path], cache_mb=-1)
    with pytest.raises(ValueError, match="layout: expected NHWC or NCHW, got HWC"):
        read(path, direct=True, layout="HWC")
