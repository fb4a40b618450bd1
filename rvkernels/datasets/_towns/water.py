"""Rivers and lakes, their shores and the trees along them."""

from __future__ import annotations

import math

import numpy as np
from shapely.geometry import Point, Polygon
from shapely.geometry.base import BaseGeometry

from rvkernels.datasets._towns.plan import Plan
from rvkernels.datasets._towns.shapes import parts, turned, wander
from rvkernels.datasets._towns.things import add_crown

BANK = 4.0  # width of the shore
LEVEL = -4.0  # height of the water


def water_body(rng, kind: str, size: int) -> BaseGeometry:
    """The outline of a scene's "river" or "lake"; empty for ""."""
    if kind == "river":
        bearing = float(rng.uniform(0, math.pi))
        t, offset = wander(rng, 2.2 * size, 0.07 * size, 0.9 * size)
        line = turned(size / 2, size / 2, bearing, t, offset + float(rng.uniform(-0.22, 0.22)) * size)
        half = float(rng.uniform(11, 26))
        width = half * (1 + 0.22 * np.sin(t / rng.uniform(30, 60)) + 0.12 * np.sin(t / rng.uniform(9, 14) + 1))
        along = np.gradient(line, axis=0)
        normal = np.stack((-along[:, 1], along[:, 0]), 1) / np.linalg.norm(along, axis=1, keepdims=True)
        banks = (line + width[:, None] * normal, (line - width[:, None] * normal)[::-1])
        return Polygon(np.concatenate(banks)).buffer(0)
    if kind == "lake":
        x, y = rng.uniform(0.25, 0.75, 2) * size
        angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
        radius = np.ones(90)
        for k in range(2, 7):
            radius += 0.55 / k * rng.uniform(0.3, 1) * np.sin(k * angle + rng.uniform(0, 6.3))
        radius *= float(rng.uniform(0.09, 0.16)) * size
        stretch = float(rng.uniform(1.0, 1.7))
        outline = turned(x, y, rng.uniform(0, math.pi), radius * np.cos(angle) * stretch, radius * np.sin(angle))
        return Polygon(outline).buffer(0)
    return Polygon()


def add_water(plan: Plan, kind: str, water: BaseGeometry) -> None:
    """Paint the water: a shore, shallow and deep parts, and trees along some of the bank."""
    rng = plan.rng
    for body in parts(water, 50):
        shore = "verge" if kind == "river" or rng.random() < 0.5 else "sand"
        plan.add("shore", Polygon(body.buffer(BANK).exterior), shore, plane=(0, 0, -1))
        plan.add("water", body, kind, vary=0.12, plane=(0, 0, LEVEL))
        for part in parts(body.buffer(-5), 20):
            plan.add("deep water", part, "deep " + kind, vary=0.12, plane=(0, 0, LEVEL))
        plan.cover["water"].append(body)
        wooded, phase, wave = rng.uniform(0.2, 0.9), rng.uniform(0, 6.3), rng.uniform(60, 140)
        at = 0.0
        while at < body.exterior.length:
            if math.sin(at / wave + phase) < 2 * wooded - 1:
                r = float(rng.uniform(3.5, 8))
                x, y = _ashore(body, at, rng.uniform(2, 9))
                add_crown(plan, x, y, r, r * rng.uniform(2.2, 3.2))
            at += float(rng.uniform(6, 16))


def _ashore(body: Polygon, at: float, distance: float) -> tuple[float, float]:
    """The point `distance` outside the bank, `at` along it."""
    ring = body.exterior
    p, a, b = (np.array(ring.interpolate(s % ring.length).coords[0]) for s in (at, at - 2, at + 2))
    t = (b - a) / max(np.linalg.norm(b - a), 1e-9)
    n = np.array((-t[1], t[0]))
    return tuple(p + distance * (-n if body.contains(Point(*(p + 2 * n))) else n))
