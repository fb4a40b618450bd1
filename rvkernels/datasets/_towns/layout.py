"""From a city and a seed to a plan: water, streets, and what lies between them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import shapely
from scipy.spatial import cKDTree
from shapely.geometry import Polygon, box
from shapely.geometry.base import BaseGeometry
from shapely.ops import polygonize, unary_union

from rvkernels.datasets._towns.blocks import fill_block
from rvkernels.datasets._towns.city import City
from rvkernels.datasets._towns.country import fill_country
from rvkernels.datasets._towns.plan import Plan
from rvkernels.datasets._towns.shapes import axes, parts, rectangle, without_holes
from rvkernels.datasets._towns.streets import Crossings, add_avenues, add_streets, add_traffic, street_network
from rvkernels.datasets._towns.water import BANK, add_water, water_body

MARGIN = 40  # pixels drawn around the scene, for what casts its shadow into it


def plan_scene(city: City, number: int, size: int, seed: int) -> Plan:
    """The plan of scene `number` of a city; the same arguments give the same plan."""
    rng = np.random.default_rng([seed, ord(city.name), number, 1])
    frame = box(-MARGIN, -MARGIN, size + MARGIN, size + MARGIN)
    azimuth, elevation = float(rng.uniform(*city.sun_azimuth)), float(rng.uniform(*city.sun_elevation))
    plan = Plan(city, size, MARGIN, rng, azimuth, elevation, _swath(rng, number, size))
    plan.add("ground", frame, plan.grass())

    kind = city.water[number % len(city.water)]
    water = water_body(rng, kind, size).intersection(frame)
    network = street_network(rng, city, size, city.urban[number % len(city.urban)], water, frame)
    streets = network.streets
    _fill(plan, network, water, frame)
    add_water(plan, kind, water)
    crossings = Crossings(streets)
    add_streets(plan, streets, crossings, water)
    add_traffic(plan, streets, crossings, frame)
    add_avenues(plan, streets, crossings)
    _clear_trees(plan, [s.paved for s in streets], water)
    return plan


def _swath(rng, number: int, size: int) -> Polygon:
    """The imaged part of the scene: whole, or in every third scene cut by the tilted edges of a flight strip."""
    swath = box(0, 0, size, size)
    if number % 3 != 1:
        return swath
    middle = np.array((size / 2, size / 2))
    turn = math.radians(float(rng.uniform(3, 10)) * (1 if rng.random() < 0.5 else -1))
    side = int(rng.integers(4))
    for k, depth in ((side, rng.uniform(0.42, 0.47)), (side + 1, rng.uniform(0.46, 0.5))):
        bearing = turn + k * math.pi / 2
        half_plane = rectangle(*(middle - size * (1.5 - depth) * axes(bearing)[0]), bearing, 3 * size, 4 * size)
        swath = swath.intersection(Polygon(half_plane))
    return swath


def _fill(plan: Plan, network, water: BaseGeometry, frame: Polygon) -> None:
    """Fill the faces between streets and water, as blocks of the town or as country."""
    paved = [s.paved for s in network.streets]
    index = shapely.STRtree(paved)
    nearest = cKDTree(network.centres)
    wet = water.buffer(BANK + 4)
    for face in polygonize(unary_union([s.line for s in network.streets] + [frame.boundary])):
        inside = shapely.contains_xy(face, network.centres[:, 0], network.centres[:, 1])
        if not inside.any():
            inside = nearest.query(face.centroid.coords[0])[1]
        fill = fill_block if network.urban[inside].mean() > 0.5 else fill_country
        streets = [paved[i] for i in index.query(face, predicate="intersects")]
        for part in parts(face.difference(unary_union([*streets, wet])), 150):
            for site in without_holes(part):
                fill(plan, site)


def _clear_trees(plan: Plan, streets: Sequence[Polygon], water: BaseGeometry) -> None:
    """Drop crowns that would stand in a building, on a road, in the water or on a car, and those far outside."""
    if not plan.crowns:
        return
    xy = np.array([(c.x, c.y) for c in plan.crowns])
    radius = np.array([c.radius for c in plan.crowns])
    avenue = np.array([c.avenue for c in plan.crowns])
    keep = ((xy > -plan.margin - 8) & (xy < plan.size + plan.margin + 8)).all(1)

    def drop(obstacles: Sequence[BaseGeometry], distance: np.ndarray, which: np.ndarray) -> None:
        """Drop the crowns `which` closer than `distance` to an obstacle."""
        trees = shapely.points(xy[which])
        hit = shapely.STRtree(obstacles).query(trees, predicate="dwithin", distance=distance[which])[0]
        keep[np.flatnonzero(which)[np.unique(hit)]] = False

    every = np.ones(len(xy), bool)
    drop(plan.cover["building"], 0.75 * radius + 0.5, every)
    drop([water], 0.2 * radius, every)
    drop(streets, 0.55 * radius + 0.5, ~avenue)
    drop(plan.cover["road"], 0.5 * radius, ~avenue)
    drop([shape for kind, shape in plan.objects if kind == "car"], 0.5 * radius - 1, avenue)
    plan.crowns = [crown for crown, kept in zip(plan.crowns, keep) if kept]
