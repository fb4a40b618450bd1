"""Mixed chips for classification: mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019).

A chip of a batch is mixed with the next one (the last with the first), after both were augmented and normalised, and
its label becomes shares of two classes:

    mixup    l of its pixels' values and 1 - l of the other's; shares l and 1 - l
    cutmix   a window of sqrt(1 - l) of its rows and columns, about a point anywhere and cut at the edges, is the
             other's; shares as the areas that are left

with l from Beta(a, a), a the setting. Every number comes from Philox (seed, epoch, sample, op), with sample = the
chip's row in images.npy. As a batch's order comes from there too, neither workers that share a batch, nor where a
training was resumed, nor the framework change what is mixed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from rvkernels.ops import philox

_OP_CHOICE, _OP_SHARE, _OP_WINDOW = 110, 111, 112  # philox streams
_ALPHA = (0.05, 4)  # beyond, hardly a pair of numbers is taken by `_beta`


def complete_settings(*, mixup: float = 0.0, cutmix: float = 0.0, chance: float = 1.0) -> dict[str, float]:
    """The settings of mixing, with defaults.

    mixup, cutmix  a of Beta(a, a): the higher the more even are shares; 0: not that way. With both every chip takes one
                   of them with even chances
    chance         of a chip to be mixed at all
    """
    low, high = _ALPHA
    for key, value in (("mixup", mixup), ("cutmix", cutmix), ("chance", chance)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{key} is {value!r}, expected a number")
    for key, value in (("mixup", mixup), ("cutmix", cutmix)):
        if value and not low <= value <= high:
            raise ValueError(f"{key} is {value!r}, expected 0 or a number from {low} to {high}")
    if not mixup and not cutmix:
        raise ValueError("mixup and cutmix are both 0; give one of them, or no mix")
    if not 0 < chance <= 1:
        raise ValueError(f"chance is {chance!r}, expected a number above 0 and at most 1")
    return {"mixup": float(mixup), "cutmix": float(cutmix), "chance": float(chance)}


def mix_chips(
    images: np.ndarray,
    others: np.ndarray,
    rows: np.ndarray,
    *,
    seed: int,
    epoch: int,
    settings: Mapping[str, float],
    kernel: str = "cpp",
) -> np.ndarray:
    """Mix `images` with `others`, in place; what share of each is left, float32 (n,).

    images, others  (n, rows, cols, bands) float32
    rows            (n,) rows of `images` in images.npy
    """
    shares = np.ones(len(rows), np.float32)
    for i, row in enumerate(rows.tolist()):
        draw = {"seed": seed, "epoch": epoch, "sample": row, "kernel": kernel}
        mixed, way = philox.uniform(op=_OP_CHOICE, count=2, **draw)
        if mixed >= settings["chance"]:
            continue
        if settings["mixup"] and (way < 0.5 or not settings["cutmix"]):
            shares[i] = _beta(settings["mixup"], draw)
            images[i] *= shares[i]
            images[i] += (np.float32(1) - shares[i]) * others[i]
        else:
            top, left, bottom, right = _window(_beta(settings["cutmix"], draw), images.shape[1:3], draw)
            images[i, top:bottom, left:right] = others[i, top:bottom, left:right]
            shares[i] = 1 - (bottom - top) * (right - left) / math.prod(images.shape[1:3])
    return shares


def _beta(alpha: float, draw: dict) -> float:
    """A number of Beta(alpha, alpha): Jöhnk (1964), pairs of uniform numbers until one is taken.

    A multiple of 2^-16, so that the last bit of a power, in which NumPy builds differ, does not show.
    """
    count = 32
    while True:
        pairs = philox.uniform(op=_OP_SHARE, count=count, **draw).astype(np.float64).reshape(-1, 2) ** (1 / alpha)
        total = pairs.sum(axis=1)
        taken = np.flatnonzero((total > 0) & (total <= 1))
        if len(taken):
            return float(np.rint(pairs[taken[0], 0] / total[taken[0]] * 2**16) / 2**16)
        count *= 2


def _window(share: float, shape: tuple[int, int], draw: dict) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of a window that leaves `share` of an image of `shape`, where no edge cuts it."""
    limits = []
    for length, at in zip(shape, philox.uniform(op=_OP_WINDOW, count=2, **draw).tolist()):
        half, centre = int(length * math.sqrt(1 - share)) / 2, int(length * at)
        limits.append((max(0, centre - math.floor(half)), min(length, centre + math.ceil(half))))
    (top, bottom), (left, right) = limits
    return top, left, bottom, right
