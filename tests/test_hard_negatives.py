"""Hard negatives: the draw, what the detector finds where nothing is, and trainings that use it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rvkernels import batches, hard_negatives, timing
from rvkernels.checkpoint import read_checkpoint
from rvkernels.chips import Chips
from rvkernels.models import Graph, Locations
from rvkernels.tasks import detection
from rvkernels.train import Run

NEGATIVES = np.arange(100, 140)


@pytest.fixture(autouse=True)
def few_predictions(monkeypatch):
    monkeypatch.setattr(timing, "LATENCY_SECONDS", 0.0)


def draw(scores, share=0.5, **key):
    return hard_negatives.draw(NEGATIVES, np.asarray(scores), share, **{"seed": 1, "epoch": 2, **key})


@pytest.mark.parametrize("kernel", ["cpp", "reference"])
def test_chips_come_in_proportion_to_their_scores(kernel):
    scores = np.zeros(40)
    scores[[3, 20, 39]] = 1.0, 2.0, 5.0
    drawn = draw(scores, share=1.0, kernel=kernel)
    assert len(drawn) == 40
    chips, times = np.unique(drawn, return_counts=True)
    assert dict(zip(chips.tolist(), times.tolist())) == {103: 5, 120: 10, 139: 25}


def test_the_other_places_go_to_each_chip_at_most_once():
    scores = np.zeros(40)
    scores[7] = 0.3
    chips, times = np.unique(draw(scores, share=0.25), return_counts=True)
    often = dict(zip(chips.tolist(), times.tolist()))
    assert often.pop(107) in (10, 11)
    assert set(often.values()) == {1}
    assert sum(times) == 40


def test_the_draw_is_a_function_of_seed_and_epoch():
    scores = np.linspace(0, 1, 40)
    assert draw(scores).tolist() == draw(scores).tolist()
    assert draw(scores).tolist() != draw(scores, epoch=3).tolist()
    assert draw(scores).tolist() != draw(scores, seed=2).tolist()


def test_where_nothing_is_found_every_chip_comes_once():
    assert draw(np.zeros(40), share=1.0).tolist() == NEGATIVES.tolist()


def test_only_where_something_was_found_by_score():
    """Whatever the random number: rounding puts no place beyond the last chip with a score."""
    scores = np.full(40, 0.1)
    scores[30:] = 0
    for epoch in range(50):
        assert draw(scores, share=1.0, epoch=epoch).max() < 130


def test_false_alarms_are_sums_of_scores():
    """Two chips of 8 x 8 pixels, one location per 4: nothing is found in the first, two boxes in the second."""
    graph = Graph("detection", (Locations("out", ("image",)),), "out", 5, 1, multiple=4, strides=(4,))
    outputs = np.full((2, 4, 5), -20, np.float32)
    outputs[:, :, 1:] = 0
    outputs[1, [0, 3], 0] = [0.0, np.log(3)]  # 1/2 and 3/4
    net = SimpleNamespace(predict=lambda images: outputs)
    stream = [batches.Batch(np.arange(2), np.zeros((2, 8, 8, 5), np.float32), (8, 8))]
    np.testing.assert_allclose(detection.false_alarms(net, graph, stream), [0, 1.25], rtol=1e-6)


def without_objects(arguments, rows):
    """Take the boxes of `rows` out of the chips."""
    folder = Path(arguments["chips"])
    chips = Chips.open(folder)
    owner = np.repeat(np.arange(len(chips)), np.diff(chips.box_start))
    keep = ~np.isin(owner, rows)
    count = np.bincount(owner[keep], minlength=len(chips))
    boxes, box_class = np.array(chips.boxes)[keep], np.array(chips.box_class)[keep]
    np.save(folder / "boxes.npy", boxes)
    np.save(folder / "box_class.npy", box_class)
    np.save(folder / "box_start.npy", np.concatenate([[0], np.cumsum(count)]).astype(np.int64))


def watch(monkeypatch):
    """The rows of every epoch that is begun, and the numbers of chips that were looked at for false alarms."""
    epochs, looked = [], []
    begin, look = batches.Batches.__init__, detection.false_alarms

    def beginning(self, chips, rows, *arguments, **settings):
        if settings.get("shuffle"):
            epochs.append((settings["epoch"], rows.tolist()))
        begin(self, chips, rows, *arguments, **settings)

    def looking(framework, graph, stream):
        found = look(framework, graph, stream)
        looked.append(len(found))
        # What so small a network finds is chance: the seventh chip is the hard one.
        return np.where(np.arange(len(found)) == 6, 1.0, 0.0)

    monkeypatch.setattr(batches.Batches, "__init__", beginning)
    monkeypatch.setattr(detection, "false_alarms", looking)
    return epochs, looked


def test_a_training_draws_hard_negatives_after_the_first_epoch(study, monkeypatch):
    arguments = study("detection", epochs=3, hard_negatives={"share": 0.5})
    without_objects(arguments, range(10))
    epochs, looked = watch(monkeypatch)
    Run(**arguments).go()
    assert looked == [10, 10]
    first, second, third = (rows for _, rows in epochs[:3])
    assert first == list(range(20))
    for rows in (second, third):
        assert len(rows) == 20
        assert [row for row in rows if row >= 10] == list(range(10, 20))
        assert rows.count(6) in (5, 6)
    assert second != third
    record = json.loads(Path(arguments["out"], "record.json").read_text())
    assert record["settings"]["hard_negatives"] == {"share": 0.5, "after": 1}


@pytest.mark.parametrize("steps", [7, 10])
def test_a_resumed_training_draws_the_same(study, tmp_path, interrupt, steps):
    """Five steps make an epoch: within the second and at its end."""
    arguments = study("detection", epochs=3, checkpoint_steps=2, hard_negatives={"share": 1.0})
    without_objects(arguments, range(0, 20, 2))
    Run(**{**arguments, "out": str(tmp_path / "whole")}).go()
    interrupt(arguments, steps)
    Run(**arguments).go()
    assert (tmp_path / "whole/best.npz").read_bytes() == (tmp_path / "run/best.npz").read_bytes()
    one, other = (read_checkpoint(tmp_path / name / "last.npz") for name in ("whole", "run"))
    assert one.weights.keys() == other.weights.keys()
    for name, array in one.weights.items():
        assert array.tobytes() == other.weights[name].tobytes(), name
    assert one.steps["loss"].tolist() == other.steps["loss"].tolist()


@pytest.mark.parametrize(
    ("task", "settings", "words"),
    [
        ("detection", {"share": 0}, "train: hard_negatives: share is 0"),
        ("detection", {"after": -1}, "train: hard_negatives: after is -1"),
        ("detection", {"shares": 1}, "hard_negatives: unknown setting 'shares'"),
        ("detection", {}, "no training chip is without an object; raise `negatives` of the chips"),
        ("segmentation", {}, "train: hard_negatives is for detection, not for segmentation"),
    ],
)
def test_what_cannot_be_is_said_before_work(study, task, settings, words):
    arguments = study(task, hard_negatives=settings)
    with pytest.raises(ValueError, match=words):
        Run(**arguments).go()
    assert not Path(arguments["out"]).exists()
