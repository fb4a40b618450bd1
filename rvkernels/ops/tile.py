"""Windows out of GDAL rasters, in parallel, every compressed block decoded once per call whatever the windows' order.

Any path GDAL reads: GeoTIFF and COG, JPEG, PNG, VRT, members of archives (/vsizip/archive.zip/member). A block that
cannot be decoded is a ValueError naming the file; a path that does not exist is a FileNotFoundError.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from rvkernels import _raster
from rvkernels.ops._checks import check_array, check_run

TOLERANCE = 0
DTYPES = ("uint8", "uint16", "int16", "float32")


class Raster:
    """The rasters of one scene, opened once for several reads; their imagery bands (not alpha) are stacked in order.

    Raises ValueError naming both files when their grids differ (size, geotransform or CRS). Reads of one object may run
    in several threads; after a fork a child opens its own.
    """

    def __init__(self, images: str | Sequence[str]):
        self.images = _paths(images)
        self._stack = _raster.Stack(self.images)
        first = self._stack.descriptions[0]
        self.rows: int = first["rows"]
        self.cols: int = first["cols"]
        self.bands: int = self._stack.bands
        # 32-bit integers and doubles are read as float32, rounded to 24 bits.
        self.dtype = np.dtype(self._stack.dtype if self._stack.dtype in DTYPES else "float32")

    def read(
        self,
        windows: np.ndarray,
        *,
        bands: Sequence[int] | None = None,
        fill: float = 0,
        out: np.ndarray | None = None,
        valid: np.ndarray | bool | None = None,
        counts: dict | None = None,
        kernel: str = "cpp",
        threads: int = 0,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """As the function `read`."""
        check_run(kernel, threads)
        windows, rows, cols = _windows(windows, out)
        bands = list(range(self.bands)) if bands is None else [int(b) for b in bands]
        if not bands or min(bands) < 0 or max(bands) >= self.bands:
            raise ValueError(f"bands: expected indices from 0 to {self.bands - 1}, got {bands} ({self.images[0]})")
        shape = (len(windows), rows, cols, len(bands))
        out = np.empty(shape, self.dtype) if out is None else out
        check_array("out", out, DTYPES, shape, writeable=True)
        if not np.can_cast(self.dtype, out.dtype, "safe"):
            raise ValueError(f"out: {out.dtype} cannot hold the {self.dtype} pixels of {self.images[0]}")
        if out.dtype.kind != "f" and not (float(fill).is_integer() and _holds(out.dtype, fill)):
            raise ValueError(f"fill: {out.dtype} has no value {fill!r}")
        pair = valid is True
        if pair:
            valid = np.empty(shape[:3], np.uint8)
        elif valid is False:
            valid = None
        if valid is not None:
            check_array("valid", valid, "uint8", shape[:3], writeable=True)
        if kernel == "cpp":
            blocks = self._stack.read(windows, bands, out, float(fill), valid, threads) if out.size else 0
        else:
            blocks = reference_read(self.images, windows, bands, fill, out, valid)
        if counts is not None:
            counts["blocks"] = counts.get("blocks", 0) + blocks
        return (out, valid) if pair else out


def read(
    images: str | Sequence[str],
    windows: np.ndarray,
    *,
    bands: Sequence[int] | None = None,
    fill: float = 0,
    out: np.ndarray | None = None,
    valid: np.ndarray | bool | None = None,
    counts: dict | None = None,
    kernel: str = "cpp",
    threads: int = 0,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Windows of one scene.

    images   path, or paths whose bands are stacked in this order; all on one grid
    windows  (n, 4) int64: row, col, rows, cols in pixels, all of one size; they may leave the raster
    bands    indices from 0 into the stacked imagery bands; None = all. Alpha bands are not imagery
    fill     value of pixels outside the raster
    out      (n, rows, cols, bands) C-contiguous; made in the rasters' own dtype when None. A wider dtype is allowed
    valid    True: return a mask as well; or the (n, rows, cols) uint8 array to write it to. 1 where every raster has
             data. No data is: outside the raster; alpha or mask of 0; every selected band of a raster nodata or NaN
    counts   a dict whose "blocks" grows by the number of blocks decoded
    threads  0 = all cores

    Returns (n, rows, cols, bands) uint8, uint16, int16 or float32 (32-bit integers and doubles become float32); with
    valid=True the pair (images, valid).
    Raises FileNotFoundError, or ValueError naming the file or argument.
    """
    options = {"bands": bands, "fill": fill, "out": out, "valid": valid, "counts": counts}
    return Raster(images).read(windows, **options, kernel=kernel, threads=threads)


op = read


def read_many(
    paths: Sequence[str], *, out: np.ndarray | None = None, kernel: str = "cpp", threads: int = 0
) -> np.ndarray:
    """Whole images of one size and dtype, made for many small files, also as stored members of one ZIP archive.

    Returns (n, rows, cols, bands) in the images' dtype, without alpha. Raises FileNotFoundError, or ValueError naming
    the image that cannot be decoded or differs from the first in size, bands or dtype.
    """
    check_run(kernel, threads)
    paths = _paths(paths)
    many = _raster.Many(paths)
    first = many.description
    shape = (len(paths), first["rows"], first["cols"], first["bands"])
    out = np.empty(shape, first["dtype"]) if out is None else out
    check_array("out", out, first["dtype"], shape, writeable=True)
    if kernel == "cpp":
        many.read(out, threads)
    else:
        for path, image in zip(paths, out):
            reference_read([path], np.array([[0, 0, *shape[1:3]]]), list(range(shape[3])), 0, image[None], None)
    return out


def reference_read(
    images: Sequence[str],
    windows: np.ndarray,
    bands: Sequence[int],
    fill: float,
    out: np.ndarray,
    valid: np.ndarray | None,
) -> int:
    """The plain loop: GDAL's Python bindings read each window's part of each band. Returns 0 (no blocks counted)."""
    from osgeo import gdal

    gdal.UseExceptions()
    out[...] = fill
    if valid is not None:
        valid[...] = 1
    layers = []  # per raster: the dataset, its imagery bands, its alpha band
    for path in images:
        dataset = gdal.Open(path)
        every = [dataset.GetRasterBand(b + 1) for b in range(dataset.RasterCount)]
        alpha = [b for b in every if b.GetColorInterpretation() == gdal.GCI_AlphaBand]
        imagery = [b for b in every if b.GetColorInterpretation() != gdal.GCI_AlphaBand] or alpha
        layers.append((dataset, imagery, alpha[-1] if alpha and len(imagery) < len(every) else None))
    stacked = [(layer, band) for layer, (_, imagery, _) in enumerate(layers) for band in imagery]
    height, width = layers[0][0].RasterYSize, layers[0][0].RasterXSize
    for i, (row, col, rows, cols) in enumerate(windows.tolist()):
        top, left, bottom, right = max(row, 0), max(col, 0), min(row + rows, height), min(col + cols, width)
        if valid is not None:
            valid[i] = 0
        if top >= bottom or left >= right:
            continue
        part = (slice(top - row, bottom - row), slice(left - col, right - col))
        box = (left, top, right - left, bottom - top)
        if valid is not None:
            valid[i][part] = 1
        empty: dict[int, np.ndarray] = {}  # per raster: where every selected band so far has no data
        for target, source in enumerate(bands):
            layer, band = stacked[source]
            pixels = band.ReadAsArray(*box)
            out[i][part][..., target] = pixels
            nodata = band.GetNoDataValue()
            missing = np.zeros(pixels.shape, bool) if nodata is None else pixels == nodata
            if pixels.dtype.kind == "f":
                missing |= np.isnan(pixels)
            empty[layer] = missing & empty.get(layer, True)
        if valid is None:
            continue
        for layer, missing in empty.items():
            _, imagery, alpha = layers[layer]
            if alpha is not None:
                missing |= alpha.ReadAsArray(*box) == 0
            elif imagery[0].GetMaskFlags() & gdal.GMF_PER_DATASET:
                missing |= imagery[0].GetMaskBand().ReadAsArray(*box) == 0
            valid[i][part][missing] = 0
    return 0


def cases() -> list[tuple[str, dict]]:
    """(name, arguments) for the parity test and the benchmark: tiled, striped, odd-sized, off-edge, stacked, masked."""
    from osgeo import gdal

    gdal.UseExceptions()
    noise = np.random.default_rng(7)
    types = dict(zip(DTYPES, (gdal.GDT_Byte, gdal.GDT_UInt16, gdal.GDT_Int16, gdal.GDT_Float32)))

    def raster(name: str, array: np.ndarray, options: Iterable[str], nodata: float | None = None) -> str:
        path = f"/vsimem/rvkernels/cases/{name}.tif"
        rows, cols, bands = array.shape
        made = gdal.GetDriverByName("GTiff").Create(
            path, cols, rows, bands, types[array.dtype.name], ["ALPHA=NO", *options]
        )
        for band in range(bands):
            made.GetRasterBand(band + 1).WriteArray(array[..., band])
            if nodata is not None:
                made.GetRasterBand(band + 1).SetNoDataValue(nodata)
        made.FlushCache()
        return path

    def values(dtype: str, bands: int) -> np.ndarray:
        made = noise.integers(0, 200, (211, 173, bands))
        made[20:90, 60:120] = 7
        return made.astype(dtype)

    tiled = ["TILED=YES", "BLOCKXSIZE=64", "BLOCKYSIZE=32", "COMPRESS=DEFLATE"]
    paths = {
        "uint8_tiled": raster("uint8_tiled", values("uint8", 3), tiled),
        "uint16_strips_lzw": raster("uint16_strips_lzw", values("uint16", 4), ["COMPRESS=LZW", "PREDICTOR=2"], 7),
        "int16_band_interleaved": raster("int16_band_interleaved", values("int16", 2), [*tiled, "INTERLEAVE=BAND"], 7),
        "float32_plain": raster("float32_plain", values("float32", 1), []),
    }
    corners = list(itertools.product(range(-20, 230, 37), range(-30, 200, 29)))
    windows = noise.permutation(np.array([(row, col, 40, 50) for row, col in corners], np.int64))
    found = [(name, {"images": path, "windows": windows, "valid": True}) for name, path in paths.items()]
    both = [paths["uint8_tiled"], paths["uint16_strips_lzw"]]
    found.append(("stacked", {"images": both, "windows": windows, "bands": [6, 1, 3, 0], "fill": 9, "valid": True}))
    return found


def _paths(images: str | Sequence[str]) -> list[str]:
    return [str(images)] if isinstance(images, str) or hasattr(images, "__fspath__") else [str(i) for i in images]


def _windows(windows: np.ndarray, out: np.ndarray | None) -> tuple[np.ndarray, int, int]:
    windows = np.asarray(windows)
    if windows.size == 0:
        windows = np.empty((0, 4), np.int64)
        return windows, *(out.shape[1:3] if out is not None and out.ndim == 4 else (0, 0))
    if windows.ndim != 2 or windows.shape[1] != 4 or windows.dtype.kind not in "iu":
        raise ValueError(f"windows: expected integers (n, 4), got {windows.dtype} {windows.shape}")
    windows = np.ascontiguousarray(windows, np.int64)
    rows, cols = (int(v) for v in windows[0, 2:])
    if rows <= 0 or cols <= 0 or (windows[:, 2:] != (rows, cols)).any():
        raise ValueError("windows: rows and cols must be positive and the same in all windows of a call")
    return windows, rows, cols


def _holds(dtype: np.dtype, value: float) -> bool:
    limits = np.iinfo(dtype)
    return limits.min <= value <= limits.max
