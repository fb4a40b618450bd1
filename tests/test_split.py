"""No pixel is in two splits, no split is empty, and every mistake in the settings names its key."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvkernels.scene import Scene
from rvkernels.split import SPLITS, check_settings, split


def scene(name: str, rows: int = 100, cols: int = 120, **more: object) -> Scene:
    return Scene(id=name, images=(f"{name}.tif",), rows=rows, cols=cols, bands=3, dtype="uint8", **more)


TREES = [scene(f"{site}_{i:03}", group=site) for site in ("HARV", "TEAK", "SJER") for i in range(8)]


def by_split(regions) -> dict[str, list[str]]:
    return {name: [r.scene for r in regions if r.split == name] for name in SPLITS}


def test_the_publishers_split():
    scenes = [scene(f"s{i}", split=SPLITS[i % 3]) for i in range(6)] + [scene("left_out")]
    found = by_split(split({s.id: s for s in scenes}, {"by": "listed"}))
    assert found == {"train": ["s0", "s3"], "val": ["s1", "s4"], "test": ["s2", "s5"]}


def test_lists_of_ids_and_patterns():
    found = by_split(split(TREES, {"by": "listed", "train": ["HARV_*"], "val": ["TEAK_000"], "test": ["TEAK_00[1-7]"]}))
    assert [len(found[s]) for s in SPLITS] == [8, 1, 7]


def test_groups_and_a_share_of_the_training_groups():
    chosen = {"by": "group", "train": ["HARV"], "val": 0.25, "test": ["TEAK"]}
    found = by_split(split(TREES, chosen))
    assert [len(found[s]) for s in SPLITS] == [6, 2, 8]
    assert all(i.startswith("HARV") for i in found["train"] + found["val"])
    assert all(i.startswith("TEAK") for i in found["test"])
    assert found == by_split(split(TREES, chosen))
    assert any(found != by_split(split(TREES, {**chosen, "seed": seed})) for seed in range(1, 4))


def test_regions_cover_whole_scenes_in_order():
    regions = split(TREES, {"by": "scene"})
    assert sorted(r.scene for r in regions) == sorted(s.id for s in TREES)
    assert {(r.row, r.col, r.rows, r.cols) for r in regions} == {(0, 0, 100, 120)}
    assert [r.split for r in regions] == sorted((r.split for r in regions), key=SPLITS.index)


def test_shares_of_scenes_hold_in_every_class():
    scenes = [scene(f"{c}{i}", class_name=c) for c in "ab" for i in range(20)]
    regions = split(scenes, {"by": "scene", "train": 0.5, "val": 0.25, "test": 0.25, "seed": 3})
    counts = Counter((r.scene[0], r.split) for r in regions)
    assert {counts[c, s] for c in "ab" for s in ("val", "test")} == {5}
    assert {counts[c, "train"] for c in "ab"} == {10}


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(60, 200),
    cols=st.integers(60, 200),
    size=st.integers(10, 40),
    margin=st.integers(0, 4),
    seed=st.integers(0, 9),
)
def test_blocks_of_different_splits_are_a_margin_apart(rows, cols, size, margin, seed):
    scenes = [scene("a", rows, cols), scene("b", rows, cols), scene("c", rows, cols)]
    chosen = {"by": "blocks", "size": size, "margin": margin, "seed": seed}
    regions = split(scenes, chosen)
    for name in "abc":
        owner = np.full((rows, cols), -1)
        for r in (r for r in regions if r.scene == name):
            assert r.rows > 0
            assert r.cols > 0
            window = owner[r.row : r.row + r.rows, r.col : r.col + r.cols]
            assert window.shape == (r.rows, r.cols)
            assert (window == -1).all()
            window[:] = SPLITS.index(r.split)
        for r in (r for r in regions if r.scene == name):
            top, left = max(r.row - margin, 0), max(r.col - margin, 0)
            near = owner[top : r.row + r.rows + margin, left : r.col + r.cols + margin]
            assert set(near[near >= 0].tolist()) == {SPLITS.index(r.split)}
        if margin == 0:
            assert (owner >= 0).all()


@pytest.mark.parametrize("count", [3, 5])
def test_every_scene_is_tested_in_one_fold(count):
    found = [by_split(split(TREES, {"by": "folds", "count": count, "fold": k, "seed": 2})) for k in range(count)]
    tested = Counter(name for f in found for name in f["test"])
    assert tested == Counter(s.id for s in TREES)
    for k, fold in enumerate(found):
        assert sorted([*fold["train"], *fold["val"], *fold["test"]]) == sorted(s.id for s in TREES)
        assert fold["val"] == found[(k + 1) % count]["test"]
        assert len(fold["test"]) in (24 // count, -(-24 // count))
        per_site = Counter(name.split("_")[0] for name in fold["test"])
        assert set(per_site) == {"HARV", "TEAK", "SJER"}
        assert max(per_site.values()) - min(per_site.values()) <= 1
    other = by_split(split(TREES, {"by": "folds", "count": count, "fold": 0, "seed": 3}))
    assert other != found[0]


def test_folds_of_scenes_that_are_a_group_each():
    scenes = [scene(f"s{i}", group=f"g{i}") for i in range(10)]
    sizes = [len(by_split(split(scenes, {"by": "folds", "count": 5, "fold": k}))["test"]) for k in range(5)]
    assert sizes == [2] * 5


def test_blocks_are_dealt_by_share():
    regions = split([scene("a", 1000, 1000)], {"by": "blocks", "size": 100, "train": 0.6, "val": 0.2, "test": 0.2})
    assert Counter(r.split for r in regions) == {"train": 60, "val": 20, "test": 20}


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"by": "tile"}, r"by: no 'tile'; there are blocks, folds, group, listed, scene"),
        ({}, r"by: no None"),
        ({"by": "folds", "count": 2, "fold": 0}, r"count: expected at least 3 parts, one for each split, got 2"),
        ({"by": "folds", "count": 5, "fold": 5}, r"fold: expected a part from 0 to 4, got 5"),
        ({"by": "folds", "count": 5}, r"fold: expected a part from 0 to 4, got None"),
        ({"by": "scene", "trian": 0.5}, r"unknown key 'trian' for by: scene; .*Did you mean 'train'\?"),
        (
            {"by": "scene", "train": 0.5, "val": 0.5, "test": 0.5},
            r"the shares of train, val and test add up to 1\.5, expected 1",
        ),
        ({"by": "scene", "train": 1.0, "val": 0.0, "test": 0.0}, r"train: expected a share between 0 and 1, got 1\.0"),
        ({"by": "scene", "train": 0.9}, r"val: expected a share between 0 and 1, got None"),
        ({"by": "listed", "train": ["a"]}, r"val is missing"),
        ({"by": "listed", "train": "a", "val": ["b"], "test": ["c"]}, r"train: expected a list of names, got 'a'"),
        ({"by": "group", "train": 0.5, "val": ["b"], "test": ["c"]}, r"train is a list of groups"),
        ({"by": "group", "train": ["a"], "val": 1.5, "test": ["c"]}, r"val: expected groups or a share"),
        ({"by": "blocks"}, r"size: expected the edge of a block in pixels, got None"),
        ({"by": "blocks", "size": 10, "margin": 5}, r"margin: expected 0 to less than half of size 10, got 5"),
    ],
)
def test_settings_that_cannot_be(chosen, message):
    with pytest.raises(ValueError, match=rf"study: split: {message}") as error:
        check_settings(chosen, "study: split")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"by": "listed"}, r"zero scenes in 'train' \(by: listed, 24 scenes in all\)"),
        ({"by": "group", "train": ["HARV"], "val": 0.2, "test": ["TEKA"]}, r"no group 'TEKA'; .*Did you mean 'TEAK'\?"),
        (
            {"by": "listed", "train": ["HARV_999"], "val": ["TEAK*"], "test": ["SJER*"]},
            r"no scene 'HARV_999'; .*Did you mean 'HARV_00",
        ),
        (
            {"by": "listed", "train": ["HARV*", "TEAK_001"], "val": ["TEAK*"], "test": ["SJER*"]},
            r"scene 'TEAK_001' is in two splits, train and val",
        ),
        ({"by": "group", "train": ["HARV"], "val": ["HARV"], "test": ["TEAK"]}, r"is in two splits, train and val"),
    ],
)
def test_scenes_that_do_not_fit(chosen, message):
    with pytest.raises(ValueError, match=message) as error:
        split(TREES, chosen)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("chosen", [{"by": "scene"}, {"by": "blocks", "size": 100}])
def test_too_few_to_fill_three_splits(chosen):
    with pytest.raises(ValueError, match="zero scenes in"):
        split([scene("a"), scene("b")], chosen)


def test_a_split_that_no_stage_knows():
    with pytest.raises(ValueError, match=r"a split 'validation'; there are test, train, val"):
        split([scene("a", split="validation")], {"by": "listed"})
