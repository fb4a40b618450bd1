"""powerboxes: boxes in Rust."""

import numpy as np
import powerboxes


def _corners(boxes):
    """(xmin, ymin, xmax, ymax) as powerboxes has them."""
    return np.ascontiguousarray(boxes[:, [1, 0, 3, 2]])


def rtree_nms(inputs, threads):
    boxes, scores = _corners(inputs["boxes"]), inputs["scores"].astype(np.float64)
    return lambda: powerboxes.rtree_nms(boxes, scores, inputs["iou"], -1.0)


def nms(inputs, threads):
    boxes, scores = _corners(inputs["boxes"]), inputs["scores"].astype(np.float64)
    return lambda: powerboxes.nms(boxes, scores, inputs["iou"], -1.0)


def iou(inputs, threads):
    a, b = (_corners(inputs[name]) for name in "ab")
    distance = powerboxes.iou_distance if threads == 1 else powerboxes.parallel_iou_distance
    return lambda: 1 - distance(a, b)


def rotated_iou(inputs, threads):
    a, b = (np.ascontiguousarray(inputs[name][:, [1, 0, 3, 2, 4]]) for name in "ab")
    distance = powerboxes.rotated_iou_distance if threads == 1 else powerboxes.parallel_rotated_iou_distance
    return lambda: 1 - distance(a, b)


def rtree_rotated_nms(inputs, threads):
    boxes = np.ascontiguousarray(inputs["boxes"][:, [1, 0, 3, 2, 4]])
    scores = inputs["scores"].astype(np.float64)
    return lambda: powerboxes.rtree_rotated_nms(boxes, scores, inputs["iou"], -1.0)
