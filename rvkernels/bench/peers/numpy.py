"""NumPy: what one writes where there is no library, and floors: the least that has to be done."""

import os

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


def iou(inputs, threads):
    (ay0, ax0, ay1, ax1), (by0, bx0, by1, bx1) = (np.ascontiguousarray(inputs[name].T) for name in "ab")
    shape = (len(ay0), len(by0))
    high, other, inter = (np.empty(shape, np.float32) for _ in range(3))

    def run():
        np.minimum(ay1[:, None], by1, out=high)
        np.subtract(high, np.maximum(ay0[:, None], by0, out=other), out=high)
        np.maximum(high, 0, out=high)
        np.minimum(ax1[:, None], bx1, out=inter)
        np.subtract(inter, np.maximum(ax0[:, None], bx0, out=other), out=inter)
        np.maximum(inter, 0, out=inter)
        np.multiply(inter, high, out=inter)
        np.add(((ay1 - ay0) * (ax1 - ax0))[:, None], (by1 - by0) * (bx1 - bx0), out=other)
        np.subtract(other, inter, out=other)
        with np.errstate(invalid="ignore"):
            return np.divide(inter, other, out=high)

    return run


def write_matrix(inputs, threads):
    """Floor of iou: write the matrix, on one thread."""
    out = np.empty((len(inputs["a"]), len(inputs["b"])), np.float32)
    return lambda: out.fill(0)


def write_wide_matrix(inputs, threads):
    """Floor of rotated_iou: write the matrix, on one thread."""
    out = np.empty((len(inputs["a"]), len(inputs["b"])))
    return lambda: out.fill(0)


def add_chips(inputs, threads):
    chips, weights = np.array(inputs["chips"]), inputs["weights"][..., None]
    size = chips.shape[1]
    sums = np.zeros((*inputs["shape"], chips.shape[3]), np.float32)
    product = np.empty(chips.shape[1:], np.float32)

    def run():
        for chip, row, col in zip(chips, inputs["row"].tolist(), inputs["col"].tolist()):
            sums[row : row + size, col : col + size] += np.multiply(chip, weights, out=product)
        return sums

    return run


def copy_chips(inputs, threads):
    """Floor of blend's accumulate: read the chips and write as much, on one thread."""
    chips = np.array(inputs["chips"])
    out = np.empty_like(chips)
    return lambda: np.copyto(out, chips)


def argmax(inputs, threads):
    sums = np.array(inputs["sums"])
    return lambda: sums.argmax(2)


def read_sums(inputs, threads):
    """Floor of blend's labels: read the sums, on one thread."""
    sums = np.array(inputs["sums"])
    return lambda: sums.max()


def read_file(inputs, threads):
    """Floor of statistics of a file that is not compressed."""
    size = os.path.getsize(inputs["path"])
    buffer = memoryview(bytearray(min(size, 1 << 20)))

    def run():
        with open(inputs["path"], "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    return run


def add_up(inputs, threads):
    """Floor of statistics: every value has to be read."""
    words = inputs["images"].reshape(-1).view(np.uint8)
    words = words[: words.size // 8 * 8].view(np.uint64)
    return words.sum


def histogram(inputs, threads):
    images, valid = inputs["images"], inputs.get("valid")
    bins = np.iinfo(images.dtype).max + 1

    def run():
        kept = images if valid is None else images[valid != 0]
        return np.stack([np.bincount(kept[:, band], minlength=bins) for band in range(images.shape[1])])

    return run


def add_labels_up(inputs, threads):
    """Floor of confusion: both arrays have to be read."""
    words = [inputs[name].view(np.uint64) for name in ("truth", "predicted")]
    return lambda: words[0].sum() + words[1].sum()


def confusion(inputs, threads):
    truth, predicted, classes = inputs["truth"], inputs["predicted"], inputs["classes"]

    def run():
        kept = truth < classes
        cells = truth[kept].astype(np.int64) * classes + predicted[kept]
        return np.bincount(cells, minlength=classes**2).reshape(classes, classes)

    return run


def augment_moves(inputs, threads):
    """Flips and quarter turns as views, copied once."""
    steps = np.rint(inputs["map"][:, [1, 2, 4, 5]]).astype(int).tolist()
    images, labels = np.empty(inputs["images"].shape, np.uint8), np.empty(inputs["labels"].shape, np.uint8)

    def moved(source, rows, row_of_col, col_of_row, cols):
        if rows == 0:
            source, rows, cols = source.swapaxes(0, 1), col_of_row, row_of_col
        return source[::rows, ::cols]

    def run():
        for i, chip in enumerate(steps):
            images[i] = moved(inputs["images"][i], *chip)
            labels[i] = moved(inputs["labels"][i], *chip)
        return {"images": images, "labels": labels}

    return run


def copy_images_and_labels(inputs, threads):
    """Floor of augment to bytes: copy the images and the labels."""
    pairs = [(np.empty_like(inputs[name]), inputs[name]) for name in ("images", "labels")]

    def run():
        for to, source in pairs:
            np.copyto(to, source)

    return run


def write_batch(inputs, threads):
    """Floor of augment and normalize to float32: write it."""
    out = np.empty(inputs["images"].shape, np.float32)
    return lambda: out.fill(1.5)


def normalize(inputs, threads):
    images, mean, std = inputs["images"], inputs["mean"].astype(np.float32), inputs["std"].astype(np.float32)
    n, rows, cols, bands = images.shape
    planar = inputs["layout"] == "NCHW"
    out = np.empty((n, bands, rows, cols) if planar else images.shape, np.float32)
    view = out.transpose(0, 2, 3, 1) if planar else out

    def run():
        for image, to in zip(images, view):
            for b in range(bands):
                np.subtract(image[..., b], mean[b], out=to[..., b])
                np.multiply(to[..., b], 1 / std[b], out=to[..., b])
        return out

    return run
