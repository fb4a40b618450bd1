"""How far the losses of two trainings drift apart that begin with the same weights and see the same batches.

Rounding alone makes them drift: a sum in another order differs in its last bits, and training multiplies the
difference. The scale of that is the control: the same framework trained again with another number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FIRST = 20  # steps in which nothing but rounding of a step can show
FIRST_BOUND = 1e-3  # relative, for the largest difference of the first steps
LONG = 200  # steps over which the difference is held against the control's
CONTROL_FACTOR = 2.0  # times the control's: what counts as rounding
END = 20  # last steps, of which the median is given


@dataclass(frozen=True)
class Divergence:
    """Relative differences of the losses: the largest of the first 20 and of the first 200 steps, and at the end.

    steps   that both trainings have; `first` and `long` are over fewer when there are not so many
    end     the median of the last 20 steps
    """

    steps: int
    first: float
    long: float
    end: float


def relative_difference(losses: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """|losses - reference| / |reference| of the steps that both have, (steps,) float64; 0 where both are 0."""
    steps = min(len(losses), len(reference))
    a, b = np.asarray(losses[:steps], np.float64), np.asarray(reference[:steps], np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(a == b, 0.0, np.abs(a - b) / np.abs(b))


def divergence(losses: np.ndarray, reference: np.ndarray) -> Divergence:
    """The summary of relative_difference(losses, reference). ValueError when there is no step to compare."""
    relative = relative_difference(losses, reference)
    if not len(relative):
        raise ValueError("divergence: a run has no steps")
    return Divergence(
        steps=len(relative),
        first=float(relative[:FIRST].max()),
        long=float(relative[:LONG].max()),
        end=float(np.median(relative[-END:])),
    )
