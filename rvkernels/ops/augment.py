"""Chips to an augmented, normalised training batch, with the labels and boxes moved along.

Settings (all optional; `check_settings` knows the ranges). Every amount is drawn evenly from its range for each chip:

    flip: true            top-bottom and left-right, each for every second chip
    turn: true            0 to 3 quarter turns; only half turns when the output is not square
    crop: true            output window anywhere in a larger chip; otherwise in its middle
    resized_crop: [0.3, 1]    a window of this share of the chip's area, anywhere in it, stretched to the output; its
                          sides are in proportions of 3:4 to 4:3 of the chip's, log-even (Szegedy et al. 2015)
    scale: [0.8, 1.25]    zoom factor (log-even); above 1 makes objects larger
    rotate: 15            degrees either way
    shift: 0.1            of the output's sides, either way; whole pixels when neither scale nor rotate is set
    brightness: 0.2       values times 1 - 0.2 to 1 + 0.2
    contrast: 0.2         distances from the band's `mean` times 1 - 0.2 to 1 + 0.2
    gamma: 0.2            (value / peak) to the power 1 / 1.2 to 1.2 (log-even), values held to [0, peak] before
    saturation: 0.2       distances from grey times 1 - 0.2 to 1 + 0.2
    hue: 0.02             the colours turned about grey by up to 0.02 of a full turn, either way
    blur: 1.0             Gaussian, standard deviation from 0 to 1.0 pixels
    noise: 0.02           close to Gaussian, standard deviation from 0 to 0.02 of the peak
    cutout: {count: 2, size: 0.2}    windows of this share of each side, replaced by the fill; labels and boxes stay
    channel_drop: 0.1     chance of each band to be replaced by the fill; one band always stays
    peak: 10000           the value of full brightness; 255 for uint8, 65535 for uint16, 32767 for int16 unless given

Saturation and hue are one matrix in the YIQ colour space, on the first three bands, taken as red, green and blue; chips
with fewer bands stay as they are.

Every number comes from Philox (seed, epoch, sample, op), with sample = the chip's row in `images` and op from OPS. So a
chip's augmentation depends neither on the batch it is in, nor on threads, nor on the kernel. cpp/ops/augment.h has the
formulas of the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from rvkernels.ops import core, philox
from rvkernels.ops._checks import check_array, check_run
from rvkernels.ops.normalize import (
    DTYPES,
    OUT_DTYPES,
    band_scale,
    check_dtype,
    check_images,
    check_layout,
    core_output,
    nhwc,
    output,
)
from rvkernels.registry import suggest

TOLERANCE = 0

IGNORE = 255
MIN_SHARE = 0.25  # of a moved box's area that must stay in the image
MIN_SIDE = 2.0  # pixels that a box must keep on each side

# Polynomials of the gamma step, as in cpp/ops/augment.h.
_LOG = np.array([1.4427135, -0.721131861, 0.479348004, -0.367489964, 0.32215482, -0.20659177], np.float32)
_EXP = np.array([0.693121552, 0.240220204, 0.0559196882, 0.00968190935], np.float32)

# Random streams, one per use; see rvkernels/ops/philox.py.
OPS = {
    "flip": 1,
    "turn": 2,
    "crop": 3,
    "scale": 4,
    "rotate": 5,
    "shift": 6,
    "brightness": 7,
    "contrast": 8,
    "gamma": 9,
    "saturation": 10,
    "hue": 11,
    "blur": 12,
    "noise": 13,
    "noise_pixels": 14,
    "cutout": 15,
    "channel_drop": 16,
    "resized_crop": 17,
}

_SWITCHES = ("flip", "turn", "crop")
# Least and greatest value of each number; 0 turns a step off.
_RANGES = {
    "rotate": (0, 180),
    "shift": (0, 1),
    "brightness": (0, 1),
    "contrast": (0, 1),
    "gamma": (0, 3),
    "saturation": (0, 1),
    "hue": (0, 0.5),
    "blur": (0, 10),
    "noise": (0, 1),
    "channel_drop": (0, 1),
}
_SCALE_RANGE = (0.1, 10.0)
_AREA_RANGE = (0.01, 1.0)
_PROPORTION = 4 / 3  # of the sides of a resized crop, at most, either way
_COUNT_RANGE = (0, 64)
_PEAKS = {"uint8": 255.0, "uint16": 65535.0, "int16": 32767.0}
_ONE = 2.0**32  # fixed-point coordinates: units in a pixel
# Output pixel (y, x) of one quarter turn comes from (x, -y) of the source, both seen from the middle.
_QUARTERS = np.array([[[1, 0], [0, 1]], [[0, 1], [-1, 0]], [[-1, 0], [0, -1]], [[0, -1], [1, 0]]], np.float64)
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_RGB = np.linalg.inv(_YIQ)


class Batch(NamedTuple):
    """What `augment` returns; parts whose input was not given are None."""

    images: np.ndarray  # (n, rows, cols, bands), or (n, bands, rows, cols) for NCHW
    labels: np.ndarray | None  # uint8 (n, rows, cols), 255 outside the chip
    boxes: np.ndarray | None  # float32 (m, 4): ymin, xmin, ymax, xmax in pixels of the output
    box_keep: np.ndarray | None  # int64 (m,): the row of each box in the input's boxes
    box_start: np.ndarray | None  # int64 (n + 1,): image i has boxes[box_start[i]:box_start[i + 1]]


class Draw(NamedTuple):
    """The drawn numbers of n chips, as both kernels take them; None where a step is off for all of them."""

    map: np.ndarray  # int64 (n, 6), see cpp/ops/augment.h
    gain: np.ndarray | None = None  # float32 (n,)
    offset: np.ndarray | None = None  # float32 (n, bands)
    gamma: np.ndarray | None = None  # float32 (n,)
    matrix: np.ndarray | None = None  # float32 (n, 3, 3)
    radius: np.ndarray | None = None  # int32 (n,)
    weights: np.ndarray | None = None  # float32 (n, taps)
    noise: np.ndarray | None = None  # float32 (n,): value of one step of the summed bytes
    holes: np.ndarray | None = None  # int32 (n, count, 4): r0, c0, r1, c1
    dropped: np.ndarray | None = None  # uint8 (n, bands)


class Moves(NamedTuple):
    """source = centre + matrix (output - origin), (y, x) in pixels, for n chips."""

    matrix: np.ndarray  # float64 (n, 2, 2)
    origin: np.ndarray  # float64 (n, 2)
    centre: np.ndarray  # float64 (n, 2)


def augment(
    images: np.ndarray,
    index: np.ndarray,
    *,
    seed: int,
    epoch: int,
    mean: np.ndarray | None = None,
    std: np.ndarray | None = None,
    settings: Mapping | None = None,
    size: tuple[int, int] | None = None,
    labels: np.ndarray | None = None,
    boxes: np.ndarray | None = None,
    box_start: np.ndarray | None = None,
    fill: np.ndarray | float | None = None,
    layout: str = "NHWC",
    dtype: str | None = None,
    out: np.ndarray | None = None,
    out_labels: np.ndarray | None = None,
    kernel: str = "cpp",
    threads: int = 0,
) -> Batch:
    """Take, augment and normalise the chips `index` of `images`; see the module's text for `settings`.

    images: (all, rows, cols, bands) uint8, uint16, int16 or float32, C-contiguous, may be a memory map; a chip has
    fewer than 2^31 bytes.
    index: (n,) whole numbers, rows of `images`. labels: uint8 (all, rows, cols), 255 = ignore.
    boxes: float32 (boxes, 4) in pixels of their chip, with box_start int64 (all + 1,).
    mean, std, fill: per band. Without `std`, values are not normalised; `mean` is then needed for contrast only.
    `fill` (mean by default, 0 without) stands outside the chip, in holes and in dropped bands; colour steps and noise
    leave it alone.
    size: (rows, cols) of the output, cut from or laid around the chip's middle; the chip's own by default.
    dtype: of the returned images: "float32" (the default with `std`), "bfloat16" (ml_dtypes.bfloat16), or without `std`
    the type of `images` (the default then). Values are rounded to nearest even, and held to the range of integers.
    out, out_labels: arrays for the images and the labels, to be used again: new memory costs more than filling it.

    A box becomes the axis-aligned hull of its moved corners, clipped to the image. It is dropped when less than a
    quarter of the hull's area is left, or when its shorter side falls below 2 pixels and was longer before.
    Boxes are moved, and the numbers drawn, here for every kernel; `kernel` chooses who makes the pixels and labels.

    Raises ValueError naming the argument or setting that does not fit; ImportError without ml_dtypes when bfloat16 is
    asked for.
    """
    check_run(kernel, threads)
    chips = check_images("images", images)
    check_layout(layout)
    total, rows, cols, bands = images.shape
    settings = check_settings(settings, dtype=chips)
    index = _check_index(index, total)
    size = _check_size(size, (rows, cols))
    out_dtype = _out_dtype(dtype, chips, std is not None)
    scale = None if std is None else band_scale(mean, std, bands)
    mean = _check_mean(mean, bands, settings)
    fill = _check_fill(fill, mean)
    peak = _peak(settings, chips)
    out_labels = _check_labels(labels, out_labels, images.shape[:3], (len(index), *size))
    if boxes is not None:
        _check_boxes(boxes, box_start, total)
    out = output(out, (len(index), *size, bands), layout, out_dtype)

    numbers = Numbers(seed, epoch, index, settings, bands, kernel)
    moves = draw_moves(numbers, settings, (rows, cols), size)
    draw = draw_pixels(numbers, settings, moves, size, mean, peak)
    if kernel == "reference":
        _reference(images, index, draw, numbers, scale, fill, peak, nhwc(out, layout), labels, out_labels)
    else:
        target, bfloat16 = core_output(out)
        core().augment(
            images=images,
            index=index,
            **draw._asdict(),
            mean=None if scale is None else scale[0],
            inverse=None if scale is None else scale[1],
            fill=fill,
            peak=peak,
            seed=numbers.seed,
            epoch=numbers.epoch,
            noise_op=OPS["noise_pixels"],
            planar=layout == "NCHW",
            labels=labels,
            out=target,
            bfloat16=bfloat16,
            out_labels=out_labels,
            threads=threads,
        )
    if boxes is None:
        return Batch(out, out_labels, None, None, None)
    return Batch(out, out_labels, *move_boxes(boxes, box_start, index, moves, size))


def check_settings(settings: Mapping | None, *, dtype: str | None = None, where: str = "augment") -> dict:
    """The settings with every key that is on, as plain numbers; what is false or 0 is left out.

    dtype: the chips' type, when it is known; float32 chips need `peak` for gamma and noise.
    Raises ValueError naming `where` and the key: unknown (with a suggestion), of the wrong kind, or out of range.
    """
    if settings is not None and not isinstance(settings, Mapping):
        raise ValueError(f"{where}: expected a mapping of augmentations, got {settings!r}")
    known = [*_SWITCHES, "resized_crop", "scale", *_RANGES, "cutout", "peak"]
    found: dict = {}
    for key, value in (settings or {}).items():
        name = f"{where}.{key}"
        if key not in known:
            raise ValueError(f"{where}: unknown setting {key!r}; {suggest(str(key), known)}")
        if key in _SWITCHES:
            if not isinstance(value, (bool, np.bool_)):
                raise ValueError(f"{name}: expected true or false, got {value!r}")
        elif key in ("scale", "resized_crop"):
            what, limits = ("zoom factor", _SCALE_RANGE) if key == "scale" else ("share of the area", _AREA_RANGE)
            if isinstance(value, str) or np.shape(value) != (2,) or not value[0] <= value[1]:
                raise ValueError(f"{name}: expected [least, greatest] {what}, got {value!r}")
            value = tuple(_number(name, v, *limits) for v in value)
            value = None if value == (1.0, 1.0) else value
        elif key == "cutout":
            value = _check_cutout(name, value)
        elif key == "peak":
            value = _number(name, value, 0, math.inf)
        else:
            value = _number(name, value, *_RANGES[key])
        if value:
            found[key] = value
    if dtype is not None:
        if dtype not in DTYPES:
            raise ValueError(f"{where}: expected chips of dtype {', '.join(DTYPES)}, got {dtype}")
        if _peak(found, dtype) == 0 and ("gamma" in found or "noise" in found):
            raise ValueError(f"{where}: gamma and noise of float32 chips need `peak`, the value of full brightness")
    return found


def _number(name: str, value: object, least: float, greatest: float) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ValueError(f"{name}: expected a number, got {value!r}")
    if not least <= value <= greatest or math.isinf(value):
        raise ValueError(f"{name}: expected {least:g} to {greatest:g}, got {value!r}")
    return float(value)


def _check_cutout(name: str, value: object) -> dict | None:
    if not value:
        return None
    if not isinstance(value, Mapping) or set(value) != {"count", "size"}:
        raise ValueError(f"{name}: expected {{count: windows, size: share of a side}}, got {value!r}")
    count = _number(f"{name}.count", value["count"], *_COUNT_RANGE)
    if count != int(count):
        raise ValueError(f"{name}.count: expected a whole number, got {value['count']!r}")
    size = _number(f"{name}.size", value["size"], 0, 1)
    return {"count": int(count), "size": size} if count and size else None


def _peak(settings: Mapping, dtype: str) -> float:
    return settings.get("peak") or _PEAKS.get(dtype, 0.0)


def _check_index(index: np.ndarray, total: int) -> np.ndarray:
    index = np.asarray(index)
    if index.ndim != 1 or (index.dtype.kind not in "iu" and index.size):
        raise ValueError(f"index: expected whole numbers (n,), got {index.dtype} {index.shape}")
    if index.size and (index.min() < 0 or index.max() >= total):
        raise ValueError(f"index: expected rows 0 to {total - 1} of images, got {index.min()} to {index.max()}")
    return np.ascontiguousarray(index, np.int64)


def _check_size(size: tuple[int, int] | None, chip: tuple[int, int]) -> tuple[int, int]:
    size = chip if size is None else tuple(int(side) for side in size)
    if len(size) != 2 or min(size) < 1 or min(chip) < 1:
        raise ValueError(f"size: expected (rows, cols) of at least one pixel, got {size} for chips of {chip}")
    return size


def _out_dtype(dtype: str | None, chips: str, normalised: bool) -> np.dtype:
    """The type of the output, checked: normalised values are no integers."""
    if dtype is None:
        dtype = "float32" if normalised else chips
    allowed = OUT_DTYPES if normalised else tuple(dict.fromkeys((*OUT_DTYPES, chips)))
    return check_dtype(dtype, allowed)


def _check_mean(mean: np.ndarray | None, bands: int, settings: Mapping) -> np.ndarray:
    """float32 (bands,), 0 when it is not given; contrast needs it."""
    if mean is None:
        if "contrast" in settings:
            raise ValueError("mean: contrast changes the distance from the mean, so it must be given")
        return np.zeros(bands, np.float32)
    return band_scale(mean, np.ones(bands), bands)[0]


def _check_fill(fill: np.ndarray | float | None, mean: np.ndarray) -> np.ndarray:
    if fill is None:
        return mean
    fill = np.asarray(fill, np.float32)
    if fill.shape not in ((), mean.shape):
        raise ValueError(f"fill: expected one number or {len(mean)}, one per band, got shape {fill.shape}")
    return np.ascontiguousarray(np.broadcast_to(fill, mean.shape))


def _check_labels(
    labels: np.ndarray | None, out: np.ndarray | None, shape: tuple[int, ...], out_shape: tuple[int, ...]
) -> np.ndarray | None:
    """The array for the output's labels: None without labels."""
    if labels is None:
        if out is not None:
            raise ValueError("out_labels: there are no labels to put there")
        return None
    check_array("labels", labels, "uint8", shape)
    if out is None:
        return np.empty(out_shape, np.uint8)
    return check_array("out_labels", out, "uint8", out_shape, writeable=True)


def _check_boxes(boxes: np.ndarray, box_start: np.ndarray | None, total: int) -> None:
    check_array("boxes", boxes, "float32", ("boxes", 4))
    if box_start is None or box_start.shape != (total + 1,) or box_start.dtype.kind not in "iu":
        found = "None" if box_start is None else f"{box_start.dtype} {box_start.shape}"
        raise ValueError(f"box_start: expected int64 ({total + 1},), one more than images, got {found}")
    if box_start[0] != 0 or box_start[-1] != len(boxes):
        raise ValueError(f"box_start: expected 0 to {len(boxes)}, got {box_start[0]} to {box_start[-1]}")


class Numbers:
    """The uniform numbers that `settings` need for a batch: sample = the chip's row, stream = a name in OPS.

    They are drawn all at once and by one thread, since a call costs more than its numbers, and a thread more yet.
    """

    def __init__(self, seed: int, epoch: int, index: np.ndarray, settings: Mapping, bands: int, kernel: str) -> None:
        self.seed, self.epoch = philox.check_seed(seed), philox.check_epoch(epoch)
        self._place: dict[str, slice] = {}
        streams = []
        for name, count in _counts(settings, bands).items():
            self._place[name] = slice(4 * len(streams), 4 * len(streams) + count)
            streams += [(block, OPS[name]) for block in range(-(-count // 4))]
        counters = np.empty((len(index), len(streams), 4), np.uint32)
        if streams:
            counters[:, :, :2] = streams
        counters[:, :, 2] = index[:, None]
        counters[:, :, 3] = self.epoch
        words = philox.blocks(counters.reshape(-1, 4), self.seed, kernel=kernel, threads=1)
        self._numbers = philox.to_uniform(words).reshape(len(index), 4 * len(streams)).astype(np.float64)

    def __len__(self) -> int:
        return len(self._numbers)

    def uniform(self, name: str) -> np.ndarray:
        """float64 (n, count) in [0, 1)."""
        return self._numbers[:, self._place[name]]

    def around(self, name: str, amount: float) -> np.ndarray:
        """float64 (n, count), even in [-amount, amount); one 0 for each chip when the step is off."""
        return (self.uniform(name) * 2 - 1) * amount if name in self._place else np.zeros((len(self), 1))


def _counts(settings: Mapping, bands: int) -> dict[str, int]:
    """How many numbers each step draws for a chip."""
    counts = {name: 2 if name in ("flip", "crop", "shift") else 1 for name in OPS if name in settings}
    if "resized_crop" in settings:
        counts["resized_crop"] = 4
    if "cutout" in settings:
        counts["cutout"] = 2 * settings["cutout"]["count"]
    if "channel_drop" in settings:
        counts["channel_drop"] = bands
    return counts


def draw_moves(numbers: Numbers, settings: Mapping, chip: tuple[int, int], size: tuple[int, int]) -> Moves:
    """The geometry of each chip, from checked settings; chip and size are (rows, cols)."""
    n = len(numbers)
    matrix = np.zeros((n, 2, 2))
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1
    if "flip" in settings:
        matrix *= np.where(numbers.uniform("flip") < 0.5, -1.0, 1.0)[:, :, None]
    if "turn" in settings:
        draws = numbers.uniform("turn")[:, 0]
        turns = np.floor(draws * 4).astype(int) if size[0] == size[1] else 2 * np.floor(draws * 2).astype(int)
        matrix = matrix @ _QUARTERS[turns]
    if "rotate" in settings:
        angle = np.radians(numbers.around("rotate", settings["rotate"])[:, 0])
        cos, sin = np.cos(angle), np.sin(angle)
        matrix = matrix @ np.stack([cos, sin, -sin, cos], axis=1).reshape(n, 2, 2)
    if "scale" in settings:
        least, greatest = settings["scale"]
        factor = least * (greatest / least) ** numbers.uniform("scale")[:, 0]
        matrix = matrix / factor[:, None, None]

    corner = np.empty((n, 2))
    corner[:] = [(c - s) // 2 for c, s in zip(chip, size)]
    if "crop" in settings:
        room = np.maximum([c - s + 1 for c, s in zip(chip, size)], 1)
        corner = np.where(room > 1, np.floor(numbers.uniform("crop") * room), corner)
    middle = np.array(size) / 2
    centre = corner + middle
    if "resized_crop" in settings:
        # The window is the whole of the output, whatever was turned: the last step on the way to the source.
        window, centre = _draw_windows(numbers, settings["resized_crop"], chip)
        matrix = (window / size)[:, :, None] * matrix
    origin = np.empty((n, 2))
    origin[:] = middle
    if "shift" in settings:
        shift = numbers.around("shift", settings["shift"]) * size
        origin = origin + (shift if "scale" in settings or "rotate" in settings else np.rint(shift))
    return Moves(matrix, origin, centre)


def _draw_windows(numbers: Numbers, area: tuple[float, float], chip: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Sides and middle, float64 (n, 2) each, of a window in every chip (rows, cols), for the resized crop."""
    draws = numbers.uniform("resized_crop")
    share = area[0] + (area[1] - area[0]) * draws[:, :1]
    tall = np.sqrt(_PROPORTION ** (2 * draws[:, 1:2] - 1))
    sides = np.minimum(np.sqrt(share) * np.concatenate([tall, 1 / tall], axis=1), 1) * chip
    return sides, sides / 2 + draws[:, 2:] * (np.array(chip) - sides)


def draw_pixels(
    numbers: Numbers, settings: Mapping, moves: Moves, size: tuple[int, int], mean: np.ndarray, peak: float
) -> Draw:
    """Everything else that is drawn, and the moves in the kernels' fixed-point form."""
    n = len(numbers)
    start = moves.centre + (moves.matrix @ (0.5 - moves.origin)[:, :, None])[:, :, 0]
    fixed = np.rint(np.concatenate([start[:, :, None], moves.matrix], axis=2) * _ONE).astype(np.int64).reshape(n, 6)
    draw: dict = {"map": fixed}
    if "brightness" in settings or "contrast" in settings:
        bright = 1 + numbers.around("brightness", settings.get("brightness", 0))
        contrast = 1 + numbers.around("contrast", settings.get("contrast", 0))
        draw["gain"] = (bright * contrast)[:, 0]
        draw["offset"] = (1 - contrast) * mean
    if "gamma" in settings:
        draw["gamma"] = (1 + settings["gamma"]) ** numbers.around("gamma", 1)[:, 0]
    if len(mean) >= 3 and ("saturation" in settings or "hue" in settings):
        draw["matrix"] = _colour_matrices(numbers, settings)
    if "blur" in settings:
        sigma = np.maximum(numbers.uniform("blur") * settings["blur"], 1e-3)
        radius = np.ceil(3 * sigma)
        distance = np.arange(math.ceil(3 * settings["blur"]) + 1)
        weights = np.where(distance <= radius, np.exp(-0.5 * (distance / sigma) ** 2), 0)
        draw["weights"] = weights / (2 * weights.sum(axis=1, keepdims=True) - weights[:, :1])
        draw["radius"] = radius[:, 0].astype(np.int32)
    if "noise" in settings:
        # The sum of four bytes has this standard deviation.
        steps = math.sqrt(4 * (256**2 - 1) / 12)
        draw["noise"] = numbers.uniform("noise")[:, 0] * settings["noise"] * peak / steps
    if "cutout" in settings:
        count, share = settings["cutout"]["count"], settings["cutout"]["size"]
        sides = np.maximum(np.rint(np.array(size) * share), 1)
        first = np.floor(numbers.uniform("cutout").reshape(n, count, 2) * size) - sides // 2
        holes = np.concatenate([first, first + sides], axis=2)
        draw["holes"] = np.clip(holes, 0, [*size, *size]).astype(np.int32)
    if "channel_drop" in settings:
        draws = numbers.uniform("channel_drop")
        dropped = draws < settings["channel_drop"]
        dropped[np.arange(n), draws.argmax(axis=1)] = False
        draw["dropped"] = dropped.astype(np.uint8)
    return Draw(**{k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in draw.items()})


def _colour_matrices(numbers: Numbers, settings: Mapping) -> np.ndarray:
    """float64 (n, 3, 3): to YIQ, colour plane stretched and turned, back."""
    n = len(numbers)
    stretch = 1 + numbers.around("saturation", settings.get("saturation", 0))[:, 0]
    angle = 2 * np.pi * numbers.around("hue", settings.get("hue", 0))[:, 0]
    middle = np.zeros((n, 3, 3))
    middle[:, 0, 0] = 1
    middle[:, 1, 1] = middle[:, 2, 2] = stretch * np.cos(angle)
    middle[:, 2, 1] = stretch * np.sin(angle)
    middle[:, 1, 2] = -middle[:, 2, 1]
    return _RGB @ middle @ _YIQ


def move_boxes(
    boxes: np.ndarray, box_start: np.ndarray, index: np.ndarray, moves: Moves, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(boxes, box_keep, box_start) of the chips `index` after `moves`, as Batch has them."""
    counts = np.diff(box_start)[index].astype(np.int64)
    owner = np.repeat(np.arange(len(index)), counts)
    keep = np.arange(counts.sum()) + np.repeat(box_start[index].astype(np.int64) - (np.cumsum(counts) - counts), counts)
    before = boxes[keep].astype(np.float64)
    corners = before[:, [[0, 1], [0, 3], [2, 1], [2, 3]]] - moves.centre[owner, None]
    corners = corners @ np.linalg.inv(moves.matrix)[owner].transpose(0, 2, 1) + moves.origin[owner, None]
    low, high = corners.min(axis=1), corners.max(axis=1)
    clipped_low, clipped_high = np.maximum(low, 0), np.minimum(high, size)
    sides = np.maximum(clipped_high - clipped_low, 0)
    # A thousandth of slack: the mirror image of a short box may come out shorter by a rounding error.
    least = np.minimum(MIN_SIDE, 0.999 * (before[:, 2:] - before[:, :2]).min(axis=1))
    stays = (sides.prod(axis=1) >= MIN_SHARE * (high - low).prod(axis=1)) & (sides.min(axis=1) >= least)
    moved = np.concatenate([clipped_low, clipped_high], axis=1)[stays].astype(np.float32)
    start = np.zeros(len(index) + 1, np.int64)
    np.cumsum(np.bincount(owner[stays], minlength=len(index)), out=start[1:])
    return moved, keep[stays], start


def _reference(
    images: np.ndarray,
    index: np.ndarray,
    draw: Draw,
    numbers: Numbers,
    scale: tuple[np.ndarray, np.ndarray] | None,
    fill: np.ndarray,
    peak: float,
    out: np.ndarray,
    labels: np.ndarray | None,
    out_labels: np.ndarray | None,
) -> None:
    """Fill out (n, rows, cols, bands) and out_labels; the formulas of cpp/ops/augment.h, chip by chip."""
    rows, cols, bands = out.shape[1:]
    for i, chip in enumerate(index):
        y0, y_row, y_col, x0, x_row, x_col = draw.map[i]
        r, c = np.arange(rows)[:, None], np.arange(cols)
        y, x = y0 + r * y_row + c * y_col, x0 + r * x_row + c * x_col
        limit = np.array(images.shape[1:3]) << 32
        inside = (y >= 0) & (y < limit[0]) & (x >= 0) & (x < limit[1])
        if labels is not None:
            out_labels[i] = IGNORE
            out_labels[i][inside] = labels[chip, y[inside] >> 32, x[inside] >> 32]
        values = np.tile(fill, (rows, cols, 1))
        values[inside] = _colour(_bilinear(images[chip], y[inside], x[inside]), draw, i, peak)
        if draw.radius is not None and draw.radius[i] > 0:
            weights = draw.weights[i, : draw.radius[i] + 1]
            values = _blur(_blur(values, weights, 1), weights, 0)
        if draw.noise is not None:
            noise = _noise(numbers, int(chip), rows, cols, bands) * draw.noise[i]
            values[inside] += noise[inside]
        if draw.holes is not None:
            for top, left, bottom, right in draw.holes[i]:
                values[top:bottom, left:right] = fill
        if draw.dropped is not None:
            dropped = draw.dropped[i].astype(bool)
            values[:, :, dropped] = fill[dropped]
        if scale is not None:
            mean, inverse = scale
            values = (values - mean) * inverse
        if out.dtype.kind in "iu":
            limits = np.iinfo(out.dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        out[i] = values


def _bilinear(chip: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """float32 (pixels, bands) of chip (rows, cols, bands) at fixed-point positions y, x (pixels,)."""

    def taps(position: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        position = position - 2**31
        weight = ((position & (2**32 - 1)) >> 8).astype(np.float32) * np.float32(2**-24)
        first = position >> 32
        return np.maximum(first, 0), np.minimum(first + 1, side - 1), weight[:, None]

    (top, bottom, wy), (left, right, wx) = taps(y, chip.shape[0]), taps(x, chip.shape[1])
    corner = [chip[row, col].astype(np.float32) for row in (top, bottom) for col in (left, right)]
    upper = corner[0] + (corner[1] - corner[0]) * wx
    lower = corner[2] + (corner[3] - corner[2]) * wx
    return upper + (lower - upper) * wy


def _colour(values: np.ndarray, draw: Draw, i: int, peak: float) -> np.ndarray:
    """The colour steps on float32 (pixels, bands)."""
    if draw.gain is not None:
        values = values * draw.gain[i] + draw.offset[i]
    if draw.gamma is not None:
        top = np.float32(peak)
        x = values * (np.float32(1) / top)
        large = x > np.float32(2**-31)
        raised = top * _power(np.where(large, np.minimum(x, np.float32(1)), np.float32(1)), draw.gamma[i])
        values = np.where(large, raised, x * np.float32(0))
    if draw.matrix is not None:
        r, g, b = values[:, 0], values[:, 1], values[:, 2]
        turned = [m[0] * r + m[1] * g + m[2] * b for m in draw.matrix[i]]
        values = np.concatenate([np.stack(turned, axis=1), values[:, 3:]], axis=1)
    return values


def _power(x: np.ndarray, gamma: np.float32) -> np.ndarray:
    """x ** gamma for float32 x in (2^-31, 1], by the polynomials of cpp/ops/augment.h."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < np.float32(math.sqrt(0.5))
    t = np.where(low, 2 * mantissa, mantissa) - np.float32(1)
    t2, k = t * t, _LOG
    factor = (k[0] + k[1] * t) + t2 * ((k[2] + k[3] * t) + t2 * (k[4] + k[5] * t))
    y = gamma * ((exponent - low).astype(np.float32) + t * factor)
    whole = np.rint(y)
    f, k = y - whole, _EXP
    factor = (k[0] + k[1] * f) + (f * f) * (k[2] + k[3] * f)
    return np.ldexp(np.float32(1) + f * factor, whole.astype(np.int32))


def _noise(numbers: Numbers, chip: int, rows: int, cols: int, bands: int) -> np.ndarray:
    """float32 (rows, cols, bands): signed sums of the bytes of random words, laid out as cpp/ops/augment.h says."""
    blocks = -(-cols * bands // 256) * 16
    words = philox.bits(numbers.seed, numbers.epoch, chip, OPS["noise_pixels"], rows * blocks * 4, kernel="reference")
    a, b, c, d = words.astype("<u4").view(np.uint8).reshape(rows, blocks, 4, 4).transpose(3, 0, 2, 1).astype(np.int32)
    sums = np.stack([a + b + c + d - 510, a + b - c - d, a - b + c - d, a - b - c + d], axis=2)
    planes = sums.reshape(rows, 16 * blocks)[:, : cols * bands].reshape(rows, bands, cols)
    return planes.transpose(0, 2, 1).astype(np.float32)


def _blur(values: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    """Symmetric filter along an axis of float32 (rows, cols, bands); the edge pixels are held."""
    side, at = values.shape[axis], np.arange(values.shape[axis])
    total = weights[0] * values
    for k in range(1, len(weights)):
        low, high = values.take(np.maximum(at - k, 0), axis), values.take(np.minimum(at + k, side - 1), axis)
        total = total + weights[k] * (low + high)
    return total


op = augment

EVERYTHING = {
    "flip": True,
    "turn": True,
    "resized_crop": [0.3, 1.0],
    "scale": [0.7, 1.4],
    "rotate": 30,
    "shift": 0.2,
    "brightness": 0.3,
    "contrast": 0.3,
    "gamma": 0.3,
    "saturation": 0.4,
    "hue": 0.05,
    "blur": 1.5,
    "noise": 0.05,
    "cutout": {"count": 2, "size": 0.3},
    "channel_drop": 0.2,
}


def cases() -> list[tuple[str, dict]]:
    """Each step alone and all together, in every pixel type, on odd sizes, with labels and boxes."""
    steps = [{}, {"flip": True, "turn": True, "shift": 0.3}, *({k: EVERYTHING[k]} for k in EVERYTHING), EVERYTHING]
    shapes = [
        ((5, 21, 21, 3), None),
        ((4, 17, 30, 4), (9, 40)),
        ((3, 1, 1, 1), None),
        ((3, 33, 20, 13), (20, 20)),
        ((2, 40, 37, 2), (70, 70)),
    ]
    found = []
    for i, (shape, size) in enumerate(shapes):
        for j, settings in enumerate(steps):
            dtype = DTYPES[(i + j) % len(DTYPES)]
            out_dtype = (None, "bfloat16", dtype)[(i + j // 2) % 3]
            generator = np.random.default_rng(100 * i + j)
            images = (generator.random(shape) * _PEAKS.get(dtype, 1)).astype(dtype)
            corners = generator.random((12, 2, 2)) * shape[1:3]
            boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
            std = images.std(axis=(0, 1, 2), dtype=np.float64) + 1e-3
            arguments = {
                "images": images,
                "index": generator.integers(0, shape[0], 6),
                "seed": 2**40 + i,
                "epoch": j,
                "mean": images.mean(axis=(0, 1, 2), dtype=np.float64),
                "std": None if out_dtype == dtype else std,
                "settings": {**settings, "crop": size is not None, "peak": _PEAKS.get(dtype, 1)},
                "size": size,
                "labels": generator.integers(0, 9, shape[:3]).astype(np.uint8),
                "boxes": boxes,
                "box_start": np.linspace(0, len(boxes), shape[0] + 1).astype(np.int64),
                "layout": "NCHW" if j % 2 else "NHWC",
                "dtype": out_dtype,
            }
            name = "+".join(settings) if len(settings) < 4 else "everything"
            found.append((f"{shape} {dtype} to {out_dtype} {name}", arguments))
    return found
