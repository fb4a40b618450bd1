"""Tables from a handful of made-up run folders."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from rvkernels.compare import compare, run_folders
from rvkernels.files import write_json


def write_run(
    runs: Path, experiment: str, model: str, framework: str, seed: int, miou: float | None, validated: bool = True
) -> Path:
    folder = runs / experiment / model / framework / str(seed)
    record = {
        "what": "train",
        "validated": validated,
        "dataset": "towns",
        "task": "segmentation",
        "times_s": {"train_epoch": [1.0, 2.0], "val_epoch": [0.25, 0.25]},
        "chips_per_s": 10.0 * (seed + 1),
        "peak_rss_mb": 100.0,
        "device": "cpu",
        "threads": 2,
    }
    write_json(folder / "record.json", record)
    write_json(
        folder / "predictions" / "record.json",
        {"what": "predict", "validated": True, "times_s": {"network": [0.5, 0.5]}, "chips_per_s": 40.0},
    )
    item = {"class_id": 0, "class_name": "road", "gt_count": 7, "iou": miou, "metrics": {"f1": 0.5, "recall": None}}
    average = {"class_name": "average", "metrics": {"f1": 0.5}}
    write_json(
        folder / "eval.json",
        {
            "overall": [item, average],
            "per_scene": {},
            "primary": "miou",
            "summary": {"overall": {"miou": miou, "ece": 1 - miou if miou else None}, "per_scene": {}},
        },
    )
    if model != "baseline":
        (folder / "log.csv").write_text("epoch,lr,train_loss,note\n1,0.1,2.5,\n2,0.05,1.25,best\n")
    return folder


@pytest.fixture
def runs(tmp_path):
    for seed, miou in ((0, 0.80), (1, 0.82), (10, 0.84)):
        write_run(tmp_path / "runs", "towns_ss", "unet", "torch", seed, miou)
    write_run(tmp_path / "runs", "towns_ss", "baseline", "logistic", 0, 0.5)
    return tmp_path / "runs"


def test_runs_one_row_per_run(runs, tmp_path):
    compare(runs, tmp_path / "tables")
    table = pd.read_csv(tmp_path / "tables" / "runs.csv")
    assert table[["model", "seed"]].values.tolist() == [["baseline", 0], ["unet", 0], ["unet", 1], ["unet", 10]]
    row = table[table.seed == 10].iloc[0]
    assert (row.dataset, row.task, row.primary, row.miou) == ("towns", "segmentation", "miou", 0.84)
    assert (row.train_epoch_s, row.val_epoch_s, row.predict_network_s) == (3.0, 0.5, 1.0)
    assert (row.chips_per_s, row.predict_chips_per_s, row.peak_rss_mb) == (110.0, 40.0, 100.0)
    assert bool(row.validated) is True
    assert row.record == "towns_ss/unet/torch/10/record.json"


def test_a_run_that_failed_its_check_is_not_validated(runs, tmp_path):
    write_run(runs, "towns_ss", "unet", "torch", 1, 0.82, validated=False)
    compare(runs, tmp_path / "tables")
    assert pd.read_csv(tmp_path / "tables" / "runs.csv").validated.tolist() == [True, True, False, True]


def test_summary_over_seeds(runs, tmp_path):
    compare(runs, tmp_path / "tables")
    table = pd.read_csv(tmp_path / "tables" / "summary.csv")
    row = table[(table.model == "unet") & (table.quantity == "miou")].iloc[0]
    half = 4.302653 * 0.02 / math.sqrt(3)
    assert (row["mean"], row["std"], row["count"]) == pytest.approx((0.82, 0.02, 3))
    assert (row.low, row.high) == pytest.approx((0.82 - half, 0.82 + half))
    assert not set(table.quantity) & {"seed", "threads", "primary", "validated"}


def test_margins_over_the_baseline(runs, tmp_path):
    compare(runs, tmp_path / "tables")
    table = pd.read_csv(tmp_path / "tables" / "margins.csv")
    miou = table[table.metric == "miou"]
    assert miou.margin.tolist() == pytest.approx([0.30, 0.32, 0.34])
    assert miou["mean"].tolist() == pytest.approx([0.32] * 3)
    assert miou.holds.tolist() == [True] * 3
    assert table[table.metric == "ece"].holds.tolist() == [True] * 3  # an error that is smaller is better
    assert set(table.metric) == {"miou", "ece"}


def test_a_margin_that_may_be_chance_does_not_hold(runs, tmp_path):
    write_run(runs, "towns_ss", "unet", "torch", 10, 0.1)
    compare(runs, tmp_path / "tables")
    table = pd.read_csv(tmp_path / "tables" / "margins.csv")
    assert table[table.metric == "miou"].holds.tolist() == [False] * 3


def test_one_seed_claims_nothing(tmp_path):
    write_run(tmp_path / "runs", "a", "unet", "torch", 0, 0.8)
    write_run(tmp_path / "runs", "a", "baseline", "logistic", 0, 0.5)
    compare(tmp_path / "runs", tmp_path / "tables")
    table = pd.read_csv(tmp_path / "tables" / "margins.csv")
    assert table.holds.isna().all()
    assert table.margin.tolist() == pytest.approx([0.3, -0.3])


def test_a_baseline_of_the_same_seed_is_taken(runs, tmp_path):
    write_run(runs, "towns_ss", "baseline", "logistic", 1, 0.6)
    compare(runs, tmp_path / "tables")
    table = pd.read_csv(tmp_path / "tables" / "margins.csv")
    miou = table[table.metric == "miou"]
    assert miou.seed.tolist() == [0, 1]
    assert miou.baseline.tolist() == [0.5, 0.6]


def test_undefined_metrics_stay_empty(runs, tmp_path):
    write_run(runs, "towns_ss", "unet", "torch", 1, None)
    compare(runs, tmp_path / "tables")
    assert pd.read_csv(tmp_path / "tables" / "runs.csv").miou.isna().tolist() == [False, False, True, False]
    summary = pd.read_csv(tmp_path / "tables" / "summary.csv")
    assert summary[(summary.model == "unet") & (summary.quantity == "miou")]["count"].tolist() == [2]


def test_learning_curves_in_long_form(runs, tmp_path):
    compare(runs, tmp_path / "tables")
    table = pd.read_csv(tmp_path / "tables" / "epochs.csv")
    curve = table[(table.seed == 1) & (table.quantity == "train_loss")]
    assert curve[["epoch", "value"]].values.tolist() == [[1, 2.5], [2, 1.25]]
    assert set(table.quantity) == {"lr", "train_loss"}


def test_classes_in_long_form(runs, tmp_path):
    compare(runs, tmp_path / "tables")
    table = pd.read_csv(tmp_path / "tables" / "classes.csv")
    row = table[(table.seed == 10) & (table.quantity == "iou")].iloc[0]
    assert (row.class_name, row.value) == ("road", 0.84)
    assert set(table.quantity) == {"gt_count", "iou", "f1", "recall"}


def test_only_runs_of_the_study(runs):
    write_run(runs, "old", "fcn", "torch", 0, 0.1)
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
