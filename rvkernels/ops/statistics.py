"""Statistics of bands over any number of images, exact and in any order.

Sums are kept as whole numbers, so that the result is the same for any portions, order, merging and number of threads;
mean and variance are rounded once, at the end.

Integers are counted in a histogram with one bin per value, from which everything follows. A float32 value is
m * 2^(e - 150) with a whole number m below 2^24, so its sums per exponent e are whole, too; quantiles of float32
come from a histogram over the upper 16 bits of the values.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from rvkernels.ops import core
from rvkernels.ops._checks import check_array, check_run

if TYPE_CHECKING:
    from rvkernels.ops.tile import Raster

TOLERANCE = 0
BINS = {"uint8": 256, "uint16": 65536, "int16": 65536, "float32": 65536}
EXPONENTS = 256
QUANTILES = (0.01, 0.02, 0.05, 0.25, 0.5, 0.75, 0.95, 0.98, 0.99)
SHOWN_BINS = 256


class Statistics:
    """Running statistics of `bands` bands of dtype uint8, uint16, int16 or float32.

    add() images, add_rasters() files, merge() what was counted elsewhere, summary() at any time.
    Memory: 2 KiB per band for uint8, 512 KiB otherwise.
    """

    def __init__(self, bands: int, dtype: str | np.dtype, *, kernel: str = "cpp", threads: int = 0) -> None:
        check_run(kernel, threads)
        self.dtype = np.dtype(dtype).name
        if self.dtype not in BINS:
            raise ValueError(f"dtype: expected one of {', '.join(BINS)}, got {self.dtype}")
        if bands < 1:
            raise ValueError(f"bands: expected at least 1, got {bands}")
        self.bands, self.kernel, self.threads = bands, kernel, threads
        self.pixels = 0
        # Integers: one bin per value from the least. float32: bins of the upper half of the ordered bits.
        self.histogram = np.zeros((bands, BINS[self.dtype]), np.int64)
        # float32 only: sums of m, and of m * m as low and high 32 bits, per exponent; least and greatest ordered bits.
        self.sums = np.zeros((bands, 3, EXPONENTS), np.int64)
        self.extrema = np.tile(np.array([2**32 - 1, 0], np.uint32), (bands, 1))

    def add(self, images: np.ndarray, valid: np.ndarray | None = None) -> None:
        """Count images.

        images  (..., bands) of the dtype, C-contiguous
        valid   uint8 or bool of the same shape without the bands; pixels with 0 are nodata. None: all are valid.
        float32 values that are not finite are left out of their band's count.
        Raises ValueError for another shape or dtype.
        """
        if not isinstance(images, np.ndarray) or images.ndim < 1 or images.shape[-1] != self.bands:
            raise ValueError(
                f"images: expected shape (..., {self.bands}), got {getattr(images, 'shape', type(images))}"
            )
        check_array("images", images, self.dtype, None)
        mask = None
        if valid is not None:
            mask = check_array("valid", valid, ("uint8", "bool"), images.shape[:-1]).reshape(-1).view(np.uint8)
        pixels = images.reshape(-1, self.bands)
        if self.kernel == "reference":
            reference_statistics(pixels, mask, *self._totals())
        else:
            getattr(core(), f"statistics_{self.dtype}")(pixels, mask, *self._totals(), self.threads)
        self.pixels += len(pixels)

    def add_rasters(
        self, images: str | Sequence[str], windows: np.ndarray | None = None, *, bands: Sequence[int] | None = None
    ) -> int:
        """Count pixels of files, block by block as they are decoded; each block once, all threads, nothing kept.

        images   path, or paths of one grid whose bands are stacked, as ops.tile.read takes
        windows  (n, 4) int64: row, col, rows, cols of any sizes; None = all pixels. What lies outside the raster is no
                 pixel; where windows overlap, pixels count in each
        bands    indices from 0 into the stacked imagery bands, as many as this object has; None = all
        Pixels without data (nodata, alpha or mask of 0, as ops.tile.read's `valid` says) are nodata.
        Returns the number of blocks decoded. Raises FileNotFoundError, or ValueError naming the file or argument, also
        when this dtype cannot hold the files' values.
        """
        from rvkernels.ops import tile  # only here: most environments have no GDAL

        source = tile.Raster(images)
        if not np.can_cast(source.dtype, self.dtype, "safe"):
            raise ValueError(f"{source.images[0]}: {source.dtype} pixels do not fit in statistics of {self.dtype}")
        bands = list(range(source.bands)) if bands is None else [int(b) for b in bands]
        if len(bands) != self.bands or min(bands) < 0 or max(bands) >= source.bands:
            raise ValueError(
                f"bands: expected {self.bands} indices from 0 to {source.bands - 1}, got {bands} ({source.images[0]})"
            )
        if windows is None:
            windows = np.array([[0, 0, source.rows, source.cols]], np.int64)
        check_array("windows", windows, "int64", ("n", 4))
        if (windows[:, 2:] <= 0).any():
            raise ValueError("windows: rows and cols must be positive")
        if self.kernel == "reference":
            pixels, blocks = reference_rasters(source, windows, bands, self.dtype, *self._totals()), 0
        else:
            pixels, blocks = source._stack.statistics(windows, bands, self.dtype, *self._totals(), self.threads)
        self.pixels += pixels
        return blocks

    def _totals(self) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """What grows; sums and extrema are of float32 only."""
        return (self.histogram, self.sums, self.extrema) if self.dtype == "float32" else (self.histogram, None, None)

    def merge(self, other: Statistics) -> None:
        """Add what `other` counted; the same as if its images had been added here."""
        if (other.bands, other.dtype) != (self.bands, self.dtype):
            raise ValueError(
                f"statistics: cannot merge {other.bands} bands of {other.dtype} into {self.bands} of {self.dtype}"
            )
        self.pixels += other.pixels
        self.histogram += other.histogram
        self.sums += other.sums
        self.extrema[:, 0] = np.minimum(self.extrema[:, 0], other.extrema[:, 0])
        self.extrema[:, 1] = np.maximum(self.extrema[:, 1], other.extrema[:, 1])

    def summary(self, quantiles: Iterable[float] = QUANTILES) -> dict:
        """What was counted, as plain numbers for JSON. Per band, unless said otherwise:

        mean, std     of the valid values; population variance; exact sums, rounded once
        min, max      in the dtype's numbers
        quantiles     {"0.5": [...]}: the least value with at least that share of the values at or below it; for
                      float32 the middle of that value's bin, at most 0.4 % off, within [min, max]
        histogram     {"edges": [257 numbers], "counts": bands x 256}, equal bins over all bands' range; float32 values
                      are placed by the middle of their fine bin
        count         valid values
        nodata_share  one number: the share of all values that was not valid
        Raises ValueError when a band has no valid value, or a quantile is outside [0, 1].
        """
        counts = self.histogram.sum(1).tolist()
        for band, count in enumerate(counts):
            if count == 0:
                raise ValueError(
                    f"band {band} has no valid value among {self.pixels} pixels; check nodata and the images"
                )
        moments = [self._moments(band) for band in range(self.bands)]
        low, high = zip(*(self._extrema(band) for band in range(self.bands)))
        return {
            "mean": [float(Fraction(first) / n) for (first, _), n in zip(moments, counts)],
            "std": [_root((square * n - first * first) / (n * n)) for (first, square), n in zip(moments, counts)],
            "min": list(low),
            "max": list(high),
            "quantiles": {str(q): [self._quantile(band, q) for band in range(self.bands)] for q in quantiles},
            "histogram": self._shown(min(low), max(high)),
            "count": counts,
            "nodata_share": 1 - sum(counts) / (self.pixels * self.bands),
        }

    @property
    def _least(self) -> int:
        """The value of an integer's first bin."""
        return int(np.iinfo(self.dtype).min)

    def _moments(self, band: int) -> tuple[Fraction, Fraction]:
        """Exact sum and sum of squares."""
        if self.dtype != "float32":
            filled = np.flatnonzero(self.histogram[band])
            counts = self.histogram[band, filled].tolist()
            pairs = list(zip((filled + self._least).tolist(), counts))
            return Fraction(sum(v * n for v, n in pairs)), Fraction(sum(v * v * n for v, n in pairs))
        first = square = 0
        for e, (m, low, high) in enumerate(zip(*self.sums[band].tolist())):
            first += m << e
            square += (low + (high << 32)) << (2 * e)
        return Fraction(first, 2**150), Fraction(square, 2**300)

    def _extrema(self, band: int) -> tuple[int | float, int | float]:
        if self.dtype == "float32":
            least, greatest = _from_ordered(self.extrema[band]).tolist()
            return least, greatest
        filled = np.flatnonzero(self.histogram[band])
        return int(filled[0]) + self._least, int(filled[-1]) + self._least

    def _quantile(self, band: int, q: float) -> int | float:
        if not 0 <= q <= 1:
            raise ValueError(f"quantiles: expected numbers in [0, 1], got {q}")
        running = np.cumsum(self.histogram[band])
        wanted = max(1, math.ceil(Fraction(str(float(q))) * int(running[-1])))  # 0.9 is nine tenths, not its float64
        found = int(np.searchsorted(running, wanted))
        if self.dtype != "float32":
            return found + self._least
        low, high = self._extrema(band)
        return min(max(float(_bin_middles()[found]), low), high)

    def _shown(self, low: int | float, high: int | float) -> dict:
        """All bands' histograms over [low, high] in SHOWN_BINS equal bins."""
        if self.dtype == "float32":
            values = np.clip(_bin_middles().astype(np.float64), low, high)
            width = (high - low) / SHOWN_BINS or 1.0
        else:
            values = np.arange(self.histogram.shape[1]) + self._least
            width = -(-(high - low + 1) // SHOWN_BINS)
        place = np.clip((values - low) // width, 0, SHOWN_BINS - 1).astype(np.int64)
        counts = np.zeros((self.bands, SHOWN_BINS), np.int64)
        for band in range(self.bands):
            np.add.at(counts[band], place, self.histogram[band])
        return {"edges": [low + width * i for i in range(SHOWN_BINS + 1)], "counts": counts.tolist()}


def _root(variance: Fraction) -> float:
    """Square root of an exact number that may lie outside the range of float64 on the way."""
    if variance == 0:
        return 0.0
    shift = (variance.numerator.bit_length() - variance.denominator.bit_length()) // 2
    return math.ldexp(math.sqrt(variance / Fraction(4) ** shift), shift)


def _ordered(values: np.ndarray) -> np.ndarray:
    """uint32 that rise with float32 values: negative ones with all bits turned, others with the sign bit turned."""
    bits = values.view(np.uint32)
    return np.where(bits >> np.uint32(31) != 0, ~bits, bits | np.uint32(1 << 31))


def _from_ordered(order: np.ndarray) -> np.ndarray:
    """The float32 values of ordered bits."""
    return (
        np.where(order >> np.uint32(31) != 0, order & np.uint32(2**31 - 1), ~order).astype(np.uint32).view(np.float32)
    )


@functools.lru_cache(maxsize=1)
def _bin_middles() -> np.ndarray:
    """(65536,) float32: a value in the middle of each bin of the histogram; bins that hold no finite value give 0."""
    middles = _from_ordered((np.arange(BINS["float32"], dtype=np.uint32) << np.uint32(16)) + np.uint32(1 << 15))
    return np.where(np.isfinite(middles), middles, np.float32(0))


def reference_statistics(
    pixels: np.ndarray,
    valid: np.ndarray | None,
    histogram: np.ndarray,
    sums: np.ndarray | None = None,
    extrema: np.ndarray | None = None,
) -> None:
    """Count pixels (n, bands) in NumPy, value by value for float32."""
    least = 0 if pixels.dtype.kind == "f" else int(np.iinfo(pixels.dtype).min)
    if valid is not None:
        pixels = pixels[valid != 0]
    for band in range(pixels.shape[1]):
        values = np.ascontiguousarray(pixels[:, band])
        if sums is None:
            histogram[band] += np.bincount(values.astype(np.int64) - least, minlength=histogram.shape[1])
            continue
        values = values[np.isfinite(values)]
        order = _ordered(values)
        histogram[band] += np.bincount(order >> np.uint32(16), minlength=histogram.shape[1])
        if order.size:
            extrema[band] = min(extrema[band, 0], order.min()), max(extrema[band, 1], order.max())
        for value in values.tolist():
            exponent = max(1, math.frexp(value)[1] + 126) if value else 1
            whole = int(math.ldexp(value, 150 - exponent))
            sums[band, 0, exponent] += whole
            sums[band, 1, exponent] += whole * whole & 0xFFFFFFFF
            sums[band, 2, exponent] += whole * whole >> 32


def reference_rasters(
    source: Raster, windows: np.ndarray, bands: Sequence[int], dtype: str, *totals: np.ndarray | None
) -> int:
    """Read each window's part inside the raster, and count it. Returns the number of pixels."""
    pixels = 0
    for row, col, rows, cols in windows.tolist():
        top, left = max(row, 0), max(col, 0)
        inside = np.array([[top, left, min(row + rows, source.rows) - top, min(col + cols, source.cols) - left]])
        if (inside[:, 2:] > 0).all():
            part, valid = source.read(inside, bands=bands, valid=True, kernel="reference")
            reference_statistics(part.astype(dtype).reshape(-1, len(bands)), valid.reshape(-1), *totals)
            pixels += valid.size
    return pixels


def statistics(images: np.ndarray, valid: np.ndarray | None = None, *, kernel: str = "cpp", threads: int = 0) -> dict:
    """Statistics(...).summary() of images (..., bands) that are all at hand; arguments and errors are as there."""
    if not isinstance(images, np.ndarray) or images.ndim < 1:
        raise ValueError("images: expected an array of shape (..., bands)")
    counted = Statistics(images.shape[-1], images.dtype, kernel=kernel, threads=threads)
    counted.add(images, valid)
    return counted.summary()


op = statistics


def cases() -> list[tuple[str, dict]]:
    """Inputs for the parity test and the benchmark."""
    rng = np.random.default_rng(0)
    listed = []
    for dtype, top in (("uint8", 256), ("uint16", 65536), ("uint16", 4096), ("int16", 65536)):
        images = rng.integers(0, top, (3, 31, 29, 4)).astype(dtype)
        listed.append((f"{dtype} below {top}", {"images": images, "valid": rng.integers(0, 2, (3, 31, 29), np.uint8)}))
    wide = (rng.standard_normal((41, 37, 2)) * 10.0 ** rng.integers(-44, 38, (41, 37, 2))).astype(np.float32)
    narrow = (rng.standard_normal((41, 37, 3)) * 7 + 100).astype(np.float32)
    holes = narrow.copy()
    holes[rng.random(holes.shape) < 0.3] = np.nan
    holes[0, 0] = np.inf
    blocks = rng.integers(90, 140, (9, 1000, 3)).astype(np.uint8)
    return [
        *listed,
        ("uint8 in blocks", {"images": blocks, "valid": (rng.random((9, 1000)) < 0.9).astype(np.uint8)}),
        ("one pixel", {"images": np.array([[7, 255]], np.uint8)}),
        ("one dimension", {"images": np.array([3], np.uint16)}),
        ("float32", {"images": narrow, "valid": rng.random((41, 37)) < 0.5}),
        ("float32, every size", {"images": wide}),
        ("float32 with holes", {"images": holes}),
        ("float32 zeros", {"images": np.array([[0.0], [-0.0]], np.float32)}),
    ]
