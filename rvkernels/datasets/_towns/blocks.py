"""What stands on a block between town streets: houses, flats, shops, works, parks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry import LineString, Point, Polygon
from shapely.ops import unary_union

from rvkernels.datasets._towns.city import Colour
from rvkernels.datasets._towns.country import bare_ground
from rvkernels.datasets._towns.plan import Plan, Rows, pick
from rvkernels.datasets._towns.shapes import axes, cut, extent, parts, rectangle, scatter, wander
from rvkernels.datasets._towns.things import STOREY, add_car, add_crown, add_flat, add_house, add_shed, scatter_trees

QUARTER = math.pi / 2
PAVINGS = tuple((m, 1.0) for m in ("concrete", "red paving", "asphalt", "gravel", "pavement"))
GARDEN_SHEDS = (("brown tile", 1.0), ("grey metal", 1.0), ("bitumen", 1.0), ("terracotta", 0.5))
WORKS_ROOFS = (("grey metal", 1.0), ("blue metal", 0.4), ("brown tile", 0.3), ("slate", 0.5), ("terracotta", 0.2))
YARDS = (("concrete", 1.0), ("asphalt", 1.0), ("gravel", 0.6))
CONTAINERS: tuple[tuple[Colour, float], ...] = (
    ((0.30, 0.09, 0.06, 0.32), 1.0),
    ((0.06, 0.12, 0.25, 0.18), 1.0),
    ((0.30, 0.30, 0.29, 0.31), 1.0),
    ((0.10, 0.20, 0.12, 0.22), 1.0),
    ((0.34, 0.20, 0.06, 0.36), 1.0),
)


def fill_block(plan: Plan, site: Polygon) -> None:
    """Give a block a use; very large ones are cut first, very small ones get trees."""
    if site.area > 52000:
        for part in cut(plan.rng, site, 30000.0, 0.05):
            fill_block(plan, part)
        return
    if site.area < 3500 or extent(site)[3] < 45:
        plan.add("ground", site, plan.grass())
        scatter_trees(plan, site, 0.004)
        return
    kind = pick(plan.rng, plan.city.blocks)
    if kind in ("shops", "works", "slabs") and site.area < 9000:
        kind = "houses"
    uses = {"houses": _houses, "slabs": _slabs, "shops": _shops, "works": _works, "park": _park, "bare": bare_ground}
    uses[kind](plan, Polygon(site.exterior))


def _free(site, shape: Polygon, built: list[Polygon], gap: float = 0.0) -> bool:
    """Whether a shape lies in the site and `gap` pixels from everything built."""
    wide = shape.buffer(gap) if gap else shape
    return site.contains(shape) and not any(wide.intersects(other) for other in built)


# ---------------------------------------------------------------- houses


@dataclass(frozen=True)
class Plot:
    """A piece of a block's edge: middle of the street side, unit vectors along it and inwards."""

    middle: np.ndarray
    along: np.ndarray
    inward: np.ndarray
    width: float
    reach: float  # depth
    setback: float  # from the street to the house

    def at(self, sideways: float, deep: float) -> np.ndarray:
        return self.middle + sideways * self.along + deep * self.inward

    @property
    def bearing(self) -> float:
        return math.atan2(self.along[1], self.along[0])

    def rectangle(self, sideways: float, deep: float, length: float, width: float, turn: float = 0.0) -> Polygon:
        """A rectangle around a point of the plot; `length` along the street unless turned."""
        return Polygon(rectangle(*self.at(sideways, deep), self.bearing + turn, length, width))


def _front(site: Polygon, at: float, width: float, reach: float, setback: float) -> Plot | None:
    """The plot around a place on the boundary, or None where the boundary bends."""
    ring = site.exterior
    a, m, b = (np.array(ring.interpolate(s % ring.length).coords[0]) for s in (at - width / 2, at, at + width / 2))
    gap = float(np.linalg.norm(b - a))
    if gap < 0.985 * width or np.linalg.norm((a + b) / 2 - m) > 1.5:
        return None
    t = (b - a) / gap
    n = np.array((-t[1], t[0]))
    return Plot(m, t, n if site.contains(Point(*(m + 4 * n))) else -n, width, reach, setback)


def _houses(plan: Plan, site: Polygon) -> None:
    """Houses face the streets around the block; gardens, drives and sheds behind."""
    rng, city = plan.rng, plan.city
    site = site.simplify(0.6)
    shapely.prepare(site)
    plan.add("ground", site, plan.grass())
    usual_depth = float(rng.uniform(16, 21))
    reach = min(70.0, 0.46 * extent(site)[3])
    setback = float(rng.uniform(*city.setback))
    if reach < setback + 0.8 * usual_depth:
        setback = max(2.0, reach - usual_depth)
    storeys = float(rng.choice([1.0, 1.5, 2.0], p=[0.35, 0.4, 0.25]))
    built: list[Polygon] = []
    at = float(rng.uniform(0, 20))
    end = at + site.exterior.length - 10
    while at < end:
        terrace = rng.random() < city.terraces
        if terrace:
            width = float(rng.uniform(12, 16)) * int(rng.integers(3, 7)) + 8
        else:
            width = float(rng.uniform(*city.plot))
        plot = _front(site, at + width / 2, width, reach, setback)
        if plot is None or not _house(plan, site, built, plot, usual_depth, storeys, terrace):
            at += 6
            continue
        at += width + (float(rng.uniform(0, 10)) if rng.random() < 0.2 else 0.0)
    scatter_trees(plan, site, float(rng.uniform(0.0004, 0.0022)), (2.5, 6.5))


def _house(plan: Plan, site, built: list[Polygon], plot: Plot, depth: float, storeys: float, terrace: bool) -> bool:
    """Put a house, or a row of them, on a plot with all that belongs to it; False when there is no room."""
    rng, city = plan.rng, plan.city
    depth *= float(rng.uniform(0.9, 1.12))
    length = plot.width - 8 if terrace else min(plot.width - 7, float(rng.uniform(18, 27)))
    sideways = 0.0 if terrace else float(rng.uniform(-0.5, 0.5)) * max(plot.width - length - 9, 0)
    deep = plot.setback + depth / 2 + rng.normal(0, 0.6 if terrace else 1.5)
    if length < 13 or not _free(site, plot.rectangle(sideways, deep, length + 3, depth + 3), built):
        return False
    x, y = plot.at(sideways, deep)
    if not terrace and length < 24 and rng.random() < 0.25:
        box = (x, y, plot.bearing + QUARTER, depth, length)
    else:
        box = (x, y, plot.bearing, length, depth)
    if not terrace and rng.random() < 0.2:
        storeys = 1.0
    house = add_house(plan, box, storeys, not terrace and rng.random() < city.hips)
    built.append(house)
    garden = plot.rectangle(0, plot.reach / 2, plot.width, plot.reach).intersection(site)
    for part in parts(garden, 1)[:1]:
        plan.add("parcel", part, plan.grass(), vary=0.16)
    _hedges(plan, site, plot)
    if terrace:
        _forecourt(plan, site, plot, length)
    else:
        if rng.random() < 0.75:
            _drive(plan, site, built, plot, sideways, length, depth)
        _garden(plan, site, built, plot, house, sideways, deep + depth / 2)
    return True


def _hedges(plan: Plan, site, plot: Plot) -> None:
    """Hedges and fences; low, so they are part of the garden."""
    rng = plan.rng
    inner = site.buffer(-1)
    for side in (-1, 1):
        if rng.random() < 0.6:
            x = side * plot.width / 2
            strip = LineString((plot.at(x, 1.5), plot.at(x, plot.reach))).intersection(inner)
            half, kind, height = (1.1, "hedge", 3.0) if rng.random() < 0.55 else (0.35, "brown tile", 2.5)
            if strip.geom_type == "LineString" and strip.length > 8:
                plan.add("furniture", strip.buffer(half, cap_style="flat"), kind, vary=0.15, plane=(0, 0, height))
    if rng.random() < 0.3:
        strip = LineString((plot.at(7 - plot.width / 2, 1.5), plot.at(plot.width / 2 - 1, 1.5)))
        plan.add("furniture", strip.buffer(1.0, cap_style="flat"), "hedge", vary=0.15, plane=(0, 0, 2.2))


def _forecourt(plan: Plan, site, plot: Plot, length: float) -> None:
    """Paved ground before a terrace, with cars when it is deep enough."""
    rng = plan.rng
    if plot.setback < 5 or rng.random() < 0.5:
        return
    middle = plot.setback / 2 + 0.5
    for yard in parts(plot.rectangle(0, middle, length, plot.setback + 1).intersection(site), 1)[:1]:
        plan.pave("pavement", yard, pick(rng, PAVINGS))
        if plot.setback > 11:
            for x in np.arange(4 - length / 2, length / 2 - 3, 6.5):
                if rng.random() < 0.5:
                    add_car(plan, *plot.at(x, middle), plot.bearing + QUARTER + rng.normal(0, 0.04))


def _drive(plan: Plan, site, built: list[Polygon], plot: Plot, sideways: float, length: float, depth: float) -> None:
    """A drive on the roomier side of the house, perhaps with a garage behind and a car on it."""
    rng = plan.rng
    x = sideways + (1 if sideways < 0 else -1) * (length / 2 + 3.6)
    end = plot.setback + depth * float(rng.uniform(0.3, 1.1))
    drive = plot.rectangle(x, end / 2 - 1, end + 2, 5.6, QUARTER)
    if any(drive.intersects(other) for other in built):
        return
    plan.pave("pavement", drive, pick(rng, PAVINGS), vary=0.12)
    garage = plot.rectangle(x, end + 6, 12, 6.4, QUARTER)
    if rng.random() < 0.4 and _free(site, garage, built, 0.5):
        built.append(add_flat(plan, garage, 5.0))
    if end > 11 and rng.random() < 0.55:
        facing = plot.bearing + QUARTER * rng.choice([-1, 1]) + rng.normal(0, 0.03)
        add_car(plan, *plot.at(x, rng.uniform(5.5, max(5.6, end - 5.5))), facing)


def _garden(plan: Plan, site, built: list[Polygon], plot: Plot, house: Polygon, sideways: float, back: float) -> None:
    """A paved seat behind the house, then a pool, a shed or a vegetable bed."""
    rng = plan.rng
    others = [shape for shape in built if shape is not house]
    if rng.random() < 0.45:
        seat = plot.rectangle(sideways + rng.uniform(-3, 3), back + 3.5, rng.uniform(8, 14), 6)
        if _free(site, seat, others):
            plan.pave("pavement", seat, "red paving" if rng.random() < 0.4 else "pavement", vary=0.1)
    room = plot.reach - back
    if room > 18 and rng.random() < plan.city.pools:
        pool = plot.rectangle(rng.uniform(-4, 4), back + 12, rng.uniform(12, 17), rng.uniform(6.5, 9))
        rim = pool.buffer(2.2, join_style="mitre")
        if _free(site, rim, built):
            plan.pave("pavement", rim, "pavement")
            plan.add("asphalt", pool, "pool", vary=0.1)
            plan.cover["pool"].append(pool)
            built.append(rim)
            return
    if room > 14 and rng.random() < 0.4:
        x = rng.uniform(-0.3, 0.3) * plot.width
        shed = plot.rectangle(x, plot.reach - 6, rng.uniform(6, 9), rng.uniform(5, 7))
        if _free(site, shed, built, 1.0):
            built.append(add_flat(plan, shed, 4.6, pick(rng, GARDEN_SHEDS)))
    elif room > 14 and rng.random() < 0.3:
        x = rng.uniform(-0.2, 0.2) * plot.width
        bed = plot.rectangle(x, plot.reach - 8, rng.uniform(8, 14), rng.uniform(5, 8))
        plan.add("crop", bed, "dark soil", rows=Rows(plot.bearing, 3.0, 0.25))


# ---------------------------------------------------------------- larger buildings


def _slabs(plan: Plan, site: Polygon) -> None:
    """Blocks of flats on a lawn with parking bays along one side."""
    rng = plan.rng
    plan.add("ground", site, plan.grass())
    c, bearing, length, width = extent(site)
    u, v = axes(bearing)
    core = site.buffer(-7)
    side = 1 if rng.random() < 0.5 else -1
    built: list[Polygon] = []
    lot = Polygon(rectangle(*(c + side * (width / 2 - 20) * v), bearing, length * 0.8, 26))
    for part in parts(lot.intersection(core), 1200)[:1]:
        _car_park(plan, part, bearing, None, float(rng.uniform(0.35, 0.85)))
        built.append(part.buffer(3))
    height = float(rng.integers(3, 7)) * STOREY
    material = pick(rng, plan.city.flat)
    parallel = rng.random() < 0.5
    room = width if parallel else length
    for s in np.arange(18 - room / 2, room / 2, 36 + height):
        if parallel:
            at, b, size = c + s * v + rng.uniform(-0.15, 0.15) * length * u, bearing, float(rng.uniform(70, 120))
        else:
            at, b, size = c + s * u - side * 12 * v, bearing + QUARTER, min(width * 0.62, float(rng.uniform(60, 100)))
        slab = Polygon(rectangle(*at, b, size, float(rng.uniform(21, 26))))
        if not _free(core, slab, built):
            continue
        built.append(slab)
        if rng.random() < 0.22:
            add_shed(plan, slab, pick(rng, plan.city.pitched), height * 0.7, 0.45, True)
        else:
            add_flat(plan, slab, height, material)
        _path(plan, core, np.array((at, at + (width * v if parallel else length * u) / 2)), 1.6, "pavement")
    if not core.is_empty:
        scatter_trees(plan, core, 0.0012, (4, 8))


def _car_park(plan: Plan, site: Polygon, bearing: float, hall: Polygon | None, filled: float) -> None:
    """Asphalt with rows of bays (2.5 m x 5 m), aisles between, cars in a share of the bays."""
    rng = plan.rng
    plan.pave("pavement", Polygon(site.exterior), "kerb")
    for part in parts(site.buffer(-0.8), 50):
        plan.add("asphalt", part, "asphalt", vary=0.12)
    c = np.array(site.centroid.coords[0])
    u, v = axes(bearing)
    local = (np.array(site.exterior.coords) - c) @ np.stack((u, v), 1)
    (u0, v0), (u1, v1) = local.min(0), local.max(0)
    free = site.buffer(-1.0) if hall is None else site.buffer(-1.0).difference(hall.buffer(4))
    single = v1 - v0 < 32
    starts = [v0 + 1.5] if single else [y + d for y in np.arange(v0 + 1.5, v1 - 10, 33) for d in (0, 10)]
    bays = np.arange(u0 + 3, u1 - 7, 5.0)
    for y in starts:
        corners = np.stack([c + (bays + a)[:, None] * u + (y + b) * v for a in (0.0, 5.0) for b in (0.0, 10.0)], 1)
        fits = shapely.contains_xy(free, corners[..., 0], corners[..., 1]).all(1)
        for k in np.flatnonzero(fits):
            last = k + 1 == len(bays) or not fits[k + 1]
            for edge in (bays[k], bays[k] + 5.0) if last else (bays[k],):
                line = rectangle(*(c + edge * u + (y + 5) * v), bearing + QUARTER, 9.6, 0.4)
                plan.add("marking", line, "paint", vary=0.1)
            if rng.random() < filled:
                at = c + (bays[k] + 2.5 + rng.normal(0, 0.2)) * u + (y + 5 + rng.normal(0, 0.4)) * v
                add_car(plan, *at, bearing + QUARTER * rng.choice([-1, 1]) + rng.normal(0, 0.025))
            elif rng.random() < 0.02:
                add_crown(plan, *(c + bays[k] * u + (y + 5) * v), 4.0, 9.0, avenue=True)


def _shops(plan: Plan, site: Polygon) -> None:
    """A large flat building and its car park."""
    rng = plan.rng
    c, bearing, length, width = extent(site)
    core = site.buffer(-5)
    end = 1 if rng.random() < 0.5 else -1
    a, b = length * float(rng.uniform(0.34, 0.48)), width * float(rng.uniform(0.55, 0.75))
    for shrink in (1.0, 0.8, 0.62):
        at = c + end * (length / 2 - a * shrink / 2 - 12) * axes(bearing)[0]
        hall = Polygon(rectangle(*at, bearing, a * shrink, b * shrink))
        if core.contains(hall):
            break
    else:
        _houses(plan, site)
        return
    plan.add("ground", site, plan.grass())
    for part in parts(core, 1500)[:1]:
        _car_park(plan, part, bearing, hall, float(rng.uniform(0.25, 0.8)))
    add_flat(plan, hall, float(rng.uniform(10, 18)))


def _works(plan: Plan, site: Polygon) -> None:
    """Sheds with metal roofs on a yard with containers and cars."""
    rng = plan.rng
    c, bearing, length, width = extent(site)
    plan.add("ground", site, plan.grass())
    core = site.buffer(-6)
    for yard in parts(core, 1500)[:1]:
        plan.pave("pavement", Polygon(yard.exterior), pick(rng, YARDS), vary=0.12)
        core = yard.buffer(-5)
    if core.is_empty:
        return
    u, v = axes(bearing)

    def anywhere() -> np.ndarray:
        along, across = rng.uniform(-0.45, 0.45, 2)
        return c + along * length * u + across * width * v

    built: list[Polygon] = []
    for _ in range(30):
        turn = QUARTER if rng.random() < 0.3 else 0.0
        size = rng.uniform((40, 26), (95, 52))
        shed = Polygon(rectangle(*anywhere(), bearing + turn, *size))
        if not _free(core, shed, built, 9.0):
            continue
        built.append(shed)
        if rng.random() < 0.6:
            add_shed(plan, shed, pick(rng, WORKS_ROOFS), float(rng.uniform(10, 15)), 0.16, False)
        else:
            add_flat(plan, shed, float(rng.uniform(10, 18)))
        if len(built) == 4:
            break
    ribs = Rows(bearing + QUARTER, 1.2, 0.05)
    for _ in range(int(rng.integers(3, 14))):  # containers: as large as a car or two, and no labelled object
        turn = QUARTER if rng.random() < 0.3 else 0.0
        box = Polygon(rectangle(*anywhere(), bearing + turn, rng.choice([12.2, 24.4]), 4.9))
        if _free(core, box, built, 2.0):
            built.append(box)
            paint = pick(rng, CONTAINERS)
            plan.add("furniture", box, "grey metal", colour=paint, vary=0.1, rows=ribs, plane=(0, 0, 5.2))
    for _ in range(int(rng.integers(2, 12))):
        at = anywhere()
        room = Point(*at).buffer(7)
        if _free(core, room, built):
            built.append(room)
            add_car(plan, *at, bearing + QUARTER * int(rng.integers(4)) + rng.normal(0, 0.05))


# ---------------------------------------------------------------- parks


def _park(plan: Plan, site: Polygon) -> None:
    """Lawn, winding paths, groups of trees, and often a pitch or courts."""
    rng = plan.rng
    plan.add("ground", site, plan.grass())
    c, bearing, length, width = extent(site)
    u, v = axes(bearing)
    used: list[Polygon] = []
    if length > 190 and width > 110 and rng.random() < 0.6:
        pitch = Polygon(rectangle(*c, bearing, min(200.0, length * 0.8), min(130.0, width * 0.75)))
        if site.buffer(-2).contains(pitch):
            _pitch(plan, pitch, bearing)
            used.append(pitch.buffer(3))
    elif rng.random() < 0.5:
        material = "clay court" if rng.random() < 0.6 else "hard court"
        for k in range(int(rng.integers(1, 4))):
            middle = c + (k - 1) * 40 * v
            court = Polygon(rectangle(*middle, bearing, 72, 36))
            if site.buffer(-4).contains(court):
                plan.add("parcel", court, material, vary=0.02)
                _outline(plan, rectangle(*middle, bearing, 47.5, 22), 0.35)
                plan.add("marking", rectangle(*middle, bearing, 0.4, 26), "paint")
                used.append(court.buffer(2))
    free = site.buffer(-2).difference(unary_union(used))
    for along, across in ((u, v), (v, u))[: int(rng.integers(1, 3))]:
        t, offset = wander(rng, length * 1.1, width * 0.12, length)
        if used:
            offset += rng.choice([-0.3, 0.3]) * width
        line = c + t[:, None] * along + offset[:, None] * across
        _path(plan, free, line, float(rng.uniform(2.2, 3.6)), "gravel" if rng.random() < 0.6 else "pavement")
    for part in parts(free, 100):
        for x, y in scatter(rng, part, 0.00035):
            for at in np.array((x, y)) + rng.normal(0, 14, (int(rng.integers(1, 9)), 2)):
                r = float(rng.uniform(3.5, 9))
                if part.contains(Point(*at)):
                    add_crown(plan, *at, r, r * float(rng.uniform(1.8, 2.6)))


def _pitch(plan: Plan, pitch: Polygon, bearing: float) -> None:
    """A football pitch with mowing stripes and lines; open ground that looks like a field."""
    c, _, length, width = extent(pitch)
    u, _ = axes(bearing)
    stripes = Rows(bearing + QUARTER, float(plan.rng.uniform(14, 22)), 0.10)
    plan.add("parcel", pitch, "turf", rows=stripes)
    _outline(plan, rectangle(*c, bearing, length - 8, width - 8), 0.4)
    plan.add("marking", rectangle(*c, bearing, 0.4, width - 8), "paint", vary=0.02)
    for a, b in zip(np.linspace(0, 2 * np.pi, 33)[:-1], np.linspace(0, 2 * np.pi, 33)[1:]):
        arc = c + 0.13 * width * np.array(((math.cos(a), math.sin(a)), (math.cos(b), math.sin(b))))
        plan.add("marking", LineString(arc).buffer(0.2), "paint", vary=0.02)
    for s in (-1, 1):
        area = c + s * (length / 2 - 4 - 0.08 * length) * u
        _outline(plan, rectangle(*area, bearing, 0.16 * length, 0.55 * width), 0.4)


def _path(plan: Plan, site, points: np.ndarray, half: float, material: str) -> None:
    for part in parts(LineString(points).buffer(half, cap_style="flat").intersection(site), 20):
        plan.pave("pavement", Polygon(part.exterior), material, vary=0.02)


def _outline(plan: Plan, corners: np.ndarray, width: float) -> None:
    for a, b in zip(corners, np.roll(corners, -1, 0)):
        line = LineString((a, b)).buffer(width / 2, cap_style="square")
        plan.add("marking", line, "paint", vary=0.02)
