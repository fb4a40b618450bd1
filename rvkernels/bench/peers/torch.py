"""PyTorch on the CPU, with the number of threads that a case asks for."""

import os

import numpy as np
import torch


def _threads(threads):
    torch.set_num_threads(threads or os.cpu_count())


def iou(inputs, threads):
    """The formula of torchvision's box_iou."""
    _threads(threads)
    a, b = (torch.from_numpy(np.array(inputs[name])) for name in "ab")

    def run():
        sides = (torch.min(a[:, None, 2:], b[:, 2:]) - torch.max(a[:, None, :2], b[:, :2])).clamp_(min=0)
        inter = sides[..., 0] * sides[..., 1]
        areas = [(x[:, 2] - x[:, 0]) * (x[:, 3] - x[:, 1]) for x in (a, b)]
        return (inter / (areas[0][:, None] + areas[1] - inter)).numpy()

    return run


def add_chips(inputs, threads):
    _threads(threads)
    chips = torch.from_numpy(np.array(inputs["chips"]))  # in memory of its own, as the kernel has them
    size, classes = chips.shape[2:]
    weights = torch.from_numpy(np.repeat(inputs["weights"][..., None], classes, 2))
    sums = np.zeros((*inputs["shape"], classes), np.float32)
    canvas = torch.from_numpy(sums)
    places = [canvas[r : r + size, c : c + size] for r, c in zip(inputs["row"].tolist(), inputs["col"].tolist())]

    def run():
        for place, chip in zip(places, chips):
            place.addcmul_(weights, chip)
        return sums

    return run


def argmax(inputs, threads):
    _threads(threads)
    sums = torch.from_numpy(np.array(inputs["sums"]))
    return lambda: sums.argmax(2).numpy()


def confusion(inputs, threads):
    _threads(threads)
    truth, predicted = (torch.from_numpy(np.array(inputs[name])) for name in ("truth", "predicted"))
    classes = inputs["classes"]

    def run():
        kept = truth < classes
        cells = truth[kept].long() * classes + predicted[kept]
        return torch.bincount(cells, minlength=classes**2).reshape(classes, classes).numpy()

    return run


def normalize(inputs, threads):
    """One kernel for all steps, by the compiler; it has no place for a given output."""
    _threads(threads)
    images = torch.from_numpy(np.array(inputs["images"]))
    mean, inverse = (torch.from_numpy(values.astype(np.float32)) for values in (inputs["mean"], 1 / inputs["std"]))
    planar = inputs["layout"] == "NCHW"

    def steps(images):
        values = (images.to(torch.float32) - mean) * inverse
        return values.permute(0, 3, 1, 2).contiguous() if planar else values

    compiled = torch.compile(steps)
    return lambda: compiled(images).numpy()
