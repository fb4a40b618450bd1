"""What only statistics promises; its parity with the reference is in test_parity.py."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from osgeo import gdal, gdal_array

from rvkernels.ops import KERNELS, tile
from rvkernels.ops.statistics import Statistics, statistics

gdal.UseExceptions()


def counted(images, valid=None, **options):
    made = Statistics(images.shape[-1], images.dtype, **options)
    made.add(images, valid)
    return made


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_worked_by_hand(kernel, dtype):
    images = np.array([[[1, 10], [2, 10]], [[3, 10], [99, 99]]], dtype)
    valid = np.array([[1, 1], [1, 0]], np.uint8)
    found = statistics(images, valid, kernel=kernel)
    assert found["mean"] == [2, 10]
    assert found["std"] == [math.sqrt(2 / 3), 0]
    assert (found["min"], found["max"]) == ([1, 10], [3, 10])
    assert found["count"] == [3, 3]
    assert found["nodata_share"] == 0.25
    assert found["quantiles"]["0.5"] == pytest.approx([2, 10], rel=0.004)
    assert [sum(row) for row in found["histogram"]["counts"]] == [3, 3]


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 60), st.just(1)), elements=st.floats(width=32)))
def test_float_sums_are_exact(images):
    """Any finite float32, the smallest and the largest in one sum: as math.fsum has it."""
    values = [v for v in images.ravel().tolist() if math.isfinite(v)]
    made = counted(images)
    if not values:
        with pytest.raises(ValueError, match="band 0 has no valid value"):
            made.summary()
        return
    found = made.summary()
    assert found["mean"][0] == pytest.approx(math.fsum(values) / len(values), rel=1e-15, abs=1e-60)
    assert (found["min"][0], found["max"][0]) == (min(values), max(values))
    assert found["count"] == [len(values)]
    assert float(made._moments(0)[0]) == math.fsum(values)


@given(
    hnp.arrays(st.sampled_from([np.uint8, np.uint16, np.int16]), hnp.array_shapes(min_dims=2, max_dims=4, max_side=9)),
    st.sampled_from([0, 0.01, 0.25, 0.5, 0.9, 1]),
)
def test_integers_agree_with_numpy(images, q):
    flat = images.reshape(-1, images.shape[-1])
    found = counted(images).summary([q])
    assert np.allclose(found["mean"], flat.mean(0), rtol=1e-13)
    assert np.allclose(found["std"], flat.std(0), rtol=1e-10, atol=1e-9)
    assert found["min"] == flat.min(0).tolist()
    assert found["max"] == flat.max(0).tolist()
    for values, value in zip(flat.T, found["quantiles"][str(q)]):
        assert value in values
        assert (values <= value).mean() >= q - 1e-12
        assert (values < value).mean() <= q - 1e-12 or value == values.min()


@given(st.integers(0, 2**32 - 1), st.sampled_from(["uint8", "uint16", "int16", "float32"]), st.integers(1, 5))
def test_portions_order_and_merging_change_no_bit(seed, dtype, portions):
    rng = np.random.default_rng(seed)
    images = (rng.random((portions, 7, 5, 2)) * 250 * 10.0 ** rng.integers(-2, 3)).astype(dtype)
    valid = rng.random((portions, 7, 5)) < 0.7
    valid[0, 0, 0] = True
    whole = counted(images, valid).summary()
    streamed = Statistics(2, dtype)
    merged = Statistics(2, dtype)
    for k in rng.permutation(portions):
        streamed.add(images[k], valid[k])
        merged.merge(counted(images[k], valid[k]))
    assert streamed.summary() == whole
    assert merged.summary() == whole


def test_more_than_one_piece_of_work():
    rng = np.random.default_rng(0)
    for dtype in ("uint8", "uint16", "float32"):
        images = (rng.random((2_500_001, 1)) * 255).astype(dtype)
        valid = rng.random(2_500_001) < 0.9
        one, two = (counted(images, valid, threads=threads).summary() for threads in (1, 2))
        assert one == two
        kept = images[valid].astype(np.float64)
        assert one["count"] == [len(kept)]
        assert one["mean"][0] == pytest.approx(kept.mean(), rel=1e-12)
        assert one["std"][0] == pytest.approx(kept.std(), rel=1e-10)


@given(
    st.sampled_from([*range(1, 18), 33]),
    st.sampled_from([0, 1, 63, 64, 65, 511, 512, 513, 1023, 1025, 9999, 16383, 16384, 16385]),
    st.sampled_from(["all", "none", "runs", "few", "most"]),
    st.sampled_from(["uint8", "uint16", "int16"]),
    st.sampled_from(["any", "alike", "below 8"]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=200, deadline=None)
def test_every_way_to_count_gives_the_same(bands, pixels, mask, dtype, values, seed):
    """Around the sizes that are counted together: 64 pixels, 512 of them, blocks of 32 * 512, and the rest."""
    rng = np.random.default_rng(seed)
    limits = np.iinfo(dtype)
    low, high = {
        "any": (limits.min, limits.max + 1),
        "alike": (limits.max - 3, limits.max + 1),
        "below 8": (0, 8),
    }[values]
    images = rng.integers(low, high, (pixels, bands)).astype(dtype)
    valid = {
        "all": np.ones(pixels, np.uint8),
        "none": np.zeros(pixels, np.uint8),
        "runs": (np.arange(pixels) // 700 % 2).astype(np.uint8) * 255,
        "few": (rng.random(pixels) < 0.1).astype(np.uint8),
        "most": (rng.random(pixels) < 0.9).astype(np.uint8),
    }[mask]
    made = counted(images, None if mask == "all" else valid, threads=1)
    kept = images[valid != 0].astype(np.int64) - limits.min
    for band in range(bands):
        want = np.bincount(kept[:, band], minlength=limits.max - limits.min + 1)
        np.testing.assert_array_equal(made.histogram[band], want)


def raster(path, array, options=(), nodata=None, alpha=False, mask=None):
    """A GeoTIFF of array (rows, cols, bands); returns its path."""
    rows, cols, bands = array.shape
    creation = [*options, *([] if alpha else ["ALPHA=NO"])]
    kind = gdal_array.NumericTypeCodeToGDALTypeCode(array.dtype)
    made = gdal.GetDriverByName("GTiff").Create(str(path), cols, rows, bands, kind, creation)
    for band in range(bands):
        if nodata is not None:
            made.GetRasterBand(band + 1).SetNoDataValue(nodata)
        made.GetRasterBand(band + 1).WriteArray(array[..., band])
    if alpha:
        made.GetRasterBand(bands).SetColorInterpretation(gdal.GCI_AlphaBand)
    if mask is not None:
        made.CreateMaskBand(gdal.GMF_PER_DATASET)
        made.GetRasterBand(1).GetMaskBand().WriteArray(mask)
    made.FlushCache()
    return str(path)


def of_rasters(images, windows=None, bands=None, kernel="cpp", threads=0):
    """The summary of files' pixels, in their own dtype."""
    source = tile.Raster(images)
    made = Statistics(source.bands if bands is None else len(bands), source.dtype, kernel=kernel, threads=threads)
    made.add_rasters(images, windows, bands=bands)
    return made.summary()


TILED = ("TILED=YES", "BLOCKXSIZE=64", "BLOCKYSIZE=48", "COMPRESS=DEFLATE")


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("dtype", "bands", "options"),
    [
        ("uint8", 1, ("COMPRESS=LZW", "PREDICTOR=2")),
        ("uint8", 4, (*TILED, "PREDICTOR=2")),
        ("uint8", 3, (*TILED, "INTERLEAVE=BAND")),
        ("uint16", 5, TILED),
        ("int16", 2, ()),
        ("float32", 2, TILED),
        ("float64", 1, TILED),
    ],
)
def test_files_are_counted_as_the_arrays_in_them(tmp_path, kernel, dtype, bands, options):
    rng = np.random.default_rng(bands)
    array = rng.integers(0, 200, (101, 203, bands)).astype(dtype)
    if dtype == "int16":
        array -= 100
    array[20:70, 50:140] = 7
    path = raster(tmp_path / "a.tif", array, options, nodata=7)
    valid = (array != 7).any(2)
    array = array.astype("float32") if dtype == "float64" else array
    assert of_rasters(path, kernel=kernel) == statistics(array, valid)

    windows = np.array([[5, 3, 90, 120], [60, 100, 33, 1], [-10, 150, 40, 90], [101, 0, 5, 5]], np.int64)
    chosen = [bands - 1, 0][: min(2, bands)]
    want = Statistics(len(chosen), array.dtype)
    for row, col, rows, cols in windows:
        part = (slice(max(0, row), max(0, row + rows)), slice(max(0, col), max(0, col + cols)))
        selected = np.ascontiguousarray(array[part][..., chosen])
        want.add(selected, (selected != 7).any(2))
    assert of_rasters(path, windows, bands=chosen, kernel=kernel) == want.summary()


@pytest.mark.parametrize("threads", [1, 2])
def test_alpha_masks_and_stacks_say_what_is_valid(tmp_path, threads):
    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 250, (2, 130, 90, 4)).astype(np.uint8)
    first[..., 3] = np.where(rng.random((130, 90)) < 0.3, 0, 255)
    mask = np.where(rng.random((130, 90)) < 0.3, 0, 255).astype(np.uint8)
    paths = [
        raster(tmp_path / "a.tif", first, TILED, alpha=True),
        raster(tmp_path / "b.tif", second, ("BLOCKYSIZE=11",), mask=mask),
    ]
    valid = (first[..., 3] != 0) & (mask != 0)
    want = statistics(np.concatenate([first[..., :3], second], 2), valid)
    assert of_rasters(paths, threads=threads) == want
    assert want["nodata_share"] == 1 - valid.mean()


def test_files_portion_by_portion_and_together_with_arrays(tmp_path):
    array = np.random.default_rng(4).integers(0, 256, (100, 300, 3)).astype(np.uint8)
    path = raster(tmp_path / "a.tif", array, TILED)
    made = Statistics(3, "uint8")
    blocks = made.add_rasters(path, np.array([[0, 0, 48, 64], [0, 32, 48, 64]], np.int64))
    assert blocks == 2, "each block is decoded once"
    made.add_rasters([path], np.array([[0, 96, 48, 204]], np.int64))
    made.add(array[48:])
    made.add(np.ascontiguousarray(array[:48, 32:64]))  # was in two windows, so take the array's part twice as well
    want = counted(array)
    want.add(np.ascontiguousarray(array[:48, 32:64]))
    want.add(np.ascontiguousarray(array[:48, 32:64]))
    assert made.summary() == want.summary()


def test_a_wider_dtype_takes_narrower_files(tmp_path):
    array = np.random.default_rng(5).integers(0, 256, (70, 30, 1)).astype(np.uint8)
    path = raster(tmp_path / "a.tif", array)
    for dtype in ("uint16", "int16", "float32"):
        made = Statistics(1, dtype)
        made.add_rasters(path)
        assert made.summary() == statistics(array.astype(dtype))


def test_what_add_rasters_refuses(tmp_path):
    path = raster(tmp_path / "a.tif", np.zeros((10, 10, 2), np.uint16))
    with pytest.raises(ValueError, match=r"a\.tif: uint16 pixels do not fit in statistics of uint8"):
        Statistics(2, "uint8").add_rasters(path)
    with pytest.raises(ValueError, match=r"bands: expected 3 indices from 0 to 1, got \[0, 1\]"):
        Statistics(3, "uint16").add_rasters(path)
    with pytest.raises(ValueError, match=r"bands: expected 1 indices from 0 to 1, got \[2\]"):
        Statistics(1, "uint16").add_rasters(path, bands=[2])
    with pytest.raises(ValueError, match="windows: expected dtype int64"):
        Statistics(2, "uint16").add_rasters(path, np.zeros((1, 4), np.int32))
    with pytest.raises(ValueError, match="windows: rows and cols must be positive"):
        Statistics(2, "uint16").add_rasters(path, np.zeros((1, 4), np.int64))
    with pytest.raises(FileNotFoundError, match="missing"):
        Statistics(2, "uint16").add_rasters(tmp_path / "missing.tif")
    made = Statistics(2, "uint16")
    assert made.add_rasters(path, np.zeros((0, 4), np.int64)) == 0
    assert made.pixels == 0


def test_a_small_deviation_on_a_large_mean():
    """Where a running sum of squares in floating point has no digits left."""
    images = np.array([[1e7], [1e7 + 1], [1e7 + 2]], np.float32)
    assert statistics(images)["std"] == [math.sqrt(2 / 3)]


def test_float_quantiles_are_within_their_bin():
    values = np.random.default_rng(1).standard_normal((20_000, 1)).astype(np.float32) * 3
    found = statistics(values)["quantiles"]
    for q, (value,) in found.items():
        want = np.quantile(values, float(q), method="inverted_cdf")
        assert value == pytest.approx(want, rel=0.004)


def test_the_shown_histogram_counts_everything_once():
    images = np.random.default_rng(2).integers(500, 3000, (999, 2)).astype(np.uint16)
    shown = statistics(images)["histogram"]
    edges, counts = shown["edges"], np.array(shown["counts"])
    assert counts.sum(1).tolist() == [999, 999]
    for band in range(2):
        assert (np.histogram(images[:, band], edges)[0] == counts[band]).all()


def test_nothing_valid_is_an_error():
    images = np.zeros((4, 2), np.uint8)
    with pytest.raises(ValueError, match="band 0 has no valid value among 4 pixels"):
        counted(images, np.zeros(4, np.uint8)).summary()
    with pytest.raises(ValueError, match="among 0 pixels"):
        Statistics(1, "uint8").summary()


def test_bad_arguments():
    made = Statistics(3, "uint8")
    with pytest.raises(ValueError, match=r"images: expected shape \(..., 3\)"):
        made.add(np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="images: expected dtype uint8, got uint16"):
        made.add(np.zeros((4, 3), np.uint16))
    with pytest.raises(ValueError, match="images: must be C-contiguous"):
        made.add(np.zeros((3, 4), np.uint8).T)
    with pytest.raises(
        ValueError, match=r"valid: expected shape \(4\), got \(3\)|valid: expected shape \(4\), got \(3,\)"
    ):
        made.add(np.zeros((4, 3), np.uint8), np.ones(3, np.uint8))
    with pytest.raises(ValueError, match="cannot merge 2 bands of uint8 into 3 of uint8"):
        made.merge(Statistics(2, "uint8"))
    with pytest.raises(ValueError, match="dtype: expected one of"):
        Statistics(3, "int32")
    made.add(np.zeros((4, 3), np.uint8))
    with pytest.raises(ValueError, match="quantiles"):
        made.summary([1.5])
