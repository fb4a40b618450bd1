"""The street network: where streets run, how they are painted, and the cars and trees along them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import shapely
from scipy.spatial import cKDTree
from shapely.geometry import LineString, Point, Polygon
from shapely.geometry.base import BaseGeometry

from rvkernels.datasets._towns.city import MATERIALS, City
from rvkernels.datasets._towns.plan import Plan, pick
from rvkernels.datasets._towns.shapes import axes, beside, rectangle, turned
from rvkernels.datasets._towns.things import add_car, add_crown


@dataclass(frozen=True)
class Street:
    """A stretch of road between two crossings."""

    line: LineString
    width: float  # of the carriageway
    pavement: float  # on each side; 0 in the country
    kind: str  # "arterial", "street" or "track"

    @property
    def paved(self) -> Polygon:
        return self.ribbon(self.width / 2 + self.pavement)

    def ribbon(self, half: float) -> Polygon:
        return Polygon(self.line.buffer(half, cap_style="round").exterior)

    def pose(self, at: float) -> tuple[float, float, float]:
        """x, y and bearing at a distance along the street."""
        p, q = self.line.interpolate(max(at - 1, 0)), self.line.interpolate(min(at + 1, self.line.length))
        here = self.line.interpolate(at)
        return here.x, here.y, math.atan2(q.y - p.y, q.x - p.x)


@dataclass(frozen=True)
class Network:
    """Streets, and the blocks of the pattern they follow, each in the town or not."""

    streets: list[Street]
    centres: np.ndarray  # (blocks, 2)
    urban: np.ndarray  # (blocks,) bool


# ---------------------------------------------------------------- where streets run


def _breaks(rng, reach: float, span: tuple[float, float]) -> list[float]:
    """Places from -reach to reach whose distances are drawn from `span`."""
    at, out = -reach - float(rng.uniform(0, span[1])), []
    while at < reach + span[1]:
        out.append(at)
        at += float(rng.uniform(*span))
    return out


def _nearest(values: list[float], wanted: float) -> float:
    return min(values, key=lambda v: abs(v - wanted))


def _cross_streets(rng, city: City, rows: int, reach: float, trunk: float, common: list[float]) -> list[list[float]]:
    """Where cross streets leave each row of blocks: everywhere the same, or each row its own, `trunk` in all."""
    if not city.staggered:
        return [common] * rows
    cuts: list[list[float]] = []
    for _ in range(rows):
        own = [u for u in _breaks(rng, reach, city.block[0]) if abs(u - trunk) > 80]
        if cuts and rng.random() < 0.5:  # some go straight on from the row before
            before = [_nearest(cuts[-1], u) for u in own]
            own = [b if abs(b - u) < 60 else u for b, u in zip(before, own)]
        own = sorted({*own, trunk})
        cuts.append([u for i, u in enumerate(own) if u == trunk or i == 0 or u - own[i - 1] > 50])
    return cuts


def _placement(rng, city: City, size: int):
    """The map from pattern coordinates (n, 2) to pixels: turned, then warped by smooth waves."""
    bearing = math.radians(float(rng.uniform(*city.bearing)))
    # strength, wave vector, phase, direction of the push
    waves = []
    for _ in range(4):
        strength, wave = rng.uniform(0.5, 1.0), 2 * np.pi / rng.uniform(450, 900)
        toward, push, phase = rng.uniform(0, 2 * math.pi, 3)
        waves.append((strength * axes(push)[0], wave * axes(toward)[0], phase))

    def place(uv: np.ndarray) -> np.ndarray:
        xy = turned(size / 2, size / 2, bearing, uv[:, 0], uv[:, 1])
        return xy + city.warp / 2 * sum(np.sin(xy @ wave + phase)[:, None] * push for push, wave, phase in waves)

    return place


def street_network(rng, city: City, size: int, urban_share: float, water: BaseGeometry, frame: Polygon) -> Network:
    """Rows of blocks, turned and warped. The town has every street of the pattern, the country only the main ones."""
    reach = 0.72 * size + 60
    rows = _breaks(rng, reach, city.block[1])
    common = _breaks(rng, reach, city.block[0])
    trunk = _nearest(common, rng.uniform(-0.25, 0.25) * size)
    main = _nearest(rows[1:-1], rng.uniform(-0.3, 0.3) * size)
    cuts = _cross_streets(rng, city, len(rows) - 1, reach, trunk, common)
    place = _placement(rng, city, size)

    cells = [(j, k) for j in range(len(cuts)) for k in range(len(cuts[j]) - 1)]
    middles = [((cuts[j][k] + cuts[j][k + 1]) / 2, (rows[j] + rows[j + 1]) / 2) for j, k in cells]
    centres = place(np.array(middles))
    # The town lies to one side, with a wavy edge.
    density = (centres - size / 2) @ axes(rng.uniform(0, 2 * math.pi))[0] / size
    density += 0.25 * np.sin(centres @ rng.normal(0, 2 * np.pi / size, 2) + rng.uniform(0, 6.3))
    density += rng.normal(0, 0.06, len(cells))
    inside = shapely.contains_xy(frame, centres[:, 0], centres[:, 1])
    urban = density > np.quantile(density[inside], 1 - urban_share)
    town = {cell for cell, is_urban in zip(cells, urban) if is_urban}

    def cell_at(j: int, u: float) -> tuple[int, int]:
        return (j, int(np.searchsorted(cuts[j], u)) - 1) if 0 <= j < len(cuts) else (-1, -1)

    def stretch(a: tuple[float, float], b: tuple[float, float]) -> LineString:
        n = max(2, int(math.dist(a, b) / 10)) if city.warp else 2
        return LineString(place(np.linspace(a, b, n)))

    raw: list[tuple[LineString, bool, bool]] = []  # (line, arterial, beside the town)
    for j, v in enumerate(rows):
        points = sorted({*(cuts[j - 1] if j else ()), *(cuts[j] if j < len(cuts) else ())})
        for u0, u1 in zip(points[:-1], points[1:]):
            beside_town = {cell_at(j - 1, (u0 + u1) / 2), cell_at(j, (u0 + u1) / 2)} & town
            raw.append((stretch((u0, v), (u1, v)), v == main, bool(beside_town)))
    for j, cut in enumerate(cuts):
        for k, u in enumerate(cut):
            raw.append((stretch((u, rows[j]), (u, rows[j + 1])), u == trunk, bool({(j, k - 1), (j, k)} & town)))

    local = float(rng.uniform(*city.street))
    wide = local + float(rng.uniform(6, 10))
    wet = water.buffer(14)
    streets = []
    for line, arterial, in_town in raw:
        if not line.intersects(frame) or not (arterial or in_town or rng.random() < 0.10):
            continue
        if not arterial and line.intersects(wet):
            continue
        for part in shapely.get_parts(line.intersection(frame)):
            if part.geom_type != "LineString" or part.length < 4:
                continue
            if arterial and in_town:
                streets.append(Street(part, wide, city.pavement + 1.5, "arterial"))
            elif arterial:
                streets.append(Street(part, 14.0, 0.0, "arterial"))
            elif in_town:
                streets.append(Street(part, local, city.pavement, "street"))
            else:
                streets.append(Street(part, 6.5, 0.0, "track"))
    return Network(_connected(streets, frame), centres, urban)


def _key(point) -> tuple[int, int]:
    return round(point[0]), round(point[1])


def _connected(streets: list[Street], frame: Polygon) -> list[Street]:
    """Without the stretches that end nowhere, which dropped stretches leave behind."""
    inside = frame.buffer(-1)
    while True:
        ends = Counter(_key(s.line.coords[i]) for s in streets for i in (0, -1))

        def leads_on(point, ends=ends) -> bool:
            return ends[_key(point)] > 1 or not inside.contains(Point(point))

        kept = [s for s in streets if s.kind == "arterial" or all(leads_on(s.line.coords[i]) for i in (0, -1))]
        if len(kept) == len(streets):
            return kept
        streets = kept


class Crossings:
    """Points where three or more stretches meet."""

    def __init__(self, streets: list[Street]):
        ends: dict[tuple[int, int], list[tuple[Street, np.ndarray, np.ndarray]]] = {}
        for s in streets:
            coords = np.array(s.line.coords)
            for here, there in ((coords[0], coords[1]), (coords[-1], coords[-2])):
                ends.setdefault(_key(here), []).append((s, here, (there - here) / np.linalg.norm(there - here)))
        self.arms = [arms for arms in ends.values() if len(arms) >= 3]  # (street, crossing, direction away from it)
        self._tree = cKDTree([arms[0][1] for arms in self.arms] or [(math.inf, math.inf)])
        self._radius = [max(s.width / 2 for s, _, _ in arms) + 7 for arms in self.arms]

    def near(self, x: float, y: float) -> bool:
        """Whether a point is where no marking is painted, no car parks and no tree stands."""
        distance, i = self._tree.query((x, y))
        return bool(self._radius) and distance < self._radius[i]


# ---------------------------------------------------------------- how they look


def add_streets(plan: Plan, streets: list[Street], crossings: Crossings, water: BaseGeometry) -> None:
    """Pavements, kerbs, asphalt with mended places, markings, bridge railings, zebra crossings."""
    rng = plan.rng
    fresh = rng.random() < 0.3  # the arterials have just been resurfaced
    worn = np.array(MATERIALS["asphalt"].colour) * float(np.exp(rng.normal(0, 0.12)))
    for s in streets:
        plan.cover["road"].append(s.paved)
        if s.kind == "track":
            plan.add("pavement", s.paved, "track")
            for side in (-1.5, 1.5):
                plan.add("kerb", s.line.offset_curve(side).buffer(0.7), plan.city.soil)
            continue
        if s.pavement:
            plan.add("pavement", s.paved, "pavement", vary=0.02)
            plan.add("kerb", s.ribbon(s.width / 2 + 0.5), "kerb", vary=0.02)
        if s.kind == "arterial" and fresh:
            plan.add("asphalt", s.ribbon(s.width / 2), "new asphalt", vary=0.015)
        else:
            plan.add("asphalt", s.ribbon(s.width / 2), "asphalt", colour=tuple(worn), vary=0.015)
        if s.line.length > 30 and rng.random() < 0.5:
            for _ in range(int(rng.integers(1, 4))):
                x, y, bearing = s.pose(rng.uniform(0, s.line.length))
                at = beside(x, y, bearing, rng.uniform(-0.3, 0.3) * s.width)
                patch = rectangle(*at, bearing, rng.uniform(3, 20), rng.uniform(2, 5))
                plan.add("asphalt", patch, "asphalt", colour=tuple(worn * rng.choice([0.78, 1.15])))
        if s.kind == "arterial":
            _add_markings(plan, s, crossings)
            for rail in _railings(s, water):
                plan.add("furniture", rail, "kerb", plane=(0, 0, 2.0))
    for arms in crossings.arms:
        _add_zebras(plan, arms)


def _add_markings(plan: Plan, street: Street, crossings: Crossings) -> None:
    """Dashes along the middle; lane dashes on wide streets, edge lines in the country."""
    beat = 12.0 if street.pavement else 18.0
    lines = [(0.0, 6.0, 0.4)]  # (offset, length, width)
    if street.width > 21:
        lines += [(side * 0.25 * street.width, 5.0, 0.35) for side in (-1, 1)]
    if not street.pavement:
        lines += [(side * (street.width / 2 - 0.9), beat + 0.5, 0.35) for side in (-1, 1)]
    for at in np.arange(0.0, street.line.length, beat):
        x, y, bearing = street.pose(at)
        if not crossings.near(x, y):
            for offset, length, width in lines:
                plan.add("marking", rectangle(*beside(x, y, bearing, offset), bearing, length, width), "paint")


def _railings(street: Street, water: BaseGeometry) -> Iterator[Polygon]:
    """Both railings where a street crosses water."""
    for line in shapely.get_parts(street.line.intersection(water)):
        if line.geom_type == "LineString" and line.length > 4:
            for side in (-1, 1):
                rail = line.offset_curve(side * (street.width / 2 + street.pavement + 0.3))
                yield from (e.buffer(0.6, cap_style="square") for e in shapely.get_parts(rail) if e.length > 2)


def _add_zebras(plan: Plan, arms) -> None:
    """Zebra crossings, and stop lines where an arterial is met, at most town crossings."""
    busy = any(s.kind == "arterial" for s, _, _ in arms)
    if not all(s.pavement for s, _, _ in arms) or plan.rng.random() > (0.75 if busy else 0.2):
        return
    reach = max(s.width / 2 for s, _, _ in arms)
    for s, here, away in arms:
        if s.line.length < 2 * reach + 24:
            continue
        bearing = math.atan2(away[1], away[0])
        across = axes(bearing)[1]
        middle = here + (reach + plan.city.pavement + 4) * away
        for offset in np.arange(1.2 - s.width / 2, s.width / 2 - 0.6, 2.0):
            plan.add("marking", rectangle(*(middle + offset * across), bearing, 6, 1.0), "paint", vary=0.03)
        if busy:
            stop = middle + 6.5 * away - s.width / 4 * across
            plan.add("marking", rectangle(*stop, bearing, 0.8, s.width / 2 - 1.5), "paint")


# ---------------------------------------------------------------- what is along them


def add_traffic(plan: Plan, streets: list[Street], crossings: Crossings, frame: Polygon) -> None:
    """Cars in their lanes (right-hand traffic) and parked along the kerbs."""
    rng = plan.rng
    taken: list[tuple[float, float]] = []

    def put(x: float, y: float, bearing: float) -> None:
        if not frame.contains(Point(x, y)) or crossings.near(x, y):
            return
        if all(math.hypot(x - a, y - b) > 10.5 for a, b in taken):
            taken.append((x, y))
            add_car(plan, x, y, bearing + rng.normal(0, 0.025))

    parking = rng.uniform(0.15, 0.6)
    for s in streets:
        if s.kind == "track":
            continue
        gap = (70.0 if s.kind == "arterial" else 260.0) * rng.uniform(0.7, 1.8)
        lane = s.width * (0.25 if s.kind == "arterial" or s.width > 15 else 0.2)
        for side in (-1, 1):
            forward = 0.0 if side > 0 else math.pi
            at = float(rng.exponential(gap))
            while at < s.line.length:
                x, y, bearing = s.pose(at)
                put(*beside(x, y, bearing, side * lane), bearing + forward)
                at += 13 + float(rng.exponential(gap))
            if s.kind == "street" and (side > 0 or rng.random() < 0.4) and rng.random() < 0.75:
                at = float(rng.uniform(14, 20))
                while at < s.line.length - 14:
                    if rng.random() < parking:
                        x, y, bearing = s.pose(at)
                        turn = 0.0 if rng.random() < 0.7 else math.pi
                        put(*beside(x, y, bearing, side * (s.width / 2 - 2.4)), bearing + turn)
                    at += float(rng.uniform(11.5, 13.5))


def add_avenues(plan: Plan, streets: list[Street], crossings: Crossings) -> None:
    """Rows of trees on pavements and beside country roads."""
    rng = plan.rng
    for s in streets:
        if s.kind == "track" or rng.random() > (0.35 if s.pavement else 0.25):
            continue
        radius, beat = float(rng.uniform(3.0, 5.5)), float(rng.uniform(18, 34))
        species = pick(rng, plan.city.crowns)
        offset = s.width / 2 + (s.pavement * 0.75 if s.pavement else 7.0)
        for side in (-1, 1):
            for at in np.arange(beat / 2, s.line.length, beat):
                x, y = beside(*s.pose(at), side * offset)
                if rng.random() < 0.85 and not crossings.near(x, y):
                    r = radius * float(rng.uniform(0.8, 1.15))
                    add_crown(plan, x, y, r, r * float(rng.uniform(2.2, 3.0)), colour=species, avenue=True)
