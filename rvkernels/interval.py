"""What a handful of seeds says: means with Student's t intervals, and paired differences."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """Mean of `count` values, their sample standard deviation, and the confidence interval [low, high] of the mean."""

    mean: float
    std: float
    low: float
    high: float
    count: int


def t_interval(values: Iterable[float], level: float = 0.95) -> Interval:
    """Student's t interval of the mean: mean ± t(count - 1) * std / sqrt(count), std with count - 1 degrees of freedom.

    NaN values are undefined measurements and are left out. One value has no spread: std, low and high are NaN; without
    any value the mean is NaN too.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")
    kept = np.array([v for v in values if not math.isnan(v)], np.float64)
    nan = float("nan")
    if len(kept) == 0:
        return Interval(nan, nan, nan, nan, 0)
    mean = float(kept.mean())
    if len(kept) == 1:
        return Interval(mean, nan, nan, nan, 1)
    from scipy.special import stdtrit  # scipy.stats takes a second to import

    std = float(kept.std(ddof=1))
    half = float(stdtrit(len(kept) - 1, 0.5 + level / 2)) * std / math.sqrt(len(kept))
    return Interval(mean, std, mean - half, mean + half, len(kept))


def paired(a: Mapping[Hashable, float], b: Mapping[Hashable, float], level: float = 0.95) -> Interval:
    """t interval of a[k] - b[k] over the keys (seeds) that both have.

    Raises ValueError when they share no key: there is nothing to compare.
    """
    shared = [k for k in a if k in b]
    if not shared:
        raise ValueError(f"no seed in common: {sorted(map(str, a))} and {sorted(map(str, b))}")
    return t_interval([a[k] - b[k] for k in shared], level)
