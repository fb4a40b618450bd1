"""osgeo.gdal: GDAL through its own bindings. Each call works on one thread; independent calls share a pool."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from osgeo import gdal, gdal_array, ogr

gdal.UseExceptions()
ogr.UseExceptions()
gdal.PushErrorHandler("CPLQuietErrorHandler")  # RasterizeLayer warns that layer and raster have no CRS


def rasterize(inputs, threads):
    """A layer per window that holds the polygons there, burned into one array. y points up, as in a map."""
    wkb = ogr.CreateGeometryFromWkb
    memory = ogr.GetDriverByName("Memory")
    starts, values = inputs["ring_start"], inputs["values"]
    out = np.empty((len(inputs["places"]), inputs["rows"], inputs["cols"]), np.uint8)
    work = []
    for i, (row, col) in enumerate(inputs["places"].tolist()):
        source = memory.CreateDataSource("")
        layer = source.CreateLayer("", geom_type=ogr.wkbPolygon)
        layer.CreateField(ogr.FieldDefn("value", ogr.OFTInteger))
        for p in inputs["hits"][inputs["hit_start"][i] : inputs["hit_start"][i + 1]].tolist():
            corners = inputs["coords"][starts[p] : starts[p + 1]] * (1.0, -1.0)
            head = np.array([1], "u1").tobytes() + np.array([3, 1, len(corners)], "<u4").tobytes()
            feature = ogr.Feature(layer.GetLayerDefn())
            feature["value"] = int(values[p])
            feature.SetGeometry(wkb(head + corners.astype("<f8").tobytes()))
            layer.CreateFeature(feature)
        raster = gdal_array.OpenArray(out[i])
        raster.SetGeoTransform((col, 1, 0, -row, 0, -1))
        work.append((source, layer, raster, out[i]))

    def burn(item):
        _, layer, raster, mask = item
        mask.fill(0)
        gdal.RasterizeLayer(raster, [1], layer, options=["ATTRIBUTE=value"])

    pool = ThreadPoolExecutor(threads or os.cpu_count())

    def run():
        if threads == 1:
            for item in work:
                burn(item)
        else:
            list(pool.map(burn, work))
        return out

    return run


def polygonize(inputs, threads):
    # A raster in memory, as the kernel has it. The raster is its own mask: 0 is the background.
    image = gdal_array.OpenArray(np.array(inputs["labels"]))
    image.SetGeoTransform(inputs["transform"])
    options = ["8CONNECTED=8"] if inputs["connectivity"] == 8 else []

    def run():
        vectors = ogr.GetDriverByName("Memory").CreateDataSource("")
        layer = vectors.CreateLayer("", None, ogr.wkbPolygon)
        layer.CreateField(ogr.FieldDefn("value", ogr.OFTInteger))
        band = image.GetRasterBand(1)
        gdal.Polygonize(band, band, layer, 0, options)
        found = [(feature.GetField(0), bytes(feature.GetGeometryRef().ExportToWkb())) for feature in layer]
        start = np.cumsum([0, *(len(wkb) for _, wkb in found)])
        wkb = np.frombuffer(b"".join(wkb for _, wkb in found), np.uint8)
        return {"values": np.array([value for value, _ in found], np.uint8), "wkb": wkb, "wkb_start": start}

    return run


DEFAULT_CACHE = gdal.GetCacheMax()


def chips(inputs, threads):
    """Windows into arrays (bands, size, size), resampled to that; each thread has a dataset and its windows."""
    windows, size = inputs["windows"], inputs["size"]
    out = np.empty((len(windows), inputs["image"].shape[2], size, size), np.uint8)
    workers = threads or os.cpu_count()
    parts = np.array_split(np.arange(len(windows)), workers)
    cache = DEFAULT_CACHE if inputs["cache_mb"] is None else inputs["cache_mb"] << 20

    def read(part):
        dataset = gdal.Open(inputs["path"])
        for i in part.tolist():
            row, col, rows, cols = windows[i].tolist()
            dataset.ReadAsArray(col, row, cols, rows, buf_obj=out[i], resample_alg=gdal.GRIORA_Bilinear)

    def run():
        gdal.SetCacheMax(cache)
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(read, parts))
        return np.moveaxis(out[inputs["compared"]], 1, 3)

    return run


def statistics(inputs, threads):
    """What gdalinfo -stats does: all values of each band, exactly. Threads decode, but GDAL counts on one."""
    gdal.SetConfigOption("GDAL_PAM_ENABLED", "NO")  # or the result would be written beside the file
    options = [f"NUM_THREADS={threads or 'ALL_CPUS'}"]

    def run():
        gdal.SetCacheMax(DEFAULT_CACHE)
        dataset = gdal.OpenEx(inputs["path"], gdal.OF_RASTER, open_options=options)
        bands = [dataset.GetRasterBand(band + 1) for band in range(dataset.RasterCount)]
        found = np.array([band.ComputeStatistics(False) for band in bands])
        return dict(zip(("min", "max", "mean", "std"), found.T))

    return run


def histogram(inputs, threads):
    """What gdalinfo -hist does for bytes, here of all values."""
    gdal.SetConfigOption("GDAL_PAM_ENABLED", "NO")
    options = [f"NUM_THREADS={threads or 'ALL_CPUS'}"]

    def run():
        gdal.SetCacheMax(DEFAULT_CACHE)
        dataset = gdal.OpenEx(inputs["path"], gdal.OF_RASTER, open_options=options)
        bands = [dataset.GetRasterBand(band + 1) for band in range(dataset.RasterCount)]
        return np.array([band.GetHistogram(-0.5, 255.5, 256, False, False) for band in bands])

    return run
