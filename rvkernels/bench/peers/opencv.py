"""OpenCV, with the number of threads that a case asks for."""

from concurrent.futures import ThreadPoolExecutor

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


def _chip_by_chip(inputs, threads, out, make):
    """A run that calls make(i, image, labels) for each chip, on as many threads, and returns both outputs.

    OpenCV's own threads gain next to nothing on chips; where several are asked for, each thread takes whole chips.
    """
    cv2.setNumThreads(1)
    labels = np.empty(inputs["labels"].shape, np.uint8)
    pool = None if threads == 1 else ThreadPoolExecutor(threads or cv2.getNumberOfCPUs())

    def one(i):
        make(i, out[i], labels[i])

    def run():
        for _ in (pool.map if pool else map)(one, range(len(out))):
            pass
        return {"images": out, "labels": labels}

    return run


def augment_moves(inputs, threads):
    """Flips and quarter turns: one or two passes over what has to move."""
    steps = np.rint(inputs["map"][:, [1, 2, 4, 5]]).astype(int).tolist()

    def move(source, rows, cols, row_of_col, col_of_row, to):
        turned = rows == 0
        flips = (col_of_row if turned else rows) < 0, (row_of_col if turned else cols) < 0
        if flips == (False, False):
            return cv2.transpose(source, to) if turned else np.copyto(to, source)
        source = cv2.transpose(source) if turned else source
        return cv2.flip(source, {(True, False): 0, (False, True): 1, (True, True): -1}[flips], to)

    def make(i, image, labels):
        rows, row_of_col, col_of_row, cols = steps[i]
        move(inputs["images"][i], rows, cols, row_of_col, col_of_row, image)
        move(inputs["labels"][i], rows, cols, row_of_col, col_of_row, labels)

    return _chip_by_chip(inputs, threads, np.empty(inputs["images"].shape, np.uint8), make)


def _warps(inputs):
    """(x, y) of the source from (x, y) of the output, pixel centres on whole numbers, for warpAffine."""
    y, y_row, y_col, x, x_row, x_col = inputs["map"].T
    return np.stack([x_col, x_row, x - 0.5, y_col, y_row, y - 0.5], axis=1).reshape(-1, 2, 3)


def _warp(inputs, warp, i, image, labels):
    size, inverse = image.shape[1::-1], cv2.WARP_INVERSE_MAP
    fill = inputs["mean"].tolist()
    cv2.warpAffine(inputs["images"][i], warp, size, image, cv2.INTER_LINEAR | inverse, cv2.BORDER_CONSTANT, fill)
    cv2.warpAffine(inputs["labels"][i], warp, size, labels, cv2.INTER_NEAREST | inverse, cv2.BORDER_CONSTANT, 255)


def augment_affine(inputs, threads):
    warps = _warps(inputs)

    def make(i, image, labels):
        _warp(inputs, warps[i], i, image, labels)

    return _chip_by_chip(inputs, threads, np.empty(inputs["images"].shape, np.uint8), make)


def _tables(inputs, i):
    """Brightness, contrast and gamma of chip i, for each value of a byte in each band."""
    values = np.arange(256)[:, None] * inputs["gain"][i] + inputs["offset"][i]
    values = 255 * np.clip(values / 255, 0, 1) ** inputs["gamma"][i]
    return np.rint(values).astype(np.uint8)[None]


def _turn_colours(inputs, i, image):
    cv2.transform(image, inputs["matrix"][i], image)


def _turn_colours_hsv(inputs, i, image):
    values = np.arange(256)
    hue = (values + 180 * inputs["turn"][i]) % 180
    saturation = np.clip(values * inputs["stretch"][i], 0, 255)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    cv2.LUT(hsv, np.stack([hue, saturation, values], axis=1).astype(np.uint8)[None], hsv)
    cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, image)


def _augment_colour(turn, inputs, threads):
    def make(i, image, labels):
        np.copyto(labels, inputs["labels"][i])
        cv2.LUT(inputs["images"][i], _tables(inputs, i), image)
        turn(inputs, i, image)

    return _chip_by_chip(inputs, threads, np.empty(inputs["images"].shape, np.uint8), make)


def augment_colour(inputs, threads):
    return _augment_colour(_turn_colours, inputs, threads)


def augment_colour_hsv(inputs, threads):
    return _augment_colour(_turn_colours_hsv, inputs, threads)


def _augment_everything(turn, inputs, threads):
    """One warp has the flips and turns, too; noise, holes and normalisation are float32."""
    n, rows, cols, bands = inputs["images"].shape
    warps = _warps(inputs)
    mean, inverse = inputs["mean"].astype(np.float32), (1 / inputs["std"]).astype(np.float32)
    width = inputs["weights"].shape[1] - 1
    shifted = inputs["weights"][:, np.abs(np.arange(-width, width + 1))]

    def make(i, out, labels):
        image = np.empty((rows, cols, bands), np.uint8)
        _warp(inputs, warps[i], i, image, labels)
        cv2.LUT(image, _tables(inputs, i), image)
        turn(inputs, i, image)
        radius = int(inputs["radius"][i])
        taps = np.ascontiguousarray(shifted[i, width - radius : width + radius + 1])
        cv2.sepFilter2D(image, -1, taps, taps, image, borderType=cv2.BORDER_REPLICATE)
        values = np.empty((rows, cols, bands), np.float32)
        cv2.randn(values, (0,) * bands, (inputs["noise"][i],) * bands)
        np.add(values, image, out=values)
        for top, left, bottom, right in inputs["holes"][i].tolist():
            values[top:bottom, left:right] = mean
        for b in range(bands):
            if inputs["dropped"][i, b]:
                out[b] = 0
            else:
                np.multiply(np.subtract(values[..., b], mean[b], out=out[b]), inverse[b], out=out[b])

    return _chip_by_chip(inputs, threads, np.empty((n, bands, rows, cols), np.float32), make)


def augment_everything(inputs, threads):
    return _augment_everything(_turn_colours, inputs, threads)


def augment_everything_hsv(inputs, threads):
    return _augment_everything(_turn_colours_hsv, inputs, threads)


def normalize(inputs, threads):
    """A table of float32 for each band."""
    _threads(threads)
    images, mean, std = inputs["images"], inputs["mean"], inputs["std"]
    tables = [((np.arange(256) - m) / s).astype(np.float32) for m, s in zip(mean, std)]
    n, rows, cols, bands = images.shape
    out = np.empty((n, bands, rows, cols), np.float32)

    def run():
        for image, planes in zip(images, out):
            for band, table, plane in zip(cv2.split(image), tables, planes):
                cv2.LUT(band, table, plane)
        return out

    return run
