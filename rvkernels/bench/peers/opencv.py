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
