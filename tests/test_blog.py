"""The blog post from made-up runs: its form and links, what it says and does not, and where its numbers are from."""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import yaml

from rvkernels import registry, surprises
from rvkernels.blog import blog, markdown
from rvkernels.compare import compare
from rvkernels.facts import Numbers
from rvkernels.files import read_json, write_json
from rvkernels.report import report
from rvkernels.results import Results

DATASET = "config/datasets/towns.yaml"
KEYS = ("published", "title", "excerpt", "tags", "difficulty", "date", "authors", "reading_time")


@pytest.fixture
def post(made_run, write_leaks, tmp_path, monkeypatch, request):
    """A function that makes a study and its post, and returns the folder, the front matter and the body."""

    def make(frameworks=("torch", "caffe2"), seeds=(0, 1), title="Made up", base=0.5, dirty=False, pretrained=None):
        steps = np.arange(60)
        for seed in seeds:
            for i, framework in enumerate(frameworks):
                folder = made_run(
                    "ground_cover", "unet", framework, seed, 0.7123 + 0.1 * seed + 0.002 * i * (1 + seed),
                    losses=np.full(60, 2.0 + 1e-5 * i),
                    record={
                        "started": f"2026-03-0{1 + seed}T10:00:00Z",
                        "weight_identical": True,
                        "times_s": {"train_epoch": [40.0 + i, 50.0], "val_epoch": [1.0], "step": [0.5]},
                        "result": {"steps": 60, "warmup_steps": 5, "step_median_s": 0.02 * (1 + 1.7 * i),
                                   "passes_share": 0.8, "train_chips": 1234, "build_s": 1.0},
                        "software": {"python": "3.11", "commit": "abc" * 14, "dirty": dirty},
                    },
                )  # fmt: skip
                with np.load(folder / "steps.npz") as data:
                    np.savez(folder / "steps.npz", loss=data["loss"], seconds=np.full(60, 0.02), since_start=steps)
        made_run("ground_cover", "baseline", "logistic", 0, base)
        write_leaks(tmp_path, "ground_cover")
        train = {"task": "segmentation", "models": {"unet": {}}, "target": None, "train": {"metric": "miou"}}
        study = {
            "study": "made", "title": title, "downloads": "downloads",
            "frameworks": list(frameworks), "seeds": list(seeds), "equivalence": {"miou": 0.02}, "bench": False,
            "experiments": {"ground_cover": {**train, "published_curve": {}, "pretrained": pretrained or {}}},
        }  # fmt: skip
        datasets = {"ground_cover": str(request.config.rootpath / DATASET)}
        compare(tmp_path / "runs", tmp_path / "tables", study)
        kept, names = ["quality", "time"], registry.names
        with monkeypatch.context() as patch:  # the other figures show chips and scenes
            patch.setattr(registry, "names", lambda kind: kept if kind == "figures" else names(kind))
            report(tmp_path, study, datasets, tmp_path / "figures", tmp_path / "report.html")
        blog(tmp_path, study, datasets, tmp_path / "figures", tmp_path / "blog")
        _, front, body = (tmp_path / "blog/post.md").read_text().split("---\n", 2)
        make.datasets = datasets
        return tmp_path / "blog", yaml.safe_load(front), body, Results(tmp_path, study, datasets)

    return make


def sentences(body: str) -> str:
    """The body without tables, pictures, captions, code and attribute lists, up to the licences of the data."""
    lines = body[: body.index("## Data")].split("\n")
    kept = []
    for i, line in enumerate(lines):
        caption = i + 1 < len(lines) and lines[i + 1].startswith("{: .caption")
        if not (caption or line.startswith(("|", "!", "    ", "{:"))):
            kept.append(re.sub(r"`[^`]*`|\]\([^)]*\)", "", line))
    return "\n".join(kept)


def test_the_front_matter_has_what_the_site_lists(post):
    _, front, body, _ = post()
    assert set(KEYS) <= set(front)
    assert front["published"] is True
    assert front["title"] == "Made up"
    assert front["date"] == datetime.date(2026, 3, 2)  # of the last run
    assert front["reading_time"] == round(len(re.findall(r"\w+", body)) / 200)
    assert {"PyTorch", "Caffe2", "segmentation"} <= set(front["tags"])
    assert "1 of 1 pairs are shown to be equally good within the study's margins" in front["excerpt"]
    assert "up to 2.70 times as long as in PyTorch" in front["excerpt"]


def test_links_and_pictures_are_there(post):
    folder, _, body, _ = post()
    linked = re.findall(r"\]\(([^)]*)\)", body)
    assert {"quality.svg", "quality.png", "study.yaml", "numbers.csv"} <= set(linked)
    assert all((folder / name).stat().st_size > 100 for name in linked)
    assert sorted(p.name for p in folder.iterdir() if p.suffix == ".svg") == sorted(
        {name for name in linked if name.endswith(".svg")}
    )
    assert body.count("{: .caption }") == body.count("![") == 2
    assert yaml.safe_load((folder / "study.yaml").read_text())["study"] == "made"


@pytest.mark.parametrize(("frameworks", "seeds"), [(("torch", "caffe2"), (0, 1)), (("torch",), (0,))])
def test_every_number_of_its_sentences_has_a_source(post, frameworks, seeds):
    folder, _, body, _ = post(frameworks, seeds)
    known = set(pd.read_csv(folder / "numbers.csv", dtype=str).text)
    # The interval's level is Student's and the test's, and no result.
    text = sentences(body).replace("the 95 % interval", "").replace("Caffe2", "")
    said = re.findall(r"\d+(?:\.\d+)? × 10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+|(?<![\w.])\d[\d,]*(?:\.\d+)?", text)
    assert len(said) >= 5
    assert [number for number in said if number not in known] == []


def test_its_numbers_are_those_of_the_tables(post):
    folder, _, body, results = post()
    numbers = pd.read_csv(folder / "numbers.csv").set_index("source")
    ratio = results.pairs[results.pairs.quantity == "step_median_s"].ratio.iloc[0]
    for end in ("least", "largest"):
        assert numbers.loc[f"tables/frameworks.csv: ratio of step_median_s, caffe2 / torch, {end}"].value == ratio
    mean = results.summary[(results.summary.quantity == "miou") & (results.summary.framework == "torch")]["mean"].iloc[
        0
    ]
    assert numbers.loc["tables/summary.csv: mean miou, unet on ground_cover in torch"].value == mean
    assert f"{mean:.3f} in PyTorch" in body
    assert "| ground\\_cover | unet | PyTorch | mIoU 0.762 (0.127 to 1.398) | 90 | 20 | 100 |" in body
    assert "learnt from 1,234 training chips" in body
    assert "On ground\\_cover, unet reaches mIoU" in body
    assert "best model" not in body  # there is one
    assert "at commit `abcabcabcabc`, with" in body
    assert "start anew" not in body


def test_one_framework_is_not_compared(post):
    _, front, body, _ = post(("torch",), (0,))
    assert "frameworks" not in sentences(body)
    assert "There is one run of each kind" in body
    assert "1 training took 1.5 minutes" in body
    assert front["excerpt"].startswith("unet reaches mIoU 0.712 on Two drawn towns (a logistic regression 0.500); and")


def test_what_does_not_beat_the_baseline_is_said(post):
    assert "which does not beat the 0.990 of the logistic regression." in " ".join(post(base=0.99)[2].split())


def test_weights_from_a_file_and_changes_that_were_not_committed_are_said(post):
    body = post(seeds=(0,), dirty=True, pretrained={"unet": {"file": "weights/resnet18_v2.npz"}})[2]
    assert "unet on ground\\_cover from the weights in `resnet18_v2.npz`, where these fit." in body
    assert "at commit `abcabcabcabc` (and changes to it that were not committed)" in body


def test_surprises_are_found_in_the_tables(post):
    _, _, body, results = post()
    found = {s.rule: s for s in surprises.surprises(results, most=99)}
    texts = {rule: s.say(Numbers()) for rule, s in found.items()}
    said = "A training step of unet on ground_cover takes 2.7 times as long in Caffe2 as in PyTorch."
    assert texts["speed"] == said
    assert found["speed"].excess == pytest.approx(np.log(2.7) / np.log(1.25))
    assert "order" not in found  # one model: its fastest framework is the fastest
    assert "tail" not in found  # every step takes the same
    # seeds are 0.1 (torch) and 0.102 apart, frameworks 0.002 and 0.004
    assert "0.1010 mIoU apart on average" in texts["seeds"]
    assert "0.0030" in texts["seeds"]
    assert markdown(said) in body
    assert list(found.values()) == sorted(found.values(), key=lambda s: -s.excess)


def test_figures_are_those_of_a_kind_and_an_experiment(post, monkeypatch):
    folder, _, _, results = post()
    figures = folder.parent / "figures"
    known = read_json(figures / "figures.json")
    for name, experiment in (("maps_unet_ground_cover", "ground_cover"), ("maps_cover", "cover")):
        known.append(
            {"kind": "maps", "name": name, "experiment": experiment, "title": "Maps", "alt": f"of {experiment}"}
        )
        for suffix in ("svg", "png", "txt"):
            shutil.copyfile(figures / f"quality.{suffix}", figures / f"{name}.{suffix}")
    write_json(figures / "figures.json", known)
    arguments = (folder.parent, results.study, post.datasets, figures, folder)
    blog(*arguments)
    body = (folder / "post.md").read_text()
    assert "![of ground\\_cover](maps_unet_ground_cover.png)" in body
    assert "maps_cover" not in body
    template = folder.parent / "template"
    template.mkdir()
    (template / "post.md.j2").write_text('{{ figure("qualitty") }}')
    monkeypatch.setattr("rvkernels.blog.TEMPLATE", template)
    with pytest.raises(ValueError, match=r"no figure 'qualitty'.*Did you mean 'quality'"):
        blog(*arguments)


def test_text_is_not_taken_for_markup():
    assert markdown("a_b *c* [d] | {e} <f>") == r"a\_b \*c\* \[d\] \| \{e\} \<f\>"


def test_kramdown_reads_it(post):
    ruby = shutil.which("ruby")
    if ruby is None or subprocess.run([ruby, "-e", 'require "kramdown"'], capture_output=True).returncode:
        pytest.skip("no kramdown for Ruby on this machine (Debian: ruby-kramdown)")
    body = post()[2]
    script = "d = Kramdown::Document.new(STDIN.read); STDERR.puts(d.warnings); print d.to_html"
    made = subprocess.run(
        [ruby, "-r", "kramdown", "-e", script], input=body, capture_output=True, text=True, check=True
    )
    assert made.stderr.strip() == ""
    page = made.stdout
    assert page.count("<img ") == 2
    assert page.count('width="700"') == 2
    assert page.count('class="caption"') == 2
    assert '<table class="results">' in page
    assert page.count("<h2") >= 6
    assert not re.search(r"\{:|\\[_|*\[]", page)


@pytest.mark.parametrize(
    ("seconds", "told"), [(35.0, ("seconds", 1.0)), (600.0, ("minutes", 60.0)), (36000.0, ("hours", 3600.0))]
)
def test_the_unit_of_a_training_is_one_for_all(post, seconds, told):
    results = post(("torch",), (0,))[3]
    results.runs.loc[results.runs.framework == "torch", "train_epoch_s"] = seconds
    assert results.training_unit == told
