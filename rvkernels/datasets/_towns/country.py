"""What lies between the roads outside the town: fields, woods, meadows, bare ground."""

from __future__ import annotations

import math

import numpy as np
import shapely
from shapely.geometry import Polygon

from rvkernels.datasets._towns.city import MATERIALS
from rvkernels.datasets._towns.plan import Plan, Rows, pick
from rvkernels.datasets._towns.shapes import axes, cut, extent, parts, roughened, scatter, turned, wander
from rvkernels.datasets._towns.things import add_crown, scatter_trees, shifted

DRILLED = ("green cereal", "ripe cereal", "young crop")  # with wheel tracks at the width of the sprayer


def fill_country(plan: Plan, site: Polygon) -> None:
    """Cut the land between roads into parcels and give each a use."""
    rng, city = plan.rng, plan.city
    for parcel in cut(rng, Polygon(site.exterior), float(rng.uniform(*city.parcel)), city.crooked):
        kind = pick(rng, city.land)
        if parcel.area < 2500:
            kind = "wood" if rng.random() < 0.35 else "meadow"
        {"field": _field, "wood": _wood, "meadow": _meadow, "bare": bare_ground}[kind](plan, parcel)


def _field(plan: Plan, parcel: Polygon) -> None:
    """A crop in rows, across at the ends where the tractor turns; a strip of grass around, perhaps a hedge."""
    rng, city = plan.rng, plan.city
    plan.add("ground", parcel, "verge")
    crop = pick(rng, [(c, c.weight) for c in city.crops])
    for inner in parts(parcel.buffer(-float(rng.uniform(2.5, 5)), join_style="mitre"), 1500)[:1]:
        inner = Polygon(inner.exterior)
        bearing = extent(inner)[1] + rng.choice([0.0, 0.0, 0.0, math.pi / 2]) + rng.normal(0, 0.03)
        period, contrast = float(rng.uniform(*crop.period)), float(rng.uniform(*crop.contrast))
        tone = shifted(rng, MATERIALS[crop.material].colour, 0.10, 0.06)
        headland = float(rng.uniform(9, 16)) if crop.material not in ("vines", "orchard") else 0.0
        tram = int(rng.integers(6, 11)) if crop.material in DRILLED else 0
        plan.cover["field"].append(inner)
        across = Rows(bearing + math.pi / 2, period, contrast)
        plan.add("parcel", inner, crop.material, colour=tone, vary=0.0, rows=across)
        rows = Rows(bearing, period, contrast, tram)
        for part in parts(inner.buffer(-headland, join_style="mitre"), 800):
            plan.add("crop", part, crop.material, colour=tone, vary=0.02, rows=rows)
        if crop.material == "orchard":
            _orchard(plan, inner.buffer(-4), bearing, period)
    if rng.random() < city.hedges:
        _hedgerow(plan, parcel)


def _orchard(plan: Plan, site, bearing: float, period: float) -> None:
    """Small crowns on a grid; they belong to the field."""
    rng = plan.rng
    if site.is_empty:
        return
    c = extent(site)[0]
    u, v = axes(bearing)
    reach = math.hypot(site.bounds[2] - site.bounds[0], site.bounds[3] - site.bounds[1]) / 2
    radius = float(rng.uniform(0.26, 0.38)) * period
    s, t = np.meshgrid(np.arange(-reach, reach, period), np.arange(-reach, reach, period * rng.uniform(0.75, 1.1)))
    xy = c + s.reshape(-1, 1) * v + t.reshape(-1, 1) * u
    xy = xy[shapely.contains_xy(site, xy[:, 0], xy[:, 1])]
    xy = xy[rng.random(len(xy)) > 0.05]
    for x, y in xy + rng.normal(0, 0.4, xy.shape):
        r = radius * float(rng.uniform(0.75, 1.15))
        add_crown(plan, x, y, r, r * 1.6, colour=plan.city.crowns[0][0], canopy=False)


def _hedgerow(plan: Plan, parcel: Polygon) -> None:
    """Crowns in a line along part of a parcel's boundary."""
    rng, ring = plan.rng, parcel.exterior
    start, end = float(rng.uniform(0, ring.length)), float(rng.uniform(0.25, 0.7)) * ring.length
    largest = 6.5 if rng.random() < 0.5 else 3.6
    at = 0.0
    while at < end:
        x, y = np.array(ring.interpolate((start + at) % ring.length).coords[0]) + rng.normal(0, 0.8, 2)
        r = float(rng.uniform(2.4, largest))
        add_crown(plan, x, y, r, r * float(rng.uniform(1.4, 2.4)))
        at += r * float(rng.uniform(0.9, 1.7)) if rng.random() < 0.93 else float(rng.uniform(10, 30))


def _wood(plan: Plan, parcel: Polygon) -> None:
    """Crowns close together, of a main species and others."""
    rng, city = plan.rng, plan.city
    plan.add("ground", parcel, "verge")
    stand = parcel.buffer(-float(rng.uniform(5, 9)))
    if stand.is_empty:
        return
    power = rng.uniform(0.5, 3)
    species = [(colour, weight**power) for colour, weight in city.crowns]
    mean = float(rng.uniform(5.0, 7.5))
    beat = 1.25 * mean
    x0, y0, x1, y1 = stand.bounds
    s, t = np.meshgrid(np.arange(x0, x1, beat), np.arange(y0, y1, beat * 0.87))
    s = s + (np.arange(len(s)) % 2)[:, None] * beat / 2
    xy = np.stack((s.ravel(), t.ravel()), 1) + rng.normal(0, 0.22 * beat, (s.size, 2))
    inside = shapely.contains_xy(stand, xy[:, 0], xy[:, 1])
    for x, y in xy[inside & (rng.random(len(xy)) > 0.04)]:
        r = mean * float(np.clip(np.exp(rng.normal(0, 0.24)), 0.55, 1.5))
        add_crown(plan, x, y, r, 20 + r * float(rng.uniform(1.2, 2.2)), colour=pick(rng, species))
    plan.cover["canopy"] += parts(stand.buffer(-mean * 0.6), 40)


def _meadow(plan: Plan, parcel: Polygon) -> None:
    """Grass without rows, in patches, with single trees."""
    rng = plan.rng
    plan.add("ground", parcel, plan.grass(), vary=0.14)
    for x, y in scatter(rng, parcel, 0.0003):
        patch = roughened(rng, x, y, float(rng.uniform(8, 32)), 2.5).intersection(parcel)
        for part in parts(patch, 20)[:1]:
            plan.add("parcel", part, plan.grass(), vary=0.12)
    scatter_trees(plan, parcel.buffer(-6), float(rng.uniform(0.00008, 0.0005)), (3.5, 8.5))
    if rng.random() < plan.city.hedges * 0.7:
        _hedgerow(plan, parcel)


def bare_ground(plan: Plan, site: Polygon) -> None:
    """Bare ground without rows: a building site, a dirt lot; open ground the colour of tiles and ploughed fields."""
    rng = plan.rng
    plan.add("ground", site, plan.grass())
    soil = pick(rng, ((plan.city.soil, 2.0), ("soil", 1.0), ("dark soil", 0.5)))
    spots = (("dry grass", 1.0), ("meadow", 0.7), (soil, 1.5), ("sand", 0.5))
    for part in parts(site.buffer(-4), 200)[:1]:
        plan.add("parcel", part, soil, vary=0.12)
        for _ in range(int(rng.integers(2, 7))):  # wheel tracks
            x, y = np.array(part.centroid.coords[0]) + rng.normal(0, 30, 2)
            t, offset = wander(rng, 220, 12, 420)
            line = shapely.LineString(turned(x, y, rng.uniform(0, math.pi), t, offset))
            for side in (-1.8, 1.8):
                for rut in parts(line.offset_curve(side).buffer(0.7).intersection(part), 10):
                    plan.add("crop", rut, "dark soil" if rng.random() < 0.5 else "sand")
        for x, y in scatter(rng, part, 0.0006):
            patch = roughened(rng, x, y, float(rng.uniform(2, 12)), 1.2).intersection(part)
            for piece in parts(patch, 4)[:1]:
                plan.add("crop", piece, pick(rng, spots), vary=0.12)
    scatter_trees(plan, site, 0.0003)
