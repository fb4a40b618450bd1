"""Learning rates at steps worked out by hand."""

from __future__ import annotations

import math

import pytest

from rvkernels.schedule import SCHEDULES, make_schedule


def rates(settings, steps):
    rate = make_schedule(settings, steps)
    return [rate(i) for i in range(steps)]


def test_constant_rises_linearly_then_stays():
    assert rates({"name": "constant", "lr": 0.4, "warmup": 0.4}, 10) == pytest.approx([0.1, 0.2, 0.3, 0.4] + [0.4] * 6)


def test_cosine_halves_in_the_middle_and_ends_above_the_floor():
    got = rates({"name": "cosine", "lr": 2.0, "end": 0.1}, 4)
    # 2 * (0.1 + 0.9 * (1 + cos(pi k / 4)) / 2)
    assert got == pytest.approx([2.0, 0.2 + 0.9 * (1 + math.sqrt(0.5)), 1.1, 0.2 + 0.9 * (1 - math.sqrt(0.5))])


def test_cosine_warm_up_then_full_rate():
    got = rates({"name": "cosine", "lr": 1.0, "warmup": 0.5}, 8)
    assert got[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert got[6] == pytest.approx(0.5)


def test_step_drops_at_milestones():
    got = rates({"name": "step", "lr": 1.0, "at": [0.5, 0.8], "factor": 0.1}, 10)
    assert got == pytest.approx([1.0] * 5 + [0.1] * 3 + [0.01] * 2)


def test_one_cycle_starts_low_peaks_and_ends_lower():
    got = rates({"name": "one_cycle", "lr": 1.0, "warmup": 0.3, "start": 0.04, "end": 0.0}, 20)
    assert got[0] == pytest.approx(0.04)
    assert got[5] == pytest.approx(1.0)  # the rise ends at step 0.3 * 20 - 1
    assert got[12] == pytest.approx(0.5)  # half-way between steps 5 and 19
    assert got[19] == pytest.approx(0.0)
    assert max(got) == got[5]


def test_one_cycle_equals_pytorch():
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=33, cycle_momentum=False)
    ours = make_schedule({"name": "one_cycle", "lr": 0.5}, 33)
    for step in range(33):
        assert ours(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        if step < 32:
            theirs.step()


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_rate_is_positive_and_at_most_the_peak(name, steps):
    settings = {"name": name, "lr": 0.3, "warmup": 0.2}
    assert all(0 <= r <= 0.3 + 1e-12 and math.isfinite(r) for r in rates(settings, steps))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "one_cicle", "lr": 1}, "Did you mean 'one_cycle'"),
        ({"name": "cosine"}, "'lr' is missing"),
        ({"name": "cosine", "lr": 1, "wramup": 0.1}, "unknown setting 'wramup'"),
        ({"name": "cosine", "lr": 0}, "lr is 0"),
        ({"name": "cosine", "lr": "1e-3"}, "lr is '1e-3'"),
        ({"name": "cosine", "lr": 1, "warmup": 1}, "warmup is 1"),
        ({"name": "step", "lr": 1, "at": 0.5}, "expected a list"),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        make_schedule(settings, 10)
