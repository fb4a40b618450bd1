"""torchgeo's reader of rasters, which is rasterio below."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import rasterio
from torchgeo.datasets import RasterDataset


def chips(inputs, threads):
    """Windows into arrays (bands, rows, cols); each thread has a dataset and a part of the windows."""
    windows = inputs["windows"]
    rows, cols = (int(v) for v in windows[0, 2:])
    out = np.empty((len(windows), inputs["image"].shape[2], rows, cols), np.uint8)
    workers = threads or os.cpu_count()
    parts = np.array_split(np.arange(len(windows)), workers)
    with rasterio.open(inputs["path"]) as dataset:
        places = dataset.transform

    def read(part):
        dataset = RasterDataset(inputs["path"], cache=True)
        _, _, times = dataset.bounds
        for i in part.tolist():
            row, col, rows, cols = windows[i].tolist()
            (west, north), (east, south) = places @ (col, row), places @ (col + cols, row + rows)
            out[i] = dataset[west:east, south:north, times]["image"].numpy()

    def run():
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(read, parts))
        return np.moveaxis(out[inputs["compared"]], 1, 3)

    return run
