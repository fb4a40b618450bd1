"""The smoke study through the real workflow, undisturbed and killed on the way, in folders with a space in the name."""

import csv
import html
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rvkernels.live import Watcher

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.study
SMOKE = "results/smoke"


def command(*arguments, study="config/smoke.yaml"):
    return [str(ROOT / "workflow/run.sh"), "--configfile", str(ROOT / study), "--cores", "2", *arguments]


def environment():
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path}


def files(directory, pattern):
    return {p.relative_to(directory).as_posix(): p for p in sorted((directory / SMOKE).rglob(pattern))}


def test_every_stage_and_task_leaves_its_results(smoke, untimed):
    page = (smoke / SMOKE / "report.html").read_text()
    assert "<table" in page
    rows = untimed(smoke / SMOKE / "tables/runs.csv")
    assert {r["task"] for r in rows} == {"classification", "segmentation", "detection"}
    assert all(r["validated"] == "True" for r in rows)
    for name in files(smoke, "figures/*.svg"):
        stem = smoke / name.removesuffix(".svg")
        assert stem.with_suffix(".png").is_file()
        assert stem.with_suffix(".csv").is_file()
        assert not re.search(r"<\S|&\w+;", stem.with_suffix(".txt").read_text()), "snakemake's report takes it for HTML"
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_nothing_to_do_the_second_time(smoke, run_study):
    assert "Nothing to be done" in run_study(smoke)


def test_snakemakes_own_report_has_every_result_with_category_and_caption(smoke, run_study):
    run_study(smoke, "--report", str(smoke / "snakemake.html"))
    page = (smoke / "snakemake.html").read_text()
    results, categories = (
        json.JSONDecoder().raw_decode(page.partition(f'<script id="{name}">')[2].partition(" = ")[2])[0]
        for name in ("results", "categories")
    )
    tables, figures = files(smoke, "tables/*"), files(smoke, "figures/*.svg")
    assert results.keys() == {f"{SMOKE}/report.html", f"{SMOKE}/blog/post.md", *tables, *figures}
    assert categories.keys() == {"Report", "Tables", "Figures"}
    assert set(categories["Figures"]) <= {"all", "landcover", "cells", "objects"}
    for name, result in results.items():
        caption = html.unescape(re.sub(r"<[^>]*>", "", result["caption"]))
        assert len(caption) > 20, name
        assert result["labels"], name
        if name in figures:
            assert (smoke / name).with_suffix(".txt").read_text().strip() in caption


def test_a_record_names_no_path(smoke):
    for name, path in files(smoke, "record.json").items():
        record = json.loads(path.read_text())
        assert record["validated"] is True, name
        assert str(smoke) not in path.read_text()


def test_step_times_apart_from_the_study(smoke, run_study):
    run_study(smoke, "bench_train")
    records = files(smoke, "bench_train/*/*/*/*/*.json")
    with (smoke / SMOKE / "tables/bench_train.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert {r["task"] for r in rows} == {"classification", "segmentation", "detection"}
    assert len(records) == 2 * len(rows)
    for row in rows:
        assert (row["batch"], row["rounds"], row["steps"]) == ("8", "2", "4")
        assert float(row["step_q1_s"]) <= float(row["step_median_s"]) <= float(row["step_q3_s"])
        assert float(row["ratio_low"]) <= float(row["ratio_high"])
    for name, path in records.items():
        record = json.loads(path.read_text())
        assert record["threads"] == 2, name
        assert str(smoke) not in path.read_text()
    assert "Nothing to be done" in run_study(smoke)


def kill_when(directory, log, seconds=240, study="config/smoke.yaml"):
    """Start the study, kill snakemake (not its jobs) half a second after the job with this log has begun, wait for
    the jobs to end."""
    script = subprocess.Popen(
        command("--directory", str(directory), study=study),
        env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + seconds
    while not list((directory / SMOKE / "logs").glob(log)):
        assert script.poll() is None, f"the study ended before {log} began"
        assert time.monotonic() < deadline, f"{log} did not begin"
        time.sleep(0.02)
    time.sleep(0.5)
    assert Watcher(directory / SMOKE).look().state == "running"
    (snakemake,) = psutil.Process(script.pid).children()
    snakemake.kill()
    assert script.wait() != 0
    deadline = time.monotonic() + 60
    while Watcher(directory / SMOKE).look().state != "stopped":
        assert time.monotonic() < deadline, "jobs outlive their snakemake"
        time.sleep(0.1)  # they look twice a second whether it is gone


def test_killed_in_fetch_a_part_of_chip_and_train_it_ends_as_one_job_undisturbed(
    smoke, tmp_path, run_study, assert_same_study
):
    directory = tmp_path / "killed study"
    directory.mkdir()
    study = tmp_path / "parts.yaml"
    text = (ROOT / "config/smoke.yaml").read_text()
    study.write_text(f"{text}\nparts: {{ chip: 3, predict: 3, evaluate: 2 }}\n")
    for log in ("*/fetch.log", "*/chip/*-of-3.log", "*/train/*/*/*.log"):
        kill_when(directory, log, study=study)
    said = run_study(directory, "--until", "predict_part", "--notemp", study=study)
    assert "clearing its lock" in said
    logs = files(directory, "logs/*/predict/**/*-of-3.log")
    told = {name: path.read_bytes() for name, path in logs.items()}
    assert len(told) == 9
    for part in (directory / SMOKE / "parts").glob("*/predict/*/*/*/2-of-3"):  # as of jobs that were killed
        shutil.rmtree(part)
    run_study(directory, study=study)
    assert Watcher(directory / SMOKE).look().state == "complete"
    assert not list(directory.rglob("status.json"))
    assert not list(directory.rglob("*.part*")), "half a file"
    again = {name for name, path in logs.items() if path.read_bytes() != told[name]}
    assert again == {name for name in logs if name.endswith("/2-of-3.log")}

    for pattern in ("data/*/chips/*", "predictions/predictions.npz", "predictions/*/*.tif"):
        ours, theirs = files(directory, pattern), files(smoke, pattern)
        assert ours.keys() == theirs.keys() != set(), pattern
        for name, path in theirs.items():
            assert ours[name].read_bytes() == path.read_bytes(), name
    assert_same_study(directory, smoke)


def test_one_core_gives_the_same_chips(smoke, tmp_path, run_study):
    run_study(tmp_path, "--cores", "1", "--until", "chip")
    for name, path in files(smoke, "chips.csv").items():
        assert (tmp_path / name).read_bytes() == path.read_bytes()
        images = Path(name).parent / "images.npy"
        assert (tmp_path / images).read_bytes() == (smoke / images).read_bytes()


@pytest.mark.mirror
@pytest.mark.skipif("RVK_MIRROR" not in os.environ, reason="RVK_MIRROR names no folder with EuroSAT")
def test_a_network_learns_a_subset_of_eurosat(tmp_path, run_study, untimed):
    run_study(tmp_path, "--until", "compare", study="tests/workflow/eurosat_subset.yaml")
    rows = untimed(tmp_path / "results/eurosat_subset/tables/runs.csv")
    accuracy = {r["model"]: float(r["accuracy"]) for r in rows}
    # Ten classes; the baseline sees the mean and spread of every band, the network 1,600 chips ten times.
    assert accuracy["baseline"] > 0.5
    assert accuracy["resnet"] > accuracy["baseline"]
    assert all(r["validated"] == "True" for r in rows)
