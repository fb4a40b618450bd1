"""The page and its figures from made-up runs: what is said, with which numbers, and nothing that was not found."""

from __future__ import annotations

import functools
import html
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rvkernels import findings, registry
from rvkernels.facts import facts
from rvkernels.files import write_json
from rvkernels.report import page_of, report

ROOT = Path(__file__).parents[1]
# The other figures show chips and scenes.
TABLE_FIGURES = ["cost", "curves", "divergence", "equivalence", "pareto", "per_class", "quality", "steps", "time"]


@pytest.fixture
def study(make_study, tmp_path):
    """A function that makes a study of two frameworks and its report, and returns the results and the page."""
    return functools.partial(make_study, tmp_path)


def plain(page: str) -> str:
    """The page's words."""
    page = re.sub(r"</?data\b[^>]*>", "", page)
    without = re.sub(r"<(style|script|svg)\b.*?</\1>", " ", page, flags=re.S)
    return html.unescape(" ".join(re.sub(r"<[^>]*>", " ", without).split()))


def test_the_page_answers_with_the_numbers_of_the_tables(study):
    text = plain(study()[1])
    assert (
        "Which framework is fastest? torch A training step takes 2.00 times as long in caffe2. 1 of 1 comparisons"
        in text
    )
    assert "The largest mean difference is 0.003 mIoU (unet on ground, caffe2 against torch), over 2 seeds." in text
    assert "unet reaches mIoU 0.750 in torch and 0.753 in caffe2 on the test split" in text
    assert "a logistic regression 0.500." in text
    assert "Equivalence of quality within ±0.02 mIoU is shown for 1 of 1 pairs" in text
    assert "differ by at most 1.0 × 10⁻⁵ between frameworks, relative to torch, which is within the bound" in text
    assert "at most 1.5 times what another order of summation does in one framework with the same seed" in text
    assert "equivalent within ±0.02 (p = 0.019)" in text  # mean 0.003, error 0.001: atan(17)
    assert "2.00 (2.00 to 2.00)" in text
    assert "1 of 2 runs never reach it" in text
    assert "significant" not in text


def test_the_page_says_what_the_splits_have_in_common(study):
    results, page = study()
    text = plain(page)
    assert "No chips of two splits show the same ground; 45 of 60 were compared by place" in text
    assert "test train 20 3 7" in text
    results.experiments["ground"].leaks["overlap"] = "chip 1 and chip 2"
    shared = "its test says nothing of other places: chip 1 and chip 2"
    assert shared in findings.leaks_table(results, "ground").caption
    assert [row[3][0] for row in findings.leaks_table(results, "ground").rows] == ["0", "3", "0"]


def test_times_of_frameworks_that_did_not_run_alike_are_marked(study):
    results, page = study()
    assert "did not run alike" not in plain(page)
    threads = results.equal.what.isin(["threads", "steps"])
    results.equal = results.equal.assign(equal=~threads)
    text = plain(page_of(results, [], results.folder))
    assert "did not run alike: threads differ." in text


def test_beyond_the_bounds_is_said(study):
    text = plain(study(control=0.005, better=0.03)[1])
    assert "at most 3 times what another order of summation does" in text
    assert "with the same seed, which is beyond the bound of 2 times" in text
    assert "is shown for 0 of 1 pairs" in text
    assert "not shown within ±0.02" in text


def test_one_seed_is_no_test(study):
    text = plain(study(seeds=1, control=None)[1])
    assert "Whether the frameworks are equivalent in quality is not tested" in text
    assert "not tested: 1 seed" in text
    assert "another order of summation does" not in text


def test_what_is_equal_is_listed_and_what_is_not_told(study):
    results, page = study()
    text = plain(page)
    assert "the records say: initial weights, chips and their normalisation, model, order of chips" in text
    assert "Software that differs between the frameworks' environments: python." in text
    assert "Recorded by one framework alone: torch (torch 1.0) and caffe2 (caffe2 1.0)." in text
    weights = results.equal.what == "initial weights"
    results.equal = results.equal.assign(equal=~weights, values=np.where(weights, "torch: a; caffe2: b", ""))
    sentences = findings.fairness(results, facts(results).equal)
    assert "initial weights" not in sentences[0]
    assert "initial weights (torch: a; caffe2: b); the comparison is not weight-identical." in sentences[1]


def test_a_model_of_the_users_own_is_marked(study):
    results, page = study(weight_identical=False)
    text = plain(page)
    assert "The comparison is not weight-identical for unet: each framework makes its own initial weights." in text
    assert "initial weights (torch: made by torc" in text
    assert "losses of the first 20 steps" not in text
    assert results.divergence.empty


def test_every_figure_has_its_numbers_in_a_table(study, tmp_path):
    study(figures=TABLE_FIGURES)
    drawn = "cost curves_ground divergence_ground equivalence pareto classes_ground quality steps time"
    for name in drawn.split():
        for suffix in ("svg", "png", "pdf", "csv"):
            assert (tmp_path / f"figures/{name}.{suffix}").stat().st_size > 50, name
    steps = pd.read_csv(tmp_path / "figures/steps.csv").set_index("framework")
    assert steps.loc["caffe2", ["steps", "median"]].tolist() == [490, 40.0]  # without the warm-up of 9 s
    time = pd.read_csv(tmp_path / "figures/time.csv").set_index("framework")
    passes = time.loc["torch", ["forward and backward", "update", "validation"]].tolist()
    assert passes == pytest.approx([0.75 * 0.53, 0.25 * 0.53, 0.5])
    assert time.loc["torch", "rest of the epochs"] == pytest.approx(3.0 - 0.53)
    drift = pd.read_csv(tmp_path / "figures/divergence_ground.csv")
    assert set(drift.framework) == {"torch", "caffe2", "control"}
    assert drift[drift.framework == "caffe2"].relative_difference.max() == pytest.approx(0.015)


def test_the_caption_has_the_largest_divergence(study):
    text = plain(study(figures=["divergence"])[1])
    assert "1.0 × 10⁻⁵ in the first 20 steps (unet in caffe2) and 1.5 × 10⁻² in the first 200 (unet in caffe2)" in text
    assert "torch to itself with 1 instead of 2 threads" in text


@pytest.mark.parametrize("experiment", ["ground", "time"])
def test_the_page_is_whole_and_asks_for_nothing(study, experiment):
    page = study(figures=["quality", "steps"], experiment=experiment)[1]
    assert len(re.findall(r'id="([^"]+)"', page)) == len(set(re.findall(r'id="([^"]+)"', page)))
    assert not re.search(r'(src|href)="(https?:)?//', page)


def test_processes_side_by_side_draw_the_same(study, tmp_path, monkeypatch):
    results, page = study(figures=["quality", "steps"])
    names = registry.names
    monkeypatch.setattr(registry, "names", lambda kind: ["quality", "steps"] if kind == "figures" else names(kind))
    again, datasets = tmp_path / "again", {"ground": str(ROOT / "config/datasets/towns.yaml")}
    report(tmp_path, results.study, datasets, again / "figures", again / "report.html", threads=2)
    assert (again / "report.html").read_text() == page
    for name in ("quality.svg", "steps.svg", "steps.csv"):
        assert (again / "figures" / name).read_bytes() == (tmp_path / "figures" / name).read_bytes(), name


def timing(kernel, case, threads, ratio, share):
    """A record of rvk bench: 2 ms, a peer that takes `ratio` times as long, a floor that takes `share` of it."""
    return {
        "kernel": kernel,
        "case": case,
        "threads": threads,
        "checked": True,
        "ours_s": 0.002,
        "peer": ratio and "GDAL",
        "peer_s": ratio and 0.002 * ratio,
        "ratio_to_fastest_peer": ratio,
        "floor_s": share and 0.002 * share,
        "ratio_to_floor": share,
    }


KERNELS = [
    timing("tile", "strips", 1, 1.25, 0.8),
    timing("tile", "strips", 0, 2.5, 0.9),
    timing("tile", "random", 1, None, None),
    timing("nms", "20,000 boxes", 1, 0.75, 0.01),
]


@pytest.fixture
def kernels(tmp_path):
    """The records of rvk bench beside the study's folder."""
    folder = tmp_path.parent / "bench"
    write_json(folder / "kernels.json", KERNELS)
    write_json(folder / "machine.json", {"quick": True, "machine": {"cpu": "A processor", "usable_cores": 2}})
    yield folder
    shutil.rmtree(folder)


def test_the_kernels_have_a_section_in_a_study_that_asks_for_it(study, kernels, tmp_path):
    page = study(figures=["kernels"], bench="quick")[1]
    assert 'href="#kernels"' in page
    text = plain(page)
    assert "Small inputs (rvk bench --quick) on A processor with 2 cores." in text
    assert "tile strips 1 2 ms GDAL 2.5 ms 1.25 1.6 ms 80%" in text
    assert "tile strips all 2 ms GDAL 5 ms 2.5 1.8 ms 90%" in text
    assert "tile random 1 2 ms none" in text
    assert "faster in 2 of 3 comparisons, and the least ratio is 0.75 (nms, 20,000 boxes)." in text
    table = pd.read_csv(tmp_path / "figures/kernels.csv")
    assert table.ratio_to_fastest_peer.tolist()[:2] == [1.25, 2.5]
    assert (tmp_path / "figures/kernels.png").stat().st_size > 5000


def test_without_any_peer_the_kernels_are_still_told(study, kernels):
    write_json(kernels / "kernels.json", [timing("tile", "random", 1, None, None)])
    text = plain(study(figures=["kernels"], bench="full")[1])
    assert "No peer was there to compare with." in text


def test_no_kernels_in_a_study_that_does_not_ask(study, kernels):
    assert "kernels.csv" not in study(figures=["kernels"])[1]


@pytest.mark.parametrize(
    ("value", "text"), [(2e-7, "0.2 µs"), (0.0123456, "12.3 ms"), (0.99996, "1 s"), (63.21, "63.2 s")]
)
def test_seconds_come_in_the_unit_that_suits(value, text):
    assert findings.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(float("nan"), ""), (0.0123456, "0.0123"), (1234.5, "1,234"), (99.96, "100")]
)
def test_numbers_have_three_digits(value, text):
    assert findings.number(value)[0] == text


def test_intervals_are_in_brackets():
    assert findings.span(-0.5, -0.75, 0.25, sign=True) == ("−0.500 (−0.750 to 0.250)", -0.5)
    assert findings.span(0.5, float("nan"), float("nan"), sign=True)[0] == "+0.500"
    assert findings.ratio_span(2.0, 1.5, 2.5)[0] == "2.00 (1.50 to 2.50)"
    assert findings.ratio_span(2.0, 1e-9, 1e9)[0] == "2.00 (below 0.01 to above 100)"
    assert findings.ratio_span(2.0, float("nan"), float("nan"))[0] == "2.00"
    assert findings.listing(["a"]) == "a"
    assert findings.listing("abc") == "a, b and c"
