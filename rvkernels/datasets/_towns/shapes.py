"""Small geometry in pixels: x right, y down, bearings in radians from x towards y."""

from __future__ import annotations

import math

import numpy as np
import shapely
from shapely.geometry import LineString, Polygon
from shapely.geometry.base import BaseGeometry
from shapely.ops import split


def axes(bearing: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors along and across a bearing (radians from x towards y)."""
    u = np.array((math.cos(bearing), math.sin(bearing)))
    return u, np.array((-u[1], u[0]))


def beside(x: float, y: float, bearing: float, offset: float) -> tuple[float, float]:
    """The point `offset` pixels to the right of (x, y) for who looks along `bearing`."""
    return x - offset * math.sin(bearing), y + offset * math.cos(bearing)


def rectangle(x: float, y: float, bearing: float, length: float, width: float) -> np.ndarray:
    """(4, 2) corners around the centre; `length` runs along `bearing` (radians from x towards y)."""
    u, v = axes(bearing)
    u, v, c = u * length / 2, v * width / 2, np.array((x, y))
    return np.array((c - u - v, c + u - v, c + u + v, c - u + v))


def parts(shape: BaseGeometry, least: float) -> list[Polygon]:
    """Polygons of a geometry that are larger than `least`."""
    return [p for p in shapely.get_parts(shape) if p.geom_type == "Polygon" and p.area > least]


def without_holes(site: Polygon) -> list[Polygon]:
    """Pieces of a polygon, cut through its holes so that none has one."""
    if not site.interiors:
        return [site]
    x, y = Polygon(site.interiors[0]).centroid.coords[0]
    x0, _, x1, _ = site.bounds
    knife = LineString(((x0 - 1, y - 0.1 * (x - x0)), (x1 + 1, y + 0.1 * (x1 - x))))
    return [q for p in split(site, knife).geoms if p.geom_type == "Polygon" for q in without_holes(p)]


def extent(site: Polygon) -> tuple[np.ndarray, float, float, float]:
    """Centre, bearing of the long side, length and width of the smallest rectangle around a polygon."""
    corners = np.array(site.minimum_rotated_rectangle.exterior.coords)[:4]
    a, b = corners[1] - corners[0], corners[3] - corners[0]
    if np.linalg.norm(a) < np.linalg.norm(b):
        a, b = b, a
    return corners.mean(0), math.atan2(a[1], a[0]), float(np.linalg.norm(a)), float(np.linalg.norm(b))


def wander(rng, length: float, amplitude: float, wave: float, step: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """(t, offset) of a smooth random curve."""
    t = np.arange(-length / 2, length / 2 + step, step)
    offset = np.zeros_like(t)
    for k in range(1, 4):
        offset += amplitude / k * np.sin(2 * np.pi * t * k / (wave * rng.uniform(0.8, 1.3)) + rng.uniform(0, 6.3))
    return t, offset


def scatter(rng, site: Polygon, per_pixel: float) -> np.ndarray:
    """(n, 2) random points in a polygon."""
    if site.is_empty:
        return np.zeros((0, 2))
    x0, y0, x1, y1 = site.bounds
    n = int(rng.poisson((x1 - x0) * (y1 - y0) * per_pixel))
    xy = rng.uniform((x0, y0), (x1, y1), (n, 2))
    return xy[shapely.contains_xy(site, xy[:, 0], xy[:, 1])]


def cut(rng, site: Polygon, target: float, crooked: float, depth: int = 0) -> list[Polygon]:
    """Parcels of about `target` pixels, cut across the longer side again and again."""
    if site.area < 1.5 * target or depth > 7:
        return [site]
    c, bearing, length, _ = extent(site)
    at = c + rng.uniform(-0.16, 0.16) * length * axes(bearing)[0]
    across = bearing + math.pi / 2 + rng.normal(0, crooked)
    t, offset = wander(rng, 6 * length, 16 * crooked, 500, 25)
    d, n = axes(across)
    knife = LineString(at + t[:, None] * d + offset[:, None] * n)
    pieces = [p for p in split(site, knife).geoms if p.geom_type == "Polygon"]
    if len(pieces) < 2:
        return [site]
    return [q for p in pieces for q in cut(rng, p, target * float(rng.uniform(0.7, 1.4)), crooked, depth + 1)]


def roughened(rng, x: float, y: float, radius: float, amount: float) -> Polygon:
    """A disc with an uneven edge."""
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    ring = np.stack((x + radius * np.cos(angle), y + radius * np.sin(angle)), 1) + rng.normal(0, amount, (16, 2))
    return Polygon(ring).buffer(0)


def turned(x: float, y: float, bearing: float, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """(n, 2) points from distances along and across a bearing through (x, y)."""
    u, v = axes(bearing)
    return np.array((x, y)) + along[:, None] * u + across[:, None] * v
