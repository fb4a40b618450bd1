"""Metrics against cases worked by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from rvkernels import metrics
from rvkernels.files import to_json
from rvkernels.metrics import ClassCounts, Detected

BOX = [10.0, 10.0, 20.0, 20.0]


def image(truth=(), truth_class=None, boxes=(), box_class=None, scores=None, ignored=None) -> Detected:
    n, m = len(truth), len(boxes)
    return Detected(
        np.array(truth, np.float32).reshape(n, 4),
        np.array(truth_class if truth_class is not None else [0] * n, np.int64),
        np.array(ignored if ignored is not None else [False] * n, bool),
        np.array(boxes, np.float32).reshape(m, 4),
        np.array(box_class if box_class is not None else [0] * m, np.int64),
        np.array(scores if scores is not None else np.linspace(0.9, 0.5, m), np.float32),
    )


# --- counts


def test_matrix_by_hand():
    matrix = np.array([[50, 10, 0], [5, 30, 5], [0, 0, 0]])
    counts = ClassCounts.of_matrix(matrix)
    assert counts.tp.tolist() == [50, 30, 0]
    assert counts.fp.tolist() == [5, 10, 5]
    assert counts.fn.tolist() == [10, 10, 0]
    assert counts.tn.tolist() == [35, 50, 95]
    assert counts.iou[:2] == pytest.approx([50 / 65, 30 / 50])
    assert counts.iou[2] == 0  # predicted but never there
    assert counts.precision[0] == pytest.approx(50 / 55)
    assert math.isnan(counts.recall[2])
    summary = metrics.matrix_summary(matrix)
    assert summary["accuracy"] == pytest.approx(0.8)
    # po = .8, pe = .6 * .55 + .4 * .4 + 0 * .05 = .49
    assert summary["kappa"] == pytest.approx((0.8 - 0.49) / 0.51)
    assert summary["miou"] == pytest.approx((50 / 65 + 0.6 + 0) / 3)
    assert summary["macro_f1"] == pytest.approx((100 / 115 + 60 / 80 + 0) / 3)


def test_perfect_and_inverted():
    assert set(metrics.matrix_summary(np.diag([3, 4])).values()) == {1.0}
    inverted = metrics.matrix_summary(np.array([[0, 5], [5, 0]]))
    assert (inverted["accuracy"], inverted["miou"], inverted["macro_f1"]) == (0, 0, 0)
    assert inverted["kappa"] == pytest.approx(-1.0)


def test_a_class_that_never_occurs_is_undefined_and_left_out():
    matrix = np.array([[4, 0, 0], [0, 4, 0], [0, 0, 0]])
    assert math.isnan(ClassCounts.of_matrix(matrix).iou[2])
    assert metrics.matrix_summary(matrix)["miou"] == 1.0


def test_nothing_counted_is_undefined():
    assert all(math.isnan(v) for v in metrics.matrix_summary(np.zeros((2, 2), np.int64)).values())
    assert math.isnan(metrics.kappa(np.array([[7, 0], [0, 0]])))  # chance explains everything


def test_counts_do_not_wrap():
    matrix = np.array([[3_000_000_000, 0], [0, 3_000_000_000]])
    assert metrics.kappa(matrix) == pytest.approx(1.0)
    assert ClassCounts.of_matrix(matrix).tn.tolist() == [3_000_000_000, 3_000_000_000]


def test_matrix_must_be_square():
    with pytest.raises(ValueError, match="matrix"):
        ClassCounts.of_matrix(np.zeros((2, 3)))


def test_undefined_becomes_null():
    value = to_json({"a": np.array([1.0, np.nan]), "b": [np.float32("nan"), np.int64(3)]})
    assert json.dumps(value, allow_nan=False) == '{"a": [1.0, null], "b": [null, 3]}'


# --- scores


def test_calibration_by_hand():
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.35, 0.65]])
    truth = np.array([0, 1, 1, 1])
    error, table = metrics.calibration(scores, truth, bins=10)
    # bin (.8, .9]: confidence .9, accuracy .5; bin (.6, .7]: confidence .65, accuracy 1
    assert error == pytest.approx(0.5 * 0.4 + 0.5 * 0.35)
    assert [row["count"] for row in table] == [0, 0, 0, 0, 0, 0, 2, 0, 2, 0]
    assert math.isnan(table[0]["accuracy"])


def test_calibration_of_certainty():
    scores = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert metrics.calibration(scores, np.array([0, 1]))[0] == 0
    assert metrics.calibration(scores, np.array([1, 0]))[0] == 1
    assert math.isnan(metrics.calibration(np.zeros((0, 2)), np.zeros(0, int))[0])


def test_ties_go_to_the_lowest_class():
    scores = np.array([[0.5, 0.5], [0.2, 0.8], [0.7, 0.3]])
    matrix = metrics.score_matrix(scores, np.array([0, 1, 1]))
    assert matrix.tolist() == [[1, 0], [1, 1]]
    assert metrics.matrix_summary(matrix)["accuracy"] == pytest.approx(2 / 3)


# --- boxes


def test_a_wrong_class_takes_nothing_away():
    shifted = [10.0, 10.5, 20.0, 20.5]  # IoU 95 / 105
    found = image([BOX], boxes=[BOX, shifted], box_class=[1, 0], scores=[0.99, 0.5])
    assert metrics.match(found).tolist() == [-1, 0]
    counts = metrics.detection_counts([found], 2)
    assert (counts.tp.tolist(), counts.fp.tolist(), counts.fn.tolist()) == ([1, 0], [0, 1], [0, 0])


def test_one_to_one_in_score_order():
    found = image([BOX], boxes=[BOX, BOX, BOX], scores=[0.3, 0.9, 0.9])
    assert metrics.match(found).tolist() == [-1, 0, -1]  # the highest score; the tie goes to the lowest index


def test_as_many_pairs_as_possible():
    # detection 0 may take either box and prefers box 0, the only one that detection 1 may take
    truth = [[0, 0, 10, 10], [0, 4, 10, 14]]
    boxes = [[0, 1.5, 10, 11.5], [0, -2.0, 10, 8.0]]
    overlap = metrics.pairwise_iou(np.array(boxes, np.float32), np.array(truth, np.float32))
    assert overlap[0, 0] > overlap[0, 1] >= 0.5
    assert overlap[1, 0] >= 0.5 > overlap[1, 1]
    assert metrics.match(image(truth, boxes=boxes, scores=[0.9, 0.8])).tolist() == [1, 0]


def test_a_chain_of_moves_is_followed():
    candidates = [np.array([0, 1]), np.array([1, 2]), np.array([0, 1]), np.array([0])]
    taken = metrics._assign(candidates, 3).tolist()
    assert sorted(taken[:3]) == [0, 1, 2]
    assert taken[3] == -1  # nothing can be freed; the earlier ones keep their match


def test_the_threshold_itself_matches():
    half = [10.0, 10.0, 20.0, 15.0]  # IoU exactly .5
    assert metrics.match(image([BOX], boxes=[half])).tolist() == [0]
    assert metrics.match(image([BOX], boxes=[[10.0, 10.0, 20.0, 14.9]])).tolist() == [-1]


def test_ignored_truth_excuses_but_does_not_count():
    found = image([BOX], ignored=[True], boxes=[[10, 10, 15, 15], [40, 40, 50, 50]])
    assert metrics.match(found).tolist() == [-2, -1]
    counts = metrics.detection_counts([found], 1)
    assert (counts.tp[0], counts.fp[0], counts.fn[0]) == (0, 1, 0)
    assert math.isnan(average_precision([found], 1)["ap50"][0])


def average_precision(images, classes):
    return metrics.detection_curves(images, classes)[0]


def test_average_precision_perfect_and_wrong():
    other = [30.0, 30.0, 50.0, 40.0]
    perfect = image([BOX, other], [0, 1], [BOX, other], [0, 1])
    assert all(v == pytest.approx([1.0, 1.0]) for v in average_precision([perfect], 2).values())
    swapped = image([BOX, other], [0, 1], [BOX, other], [1, 0])
    assert all(v.tolist() == [0.0, 0.0] for v in average_precision([swapped], 2).values())


def test_average_precision_by_hand():
    # two images, three truth boxes, detections by score: right, wrong, right; precision 1 up to recall 1/3, 2/3 up to
    # recall 2/3, then 0. Of COCO's 101 recall levels 0, .01, ... 34 are <= 1/3 and 33 more are <= 2/3.
    images = [
        image([BOX, [50, 50, 60, 60]], boxes=[BOX, [70, 70, 80, 80]], scores=[0.9, 0.8]),
        image([BOX], boxes=[BOX], scores=[0.7]),
    ]
    result = average_precision(images, 2)
    assert result["ap50"][0] == pytest.approx((34 * 1 + 33 * 2 / 3) / 101)
    assert math.isnan(result["ap50"][1])  # no truth of class 1
    assert metrics.mean_defined(result["ap50"]) == pytest.approx(result["ap50"][0])


def test_average_precision_asks_more_of_tighter_thresholds():
    loose = image([BOX], boxes=[[10.0, 10.0, 20.0, 16.2]])  # IoU .62: right at .50, .55 and .60 only
    result = average_precision([loose], 1)
    assert (result["ap50"][0], result["ap75"][0]) == pytest.approx((1.0, 0.0))
    assert result["ap50_95"][0] == pytest.approx(0.3)


def test_average_precision_counts_more_than_a_hundred_boxes():
    grid = [[20.0 * i, 20.0 * j, 20.0 * i + 10, 20.0 * j + 10] for i in range(15) for j in range(15)]
    assert average_precision([image(grid, boxes=grid)], 1)["ap50"][0] == pytest.approx(1.0)


def crowded(seed: int) -> Detected:
    """Boxes on top of each other, of three classes, some ignored; detections near them and anywhere."""
    noise = np.random.default_rng(seed)
    truth = noise.uniform(0, 90, (60, 2))
    truth = np.concatenate([truth, truth + noise.uniform(8, 14, (60, 2))], 1)
    boxes = np.concatenate([truth + noise.normal(0, 1.5, (60, 4)), truth + noise.normal(0, 1.5, (60, 4))])
    stray = noise.uniform(0, 90, (40, 2))
    boxes = np.concatenate([boxes, np.concatenate([stray, stray + 10], 1)])
    kinds = noise.integers(0, 3, 60)
    box_class = np.concatenate([kinds, kinds, noise.integers(0, 3, 40)])
    scores = noise.permutation(160) / 160  # no ties
    return image(truth, kinds, boxes, box_class, scores, noise.random(60) < 0.15)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most", [1, 5, 1000])
def test_separated_images_have_the_same_average_precision(seed, most):
    images = [crowded(seed), crowded(seed + 10)]
    pieces = [piece for whole in images for piece in metrics.separate(whole, most)]
    assert sum(len(p.truth) for p in pieces) == 120
    assert sum(len(p.boxes) for p in pieces) == 320
    if most == 1:
        assert len(pieces) > 20
    whole = metrics.coco_curves(images, 3)[0]
    apart = metrics.coco_curves(pieces, 3)[0]
    for name, values in whole.items():
        assert 0.02 < values.min() < values.max() < 0.95  # something to get wrong
        assert apart[name] == pytest.approx(values, abs=1e-12)
    assert metrics.detection_counts(pieces, 3).tp.tolist() == metrics.detection_counts(images, 3).tp.tolist()


def test_separating_nothing():
    for empty in (image(), image([BOX]), image(boxes=[BOX])):
        pieces = metrics.separate(empty)
        assert sum(len(p.truth) for p in pieces) == len(empty.truth)
        assert sum(len(p.boxes) for p in pieces) == len(empty.boxes)


def test_average_precision_prints_nothing(capsys):
    average_precision([image([BOX], boxes=[BOX])], 1)
    assert capsys.readouterr().out == ""


def test_no_detections_and_no_truth():
    assert average_precision([image([BOX])], 1)["ap50"][0] == 0.0
    assert math.isnan(average_precision([image(boxes=[BOX])], 1)["ap50"][0])
    assert metrics.detection_counts([Detected()], 2).tp.tolist() == [0, 0]


def test_above_a_score():
    kept = image([BOX], boxes=[BOX, BOX, BOX], scores=[0.5, 0.4, 0.9]).above(0.5)
    assert kept.scores.tolist() == pytest.approx([0.5, 0.9])
    assert len(kept.boxes) == len(kept.box_class) == 2
    assert len(kept.truth) == 1


def test_shapes_are_checked_by_name():
    with pytest.raises(ValueError, match="box_class"):
        Detected(boxes=np.zeros((2, 4), np.float32), scores=np.zeros(2, np.float32))
