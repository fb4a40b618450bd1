"""Windows out of GDAL rasters, in parallel, every compressed block decoded once per call whatever the windows' order.

Any path GDAL reads: GeoTIFF and COG, JPEG, PNG, VRT, members of archives (/vsizip/archive.zip/member), files behind a
server (/vsicurl/https://...). A block that cannot be decoded is a ValueError naming the file; a path that does not
exist is a FileNotFoundError. Where windows lie is planned by rvkernels.ops.windows.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rvkernels import _raster
from rvkernels.ops._checks import check_array, check_run
from rvkernels.ops.normalize import DTYPES, check_layout
from rvkernels.registry import suggest

TOLERANCE = 0
RESAMPLING = ("nearest", "bilinear", "cubic", "average")
SEPARABLE = ("nearest", "bilinear", "average")  # along the axes of a raster; else GDAL warps
IDENTITY = (0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
FARTHEST = 2**31  # of a window's numbers
CONVERTED = 1 << 24  # values converted to a narrower dtype at a time


def read_dtype(stored: str) -> str:
    """The dtype of what is read of pixels stored so: float32, rounded to 24 bits, for 32-bit integers and doubles."""
    return stored if stored in DTYPES else "float32"


@dataclass(frozen=True)
class Grid:
    """Rows and columns of pixels on the map.

    transform  GDAL's six numbers: x = t[0] + t[1] col + t[2] row, y = t[3] + t[4] col + t[5] row, for pixel corners
    crs        anything GDAL understands as a CRS (WKT, "EPSG:32618"), or None
    """

    rows: int
    cols: int
    transform: tuple[float, float, float, float, float, float] = IDENTITY
    crs: str | None = None

    def __post_init__(self) -> None:
        if self.rows < 1 or self.cols < 1:
            raise ValueError(f"grid: expected at least one row and column, got {self.rows} x {self.cols}")
        if len(self.transform) != 6 or not all(math.isfinite(v) for v in self.transform):
            raise ValueError(f"grid: transform: expected six finite numbers, got {self.transform}")

    def at(self, gsd: float | tuple[float, float]) -> Grid:
        """The grid of the same upper left corner and extent with pixels of `gsd`, or (down, across), CRS units each.

        Without a CRS units are those of the transform: pixels, when it is the identity. Rows and columns are rounded as
        gdalwarp -tr does, halves up, and are at least one.
        """
        down, across = (gsd, gsd) if isinstance(gsd, (int, float)) else gsd
        if not (down > 0 and across > 0 and math.isfinite(down) and math.isfinite(across)):
            raise ValueError(f"gsd: expected a positive number or two (down, across), got {gsd!r}")
        t = self.transform
        x, y = across / math.hypot(t[1], t[4]), down / math.hypot(t[2], t[5])  # new pixels in old ones
        rows, cols = (max(1, math.floor(n / step + 0.5)) for n, step in ((self.rows, y), (self.cols, x)))
        return Grid(rows, cols, (t[0], t[1] * x, t[2] * y, t[3], t[4] * x, t[5] * y), self.crs)

    def difference(self, other: Grid) -> str:
        """How another grid differs, such as "has another CRS"; empty when pixels coincide to a thousandth of one."""
        return _raster.difference(self, other)


class Raster:
    """The rasters of one scene, opened once for several reads; their imagery bands (not alpha) are stacked in order.

    images      path, or paths whose bands are stacked in this order
    grid        the grid that windows count on; None: that of the first raster
    gsd         pixel size of the grid instead, in units of the first raster's CRS, see Grid.at
    resampling  nearest | bilinear | cubic | average: how rasters on another grid, and windows of another size than
                their output, are read. Labels want nearest, which alone never makes up values
    cache_mb    decoded blocks of compressed GeoTIFF are kept for later reads up to so many MiB, the longest unused
                forgotten first; a read of more than that keeps none. What GDAL decodes is in GDAL's own cache

    Rasters on the grid are read as they are. Others are resampled, one pixel independent of all others, from the
    overview whose pixels are just finer than wanted (nearest: always from the raster itself); kernels grow with the
    ratio of pixel sizes, so that no pixel is passed over. Nearest, bilinear and average along the raster's own rows
    and columns are what GDAL's RasterIO gives, from blocks that are decoded and kept as for any read; cubic, another
    CRS and rotated grids are left to GDAL's warper with an exact transformer. Pixels without data take no part, and
    where a resampled raster has none, `read` gives `fill`.

    Raises ValueError naming the files when their grids differ and not all say where they lie (geotransform, and either
    all or none a CRS), and when a raster has no pixel on the grid. Reads of one object may run in several threads;
    after a fork a child opens its own.
    """

    def __init__(
        self,
        images: str | Sequence[str],
        *,
        grid: Grid | None = None,
        gsd: float | tuple[float, float] | None = None,
        resampling: str = "bilinear",
        cache_mb: float = 128,
    ):
        self.images = _paths(images)
        if resampling not in RESAMPLING:
            raise ValueError(f"resampling: no {resampling!r}; {suggest(str(resampling), RESAMPLING)}")
        if gsd is not None and (grid is not None or not self.images):
            raise ValueError("gsd: give it or the grid, not both, and at least one image")
        self._resampling = resampling
        if gsd is not None:
            first = _raster.describe(self.images[:1], 1)[0]
            grid = Grid(first["rows"], first["cols"], first["transform"], first["crs"]).at(gsd)
        self._stack = _raster.Stack(self.images, cache_mb, grid=grid, resampling=resampling)
        self.grid = Grid(*self._stack.grid)
        self.rows: int = self.grid.rows
        self.cols: int = self.grid.cols
        self.bands: int = self._stack.bands
        self.dtype = np.dtype(read_dtype(self._stack.dtype))

    def read(
        self,
        windows: np.ndarray,
        *,
        size: int | tuple[int, int] | None = None,
        bands: Sequence[int] | None = None,
        fill: float = 0,
        dtype: str | np.dtype | None = None,
        layout: str = "NHWC",
        out: np.ndarray | None = None,
        valid: np.ndarray | bool | None = None,
        counts: dict | None = None,
        kernel: str = "cpp",
        threads: int = 0,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """As the function `read`."""
        check_run(kernel, threads)
        check_layout(layout)
        windows, rows, cols = _windows(windows, size, out)
        bands = list(range(self.bands)) if bands is None else [int(b) for b in bands]
        if not bands or min(bands) < 0 or max(bands) >= self.bands:
            raise ValueError(f"bands: expected indices from 0 to {self.bands - 1}, got {bands} ({self.images[0]})")
        area = (len(windows), rows, cols)
        shape = (*area, len(bands)) if layout == "NHWC" else (len(windows), len(bands), rows, cols)
        wanted = None if dtype is None else np.dtype(dtype)
        if wanted is not None and wanted.name not in DTYPES:
            raise ValueError(f"dtype: expected {', '.join(DTYPES)}, got {wanted}")
        if out is None:
            out = np.empty(shape, wanted or self.dtype)
        check_array("out", out, DTYPES if wanted is None else wanted.name, shape, writeable=True)
        fits = np.can_cast(self.dtype, out.dtype, "safe")
        if wanted is None and not fits:
            raise ValueError(
                f"out: {out.dtype} cannot hold the {self.dtype} pixels of {self.images[0]}; "
                f"pass dtype={out.dtype.name!r} to have them rounded and clipped"
            )
        for held in (out.dtype,) if fits else (out.dtype, self.dtype):
            if held.kind != "f" and not (float(fill).is_integer() and _holds(held, fill)):
                raise ValueError(f"fill: {held} has no value {fill!r}")
        pair = valid is True
        if pair:
            valid = np.empty(area, np.uint8)
        elif valid is False:
            valid = None
        if valid is not None:
            check_array("valid", valid, "uint8", area, writeable=True)

        def read_into(windows: np.ndarray, out: np.ndarray, valid: np.ndarray | None) -> None:
            if kernel == "cpp":
                blocks = self._stack.read(windows, bands, out, float(fill), valid, threads, layout) if out.size else 0
            else:
                options = {"grid": self.grid, "resampling": self._resampling}
                pixels = out if layout == "NHWC" else np.moveaxis(out, 1, 3)
                blocks = reference_read(self.images, windows, bands, fill, pixels, valid, **options)
            if counts is not None:
                counts["blocks"] = counts.get("blocks", 0) + blocks

        if fits:
            read_into(windows, out, valid)
        else:
            step = max(1, CONVERTED // max(1, int(np.prod(shape[1:]))))
            for first in range(0, len(windows), step):
                part = slice(first, first + step)
                pixels = np.empty((len(windows[part]), *shape[1:]), self.dtype)
                read_into(windows[part], pixels, None if valid is None else valid[part])
                _convert(pixels, out[part], fill)
        return (out, valid) if pair else out


def read(
    images: str | Sequence[str],
    windows: np.ndarray,
    *,
    grid: Grid | None = None,
    gsd: float | tuple[float, float] | None = None,
    resampling: str = "bilinear",
    size: int | tuple[int, int] | None = None,
    bands: Sequence[int] | None = None,
    fill: float = 0,
    dtype: str | np.dtype | None = None,
    layout: str = "NHWC",
    out: np.ndarray | None = None,
    valid: np.ndarray | bool | None = None,
    counts: dict | None = None,
    kernel: str = "cpp",
    threads: int = 0,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Windows of one scene.

    images   path, or paths whose bands are stacked in this order
    grid, gsd, resampling  of the pixels that windows count, see Raster
    windows  (n, 4) int64: row, col, rows, cols in pixels of the grid; they may leave it
    size     (rows, cols), or one number for both, of every output; windows may then differ in size, and output pixel
             (i, j) of window (row, col, rows, cols) covers grid rows row + i rows / size[0] to
             row + (i + 1) rows / size[0], columns alike. Windows of that very size are read as without it.
             None: all windows are of one size
    bands    indices from 0 into the stacked imagery bands; None = all. Alpha bands are not imagery
    fill     value of pixels outside the grid, and of pixels of resampled rasters without data
    dtype    of the result: uint8, uint16, int16 or float32. One that cannot hold all pixels gets them rounded (halves
             to even) and clipped to its range, NaN as `fill`. None: that of `out`, else the rasters' own. Resampled
             values are rounded in integers, and are not in float32
    layout   NHWC: (n, rows, cols, bands); NCHW: (n, bands, rows, cols)
    out      of that shape, C-contiguous; made when None. Without `dtype` it must hold the rasters' own
    valid    True: return a mask as well; or the (n, rows, cols) uint8 array to write it to. 1 where every raster has
             data. No data is: outside the grid, or the raster; alpha or mask of 0; every selected band of a raster
             nodata or NaN. A resampled pixel has data when one of the pixels that it is made of has
    counts   a dict whose "blocks" grows by the number of blocks decoded, without those that GDAL warps
    threads  0 = all cores

    Returns pixels uint8, uint16, int16 or float32 (32-bit integers and doubles become float32); with valid=True the
    pair (pixels, valid).
    Raises FileNotFoundError, or ValueError naming the file or argument.
    """
    raster = Raster(images, grid=grid, gsd=gsd, resampling=resampling)
    options = {"size": size, "bands": bands, "fill": fill, "dtype": dtype, "layout": layout}
    return raster.read(windows, **options, out=out, valid=valid, counts=counts, kernel=kernel, threads=threads)


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
    grid: Grid | None = None,
    resampling: str = "bilinear",
) -> int:
    """The plain loop: GDAL's Python bindings read or warp each window of each raster, and NumPy resamples along axes.

    Returns 0 (no blocks counted).
    """
    from osgeo import gdal

    gdal.UseExceptions()
    layers = [_Layer(path, gdal) for path in images]
    grid = layers[0].grid if grid is None else grid
    size = out.shape[1:3]
    first_band = 0
    out[...] = fill
    if valid is not None:
        valid[...] = 0
    parts = [_part_on_grid(window, size, grid) for window in windows.tolist()]
    for i, part in enumerate(parts):
        if valid is not None:
            valid[i][part] = 1
    for layer in layers:
        here = [(t, b - first_band) for t, b in enumerate(bands) if 0 <= b - first_band < len(layer.imagery)]
        first_band += len(layer.imagery)
        if not here:
            continue
        targets, sources = map(list, zip(*here))
        for i, (window, part) in enumerate(zip(windows.tolist(), parts)):
            if 0 in out[i][part].shape:
                continue
            if layer.on(grid) and tuple(window[2:]) == size:
                pixels, data = layer.cut(window, part, sources)
            else:
                make = layer.resample if layer.separable(grid, resampling) else layer.warp
                found = make(grid, window, size, sources, fill, resampling, out.dtype)
                pixels, data = (f[part] for f in found)
            out[i][part][..., targets] = pixels
            if valid is not None:
                valid[i][part] &= data
    return 0


def _part_on_grid(window: Sequence[int], size: tuple[int, int], grid: Grid) -> tuple[slice, slice]:
    """The output pixels of a window whose centres lie on the grid."""
    row, col, rows, cols = window
    y = row + (np.arange(size[0]) + 0.5) * rows / size[0]
    x = col + (np.arange(size[1]) + 0.5) * cols / size[1]
    return slice(*np.searchsorted(y, (0, grid.rows)).tolist()), slice(*np.searchsorted(x, (0, grid.cols)).tolist())


class _Layer:
    """A raster of the reference."""

    def __init__(self, path: str, gdal: object):
        self.path, self.gdal = path, gdal
        self.dataset = gdal.Open(path)
        every = [self.dataset.GetRasterBand(b + 1) for b in range(self.dataset.RasterCount)]
        alpha = [b for b in every if b.GetColorInterpretation() == gdal.GCI_AlphaBand]
        self.imagery = [b for b in every if b.GetColorInterpretation() != gdal.GCI_AlphaBand] or alpha
        self.alpha = alpha[-1] if alpha and len(self.imagery) < len(every) else None
        self.masked = self.alpha is None and bool(self.imagery[0].GetMaskFlags() & gdal.GMF_PER_DATASET)
        shape = self.dataset.RasterYSize, self.dataset.RasterXSize
        self.grid = Grid(*shape, self.dataset.GetGeoTransform(), self.dataset.GetProjection() or None)

    def one_crs(self, grid: Grid) -> bool:
        from osgeo import osr

        if self.grid.crs is None or grid.crs is None:
            return True
        ours, theirs = osr.SpatialReference(), osr.SpatialReference()
        ours.SetFromUserInput(self.grid.crs)
        theirs.SetFromUserInput(grid.crs)
        return bool(ours.IsSame(theirs))

    def on(self, grid: Grid) -> bool:
        same = (self.grid.rows, self.grid.cols) == (grid.rows, grid.cols) and self.one_crs(grid)
        return same and np.allclose(_pixels_to_pixels(self.grid.transform, grid.transform), IDENTITY, rtol=0, atol=1e-6)

    def cut(self, window: Sequence[int], part: tuple[slice, slice], sources: Sequence[int]) -> tuple:
        """Pixels (rows, cols, bands) and where there is data, of a window's part on the raster."""
        row, col = window[:2]
        down, across = part
        box = (col + across.start, row + down.start, across.stop - across.start, down.stop - down.start)
        pixels = [self.imagery[b].ReadAsArray(*box) for b in sources]
        missing = np.ones(pixels[0].shape, bool)
        for b, values in zip(sources, pixels):
            nodata = self.imagery[b].GetNoDataValue()
            none = np.zeros(values.shape, bool) if nodata is None else values == nodata
            missing &= none | np.isnan(values) if values.dtype.kind == "f" else none
        if self.alpha is not None:
            missing |= self.alpha.ReadAsArray(*box) == 0
        elif self.masked:
            missing |= self.imagery[0].GetMaskBand().ReadAsArray(*box) == 0
        return np.stack(pixels, axis=-1), ~missing

    def warp(
        self,
        grid: Grid,
        window: Sequence[int],
        size: tuple[int, int],
        sources: Sequence[int],
        fill: float,
        resampling: str,
        dtype: np.dtype,
    ) -> tuple:
        """Pixels (rows, cols, bands) and where there is data, of a window of the grid, by gdal.Warp."""
        from osgeo import gdal_array

        gdal = self.gdal
        row, col, rows, cols = window
        plain = (rows, cols) == size  # then all of the grid is warped, so that a pixel is the same in all windows
        shape = (grid.rows, grid.cols) if plain else size
        out_to_grid = _out_to_grid(window, size)
        one_crs = self.one_crs(grid)
        # Pixels of the raster under one of the output, at the raster's middle.
        if one_crs:
            to_source = _pixels_to_pixels(grid.transform, self.grid.transform)
            across, down = abs(to_source[1]) + abs(to_source[2]), abs(to_source[4]) + abs(to_source[5])
        else:
            across, down = self._footprint(grid)
        across, down = across * abs(out_to_grid[1]), down * abs(out_to_grid[5])
        source, scale = self._level(across, down, resampling)
        numbers = [self.imagery[b].GetBand() for b in sources] + ([self.alpha.GetBand()] if self.alpha else [])
        source = gdal.Translate("", source, format="VRT", bandList=numbers)
        kind = gdal_array.NumericTypeCodeToGDALTypeCode(dtype)
        target = gdal.GetDriverByName("MEM").Create("", shape[1], shape[0], len(sources) + 1, kind)
        target.GetRasterBand(len(sources) + 1).SetColorInterpretation(gdal.GCI_AlphaBand)
        if one_crs:
            to_level = (0, 1 / scale[1], 0, 0, 0, 1 / scale[0])
            place = _compose(_compose(to_level, to_source), out_to_grid)
            transformer = ["SRC_METHOD=NO_GEOTRANSFORM"]
        else:
            place = _compose(grid.transform, out_to_grid)
            transformer = [f"SRC_SRS={self.grid.crs}", f"DST_SRS={grid.crs}"]
        target.SetGeoTransform(place)
        for b in range(len(sources)):
            target.GetRasterBand(b + 1).Fill(float(fill))
        bands = [self.imagery[b] for b in sources]
        nodata = [b.GetNoDataValue() for b in bands]
        if any(v is not None for v in nodata) or bands[0].DataType in (gdal.GDT_Float32, gdal.GDT_Float64):
            absent = "nan" if bands[0].DataType in (gdal.GDT_Float32, gdal.GDT_Float64) else "-1.1e20"
            nodata = " ".join(absent if v is None else repr(v) for v in nodata)
        else:
            nodata = None
        gdal.Warp(
            target,
            source,
            resampleAlg={"nearest": "near"}.get(resampling, resampling),
            errorThreshold=0,
            srcNodata=nodata,
            transformerOptions=transformer,
            overviewLevel="NONE",
            warpOptions=[
                f"INIT_DEST={float(fill)!r}",
                "UNIFIED_SRC_NODATA=NO",
                f"XSCALE={1 / (across * (1 / scale[1]))!r}",
                f"YSCALE={1 / (down * (1 / scale[0]))!r}",
                "SAMPLE_GRID=YES",
            ],
        )
        found = target.ReadAsArray().transpose(1, 2, 0)
        if plain:
            found = np.pad(found, [(rows, rows), (cols, cols), (0, 0)])[rows + row :, cols + col :][:rows, :cols]
        pixels, data = found[..., :-1], found[..., -1] != 0
        return pixels, data & ~np.isnan(pixels).all(axis=-1) if pixels.dtype.kind == "f" else data

    def _level(self, across: float, down: float, resampling: str) -> tuple:
        """The dataset for pixels of so many columns and rows of the raster, and its rows and columns per one of it."""
        gdal = self.gdal
        level, best = -1, 1.0
        scale = (1.0, 1.0)
        for i in range(0 if resampling == "nearest" else self.imagery[0].GetOverviewCount()):
            overview = self.imagery[0].GetOverview(i)
            factor = self.grid.rows / overview.YSize, self.grid.cols / overview.XSize
            usable = not self.masked or overview.GetMaskFlags() & gdal.GMF_PER_DATASET
            if usable and factor[0] <= down * 1.01 and factor[1] <= across * 1.01 and factor[0] * factor[1] > best:
                level, best, scale = i, factor[0] * factor[1], factor
        return gdal.OpenEx(self.path, open_options=[f"OVERVIEW_LEVEL={level}"] if level >= 0 else []), scale

    def separable(self, grid: Grid, resampling: str) -> bool:
        """Whether the raster's rows and columns are resampled one after the other; else GDAL warps it."""
        if resampling not in SEPARABLE or not self.one_crs(grid):
            return False
        to_source = _pixels_to_pixels(grid.transform, self.grid.transform)
        return to_source[2] == to_source[4] == 0

    def resample(
        self,
        grid: Grid,
        window: Sequence[int],
        size: tuple[int, int],
        sources: Sequence[int],
        fill: float,
        resampling: str,
        dtype: np.dtype,
    ) -> tuple:
        """Pixels (rows, cols, bands) and where there is data, of a window of the grid; sums in float32."""
        to_source = _pixels_to_pixels(grid.transform, self.grid.transform)
        out_to_grid = _out_to_grid(window, size)
        across, down = abs(to_source[1] * out_to_grid[1]), abs(to_source[5] * out_to_grid[5])
        source, scale = self._level(across, down, resampling)
        to = _compose(_compose((0, 1 / scale[1], 0, 0, 0, 1 / scale[0]), to_source), out_to_grid)
        plain = tuple(window[2:]) == size
        first_row, first_col = window[:2] if plain else (0, 0)
        axes = (
            _taps(resampling, to[3], to[5], np.arange(first_row, first_row + size[0]), source.RasterYSize),
            _taps(resampling, to[0], to[1], np.arange(first_col, first_col + size[1]), source.RasterXSize),
        )
        # What the weights reach, at least one pixel.
        (top, bottom), (left, right) = (_reached(*taps) for taps in axes)
        box = left, top, right - left, bottom - top
        bands = [source.GetRasterBand(self.imagery[b].GetBand()) for b in sources]
        values = np.stack([band.ReadAsArray(*box) for band in bands], axis=-1)
        missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
        for k, band in enumerate(bands):
            nodata = band.GetNoDataValue()
            if nodata is not None:
                missing[..., k] |= values[..., k] == nodata
        if self.alpha is not None:
            missing |= source.GetRasterBand(self.alpha.GetBand()).ReadAsArray(*box)[..., None] == 0
        elif self.masked:
            missing |= bands[0].GetMaskBand().ReadAsArray(*box)[..., None] == 0
        found = np.where(missing, 0, values).astype(np.float32)
        gaps = missing.astype(np.float32)
        for axis, (begin, (first, weights)) in enumerate(zip((top, left), axes)):
            found, gaps = (_weigh(part, first - begin, weights, axis) for part in (found, gaps))
        share = 1 - gaps
        reached = np.ix_(*((weights > 0).any(axis=1) for _, weights in axes))
        has = np.zeros(found.shape, bool)
        has[reached] = share[reached] > 1e-5
        np.divide(found, share, out=found, where=has & (gaps != 0))
        if dtype.kind != "f":
            limits = np.iinfo(dtype)
            found = np.floor(np.clip(found, limits.min, limits.max) + np.float32(0.5))
        return np.where(has, found, fill).astype(dtype), has.any(axis=-1)

    def _footprint(self, grid: Grid) -> tuple[float, float]:
        """Columns and rows of the raster under the pixel of a grid in another CRS, around the raster's middle."""
        gdal = self.gdal
        blank = gdal.GetDriverByName("MEM").Create("", 1, 1, 0)
        blank.SetGeoTransform(grid.transform)
        options = [f"SRC_SRS={self.grid.crs}", f"DST_SRS={grid.crs}"]
        transformer = gdal.Transformer(self.dataset, blank, options)
        _, (x, y, _) = transformer.TransformPoint(False, self.grid.cols / 2, self.grid.rows / 2)
        at = [transformer.TransformPoint(True, x + dx, y + dy)[1] for dx, dy in ((0, 0), (1, 0), (0, 1))]
        across, down = (abs(at[1][k] - at[0][k]) + abs(at[2][k] - at[0][k]) for k in (0, 1))
        return across, down


def _out_to_grid(window: Sequence[int], size: tuple[int, int]) -> tuple[float, ...]:
    """Pixels of a window's output as pixels of the grid; as they are when the window is of the output's size."""
    row, col, rows, cols = window
    return IDENTITY if (rows, cols) == size else (col, cols / size[1], 0.0, row, 0.0, rows / size[0])


def _taps(resampling: str, origin: float, step: float, outputs: np.ndarray, extent: int) -> tuple:
    """First pixel (n,) and weights (n, most) of output pixels along an axis, the formula of cpp/raster/resample.h."""
    centre = origin + step * (outputs + 0.5)
    pixel = np.floor(centre + 1e-10)
    if resampling == "nearest":
        inside = (pixel >= 0) & (pixel < extent)
        return np.where(inside, pixel, 0).astype(int), inside[:, None].astype(np.float32)
    reach = abs(step) / 2 if resampling == "average" else max(1.0, abs(step))
    first = np.clip(np.floor(centre - reach), 0, extent)
    p = first[:, None] + np.arange(math.ceil(2 * reach) + 2)
    low, high = (centre - reach)[:, None], (centre + reach)[:, None]
    if resampling == "bilinear":
        weights = 1 - np.abs(p + 0.5 - centre[:, None]) / reach
        weights[(pixel < 0) | (pixel >= extent)] = 0
    else:
        weights = np.minimum(p + 1, high) - np.maximum(p, low)
    weights[(weights <= 1e-10) | (p >= extent)] = 0
    total = sum(weights.T)  # in this order
    return first.astype(int), (weights / np.where(total > 0, total, 1)[:, None]).astype(np.float32)


def _reached(first: np.ndarray, weights: np.ndarray) -> tuple[int, int]:
    """The pixels [begin, end) that have a weight; [0, 1) when none has."""
    some, k = np.nonzero(weights)
    at = first[some] + k
    return (int(at.min()), int(at.max()) + 1) if len(at) else (0, 1)


def _weigh(values: np.ndarray, first: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Sums along an axis, from the first pixel to the last."""
    found = np.zeros((len(first), *np.delete(values.shape, axis)), np.float32)
    source = np.moveaxis(values, axis, 0)
    for k, weight in enumerate(weights.T):
        some = weight > 0
        found[some] += weight[some, None, None] * source[first[some] + k]
    return np.moveaxis(found, 0, axis)


def _compose(outer: Sequence[float], inner: Sequence[float]) -> tuple[float, ...]:
    """First `inner`, then `outer`, both GDAL's six numbers."""
    a, b = outer, inner
    return (
        *(a[0] + a[1] * b[0] + a[2] * b[3], a[1] * b[1] + a[2] * b[4], a[1] * b[2] + a[2] * b[5]),
        *(a[3] + a[4] * b[0] + a[5] * b[3], a[4] * b[1] + a[5] * b[4], a[4] * b[2] + a[5] * b[5]),
    )


def _pixels_to_pixels(b: Sequence[float], a: Sequence[float]) -> tuple[float, ...]:
    """Pixels of a grid with transform b as pixels of one with transform a."""
    d = a[1] * a[5] - a[2] * a[4]
    inverse = (0, a[5] / d, -a[2] / d, 0, -a[4] / d, a[1] / d)
    return _compose(inverse, (b[0] - a[0], b[1], b[2], b[3] - a[3], b[4], b[5]))


def cases() -> list[tuple[str, dict]]:
    """(name, arguments) for the parity test: tiled, striped, odd, off-edge, stacked, masked, coarser, stretched."""
    from osgeo import gdal, gdal_array

    gdal.UseExceptions()
    noise = np.random.default_rng(7)

    def raster(name: str, array: np.ndarray, options: Iterable[str], nodata: float | None = None) -> str:
        path = f"/vsimem/rvkernels/cases/{name}.tif"
        rows, cols, bands = array.shape
        kind = gdal_array.NumericTypeCodeToGDALTypeCode(array.dtype)
        made = gdal.GetDriverByName("GTiff").Create(path, cols, rows, bands, kind, ["ALPHA=NO", *options])
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
    found.append(("planes", {"images": paths["uint8_tiled"], "windows": windows, "valid": True, "layout": "NCHW"}))
    found.append(("stacked", {"images": both, "windows": windows, "bands": [6, 1, 3, 0], "fill": 9, "valid": True}))
    found.append(("coarser", {"images": paths["uint8_tiled"], "windows": windows, "gsd": 1.7, "valid": True}))
    mixed = windows.copy()
    mixed[::2, 2:] = 90, 31
    options = {"images": both, "windows": mixed, "size": (40, 50), "resampling": "average", "valid": True}
    found.append(("stretched", options))
    return found


def _paths(images: str | Sequence[str]) -> list[str]:
    return [str(images)] if isinstance(images, str) or hasattr(images, "__fspath__") else [str(i) for i in images]


def _windows(
    windows: np.ndarray, size: int | tuple[int, int] | None, out: np.ndarray | None
) -> tuple[np.ndarray, int, int]:
    """Windows as int64 (n, 4), and the rows and columns of every output."""
    windows = np.asarray(windows)
    if size is not None:
        rows, cols = (operator.index(v) for v in ((size, size) if np.ndim(size) == 0 else size))
        if rows <= 0 or cols <= 0:
            raise ValueError(f"size: expected positive rows and columns, got {size}")
    if windows.size == 0:
        if size is None:
            rows, cols = out.shape[1:3] if out is not None and out.ndim == 4 else (0, 0)
        return np.empty((0, 4), np.int64), rows, cols
    if windows.ndim != 2 or windows.shape[1] != 4 or windows.dtype.kind not in "iu":
        raise ValueError(f"windows: expected integers (n, 4), got {windows.dtype} {windows.shape}")
    windows = np.ascontiguousarray(windows, np.int64)
    if (windows[:, 2:] <= 0).any() or (np.abs(windows) > FARTHEST).any():
        raise ValueError("windows: rows and cols must be positive, and all numbers within 2^31")
    if size is None:
        rows, cols = (int(v) for v in windows[0, 2:])
        if (windows[:, 2:] != (rows, cols)).any():
            raise ValueError("windows: rows and cols must be the same in all windows of a call without `size`")
    return windows, rows, cols


def _convert(pixels: np.ndarray, out: np.ndarray, fill: float) -> None:
    """Write `pixels` to `out`, of an integer dtype: rounded (halves to even), clipped to its range, NaN as `fill`."""
    limits = np.iinfo(out.dtype)
    low, high = limits.min, limits.max
    if pixels.dtype.kind == "f":
        pixels = np.where(np.isnan(pixels), pixels.dtype.type(fill), np.rint(pixels))
    else:  # bounds beyond its own dtype are none
        own = np.iinfo(pixels.dtype)
        low, high = max(low, own.min), min(high, own.max)
    np.copyto(out, np.clip(pixels, low, high), casting="unsafe")


def _holds(dtype: np.dtype, value: float) -> bool:
    limits = np.iinfo(dtype)
    return limits.min <= value <= limits.max
