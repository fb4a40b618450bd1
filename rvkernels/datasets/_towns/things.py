"""Houses, halls, cars and trees, built from surfaces."""

from __future__ import annotations

import math

import numpy as np
from shapely.geometry import Polygon

from rvkernels.datasets._towns.city import CAR_COLOURS, MATERIALS, Colour
from rvkernels.datasets._towns.plan import Crown, Plan, Rows, pick
from rvkernels.datasets._towns.shapes import axes, extent, rectangle, scatter

STOREY = 5.6
GLASS = (0.035, 0.040, 0.045, 0.050)

Box = tuple[float, float, float, float, float]  # x, y, bearing, length, width


def shifted(rng, colour: Colour, spread: float, hue: float) -> Colour:
    """The colour made lighter or darker, and each band by itself, by about these relative amounts."""
    return tuple(np.array(colour) * np.exp(spread * rng.standard_normal()) * np.exp(hue * rng.standard_normal(4)))


def _slope(eave: np.ndarray, uphill: np.ndarray, height: float, pitch: float) -> tuple[float, float, float]:
    """The plane that has `height` at `eave` and rises by `pitch` along the unit vector `uphill`."""
    a, b = pitch * uphill
    return float(a), float(b), float(height - a * eave[0] - b * eave[1])


def _pitched(plan: Plan, thing: int, box: Box, material: str, colour, eave: float, pitch: float, hip: bool) -> None:
    """A gable or hip roof over a rectangle; the ridge runs along its length."""
    x, y, bearing, length, width = box
    u, v = axes(bearing)
    a, b, c, d = rectangle(*box)
    half = max((length - width) / 2, 0.0) if hip else length / 2
    start, end = np.array((x, y)) - half * u, np.array((x, y)) + half * u
    sides = [((a, b, end, start), a, v, bearing), ((d, c, end, start), d, -v, bearing)]
    if hip:
        sides += [((a, d, start), a, u, bearing + math.pi / 2), ((b, c, end), b, -u, bearing + math.pi / 2)]
    for corners, foot, uphill, courses in sides:
        plane = _slope(foot, uphill, eave, pitch)
        tiles = Rows(courses, 1.6, 0.04)
        plan.add("roof", corners, material, colour=colour, vary=0.0, rows=tiles, plane=plane, thing=thing)


def add_shed(plan: Plan, shape: Polygon, material: str, eave: float, pitch: float, hip: bool) -> None:
    """A building with a plain pitched roof over a rectangle."""
    c, bearing, length, width = extent(shape)
    colour = shifted(plan.rng, MATERIALS[material].colour, 0.12, 0.03)
    box = (float(c[0]), float(c[1]), bearing, length, width)
    _pitched(plan, plan.thing("building", shape), box, material, colour, eave, pitch, hip)


def add_house(plan: Plan, box: Box, storeys: float, hip: bool) -> Polygon:
    """A house with a pitched roof, now and then with a wing, a chimney, roof windows or solar panels; its footprint."""
    rng = plan.rng
    x, y, bearing, length, width = box
    u, v = axes(bearing)
    c = np.array((x, y))
    material = pick(rng, plan.city.pitched)
    colour = shifted(rng, MATERIALS[material].colour, 0.12, 0.03)
    eave, pitch = storeys * STOREY, float(rng.uniform(0.5, 0.9))
    footprint = Polygon(rectangle(*box))
    wing = None
    if not hip and length > 20 and rng.random() < 0.3:
        half, reach = float(rng.uniform(0.55, 0.9)) * width / 2, float(rng.uniform(5, 9))
        out = v if rng.random() < 0.5 else -v
        foot = c + float(rng.uniform(-1, 1)) * (length / 2 - half) * u + width / 2 * out
        wing = np.array(
            (foot - half * u, foot + half * u, foot + half * u + reach * out, foot - half * u + reach * out)
        )
        apex, end = foot - half * out, foot + reach * out  # the wing's ridge, as high as its half width allows
        footprint = Polygon(footprint.union(Polygon(wing).buffer(0.01, join_style="mitre")).exterior)
    thing = plan.thing("building", footprint)
    _pitched(plan, thing, box, material, colour, eave, pitch, hip)
    if wing is not None:
        tiles = Rows(bearing + math.pi / 2, 1.6, 0.04)
        for near, far, uphill in ((wing[0], wing[3], u), (wing[1], wing[2], -u)):
            side = (apex, near, far, end)
            plane = _slope(near, uphill, eave, pitch)
            plan.add("roof", side, material, colour=colour, vary=0.0, rows=tiles, plane=plane, thing=thing)

    if rng.random() < 0.6:
        at = c + rng.uniform(-0.3, 0.3) * length * u + rng.uniform(-1.5, 1.5) * v
        chimney = rectangle(*at, bearing, 1.6, 1.4)
        plan.add("roof detail", chimney, "brown tile", plane=(0, 0, eave + pitch * width / 2 + 1.5), thing=thing)
    uphill = v if rng.random() < 0.5 else -v
    plane = _slope(c - uphill * width / 2, uphill, eave + 0.25, pitch)
    middle = c - 0.26 * width * uphill
    extra = rng.random()
    if extra < 0.14:
        panels = rectangle(*middle, bearing, min(2.1 * int(rng.integers(3, 8)), length * 0.75), width * 0.26)
        seams = Rows(bearing + math.pi / 2, 2.1, 0.25)
        plan.add("roof detail", panels, "solar panel", rows=seams, plane=plane, thing=thing)
    elif extra < 0.4 and not hip:
        for t in rng.uniform(-0.35, 0.35, int(rng.integers(1, 4))):
            window = rectangle(*(middle + t * length * u), bearing, 1.6, 2.2)
            plan.add("roof detail", window, "glass", plane=plane, thing=thing)
    return footprint


def add_flat(plan: Plan, footprint: Polygon, height: float, material: str | None = None) -> Polygon:
    """A building with a flat roof, with a parapet and things on the roof when it is large; its footprint."""
    rng = plan.rng
    thing = plan.thing("building", footprint)
    material = material or pick(rng, plan.city.flat)
    top = (0.0, 0.0, height)
    if footprint.area < 300:
        plan.add("roof", footprint, material, vary=0.12, plane=top, thing=thing)
        return footprint
    rim = "parapet" if rng.random() < 0.6 else "bitumen"
    plan.add("wall", footprint, rim, plane=(0, 0, height + 1.2), thing=thing)
    inner = footprint.buffer(-1.0, join_style="mitre")
    plan.add("roof", inner, material, vary=0.12, plane=top, thing=thing)
    c, bearing, _, _ = extent(footprint)
    x0, y0, x1, y1 = inner.bounds
    core = inner.buffer(-5)
    for _ in range(int(min(14, 2 + footprint.area / 900))):
        spot = rectangle(rng.uniform(x0, x1), rng.uniform(y0, y1), bearing, *rng.uniform(2, 7, 2))
        if core.contains(Polygon(spot)):
            kind = ("grey metal", "parapet", "glass", "bitumen")[int(rng.integers(4))]
            plan.add("roof detail", spot, kind, vary=0.15, plane=(0, 0, height + rng.uniform(1, 5)), thing=thing)
    if rng.random() < 0.2:
        n = int(rng.integers(2, 6))
        seams = Rows(bearing + math.pi / 2, 2.1, 0.2)
        for k in range(n):
            spot = rectangle(*(c + 5 * (k - n / 2) * axes(bearing)[1]), bearing, 24, 3)
            if inner.contains(Polygon(spot)):
                plan.add("roof detail", spot, "solar panel", rows=seams, plane=(0, 0, height + 1), thing=thing)
    return footprint


def add_car(plan: Plan, x: float, y: float, bearing: float) -> None:
    """A passenger car (4.1-4.9 m x 1.75-1.95 m) or, one in twelve, a van."""
    rng = plan.rng
    van = rng.random() < 0.08
    length, width = rng.uniform((10.4, 4.0), (12.0, 4.3)) if van else rng.uniform((8.2, 3.5), (9.8, 3.9))
    colour = CAR_COLOURS[0][0] if van and rng.random() < 0.6 else pick(rng, CAR_COLOURS)
    colour = shifted(rng, colour, 0.12, 0.0)
    u, v = axes(bearing)
    thing = plan.thing("car", Polygon(rectangle(x, y, bearing, length, width)))

    def part(front: float, back: float, half: float, taper: float, material: str, tone, height: float) -> None:
        """An oblong with cut corners, `back` to `front` in shares of the length, `half` of the width to each side."""
        right = ((back, taper), (back + 0.06, 1), (front - 0.1, 1), (front, taper))
        outline = right[::-1] + tuple((f, -s) for f, s in right)
        corners = [np.array((x, y)) + f * length * u + s * half * width * v for f, s in outline]
        plan.add("car", corners, material, colour=tone, vary=0.0, plane=(0, 0, height), thing=thing)

    if van:
        part(0.5, -0.5, 0.5, 0.72, "grey metal", colour, 3.0)
        part(0.36, 0.18, 0.44, 0.9, "glass", GLASS, 3.3)
        part(0.22, -0.48, 0.46, 0.95, "grey metal", colour, 4.2)
    else:
        back = float(rng.uniform(-0.45, -0.33))
        part(0.5, -0.5, 0.5, 0.72, "grey metal", colour, 1.7)
        part(0.22, back, 0.44, 0.85, "glass", GLASS, 2.5)
        part(0.07, back + 0.09, 0.40, 0.9, "grey metal", colour, 2.9)


def add_crown(
    plan: Plan,
    x: float,
    y: float,
    radius: float,
    height: float,
    *,
    colour: Colour | None = None,
    canopy: bool = True,
    avenue: bool = False,
) -> None:
    """A tree; see `Crown`."""
    rng = plan.rng
    tone = np.array(shifted(rng, colour or pick(rng, plan.city.crowns), 0.14, 0.05))
    plan.crowns.append(Crown(x, y, radius, height, tone, int(rng.integers(1 << 16)), canopy, avenue))


def scatter_trees(plan: Plan, site, per_pixel: float, radius: tuple[float, float] = (3.0, 7.5)) -> None:
    """Single trees at random places of a polygon."""
    for x, y in scatter(plan.rng, site, per_pixel):
        r = float(plan.rng.uniform(*radius))
        add_crown(plan, x, y, r, r * float(plan.rng.uniform(1.8, 2.8)))
