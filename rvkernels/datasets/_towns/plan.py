"""A scene as geometry: surfaces in painting order, tree crowns, labelled objects and land cover.

Coordinates are pixels of the scene (x right, y down, 0.5 m each); heights are pixels too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from shapely.geometry import Polygon

from rvkernels.datasets._towns.city import CAR_COLOURS, MATERIALS, City, Colour

# Painting order; later covers earlier.
LAYERS = (
    "ground", "parcel", "crop", "shore", "water", "deep water", "pavement", "kerb", "asphalt", "marking", "furniture",
    "car", "wall", "roof", "roof detail",
)  # fmt: skip
LAYER = {name: i for i, name in enumerate(LAYERS)}

ROWS = 24  # columns of a surface record, see Plan.add


@dataclass(frozen=True)
class Rows:
    """Parallel rows on a surface: `bearing` of the rows in radians, `tramline` rows between wheel tracks (0: none)."""

    bearing: float
    period: float
    contrast: float
    tramline: int = 0


@dataclass
class Plan:
    """What `layout` fills in, `paint` draws and `cover` labels."""

    city: City
    size: int
    margin: int
    sun_azimuth: float  # degrees clockwise from north
    sun_elevation: float
    polygons: list[tuple[int, np.ndarray]] = field(default_factory=list)  # (layer, (k, 2) corners)
    records: list[tuple] = field(default_factory=list)  # beside `polygons`: what `add` was given
    crowns: list[tuple] = field(default_factory=list)  # x, y, radius, height, colour, stamp, canopy (bool)
    objects: list[tuple[str, Polygon]] = field(default_factory=list)
    cover: dict[str, list[Polygon]] = field(default_factory=lambda: {c: [] for c in ("field", "water", "road", "building", "canopy")})
    swath: Polygon | None = None

    def add(
        self,
        layer: str,
        corners,
        material: str,
        rng: np.random.Generator,
        *,
        colour: Colour | None = None,
        vary: float = 0.06,
        rows: Rows | None = None,
        plane: tuple[float, float, float] = (0.0, 0.0, 0.0),
        thing: int = -1,
    ) -> None:
        """One surface: a polygon of a material whose height is plane[0] x + plane[1] y + plane[2].

        `vary` is the relative spread of its colour between surfaces, `thing` the index of its object or -1.
        """
        corners = np.asarray(corners, np.float64)
        if len(corners) < 3:
            return
        kind = MATERIALS[material]
        base = np.array(colour or kind.colour) * (1 + vary * rng.standard_normal()) * (1 + 0.3 * vary * rng.standard_normal(4))
        self.polygons.append((LAYER[layer], corners))
        self.records.append((base, kind, rows, plane, thing))

    def thing(self, kind: str, footprint: Polygon) -> int:
        """Index of a new labelled object."""
        self.objects.append((kind, footprint))
        return len(self.objects) - 1


def pick(rng: np.random.Generator, weighted) -> str:
    """One name of ((name, weight), ...)."""
    weights = np.array([w for _, w in weighted], float)
    return weighted[int(rng.choice(len(weighted), p=weights / weights.sum()))][0]


def rectangle(x: float, y: float, bearing: float, length: float, width: float) -> np.ndarray:
    """(4, 2) corners around the centre; `length` runs along `bearing` (radians from x towards y)."""
    u = np.array((math.cos(bearing), math.sin(bearing))) * length / 2
    v = np.array((-math.sin(bearing), math.cos(bearing))) * width / 2
    c = np.array((x, y))
    return np.array((c - u - v, c + u - v, c + u + v, c - u + v))


def _slope(eave: np.ndarray, uphill: np.ndarray, height: float, pitch: float) -> tuple[float, float, float]:
    """The plane that has `height` at `eave` and rises by `pitch` along the unit vector `uphill`."""
    a, b = pitch * uphill
    return float(a), float(b), float(height - a * eave[0] - b * eave[1])


def add_pitched(plan: Plan, rng, thing: int, box, material: str, eave: float, pitch: float, hip: bool, colour=None) -> None:
    """A gable or hip roof over the rectangle `box` = (x, y, bearing, length, width); the ridge runs along `length`."""
    x, y, bearing, length, width = box
    u = np.array((math.cos(bearing), math.sin(bearing)))
    v = np.array((-u[1], u[0]))
    c = np.array((x, y))
    a, b = length / 2, width / 2
    r = max(a - b, 0.0) if hip else a
    tile = Rows(bearing, 1.6, 0.04)
    p = [c - a * u - b * v, c + a * u - b * v, c + a * u + b * v, c - a * u + b * v]
    ridge = (c - r * u, c + r * u)
    options = {"colour": colour, "vary": 0.0, "thing": thing}
    plan.add("roof", (p[0], p[1], ridge[1], ridge[0]), material, rng, rows=tile, plane=_slope(p[0], v, eave, pitch), **options)
    plan.add("roof", (p[3], p[2], ridge[1], ridge[0]), material, rng, rows=tile, plane=_slope(p[3], -v, eave, pitch), **options)
    if hip:
        tile = Rows(bearing + math.pi / 2, 1.6, 0.04)
        plan.add("roof", (p[0], p[3], ridge[0]), material, rng, rows=tile, plane=_slope(p[0], u, eave, pitch), **options)
        plan.add("roof", (p[1], p[2], ridge[1]), material, rng, rows=tile, plane=_slope(p[1], -u, eave, pitch), **options)


def _tinted(rng, material: str, spread: float) -> Colour:
    return tuple(np.array(MATERIALS[material].colour) * np.exp(spread * rng.standard_normal()) * np.exp(0.03 * rng.standard_normal(4)))


def add_house(plan: Plan, rng, box, storeys: float, hip: bool) -> Polygon:
    """A house with a pitched roof, now and then with a wing, a chimney, roof windows or solar panels; its footprint."""
    x, y, bearing, length, width = box
    material = pick(rng, plan.city.pitched)
    colour = _tinted(rng, material, 0.12)
    eave, pitch = storeys * 5.6, float(rng.uniform(0.5, 0.9))
    u = np.array((math.cos(bearing), math.sin(bearing)))
    v = np.array((-u[1], u[0]))
    c = np.array((x, y))
    footprint = Polygon(rectangle(*box))
    wing = None
    if not hip and rng.random() < 0.3 and length > 20:
        half = float(rng.uniform(0.55, 0.9)) * width / 2
        reach = float(rng.uniform(5, 9))
        side = 1 if rng.random() < 0.5 else -1
        along = float(rng.uniform(-1, 1)) * (length / 2 - half)
        foot = c + along * u + side * (width / 2) * v
        wing = (foot, side * v, half, reach)
        footprint = footprint.union(Polygon((foot - half * u - side * v, foot + half * u - side * v, foot + half * u + side * reach * v, foot - half * u + side * reach * v)))
        footprint = Polygon(footprint.exterior)
    thing = plan.thing("building", footprint)
    plan.cover["building"].append(footprint)
    add_pitched(plan, rng, thing, box, material, eave, pitch, hip, colour)
    if wing:
        foot, out, half, reach = wing
        apex = foot - out * half
        end = foot + out * reach
        tile = Rows(bearing + math.pi / 2, 1.6, 0.04)
        for s in (-1, 1):
            plane = _slope(foot + s * half * u, -s * u, eave, pitch)
            plan.add("roof", (apex, foot + s * half * u, end + s * half * u, end), material, rng, colour=colour, vary=0.0, rows=tile, plane=plane, thing=thing)
    ridge = eave + pitch * width / 2
    if rng.random() < 0.6:
        at = c + u * rng.uniform(-0.3, 0.3) * length + v * rng.uniform(-1.5, 1.5)
        plan.add("roof detail", rectangle(*at, bearing, 1.6, 1.4), "brown tile", rng, plane=(0, 0, ridge + 1.5), thing=thing)
    slope_axis = v if rng.random() < 0.5 else -v
    plane = _slope(c - slope_axis * width / 2, slope_axis, eave + 0.25, pitch)
    middle = c - slope_axis * width * 0.26
    chance = rng.random()
    if chance < 0.14:
        n = int(rng.integers(3, 8))
        plan.add("roof detail", rectangle(*middle, bearing, min(2.1 * n, length * 0.75), width * 0.26), "solar panel", rng, rows=Rows(bearing + math.pi / 2, 2.1, 0.25), plane=plane, thing=thing)
    elif chance < 0.4 and not hip:
        for t in rng.uniform(-0.35, 0.35, int(rng.integers(1, 4))):
            plan.add("roof detail", rectangle(*(middle + t * length * u), bearing, 1.6, 2.2), "glass", rng, plane=plane, thing=thing)
    return footprint


def add_flat(plan: Plan, rng, corners: np.ndarray, height: float, material: str | None = None, detail: bool = True) -> Polygon:
    """A building with a flat roof, a parapet and things on the roof; its footprint."""
    footprint = Polygon(corners)
    thing = plan.thing("building", footprint)
    plan.cover["building"].append(footprint)
    material = material or pick(rng, plan.city.flat)
    large = footprint.area > 300
    if large:
        plan.add("wall", corners, "parapet" if rng.random() < 0.6 else "bitumen", rng, plane=(0, 0, height + 1.2), thing=thing)
        inner = footprint.buffer(-1.0, join_style="mitre")
        if inner.geom_type != "Polygon" or inner.is_empty:
            inner = footprint
        plan.add("roof", np.array(inner.exterior.coords), material, rng, vary=0.12, plane=(0, 0, height), thing=thing)
    else:
        inner = footprint
        plan.add("roof", corners, material, rng, vary=0.12, plane=(0, 0, height), thing=thing)
    if large and detail:
        x0, y0, x1, y1 = inner.bounds
        edge = corners[1] - corners[0]
        bearing = math.atan2(edge[1], edge[0])
        core = inner.buffer(-5)
        for _ in range(int(min(14, 2 + footprint.area / 900))):
            at = (rng.uniform(x0, x1), rng.uniform(y0, y1))
            size = rng.uniform(2, 7, 2)
            spot = rectangle(*at, bearing, *size)
            if core.contains(Polygon(spot)):
                kind = ("grey metal", "parapet", "glass", "bitumen")[int(rng.integers(4))]
                plan.add("roof detail", spot, kind, rng, vary=0.15, plane=(0, 0, height + rng.uniform(1, 5)), thing=thing)
        if rng.random() < 0.2:
            n = int(rng.integers(2, 6))
            c = np.array(core.centroid.coords[0]) if not core.is_empty else np.array(inner.centroid.coords[0])
            v = np.array((-math.sin(bearing), math.cos(bearing)))
            for k in range(n):
                spot = rectangle(*(c + v * 5 * (k - n / 2)), bearing, 24, 3)
                if inner.contains(Polygon(spot)):
                    plan.add("roof detail", spot, "solar panel", rng, rows=Rows(bearing + math.pi / 2, 2.1, 0.2), plane=(0, 0, height + 1), thing=thing)
    return footprint


def add_car(plan: Plan, rng, x: float, y: float, bearing: float) -> None:
    """A passenger car (4.1-4.9 m x 1.75-1.95 m) or, one in twelve, a van."""
    van = rng.random() < 0.08
    length, width = (float(rng.uniform(10.4, 12.0)), float(rng.uniform(4.0, 4.3))) if van else (float(rng.uniform(8.2, 9.8)), float(rng.uniform(3.5, 3.9)))
    colour = CAR_COLOURS[0][1] if van and rng.random() < 0.6 else pick(rng, tuple((c, w) for w, c in CAR_COLOURS))
    colour = tuple(np.array(colour) * np.exp(0.12 * rng.standard_normal()))
    u = np.array((math.cos(bearing), math.sin(bearing)))
    v = np.array((-u[1], u[0]))
    c = np.array((x, y))

    def part(front: float, back: float, half: float, taper: float) -> np.ndarray:
        return np.array([c + f * length * u + s * half * width * v for f, s in ((back, -taper), (back + 0.06, -1), (front - 0.1, -1), (front, -taper), (front, taper), (front - 0.1, 1), (back + 0.06, 1), (back, taper))])

    thing = plan.thing("car", Polygon(rectangle(x, y, bearing, length, width)))
    low, high = (3.0, 4.2) if van else (1.7, 2.9)
    plan.add("car", part(0.5, -0.5, 0.5, 0.72), "grey metal", rng, colour=colour, vary=0.0, plane=(0, 0, low), thing=thing)
    if van:
        plan.add("car", part(0.36, 0.18, 0.44, 0.9), "glass", rng, colour=(0.04, 0.045, 0.05, 0.05), plane=(0, 0, low + 0.3), thing=thing)
        plan.add("car", part(0.22, -0.48, 0.46, 0.95), "grey metal", rng, colour=colour, vary=0.0, plane=(0, 0, high), thing=thing)
    else:
        back = float(rng.uniform(-0.45, -0.33))
        plan.add("car", part(0.22, back, 0.44, 0.85), "glass", rng, colour=(0.035, 0.04, 0.045, 0.05), plane=(0, 0, high - 0.4), thing=thing)
        plan.add("car", part(0.07, back + 0.09, 0.40, 0.9), "grey metal", rng, colour=tuple(1.05 * np.array(colour)), vary=0.0, plane=(0, 0, high), thing=thing)


def add_crown(plan: Plan, rng, x: float, y: float, radius: float, height: float, colour: Colour | None = None, canopy: bool = True) -> None:
    """A tree. `canopy` says whether its crown is land cover of its own (fruit trees belong to their field)."""
    colour = colour or pick(rng, plan.city.crowns)
    colour = tuple(np.array(colour) * np.exp(0.14 * rng.standard_normal()) * np.exp(0.05 * rng.standard_normal(4)))
    plan.crowns.append((x, y, radius, height, colour, int(rng.integers(1 << 16)), canopy))
