"""Plans of windows, and GeoTIFF files with bytes overwritten or cut off, read through every layout of the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import shapely
from osgeo import gdal, gdal_array
from run import clear

from rvkernels import _raster, raster
from rvkernels.ops import tile, windows

gdal.UseExceptions()


def options(rng: np.random.Generator, dtype: str) -> list[str]:
    """A way to store a GeoTIFF, chosen by chance."""
    compression = rng.choice(["NONE", "DEFLATE", "LZW", "ZSTD", "PACKBITS"])
    endian = rng.choice(["LITTLE", "BIG"])
    chosen = [f"COMPRESS={compression}", f"INTERLEAVE={rng.choice(['PIXEL', 'BAND'])}", "ALPHA=NO"]
    if compression in ("DEFLATE", "LZW", "ZSTD"):
        # libtiff does not undo the predictor of floats in big-endian order as it was made.
        predictors = [1, 2] if dtype != "float32" else [1] if endian == "BIG" else [1, 3]
        chosen.append(f"PREDICTOR={rng.choice(predictors)}")
    if rng.integers(0, 2):
        chosen += ["TILED=YES", f"BLOCKXSIZE={16 * rng.integers(1, 5)}", f"BLOCKYSIZE={16 * rng.integers(1, 5)}"]
    else:
        chosen.append(f"BLOCKYSIZE={rng.integers(1, 40)}")
    chosen.append(f"BIGTIFF={rng.choice(['YES', 'NO'])}")
    chosen.append(f"ENDIANNESS={endian}")
    if rng.integers(0, 4) == 0:
        chosen.append("SPARSE_OK=TRUE")
    return chosen


def written(rng: np.random.Generator, path: Path) -> np.ndarray:
    """The pixels (rows, cols, bands) of a GeoTIFF written to `path`."""
    dtype = str(rng.choice(tile.DTYPES))
    rows, cols, bands = (int(n) for n in (*rng.integers(1, 120, 2), rng.integers(1, 6)))
    pixels = (np.add.outer(np.arange(rows), np.arange(cols))[..., None] + rng.integers(0, 9, bands)).astype(dtype)
    pixels[rng.random((rows, cols)) < 0.1] = 7
    kind = gdal_array.NumericTypeCodeToGDALTypeCode(pixels.dtype)
    made = gdal.GetDriverByName("GTiff").Create(str(path), cols, rows, bands, kind, options(rng, dtype))
    if rng.integers(0, 2):
        made.GetRasterBand(1).SetNoDataValue(7)
    made.WriteArray(pixels.transpose(2, 0, 1))
    del made  # closed, with all of it on disk
    # What GDAL reads back: it swaps bytes of some big-endian files once too often on writing.
    stored = gdal.Open(str(path)).ReadAsArray().reshape(bands, rows, cols)
    return np.ascontiguousarray(stored.transpose(1, 2, 0))


def plan(rng: np.random.Generator, rows: int, cols: int) -> None:
    """Sliding windows differ, stay and cover where they should; random ones stay, too; areas are as in GEOS."""
    row, col, size, stride = (int(n) for n in (*rng.integers(-50, 50, 2), *rng.integers(1, 40, 2)))
    padding = rng.integers(-10, 20, (2, 2)).tolist()
    ends, direction = str(rng.choice(windows.ENDS)), str(rng.choice(windows.DIRECTIONS))
    made = windows.sliding((row, col, rows, cols), size, stride, padding=padding, ends=ends, direction=direction)
    found = made[:]
    assert len(found) == len(made) == len(np.unique(found, axis=0))
    np.testing.assert_array_equal(np.asarray(list(made)).reshape(-1, 4), found)
    (top, bottom), (left, right) = padding
    high, wide = rows + top + bottom, cols + left + right
    seen = np.zeros((max(0, high), max(0, wide)), bool)
    for r, c, h, w in found - np.array([row - top, col - left, 0, 0]):
        assert (h, w) == (size, size)
        assert r >= 0
        assert c >= 0
        assert ends == "over" or (r + h <= high and c + w <= wide)
        seen[r : r + h, c : c + w] = True
    if stride <= size and (ends == "over" or (ends == "flush" and size <= min(high, wide))):
        assert seen.all()
    if size <= min(rows, cols):
        sizes = {"size": size} if rng.integers(0, 2) else {"size": None, "sizes": (1, size)}
        drawn = windows.random((row, col, rows, cols), count=5, seed=int(rng.integers(0, 99)), **sizes)
        assert (drawn[:, :2] >= [row, col]).all()
        assert (drawn[:, 2:] >= 1).all()
        assert (drawn[:, :2] + drawn[:, 2:] <= [row + rows, col + cols]).all()
    # Whole numbers: GEOS rounds nothing, and corners of areas and windows meet.
    corners = rng.integers(0, 60, (5, 2, 2))
    boxes = [shapely.box(*corner, *(corner + edges + 1)) for corner, edges in corners]
    area = shapely.union_all(boxes[:4]).difference(boxes[4])
    for rule in windows.RULES:
        got = windows.inside(found, area, rule)
        np.testing.assert_array_equal(got, windows.inside(found, area, rule, kernel="reference"))


def decoded(path: Path, found: dict, own: bool) -> tuple[np.ndarray, int]:
    """All pixels of a file that may be damaged, decoded by us or all by GDAL, and how many blocks GDAL decoded."""
    stack = _raster.Stack([str(path)], direct=own)
    whole = np.array([[0, 0, found["rows"], found["cols"]]])
    out = np.empty((1, *whole[0, 2:], found["bands"]), found["dtype"])
    stack.read(whole, list(range(found["bands"])), out, 3.0, None, 1)
    return out, stack.counts["by_gdal"]


def round(rng: np.random.Generator, folder: Path) -> None:
    path = folder / "scene.tif"
    path.unlink(missing_ok=True)
    pixels = written(rng, path)
    rows, cols, bands = pixels.shape
    plan(rng, rows, cols)
    corners = rng.integers(-60, 150, (rng.integers(1, 20), 2))
    asked = np.concatenate([corners, np.tile(rng.integers(1, 70, 2), (len(corners), 1))], 1)
    chosen = rng.permutation(bands)[: rng.integers(1, bands + 1)].tolist()
    whole = tile.read(path, asked, bands=chosen, fill=3, threads=int(rng.integers(1, 3)))
    for (row, col, height, width), got in zip(asked.tolist(), whole):
        want = np.full((height, width, len(chosen)), 3, pixels.dtype)
        top, left, bottom, right = max(row, 0), max(col, 0), min(row + height, rows), min(col + width, cols)
        if top < bottom and left < right:
            want[top - row : bottom - row, left - col : right - col] = pixels[top:bottom, left:right][..., chosen]
        np.testing.assert_array_equal(got, want)
    data = bytearray(path.read_bytes())
    for at in rng.integers(0, len(data) if rng.integers(0, 2) else min(len(data), 400), rng.integers(1, 5)):
        data[at] = rng.integers(0, 256)
    if rng.integers(0, 3) == 0:
        data = data[: rng.integers(0, len(data))]
    path.write_bytes(data)
    found = clear(raster.describe, path)
    if found is not None and found["rows"] * found["cols"] * found["bands"] < 1e6:
        clear(tile.read, path, asked, valid=True)
        ours, theirs = clear(decoded, path, found, True), clear(decoded, path, found, False)
        assert (ours is None) == (theirs is None), "only one of the two decoders refuses the file"
        # What GDAL decoded is left out: it gives for some damaged blocks what its memory held before.
        if ours is not None and theirs is not None and ours[1] == 0:
            np.testing.assert_array_equal(ours[0], theirs[0])
