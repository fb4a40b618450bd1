"""Mixed chips: the formulas, where their numbers come from, and trainings with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rvkernels import timing
from rvkernels.batches import Batches, Normalisation
from rvkernels.chips import Chips
from rvkernels.mix import _beta, complete_settings, mix_chips
from rvkernels.models import Graph
from rvkernels.runs import read_steps
from rvkernels.tasks import classification
from rvkernels.train import Run

PLAIN = Normalisation(np.zeros(3, np.float32), np.ones(3, np.float32))


@pytest.fixture
def few_predictions(monkeypatch):
    """What is timed when a training ends does not matter here."""
    monkeypatch.setattr(timing, "LATENCY_SECONDS", 0.0)


def chips_of(count: int) -> np.ndarray:
    """Chip i has the values 10 i to 10 i + 9."""
    values = np.random.default_rng(0).uniform(0, 9, (count, 12, 16, 2)) + 10 * np.arange(count)[:, None, None, None]
    return values.astype(np.float32)


def mixed(count: int, **settings: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chips before and after mixing, and shares."""
    before = chips_of(count + 1)
    after = before[:-1].copy()
    shares = mix_chips(
        after, before[1:], np.arange(5, 5 + count), seed=7, epoch=2, settings=complete_settings(**settings)
    )
    return before, after, shares


def test_mixup_takes_a_share_of_every_pixel():
    before, after, shares = mixed(20, mixup=1.0)
    own = shares[:, None, None, None]
    np.testing.assert_allclose(after, own * before[:-1] + (1 - own) * before[1:], rtol=1e-6)
    assert len(set(shares.tolist())) == 20
    assert 0 < shares.min() < shares.max() < 1


def test_cutmix_takes_a_window_and_its_area_is_the_share():
    before, after, shares = mixed(40, cutmix=1.0)
    for own, other, found, share in zip(before, before[1:], after, shares):
        cut = (found != own).any(axis=2)
        np.testing.assert_array_equal(found, np.where(cut[..., None], other, own))
        assert share == pytest.approx(1 - cut.mean(), abs=1e-6)
        if cut.any():
            rows, cols = np.flatnonzero(cut.any(axis=1)), np.flatnonzero(cut.any(axis=0))
            assert cut[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1].all()
    assert shares.min() < 0.3
    assert shares.max() > 0.9


def test_both_and_neither():
    """With both about a half is cut, which leaves pixels as they were; a chance of a half leaves half of the chips."""
    before, after, _ = mixed(200, mixup=1.0, cutmix=1.0)
    kept = (after == before[:-1]).all(axis=3).any(axis=(1, 2))
    assert 70 < kept.sum() < 130
    before, after, shares = mixed(200, mixup=1.0, chance=0.5)
    same = (after == before[:-1]).all(axis=(1, 2, 3))
    assert 70 < same.sum() < 130
    np.testing.assert_array_equal(same, shares == 1)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_are_of_a_beta_distribution(alpha):
    """Mean 1/2, variance 1 / (4 (2 a + 1)), within four standard errors of 1,000 draws."""
    draws = [_beta(alpha, {"seed": 1, "epoch": 0, "sample": i}) for i in range(1000)]
    variance = 1 / (4 * (2 * alpha + 1))
    assert np.mean(draws) == pytest.approx(0.5, abs=4 * (variance / 1000) ** 0.5)
    assert np.var(draws) == pytest.approx(variance, rel=0.15)
    assert all(draw * 2**16 == int(draw * 2**16) for draw in draws[:50])


def test_targets_are_shares_of_both_classes():
    class Made:
        labels = np.array([2, 1, 0], np.int32)
        others = np.array([1, 1, 2], np.int32)
        shares = np.array([0.75, 0.5, 1.0], np.float32)

    (found,) = classification.targets(Graph("classification", (), "image", 1, 3), Made)
    assert found.tolist() == [[0, 0.25, 0.75], [0, 1, 0], [1, 0, 0]]
    assert found.dtype == np.float32


SETTINGS = {"seed": 3, "epoch": 1, "shuffle": True, "drop_last": True, "settings": {"flip": True}}


def take(chips, batch=7, **settings):
    both = complete_settings(mixup=0.4, cutmix=1.0)
    with Batches(chips, chips.rows("train"), batch, PLAIN, mix=both, **SETTINGS, **settings) as stream:
        return list(stream)


def test_workers_resuming_layouts_and_kernels_change_nothing(study):
    chips = Chips.open(study()["chips"])
    whole = take(chips)
    with Batches(chips, chips.rows("train"), 7, PLAIN, **SETTINGS) as stream:
        plain = list(stream)
    for batch, unmixed in zip(whole, plain):
        np.testing.assert_array_equal(batch.rows, unmixed.rows)
        np.testing.assert_array_equal(batch.labels, unmixed.labels)
        np.testing.assert_array_equal(batch.others, np.roll(unmixed.labels, -1))
        assert not np.array_equal(batch.images, unmixed.images)
    slices = [take(chips, part=(rank, 3)) for rank in range(3)]
    for batch, *parts in zip(whole, *slices):
        for name in ("rows", "images", "labels", "others", "shares"):
            np.testing.assert_array_equal(getattr(batch, name), np.concatenate([getattr(p, name) for p in parts]))
    # In two micro-batches a worker has every other two chips of eight.
    (whole_of_8, _), (slice_of_8, _) = take(chips, batch=8), take(chips, batch=8, part=(0, 2), micro=2)
    for name in ("rows", "images", "others", "shares"):
        np.testing.assert_array_equal(getattr(slice_of_8, name), getattr(whole_of_8, name)[[0, 1, 4, 5]])
    (resumed,) = take(chips, first=1)
    (planar, _), (judged, _) = take(chips, layout="NCHW"), take(chips, kernel="reference")
    np.testing.assert_array_equal(resumed.images, whole[1].images)
    np.testing.assert_array_equal(planar.images.transpose(0, 2, 3, 1), whole[0].images)
    np.testing.assert_array_equal(judged.images, whole[0].images)
    np.testing.assert_array_equal(judged.shares, whole[0].shares)


@pytest.mark.usefixtures("few_predictions")
def test_a_training_with_mixed_chips(study):
    arguments = study(epochs=4, mix={"cutmix": 1.0}, schedule={"name": "constant", "lr": 0.01})
    Run(**arguments).go()
    steps = read_steps(arguments["out"])
    assert steps["loss"][-5:].mean() < steps["loss"][:5].mean()
    record = json.loads((Path(arguments["out"]) / "record.json").read_text())
    assert record["settings"]["mix"] == {"mixup": 0.0, "cutmix": 1.0, "chance": 1.0}
    assert record["settings"]["loss"]["soft"] is True
    other = {**arguments, "out": arguments["out"] + "_plain", "settings": {**arguments["settings"], "mix": None}}
    Run(**other).go()
    assert (read_steps(other["out"])["loss"] != steps["loss"]).all()


@pytest.mark.parametrize(
    ("task", "settings", "words"),
    [
        ("classification", {"mix": {}}, "train: mix: mixup and cutmix are both 0"),
        ("classification", {"mix": {"mixup": 0.01}}, "mixup is 0.01, expected 0 or a number from 0.05 to 4"),
        ("classification", {"mix": {"mixup": "much"}}, "mixup is 'much'"),
        ("classification", {"mix": {"cutmix": 1, "chance": 0}}, "chance is 0, expected a number above 0"),
        ("classification", {"mix": {"cutmx": 1}}, "Did you mean 'cutmix'"),
        ("classification", {"mix": {"mixup": 1}, "loss": {"name": "focal"}}, "not for classification by focal"),
        ("classification", {"loss": {"name": "cross_entropy", "soft": True}}, "soft follows from train: mix"),
        ("segmentation", {"mix": {"mixup": 1}}, "not for segmentation by cross_entropy"),
    ],
)
def test_wrong_settings_are_named_before_work(study, task, settings, words):
    arguments = study(task, **settings)
    with pytest.raises(ValueError, match=words):
        Run(**arguments)
    assert not Path(arguments["out"]).exists()
