"""From a city and a seed to a plan: streets, what lies between them, and what stands on it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from scipy.spatial import cKDTree
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box
from shapely.ops import polygonize, split, unary_union

from rvkernels.datasets._towns.city import MATERIALS, City
from rvkernels.datasets._towns.plan import (
    Plan,
    Rows,
    add_car,
    add_crown,
    add_flat,
    add_house,
    add_pitched,
    pick,
    rectangle,
)

MARGIN = 40  # pixels drawn around the scene, for what casts its shadow into it
BANK = 4.0  # a strip between water and everything built


@dataclass
class Street:
    """A stretch of road between two crossings."""

    line: LineString
    width: float  # carriageway, pixels
    pavement: float  # on each side; 0 in the country
    kind: str  # "arterial", "street" or "track"


def plan_scene(city: City, number: int, size: int, seed: int) -> Plan:
    """The plan of scene `number` of a city; the same arguments give the same plan."""
    rng = np.random.default_rng([seed, ord(city.name), number, 1])
    plan = Plan(city, size, MARGIN, float(rng.uniform(*city.sun_azimuth)), float(rng.uniform(*city.sun_elevation)))
    frame = box(-MARGIN, -MARGIN, size + MARGIN, size + MARGIN)
    plan.swath = _swath(rng, number, size)
    plan.add("ground", np.array(frame.exterior.coords), pick(rng, city.grass), rng)

    water, bodies = _water(rng, city.water[number % len(city.water)], size, frame)
    urban_share = city.urban[number % len(city.urban)]
    streets, centres, urban = _streets(rng, city, size, urban_share, water, frame)
    paved = [s.line.buffer(s.width / 2 + s.pavement, cap_style="round") for s in streets]
    nodes = _nodes(streets)

    faces = list(polygonize(unary_union([s.line for s in streets] + [frame.boundary])))
    near = cKDTree(centres)
    tree = shapely.STRtree(paved)
    wet = water.buffer(BANK + 4) if not water.is_empty else water
    for face in faces:
        blocked = [paved[i] for i in tree.query(face, predicate="intersects")]
        site = face.difference(unary_union([*blocked, wet]))
        inside = shapely.contains_xy(face, centres[:, 0], centres[:, 1])
        town = urban[inside].mean() > 0.5 if inside.any() else urban[near.query(face.centroid.coords[0])[1]]
        for part in _parts(site, 150):
            if town:
                _block(plan, rng, part)
            else:
                _country(plan, rng, part)

    _paint_water(plan, rng, bodies)
    _paint_streets(plan, rng, streets, nodes, water)
    _traffic(plan, rng, streets, nodes, frame)
    _trees_along(plan, rng, streets, nodes, water)
    _clear_trees(plan, paved, water)
    plan.cover["road"] += paved
    return plan


def _swath(rng, number: int, size: int) -> Polygon:
    """The imaged part of the scene: whole, or in every third scene cut by the tilted edges of a flight strip."""
    whole = box(0, 0, size, size)
    if number % 3 != 1:
        return whole
    middle = np.array((size / 2, size / 2))
    swath = whole
    turn = math.radians(float(rng.uniform(3, 10)) * (1 if rng.random() < 0.5 else -1))
    side = int(rng.integers(4))
    for k, depth in ((side, rng.uniform(0.42, 0.47)), (side + 1, rng.uniform(0.46, 0.5))):
        bearing = turn + k * math.pi / 2
        keep = rectangle(*(middle - size * (1.5 - depth) * np.array((math.cos(bearing), math.sin(bearing)))), bearing, 3 * size, 4 * size)
        swath = swath.intersection(Polygon(keep))
    return swath


# ---------------------------------------------------------------- water


def _wander(rng, length: float, amplitude: float, wave: float, step: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """(t, offset) of a smooth random curve."""
    t = np.arange(-length / 2, length / 2 + step, step)
    offset = np.zeros_like(t)
    for k in range(1, 4):
        offset += amplitude / k * np.sin(2 * np.pi * t * k / (wave * rng.uniform(0.8, 1.3)) + rng.uniform(0, 6.3))
    return t, offset


def _water(rng, kind: str, size: int, frame: Polygon):
    """(union, [(kind, polygon)]) of the scene's water."""
    if kind == "river":
        bearing = float(rng.uniform(0, math.pi))
        t, offset = _wander(rng, 2.2 * size, 0.07 * size, 0.9 * size)
        u, v = np.array((math.cos(bearing), math.sin(bearing))), np.array((-math.sin(bearing), math.cos(bearing)))
        shift = float(rng.uniform(-0.22, 0.22)) * size
        line = size / 2 + t[:, None] * u + (offset + shift)[:, None] * v
        half = float(rng.uniform(11, 26))
        width = half * (1 + 0.22 * np.sin(t / rng.uniform(30, 60)) + 0.12 * np.sin(t / rng.uniform(9, 14) + 1))
        normal = np.gradient(line, axis=0)
        normal = np.stack((-normal[:, 1], normal[:, 0]), 1) / np.linalg.norm(normal, axis=1, keepdims=True)
        outline = np.concatenate((line + width[:, None] * normal, (line - width[:, None] * normal)[::-1]))
        water = Polygon(outline).buffer(0).intersection(frame)
        return water, [("river", p) for p in _parts(water, 50)]
    if kind == "lake":
        x, y = rng.uniform(0.25, 0.75, 2) * size
        angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
        radius = np.ones(90)
        for k in range(2, 7):
            radius += 0.55 / k * rng.uniform(0.3, 1) * np.sin(k * angle + rng.uniform(0, 6.3))
        radius *= float(rng.uniform(0.09, 0.16)) * size
        stretch, turn = float(rng.uniform(1.0, 1.7)), float(rng.uniform(0, math.pi))
        px, py = radius * np.cos(angle) * stretch, radius * np.sin(angle)
        outline = np.stack((x + px * math.cos(turn) - py * math.sin(turn), y + px * math.sin(turn) + py * math.cos(turn)), 1)
        water = Polygon(outline).buffer(0).intersection(frame)
        return water, [("lake", p) for p in _parts(water, 50)]
    return Polygon(), []


def _paint_water(plan: Plan, rng, bodies) -> None:
    for kind, body in bodies:
        shore = body.buffer(BANK)
        for part in _parts(shore, 10):
            plan.add("shore", np.array(part.exterior.coords), "verge" if kind == "river" or rng.random() < 0.5 else "sand", rng, plane=(0, 0, -1))
        plan.add("water", np.array(body.exterior.coords), kind, rng, vary=0.12, plane=(0, 0, -4))
        for part in _parts(body.buffer(-5), 20):
            plan.add("deep water", np.array(part.exterior.coords), "deep " + kind, rng, vary=0.12, plane=(0, 0, -4))
        plan.cover["water"].append(body)
        ring = body.exterior
        wooded = rng.uniform(0.2, 0.9)
        phase, wave = rng.uniform(0, 6.3), rng.uniform(60, 140)
        at = 0.0
        while at < ring.length:
            p = ring.interpolate(at)
            if math.sin(at / wave + phase) < 2 * wooded - 1:
                r = float(rng.uniform(3.5, 8))
                normal = np.array(p.coords[0]) + rng.uniform(2, 9) * _outward(ring, at, body)
                add_crown(plan, rng, *normal, r, r * rng.uniform(2.2, 3.2))
            at += float(rng.uniform(6, 16))


def _outward(ring, at: float, body: Polygon) -> np.ndarray:
    a, b = np.array(ring.interpolate(max(at - 2, 0)).coords[0]), np.array(ring.interpolate(at + 2).coords[0])
    t = (b - a) / max(np.linalg.norm(b - a), 1e-9)
    n = np.array((-t[1], t[0]))
    return -n if body.contains(Point(*((a + b) / 2 + 2 * n))) else n


# ---------------------------------------------------------------- streets


def _breaks(rng, reach: float, span: tuple[float, float]) -> list[float]:
    at, out = -reach - float(rng.uniform(0, span[1])), []
    while at < reach + span[1]:
        out.append(at)
        at += float(rng.uniform(*span))
    return out


def _streets(rng, city: City, size: int, urban_share: float, water, frame: Polygon):
    """(streets, block centres (n, 2), urban (n,) bool): rows of blocks, turned and warped; the country keeps the main roads."""
    reach = 0.72 * size + 60
    along, across = city.block
    rows = _breaks(rng, reach, across)
    common = _breaks(rng, reach, along)
    trunk = min(common, key=lambda u: abs(u - rng.uniform(-0.25, 0.25) * size))
    cuts = []
    for j in range(len(rows) - 1):
        own = common
        if city.staggered:
            own = [u for u in _breaks(rng, reach, along) if abs(u - trunk) > 80] + [trunk]
            if j and rng.random() < 0.5:
                last = np.array(cuts[-1])
                own = [float(last[np.abs(last - u).argmin()]) if np.abs(last - u).min() < 60 else u for u in own]
            own = sorted(set(own))
            own = [u for i, u in enumerate(own) if u == trunk or i == 0 or u - own[i - 1] > 50]
        cuts.append(own)
    main = {min(range(1, len(rows) - 1), key=lambda j: abs(rows[j] - rng.uniform(-0.3, 0.3) * size))}

    bearing = math.radians(float(rng.uniform(*city.bearing)))
    cos, sin = math.cos(bearing), math.sin(bearing)
    waves = [(rng.uniform(0.5, 1.0), rng.uniform(0, 2 * math.pi), rng.uniform(450, 900), rng.uniform(0, 6.3), rng.uniform(0, 2 * math.pi)) for _ in range(4)]

    def place(uv: np.ndarray) -> np.ndarray:
        xy = np.stack((uv[:, 0] * cos - uv[:, 1] * sin, uv[:, 0] * sin + uv[:, 1] * cos), 1) + size / 2
        shift = np.zeros_like(xy)
        for strength, direction, wave, phase, push in waves:
            s = strength * np.sin(2 * np.pi * (xy[:, 0] * math.cos(direction) + xy[:, 1] * math.sin(direction)) / wave + phase)
            shift += s[:, None] * np.array((math.cos(push), math.sin(push)))
        return xy + city.warp / 2 * shift

    cells = [(j, k) for j in range(len(rows) - 1) for k in range(len(cuts[j]) - 1)]
    centres = place(np.array([((cuts[j][k] + cuts[j][k + 1]) / 2, (rows[j] + rows[j + 1]) / 2) for j, k in cells]))
    toward = rng.uniform(0, 2 * math.pi)
    density = (centres - size / 2) @ np.array((math.cos(toward), math.sin(toward))) / size
    density += 0.25 * np.sin(centres @ rng.normal(0, 2 * np.pi / size, 2) + rng.uniform(0, 6.3)) + rng.normal(0, 0.06, len(cells))
    within = shapely.contains_xy(frame, centres[:, 0], centres[:, 1])
    urban = density > np.quantile(density[within], 1 - urban_share)
    town = {cell: bool(u) for cell, u in zip(cells, urban)}

    def cell_at(j: int, u: float):
        if not 0 <= j < len(cuts):
            return None
        k = int(np.searchsorted(cuts[j], u)) - 1
        return (j, k) if 0 <= k < len(cuts[j]) - 1 else None

    def stretch(a, b) -> LineString:
        n = max(2, int(math.hypot(b[0] - a[0], b[1] - a[1]) / 10)) if city.warp else 2
        return LineString(place(np.linspace(a, b, n)))

    raw = []
    for j, v in enumerate(rows):
        points = sorted(set((cuts[j - 1] if j else []) + (cuts[j] if j < len(cuts) else [])))
        for u0, u1 in zip(points[:-1], points[1:]):
            beside = [town.get(c, False) for c in (cell_at(j - 1, (u0 + u1) / 2), cell_at(j, (u0 + u1) / 2))]
            raw.append((stretch((u0, v), (u1, v)), j in main, any(beside)))
    for j in range(len(cuts)):
        for k, u in enumerate(cuts[j]):
            beside = [town.get((j, k - 1), False), town.get((j, k), False)]
            raw.append((stretch((u, rows[j]), (u, rows[j + 1])), u == trunk, any(beside)))

    local = float(rng.uniform(*city.street))
    wide = local + float(rng.uniform(6, 10))
    wet = water.buffer(14) if not water.is_empty else water
    streets = []
    for line, arterial, in_town in raw:
        if not line.intersects(frame) or not (arterial or in_town or rng.random() < 0.10):
            continue
        if not arterial and line.intersects(wet):
            continue
        line = line.intersection(frame)
        for part in getattr(line, "geoms", [line]):
            if part.geom_type != "LineString" or part.length < 4:
                continue
            if arterial:
                streets.append(Street(part, wide if in_town else 14.0, city.pavement + 1.5 if in_town else 0.0, "arterial"))
            elif in_town:
                streets.append(Street(part, local, city.pavement, "street"))
            else:
                streets.append(Street(part, 6.5, 0.0, "track"))
    return streets, centres, urban


def _nodes(streets: list[Street]) -> dict:
    """Crossings: {(x, y) rounded: [half widths, ends]} of points where three or more stretches meet."""
    ends: dict[tuple[int, int], list] = {}
    for s in streets:
        coords = np.array(s.line.coords)
        for here, there in ((coords[0], coords[1]), (coords[-1], coords[-2])):
            direction = (there - here) / np.linalg.norm(there - here)
            ends.setdefault((round(here[0]), round(here[1])), []).append((s, here, direction))
    return {k: v for k, v in ends.items() if len(v) >= 3}


def _ribbon(line: LineString, half: float) -> np.ndarray | None:
    shape = line.buffer(half, cap_style="round")
    return np.array(shape.exterior.coords) if shape.geom_type == "Polygon" else None


def _clear(nodes) -> tuple[cKDTree | None, np.ndarray]:
    """(tree of crossings, radius kept free of markings and cars)."""
    if not nodes:
        return None, np.zeros(0)
    radius = np.array([max(s.width / 2 for s, _, _ in v) + 7 for v in nodes.values()])
    return cKDTree(np.array([v[0][1] for v in nodes.values()])), radius


def _at_crossing(clear, x: float, y: float) -> bool:
    tree, radius = clear
    if tree is None:
        return False
    distance, i = tree.query((x, y))
    return bool(distance < radius[i])


def _pose(line: LineString, at: float) -> tuple[float, float, float]:
    """x, y and bearing at a distance along the line."""
    p, q = line.interpolate(max(at - 1, 0)), line.interpolate(min(at + 1, line.length))
    r = line.interpolate(at)
    return r.x, r.y, math.atan2(q.y - p.y, q.x - p.x)


def _paint_streets(plan: Plan, rng, streets: list[Street], nodes, water) -> None:
    clear = _clear(nodes)
    fresh = rng.random() < 0.3
    tone = float(np.exp(rng.normal(0, 0.12)))
    for s in streets:
        if s.kind == "track":
            plan.add("pavement", _ribbon(s.line, s.width / 2), "track", rng)
            for side in (-1.5, 1.5):
                plan.add("kerb", np.array(s.line.offset_curve(side).buffer(0.7).exterior.coords), plan.city.soil, rng)
            continue
        surface = "new asphalt" if s.kind == "arterial" and fresh else "asphalt"
        base = np.array((0.155, 0.150, 0.145, 0.170)) * tone if surface == "asphalt" else None
        if s.pavement:
            plan.add("pavement", _ribbon(s.line, s.width / 2 + s.pavement), "pavement", rng, vary=0.02)
            plan.add("kerb", _ribbon(s.line, s.width / 2 + 0.5), "kerb", rng, vary=0.02)
        plan.add("asphalt", _ribbon(s.line, s.width / 2), surface, rng, colour=None if base is None else tuple(base), vary=0.015)
        if s.line.length > 30 and rng.random() < 0.5:  # mended places
            for _ in range(int(rng.integers(1, 4))):
                x, y, b = _pose(s.line, rng.uniform(0, s.line.length))
                off = rng.uniform(-0.3, 0.3) * s.width
                spot = rectangle(x - off * math.sin(b), y + off * math.cos(b), b, rng.uniform(3, 20), rng.uniform(2, 5))
                plan.add("asphalt", spot, "new asphalt", rng, colour=tuple(np.array((0.155, 0.15, 0.145, 0.17)) * tone * rng.choice([0.78, 1.15])))
        if s.kind == "arterial":
            at, beat = 0.0, (12.0 if s.pavement else 18.0)
            while at < s.line.length:
                x, y, b = _pose(s.line, at)
                if not _at_crossing(clear, x, y):
                    plan.add("marking", rectangle(x, y, b, 6.0, 0.4), "paint", rng)
                    if s.width > 21:
                        for side in (-1, 1):
                            plan.add("marking", rectangle(x - side * 0.25 * s.width * math.sin(b), y + side * 0.25 * s.width * math.cos(b), b, 5, 0.35), "paint", rng)
                    if not s.pavement:
                        for side in (-1, 1):
                            plan.add("marking", rectangle(x - side * (s.width / 2 - 0.9) * math.sin(b), y + side * (s.width / 2 - 0.9) * math.cos(b), b, beat + 0.5, 0.35), "paint", rng)
                at += beat
        over = s.line.intersection(water) if s.kind == "arterial" and not water.is_empty else None
        if over is not None and not over.is_empty:
            for line in getattr(over, "geoms", [over]):
                if line.geom_type == "LineString" and line.length > 4:
                    for side in (-1, 1):
                        rail = line.offset_curve(side * (s.width / 2 + s.pavement + 0.3))
                        for edge in getattr(rail, "geoms", [rail]):
                            if edge.length > 2:
                                plan.add("furniture", np.array(edge.buffer(0.6, cap_style="square").exterior.coords), "kerb", rng, plane=(0, 0, 2.0))
    for ends in nodes.values():
        reach = max(s.width / 2 for s, _, _ in ends)
        town = all(s.pavement for s, _, _ in ends)
        busy = any(s.kind == "arterial" for s, _, _ in ends)
        if not town or rng.random() > (0.75 if busy else 0.2):
            continue
        for s, here, direction in ends:
            if s.line.length < 2 * reach + 24:
                continue
            across = np.array((-direction[1], direction[0]))
            bearing = math.atan2(direction[1], direction[0])
            c = here + (reach + plan.city.pavement + 4) * direction
            for off in np.arange(-s.width / 2 + 1.2, s.width / 2 - 0.6, 2.0):
                plan.add("marking", rectangle(*(c + off * across), bearing, 6, 1.0), "paint", rng, vary=0.03)
            if busy:
                lane = c + 6.5 * direction + s.width / 4 * across
                plan.add("marking", rectangle(*lane, bearing, 0.8, s.width / 2 - 1.5), "paint", rng)


def _traffic(plan: Plan, rng, streets: list[Street], nodes, frame: Polygon) -> None:
    """Cars in their lanes (right-hand traffic) and parked along the kerbs."""
    clear = _clear(nodes)
    taken: list[tuple[float, float]] = []

    def put(x: float, y: float, bearing: float) -> None:
        if not frame.contains(Point(x, y)) or _at_crossing(clear, x, y):
            return
        if any(abs(x - a) < 11 and abs(y - b) < 11 and math.hypot(x - a, y - b) < 10.5 for a, b in taken):
            return
        taken.append((x, y))
        add_car(plan, rng, x, y, bearing + rng.normal(0, 0.025))

    parking = rng.uniform(0.15, 0.6)
    for s in streets:
        if s.kind == "track":
            continue
        gap = {"arterial": 70.0, "street": 260.0}[s.kind] * rng.uniform(0.7, 1.8)
        for side in (-1, 1):  # y points down, so the right-hand side of a bearing is +normal
            at = float(rng.exponential(gap))
            while at < s.line.length:
                x, y, b = _pose(s.line, at)
                off = side * s.width * (0.25 if s.kind == "arterial" or s.width > 15 else 0.2)
                put(x - off * math.sin(b), y + off * math.cos(b), b if side > 0 else b + math.pi)
                at += 13 + float(rng.exponential(gap))
            if s.kind == "street" and (side > 0 or rng.random() < 0.4) and rng.random() < 0.75:
                at = float(rng.uniform(14, 20))
                while at < s.line.length - 14:
                    if rng.random() < parking:
                        x, y, b = _pose(s.line, at)
                        off = side * (s.width / 2 - 2.4)
                        put(x - off * math.sin(b), y + off * math.cos(b), b if rng.random() < 0.7 else b + math.pi)
                    at += float(rng.uniform(11.5, 13.5))


def _trees_along(plan: Plan, rng, streets: list[Street], nodes, water) -> None:
    """Avenue trees on pavements and beside country roads."""
    clear = _clear(nodes)
    for s in streets:
        if s.kind == "track" or rng.random() > (0.35 if s.pavement else 0.25):
            continue
        radius = float(rng.uniform(3.0, 5.5))
        colour = pick(rng, plan.city.crowns)
        beat = float(rng.uniform(18, 34))
        off = s.width / 2 + (s.pavement * 0.75 if s.pavement else 7.0)
        for side in (-1, 1):
            for at in np.arange(beat / 2, s.line.length, beat):
                x, y, b = _pose(s.line, at)
                x, y = x - side * off * math.sin(b), y + side * off * math.cos(b)
                if rng.random() < 0.85 and not _at_crossing(clear, x, y) and not water.buffer(2).contains(Point(x, y)):
                    r = radius * float(rng.uniform(0.8, 1.15))
                    # Negative heights mark trees that `_clear_trees` leaves beside the carriageway.
                    add_crown(plan, rng, x, y, r, -r * float(rng.uniform(2.2, 3.0)), colour)


def _clear_trees(plan: Plan, paved, water) -> None:
    """Drop crowns that would stand in a building, on a road or in the water."""
    if not plan.crowns:
        return
    xy = np.array([c[:2] for c in plan.crowns])
    radius = np.array([c[2] for c in plan.crowns])
    street = np.array([c[3] < 0 for c in plan.crowns])
    points = shapely.points(xy)
    keep = shapely.contains_xy(box(-MARGIN - 8, -MARGIN - 8, plan.size + MARGIN + 8, plan.size + MARGIN + 8), xy[:, 0], xy[:, 1])

    def near(obstacles, distance, which) -> None:
        if len(obstacles):
            hit = shapely.STRtree(obstacles).query(points[which], predicate="dwithin", distance=distance[which])[0]
            keep[np.flatnonzero(which)[np.unique(hit)]] = False

    everything = np.ones(len(xy), bool)
    near(plan.cover["building"], 0.75 * radius + 0.5, everything)
    near(list(paved), 0.55 * radius + 0.5, ~street)
    lots = [p for p in plan.cover["road"] if p.area > 0]
    near(lots, 0.5 * radius, ~street)
    if not water.is_empty:
        near([water], 0.2 * radius, everything)
    cars = [shape.buffer(-1) for kind, shape in plan.objects if kind == "car"]
    near(cars, 0.5 * radius, street)
    plan.crowns = [(x, y, r, abs(h), c, s, k) for (x, y, r, h, c, s, k), ok in zip(plan.crowns, keep) if ok]


# ---------------------------------------------------------------- blocks


def _parts(shape, least: float) -> list[Polygon]:
    """Polygons of a geometry that are larger than `least`, without holes where they are small."""
    if shape.is_empty:
        return []
    parts = shape.geoms if isinstance(shape, MultiPolygon) else [shape]
    return [p for p in parts if p.geom_type == "Polygon" and p.area > least]


def _axes(site: Polygon) -> tuple[np.ndarray, float, float, float]:
    """Centre, bearing of the long side, length and width of the smallest rectangle around a polygon."""
    corners = np.array(site.minimum_rotated_rectangle.exterior.coords)[:4]
    a, b = corners[1] - corners[0], corners[3] - corners[0]
    if np.linalg.norm(a) < np.linalg.norm(b):
        a, b = b, a
    return corners.mean(0), math.atan2(a[1], a[0]), float(np.linalg.norm(a)), float(np.linalg.norm(b))


def _scatter(rng, site: Polygon, per_pixel: float) -> np.ndarray:
    """(n, 2) random points in a polygon."""
    if site.is_empty:
        return np.zeros((0, 2))
    x0, y0, x1, y1 = site.bounds
    n = int(rng.poisson((x1 - x0) * (y1 - y0) * per_pixel))
    xy = rng.uniform((x0, y0), (x1, y1), (n, 2))
    return xy[shapely.contains_xy(site, xy[:, 0], xy[:, 1])]


def _trees(plan: Plan, rng, site: Polygon, per_pixel: float, radius=(3.0, 7.5)) -> None:
    for x, y in _scatter(rng, site, per_pixel):
        r = float(rng.uniform(*radius))
        add_crown(plan, rng, x, y, r, r * float(rng.uniform(1.8, 2.8)))


def _block(plan: Plan, rng, site: Polygon) -> None:
    _, _, length, width = _axes(site)
    if site.area > 52000:
        for part in _cut(rng, site, 30000.0, 0.05):
            _block(plan, rng, part)
        return
    if site.area < 3500 or width < 45:
        plan.add("ground", np.array(site.exterior.coords), pick(rng, plan.city.grass), rng)
        _trees(plan, rng, site, 0.004)
        return
    kind = pick(rng, plan.city.blocks)
    if kind in ("shops", "works", "slabs") and site.area < 9000:
        kind = "houses"
    {"houses": _houses, "slabs": _slabs, "shops": _shops, "works": _works, "park": _park, "bare": _bare}[kind](plan, rng, site)


def _front(site: Polygon, at: float, width: float):
    """Middle, tangent and inward normal of a straight stretch of the boundary, or None where it bends."""
    ring = site.exterior
    a = np.array(ring.interpolate((at - width / 2) % ring.length).coords[0])
    b = np.array(ring.interpolate((at + width / 2) % ring.length).coords[0])
    m = np.array(ring.interpolate(at % ring.length).coords[0])
    gap = float(np.linalg.norm(b - a))
    if gap < 0.985 * width or np.linalg.norm((a + b) / 2 - m) > 1.5:
        return None
    t = (b - a) / gap
    n = np.array((-t[1], t[0]))
    if not site.contains(Point(*(m + 4 * n))):
        n = -n
    return m, t, n


def _houses(plan: Plan, rng, site: Polygon) -> None:
    """Houses face the street around the block; gardens, drives and sheds behind."""
    city = plan.city
    site = Polygon(site.exterior).simplify(0.6)
    plan.add("ground", np.array(site.exterior.coords), pick(rng, city.grass), rng)
    _, _, _, across = _axes(site)
    setback = float(rng.uniform(*city.setback))
    reach = min(70.0, 0.46 * across)
    depth0 = float(rng.uniform(16, 21))
    if reach < setback + depth0 * 0.8:
        setback = max(2.0, reach - depth0)
    shapely.prepare(site)
    built: list[Polygon] = []
    quads: list[tuple[np.ndarray, np.ndarray, np.ndarray, float, bool]] = []
    ring_length = site.exterior.length
    at = float(rng.uniform(0, 20))
    end = at + ring_length - 10
    storeys = float(rng.choice([1.0, 1.5, 2.0], p=[0.35, 0.4, 0.25]))
    while at < end:
        terrace = rng.random() < city.terraces
        plot = float(rng.uniform(*city.plot))
        if terrace:
            unit = float(rng.uniform(12, 16))
            plot = unit * int(rng.integers(3, 7)) + 8
        front = _front(site, at + plot / 2, plot)
        if front is None:
            at += 6
            continue
        m, t, n = front
        bearing = math.atan2(t[1], t[0])
        depth = depth0 * float(rng.uniform(0.9, 1.12))
        if terrace:
            length = plot - 8
        else:
            length = min(plot - 7, float(rng.uniform(18, 27)))
        if length < 13:
            at += 6
            continue
        ridge_across = not terrace and rng.random() < 0.25 and length < 24
        shift = 0.0 if terrace else float(rng.uniform(-0.5, 0.5)) * max(plot - length - 9, 0)
        c = m + (setback + depth / 2 + rng.normal(0, 0.6 if terrace else 1.5)) * n + shift * t
        wide, deep = (depth, length) if ridge_across else (length, depth)
        b = bearing + (math.pi / 2 if ridge_across else 0.0)
        shell = Polygon(rectangle(*c, bearing, length + 3, depth + 3))
        if not site.contains(shell) or any(shell.intersects(o) for o in built):
            at += 6
            continue
        shape = add_house(plan, rng, (float(c[0]), float(c[1]), b, wide, deep), storeys if terrace or rng.random() < 0.8 else 1.0, not terrace and rng.random() < city.hips)
        built.append(shape)
        quads.append((m, t, n, plot, terrace))
        _plot(plan, rng, site, built, (m, t, n, plot, terrace), setback, depth, reach, c, length)
        at += plot + (float(rng.uniform(0, 10)) if rng.random() < 0.2 else 0.0)
    gaps = site.buffer(-6)
    if not gaps.is_empty:
        _trees(plan, rng, site, float(rng.uniform(0.0004, 0.0022)), (2.5, 6.5))


def _plot(plan: Plan, rng, site: Polygon, built, front, setback: float, depth: float, reach: float, c, length: float) -> None:
    """Garden, hedge, drive, shed, pool and terrace of one house."""
    city = plan.city
    m, t, n, plot, terrace = front
    bearing = math.atan2(t[1], t[0])
    quad = np.array((m - plot / 2 * t, m + plot / 2 * t, m + plot / 2 * t + reach * n, m - plot / 2 * t + reach * n))
    plot_shape = Polygon(quad).intersection(site)
    if plot_shape.geom_type != "Polygon" or plot_shape.is_empty:
        return
    plan.add("parcel", np.array(plot_shape.exterior.coords), pick(rng, city.grass), rng, vary=0.16)
    # Hedges and fences: low, so they are part of the garden.
    for side in (-1, 1):
        if rng.random() < 0.6:
            hedge = rng.random() < 0.55
            a, b = m + side * plot / 2 * t + 1.5 * n, m + side * plot / 2 * t + reach * n
            strip = LineString((a, b)).intersection(site.buffer(-1))
            if strip.geom_type == "LineString" and strip.length > 8:
                plan.add("furniture", np.array(strip.buffer(1.1 if hedge else 0.35, cap_style="flat").exterior.coords), "hedge" if hedge else "brown tile", rng, vary=0.15, plane=(0, 0, 3.0 if hedge else 2.5))
    if rng.random() < 0.3:
        edge = LineString((m - (plot / 2 - 7) * t + 1.5 * n, m + (plot / 2 - 1) * t + 1.5 * n))
        plan.add("furniture", np.array(edge.buffer(1.0, cap_style="flat").exterior.coords), "hedge", rng, vary=0.15, plane=(0, 0, 2.2))
    # Drive beside the house, or a paved forecourt before a terrace.
    paving = ("concrete", "red paving", "asphalt", "gravel", "pavement")[int(rng.integers(5))]
    if terrace:
        if setback > 5 and rng.random() < 0.5:
            yard = Polygon(rectangle(*(m + (setback / 2 + 0.5) * n), bearing, length, setback + 1)).intersection(site)
            if yard.geom_type == "Polygon" and not yard.is_empty:
                plan.add("pavement", np.array(yard.exterior.coords), paving, rng)
                plan.cover["road"].append(yard)
                if setback > 11:
                    for off in np.arange(-length / 2 + 4, length / 2 - 3, 6.5):
                        if rng.random() < 0.5:
                            add_car(plan, rng, *(m + off * t + (setback / 2 + 0.5) * n), bearing + math.pi / 2 + rng.normal(0, 0.04))
    elif rng.random() < 0.75:
        offset = (c - m) @ t
        side = 1 if plot / 2 - (offset + length / 2) > plot / 2 + offset - length / 2 else -1
        x = offset + side * (length / 2 + 3.6)
        deep = setback + depth * float(rng.uniform(0.3, 1.1))
        drive = Polygon(rectangle(*(m + x * t + (deep / 2 - 1.0) * n), bearing + math.pi / 2, deep + 2, 5.6))
        if not any(drive.intersects(o) for o in built):
            plan.add("pavement", np.array(drive.exterior.coords), paving, rng, vary=0.12)
            plan.cover["road"].append(drive)
            garage = Polygon(rectangle(*(m + x * t + (deep + 6) * n), bearing + math.pi / 2, 12, 6.4))
            if rng.random() < 0.4 and site.contains(garage) and not any(garage.buffer(0.5).intersects(o) for o in built):
                built.append(add_flat(plan, rng, np.array(garage.exterior.coords)[:4], 5.0))
            if rng.random() < 0.55 and deep > 11:
                add_car(plan, rng, *(m + x * t + rng.uniform(5.5, max(5.6, deep - 5.5)) * n), bearing + math.pi / 2 * rng.choice([-1, 1]) + rng.normal(0, 0.03))
    back = setback + depth
    if rng.random() < 0.45 and not terrace:  # a paved seat behind the house
        seat = Polygon(rectangle(*(c + (depth / 2 + 3.5) * n + rng.uniform(-3, 3) * t), bearing, rng.uniform(8, 14), 6))
        if site.contains(seat) and not any(seat.intersects(o) for o in built[:-1]):
            plan.add("pavement", np.array(seat.exterior.coords), "red paving" if rng.random() < 0.4 else "pavement", rng, vary=0.1)
            plan.cover["road"].append(seat.difference(built[-1]) if seat.intersects(built[-1]) else seat)
    room = reach - back
    if room > 18 and not terrace and rng.random() < city.pools:
        pool = Polygon(rectangle(*(m + (back + 12) * n + rng.uniform(-4, 4) * t), bearing, rng.uniform(12, 17), rng.uniform(6.5, 9)))
        rim = pool.buffer(2.2, join_style="mitre")
        if site.contains(rim) and not any(rim.intersects(o) for o in built):
            plan.add("pavement", np.array(rim.exterior.coords), "pavement", rng)
            plan.add("asphalt", np.array(pool.exterior.coords), "pool", rng, vary=0.1)
            plan.cover["road"].append(rim.difference(pool))
            plan.cover["water"].append(pool)
            return
    if room > 14 and rng.random() < 0.4:
        shed = Polygon(rectangle(*(m + (reach - 6) * n + rng.uniform(-0.3, 0.3) * plot * t), bearing, rng.uniform(6, 9), rng.uniform(5, 7)))
        if site.contains(shed) and not any(shed.buffer(1).intersects(o) for o in built):
            built.append(add_flat(plan, rng, np.array(shed.exterior.coords)[:4], 4.6, pick(rng, (("brown tile", 1.0), ("grey metal", 1.0), ("bitumen", 1.0), ("terracotta", 0.5)))))
    elif room > 14 and rng.random() < 0.3:
        bed = rectangle(*(m + (reach - 8) * n + rng.uniform(-0.2, 0.2) * plot * t), bearing, rng.uniform(8, 14), rng.uniform(5, 8))
        plan.add("crop", bed, "dark soil", rng, rows=Rows(bearing, 3.0, 0.25))


def _slabs(plan: Plan, rng, site: Polygon) -> None:
    """Blocks of flats on a lawn with parking bays along one side."""
    plan.add("ground", np.array(site.exterior.coords), pick(rng, plan.city.grass), rng)
    c, bearing, length, width = _axes(site)
    u, v = np.array((math.cos(bearing), math.sin(bearing))), np.array((-math.sin(bearing), math.cos(bearing)))
    core = site.buffer(-7)
    side = 1 if rng.random() < 0.5 else -1
    lot = Polygon(rectangle(*(c + side * (width / 2 - 20) * v), bearing, length * 0.8, 26)).intersection(core)
    built: list[Polygon] = []
    for part in _parts(lot, 1200)[:1]:
        _car_park(plan, rng, part, bearing, [], float(rng.uniform(0.35, 0.85)))
        built.append(part.buffer(3))
    height = float(rng.integers(3, 7)) * 5.6
    parallel = rng.random() < 0.5
    material = pick(rng, plan.city.flat)
    step = 24 + height * 1.0 + 12
    span = np.arange(-width / 2 + 18, width / 2, step) if parallel else np.arange(-length / 2 + 18, length / 2, step)
    for s in span:
        size = float(rng.uniform(70, 120)) if parallel else min(width * 0.62, float(rng.uniform(60, 100)))
        at = c + (s * v + rng.uniform(-0.15, 0.15) * length * u if parallel else s * u - side * 12 * v)
        b = bearing if parallel else bearing + math.pi / 2
        slab = Polygon(rectangle(*at, b, size, float(rng.uniform(21, 26))))
        if core.contains(slab) and not any(slab.intersects(o) for o in built):
            if rng.random() < 0.22:
                from_corner = np.array(slab.exterior.coords)[:4]
                built.append(slab)
                thing = plan.thing("building", slab)
                plan.cover["building"].append(slab)
                _hip(plan, rng, thing, slab, b, from_corner, height * 0.7)
            else:
                built.append(add_flat(plan, rng, np.array(slab.exterior.coords)[:4], height, material))
            walk = LineString((at, at + (width * v if parallel else length * u) * 0.5)).buffer(1.6, cap_style="flat").intersection(core)
            for part in _parts(walk, 20)[:1]:
                plan.add("pavement", np.array(part.exterior.coords), "pavement", rng)
                plan.cover["road"].append(part)
    _trees(plan, rng, core, 0.0012, (4, 8))


def _hip(plan: Plan, rng, thing: int, shape: Polygon, bearing: float, corners, height: float) -> None:
    c, b, length, width = _axes(shape)
    add_pitched(plan, rng, thing, (float(c[0]), float(c[1]), b, length, width), pick(rng, plan.city.pitched), height, 0.45, True)


def _car_park(plan: Plan, rng, site: Polygon, bearing: float, blocked: list[Polygon], filled: float) -> None:
    """Asphalt with rows of bays (2.5 m x 5 m), aisles between, cars in a share of the bays."""
    plan.add("pavement", np.array(site.exterior.coords), "kerb", rng)
    inner = site.buffer(-0.8)
    for part in _parts(inner, 50):
        plan.add("asphalt", np.array(part.exterior.coords), "asphalt", rng, vary=0.12)
    plan.cover["road"].append(Polygon(site.exterior))
    c = np.array(site.centroid.coords[0])
    u, v = np.array((math.cos(bearing), math.sin(bearing))), np.array((-math.sin(bearing), math.cos(bearing)))
    local = (np.array(site.exterior.coords) - c) @ np.stack((u, v), 1)
    (u0, v0), (u1, v1) = local.min(0), local.max(0)
    free = site.buffer(-1.0)
    if blocked:
        free = free.difference(unary_union([b.buffer(4) for b in blocked]))
    if free.is_empty:
        return
    shapely.prepare(free)
    single = v1 - v0 < 32
    y = v0 + 1.5
    while y + 10 < v1:
        for back in ((0,) if single else (0, 1)):
            row = y + 10 * back
            us = np.arange(u0 + 3, u1 - 7, 5.0)
            corners = np.stack([c + (us + a)[:, None] * u + (row + b) * v for a in (0.0, 5.0) for b in (0.0, 10.0)], 1)
            fit = shapely.contains_xy(free, corners[..., 0], corners[..., 1]).all(1)
            for k in np.flatnonzero(fit):
                for edge in (us[k], us[k] + 5.0) if k + 1 == len(us) or not fit[k + 1] else (us[k],):
                    plan.add("marking", rectangle(*(c + edge * u + (row + 5) * v), bearing + math.pi / 2, 9.6, 0.4), "paint", rng, vary=0.1)
                if rng.random() < filled:
                    at = c + (us[k] + 2.5 + rng.normal(0, 0.2)) * u + (row + 5 + rng.normal(0, 0.4)) * v
                    add_car(plan, rng, *at, bearing + math.pi / 2 * rng.choice([-1, 1]) + rng.normal(0, 0.025))
                elif rng.random() < 0.02:
                    at = c + us[k] * u + (row + 5) * v
                    add_crown(plan, rng, *at, 4.0, -9.0)
            if single:
                break
        y += 10 + 13 if single else 20 + 13


def _shops(plan: Plan, rng, site: Polygon) -> None:
    """A large flat building and its car park."""
    site = Polygon(site.exterior)
    c, bearing, length, width = _axes(site)
    u, v = np.array((math.cos(bearing), math.sin(bearing))), np.array((-math.sin(bearing), math.cos(bearing)))
    core = site.buffer(-5)
    plan.add("ground", np.array(site.exterior.coords), pick(rng, plan.city.grass), rng)
    a, b = length * float(rng.uniform(0.34, 0.48)), width * float(rng.uniform(0.55, 0.75))
    end = 1 if rng.random() < 0.5 else -1
    hall: Polygon | None = None
    for shrink in (1.0, 0.8, 0.62):
        shape = Polygon(rectangle(*(c + end * (length / 2 - a * shrink / 2 - 12) * u), bearing, a * shrink, b * shrink))
        if core.contains(shape):
            hall = shape
            break
    if hall is None:
        _houses(plan, rng, site)
        return
    for part in _parts(core, 1500)[:1]:
        _car_park(plan, rng, part, bearing, [hall], float(rng.uniform(0.25, 0.8)))
    add_flat(plan, rng, np.array(hall.exterior.coords)[:4], float(rng.uniform(10, 18)))


def _works(plan: Plan, rng, site: Polygon) -> None:
    """Sheds with metal roofs on a yard with containers."""
    site = Polygon(site.exterior)
    c, bearing, length, width = _axes(site)
    u, v = np.array((math.cos(bearing), math.sin(bearing))), np.array((-math.sin(bearing), math.cos(bearing)))
    plan.add("ground", np.array(site.exterior.coords), pick(rng, plan.city.grass), rng)
    core = site.buffer(-6)
    for part in _parts(core, 1500)[:1]:
        plan.add("pavement", np.array(part.exterior.coords), pick(rng, (("concrete", 1.0), ("asphalt", 1.0), ("gravel", 0.6))), rng, vary=0.12)
        plan.cover["road"].append(Polygon(part.exterior))
        core = part.buffer(-5)
    built: list[Polygon] = []
    for _ in range(30):
        at = c + rng.uniform(-0.45, 0.45) * length * u + rng.uniform(-0.4, 0.4) * width * v
        a, b = float(rng.uniform(40, 95)), float(rng.uniform(26, 52))
        turned = bearing + (math.pi / 2 if rng.random() < 0.3 else 0.0)
        shed = Polygon(rectangle(*at, turned, a, b))
        if not core.contains(shed) or any(shed.buffer(9).intersects(o) for o in built):
            continue
        if rng.random() < 0.6:
            thing = plan.thing("building", shed)
            plan.cover["building"].append(shed)
            add_pitched(plan, rng, thing, (float(at[0]), float(at[1]), turned, a, b), pick(rng, (("grey metal", 1.0), ("blue metal", 0.4), ("brown tile", 0.3), ("slate", 0.5), ("terracotta", 0.2))), float(rng.uniform(10, 15)), 0.16, False)
            built.append(shed)
        else:
            built.append(add_flat(plan, rng, np.array(shed.exterior.coords)[:4], float(rng.uniform(10, 18))))
        if len(built) == 4:
            break
    paints = ((0.30, 0.09, 0.06, 0.32), (0.06, 0.12, 0.25, 0.18), (0.30, 0.30, 0.29, 0.31), (0.10, 0.20, 0.12, 0.22), (0.34, 0.20, 0.06, 0.36))
    stacks: list[Polygon] = []
    for _ in range(int(rng.integers(3, 14))):  # containers: as long as two cars, and not labelled
        at = c + rng.uniform(-0.45, 0.45) * length * u + rng.uniform(-0.45, 0.45) * width * v
        spot = Polygon(rectangle(*at, bearing + (math.pi / 2 if rng.random() < 0.3 else 0), rng.choice([12.2, 24.4]), 4.9))
        if core.contains(spot) and not any(spot.buffer(2).intersects(o) for o in built + stacks):
            stacks.append(spot)
            plan.add("furniture", np.array(spot.exterior.coords), "grey metal", rng, colour=paints[int(rng.integers(5))], vary=0.1, rows=Rows(bearing + math.pi / 2, 1.2, 0.05), plane=(0, 0, 5.2))
    for _ in range(int(rng.integers(2, 12))):
        at = c + rng.uniform(-0.45, 0.45) * length * u + rng.uniform(-0.45, 0.45) * width * v
        spot = Point(*at).buffer(7)
        if core.contains(spot) and not any(spot.intersects(o) for o in built + stacks):
            stacks.append(spot)
            add_car(plan, rng, *at, bearing + math.pi / 2 * int(rng.integers(4)) + rng.normal(0, 0.05))


def _path(plan: Plan, rng, site: Polygon, points: np.ndarray, half: float, material: str) -> None:
    shape = LineString(points).buffer(half, cap_style="flat").intersection(site)
    for part in _parts(shape, 20):
        plan.add("pavement", np.array(part.exterior.coords), material, rng, vary=0.02)
        plan.cover["road"].append(Polygon(part.exterior))


def _park(plan: Plan, rng, site: Polygon) -> None:
    """Lawn, winding paths, groups of trees, and often a pitch or courts."""
    site = Polygon(site.exterior)
    plan.add("ground", np.array(site.exterior.coords), pick(rng, plan.city.grass), rng)
    c, bearing, length, width = _axes(site)
    u, v = np.array((math.cos(bearing), math.sin(bearing))), np.array((-math.sin(bearing), math.cos(bearing)))
    used: list[Polygon] = []
    if length > 190 and width > 110 and rng.random() < 0.6:
        pitch = rectangle(*c, bearing, min(200.0, length * 0.8), min(130.0, width * 0.75))
        if site.buffer(-2).contains(Polygon(pitch)):
            _pitch(plan, rng, pitch, bearing)
            used.append(Polygon(pitch).buffer(3))
    elif rng.random() < 0.5:
        material = "clay court" if rng.random() < 0.6 else "hard court"
        for k in range(int(rng.integers(1, 4))):
            court = rectangle(*(c + (k - 1) * 40 * v), bearing, 72, 36)
            if site.buffer(-4).contains(Polygon(court)):
                plan.add("parcel", court, material, rng, vary=0.02)
                middle = c + (k - 1) * 40 * v
                _outline(plan, rng, rectangle(*middle, bearing, 47.5, 22), 0.35)
                plan.add("marking", rectangle(*middle, bearing, 0.4, 26), "paint", rng)
                used.append(Polygon(court).buffer(2))
    free = site.buffer(-2).difference(unary_union(used)) if used else site.buffer(-2)
    for k in range(int(rng.integers(1, 3))):
        t, offset = _wander(rng, length * 1.1, width * 0.12, length)
        line = c + t[:, None] * (u if k == 0 else v) + (offset + (rng.choice([-1, 1]) * width * 0.3 if used else 0))[:, None] * (v if k == 0 else u)
        _path(plan, rng, free, line, float(rng.uniform(2.2, 3.6)), "gravel" if rng.random() < 0.6 else "pavement")
    for part in _parts(free, 100):
        for x, y in _scatter(rng, part, 0.00035):
            for _ in range(int(rng.integers(1, 9))):
                r = float(rng.uniform(3.5, 9))
                at = np.array((x, y)) + rng.normal(0, 14, 2)
                if part.contains(Point(*at)):
                    add_crown(plan, rng, *at, r, r * float(rng.uniform(1.8, 2.6)))


def _outline(plan: Plan, rng, corners: np.ndarray, width: float) -> None:
    for a, b in zip(corners, np.roll(corners, -1, 0)):
        edge = b - a
        plan.add("marking", rectangle(*((a + b) / 2), math.atan2(edge[1], edge[0]), float(np.linalg.norm(edge)), width), "paint", rng, vary=0.02)


def _pitch(plan: Plan, rng, corners: np.ndarray, bearing: float) -> None:
    """A football pitch with mowing stripes and lines; open ground that looks like a field."""
    length, width = float(np.linalg.norm(corners[1] - corners[0])), float(np.linalg.norm(corners[3] - corners[0]))
    c = corners.mean(0)
    u = np.array((math.cos(bearing), math.sin(bearing)))
    plan.add("parcel", corners, "turf", rng, rows=Rows(bearing + math.pi / 2, float(rng.uniform(14, 22)), 0.10))
    _outline(plan, rng, rectangle(*c, bearing, length - 8, width - 8), 0.4)
    plan.add("marking", rectangle(*c, bearing, 0.4, width - 8), "paint", rng, vary=0.02)
    circle = Point(*c).buffer(width * 0.13).exterior.buffer(0.2)
    plan.add("marking", np.array(circle.exterior.coords), "paint", rng, vary=0.02)
    plan.add("marking", np.array(circle.interiors[0].coords), "turf", rng, vary=0.02)
    plan.add("marking", rectangle(*c, bearing, 0.4, width * 0.25), "paint", rng, vary=0.02)
    for s in (-1, 1):
        _outline(plan, rng, rectangle(*(c + s * (length / 2 - 4 - 0.08 * length) * u), bearing, 0.16 * length, 0.55 * width), 0.4)


def _bare(plan: Plan, rng, site: Polygon) -> None:
    """Bare ground without rows: a building site, a dirt lot; open ground the colour of tiles and ploughed fields."""
    plan.add("ground", np.array(site.exterior.coords), pick(rng, plan.city.grass), rng)
    soil = pick(rng, ((plan.city.soil, 2.0), ("soil", 1.0), ("dark soil", 0.5)))
    for part in _parts(site.buffer(-4), 200)[:1]:
        plan.add("parcel", np.array(part.exterior.coords), soil, rng, vary=0.12)
        for _ in range(int(rng.integers(2, 7))):
            x, y = np.array(part.centroid.coords[0]) + rng.normal(0, 30, 2)
            t, offset = _wander(rng, 220, 12, 420)
            turn = rng.uniform(0, math.pi)
            line = np.stack((x + t * math.cos(turn) - offset * math.sin(turn), y + t * math.sin(turn) + offset * math.cos(turn)), 1)
            for side in (-1.8, 1.8):
                rut = LineString(line).offset_curve(side).buffer(0.7).intersection(part)
                for piece in _parts(rut, 10):
                    plan.add("crop", np.array(piece.exterior.coords), "dark soil" if rng.random() < 0.5 else "sand", rng)
        for x, y in _scatter(rng, part, 0.0006):
            blob = Point(x, y).buffer(float(rng.uniform(2, 12)), quad_segs=3)
            blob = Polygon(np.array(blob.exterior.coords)[:-1] + rng.normal(0, 1.2, (len(blob.exterior.coords) - 1, 2))).buffer(0)
            for piece in _parts(blob.intersection(part), 4)[:1]:
                plan.add("crop", np.array(piece.exterior.coords), pick(rng, (("dry grass", 1.0), ("meadow", 0.7), (soil, 1.5), ("sand", 0.5))), rng, vary=0.12)
    _trees(plan, rng, site, 0.0003)


# ---------------------------------------------------------------- country


def _cut(rng, site: Polygon, target: float, crooked: float, depth: int = 0) -> list[Polygon]:
    """Parcels of about `target` pixels, cut across the longer side again and again."""
    if site.area < 1.5 * target or depth > 7:
        return [site]
    c, bearing, length, _ = _axes(site)
    at = c + rng.uniform(-0.16, 0.16) * length * np.array((math.cos(bearing), math.sin(bearing)))
    across = bearing + math.pi / 2 + rng.normal(0, crooked)
    t, offset = _wander(rng, 6 * length, 16 * crooked, 500, 25)
    d, n = np.array((math.cos(across), math.sin(across))), np.array((-math.sin(across), math.cos(across)))
    knife = LineString(at + t[:, None] * d + offset[:, None] * n)
    parts = [p for p in split(site, knife).geoms if p.geom_type == "Polygon"]
    if len(parts) < 2:
        return [site]
    return [q for p in parts for q in _cut(rng, p, target * float(rng.uniform(0.7, 1.4)), crooked, depth + 1)]


def _country(plan: Plan, rng, site: Polygon) -> None:
    city = plan.city
    site = Polygon(site.exterior).buffer(0)
    target = float(rng.uniform(*city.parcel))
    for parcel in _cut(rng, site, target, city.crooked):
        kind = pick(rng, city.land)
        if parcel.area < 2500:
            kind = "wood" if rng.random() < 0.35 else "meadow"
        {"field": _field, "wood": _wood, "meadow": _meadow, "bare": _bare}[kind](plan, rng, parcel)


def _field(plan: Plan, rng, parcel: Polygon) -> None:
    city = plan.city
    plan.add("ground", np.array(parcel.exterior.coords), "verge", rng)
    crop = city.crops[int(rng.choice(len(city.crops), p=np.array([c.weight for c in city.crops]) / sum(c.weight for c in city.crops)))]
    for inner in _parts(parcel.buffer(-float(rng.uniform(2.5, 5)), join_style="mitre"), 1500)[:1]:
        _, bearing, _, _ = _axes(inner)
        bearing += rng.choice([0.0, 0.0, 0.0, math.pi / 2]) + rng.normal(0, 0.03)
        period, contrast = float(rng.uniform(*crop.period)), float(rng.uniform(*crop.contrast))
        tone = tuple(np.array(MATERIALS[crop.material].colour) * np.exp(rng.normal(0, 0.10)) * np.exp(rng.normal(0, 0.06, 4)))
        tram = int(rng.integers(6, 11)) if crop.material in ("green cereal", "ripe cereal", "young crop") else 0
        outline = np.array(inner.exterior.coords)
        plan.cover["field"].append(Polygon(inner.exterior))
        plan.add("parcel", outline, crop.material, rng, colour=tone, vary=0.0, rows=Rows(bearing + math.pi / 2, period, contrast))
        main = inner.buffer(-float(rng.uniform(9, 16)), join_style="mitre") if crop.material not in ("vines", "orchard") else inner
        for part in _parts(main, 800):
            plan.add("crop", np.array(part.exterior.coords), crop.material, rng, colour=tone, vary=0.02, rows=Rows(bearing, period, contrast, tram))
        if crop.material == "orchard":
            _orchard(plan, rng, inner.buffer(-4), bearing, period)
    if rng.random() < city.hedges:
        _hedgerow(plan, rng, parcel)


def _orchard(plan: Plan, rng, site: Polygon, bearing: float, period: float) -> None:
    """Small crowns on a grid; they belong to the field."""
    if site.is_empty:
        return
    c, _, _, _ = _axes(site)
    u, v = np.array((math.cos(bearing), math.sin(bearing))), np.array((-math.sin(bearing), math.cos(bearing)))
    reach = math.hypot(site.bounds[2] - site.bounds[0], site.bounds[3] - site.bounds[1]) / 2
    radius = float(rng.uniform(0.26, 0.38)) * period
    colour = plan.city.crowns[0][0]
    s, t = np.meshgrid(np.arange(-reach, reach, period), np.arange(-reach, reach, period * rng.uniform(0.75, 1.1)))
    xy = c + s.reshape(-1, 1) * v + t.reshape(-1, 1) * u
    xy = xy[shapely.contains_xy(site, xy[:, 0], xy[:, 1])]
    xy = xy[rng.random(len(xy)) > 0.05]
    for x, y in xy + rng.normal(0, 0.4, xy.shape):
        r = radius * float(rng.uniform(0.75, 1.15))
        add_crown(plan, rng, x, y, r, r * 1.6, colour, canopy=False)


def _hedgerow(plan: Plan, rng, parcel: Polygon) -> None:
    """Crowns in a line along part of a parcel's boundary."""
    ring = parcel.exterior
    start, share = float(rng.uniform(0, ring.length)), float(rng.uniform(0.25, 0.7))
    at = 0.0
    tall = rng.random() < 0.5
    while at < share * ring.length:
        x, y = ring.interpolate((start + at) % ring.length).coords[0]
        r = float(rng.uniform(2.4, 6.5 if tall else 3.6))
        add_crown(plan, rng, x + rng.normal(0, 0.8), y + rng.normal(0, 0.8), r, r * float(rng.uniform(1.4, 2.4)))
        at += r * float(rng.uniform(0.9, 1.7)) if rng.random() < 0.93 else float(rng.uniform(10, 30))


def _wood(plan: Plan, rng, parcel: Polygon) -> None:
    """Crowns close together, of a main species and others."""
    city = plan.city
    plan.add("ground", np.array(parcel.exterior.coords), "verge", rng)
    stand = parcel.buffer(-float(rng.uniform(5, 9)))
    if stand.is_empty:
        return
    weights = np.array([w for _, w in city.crowns]) ** rng.uniform(0.5, 3)
    weights /= weights.sum()
    mean = float(rng.uniform(5.0, 7.5))
    beat = 1.25 * mean
    x0, y0, x1, y1 = stand.bounds
    s, t = np.meshgrid(np.arange(x0, x1, beat), np.arange(y0, y1, beat * 0.87))
    s = s + (np.arange(len(s)) % 2)[:, None] * beat / 2
    xy = np.stack((s.ravel(), t.ravel()), 1) + rng.normal(0, 0.22 * beat, (s.size, 2))
    inside = shapely.contains_xy(stand, xy[:, 0], xy[:, 1])
    for x, y in xy[inside & (rng.random(len(xy)) > 0.04)]:
        r = mean * float(np.clip(np.exp(rng.normal(0, 0.24)), 0.55, 1.5))
        colour = city.crowns[int(rng.choice(len(weights), p=weights))][0]
        add_crown(plan, rng, x, y, r, 20 + r * float(rng.uniform(1.2, 2.2)), colour)
    plan.cover["canopy"] += _parts(stand.buffer(-mean * 0.6), 40)


def _meadow(plan: Plan, rng, parcel: Polygon) -> None:
    """Grass without rows, sometimes mown, with single trees."""
    plan.add("ground", np.array(parcel.exterior.coords), pick(rng, plan.city.grass), rng, vary=0.14)
    for x, y in _scatter(rng, parcel, 0.0003):
        blob = Point(x, y).buffer(float(rng.uniform(8, 32)), quad_segs=4)
        shape = Polygon(np.array(blob.exterior.coords) + rng.normal(0, 2.5, (len(blob.exterior.coords), 2))).buffer(0).intersection(parcel)
        for part in _parts(shape, 20)[:1]:
            plan.add("parcel", np.array(part.exterior.coords), pick(rng, plan.city.grass), rng, vary=0.12)
    _trees(plan, rng, parcel.buffer(-6), float(rng.uniform(0.00008, 0.0005)), (3.5, 8.5))
    if rng.random() < plan.city.hedges * 0.7:
        _hedgerow(plan, rng, parcel)
