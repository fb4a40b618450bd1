"""Raster Vision's reader of rasters (rastervision_core), which is rasterio below."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from rastervision.core.box import Box
from rastervision.core.data import RasterioSource


def chips(inputs, threads):
    """Windows into arrays (rows, cols, bands); each thread has a source and a part of the windows."""
    windows = inputs["windows"]
    rows, cols = (int(v) for v in windows[0, 2:])
    out = np.empty((len(windows), rows, cols, inputs["image"].shape[2]), np.uint8)
    workers = threads or os.cpu_count()
    parts = np.array_split(np.arange(len(windows)), workers)

    def read(part):
        source = RasterioSource(inputs["path"])
        for i in part.tolist():
            row, col, rows, cols = windows[i].tolist()
            out[i] = source.get_chip(Box(row, col, row + rows, col + cols))

    def run():
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(read, parts))
        return out[inputs["compared"]]

    return run
