"""Targets, decoding and validation metrics of the tasks, against cases worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rvkernels import registry
from rvkernels.batches import Batch
from rvkernels.models import Graph
from rvkernels.tasks import classification, detection, segmentation

GRAPH = Graph("detection", (), "", bands=3, classes=2, multiple=8, strides=(4, 8))


def boxes_batch(*images, shape=(16, 16)):
    """A batch of images, each a list of (ymin, xmin, ymax, xmax, class)."""
    rows = np.array(list(itertools.chain(*images)), np.float32).reshape(-1, 5)
    start = np.cumsum([0] + [len(i) for i in images]).astype(np.int64)
    n = len(images)
    return Batch(
        np.arange(n),
        np.zeros((n, *shape, 3), np.float32),
        shape,
        boxes=np.ascontiguousarray(rows[:, :4]),
        box_class=rows[:, 4].astype(np.int32),
        box_start=start,
    )


class Fixed:
    """A framework whose logits are given, batch by batch."""

    def __init__(self, *logits):
        self.logits = iter(logits)

    def predict(self, images):
        return np.asarray(next(self.logits), np.float32)


@pytest.mark.parametrize("name", registry.names("tasks"))
def test_every_task_has_what_training_needs(name):
    task = registry.load("tasks", name)
    assert task.PRIMARY in task.METRICS
    assert {"targets", "probabilities", "validate", "LOSS"} <= set(dir(task))


def test_probabilities():
    logits = np.array([[1000.0, 1000.0, -1000.0], [0.0, np.log(3.0), -np.inf]], np.float32)
    np.testing.assert_allclose(classification.probabilities(logits), [[0.5, 0.5, 0], [0.25, 0.75, 0]], atol=1e-6)
    got = detection.probabilities(np.array([[0, -200, 200, 9, 9, 9, 9]], np.float32))
    np.testing.assert_allclose(got, [[0.5, 0, 1]], atol=1e-6)


# --- classification and segmentation -----------------------------------------------------------------------------


def test_classification_metrics():
    graph = Graph("classification", (), "", bands=3, classes=3)
    batches = [
        Batch(np.arange(n), np.zeros((n, 1, 1, 3)), (1, 1), labels=np.array(t, np.int32))
        for n, t in ((3, [0, 0, 1]), (1, [1]))
    ]
    net = Fixed([[2, 0, 0], [0, 2, 0], [0, 2, 0]], [[0, 2, 0]])
    got = classification.validate(net, graph, batches)
    # Truth 0 0 1 1, found 0 1 1 1: F1 of class 0 is 2/3, of class 1 4/5; class 2 does not occur.
    assert got == pytest.approx({"accuracy": 0.75, "macro_f1": (2 / 3 + 4 / 5) / 2})
    assert set(got) == set(classification.METRICS)
    (labels,) = classification.targets(graph, batches[0])
    assert labels.dtype == np.int32


def test_segmentation_metrics_and_ties():
    graph = Graph("segmentation", (), "", bands=3, classes=2)
    truth = np.array([[[0, 0, 1, 255]]], np.uint8)
    batch = Batch(np.arange(1), np.zeros((1, 1, 4, 3)), (1, 4), labels=truth)
    # Found 0 (a tie), 1, 1, 1; the last pixel is ignored. IoU of both classes is 1/2.
    net = Fixed([[[[1, 1], [0, 1], [0, 1], [0, 1]]]])
    got = segmentation.validate(net, graph, [batch])
    assert got == pytest.approx({"miou": 0.5, "pixel_accuracy": 2 / 3})
    assert set(got) == set(segmentation.METRICS)
    (labels,) = segmentation.targets(graph, batch)
    assert labels.dtype == np.int32
    assert labels.tolist() == truth.tolist()


# --- detection: targets ------------------------------------------------------------------------------------------


def test_locations_are_cell_centres_level_by_level():
    points, strides = detection.locations(GRAPH, (8, 16))
    assert points.tolist() == [[2, 2], [2, 6], [2, 10], [2, 14], [6, 2], [6, 6], [6, 10], [6, 14], [4, 4], [4, 12]]
    assert strides.tolist() == [4] * 8 + [8] * 2


def test_targets_of_one_box():
    # Centre (6, 6). Points of stride 4 inside the box and within 6 pixels of the centre: 2, 6, 10 in both axes; their
    # largest distances are at most 9, below the reach of 16.
    labels, distances = detection.targets(GRAPH, boxes_batch([(1, 1, 11, 11, 1)]))
    assert labels.shape == (1, 16 + 4)
    assert labels.dtype == np.int32
    assert distances.dtype == np.float32
    fine = labels[0, :16].reshape(4, 4)
    assert (fine[:3, :3] == 1).all()
    assert (fine == 1).sum() == 9
    assert (labels[0, 16:] == -1).all()
    np.testing.assert_array_equal(distances[0, 0], np.array([1, 1, 9, 9]) / 4)
    np.testing.assert_array_equal(distances[0, 6], np.array([5, 9, 5, 1]) / 4)  # point (6, 10)
    assert not distances[0, 15].any()


def test_reach_moves_a_box_to_the_coarser_level():
    labels, distances = detection.targets(GRAPH, boxes_batch([(1, 1, 11, 11, 1)]), reach=1.0)
    # The largest distance of point (6, 6) is 5, above 1 * 4, so no point of stride 4 may have it.
    assert (labels[0, :16] == -1).all()
    assert labels[0, 16:].tolist() == [1, -1, -1, -1]
    np.testing.assert_array_equal(distances[0, 16], np.array([3, 3, 7, 7]) / 8)


def test_radius_leaves_the_rim_out():
    labels, _ = detection.targets(GRAPH, boxes_batch([(1, 1, 11, 11, 0)]), radius=0.5)
    assert np.flatnonzero(labels[0] == 0).tolist() == [5]


def test_smaller_box_wins_then_the_first():
    big, small = (0, 0, 12, 12, 0), (3, 3, 9, 9, 1)  # small holds point (6, 6) only
    for order in ([big, small], [small, big]):
        labels, _ = detection.targets(GRAPH, boxes_batch(order))
        assert labels[0, 5] == 1
        assert (labels[0, :16] == 0).sum() == 8
    labels, _ = detection.targets(GRAPH, boxes_batch([(0, 0, 12, 12, 1), (0, 0, 12, 12, 0)]))
    # The second of two equal boxes takes one location nearest to its centre; the first keeps the others.
    assert (labels[0] == 1).sum() == 8
    assert labels[0, 5] == 0


def test_an_object_smaller_than_a_stride_gets_the_nearest_location():
    labels, distances = detection.targets(GRAPH, boxes_batch([(0.25, 4.5, 1.25, 5, 1)]))
    assert np.flatnonzero(labels[0] >= 0).tolist() == [1]  # the point (2, 6), outside the box
    np.testing.assert_array_equal(distances[0, 1], np.array([1.75, 1.5, 0, 0]) / 4)


def test_two_tiny_objects_in_one_cell_get_one_location_each():
    labels, _ = detection.targets(GRAPH, boxes_batch([(1, 1, 2, 2, 0), (1, 1, 1.5, 1.5, 1)]))
    assert labels[0, 0] == 1  # the smaller first
    assert (labels[0] == 0).sum() == 1


def test_images_of_a_batch_do_not_mix():
    one, two = [(1, 1, 11, 11, 1)], [(5, 5, 7, 7, 0), (8, 8, 15, 15, 1)]
    labels, distances = detection.targets(GRAPH, boxes_batch(one, [], two))
    for i, image in enumerate((one, [], two)):
        alone = detection.targets(GRAPH, boxes_batch(image))
        np.testing.assert_array_equal(labels[i], alone[0][0])
        np.testing.assert_array_equal(distances[i], alone[1][0])
    assert (labels[1] == -1).all()


def by_the_book(batch, radius, reach):
    """The assignment by its definition, location by location, without the second part for objects left over."""
    points, strides = detection.locations(GRAPH, batch.shape)
    bounds = {4: (0, reach * 4), 8: (reach * 4, np.inf)}
    owner = np.full(len(points), -1)
    for i, (point, stride) in enumerate(zip(points.astype(float), strides)):
        best = np.inf
        for j, box in enumerate(batch.boxes.astype(float)):
            spans = np.concatenate([point - box[:2], box[2:] - point])
            near = np.abs(point - (box[:2] + box[2:]) / 2).max() <= radius * stride
            low, high = bounds[int(stride)]
            area = (box[2] - box[0]) * (box[3] - box[1])
            if near and spans.min() > 0 and low < spans.max() <= high and area < best:
                owner[i], best = j, area
    return owner


@pytest.mark.parametrize("seed", range(20))
def test_targets_equal_their_definition(seed):
    random = np.random.default_rng(seed)
    low = random.uniform(-4, 28, (12, 2))
    boxes = np.concatenate([low, low + random.uniform(1, 24, (12, 2))], axis=1)
    if seed % 2:
        boxes = np.rint(boxes)  # points on edges and limits
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    batch = boxes_batch([(*b, i % 2) for i, b in enumerate(boxes)], shape=(32, 40))
    labels, distances = detection.targets(GRAPH, batch, radius=1.5, reach=2.0)
    owner = by_the_book(batch, 1.5, 2.0)
    rescued = set(range(12)) - set(owner.tolist())
    expected = np.where(owner >= 0, owner % 2, -1)
    changed = np.flatnonzero(labels[0] != expected)
    if not rescued:
        assert not changed.size
    # Every object without a location gets exactly one; all else stays.
    assert len(changed) <= len(rescued)
    assert (distances >= 0).all()
    assert (labels[0] >= 0).sum() >= 12
    points, strides = detection.locations(GRAPH, batch.shape)
    for i in np.flatnonzero((owner >= 0) & (labels[0] == expected)):
        spans = distances[0, i] * strides[i]
        box = np.concatenate([points[i] - spans[:2], points[i] + spans[2:]])
        # The box is the owner's, unless an object without a location took this one.
        if not np.allclose(box, batch.boxes[owner[i]], atol=1e-4):
            assert rescued


# --- detection: decoding -----------------------------------------------------------------------------------------


def raw_of(distance):
    """The raw output whose softplus is `distance`."""
    return np.log(np.expm1(distance))


def empty_outputs(n=1, shape=(16, 16)):
    count = len(detection.locations(GRAPH, shape)[0])
    outputs = np.zeros((n, count, 6), np.float32)
    outputs[..., :2] = -20
    return outputs


def test_decode_inverts_targets():
    batch = boxes_batch([(1, 1, 11, 11, 1)], [], [(2, 8, 6, 15, 0), (0.5, 0.5, 15.5, 15.5, 1)])
    labels, distances = detection.targets(GRAPH, batch)
    outputs = empty_outputs(3)
    image, place = np.nonzero(labels >= 0)
    outputs[image, place, labels[image, place]] = 5
    outputs[image, place, 2:] = raw_of(np.maximum(distances[image, place], 1e-6))
    found = detection.decode(outputs, GRAPH, (16, 16))
    assert [len(f.boxes) for f in found] == [1, 0, 2]
    for i, image in enumerate(found):
        truth = batch.boxes[batch.box_start[i] : batch.box_start[i + 1]]
        truth_class = batch.box_class[batch.box_start[i] : batch.box_start[i + 1]]
        for box, cls in zip(image.boxes, image.classes):
            j = np.flatnonzero(truth_class == cls)[0]
            np.testing.assert_allclose(box, truth[j], atol=1e-3)
    np.testing.assert_allclose(found[0].scores, 1 / (1 + np.exp(-5)), rtol=1e-6)


def test_decode_thresholds_clips_and_sorts():
    outputs = empty_outputs()
    outputs[0, 0, :2] = [0, -1]  # two classes at one location, boxes reach beyond the corner (2, 2)
    outputs[0, 15, 0] = 1
    outputs[0, 5, 0] = -4  # probability 0.018
    outputs[0, [0, 5, 15], 2:] = raw_of(1.0)
    (got,) = detection.decode(outputs, GRAPH, (16, 16))
    assert got.classes.tolist() == [0, 0, 1]
    np.testing.assert_allclose(got.scores, [0.7311, 0.5, 0.2689], atol=1e-4)
    np.testing.assert_allclose(got.boxes, [[10, 10, 16, 16], [0, 0, 6, 6], [0, 0, 6, 6]], atol=1e-4)
    (some,) = detection.decode(outputs, GRAPH, (16, 16), candidates=2)
    assert some.classes.tolist() == [0, 0]
    (one,) = detection.decode(outputs, GRAPH, (16, 16), limit=1)
    assert len(one.boxes) == 1
    with pytest.raises(ValueError, match="outputs: shape is"):
        detection.decode(outputs, GRAPH, (16, 24))


# --- detection: average precision --------------------------------------------------------------------------------


def found_in(*rows):
    """Detections of one image from (ymin, xmin, ymax, xmax, score, class)."""
    a = np.array(rows, np.float32).reshape(-1, 6)
    return detection.Detections(np.ascontiguousarray(a[:, :4]), a[:, 4], a[:, 5].astype(np.int32))


def truth_of(*rows):
    a = np.array(rows, np.float32).reshape(-1, 5)
    return np.ascontiguousarray(a[:, :4]), a[:, 4].astype(np.int32)


A, B, C = (0, 0, 10, 10), (0, 20, 10, 30), (20, 0, 30, 10)


def test_average_precision_by_hand():
    truths = [truth_of((*A, 0), (*B, 0)), truth_of((*A, 0))]
    found = [found_in((*A, 0.9, 0), (*C, 0.8, 0), (*B, 0.6, 0)), found_in((*C, 0.7, 0))]
    # By score: hit, miss, miss, hit; precision 1, 1/2, 1/3, 1/2; recall 1/3 (34 of 101 points reach it) ... 2/3 (67).
    precision, recall = detection.average_precision(truths, found, 2)
    assert precision[0] == pytest.approx((34 * 1 + 33 * 1 / 2) / 101)
    assert recall[0] == pytest.approx(2 / 3)
    assert np.isnan(precision[1])
    assert np.isnan(recall[1])


def test_precision_is_the_best_at_any_higher_recall():
    truths = [truth_of((*A, 0), (*B, 0))]
    found = [found_in((*C, 0.9, 0), (*A, 0.8, 0), (*B, 0.7, 0))]
    # miss, hit, hit: precision 0, 1/2, 2/3; both steps of recall take 2/3.
    assert detection.average_precision(truths, found, 1)[0][0] == pytest.approx(2 / 3)


def test_class_matters_and_each_truth_is_found_once():
    truths = [truth_of((*A, 0))]
    assert detection.average_precision(truths, [found_in((*A, 0.9, 1))], 2)[0][0] == 0
    # The second detection of the same object is wrong, and comes after full recall.
    twice = [found_in((*A, 0.8, 0), (*A, 0.9, 0))]
    assert detection.average_precision(truths, twice, 1)[0][0] == 1
    # With a lower-scored hit behind the duplicate it costs precision.
    truths = [truth_of((*A, 0), (*B, 0))]
    found = [found_in((*A, 0.9, 0), (*A, 0.8, 0), (*B, 0.7, 0))]
    assert detection.average_precision(truths, found, 1)[0][0] == pytest.approx((51 * 1 + 50 * 2 / 3) / 101)


def test_score_order_decides_who_gets_the_box():
    # The better-placed detection has the lower score and finds nothing left.
    truths = [truth_of((*A, 0))]
    found = [found_in((*A, 0.5, 0), (0, 0, 10, 8, 0.9, 0))]
    precision, _ = detection.average_precision(truths, found, 1, iou=0.5)
    assert precision[0] == 1
    assert detection._hits(found[0].boxes[[1, 0]], truths[0][0], 0.5).tolist() == [True, False]


def test_a_taken_box_leaves_the_next_best():
    near = (0, 1, 10, 11)
    truths = [truth_of((*A, 0), (*near, 0))]
    found = [found_in((*A, 0.9, 0), (*A, 0.8, 0))]
    assert detection.average_precision(truths, found, 1)[1][0] == 1


def test_threshold_is_inclusive():
    truths, found = [truth_of((*A, 0))], [found_in((0, 0, 10, 5, 0.9, 0))]  # IoU exactly 1/2
    assert detection.average_precision(truths, found, 1, iou=0.5)[0][0] == 1
    assert detection.average_precision(truths, found, 1, iou=0.51)[0][0] == 0


def test_average_precision_agrees_with_coco():
    pytest.importorskip("pycocotools")
    from rvkernels.metrics import Detected, detection_curves

    random = np.random.default_rng(1)
    truths, found, images = [], [], []
    for _ in range(30):
        low = random.uniform(0, 80, (8, 2))
        truth = np.concatenate([low, low + random.uniform(5, 20, (8, 2))], axis=1).astype(np.float32)
        classes = random.integers(0, 2, 8).astype(np.int32)
        moved = np.repeat(truth, 2, axis=0) + random.normal(0, 2, (16, 4)).astype(np.float32)
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        boxes = np.ascontiguousarray(moved)
        scores, guess = random.random(16).astype(np.float32), np.repeat(classes, 2).astype(np.int32)
        guess[::5] = 1 - guess[::5]
        truths.append((truth, classes))
        found.append(detection.Detections(boxes, scores, guess))
        images.append(Detected(truth, classes.astype(np.int64), np.zeros(8, bool), boxes, guess, scores))
    ours, _ = detection.average_precision(truths, found, 2)
    theirs = detection_curves(images, 2)[0]["ap50"]
    assert theirs.min() > 0.2
    assert theirs.max() < 0.95
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_validation_of_a_perfect_detector():
    batch = boxes_batch([(1, 1, 11, 11, 1)], [], [(2, 8, 6, 15, 1)])
    labels, distances = detection.targets(GRAPH, batch)
    outputs = empty_outputs(3)
    image, place = np.nonzero(labels >= 0)
    outputs[image, place, labels[image, place]] = 5
    outputs[image, place, 2:] = raw_of(np.maximum(distances[image, place], 1e-6))
    got = detection.validate(Fixed(outputs), GRAPH, [batch])
    assert got == pytest.approx({"ap50": 1.0, "recall50": 1.0})
    assert set(got) == set(detection.METRICS)
    worst = detection.validate(Fixed(empty_outputs(3)), GRAPH, [batch])
    assert worst == {"ap50": 0.0, "recall50": 0.0}
