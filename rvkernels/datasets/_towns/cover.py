"""From a plan to labels in pixels: land cover without gaps or overlaps, visible objects, area of interest."""

from __future__ import annotations

import numpy as np
import shapely
from shapely.geometry import Polygon, box
from shapely.geometry.base import BaseGeometry

from rvkernels.datasets._towns.paint import lobes
from rvkernels.datasets._towns.plan import Plan

# What lies on top of what in the picture, and the class of each.
STACK = (
    ("canopy", "woods"),
    ("building", "building"),
    ("pool", "water"),
    ("road", "road"),
    ("water", "water"),
    ("field", "field"),
)
OVERLAP = 0.02  # pixels that neighbours share, so that rounded coordinates leave no pixel centre between them
LEAST = 0.01  # pixels of area; smaller polygons are splinters
VISIBLE = 0.5  # share of an object that must show for it to be labelled


def _polygons(shape: BaseGeometry, least: float) -> list[Polygon]:
    return [p for p in shapely.get_parts(shape) if p.geom_type == "Polygon" and p.area >= least]


def _canopy(plan: Plan) -> list[Polygon]:
    """Outlines of the crowns as they are painted, beside the inside of the woods."""
    angle = np.linspace(0, 2 * np.pi, 18, endpoint=False)
    crowns = [c for c in plan.crowns if c.canopy]
    rings = np.empty((len(crowns), len(angle), 2))
    for ring, crown in zip(rings, crowns):
        r = crown.radius * lobes(crown.shape, angle)
        ring[:, 0], ring[:, 1] = crown.x + r * np.cos(angle), crown.y + r * np.sin(angle)
    return list(shapely.polygons(rings)) + plan.cover["canopy"]


def land_cover(plan: Plan) -> list[tuple[str, Polygon]]:
    """(class, polygon) that cover the swath of the scene, lowest first; neighbours overlap by OVERLAP pixels."""
    found = []
    above: BaseGeometry = Polygon()
    for layer, name in STACK:
        shapes = _canopy(plan) if layer == "canopy" else plan.cover[layer]
        union = shapely.union_all(shapes).intersection(plan.swath)
        if layer == "canopy":
            union = union.simplify(0.2)
        found.append([(name, p) for p in _polygons(union.difference(above.buffer(-OVERLAP, quad_segs=1)), LEAST)])
        above = above.union(union)
    found.append([("open", p) for p in _polygons(plan.swath.difference(above.buffer(-OVERLAP, quad_segs=1)), LEAST)])
    return [pair for layer in reversed(found) for pair in layer]


def visible_objects(plan: Plan, seen: np.ndarray) -> list[tuple[str, Polygon]]:
    """(kind, footprint inside the swath) of the objects of which at least half shows."""
    labelled = []
    for (kind, shape), share in zip(plan.objects, seen):
        if share >= VISIBLE:
            parts = _polygons(shape.intersection(plan.swath), 1.0)
            labelled += [(kind, max(parts, key=lambda p: p.area))] if parts else []
    return labelled


def area_of_interest(plan: Plan) -> Polygon:
    """The scene without its collar and two pixels beside it."""
    whole = box(0, 0, plan.size, plan.size)
    return whole.difference(whole.difference(plan.swath).buffer(2, join_style="mitre"))
