"""The known datasets, from the mirror that RVK_MIRROR names, as far as chips."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from rvkernels import dataset
from rvkernels.analyze import analyze
from rvkernels.chip import chip
from rvkernels.chips import Chips
from rvkernels.fetch import fetch
from rvkernels.labels import SceneMasks, load_features
from rvkernels.scene import write_regions
from rvkernels.split import split

MIRROR = os.environ.get("RVK_MIRROR")
DESCRIPTIONS = Path(__file__).parents[1] / "config" / "datasets"

pytestmark = [
    pytest.mark.mirror,
    pytest.mark.skipif(not MIRROR, reason="RVK_MIRROR is not set to a mirror of the real datasets"),
]


def prepare(name: str, folder: Path) -> tuple[dict, list, tuple[Path, Path, Path]]:
    """Fetch and split: the description, the scenes, and the files that analyze and chip read."""
    files = (DESCRIPTIONS / f"{name}.yaml", folder / "scenes.jsonl", folder / "regions.csv")
    scenes = fetch(files[0], folder / "downloads", MIRROR, files[1])
    description = dataset.load(files[0])
    write_regions(files[2], split(scenes, description["split"]))
    return description, scenes, files


def test_eurosat(tmp_path):
    _, scenes, files = prepare("eurosat", tmp_path)
    assert len(scenes) == 27_000
    counts = analyze(*files[1:])
    assert counts["scenes"] == 16_200
    # Channel means as others publish them for the whole of EuroSAT, in [0, 1].
    assert np.array(counts["mean"]) / 255 == pytest.approx([0.344, 0.380, 0.408], abs=2e-3)
    limit = {"train": 1200, "val": 400, "test": 400}
    chip(*files, task="classification", settings={"limit": limit}, out=tmp_path / "chips")
    chips = Chips.open(tmp_path / "chips")
    assert {s: len(chips.rows(s)) for s in limit} == limit
    assert chips.images.shape == (2000, 64, 64, 3)
    assert chips.class_counts(chips.rows("train"), 10).tolist() == [120] * 10


def test_dubai(tmp_path):
    description, scenes, files = prepare("dubai", tmp_path)
    assert len(scenes) == 72
    assert len({s.group for s in scenes}) == 8
    few = split(scenes, description["split"])[::9]
    write_regions(files[2], few)
    chip(*files, task="segmentation", settings={"size": 256}, out=tmp_path / "chips")
    chips = Chips.open(tmp_path / "chips")
    counts = chips.class_counts(np.arange(len(chips)), 5)
    assert (counts > 0).all()
    assert counts[dataset.class_names(description).index("Land")] > 0.2 * counts.sum()


def test_spacenet_buildings(tmp_path):
    description, scenes, files = prepare("spacenet_sample", tmp_path)
    assert [(s.rows, s.cols, s.dtype) for s in scenes] == [(900, 900, "uint16")]
    chip(*files, task="segmentation", settings={"size": 150, "background": "background"}, out=tmp_path / "chips")
    chips = Chips.open(tmp_path / "chips")
    counts = chips.class_counts(np.arange(len(chips)), 2)
    area = sum(g.area for g in load_features(scenes[0], description["classes"]).geometries)
    assert counts[0] == pytest.approx(area, rel=1e-3)


def test_spacenet_building_boxes(tmp_path):
    description, scenes, files = prepare("spacenet_sample_objects", tmp_path)
    assert len(load_features(scenes[0], description["classes"]).boxes) == 43
    chip(*files, task="detection", settings={"size": 300, "min_area": 0.3}, out=tmp_path / "chips")
    assert len(Chips.open(tmp_path / "chips").boxes) >= 43


def test_spacenet_roads(tmp_path):
    description, scenes, _ = prepare("spacenet_sample_roads", tmp_path)
    assert [(s.rows, s.cols) for s in scenes] == [(1300, 1300)]
    mask = SceneMasks(scenes[0], description["classes"], background="background").read(np.array([[0, 0, 1300, 1300]]))[
        0
    ]
    # Three roads cross this row at right angles, 30 pixels wide each.
    edges = np.flatnonzero(np.diff((mask[100] == 0).astype(int), prepend=0))
    assert (edges[1::2] - edges[::2]).tolist() == [30, 30, 30]


def test_neon_trees(tmp_path):
    description, scenes, files = prepare("neon_trees", tmp_path)
    assert [sum(s.group == g for s in scenes) for g in ("HARV", "TEAK")] == [13, 18]
    assert sum(len(load_features(s, description["classes"]).boxes) for s in scenes) == 789
    chip(*files, task="detection", settings={"size": 200}, out=tmp_path / "chips")
    chips = Chips.open(tmp_path / "chips")
    assert set(np.asarray(chips.box_class).tolist()) == {0}
    assert chips.boxes.min() >= 0
    assert chips.boxes.max() <= 200
