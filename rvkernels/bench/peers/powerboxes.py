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
