"""NumPy: what one writes where there is no library, and floors: the least that has to be done."""

import numpy as np


def nms(inputs, threads):
    boxes, scores, iou = inputs["boxes"], inputs["scores"], inputs["iou"]
    y0, x0, y1, x1 = np.ascontiguousarray(boxes.T)
    area = (y1 - y0) * (x1 - x0)

    def run():
        kept, order = [], np.argsort(-scores, kind="stable")
        while order.size:
            best, rest = order[0], order[1:]
            kept.append(best)
            height = np.maximum(np.minimum(y1[best], y1[rest]) - np.maximum(y0[best], y0[rest]), 0)
            width = np.maximum(np.minimum(x1[best], x1[rest]) - np.maximum(x0[best], x0[rest]), 0)
            overlap = height * width
            order = rest[overlap <= np.float32(iou) * (area[best] + area[rest] - overlap)]
        return np.array(kept)

    return run


def argsort_scores(inputs, threads):
    """Floor of nms: boxes have to be sorted by score."""
    return lambda: np.argsort(inputs["scores"])


def fill_masks(inputs, threads):
    """Floor of rasterize: every pixel has to be written."""
    out = np.empty((len(inputs["places"]), inputs["rows"], inputs["cols"]), np.uint8)

    def run():
        out.fill(0)
        return out

    return run


def widen(inputs, threads):
    """Floor of components: read the mask, write as many int32."""
    mask = inputs["mask"]
    out = np.empty(mask.shape, np.int32)
    return lambda: np.copyto(out, mask)


def largest(inputs, threads):
    """Floor of polygonize: read the labels."""
    labels = inputs["labels"]
    return lambda: labels.max()


def write_chips(inputs, threads):
    """Floor of tile: write the chips, on one thread."""
    rows, cols = inputs["windows"][0, 2:]
    out = np.empty((len(inputs["windows"]), rows, cols, inputs["image"].shape[2]), np.uint8)
    return lambda: out.fill(7)
