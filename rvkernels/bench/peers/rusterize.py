"""rusterize: rasterising in Rust."""

import os

import numpy as np
from rusterize import rusterize

_CORES = sorted(os.sched_getaffinity(0))


def _threads(threads):
    """Its pool of threads is made once, with as many as there are cores: fewer share fewer cores."""
    for task in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(task), _CORES[: threads or len(_CORES)])


def rasterize(inputs, threads):
    """The whole scene from WKB, into a new array, since it takes none; y points up, as in a map."""
    starts, rows, cols = inputs["ring_start"], inputs["rows"], inputs["cols"]
    polygons = []
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist()):
        head = np.array([1], "u1").tobytes() + np.array([3, 1, end - begin], "<u4").tobytes()
        polygons.append(head + (inputs["coords"][begin:end] * (1.0, -1.0)).astype("<f8").tobytes())
    values = np.array(inputs["values"])
    options = {"burn": values, "fun": "last", "background": 0, "encoding": "numpy", "dtype": "uint8"}

    def run():
        _threads(threads)
        return rusterize(polygons, out_shape=(rows, cols), extent=(0.0, -float(rows), float(cols), 0.0), **options)

    return run
