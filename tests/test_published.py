"""Ours beside published results: every number is from a table, a record or a description, each with its words."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest
import yaml

from rvkernels.files import write_json
from rvkernels.published import COLUMNS, as_csv, as_markdown, rows

PUBLISHED = [
    {"what": "U-Net, own split", "metric": "miou", "value": 0.75, "source": "A 2020"},
    {"what": "FCN", "metric": "val_accuracy", "value": 0.9, "source": "B 2021"},
]


@pytest.fixture
def kept(tmp_path, make_study):
    """results/published/ with a study of two frameworks and two seeds, and the folder of datasets."""
    made = tmp_path / "made"
    make_study(made)
    folder = tmp_path / "published/ground_study"
    shutil.copytree(made / "tables", folder / "tables")
    for record in (made / "runs").glob("*/*/*/*/record.json"):
        _, model, framework, seed, _ = record.relative_to(made / "runs").parts[-5:]
        run = {**json.loads(record.read_text()), "model": model, "framework": framework}
        write_json(folder / f"records/{model}_{framework}_{seed}.json", run)
    said = {"what": "a U-Net", "command": "make study", "protocol_difference": {"ground": "ours is | made up"}}
    (folder / "published.yaml").write_text(yaml.safe_dump(said))
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/towns.yaml").write_text(yaml.safe_dump({"published": PUBLISHED}))
    return tmp_path / "published", tmp_path / "datasets"


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_every_mean_meets_the_published_values_of_its_metric(kept):
    found = list(csv.DictReader(io.StringIO(as_csv(rows(*kept)))))
    assert tuple(found[0]) == COLUMNS
    tables = kept[0] / "ground_study/tables"
    ours = {
        (r["model"], r["framework"], r["quantity"]): r
        for r in table(tables / "summary.csv")
        if r["model"] != "baseline"
    }
    wanted = {key for key in ours if key[2] in ("miou", "val_accuracy")}
    assert {(r["model"], r["framework"], r["metric"]) for r in found} == wanted
    assert {framework for _, framework, _ in wanted} == {"torch", "caffe2"}
    seconds = dict.fromkeys(("torch", "caffe2", "logistic"), 0.0)
    for run in table(tables / "runs.csv"):
        seconds[run["framework"]] += float(run["train_epoch_s"] or 0)
    for row in found:
        mean = ours[row["model"], row["framework"], row["metric"]]
        assert (row["ours_mean"], row["ours_sd"]) == (mean["mean"], mean["std"])
        assert (row["dataset"], row["task"], row["seeds"]) == ("towns", "segmentation", "0 1")
        assert (row["published"], row["source"]) == ("0.75", "U-Net, own split (A 2020)")
        assert (row["protocol_difference"], row["command"]) == ("ours is | made up", "make study")
        assert float(row["hours"]) == pytest.approx(seconds[row["framework"]] / 3600, rel=5e-3)
        assert "cores" in row["machine"]


def test_the_page_says_what_ran_and_what_differs(kept):
    page = as_markdown(kept[0], rows(*kept))
    assert "| `ground_study/` | a U-Net |" in page
    assert "| `make study` |" in page
    (line,) = (line for line in page.splitlines() if line.startswith("| towns | miou |"))
    assert " unet in caffe2 (2 seeds)<br>" in line
    assert " unet in torch (2 seeds) | 0.75 U-Net, own split (A 2020) | ours is \\| made up |" in line
    assert " ± " in line


def test_what_was_not_kept_stays_empty(kept):
    shutil.rmtree(kept[0] / "ground_study/records")
    assert {row["machine"] for row in rows(*kept)} == {""}
    assert "| not kept |" in as_markdown(kept[0], rows(*kept))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"what": "x", "command": "y"}, r"published\.yaml: protocol_difference: says nothing of ground; write in what"),
        ({"what": "x"}, r"published\.yaml: .*command"),
        ({"what": "x", "command": "y", "machin": "z"}, r"unknown key 'machin'"),
    ],
)
def test_words_that_are_missing_or_unknown(kept, said, message):
    (kept[0] / "ground_study/published.yaml").write_text(json.dumps(said))
    with pytest.raises(ValueError, match=message):
        rows(*kept)


def test_a_folder_without_its_words(kept):
    (kept[0] / "ground_study/published.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"published\.yaml: no such file; say in it `what` was run"):
        rows(*kept)
