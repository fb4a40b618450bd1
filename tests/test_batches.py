"""The stream of batches: order, resuming within an epoch, a thread that hides no error and does not outlive its use."""

from __future__ import annotations

import csv
import json
import queue
import threading
import time
import types

import numpy as np
import pytest

from rvkernels import batches
from rvkernels.batches import DEPTH, Batches, Normalisation, count_batches, load_batch
from rvkernels.chips import Chips
from rvkernels.ops.philox import permutation

AUGMENT = {"flip": True, "turn": True, "brightness": 0.2, "noise": 0.02}
PLAIN = Normalisation(np.zeros(3, np.float32), np.ones(3, np.float32))


@pytest.fixture
def chips(tmp_path):
    """Ten detection chips of 16 x 16; chip i has i % 3 boxes of class i % 2 and a corner pixel of value i."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (10, 16, 16, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(10)
    counts = np.arange(10) % 3
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "boxes.npy", np.tile(np.array([2, 3, 8, 12], np.float32), (counts.sum(), 1)))
    np.save(tmp_path / "box_class.npy", np.repeat(np.arange(10) % 2, counts).astype(np.int32))
    np.save(tmp_path / "box_start.npy", np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
    with (tmp_path / "chips.csv").open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(["chip", "scene", "row", "col", "split"])
        table.writerows([i, "s", 0, 0, "train"] for i in range(10))
    return Chips.open(tmp_path)


def take(chips, rows, batch, **settings):
    with Batches(chips, np.asarray(rows, np.int64), batch, PLAIN, **settings) as stream:
        return list(stream)


def test_order_is_the_permutation_and_changes_with_the_epoch(chips):
    rows = np.array([1, 3, 4, 6, 7, 8, 9])
    orders = []
    for epoch in (0, 1):
        got = take(chips, rows, 2, seed=5, epoch=epoch, shuffle=True)
        orders.append(np.concatenate([b.rows for b in got]).tolist())
        assert orders[-1] == rows[permutation(7, 5, epoch)].tolist()
        assert sorted(orders[-1]) == rows.tolist()
        for b in got:  # images belong to their rows
            assert b.images[:, 0, 0, 0].tolist() == b.rows.tolist()
    assert orders[0] != orders[1]


def test_partial_batch_is_dropped_or_kept(chips):
    assert [len(b.rows) for b in take(chips, range(7), 3, drop_last=True)] == [3, 3]
    assert [len(b.rows) for b in take(chips, range(7), 3)] == [3, 3, 1]


def test_split_smaller_than_a_batch_names_both_numbers():
    with pytest.raises(ValueError, match="7 chips, fewer than one batch of 8"):
        count_batches(7, 8, drop_last=True)


@pytest.mark.parametrize("first", [1, 3, 5])
def test_a_resumed_epoch_goes_on_with_the_same_bytes(chips, first):
    settings = {"seed": 1, "epoch": 2, "shuffle": True, "settings": AUGMENT}
    whole, rest = take(chips, range(10), 2, **settings), take(chips, range(10), 2, first=first, **settings)
    assert len(rest) == 5 - first
    for a, b in zip(whole[first:], rest):
        for name in ("rows", "images", "boxes", "box_class", "box_start"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_a_chip_is_augmented_alike_in_any_batch_and_differently_in_another_epoch(chips):
    alone = load_batch(chips, np.array([4]), PLAIN, seed=3, epoch=1, settings=AUGMENT)
    among = load_batch(chips, np.array([0, 9, 4]), PLAIN, seed=3, epoch=1, settings=AUGMENT, threads=2)
    later = load_batch(chips, np.array([4]), PLAIN, seed=3, epoch=2, settings=AUGMENT)
    np.testing.assert_array_equal(alone.images[0], among.images[2])
    assert not np.array_equal(alone.images, later.images)


def test_boxes_keep_their_class(chips):
    got = load_batch(chips, np.array([5, 4, 3, 2]), PLAIN)  # 2, 1, 0, 2 boxes
    assert got.box_start.tolist() == [0, 2, 3, 3, 5]
    assert got.box_class.tolist() == [1, 1, 0, 0, 0]
    np.testing.assert_array_equal(got.boxes, chips.boxes[:5])


def test_layouts_hold_the_same_pixels(chips):
    rows = np.arange(4)
    nhwc, nchw = load_batch(chips, rows, PLAIN), load_batch(chips, rows, PLAIN, layout="NCHW")
    np.testing.assert_array_equal(nhwc.images.transpose(0, 3, 1, 2), nchw.images)
    assert nhwc.shape == nchw.shape == (16, 16)


def test_an_error_in_the_thread_is_raised_at_its_batch(chips):
    def prepare(batch):
        if 4 in batch.rows:
            raise KeyError("chip four")
        return (batch.rows,)

    taken = []
    with Batches(chips, np.arange(10), 2, PLAIN, prepare=prepare) as stream:
        batches = iter(stream)
        for _ in range(2):
            taken.append(next(batches).targets[0].tolist())
        with pytest.raises(KeyError, match="chip four"):
            next(batches)
    assert taken == [[0, 1], [2, 3]]
    assert not [t for t in threading.enumerate() if t.name == "batches"]


def test_leaving_early_ends_the_thread(chips):
    with Batches(chips, np.arange(10), 1, PLAIN) as stream:
        next(iter(stream))
    assert not [t for t in threading.enumerate() if t.name == "batches"]


def test_only_a_few_batches_are_prepared_ahead(chips):
    made = []
    with Batches(chips, np.arange(10), 1, PLAIN, prepare=lambda b: made.append(b.rows[0]) or ()) as stream:
        next(iter(stream))
        deadline = time.monotonic() + 60
        while len(made) < DEPTH + 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert len(made) == DEPTH + 2  # one taken, DEPTH in the queue, one waiting for its place


def test_waiting_is_measured_and_what_is_done_with_a_batch_is_not(chips, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(batches, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    get = queue.Queue.get

    def late(self):
        now[0] += 5.0
        return get(self)

    monkeypatch.setattr(queue.Queue, "get", late)
    waits = []
    with Batches(chips, np.arange(3), 1, PLAIN) as stream:
        for _ in stream:
            now[0] += 100.0
            waits.append(stream.waited)
    assert waits == [5.0] * 3


def test_normalisation_from_statistics(tmp_path):
    path = tmp_path / "statistics.json"
    path.write_text(json.dumps({"mean": [1.5, 2, 3], "std": [2, 0, 1]}))
    read = Normalisation.read(path, 3)
    assert read.mean.tolist() == [1.5, 2, 3]
    assert read.std.tolist() == [2, 1, 1]
    with pytest.raises(ValueError, match=r"statistics\.json: mean is .* expected 4 finite numbers"):
        Normalisation.read(path, 4)
    path.write_text(json.dumps({"mean": [1]}))
    with pytest.raises(ValueError, match=r"statistics\.json: 'std' is missing"):
        Normalisation.read(path, 1)
