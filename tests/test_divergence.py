"""Relative differences of losses, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from rvkernels.divergence import divergence, relative_difference


def test_relative_to_the_reference_over_the_steps_that_both_have():
    found = relative_difference(np.array([1.0, 2.2, 0.0, 1.0, 9.0]), np.array([2.0, 2.0, 0.0, 0.0]))
    assert found.tolist() == [0.5, pytest.approx(0.1), 0.0, np.inf]


def test_the_largest_of_20_and_of_200_steps_and_the_median_at_the_end():
    reference = np.full(300, 2.0)
    losses = reference.copy()
    losses[19] *= 1.001  # the 20th step is one of the first
    losses[20] *= 0.99
    losses[199] *= 1.02
    losses[200] *= 1.5
    losses[290:] *= 1.04
    found = divergence(losses, reference)
    assert found.steps == 300
    assert (found.first, found.long) == pytest.approx((0.001, 0.02))
    assert found.end == pytest.approx(0.02)  # between 10 steps with 0 and 10 with 0.04


def test_a_short_run_is_compared_as_far_as_it_goes():
    found = divergence(np.array([1.0, 1.1]), np.array([1.0, 1.0, 5.0]))
    assert (found.steps, found.first, found.long, found.end) == pytest.approx((2, 0.1, 0.1, 0.05))
    with pytest.raises(ValueError, match="no steps"):
        divergence(np.array([]), np.array([1.0]))
