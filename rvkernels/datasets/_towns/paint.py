"""From a plan to pixels: heights, light and shadow, surface texture, then air, lens and sensor."""

from __future__ import annotations

import math

import numpy as np
import shapely
from PIL import Image, ImageDraw
from scipy import ndimage

from rvkernels.datasets._towns.plan import Plan

FINE = 2  # canvas pixels per image pixel, along each axis
STAMPS = 4  # shapes of a crown of one radius
SKY = np.array((0.17, 0.21, 0.29, 0.09), np.float32)  # share of skylight in the light on flat ground
LUSH = np.array((1.0, 0.45, 0.75, -0.45), np.float32)  # dry vegetation against lush
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
    away = -np.array(
        (-math.cos(math.radians(azimuth)), math.sin(math.radians(azimuth)))
    )  # (row, col) away from the sun
    fall = math.tan(math.radians(elevation))
    longest = (float(height.max()) - float(height.min())) / fall
    cover, step = None, 1
    while step <= max(longest, 1) * 1.01 or cover is None:
        r, c = round(float(away[0] * step)), round(float(away[1] * step))
        drop = math.hypot(r, c) * fall
        moved = _shift(height if cover is None else np.maximum(height, cover), r, c, -1e9) - drop
        cover = moved if cover is None else np.maximum(cover, moved)
        step *= 2
    return cover > height + 0.35


def paint(plan: Plan, seed: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the sensor receives, and what of the objects can be seen.

    Returns radiance (size, size, 4) float32, about 0.01-0.6; the visible share of each object (objects,) float64; and
    valid (size, size) bool, the pixels inside the swath.
    """
    rng = np.random.default_rng([seed, ord(plan.city.name), number, 2])
    city, size, margin = plan.city, plan.size, plan.margin
    edge = (size + 2 * margin) * FINE

    surfaces = sorted(plan.surfaces, key=lambda surface: surface.layer)
    n = len(surfaces)
    canvas = Image.new("I", (edge, edge), 0)
    pen = ImageDraw.Draw(canvas)
    for i, surface in enumerate(surfaces):
        pen.polygon(((surface.corners + margin) * FINE).ravel().tolist(), fill=i)
    ids = np.array(canvas, dtype=np.int32)
    del canvas

    total = n + len(plan.crowns)
    colour = np.zeros((total, 4), np.float32)
    amplitude = np.zeros((total, 4), np.float32)  # grain, patch, cloud, tint
    plane = np.zeros((total, 3), np.float32)
    rows = np.zeros((total, 4), np.float32)  # periods per canvas pixel in x and y, contrast, tramlines per period
    thing = np.full(total, -1, np.int32)
    for i, surface in enumerate(surfaces):
        kind, (a, b, c), pattern = surface.material, surface.plane, surface.rows
        colour[i] = surface.colour
        amplitude[i] = kind.grain, kind.patch, kind.cloud, kind.tint
        plane[i] = a, b, FINE * (c - margin * (a + b))  # in canvas coordinates: x = canvas x / FINE - margin
        thing[i] = surface.thing
        if pattern is not None:
            wave = FINE * pattern.period
            tramlines = 1 / pattern.tramline if pattern.tramline else 0
            rows[i] = -math.sin(pattern.bearing) / wave, math.cos(pattern.bearing) / wave, pattern.contrast, tramlines
    yy, xx = np.arange(edge, dtype=np.float32)[:, None], np.arange(edge, dtype=np.float32)[None]
    height = plane[ids, 2] + plane[ids, 0] * xx + plane[ids, 1] * yy

    stamps: dict[tuple[int, int], np.ndarray] = {}
    for i, tree in enumerate(plan.crowns, n):
        r = max(2, round(tree.radius * FINE))
        key = (r, tree.shape % STAMPS)
        if key not in stamps:
            stamps[key] = _crown_stamp(*key)
        shape = stamps[key]
        reach = r + 2
        cx, cy = round((tree.x + margin) * FINE - 0.5), round((tree.y + margin) * FINE - 0.5)
        x0, y0, x1, y1 = max(cx - reach, 0), max(cy - reach, 0), min(cx + reach + 1, edge), min(cy + reach + 1, edge)
        if x0 >= x1 or y0 >= y1:
            continue
        crown = shape[y0 - cy + reach : y1 - cy + reach, x0 - cx + reach : x1 - cx + reach] * np.float32(
            tree.height * FINE
        )
        above = (crown > height[y0:y1, x0:x1]) & (crown > 0)
        height[y0:y1, x0:x1][above] = crown[above]
        ids[y0:y1, x0:x1][above] = i
        colour[i] = tree.colour
        amplitude[i] = 0.22, 0.10, 0.04, 0.05
    is_crown = ids >= n

    shadow = shade(height, plan.sun_azimuth, plan.sun_elevation)
    azimuth, elevation = math.radians(plan.sun_azimuth), math.radians(plan.sun_elevation)
    sun = np.array(
        (math.sin(azimuth) * math.cos(elevation), -math.cos(azimuth) * math.cos(elevation), math.sin(elevation))
    )
    flat = np.sqrt(1 + plane[:, 0] ** 2 + plane[:, 1] ** 2)
    lit = ((-plane[:, 0] * sun[0] - plane[:, 1] * sun[1] + sun[2]) / flat)[ids]
    gy, gx = np.gradient(height)
    where = np.nonzero(is_crown)
    cy, cx = np.clip(gy[where], -1.6, 1.6), np.clip(gx[where], -1.6, 1.6)
    lit[where] = (-cx * sun[0] - cy * sun[1] + sun[2]) / np.sqrt(1 + cx**2 + cy**2)
    del gy, gx, cy, cx
    direct = np.clip(lit, 0, None) / sun[2]
    direct[shadow] = 0
    direct[where] = np.maximum(direct[where], 0.16)  # leaves let light through
    # Sky seen from a pixel: less of it beside what stands higher.
    low = sum(height[i::4, j::4] for i in (0, 2) for j in (0, 2)) / 4
    closed = np.clip(ndimage.gaussian_filter(low, 4) - low, 0, 30) / 60
    closed = np.repeat(np.repeat(closed, 4, 0), 4, 1)
    sky = 1 - closed

    grain, patch, cloud = noise(rng, ids.shape, 1), noise(rng, ids.shape, 4), noise(rng, ids.shape, 30)
    cloud += 0.7 * noise(rng, ids.shape, 120)
    texture = 1 + amplitude[ids, 0] * grain + amplitude[ids, 1] * patch + amplitude[ids, 2] * cloud
    striped = np.nonzero(rows[ids, 2] > 0)
    which = ids[striped]
    phase = striped[1] * rows[which, 0] + striped[0] * rows[which, 1] + 0.02 * cloud[striped]
    wave = np.cos(2 * np.pi * phase).astype(np.float32)
    strength = rows[which, 2] * (1 + 0.15 * patch[striped])
    lanes = phase * rows[which, 3]
    lanes -= np.floor(lanes)
    wheel = (rows[which, 3] > 0) & ((lanes < 0.045) | ((lanes > 0.12) & (lanes < 0.165)))
    texture[striped] *= 1 + strength * wave - 0.28 * wheel
    dry = amplitude[ids, 3] * (cloud + 0.5 * patch)
    dry[striped] += (amplitude[which, 3] > 0) * 1.1 * strength * wave  # soil shows between the plants
    del grain, patch, striped, which, phase, wave

    warmth = float(rng.uniform(*city.warmth))
    balance = np.array((warmth, 1.0, 1 / warmth, 1.0)) * (1 + 0.02 * rng.standard_normal(4))
    haze = float(rng.uniform(*city.haze))
    image = np.empty((size, size, 4), np.float32)
    inner = slice(margin, margin + size)
    for band in range(4):
        light = SKY[band] * sky + (1 - SKY[band]) * direct
        value = colour[ids, band] * np.clip(texture + LUSH[band] * dry, 0.15, None) * light
        value = sum(value[i::FINE, j::FINE] for i in range(FINE) for j in range(FINE)) / FINE**2
        blurred = ndimage.gaussian_filter(value, rng.uniform(*city.blur))
        image[..., band] = blurred[inner, inner] * balance[band] * (1 - 0.10 * haze) + PATH[band] * haze
    yy, xx = (
        np.mgrid[:size, :size].astype(np.float32) / size - rng.uniform(0.3, 0.7, 2).astype(np.float32)[:, None, None]
    )
    image *= (1 - float(rng.uniform(0.02, 0.10)) * (xx**2 + yy**2))[..., None]
    level = float(rng.uniform(*city.noise))
    image += level * np.sqrt(4e-6 + 3.5e-5 * np.clip(image, 0, None)) * rng.standard_normal(image.shape, np.float32)
    np.clip(image, 0, None, out=image)

    valid = _fill(plan.swath, size)
    seen = _seen(plan, ids, thing, valid)
    return image, seen, valid


def _fill(shape, size: int) -> np.ndarray:
    """(size, size) bool: pixels whose centre lies in the polygon."""
    x, y = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    shapely.prepare(shape)
    return shapely.contains_xy(shape, x, y)


def _seen(plan: Plan, ids: np.ndarray, thing: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Share of every object's footprint that no crown, scene edge or collar hides."""
    m, size = plan.margin * FINE, plan.size * FINE
    top = thing[ids[m : m + size, m : m + size]]
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
