"""Intervals against textbook numbers."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from rvkernels.interval import paired, paired_ratio, t_interval, tost, welch, welch_ratio


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


def test_a_ratio_is_one_of_geometric_means():
    # ratios 2 and 4: logarithms ln 2 and 2 ln 2, mean 1.5 ln 2, std ln 2 / sqrt(2), t(1, 97.5 %) = 12.7062
    result = paired_ratio({0: 2.0, 1: 8.0, 2: 1.0}, {0: 1.0, 1: 2.0})
    half = 12.7062 * math.log(2) / 2
    assert (result.mean, result.count) == (pytest.approx(math.sqrt(8)), 2)
    assert result.low == pytest.approx(math.sqrt(8) * math.exp(-half), rel=1e-4)
    assert result.high == pytest.approx(math.sqrt(8) * math.exp(half), rel=1e-4)


def test_a_ratio_needs_numbers_above_0():
    with pytest.raises(ValueError, match="seed 1: 0"):
        paired_ratio({0: 1.0, 1: 0.0}, {0: 1.0, 1: 1.0})


# With 2 degrees of freedom P(T > t) = (1 - t / sqrt(2 + t^2)) / 2; with 1, 1/2 - atan(t) / pi.
@pytest.mark.parametrize(
    ("values", "margin", "p_lower", "p_upper", "equivalent"),
    [
        # mean 0.01, error 0.01 / sqrt(3): t = 0.06 / error = sqrt(108), and 0.04 / error = sqrt(48)
        ([0.0, 0.01, 0.02], 0.05, (1 - math.sqrt(108 / 110)) / 2, (1 - math.sqrt(48 / 50)) / 2, True),
        ([0.0, 0.01, 0.02], 0.02, (1 - math.sqrt(27 / 29)) / 2, (1 - math.sqrt(3 / 5)) / 2, False),
        # mean 0.002, error 0.001
        ([0.001, 0.003, float("nan")], 0.02, 0.5 - math.atan(22) / math.pi, 0.5 - math.atan(18) / math.pi, True),
        # mean -0.03 lies outside of the margin: t = -0.01 / error = -sqrt(3)
        ([-0.04, -0.03, -0.02], 0.02, (1 + math.sqrt(3 / 5)) / 2, (1 - math.sqrt(75 / 77)) / 2, False),
        # no spread at all
        ([0.5, 0.5], 0.6, 0.0, 0.0, True),
        ([0.5, 0.5], 0.5, 0.0, 0.5, False),
        ([0.5, 0.5], 0.4, 0.0, 1.0, False),
    ],
)
def test_two_one_sided_tests_by_hand(values, margin, p_lower, p_upper, equivalent):
    result = tost(values, margin)
    assert (result.p_lower, result.p_upper) == pytest.approx((p_lower, p_upper), abs=1e-12)
    assert result.equivalent is equivalent


def test_equivalence_is_the_90_percent_interval_within_the_margin():
    values = [0.004, 0.019, 0.011, 0.002]
    high = t_interval(values, level=0.9).high
    assert tost(values, high * 1.001).equivalent is True
    assert tost(values, high * 0.999).equivalent is False


def test_one_difference_is_no_test():
    result = tost([0.0], 0.02)
    assert result.equivalent is None
    assert math.isnan(result.p_lower)
    with pytest.raises(ValueError, match="margin"):
        tost([0.0, 0.1], 0.0)


def test_samples_without_pairs_may_differ_in_spread():
    a, b = [1.0, 2.0, 3.0], [4.0, 7.0]
    result, judge = welch(a, b), stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (result.mean, result.std, result.count) == (-3.5, pytest.approx(math.sqrt(1 / 3 + 4.5 / 2)), 5)
    assert (result.low, result.high) == pytest.approx((judge.low, judge.high), rel=1e-9)


def test_welch_of_equal_spreads_and_sizes_is_students_two_sample_interval():
    # t(4, 97.5 %) = 2.776445
    result = welch([1.0, 2.0, 3.0], [2.0, 3.0, 4.0])
    assert result.high == pytest.approx(-1 + 2.776445 * math.sqrt(2 / 3), rel=1e-6)


def test_welch_without_spread():
    assert welch([1.0, 1.0], [0.5, 0.5]).low == welch([1.0, 1.0], [0.5, 0.5]).high == 0.5
    assert math.isnan(welch([1.0], [0.5, 0.6]).low)
    assert math.isnan(welch([], [0.5]).mean)


def test_a_ratio_without_pairs():
    result = welch_ratio([2.0, 8.0], [1.0, 1.0])
    assert result.mean == pytest.approx(4.0)
    assert result.high == pytest.approx(4 * math.exp(12.7062 * math.log(2)), rel=1e-4)
    with pytest.raises(ValueError, match="no logarithm"):
        welch_ratio([0.0], [1.0])
