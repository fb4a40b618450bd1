"""rasterio, which brings a GDAL of its own."""

import numpy as np
import rasterio.features
from rasterio.transform import Affine


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
