"""Tables from a handful of made-up run folders."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from rvkernels.compare import compare, run_folders, time_to_target


@pytest.fixture
def runs(made_run, tmp_path):
    for seed, miou in ((0, 0.80), (1, 0.82), (10, 0.84)):
        made_run("towns_ss", "unet", "torch", seed, miou)
    made_run("towns_ss", "baseline", "logistic", 0, 0.5)
    return tmp_path / "runs"


@pytest.fixture
def tables(tmp_path):
    """A function that compares the runs below tmp_path and reads a table."""

    def read(name: str, study: dict | None = None) -> pd.DataFrame:
        compare(tmp_path / "runs", tmp_path / "tables", study)
        return pd.read_csv(tmp_path / "tables" / f"{name}.csv")

    return read


def test_runs_one_row_per_run(runs, tables):
    table = tables("runs")
    assert table[["model", "seed"]].values.tolist() == [["baseline", 0], ["unet", 0], ["unet", 1], ["unet", 10]]
    row = table[table.seed == 10].iloc[0]
    assert (row.dataset, row.task, row.primary, row.miou) == ("towns", "segmentation", "miou", 0.84)
    assert (row.train_epoch_s, row.val_epoch_s, row.predict_network_s) == (3.0, 0.5, 1.0)
    assert (row.chips_per_s, row.predict_chips_per_s, row.peak_rss_mb) == (110.0, 40.0, 100.0)
    assert bool(row.validated) is True
    assert row.record == "towns_ss/unet/torch/10/record.json"


def test_the_columns_stand_in_the_documented_order(runs, tables):
    assert list(tables("runs")) == [
        *("experiment", "dataset", "task", "model", "framework", "seed", "primary", "ece", "miou"),
        *("target", "reached", "time_to_target_s", "best_epoch", "steps"),
        *("chips_per_s", "predict_chips_per_s", "peak_rss_mb", "peak_device_mb"),
        *("predict_network_s", "step_s", "train_epoch_s", "val_epoch_s", "device", "threads"),
        *("workers", "weight_identical", "validated", "record"),
    ]


def test_two_columns_of_one_name_are_an_error(made_run, tables):
    made_run("a", "unet", "torch", 0, 0.8, record={"result": {"miou": 1.0, "steps": 2}})
    with pytest.raises(ValueError, match="'miou'"):
        tables("runs")


def test_a_run_that_failed_its_check_is_not_validated(made_run, runs, tables):
    made_run("towns_ss", "unet", "torch", 1, 0.82, validated=False)
    assert tables("runs").validated.tolist() == [True, True, False, True]


def test_summary_over_seeds(runs, tables):
    table = tables("summary")
    row = table[(table.model == "unet") & (table.quantity == "miou")].iloc[0]
    half = 4.302653 * 0.02 / math.sqrt(3)
    assert (row["mean"], row["std"], row["count"]) == pytest.approx((0.82, 0.02, 3))
    assert (row.low, row.high) == pytest.approx((0.82 - half, 0.82 + half))
    assert not set(table.quantity) & {"seed", "threads", "primary", "validated"}


def test_margins_over_the_baseline(runs, tables):
    table = tables("margins")
    miou = table[table.metric == "miou"]
    assert miou.margin.tolist() == pytest.approx([0.30, 0.32, 0.34])
    assert miou["mean"].tolist() == pytest.approx([0.32] * 3)
    assert miou.holds.tolist() == [True] * 3
    assert table[table.metric == "ece"].holds.tolist() == [True] * 3  # an error that is smaller is better
    assert set(table.metric) == {"miou", "ece"}


def test_a_margin_that_may_be_chance_does_not_hold(made_run, runs, tables):
    made_run("towns_ss", "unet", "torch", 10, 0.1)
    table = tables("margins")
    assert table[table.metric == "miou"].holds.tolist() == [False] * 3


def test_one_seed_claims_nothing(made_run, tables):
    made_run("a", "unet", "torch", 0, 0.8)
    made_run("a", "baseline", "logistic", 0, 0.5)
    table = tables("margins")
    assert table.holds.isna().all()
    assert dict(zip(table.metric, table.margin)) == {"ece": pytest.approx(-0.3), "miou": pytest.approx(0.3)}


def test_a_baseline_of_the_same_seed_is_taken(made_run, runs, tables):
    made_run("towns_ss", "baseline", "logistic", 1, 0.6)
    table = tables("margins")
    miou = table[table.metric == "miou"]
    assert miou.seed.tolist() == [0, 1]
    assert miou.baseline.tolist() == [0.5, 0.6]


def test_undefined_metrics_stay_empty(made_run, runs, tables):
    made_run("towns_ss", "unet", "torch", 1, None)
    assert tables("runs").miou.isna().tolist() == [False, False, True, False]
    summary = tables("summary")
    assert summary[(summary.model == "unet") & (summary.quantity == "miou")]["count"].tolist() == [2]


def test_learning_curves_in_long_form(runs, tables):
    table = tables("epochs")
    curve = table[(table.seed == 1) & (table.quantity == "train_loss")]
    assert curve[["epoch", "value"]].values.tolist() == [[1, 2.5], [2, 2.5]]
    assert set(table.quantity) == {"lr", "train_loss", "val_miou", "train_seconds"}


def test_classes_in_long_form(runs, tables):
    table = tables("classes")
    row = table[(table.seed == 10) & (table.quantity == "iou")].iloc[0]
    assert (row.class_name, row.value) == ("road", 0.84)
    assert set(table.quantity) == {"gt_count", "iou", "f1", "recall"}


def test_only_runs_of_the_study(made_run, runs):
    made_run("old", "fcn", "torch", 0, 0.1)
    study = {"experiments": {"towns_ss": {"models": {"unet": {}}}}, "frameworks": ["torch"], "seeds": [0, 1]}
    names = [p.relative_to(runs).as_posix() for p in run_folders(runs, study)]
    assert names == ["towns_ss/baseline/logistic/0", "towns_ss/unet/torch/0", "towns_ss/unet/torch/1"]
    assert len(run_folders(runs)) == 5


def test_an_unfinished_run_is_an_error(runs, tmp_path):
    (runs / "towns_ss/unet/torch/1/eval.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"eval\.json"):
        compare(runs, tmp_path / "tables")
    assert not (tmp_path / "tables").exists()


def test_no_runs_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no run"):
        compare(tmp_path, tmp_path / "tables")


# --- between frameworks ----------------------------------------------------------------------------------------------

STUDY = {
    "frameworks": ["torch", "caffe2"],
    "seeds": [0, 1],
    "equivalence": {"miou": 0.02},
    "experiments": {"towns_ss": {"models": {"unet": {}}, "target": 0.6, "train": {"metric": "miou"}}},
}


@pytest.fixture
def both(made_run):
    """Two frameworks with two seeds each: caffe2 is 0.002 and 0.004 better, and takes 2 and 8 times as long a step."""
    for seed, miou, better, slower in ((0, 0.70, 0.002, 2.0), (1, 0.80, 0.004, 8.0)):
        made_run("towns_ss", "unet", "torch", seed, miou, losses=np.full(300, 2.0))
        made_run(
            "towns_ss", "unet", "caffe2", seed, miou + better,
            record={"times_s": {"step": [slower * 0.5, slower * 0.03]}, "result": {"steps": 300}},
            losses=2.0 * (1 + np.where(np.arange(300) < 20, 1e-4, 0.02)),
        )  # fmt: skip
    made_run("towns_ss", "baseline", "logistic", 0, 0.5)


def test_pairs_of_frameworks(both, tables):
    table = tables("frameworks", STUDY)
    assert set(zip(table.a, table.b)) == {("caffe2", "torch")}  # the study's first is what the others are held against
    miou = table[table.quantity == "miou"].iloc[0]
    half = 12.7062 * 0.001
    assert miou[["mean", "low", "high", "count"]].tolist() == pytest.approx(
        [0.003, 0.003 - half, 0.003 + half, 2], 1e-4
    )
    assert (miou.margin, miou.p_lower, miou.p_upper) == pytest.approx(
        (0.02, 0.5 - math.atan(23) / math.pi, 0.5 - math.atan(17) / math.pi)
    )
    assert miou.equivalent is True or miou.equivalent == "True"
    assert math.isnan(miou.ratio)
    step = table[table.quantity == "step_s"].iloc[0]
    assert step["mean"] == pytest.approx((2 * 0.53 - 0.53 + 8 * 0.53 - 0.53) / 2)
    assert step.ratio == pytest.approx(4.0)
    assert step.ratio_low == pytest.approx(4 * math.exp(-12.7062 * math.log(2)), rel=1e-4)
    assert math.isnan(step.p_lower)


def test_one_seed_of_two_frameworks_tests_nothing(made_run, tables):
    for framework in ("torch", "caffe2"):
        made_run("towns_ss", "unet", framework, 0, 0.7)
    miou = tables("frameworks", STUDY).query("quantity == 'miou'").iloc[0]
    assert (miou["mean"], miou["count"], miou.margin) == (0.0, 1, 0.02)
    assert pd.isna(miou.low)
    assert pd.isna(miou.equivalent)


def test_frameworks_that_differ_are_not_called_equivalent(made_run, tables):
    for seed in (0, 1):
        made_run("towns_ss", "unet", "torch", seed, 0.7)
        made_run("towns_ss", "unet", "caffe2", seed, 0.65 + 0.001 * seed)
    assert tables("frameworks", STUDY).query("quantity == 'miou'").equivalent.tolist() == [False]


def test_time_to_target_is_training_time_alone():
    log = [
        {"train_seconds": 3.0, "val_seconds": 9.0, "val_miou": 0.5},
        {"train_seconds": 2.0, "val_seconds": 9.0},  # undefined in this epoch
        {"train_seconds": 4.0, "val_seconds": 9.0, "val_miou": 0.7},
    ]
    assert time_to_target(log, "val_miou", 0.5) == 3.0  # at it counts, in the first epoch
    assert time_to_target(log, "val_miou", 0.6) == 9.0
    assert time_to_target(log, "val_miou", 0.71) is None


def test_runs_that_never_reach_the_target_are_counted(made_run, tables):
    made_run("towns_ss", "unet", "torch", 0, 0.7, validation=[0.6, 0.7])
    made_run("towns_ss", "unet", "torch", 1, 0.7, validation=[0.1, 0.6])
    made_run("towns_ss", "unet", "caffe2", 0, 0.7, validation=[0.6])
    made_run("towns_ss", "unet", "caffe2", 1, 0.7, validation=[0.5, 0.59])
    targets = tables("targets", STUDY).set_index("framework")
    assert targets.loc["torch", ["runs", "reached", "median_s", "mean", "count"]].tolist() == [2, 2, 2.0, 2.0, 2]
    assert targets.loc["caffe2", ["metric", "target", "runs", "reached"]].tolist() == ["miou", 0.6, 2, 1]
    assert targets.loc["caffe2", ["median_s", "mean", "low"]].isna().all()
    runs = tables("runs", STUDY)
    assert runs.time_to_target_s.fillna(-1).tolist() == [1.0, -1, 1.0, 3.0]
    assert runs.reached.tolist() == [True, False, True, True]
    summary = tables("summary", STUDY).query("quantity == 'time_to_target_s'")
    assert summary.framework.tolist() == ["torch"]  # a mean without the slowest run would flatter
    assert "time_to_target_s" not in set(tables("frameworks", STUDY).quantity)


def test_without_a_target_there_is_no_time_to_it(both, tables):
    study = {**STUDY, "experiments": {"towns_ss": {"models": {"unet": {}}, "target": None, "train": {}}}}
    assert tables("targets", study).empty
    assert tables("runs", study).time_to_target_s.isna().all()


def test_losses_against_the_first_framework_and_the_control(both, made_run, tables, tmp_path):
    run = tmp_path / "runs/towns_ss/unet/torch/0"
    made_run("aside", "unet", "torch", 0, 0.7, losses=2.0 * (1 + np.full(300, 0.011)), record={"threads": 1})
    (tmp_path / "runs/aside/unet/torch/0").rename(run / "control")
    table = tables("divergence", STUDY)
    assert table[["framework", "seed", "control"]].values.tolist() == [
        ["torch", 0, True],
        ["caffe2", 0, False],
        ["caffe2", 1, False],
    ]
    control, first, second = (row for _, row in table.iterrows())
    assert (control.threads, control.against_threads, control.steps) == (1, 2, 300)
    assert control.first_200 == pytest.approx(0.011)
    assert first.against == "torch"
    assert (first.first_20, first.first_200, first.end) == pytest.approx((1e-4, 0.02, 0.02))
    assert first.times_control == pytest.approx(0.02 / 0.011)
    assert (first.within_first_20, first.within_control) == (True, True)
    assert pd.isna(second.times_control)  # no control of this seed
    assert len(tables("runs", STUDY)) == 5, "the control is no run"


def test_a_divergence_beyond_the_bounds_is_told(both, made_run, tables, tmp_path):
    made_run("towns_ss", "unet", "caffe2", 0, 0.7, losses=2.0 * (1 + np.full(300, 0.0011)))
    made_run("aside", "unet", "torch", 0, 0.7, losses=2.0 * (1 + np.full(300, 0.0005)))
    (tmp_path / "runs/aside/unet/torch/0").rename(tmp_path / "runs/towns_ss/unet/torch/0/control")
    row = tables("divergence", STUDY).query("framework == 'caffe2' and seed == 0").iloc[0]
    assert (row.within_first_20, row.within_control) == (False, False)


def test_what_is_held_equal_is_looked_up(both, made_run, tables):
    equal = tables("equal", STUDY).set_index("what")
    assert equal.equal.all()
    assert "initial weights" in equal.index
    other = {"weights": "f" * 64, "settings": {"batch": 2, "precision": "bfloat16", "compile": False}}
    made_run("towns_ss", "unet", "caffe2", 1, 0.8, identity=other, losses=np.zeros(300), record={"threads": 4})
    equal = tables("equal", STUDY).set_index("what")
    assert set(equal[~equal.equal].index) == {"initial weights", "precision", "threads"}
    assert equal.loc["precision", "values"] == "torch: float32; caffe2: bfloat16"  # of the seed in which they differ


def test_one_framework_is_compared_with_none(runs, tables):
    for name in ("frameworks", "divergence", "equal"):
        assert tables(name).empty
