"""Figures of chips, scenes and what was found in them, of a small study per task, whose numbers evaluation has, too."""

from __future__ import annotations

import dataclasses
import json
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from rvkernels import figures, metrics, raster, registry
from rvkernels.analyze import analyze
from rvkernels.blog import TEMPLATE
from rvkernels.chip import DEFAULTS, chip
from rvkernels.compare import compare
from rvkernels.evaluate import evaluate
from rvkernels.figures import _scenes
from rvkernels.files import read_json
from rvkernels.ops.tile import IDENTITY
from rvkernels.predictions import UNSEEN, Predictions, write_labels
from rvkernels.results import Results
from rvkernels.scene import Region, Scene, write_regions, write_scenes

CLASSES = [{"name": "field", "color": "#e0c050"}, {"name": "house", "color": "#c8453c"}]
SIDE = 64
HOUSES = [(4, 4, 20, 20), (30, 34, 46, 50), (48, 6, 62, 20)]
PRIMARY = {"classification": "accuracy", "segmentation": "miou", "detection": "ap50"}
MODELS = {"classification": ["cnn"], "segmentation": ["fcn", "unet"], "detection": ["detector"]}
KINDS = {
    "classification": "balance chips confusion duplicates failures maps per_class per_scene precision_recall",
    "segmentation": "balance chips confusion duplicates failures maps per_class per_scene",
    "detection": "balance chips duplicates failures maps per_class per_scene precision_recall",
}


def write_shapes(path, boxes, **properties) -> str:
    features = [{"type": "Feature", "geometry": raster.box_geometry(box), "properties": properties} for box in boxes]
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": None, "features": features}))
    return str(path)


def write_scene(folder, name: str, houses: list, **more) -> Scene:
    """Dark field with bright houses; a corner has no data."""
    image = np.random.default_rng(len(name)).integers(20, 60, (SIDE, SIDE, 3), dtype=np.uint8)
    for y, x, bottom, right in houses:
        image[y:bottom, x:right] += 150
    image[:6, -6:] = 0
    raster.write_geotiff(folder / f"{name}.tif", image, None, IDENTITY, nodata=0)
    labels = write_shapes(folder / f"{name}.geojson", houses, class_name="house")
    return Scene(name, (str(folder / f"{name}.tif"),), SIDE, SIDE, 3, "uint8", nodata=0.0, labels=labels, **more)


def predict(task: str, folder, scenes: list[Scene], shift: int) -> None:
    """What finds the first houses of every scene, `shift` pixels too far down."""
    regions = np.array([[i, 0, 0, SIDE, SIDE] for i in range(len(scenes))])
    shifted = np.array(HOUSES[:2]) + np.array([shift, 0, shift, 0])
    arrays: dict = {}
    if task == "detection":
        # The first is found twice, and something where nothing is.
        boxes = np.concatenate([shifted, shifted[:1] + 1, [[50, 50, 60, 60]]]).astype(np.float32)
        arrays = {
            "boxes": np.tile(boxes, (len(scenes), 1)),
            "box_scene": np.repeat(np.arange(len(scenes)), len(boxes)),
            "box_class": np.ones(len(boxes) * len(scenes), np.int32),
            "scores": np.tile(np.linspace(0.9, 0.6, len(boxes), dtype=np.float32), len(scenes)),
        }
    found = np.zeros((SIDE, SIDE), np.uint8)
    for y, x, bottom, right in shifted:
        found[y:bottom, x:right] = 1
    if task == "classification":
        corners = [(row, col) for row in range(0, SIDE, 16) for col in range(0, SIDE, 16)]
        house = np.array([found[r : r + 16, c : c + 16].mean() for r, c in corners], np.float32)
        arrays = {
            "cells": np.array([(i, r, c, 16, 16) for i in range(len(scenes)) for r, c in corners]),
            "scores": np.tile(np.stack([1 - house, house], 1), (len(scenes), 1)),
        }
    settings = {"score_show": 0.5}
    made = Predictions(task, "test", ["field", "house"], [s.id for s in scenes], settings, regions, arrays)
    made.write(folder)
    if task == "segmentation":
        found[:6, -6:] = UNSEEN
        for scene in scenes:
            write_labels(folder, scene, found, ["field", "house"], [(0, 0, 0), (1, 1, 1)], polygons=None)


@pytest.fixture(params=list(PRIMARY))
def results(request, made_run, tmp_path):
    """A study of one experiment, two scenes in its test split, in two frameworks."""
    task = request.param
    folder = tmp_path / "data/ground"
    folder.mkdir(parents=True)
    aoi = write_shapes(tmp_path / "aoi.geojson", [(0, 0, 47, SIDE)])  # without the last house
    scenes = [
        write_scene(tmp_path, "train", HOUSES),
        write_scene(tmp_path, "val", HOUSES),
        write_scene(tmp_path, "first", HOUSES, aoi=aoi),
        write_scene(tmp_path, "second", HOUSES[:2]),
    ]
    write_scenes(folder / "scenes.jsonl", scenes)
    splits = zip(scenes, ("train", "val", "test", "test"))
    write_regions(folder / "regions.csv", [Region(s.id, 0, 0, SIDE, SIDE, split) for s, split in splits])
    description = tmp_path / "houses.yaml"
    described = {"title": "Houses", "tasks": [task], "form": "geojson", "layout": {"images": "*.tif"}}
    described |= {"classes": CLASSES, "bands": ["red", "green", "blue"], "licence": "made up"}
    description.write_text(yaml.safe_dump(described))
    settings = {**DEFAULTS, "size": 16, "stride": 16, "background": None if task == "detection" else "field"}
    places = (description, folder / "scenes.jsonl", folder / "regions.csv")
    analyze(*places[1:], out=folder / "statistics.json", threads=1)
    chip(*places, task=task, settings=settings, out=folder / "chips", threads=1)
    for model in MODELS[task]:
        for i, framework in enumerate(("torch", "caffe2")):
            run = made_run("ground", model, framework, 0, 0.5, record={"task": task, "weight_identical": True})
            predict(task, run / "predictions", scenes[2:], shift=2 + i)
            evaluate(
                predictions=run / "predictions",
                scenes={s.id: s for s in scenes},
                classes=CLASSES,
                out=run / "eval.json",
                background=settings["background"],
                threads=1,
            )
    study = {
        "study": "made", "frameworks": ["torch", "caffe2"], "seeds": [0], "equivalence": {}, "bench": False,
        "experiments": {"ground": {"task": task, "models": {m: {} for m in MODELS[task]}, "chip": settings,
                                   "target": None, "train": {"metric": PRIMARY[task]}}},
    }  # fmt: skip
    compare(tmp_path / "runs", tmp_path / "tables", study)
    return Results(tmp_path, study, {"ground": str(description)})


def drawn(kind: str, results: Results) -> list[figures.Figure]:
    return list(figures.figures(kind, results))


def test_every_picture_is_drawn_with_its_words_and_numbers(results, tmp_path):
    for kind in KINDS[results.experiments["ground"].task].split():
        made = drawn(kind, results)
        assert [one.experiment for one in made] == ["ground"], kind
        figures.write(made[0], tmp_path / "figures")
        for suffix in ("svg", "png", "pdf", "csv", "txt"):
            assert (tmp_path / f"figures/{made[0].name}.{suffix}").stat().st_size > 30, made[0].name
        words = made[0].caption + made[0].alt
        assert "nan" not in words, words


def test_maps_agree_with_the_evaluation(results):
    """The whole scenes are shown, so that every share is the one that evaluation has of the scene."""
    task = results.experiments["ground"].task
    (maps,) = drawn("maps", results)
    assert len(maps.table) == 2 * 2 * len(MODELS[task])
    shares = {"classification": "accuracy", "segmentation": "accuracy", "detection": "recall"}
    for row in maps.table.itertuples():
        run = results.runs[(results.runs.model == row.model) & (results.runs.framework == row.framework)].iloc[0]
        judged = results.evaluation(run)["summary"]["per_scene"][row.scene]
        assert row.agreement == pytest.approx(judged[shares[task]]), row
        assert 0 < row.agreement


def test_where_nothing_is_labelled_there_is_nothing_to_agree_with(results, monkeypatch):
    nothing = np.zeros((0, 4), np.float32)
    unlabelled = SimpleNamespace(read=lambda _: np.full((1, SIDE, SIDE), 255, np.uint8))
    monkeypatch.setattr(_scenes.labels, "SceneMasks", lambda *_, **__: unlabelled)
    monkeypatch.setattr(_scenes.labels, "cells", lambda scene, windows, *_, **__: np.full(len(windows), -1))
    features = _scenes.labels.load_features
    monkeypatch.setattr(
        _scenes.labels,
        "load_features",
        lambda *a: dataclasses.replace(features(*a), boxes=nothing, class_ids=np.zeros(0, np.uint8)),
    )
    (maps,) = drawn("maps", results)
    assert maps.table.agreement.isna().all()
    assert "Nothing is labelled in the parts shown." in maps.caption
    titles = [panel.title for view in maps.views for panel in view]
    if results.experiments["ground"].task != "detection":
        assert "no label" in titles
    assert not [title for title in titles if "nan" in title or "wrong" in title]


def test_what_is_alike_in_two_splits_is_shown_most_alike_first(results):
    """The scenes train and first have the same pixels."""
    (made,) = drawn("duplicates", results)
    first = made.table.iloc[0]
    assert (first.split, first.scene, first.against, first.like_scene) == ("test", "first", "train", "train")
    assert pd.isna(first.bits)
    assert made.table.bits.fillna(-1).is_monotonic_increasing
    images = results.experiments["ground"].chips.images
    assert np.array_equal(images[first.chip], images[first.like])


def test_each_model_has_maps_of_its_own_where_there_are_many(results, monkeypatch):
    monkeypatch.setattr(registry.load("figures", "maps"), "MOST", 1)
    made = drawn("maps", results)
    models = results.experiments["ground"].models
    expected = ["maps_ground"] if len(models) == 1 else [f"maps_{model}_ground" for model in models]
    assert [one.name for one in made] == expected
    assert {one.experiment for one in made} == {"ground"}


def test_one_find_is_one_house(results):
    if results.experiments["ground"].task != "detection":
        pytest.skip("boxes are of detection")
    experiment, run = results.experiments["ground"], results.runs_of("ground").iloc[0]
    made = Predictions.read(results.run_folder(run) / "predictions")
    here = _scenes.boxes(experiment, made, Region("first", 0, 0, SIDE, SIDE, "test"))
    assert here.ignored.tolist() == [False, False, True]
    assert (metrics.match(here) >= 0).sum() == 2


def test_captions_say_what_the_tables_hold(results):
    task = results.experiments["ground"].task
    (failures,) = drawn("failures", results)
    worst = pd.DataFrame(read_json(results.run_folder(results.runs_of("ground").iloc[0]) / "eval.json")["worst"])
    assert len(failures.table) == len(worst)
    assert worst.scene[0] in failures.caption
    (balance,) = drawn("balance", results)
    chips = results.experiments["ground"].chips
    if task != "detection":
        labelled = chips.labels[chips.rows("train")]
        train = balance.table[balance.table.split == "train"]
        assert train["count"].tolist() == [(labelled == c).sum() for c in range(len(CLASSES))]
        (confusion,) = drawn("confusion", results)
        shares = confusion.table.groupby(["model", "framework", "truth"]).share_of_truth.sum()
        assert shares.tolist() == pytest.approx([1.0] * len(shares))


def test_the_post_asks_for_figures_that_are_drawn():
    asked = re.findall(r'figure\("(\w+)"', (TEMPLATE / "post.md.j2").read_text())
    assert len(asked) > 5
    assert set(asked) <= set(registry.names("figures"))
