"""GeoJSON labels to masks: documents with values replaced, nested, left out, and bytes damaged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from run import clear

from rvkernels import labels
from rvkernels.scene import Scene

CLASSES = ["ground", {"name": "roof", "aliases": ["house", ""]}, "road"]
JUNK = (None, True, -1, 0, 3, 1e308, -1e308, 1e-320, 2**40, "", "Polygon", "roof", [], {}, [[]], [[[]]], [1], [1, 2])
JUNK += (float("nan"), float("inf"), [[0, 0], [1, 1]], {"type": "Point", "coordinates": [1, 2]}, {"type": "Feature"})


def ring(rng: np.random.Generator) -> list:
    """A closed ring: mostly a star around a point, at times on pixel edges, far away, or crossing itself."""
    n = int(rng.integers(3, 9))
    angle = np.sort(rng.uniform(0, 2 * np.pi, n)) if rng.integers(0, 4) else rng.uniform(0, 2 * np.pi, n)
    radius = rng.uniform(0, 10.0 ** rng.integers(-3, 4), n)
    points = rng.uniform(-10, 50, 2) + np.stack([np.cos(angle), np.sin(angle)], 1) * radius[:, None]
    if rng.integers(0, 3) == 0:
        points = np.round(points * 2) / 2
    return [*points.tolist(), points[0].tolist()]


def geometry(rng: np.random.Generator, depth: int = 0) -> dict | None:
    kind = rng.integers(0, 9 if depth < 2 else 7)
    if kind == 0:
        return {"type": "Point", "coordinates": rng.uniform(-5, 50, rng.integers(2, 4)).tolist()}
    if kind == 1:
        return {"type": "LineString", "coordinates": ring(rng)}
    if kind == 2:
        return {"type": "MultiPoint", "coordinates": ring(rng)}
    if kind == 3:
        return {"type": "MultiPolygon", "coordinates": [[ring(rng)] for _ in range(rng.integers(0, 3))]}
    if kind == 8:
        return {"type": "GeometryCollection", "geometries": [geometry(rng, depth + 1) for _ in range(2)]}
    if kind == 7:
        return None
    return {"type": "Polygon", "coordinates": [ring(rng) for _ in range(rng.integers(1, 3))]}


def document(rng: np.random.Generator) -> dict:
    properties = [{"class_name": "roof"}, {"class_id": 2}, {"label": "house"}, {}, None]
    features = [
        {"type": "Feature", "properties": properties[rng.integers(0, 5)], "geometry": geometry(rng)}
        for _ in range(rng.integers(0, 6))
    ]
    return {"type": "FeatureCollection", "crs": None, "features": features}


def replaced(rng: np.random.Generator, value: object) -> object:
    """The value with one place inside it, chosen by chance, replaced by junk or left out."""
    if not isinstance(value, (dict, list)) or len(value) == 0 or rng.integers(0, 6) == 0:
        return JUNK[rng.integers(0, len(JUNK))]
    if isinstance(value, dict):
        key = list(value)[rng.integers(0, len(value))]
        if rng.integers(0, 10) == 0:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: replaced(rng, value[key])}
    at = int(rng.integers(0, len(value)))
    if rng.integers(0, 10) == 0:
        return [*value[:at], *value[at + 1 :]]
    return [*value[:at], replaced(rng, value[at]), *value[at + 1 :]]


def round(rng: np.random.Generator, folder: Path) -> None:
    made = document(rng)
    for _ in range(rng.integers(0, 4)):
        made = replaced(rng, made)
    data = bytearray(json.dumps(made).encode())
    if rng.integers(0, 4) == 0 and data:
        data[rng.integers(0, len(data))] = rng.integers(0, 256)
    path = folder / "labels.geojson"
    path.write_bytes(data)
    rows, cols = (int(n) for n in rng.integers(1, 60, 2))
    has_aoi = {"aoi": str(path)} if rng.integers(0, 4) == 0 else {}
    scene = Scene("s", ("image.tif",), rows, cols, 3, "uint8", labels=str(path), **has_aoi)
    corners = np.concatenate([rng.integers(-20, 60, (3, 2)), np.tile(rng.integers(1, 40, 2), (3, 1))], 1)
    options = {"background": "ground", "all_touched": bool(rng.integers(0, 2)), "threads": int(rng.integers(1, 3))}
    found = clear(lambda: labels.SceneMasks(scene, CLASSES, **options).read(corners))
    if found is not None:
        assert found.shape == (3, *corners[0, 2:])
        assert np.isin(found, [0, 1, 2, 255]).all()
