"""What counts as a step's time, which steps count, and in which order frameworks take their turns."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rvkernels import timing
from rvkernels.study import Study


class Device:
    """A framework whose calls return at once while its device works on: only waiting for it takes the time."""

    def __init__(self, monkeypatch):
        self.now, self.cpu, self.queue = 0.0, 0.0, 0.0
        self.calls, self.passes = 0, 0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(timing.time, "process_time", lambda: self.cpu)

    def step(self, images, targets, rate):
        self.now += 1
        self.cpu += 3
        self.queue += 10
        return np.float32(0.5)

    def differentiate(self, images, targets):
        self.passes += 1
        self.queue += 6 if self.passes > 2 else 1000

    def predict(self, images):
        self.calls += 1
        self.queue += 7 if self.calls > 2 else 1000

    def wait(self):
        self.now += self.queue
        self.queue = 0.0


def test_the_device_is_waited_for_before_the_clock_is_read(monkeypatch):
    device = Device(monkeypatch)
    assert timing.timed_step(device, None, (), 0.1) == timing.Step(0.5, 11.0, 3.0)
    assert timing.timed_step(device, None, (), 0.1).seconds == 11


@pytest.mark.parametrize(("seconds", "calls"), [(0.0, 3), (7.0 * 5 - 1, 5), (1e9, 20)])
def test_predictions_are_few_and_without_warm_up(monkeypatch, seconds, calls):
    device = Device(monkeypatch)
    monkeypatch.setattr(timing, "LATENCY_SECONDS", seconds)
    assert timing.timed_calls(device, None) == [7.0] * calls
    assert device.calls == calls + 2


@pytest.mark.parametrize(("seconds", "pairs"), [(0.0, 5), (17.0 * 7 - 1, 7), (1e9, 20)])
def test_passes_and_steps_are_in_turns_without_warm_up(monkeypatch, seconds, pairs):
    device = Device(monkeypatch)
    monkeypatch.setattr(timing, "PAIRS_SECONDS", seconds)
    assert timing.timed_passes(device, None, ()) == ([6.0] * pairs, [11.0] * pairs)
    assert device.passes == pairs + 2


def test_steady_steps():
    counted, warmup = timing.steady([*range(8), *range(6), *range(2)])
    assert warmup == 5
    assert np.flatnonzero(counted).tolist() == [5, 6, 7, 13]
    # Nothing would remain: the first step of each start, which may compile, is left out at least.
    counted, warmup = timing.steady([0, 1, 2, 0, 1])
    assert warmup == 1
    assert counted.tolist() == [False, True, True, False, True]
    counted, warmup = timing.steady([0, 0])
    assert warmup == 0
    assert counted.all()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_no_framework_is_favoured_by_its_place(count):
    names = [f"f{i}" for i in range(count)]
    blocks = [timing.turned(names, i) for i in range(2 * count)]
    for place in zip(*blocks):
        assert sorted(place) == sorted(names * 2)
    followed = [pair for block in blocks for pair in zip(block, block[1:])]
    for a, b in itertools.combinations(names, 2):
        assert followed.count((a, b)) == followed.count((b, a))
    if count == 3:
        assert len(set(map(tuple, blocks))) == 6  # every order there is


def test_measurements_come_first_in_their_order():
    study = Made(["torch", "caffe2"])
    study.config = {"bench_train": {"rounds": 2, "batches": [8]}}
    ranks = [study.bench_priority(*map(str, m)) for m in study.measurements()]
    assert ranks == list(range(12, 0, -1))


class Made(Study):
    """A study of runs that are given."""

    def __init__(self, frameworks):
        self.seeds, self.frameworks = [4, 1], frameworks
        self.experiments = {"cells": {"models": {"cnn": {}, "resnet": {}}}, "objects": {"models": {"detector": {}}}}


def test_trainings_are_in_turn():
    study = Made(["torch", "caffe2", "tensorflow"])
    runs = sorted(study.runs(), key=lambda run: -study.priority(*map(str, run)))
    priorities = [study.priority(*map(str, run)) for run in runs]
    assert priorities == list(range(len(runs), 0, -1))
    blocks = [runs[i : i + 3] for i in range(0, len(runs), 3)]
    keys = [{(e, m, s) for e, m, _, s in block} for block in blocks]
    models = [("cells", "cnn"), ("cells", "resnet"), ("objects", "detector")]
    assert keys == [{(*model, seed)} for seed in (4, 1) for model in models]
    assert [[f for _, _, f, _ in block] for block in blocks] == [timing.turned(study.frameworks, i) for i in range(6)]
