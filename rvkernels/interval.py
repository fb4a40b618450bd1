"""What a handful of seeds says: means with Student's t intervals, paired differences and ratios, equivalence."""

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


def geometric_interval(values: Iterable[float], level: float = 0.95) -> Interval:
    """Geometric mean with its interval, that of the logarithms; `std` is theirs. ValueError for one not above 0."""
    return _exp(t_interval([_log(value) for value in values], level))


def ratio_bound(bound: float, form: str) -> str:
    """An end of a ratio's interval; one that few seeds push beyond 0.01 or 100 is only said to be there."""
    if 0.01 <= bound <= 100:
        return format(bound, form)
    return "below 0.01" if bound < 1 else "above 100"


def differences(a: Mapping[Hashable, float], b: Mapping[Hashable, float]) -> list[float]:
    """a[k] - b[k] over the keys (seeds) that both have.

    Raises ValueError when they share no key: there is nothing to compare.
    """
    shared = [k for k in a if k in b]
    if not shared:
        raise ValueError(f"no seed in common: {sorted(map(str, a))} and {sorted(map(str, b))}")
    return [a[k] - b[k] for k in shared]


def paired(a: Mapping[Hashable, float], b: Mapping[Hashable, float], level: float = 0.95) -> Interval:
    """t interval of the mean of differences(a, b)."""
    return t_interval(differences(a, b), level)


def paired_ratio(a: Mapping[Hashable, float], b: Mapping[Hashable, float], level: float = 0.95) -> Interval:
    """Geometric mean of a[k] / b[k] over the seeds that both have, with its interval: exp of that of log a - log b.

    `std` is that of the logarithms. Raises ValueError for a value that is not above 0.
    """
    return _exp(paired(*({k: _log(v, f"seed {k}: ") for k, v in values.items()} for values in (a, b)), level))


def _exp(logs: Interval) -> Interval:
    return Interval(math.exp(logs.mean), logs.std, math.exp(logs.low), math.exp(logs.high), logs.count)


def welch(a: Iterable[float], b: Iterable[float], level: float = 0.95) -> Interval:
    """Mean of a minus mean of b with Welch's t interval: samples without pairs, which may differ in spread.

    `count` is of both together, `std` the standard error of the difference. NaN values are left out. A side with one
    value has no spread: std, low and high are NaN; without any value the mean is NaN too.
    """
    x, y = t_interval(a, level), t_interval(b, level)
    nan, mean, count = float("nan"), x.mean - y.mean, x.count + y.count
    if min(x.count, y.count) < 2:
        return Interval(mean, nan, nan, nan, count)
    from scipy.special import stdtrit

    errors = [side.std**2 / side.count for side in (x, y)]
    error = math.sqrt(sum(errors))
    if error == 0:
        return Interval(mean, 0.0, mean, mean, count)
    freedom = sum(errors) ** 2 / sum(e**2 / (side.count - 1) for e, side in zip(errors, (x, y)))
    half = float(stdtrit(freedom, 0.5 + level / 2)) * error
    return Interval(mean, error, mean - half, mean + half, count)


def welch_ratio(a: Iterable[float], b: Iterable[float], level: float = 0.95) -> Interval:
    """Geometric mean of a over that of b, with its interval: exp of welch() of the logarithms.

    `std` is that of the logarithms. Raises ValueError for a value that is not above 0.
    """
    logs = [[_log(value) for value in values] for values in (a, b)]
    return _exp(welch(*logs, level))


def _log(value: float, where: str = "") -> float:
    if value <= 0:
        raise ValueError(f"{where}{value} has no logarithm; a ratio needs numbers above 0")
    return math.log(value)


@dataclass(frozen=True)
class Equivalence:
    """p values of the two one-sided tests, and whether both are below the level; None where there is no test."""

    p_lower: float
    p_upper: float
    equivalent: bool | None


def tost(values: Iterable[float], margin: float, alpha: float = 0.05) -> Equivalence:
    """Is the mean of paired differences within ±margin? Two one-sided t tests (Schuirmann 1987).

    p_lower tests mean <= -margin, p_upper mean >= margin, with count - 1 degrees of freedom; when both are below
    `alpha`, the mean is shown to lie between, which is the same as the 1 - 2 alpha interval lying within ±margin.
    NaN values are left out. Fewer than two values have no spread: NaN, and `equivalent` is None.
    """
    if not margin > 0:
        raise ValueError(f"margin: expected a number above 0, got {margin}")
    kept = np.array([v for v in values if not math.isnan(v)], np.float64)
    if len(kept) < 2:
        return Equivalence(float("nan"), float("nan"), None)
    from scipy.special import stdtr

    mean, error = float(kept.mean()), float(kept.std(ddof=1)) / math.sqrt(len(kept))

    def beyond(distance: float) -> float:
        """P(T > distance / error); without any spread the limit of it."""
        if error == 0:
            return 0.5 if distance == 0 else float(distance < 0)
        return float(stdtr(len(kept) - 1, -distance / error))

    lower, upper = beyond(mean + margin), beyond(margin - mean)
    return Equivalence(lower, upper, max(lower, upper) < alpha)
