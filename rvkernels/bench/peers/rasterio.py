"""rasterio, which brings a GDAL of its own."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import rasterio.features
from rasterio.transform import Affine
from rasterio.windows import Window


def rasterize(inputs, threads):
    """Polygons as GeoJSON, which it takes faster than shapely's; y points up, as in a map. One thread."""
    starts, values = inputs["ring_start"], inputs["values"].tolist()
    out = np.empty((len(inputs["places"]), inputs["rows"], inputs["cols"]), np.uint8)
    work = []
    for i, (row, col) in enumerate(inputs["places"].tolist()):
        shapes = []
        for p in inputs["hits"][inputs["hit_start"][i] : inputs["hit_start"][i + 1]].tolist():
            ring = (inputs["coords"][starts[p] : starts[p + 1]] * (1.0, -1.0)).tolist()
            shapes.append(({"type": "Polygon", "coordinates": [ring]}, values[p]))
        work.append((shapes, out[i], Affine(1, 0, col, 0, -1, -row)))

    def run():
        for shapes, mask, transform in work:
            mask.fill(0)
            if shapes:
                rasterio.features.rasterize(shapes, out=mask, transform=transform)
        return out

    return run


def polygonize(inputs, threads):
    labels, transform = inputs["labels"], Affine.from_gdal(*inputs["transform"])
    wanted = labels != 0

    def run():
        found = rasterio.features.shapes(labels, wanted, inputs["connectivity"], transform)
        polygons = [geometry["coordinates"] for geometry, _ in found]
        rings = [ring for polygon in polygons for ring in polygon]
        return {"counts": [len(polygons), len(rings), sum(map(len, rings))]}

    return run


def chips(inputs, threads):
    """Windows into arrays (bands, rows, cols); each thread has a dataset and a part of the windows."""
    windows = inputs["windows"]
    rows, cols = (int(v) for v in windows[0, 2:])
    out = np.empty((len(windows), inputs["image"].shape[2], rows, cols), np.uint8)
    workers = threads or os.cpu_count()
    parts = np.array_split(np.arange(len(windows)), workers)
    options = {} if inputs["cache_mb"] is None else {"GDAL_CACHEMAX": inputs["cache_mb"]}

    def read(part):
        with rasterio.Env(**options), rasterio.open(inputs["path"]) as dataset:
            for i in part.tolist():
                row, col, rows, cols = windows[i].tolist()
                dataset.read(window=Window(col, row, cols, rows), out=out[i])

    def run():
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(read, parts))
        return np.moveaxis(out[inputs["compared"]], 1, 3)

    return run


def statistics(inputs, threads):
    def run():
        # Without PAM, or the result would be written beside the file.
        options = {"GDAL_PAM_ENABLED": False, "GDAL_NUM_THREADS": threads or "ALL_CPUS"}
        with rasterio.Env(**options), rasterio.open(inputs["path"]) as dataset:
            found = [dataset.statistics(band, approx=False, clear_cache=True) for band in dataset.indexes]
        return {name: np.array([getattr(band, name) for band in found]) for name in ("min", "max", "mean", "std")}

    return run
