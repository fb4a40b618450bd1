"""A chips folder opens only when its files agree."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from rvkernels.chips import Chips


def write_table(folder, splits):
    with (folder / "chips.csv").open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(["chip", "scene", "row", "col", "split", "nodata_share"])
        table.writerows([i, "a", 0, i, s, 0.0] for i, s in enumerate(splits))


@pytest.fixture
def folder(tmp_path):
    """Four detection chips; the third has no box."""
    write_table(tmp_path, ["train", "train", "val", "test"])
    np.save(tmp_path / "images.npy", np.arange(4 * 8 * 8 * 3, dtype=np.uint16).reshape(4, 8, 8, 3))
    np.save(tmp_path / "boxes.npy", np.array([[0, 0, 2, 2], [1, 1, 4, 5], [2, 2, 3, 3]], np.float32))
    np.save(tmp_path / "box_class.npy", np.array([0, 1, 1], np.int32))
    np.save(tmp_path / "box_start.npy", np.array([0, 1, 2, 2, 3], np.int64))
    return tmp_path


def make_labels(folder, labels):
    for name in ("boxes", "box_class", "box_start"):
        (folder / f"{name}.npy").unlink()
    np.save(folder / "labels.npy", labels)


def test_detection(folder):
    chips = Chips.open(folder)
    assert (chips.task, len(chips), chips.shape, chips.bands) == ("detection", 4, (8, 8), 3)
    assert chips.rows("train").tolist() == [0, 1]
    assert chips.rows("train").dtype == np.int64
    assert chips.class_counts(chips.rows("train"), 2).tolist() == [1, 1]
    chips.check_classes(2)
    with pytest.raises(ValueError, match=r"box_class\.npy: label 1 is no class id"):
        chips.check_classes(1)


def test_classification(folder):
    make_labels(folder, np.array([0, 2, 1, 2], np.int32))
    chips = Chips.open(folder)
    assert chips.task == "classification"
    assert chips.class_counts(np.arange(4), 3).tolist() == [1, 1, 2]


def test_segmentation_leaves_ignored_pixels_out(folder):
    labels = np.zeros((4, 8, 8), np.uint8)
    labels[1, 0, :5] = 1
    labels[1, 1] = 255
    make_labels(folder, labels)
    chips = Chips.open(folder)
    assert chips.task == "segmentation"
    assert chips.class_counts(np.array([1]), 2).tolist() == [64 - 5 - 8, 5]
    chips.check_classes(2)
    with pytest.raises(ValueError, match="label 1 is no class id"):
        chips.check_classes(1)


def test_no_boxes_at_all(folder):
    np.save(folder / "boxes.npy", np.zeros((0, 4), np.float32))
    np.save(folder / "box_class.npy", np.zeros(0, np.int32))
    np.save(folder / "box_start.npy", np.zeros(5, np.int64))
    assert Chips.open(folder).class_counts(np.arange(4), 2).tolist() == [0, 0]


def test_empty_split_is_named(folder):
    with pytest.raises(ValueError, match=r"chips\.csv: no chip is in split 'vall'; there are test, train, val"):
        Chips.open(folder).rows("vall")


@pytest.mark.parametrize("name", ["images.npy", "chips.csv", "box_class.npy", "box_start.npy"])
def test_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        Chips.open(folder)


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("images.npy", np.zeros((4, 8, 8, 3), np.int16), "dtype is int16"),
        ("images.npy", np.zeros((4, 8, 8), np.uint8), "expected 4 axes"),
        ("images.npy", np.zeros((5, 8, 8, 3), np.uint8), r"chips\.csv: 4 chips, but images\.npy holds 5"),
        ("boxes.npy", np.zeros((3, 4), np.float32), "box 0 is empty"),
        ("boxes.npy", np.ones((3, 5), np.float32), r"expected \(boxes, 4\)"),
        ("box_class.npy", np.zeros(2, np.int32), r"box_class\.npy: 2 classes"),
        ("box_start.npy", np.array([0, 2, 1, 2, 3], np.int64), r"box_start\.npy: expected 5 offsets"),
        ("box_start.npy", np.array([0, 1, 2, 3], np.int64), r"box_start\.npy: expected 5 offsets"),
    ],
)
def test_files_that_disagree(folder, name, array, words):
    np.save(folder / name, array)
    with pytest.raises(ValueError, match=words):
        Chips.open(folder)


def test_labels_of_another_shape(folder):
    make_labels(folder, np.zeros((4, 8, 7), np.uint8))
    with pytest.raises(ValueError, match=r"labels\.npy: shape is \(4, 8, 7\)"):
        Chips.open(folder)


def test_truncated_file_is_named(folder):
    np.save(folder / "images.npy", np.zeros((4, 40, 40, 3), np.uint8))
    data = (folder / "images.npy").read_bytes()
    (folder / "images.npy").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"images\.npy: not a readable \.npy"):
        Chips.open(folder)
