"""OpenCV, with the number of threads that a case asks for."""

import cv2
import numpy as np


def _threads(threads):
    cv2.setNumThreads(threads or cv2.getNumberOfCPUs())


def nms(inputs, threads):
    _threads(threads)
    low, high = inputs["boxes"][:, [1, 0]], inputs["boxes"][:, [3, 2]]
    boxes = np.concatenate([low, high - low], 1).astype(np.float64)
    return lambda: cv2.dnn.NMSBoxes(boxes, inputs["scores"], 0.0, inputs["iou"])


def fill_polygons(inputs, threads):
    """Contours of whole pixels, prepared for each window."""
    _threads(threads)
    starts, values = inputs["ring_start"], inputs["values"].tolist()
    out = np.empty((len(inputs["places"]), inputs["rows"], inputs["cols"]), np.uint8)
    work = []
    for i, (row, col) in enumerate(inputs["places"].tolist()):
        hits = inputs["hits"][inputs["hit_start"][i] : inputs["hit_start"][i + 1]].tolist()
        contours = [
            np.round(inputs["coords"][starts[p] : starts[p + 1]] - (col, row)).astype(np.int32).reshape(-1, 1, 2)
            for p in hits
        ]
        work.append((out[i], [([contour], values[p]) for contour, p in zip(contours, hits)]))

    def run():
        for mask, polygons in work:
            mask.fill(0)
            for contour, value in polygons:
                cv2.fillPoly(mask, contour, value)
        return out

    return run


def _components(algorithm, inputs, threads):
    _threads(threads)
    mask, neighbours = inputs["mask"], inputs["connectivity"]
    out = np.empty(mask.shape, np.int32)

    def run():
        n, labels = cv2.connectedComponentsWithAlgorithm(mask, neighbours, cv2.CV_32S, algorithm, out)
        return {"labels": labels, "count": n - 1}

    return run


def components_sauf(inputs, threads):
    return _components(cv2.CCL_SAUF, inputs, threads)


def components_bbdt(inputs, threads):
    return _components(cv2.CCL_BBDT, inputs, threads)


def components_spaghetti(inputs, threads):
    return _components(cv2.CCL_SPAGHETTI, inputs, threads)


def components_with_statistics(inputs, threads):
    _threads(threads)
    mask, neighbours = inputs["mask"], inputs["connectivity"]
    out = np.empty(mask.shape, np.int32)

    def run():
        n, labels, table, _ = cv2.connectedComponentsWithStats(mask, out, None, None, neighbours, cv2.CV_32S)
        return {"labels": labels, "count": n - 1, "area": table[:, cv2.CC_STAT_AREA]}

    return run


def rotated_iou(inputs, threads):
    """The pairs whose circles meet, one by one."""
    _threads(threads)
    a, b = inputs["a"], inputs["b"]
    out = np.zeros((len(a), len(b)))
    (a_rectangles, a_areas), (b_rectangles, b_areas) = (
        ([((x, y), (w, h), t) for y, x, h, w, t in boxes.tolist()], (boxes[:, 2] * boxes[:, 3]).tolist())
        for boxes in (a, b)
    )

    def run():
        reach = [np.hypot(boxes[:, 2], boxes[:, 3]) / 2 for boxes in (a, b)]
        apart = np.hypot(a[:, None, 0] - b[:, 0], a[:, None, 1] - b[:, 1])
        for i, j in np.argwhere(apart < reach[0][:, None] + reach[1]).tolist():
            kind, corners = cv2.rotatedRectangleIntersection(a_rectangles[i], b_rectangles[j])
            if kind != cv2.INTERSECT_NONE:
                inter = cv2.contourArea(cv2.convexHull(corners))
                out[i, j] = inter / (a_areas[i] + b_areas[j] - inter)
        return out

    return run


def add_chips(inputs, threads):
    _threads(threads)
    chips = np.array(inputs["chips"])
    size, classes = chips.shape[2:]
    weights = np.repeat(inputs["weights"][..., None], classes, 2)
    sums = np.zeros((*inputs["shape"], classes), np.float32)
    places = [sums[r : r + size, c : c + size] for r, c in zip(inputs["row"].tolist(), inputs["col"].tolist())]

    def run():
        for place, chip in zip(places, chips):
            cv2.accumulateProduct(weights, chip, place)
        return sums

    return run


def histogram(inputs, threads):
    """Band by band, as OpenCV counts them: together they would be a histogram of as many dimensions."""
    _threads(threads)
    images = inputs["images"][:, None, :]
    mask = inputs["valid"][:, None] if "valid" in inputs else None
    bins = int(np.iinfo(images.dtype).max) + 1
    bands = range(images.shape[2])

    def run():
        counts = [cv2.calcHist([images], [band], mask, [bins], [0, bins]) for band in bands]
        # Counts come as float32, which is exact up to 2^24 in a bin.
        return np.stack(counts).reshape(-1, bins).astype(np.int64)

    return run


def moments(inputs, threads):
    _threads(threads)
    images = inputs["images"][:, None, :]
    return lambda: cv2.meanStdDev(images)


def confusion(inputs, threads):
    """Two bands of one image. Labels beyond the classes lie outside the ranges, and are left out."""
    _threads(threads)
    truth, predicted = inputs["truth"][:, None], inputs["predicted"][:, None]
    k = inputs["classes"]
    return lambda: cv2.calcHist([truth, predicted], [0, 1], None, [k, k], [0, k, 0, k]).astype(np.int64)
