"""tifffile, which decodes with imagecodecs."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tifffile


def chips(inputs, threads):
    """The whole image, then slices of it into arrays (rows, cols, bands)."""
    windows = inputs["windows"]
    rows, cols = (int(v) for v in windows[0, 2:])
    out = np.empty((len(windows), rows, cols, inputs["image"].shape[2]), np.uint8)
    workers = threads or os.cpu_count()
    parts = np.array_split(np.arange(len(windows)), workers)
    image = np.empty(inputs["image"].shape, np.uint8)

    def cut(part):
        for i in part.tolist():
            row, col, rows, cols = windows[i].tolist()
            out[i] = image[row : row + rows, col : col + cols]

    def run():
        tifffile.imread(inputs["path"], maxworkers=workers, out=image)
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(cut, parts))
        return out[inputs["compared"]]

    return run
