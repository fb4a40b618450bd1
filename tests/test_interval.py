"""Intervals against textbook numbers."""

from __future__ import annotations

import math

import pytest

from rvkernels.interval import paired, t_interval


def test_three_values_by_hand():
    # mean 2, std 1, t(2, 97.5 %) = 4.302653 (t table), half width 4.302653 / sqrt(3)
    result = t_interval([1.0, 2.0, 3.0])
    assert (result.mean, result.std, result.count) == (2.0, 1.0, 3)
    assert result.high - result.mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert result.mean - result.low == pytest.approx(result.high - result.mean)


def test_level_changes_the_width():
    # t(2, 95 %) = 2.919986
    assert t_interval([1.0, 2.0, 3.0], level=0.9).high == pytest.approx(2 + 2.919986 / math.sqrt(3), rel=1e-6)


def test_one_value_has_no_interval():
    result = t_interval([0.7])
    assert (result.mean, result.count) == (0.7, 1)
    assert math.isnan(result.std)
    assert math.isnan(result.low)


def test_undefined_values_are_left_out():
    assert t_interval([1.0, float("nan"), 3.0]).mean == 2.0
    assert t_interval([1.0, float("nan"), 3.0]).count == 2
    assert math.isnan(t_interval([float("nan")]).mean)


def test_pairing_removes_what_seeds_share():
    network = {1: 0.80, 2: 0.90, 3: 0.70}
    baseline = {1: 0.60, 2: 0.70, 3: 0.50, 4: 0.1}
    result = paired(network, baseline)
    assert result.count == 3
    assert result.mean == pytest.approx(0.2)
    assert result.std == pytest.approx(0.0, abs=1e-12)


def test_nothing_in_common_is_an_error():
    with pytest.raises(ValueError, match="no seed in common"):
        paired({1: 0.5}, {2: 0.5})


def test_level_is_checked():
    with pytest.raises(ValueError, match="level"):
        t_interval([1.0, 2.0], level=95)
