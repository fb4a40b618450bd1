"""What is told of two made-up studies: what changed, what it did, and how sure that is."""

from __future__ import annotations

import copy
import json
import math

import pandas as pd
import pytest
from scipy import stats

from rvkernels.cli import main
from rvkernels.compare import compare
from rvkernels.compare_studies import compare_studies, tables
from rvkernels.files import write_json

STUDY = {
    "study": "first",
    "frameworks": ["torch", "caffe2"],
    "seeds": [0, 1],
    "equivalence": {},
    "experiments": {
        "ground": {
            "task": "segmentation",
            "models": {"unet": {"width": 8}},
            "target": None,
            "train": {"metric": "miou", "schedule": {"name": "one_cycle", "lr": 0.002}, "augment": None},
        }
    },
}


@pytest.fixture
def made_study(made_run, tmp_path):
    """A function that makes the study results/<name> from {(framework, seed): (miou, seconds of an epoch)}."""

    def make(name: str, runs: dict, settings: dict = STUDY, experiment: str = "ground", **run) -> str:
        for (framework, seed), (miou, seconds) in runs.items():
            record = {"times_s": {"train_epoch": [seconds]}, "seed": seed, **run.pop("record", {})}
            made_run(experiment, "unet", framework, seed, miou, record=record, **run)
        made_run(experiment, "baseline", "logistic", 0, 0.5)
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        (tmp_path / "runs").rename(folder / "runs")
        frameworks = sorted({framework for framework, _ in runs}, key=STUDY["frameworks"].index)
        seeds = sorted({seed for _, seed in runs})
        study = {**copy.deepcopy(settings), "study": name, "frameworks": frameworks, "seeds": seeds}
        study["experiments"] = {experiment: study["experiments"]["ground"]}
        compare(folder / "runs", folder / "tables", study)
        return str(folder)

    return make


FOUR = {("torch", 0): (0.7, 10.0), ("torch", 1): (0.8, 12.0), ("caffe2", 0): (0.7, 20.0), ("caffe2", 1): (0.8, 24.0)}


def one(results: pd.DataFrame, framework: str, quantity: str) -> pd.Series:
    (row,) = (row for _, row in results[results.quantity == quantity].iterrows() if row.framework == framework)
    return row


def test_of_studies_that_are_the_same_no_change_is_told(made_study, capsys):
    a, b = made_study("first", FOUR), made_study("second", FOUR)
    difference = compare_studies(a, b)
    assert difference.changes.empty
    assert difference.only.empty
    assert (difference.results.estimate == (difference.results.measure == "ratio")).all()
    assert not difference.results.outside.fillna(False).any()
    assert not any(table.rows for table in tables(difference))
    assert main(["compare-studies", a, b]) == 0
    told = capsys.readouterr().out
    assert "Settings, versions, machine and data are the same." in told
    assert "Quality is the same to the last digit in all 6 metrics." in told  # miou and ece of three models


def test_a_changed_setting_and_what_it_did(made_study, capsys):
    settings = copy.deepcopy(STUDY)
    settings["experiments"]["ground"]["train"]["schedule"]["lr"] = 0.01
    a = made_study("first", FOUR)
    # torch: 0.01 and 0.03 better, and 2 and 8 times as fast an epoch; caffe2 as before
    b = made_study("second", {**FOUR, ("torch", 0): (0.71, 5.0), ("torch", 1): (0.83, 1.5)}, settings)
    difference = compare_studies(a, b)
    assert difference.changes.values.tolist() == [["settings", "experiments.ground.train.schedule.lr", "0.002", "0.01"]]
    miou = one(difference.results, "torch", "miou")
    half = 12.7062 * 0.01
    assert (miou.a, miou.b, miou.estimate) == pytest.approx((0.75, 0.77, 0.02))
    assert (miou.low, miou.high) == pytest.approx((0.02 - half, 0.02 + half), rel=1e-4)
    assert (miou.method, miou.outside) == ("paired, 2 seeds", False)
    time = one(difference.results, "torch", "train_epoch_s")
    assert (time.measure, time.estimate) == ("ratio", pytest.approx(0.25))
    assert time.low == pytest.approx(0.25 * math.exp(-12.7062 * math.log(2)), rel=1e-4)
    assert one(difference.results, "caffe2", "miou").estimate == 0
    costs = next(table for table in tables(difference) if "Times" in table.title)
    assert next(row for row in costs.rows if row[3] == "train_epoch_s")[-2] == "below 0.01 to above 100"
    assert main(["compare-studies", a, b]) == 0
    told = capsys.readouterr().out
    assert "experiments.ground.train.schedule.lr   0.002   0.01" in told
    assert "+0.0200" in told
    assert "intervals of metrics at 95 %" in told


def test_an_interval_beyond_no_change_is_marked(made_study):
    a = made_study("first", FOUR)
    b = made_study("second", {key: (miou + 0.05 + 0.0001 * key[1], s) for key, (miou, s) in FOUR.items()})
    difference = compare_studies(a, b)
    assert one(difference.results, "torch", "miou").outside is True
    quality = next(table for table in tables(difference) if "Quality" in table.title)
    assert all(row[-2].endswith(" *") for row in quality.rows)


def test_other_seeds_are_compared_without_pairs(made_study):
    a = made_study("first", {("torch", seed): (v, 10.0) for seed, v in ((0, 0.70), (1, 0.72), (2, 0.74))})
    b = made_study("second", {("torch", seed): (v, 10.0) for seed, v in ((2, 0.80), (7, 0.90))})
    difference = compare_studies(a, b)
    miou = one(difference.results, "torch", "miou")
    assert miou.method == "Welch, 3 and 2 seeds"
    judge = stats.ttest_ind([0.80, 0.90], [0.70, 0.72, 0.74], equal_var=False).confidence_interval(0.95)
    assert (miou.estimate, miou.low, miou.high) == pytest.approx((0.13, judge.low, judge.high))
    assert difference.changes.key.tolist() == ["seeds"]


def test_seeds_that_one_side_lacks_are_left_out_of_pairs(made_study):
    a = made_study("first", {("torch", seed): (0.7 + 0.1 * seed, 10.0) for seed in range(3)})
    b = made_study("second", {("torch", seed): (0.7 + 0.1 * seed, 10.0) for seed in range(2)})
    miou = one(compare_studies(a, b).results, "torch", "miou")
    assert (miou.method, miou.a, miou.b, miou.estimate) == ("paired, 2 seeds", pytest.approx(0.75), miou.a, 0.0)


def test_a_framework_that_one_study_lacks_is_told(made_study, capsys):
    a = made_study("first", FOUR)
    b = made_study("second", {key: value for key, value in FOUR.items() if key[0] == "torch"})
    difference = compare_studies(a, b)
    assert difference.only[["model", "framework", "in", "seeds"]].values.tolist() == [["unet", "caffe2", "a", "0, 1"]]
    assert set(difference.results.framework) == {"torch", "logistic"}
    assert main(["compare-studies", a, b]) == 0
    assert "In one study alone" in capsys.readouterr().out


@pytest.mark.parametrize(("seed", "method"), [(0, "seed 0, no interval"), (3, "other seeds, no interval")])
def test_a_single_seed_has_no_interval_and_that_is_said(made_study, seed, method):
    a = made_study("first", {("torch", 0): (0.7, 10.0)})
    b = made_study("second", {("torch", seed): (0.8, 10.0)})
    difference = compare_studies(a, b)
    miou = one(difference.results, "torch", "miou")
    assert (miou.estimate, miou.method, miou.outside) == (pytest.approx(0.1), method, None)
    assert math.isnan(miou.low)
    assert any("single seed has no interval" in note for note in difference.notes)


def test_versions_machine_and_data_are_compared(made_study):
    ours = {"software": {"python": "3.11", "commit": "a" * 40, "dirty": False}, "threads": 2}
    theirs = {"software": {"python": "3.12", "commit": "a" * 40, "dirty": True}, "threads": 4}
    a = made_study("first", {("torch", 0): (0.7, 10.0)}, record=ours)
    other = {"chips": "d" * 64, "weights": "e" * 64}
    b = made_study("second", {("torch", 0): (0.7, 10.0)}, record=theirs, identity=other)
    changes = compare_studies(a, b).changes
    assert {tuple(row) for row in changes.values} == {
        ("software", "python", "3.11", "3.12"),
        ("software", "commit", "a" * 40, "a" * 40 + " with changes"),
        ("machine", "threads (torch)", "2", "4"),
        ("data", "ground: chips", "c" * 12, "d" * 12),
        ("data", "ground: initial weights of unet in torch", "0" * 12, "e" * 12),
    }


def test_what_all_frameworks_share_is_told_once(made_study, tmp_path):
    a, b = made_study("first", FOUR), made_study("second", FOUR)
    for path in (tmp_path / "results/second").glob("runs/*/*/*/*/record.json"):
        record = json.loads(path.read_text())
        record["machine"]["cpu"] = "another"
        write_json(path, record)
    changes = compare_studies(a, b).changes
    assert changes[["part", "key", "b"]].values.tolist() == [["machine", "cpu", "another"]]


def test_records_that_are_not_there_are_told(made_study, tmp_path):
    a, b = made_study("first", FOUR), made_study("second", FOUR)
    (tmp_path / "results/second/runs").rename(tmp_path / "elsewhere")
    notes = compare_studies(a, b).notes
    assert any("second: no records; versions and machine are not compared" in note for note in notes)
    assert any("second: not every run has a checkpoint" in note for note in notes)


@pytest.mark.parametrize("suffix", [".md", ".csv", ".json"])
def test_the_written_forms_hold_every_change_and_result(made_study, tmp_path, suffix):
    settings = copy.deepcopy(STUDY)
    settings["experiments"]["ground"]["train"]["augment"] = {"flip": True}
    a = made_study("first", FOUR)
    b = made_study("second", {("torch", 0): (0.72, 5.0), ("torch", 1): (0.83, 5.0)}, settings)
    out = tmp_path / f"difference{suffix}"
    assert main(["compare-studies", a, b, "--out", str(out)]) == 0
    text = out.read_text()
    if suffix == ".md":
        assert '| settings | experiments.ground.train.augment | null | {"flip": true} |' in text
        assert "| ground | unet | torch | miou | 0.7500 | 0.7750 | +0.0250 |" in text
        assert "| ground | unet | caffe2 | A | 0, 1 |" in text
    elif suffix == ".json":
        found = json.loads(text)
        assert {row["key"] for row in found["changes"]} == {"frameworks", "experiments.ground.train.augment"}
        assert found["only"][0]["framework"] == "caffe2"
        miou = next(r for r in found["results"] if (r["framework"], r["quantity"]) == ("torch", "miou"))
        assert miou["estimate"] == pytest.approx(0.025)
    else:
        table = pd.read_csv(out)
        assert set(table.part) == {"settings", "runs", "results"}
        miou = table[(table.framework == "torch") & (table.quantity == "miou")]
        assert miou.estimate.tolist() == pytest.approx([0.025])


def test_wrong_folders_are_one_line(made_study, tmp_path, capsys):
    a = made_study("first", FOUR)
    other = made_study("second", FOUR, experiment="water")
    for arguments, words in (
        ([a, str(tmp_path / "nothing")], "nothing: no such folder"),
        ([str(tmp_path), a], "no tables/runs.csv; expected a study's results"),
        ([a, other], "have nothing in common"),
        ([a, a, "--out", "x.txt"], "expected a name that ends in .md, .csv, .json"),
    ):
        assert main(["compare-studies", *arguments]) == 2
        captured = capsys.readouterr()
        assert words in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out == ""
