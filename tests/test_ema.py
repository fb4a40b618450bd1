"""The moving average of the weights: the formula, and trainings that validate, keep, resume and predict with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rvkernels import registry, timing
from rvkernels.checkpoint import read_checkpoint
from rvkernels.ema import Average, complete_settings
from rvkernels.runs import read_steps
from rvkernels.train import Run


@pytest.fixture(autouse=True)
def few_predictions(monkeypatch):
    """What is timed when a training ends does not matter here."""
    monkeypatch.setattr(timing, "LATENCY_SECONDS", 0.0)


def test_the_average_is_the_weighted_mean_of_what_it_is_given():
    """Three updates, four steps apart: weights 1, d and d^2 with d = 0.9^4, over their sum."""
    average, met = Average(0.9, 4), [np.array([1.0, -2.0], np.float32) * k for k in (1, 5, -3)]
    for array in met:
        average.update({"w": array})
    d = 0.9**4
    expected = (met[2] + d * met[1] + d**2 * met[0]) / (1 + d + d**2)
    np.testing.assert_allclose(average.weights()["w"], expected, rtol=1e-6)


def test_counters_are_not_averaged():
    average = Average(0.9, 1)
    for k in (3, 8):
        average.update({"w": np.float32([k]), "num_batches_tracked": np.array(k)})
    assert average.weights()["num_batches_tracked"] == 8
    assert average.weights()["num_batches_tracked"].dtype == np.array(8).dtype


def test_what_is_given_and_taken_is_the_callers():
    average, array = Average(0.5, 1), np.ones(2, np.float32)
    average.update({"w": array})
    array[:] = 7
    average.weights()["w"][:] = 9
    assert average.weights()["w"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"decay": 1}, "train: ema: decay is 1, expected a number above 0 and below 1"),
        ({"decay": True}, "decay is True"),
        ({"every": 0}, "every is 0, expected a whole number of at least 1"),
        ({"evry": 2}, "Did you mean 'every'"),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(ValueError, match=words):
        registry.complete(complete_settings, settings, "train: ema")


def test_more_steps_than_an_epoch_has_are_refused_before_work(study):
    arguments = study(ema={"every": 6})
    with pytest.raises(ValueError, match="every is 6, more than the 5 steps of an epoch"):
        Run(**arguments)
    assert not Path(arguments["out"]).exists()


def recorded(monkeypatch, framework):
    """Weights after every step of a training in `framework`, and those that every validation predicts with."""
    after, step, predict = [], framework.step, framework.predict
    predicted = []

    def stepping(self, *arguments):
        loss = step(self, *arguments)
        after.append(self.weights())
        return loss

    def predicting(self, images):
        predicted.append(self.weights())
        return predict(self, images)

    monkeypatch.setattr(framework, "step", stepping)
    monkeypatch.setattr(framework, "predict", predicting)
    return after, predicted


@pytest.mark.parametrize("name", ["reference", "torch", "caffe2"])
def test_validation_and_the_best_weights_are_the_average_and_training_goes_on_without(
    study, tmp_path, monkeypatch, name
):
    """Three epochs of five steps; every second step counts, so that the epochs end an odd number of steps after."""
    pytest.importorskip({"reference": "numpy"}.get(name, name), minversion={"torch": "2"}.get(name))
    arguments = {**study(optimizer={"name": "adamw"}), "framework": name}
    plain = {**arguments, "out": str(tmp_path / "plain")}
    Run(**plain).go()
    arguments["settings"] = {**arguments["settings"], "ema": {"decay": 0.8, "every": 2}}
    after, predicted = recorded(monkeypatch, registry.load("frameworks", name).Framework)
    run = Run(**arguments)
    run.go()
    average = Average(0.8, 2)
    expected = []
    for i, weights in enumerate(after[:15], 1):
        if i % 2 == 0:
            average.update(weights)
        if i % 5 == 0:
            expected.append(average.weights())
    best = read_checkpoint(tmp_path / "run/best.npz")
    for key, array in expected[best.meta["epoch"] - 1].items():
        np.testing.assert_array_equal(best.weights[key], array)
    # Two batches of validation chips per epoch.
    for i, weights in enumerate(expected):
        for seen in predicted[2 * i : 2 * i + 2]:
            assert all(np.array_equal(seen[key], weights[key]) for key in weights)
    np.testing.assert_array_equal(read_steps(plain["out"])["loss"], read_steps(arguments["out"])["loss"])
    one, other = (read_checkpoint(Path(out) / "last.npz") for out in (plain["out"], arguments["out"]))
    for group in ("weights", "state"):
        for key, array in getattr(one, group).items():
            np.testing.assert_array_equal(getattr(other, group)[key], array)
    counted = read_steps(arguments["out"])["ema_seconds"]
    assert (counted > 0).tolist() == [i % 2 == 0 for i in range(1, 16)]
    assert not read_steps(plain["out"])["ema_seconds"].any()


@pytest.mark.parametrize("steps", [1, 3, 6, 11])
def test_an_interrupted_run_resumed_has_the_same_average(study, tmp_path, interrupt, steps):
    """Before the first update, between two, after a best epoch that stands in last.npz as the average alone, later."""
    arguments = study(epochs=3, checkpoint_steps=1, ema={"decay": 0.8, "every": 2})
    Run(**{**arguments, "out": str(tmp_path / "whole")}).go()
    interrupt(arguments, steps)
    Run(**arguments).go()
    assert (tmp_path / "whole/best.npz").read_bytes() == (tmp_path / "run/best.npz").read_bytes()
    one, other = (read_checkpoint(tmp_path / name / "last.npz") for name in ("whole", "run"))
    for group in ("weights", "state", "average", "best"):
        assert getattr(one, group).keys() == getattr(other, group).keys()
        for key, array in getattr(one, group).items():
            assert array.tobytes() == getattr(other, group)[key].tobytes(), f"{group}/{key}"
