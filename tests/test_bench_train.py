"""Step times on synthetic batches: fixed batches, raw records, and a table that refuses what does not compare."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from rvkernels import timing
from rvkernels.bench_table import bench_table, ratio_interval
from rvkernels.bench_train import BATCHES, BOXES, Measurement, bench_train, measurements, synthetic
from rvkernels.files import write_json
from rvkernels.frameworks.reference import Framework
from rvkernels.train import Run

TASKS = ("classification", "segmentation", "detection")


@pytest.mark.parametrize("task", TASKS)
def test_batches_are_fixed_and_fit_the_task(study, task):
    run = Run(**study(task))
    first, again, other = synthetic(run, 5, 0), synthetic(run, 5, 0), synthetic(run, 5, 1)
    assert first.images.shape == (5, 16, 16, 3)
    assert first.images.dtype == np.float32
    np.testing.assert_array_equal(first.images, again.images)
    assert not (first.images == other.images).any()
    assert abs(first.images.mean()) < 0.05
    assert first.images.std() == pytest.approx(1, abs=0.05)
    if task == "detection":
        low, high = first.boxes[:, :2], first.boxes[:, 2:]
        assert first.box_start.tolist() == [BOXES * i for i in range(6)]
        assert (low >= 0).all()
        assert (high <= 16).all()
        assert (high - low >= 2).all()
        assert set(first.box_class.tolist()) == {0, 1}
    else:
        assert set(first.labels.ravel().tolist()) == {0, 1}
    run.build(run.initial).step(first.images, run.task.targets(run.graph, first), 1e-3)


def test_a_record_has_raw_times_and_warm_up_apart(study, tmp_path, monkeypatch):
    seen = []
    step = Framework.step
    monkeypatch.setattr(Framework, "step", lambda self, i, t, lr: seen.append(i.copy()) or step(self, i, t, lr))
    seconds = iter([50.0, 20.0, 1.0, 2.0, 9.0, 3.0])
    timed = timing.timed_step
    monkeypatch.setattr(timing, "timed_step", lambda *a: timed(*a)._replace(seconds=next(seconds), cpu_seconds=0.5))
    bench_train(Run(**study()), batch=6, steps=4, warmup=2, number=7, out=tmp_path / "7.json")
    record = json.loads((tmp_path / "7.json").read_text())
    assert record["what"] == "bench-train"
    assert record["validated"] is True
    assert record["times_s"]["warmup"] == [50.0, 20.0]
    assert record["times_s"]["first_step"] == [50.0]
    assert record["times_s"]["step"] == [1.0, 2.0, 9.0, 3.0]
    assert record["times_s"]["step_cpu"] == [0.5] * 4
    assert len(record["times_s"]["import"]) == len(record["times_s"]["build"]) == 1
    assert record["result"]["step_median_s"] == 2.5
    assert record["chips_per_s"] == pytest.approx(6 / 2.5)
    assert record["settings"]["batch"] == 6
    assert record["settings"]["round"] == 7
    assert record["threads"] == 1
    assert record["weight_identical"] is True
    assert [len(images) for images in seen] == [6] * 6
    np.testing.assert_array_equal(seen[0], seen[BATCHES])
    assert not (seen[0] == seen[1]).all()


def test_a_loss_that_is_not_finite_leaves_no_record(study, tmp_path, monkeypatch):
    monkeypatch.setattr(Framework, "step", lambda *a: float("nan"))
    with pytest.raises(ValueError, match="the loss is nan at step 1 on synthetic batches"):
        bench_train(Run(**study()), batch=2, steps=1, warmup=1, number=0, out=tmp_path / "0.json")
    assert not (tmp_path / "0.json").exists()


@pytest.mark.parametrize("task", TASKS)
def test_from_steps_to_the_table(study, tmp_path, task):
    """Two frameworks do the same work: the table's own check compares their first losses."""
    pytest.importorskip("torch")
    arguments = study(task)
    wanted = [Measurement("patches", arguments["model"], f, 3, n) for n in range(2) for f in ("reference", "torch")]
    for m in wanted:
        run = Run(**{**arguments, "framework": m.framework})
        bench_train(run, batch=3, steps=2, warmup=1, number=m.round, out=m.path(tmp_path / "bench"))
    bench_table(tmp_path / "bench", wanted, tmp_path / "table.csv")
    table = pd.read_csv(tmp_path / "table.csv")
    assert table.framework.tolist() == ["reference", "torch"]
    assert (table.rounds == 2).all()
    assert (table.steps == 4).all()
    assert table.loss[0] == pytest.approx(table.loss[1], rel=1e-3)
    assert (table[["step_q1_s", "step_median_s", "step_q3_s", "step_cpu_median_s", "peak_rss_mb"]] > 0).all(axis=None)
    assert table.ratio.min() == 1
    assert (table.ratio_low <= table.ratio).all()
    assert (table.ratio <= table.ratio_high).all()


def made(folder, framework, steps, loss=1.0, **more):
    """Records with the given step times, (rounds, steps) seconds."""
    wanted = []
    for number, seconds in enumerate(steps):
        m = Measurement("cells", "cnn", framework, 8, number)
        times = {"build": [0.1 + number], "first_step": [5.0], "step": seconds, "step_cpu": seconds}
        names = {
            "dataset": "towns",
            "task": "classification",
            "device": "cpu",
            "threads": 2,
            "peak_rss_mb": 100 + number,
        }
        fields = {"result": {"loss": loss}, "settings": {"precision": "float32"}, "times_s": times, **names}
        write_json(m.path(folder), {"validated": True, "weight_identical": True, **fields, **more})
        wanted.append(m)
    return wanted


def test_ratio_and_interval(tmp_path):
    slow, fast = [[2.0, 2.2], [3.0, 3.4], [2.0, 2.6]], [[1.0, 1.1], [1.5, 1.7], [1.0, 1.3]]
    wanted = [*made(tmp_path, "slow", slow), *made(tmp_path, "fast", fast)]
    bench_table(tmp_path, wanted, tmp_path / "table.csv")
    table = pd.read_csv(tmp_path / "table.csv").set_index("framework")
    # Twice as slow in every round: rounds differ, the ratio does not.
    assert table.ratio.to_dict() == pytest.approx({"slow": 2.0, "fast": 1.0})
    assert table.ratio_low.to_dict() == pytest.approx({"slow": 2.0, "fast": 1.0})
    assert table.ratio_high.to_dict() == pytest.approx({"slow": 2.0, "fast": 1.0})
    assert table.step_median_s["slow"] == pytest.approx(2.4)
    assert table.chips_per_s["slow"] == pytest.approx(8 / 2.4)
    assert table.build_s["slow"] == pytest.approx(1.1)
    assert table.peak_rss_mb["slow"] == 102


def test_the_interval_follows_the_spread_of_rounds():
    against = np.ones((6, 4))
    low, high = ratio_interval(np.full((6, 4), 1.5), against)
    assert low == high == 1.5
    rounds = np.array([1.2, 1.3, 1.5, 1.5, 1.7, 2.0])[:, None] * against
    low, high = ratio_interval(rounds, against)
    assert 1.2 <= low < 1.5 < high <= 2.0
    assert ratio_interval(rounds, against) == (low, high)
    assert np.isnan(ratio_interval(rounds[:1], against[:1])).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": 1.002}, r"cells, cnn, batch 8: first losses differ by more than 0\.001 \(torch 1, other 1\.002\)"),
        ({"validated": False}, "the check of this record failed"),
    ],
)
def test_records_that_do_not_compare_are_refused(tmp_path, change, words):
    wanted = [*made(tmp_path, "torch", [[1.0]]), *made(tmp_path, "other", [[1.0]], **change)]
    with pytest.raises(ValueError, match=words):
        bench_table(tmp_path, wanted, tmp_path / "table.csv")
    assert not (tmp_path / "table.csv").exists()


def test_an_own_model_may_start_with_another_loss_in_every_framework(tmp_path):
    own = {"weight_identical": False}
    wanted = [*made(tmp_path, "torch", [[1.0], [1.0]], **own), *made(tmp_path, "jax", [[2.0], [2.0]], loss=3.0, **own)]
    bench_table(tmp_path, wanted, tmp_path / "table.csv")
    assert pd.read_csv(tmp_path / "table.csv").loss.tolist() == [1.0, 3.0]
    made(tmp_path, "jax", [[2.0]], loss=2.5, **own)
    with pytest.raises(ValueError, match=r"first losses differ by more than 0\.001 \(jax 2\.5, jax 3\)"):
        bench_table(tmp_path, wanted, tmp_path / "table.csv")


def test_a_missing_record_is_named(tmp_path):
    wanted = [*made(tmp_path, "torch", [[1.0]]), Measurement("cells", "cnn", "torch", 8, 1)]
    with pytest.raises(FileNotFoundError, match=r"cells/cnn/torch/8/1\.json: no such record"):
        bench_table(tmp_path, wanted, tmp_path / "table.csv")


def test_measurements_are_in_turn():
    study = {
        "bench_train": {"rounds": 2, "batches": None},
        "experiments": {"cells": {"train": {"batch": 32}}, "objects": {"train": {"batch": 16}}},
    }
    runs = [
        (experiment, "m", framework, seed)
        for experiment in study["experiments"]
        for framework in ("a", "b")
        for seed in (0, 1)
        if (experiment, framework) != ("objects", "b")
    ]
    found = measurements(study, runs)
    assert [(m.experiment, m.framework, m.batch, m.round) for m in found] == [
        ("cells", "a", 32, 0),
        ("cells", "b", 32, 0),
        ("objects", "a", 16, 0),
        ("cells", "b", 32, 1),
        ("cells", "a", 32, 1),
        ("objects", "a", 16, 1),
    ]
    study["bench_train"]["batches"] = [1, 8]
    assert {m.batch for m in measurements(study, runs)} == {1, 8}
