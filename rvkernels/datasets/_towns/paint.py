"""From a plan to pixels: heights, light and shadow, surface texture, then air, lens and sensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from PIL import Image, ImageDraw
from scipy import ndimage
from shapely.geometry import Polygon

from rvkernels.datasets._towns.city import City
from rvkernels.datasets._towns.plan import Crown, Plan, Surface

FINE = 2  # canvas pixels per image pixel, along each axis
STAMPS = 4  # shapes of a crown of one radius
SKY = np.array((0.17, 0.21, 0.29, 0.09), np.float32)  # share of skylight in the light on flat ground
LUSH = np.array((1.0, 0.45, 0.75, -0.45), np.float32)  # dry vegetation against lush
FOLIAGE = (0.22, 0.10, 0.04, 0.05)  # grain, patch, cloud, tint of a crown, as of a material
THROUGH_LEAVES = np.float32(0.16)  # share of the sunlight that comes through a crown
PATH = np.array((0.012, 0.019, 0.030, 0.004), np.float32)  # light scattered by the air


def noise(rng, shape: tuple[int, int], cell: int) -> np.ndarray:
    """(rows, cols) float32 smooth noise of unit variance with features of about `cell` pixels."""
    if cell == 1:
        return rng.standard_normal(shape, np.float32)
    # Blurred on a grid three times as fine as the features, so that the grid does not show.
    beat = max(cell // 3, 1)
    coarse = rng.standard_normal((shape[0] // beat + 12, shape[1] // beat + 12), np.float32)
    coarse = ndimage.gaussian_filter(coarse, 1.3)
    zoomed = Image.fromarray(coarse).resize((coarse.shape[1] * beat, coarse.shape[0] * beat), Image.Resampling.BICUBIC)
    field = np.asarray(zoomed)[5 * beat : 5 * beat + shape[0], 5 * beat : 5 * beat + shape[1]]
    return field / field.std()


def lobes(stamp: int, angle: np.ndarray) -> np.ndarray:
    """Radius of crown shape `stamp` relative to its mean radius, at the given angles."""
    phase = np.random.default_rng(stamp % STAMPS).uniform(0, 2 * np.pi, 3)
    return (
        1
        + 0.09 * np.sin(2 * angle + phase[0])
        + 0.07 * np.sin(3 * angle + phase[1])
        + 0.05 * np.sin(5 * angle + phase[2])
    )


def _crown_stamp(radius: int, stamp: int) -> np.ndarray:
    """(2 radius + 5)^2 float32 relative crown height, 0 outside; radius in canvas pixels."""
    reach = radius + 2
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    rho = np.hypot(x, y) / (radius * lobes(stamp, np.arctan2(y, x)))
    dome = np.sqrt(np.clip(1 - rho**2, 0, None))
    rng = np.random.default_rng([radius, stamp])
    lumps = ndimage.gaussian_filter(rng.standard_normal(x.shape), max(1.0, radius / 5))
    lumps /= lumps.std() + 1e-9
    height = 0.5 + 0.5 * dome + 0.07 * lumps * np.sqrt(dome)
    return np.where(rho < 1, height, 0).astype(np.float32)


def _shift(a: np.ndarray, rows: int, cols: int, fill: float) -> np.ndarray:
    """a moved down by `rows` and right by `cols`."""
    out = np.full_like(a, fill)
    h, w = a.shape
    out[max(rows, 0) : h + min(rows, 0), max(cols, 0) : w + min(cols, 0)] = a[
        max(-rows, 0) : h - max(rows, 0), max(-cols, 0) : w - max(cols, 0)
    ]
    return out


def shade(height: np.ndarray, azimuth: float, elevation: float) -> np.ndarray:
    """(rows, cols) bool: what lies in cast shadow.

    The height of the shadow above each pixel is max over t of height(p + t s) - t tan(elevation), s pointing to the
    sun. Doubling the reach in every pass gives all t up to the longest shadow in log2 passes.
    """
    # From a pixel away from the sun, as (row, col).
    away = math.cos(math.radians(azimuth)), -math.sin(math.radians(azimuth))
    fall = math.tan(math.radians(elevation))
    longest = (float(height.max()) - float(height.min())) / fall
    cover, step = None, 1
    while step <= max(longest, 1) * 1.01 or cover is None:
        r, c = round(away[0] * step), round(away[1] * step)
        drop = math.hypot(r, c) * fall
        moved = _shift(height if cover is None else np.maximum(height, cover), r, c, -1e9) - drop
        cover = moved if cover is None else np.maximum(cover, moved)
        step *= 2
    return cover > height + 0.35


@dataclass
class _Tables:
    """What the pixels of surface or crown number i look like; columns are float32 (n,), so that `take` is quick."""

    colour: np.ndarray  # (4, n)
    amplitude: np.ndarray  # (4, n): grain, patch, cloud, tint
    plane: np.ndarray  # (3, n): rise in x and y, height at the canvas origin; in canvas pixels
    rows: np.ndarray  # (4, n): periods per canvas pixel in x and y, contrast, tramlines per period
    thing: np.ndarray  # (n,) int32


def paint(plan: Plan, seed: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the sensor receives, and what of the objects can be seen.

    Returns radiance (size, size, 4) float32, about 0.01-0.6; the visible share of each object (objects,) float64; and
    valid (size, size) bool, the pixels inside the swath.
    """
    rng = np.random.default_rng([seed, ord(plan.city.name), number, 2])
    surfaces = sorted(plan.surfaces, key=lambda surface: surface.layer)
    tables = _tables(plan, surfaces)
    ids = _numbers(plan, surfaces)
    edge = len(ids)
    x, y = np.arange(edge, dtype=np.float32)[None], np.arange(edge, dtype=np.float32)[:, None]
    height = tables.plane[2].take(ids) + tables.plane[0].take(ids) * x + tables.plane[1].take(ids) * y
    _grow(plan.crowns, len(surfaces), plan.margin, ids, height)
    direct, sky = _light(plan, tables, ids, height, len(surfaces))
    texture, dry = _texture(rng, tables, ids)
    image = np.empty((plan.size, plan.size, 4), np.float32)
    inner = slice(plan.margin, plan.margin + plan.size)
    spread = rng.uniform(*plan.city.blur, 4)
    for band in range(4):
        value = tables.colour[band].take(ids)
        value *= np.maximum(texture + LUSH[band] * dry, np.float32(0.15))
        value *= SKY[band] * sky + (1 - SKY[band]) * direct
        value = sum(value[i::FINE, j::FINE] for i in range(FINE) for j in range(FINE)) / np.float32(FINE**2)
        image[..., band] = ndimage.gaussian_filter(value, spread[band])[inner, inner]
    valid = _inside(plan.swath, plan.size)
    return _sense(rng, plan.city, image), _seen(plan, ids, tables.thing, valid), valid


def _tables(plan: Plan, surfaces: list[Surface]) -> _Tables:
    n = len(surfaces) + len(plan.crowns)
    colour, amplitude, rows = (np.zeros((4, n), np.float32) for _ in range(3))
    plane, thing = np.zeros((3, n), np.float32), np.full(n, -1, np.int32)
    for i, surface in enumerate(surfaces):
        kind, (a, b, c), pattern = surface.material, surface.plane, surface.rows
        colour[:, i] = surface.colour
        amplitude[:, i] = kind.grain, kind.patch, kind.cloud, kind.tint
        plane[:, i] = a, b, FINE * (c - plan.margin * (a + b))
        thing[i] = surface.thing
        if pattern is not None:
            wave, tram = FINE * pattern.period, 1 / pattern.tramline if pattern.tramline else 0
            rows[:, i] = -math.sin(pattern.bearing) / wave, math.cos(pattern.bearing) / wave, pattern.contrast, tram
    if plan.crowns:
        colour[:, len(surfaces) :] = np.array([crown.colour for crown in plan.crowns]).T
        amplitude[:, len(surfaces) :] = np.array(FOLIAGE)[:, None]
    return _Tables(colour, amplitude, plane, rows, thing)


def _numbers(plan: Plan, surfaces: list[Surface]) -> np.ndarray:
    """(edge, edge) int32: which surface lies on top in each canvas pixel."""
    edge = (plan.size + 2 * plan.margin) * FINE
    canvas = Image.new("I", (edge, edge), 0)
    pen = ImageDraw.Draw(canvas)
    for i, surface in enumerate(surfaces):
        pen.polygon(((surface.corners + plan.margin) * FINE).ravel().tolist(), fill=i)
    return np.array(canvas, dtype=np.int32)


def _grow(crowns: list[Crown], first: int, margin: int, ids: np.ndarray, height: np.ndarray) -> None:
    """Raise crown number i (`first` + its place in the list) where it is higher than what stands there."""
    edge = len(ids)
    stamps: dict[tuple[int, int], np.ndarray] = {}
    for i, tree in enumerate(crowns, first):
        key = (max(2, round(tree.radius * FINE)), tree.shape % STAMPS)
        if key not in stamps:
            stamps[key] = _crown_stamp(*key)
        reach = len(stamps[key]) // 2
        x, y = round((tree.x + margin) * FINE - 0.5) - reach, round((tree.y + margin) * FINE - 0.5) - reach
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + 2 * reach + 1, edge), min(y + 2 * reach + 1, edge)
        if x0 < x1 and y0 < y1:
            crown = stamps[key][y0 - y : y1 - y, x0 - x : x1 - x] * np.float32(tree.height * FINE)
            above = (crown > height[y0:y1, x0:x1]) & (crown > 0)
            height[y0:y1, x0:x1][above] = crown[above]
            ids[y0:y1, x0:x1][above] = i


def _light(
    plan: Plan, tables: _Tables, ids: np.ndarray, height: np.ndarray, first_crown: int
) -> tuple[np.ndarray, np.ndarray]:
    """Sunlight and skylight on every canvas pixel, float32; both 1 on open flat ground."""
    azimuth, elevation = math.radians(plan.sun_azimuth), math.radians(plan.sun_elevation)
    # Lambert: the cosine between the normal (-dh/dx, -dh/dy, 1) and the sun.
    across, up = math.cos(elevation), np.float32(math.sin(elevation))
    east, south = np.float32(math.sin(azimuth) * across), np.float32(-math.cos(azimuth) * across)

    def cosine(rise_x: np.ndarray, rise_y: np.ndarray) -> np.ndarray:
        cos = (up - rise_x * east - rise_y * south) / np.sqrt(1 + rise_x**2 + rise_y**2)
        return np.maximum(cos, 0) / up

    direct = cosine(tables.plane[0], tables.plane[1]).take(ids)
    row, col = np.nonzero(ids >= first_crown)
    inner_row, inner_col = np.clip(row, 1, len(ids) - 2), np.clip(col, 1, len(ids) - 2)
    rise_y = (height[inner_row + 1, inner_col] - height[inner_row - 1, inner_col]) / 2
    rise_x = (height[inner_row, inner_col + 1] - height[inner_row, inner_col - 1]) / 2
    direct[row, col] = cosine(np.clip(rise_x, -1.6, 1.6), np.clip(rise_y, -1.6, 1.6))
    direct[shade(height, plan.sun_azimuth, plan.sun_elevation)] = 0
    direct[row, col] = np.maximum(direct[row, col], THROUGH_LEAVES)
    # Less of the sky is seen beside what stands higher.
    low = sum(height[i::4, j::4] for i in (0, 2) for j in (0, 2)) / np.float32(4)
    closed = np.clip(ndimage.gaussian_filter(low, 4) - low, 0, 30) / np.float32(60)
    return direct, np.repeat(np.repeat(1 - closed, 4, 0), 4, 1)


def _texture(rng, tables: _Tables, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Factor of the colour, and how dry the vegetation is (0: as its material), on every canvas pixel; float32."""
    grain, patch, cloud = noise(rng, ids.shape, 1), noise(rng, ids.shape, 4), noise(rng, ids.shape, 30)
    cloud += np.float32(0.7) * noise(rng, ids.shape, 120)
    texture = 1 + tables.amplitude[0].take(ids) * grain
    texture += tables.amplitude[1].take(ids) * patch
    texture += tables.amplitude[2].take(ids) * cloud
    dry = tables.amplitude[3].take(ids) * (cloud + np.float32(0.5) * patch)
    row, col = np.nonzero((tables.rows[2] > 0).take(ids))
    which = ids[row, col]
    along_x, along_y, contrast, tram = tables.rows
    phase = col.astype(np.float32) * along_x.take(which) + row.astype(np.float32) * along_y.take(which)
    phase += np.float32(0.02) * cloud[row, col]  # no row is quite straight
    wave = contrast.take(which) * (1 + np.float32(0.15) * patch[row, col]) * np.cos(np.float32(2 * np.pi) * phase)
    lane = (phase * tram.take(which)) % 1
    wheels = (tram.take(which) > 0) & ((lane < 0.045) | ((lane > 0.12) & (lane < 0.165)))
    texture[row, col] *= 1 + wave - np.float32(0.28) * wheels
    dry[row, col] += (tables.amplitude[3].take(which) > 0) * wave  # soil shows between the plants
    return texture, dry


def _sense(rng, city: City, image: np.ndarray) -> np.ndarray:
    """The light as it reaches the sensor: white balance, haze, vignetting, noise; (size, size, 4) float32."""
    size = len(image)
    warmth, haze = float(rng.uniform(*city.warmth)), float(rng.uniform(*city.haze))
    balance = np.array((warmth, 1.0, 1 / warmth, 1.0)) * (1 + 0.02 * rng.standard_normal(4))
    image = image * (balance * (1 - 0.10 * haze)).astype(np.float32) + PATH * np.float32(haze)
    y, x = (np.arange(size, dtype=np.float32) / size - np.float32(c) for c in rng.uniform(0.3, 0.7, 2))
    image *= 1 - np.float32(rng.uniform(0.02, 0.10)) * (y[:, None] ** 2 + x[None] ** 2)[..., None]
    level = np.float32(rng.uniform(*city.noise))
    # Shot noise grows with the light, on top of the noise of reading out.
    image += (
        level * np.sqrt(np.float32(4e-6) + np.float32(3.5e-5) * image) * rng.standard_normal(image.shape, np.float32)
    )
    return np.maximum(image, 0)


def _inside(shape: Polygon, size: int) -> np.ndarray:
    """(size, size) bool: pixels whose centre lies in the polygon."""
    x, y = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    shapely.prepare(shape)
    return shapely.contains_xy(shape, x, y)


def _seen(plan: Plan, ids: np.ndarray, thing: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """(objects,) share of every object's footprint that no crown, scene edge or collar hides."""
    m, size = plan.margin * FINE, plan.size * FINE
    top = thing.take(ids[m : m + size, m : m + size])
    top[~np.repeat(np.repeat(valid, FINE, 0), FINE, 1)] = -1
    counts = np.bincount(top.ravel() + 1, minlength=len(plan.objects) + 1)[1:]
    # The polygon filler also takes pixels that the outline touches: a third of a canvas pixel on every side.
    area = np.array([shape.area * FINE**2 + shape.length * FINE / 3 for _, shape in plan.objects])
    return counts / area


def expose(radiance: np.ndarray, valid: np.ndarray, dtype: str, seed: int, city: str, number: int) -> np.ndarray:
    """(rows, cols, 4) of `dtype`; 0 where the sensor saw nothing.

    uint16 is linear (10000 for radiance 1); uint8 is stretched and gamma-corrected, as orthophotos are delivered.
    """
    if dtype == "uint16":
        counts = np.clip(np.rint(radiance * 10000), 1, 65535).astype(np.uint16)
    else:
        rng = np.random.default_rng([seed, ord(city), number, 3])
        white = np.array((0.42, 0.42, 0.42, 0.62)) * rng.uniform(0.9, 1.15)
        gamma = rng.uniform(1.65, 1.95)
        black = 0.006
        scaled = np.clip((radiance - black) / (white - black), 0, 1).astype(np.float32)
        counts = np.clip(np.rint(255 * scaled ** np.float32(1 / gamma)), 1, 255).astype(np.uint8)
    counts[~valid] = 0
    return counts
