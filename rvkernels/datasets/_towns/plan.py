"""A scene as geometry: surfaces in painting order, tree crowns, labelled objects and land cover.

Coordinates are pixels of the scene (x right, y down, 0.5 m each); heights are pixels too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from shapely.geometry import Polygon

from rvkernels.datasets._towns.city import MATERIALS, City, Colour, Material

# Painting order; later covers earlier.
LAYERS = (
    "ground", "parcel", "crop", "shore", "water", "deep water", "pavement", "kerb", "asphalt", "marking", "furniture",
    "car", "wall", "roof", "roof detail",
)  # fmt: skip
LAYER = {name: i for i, name in enumerate(LAYERS)}


@dataclass(frozen=True)
class Rows:
    """Parallel rows on a surface: `bearing` of the rows in radians, `tramline` rows between wheel tracks (0: none)."""

    bearing: float
    period: float
    contrast: float
    tramline: int = 0


@dataclass(frozen=True)
class Surface:
    """A polygon of one material; its height is plane[0] x + plane[1] y + plane[2]."""

    layer: int
    corners: np.ndarray  # (k, 2)
    material: Material
    colour: np.ndarray  # (4,)
    rows: Rows | None
    plane: tuple[float, float, float]
    thing: int  # index into Plan.objects, or -1


@dataclass(frozen=True)
class Crown:
    """A tree from above. `canopy` says whether it is land cover of its own (fruit trees belong to their field)."""

    x: float
    y: float
    radius: float
    height: float
    colour: np.ndarray  # (4,)
    shape: int  # number of its outline, see paint.lobes
    canopy: bool
    avenue: bool  # stands in a pavement, and may hang over the street


def _no_cover() -> dict[str, list[Polygon]]:
    return {layer: [] for layer in ("field", "water", "road", "pool", "building", "canopy")}


@dataclass
class Plan:
    """What `layout` fills in, `paint` draws and `cover` labels."""

    city: City
    size: int
    margin: int  # pixels drawn around the scene
    rng: np.random.Generator
    sun_azimuth: float  # degrees clockwise from north
    sun_elevation: float  # degrees
    swath: Polygon  # what the sensor saw of the scene
    surfaces: list[Surface] = field(default_factory=list)
    crowns: list[Crown] = field(default_factory=list)
    objects: list[tuple[str, Polygon]] = field(default_factory=list)  # (kind, footprint)
    cover: dict[str, list[Polygon]] = field(default_factory=_no_cover)

    def add(
        self,
        layer: str,
        shape: Polygon | Sequence[np.ndarray],
        material: str,
        *,
        colour: Colour | None = None,
        vary: float = 0.06,
        rows: Rows | None = None,
        plane: tuple[float, float, float] = (0.0, 0.0, 0.0),
        thing: int = -1,
    ) -> None:
        """Add a surface: the outline of a polygon, or corners. `vary` is the relative spread of its colour."""
        corners = np.array(shape.exterior.coords if isinstance(shape, Polygon) else shape, np.float64)
        kind = MATERIALS[material]
        tone = (1 + vary * self.rng.standard_normal()) * (1 + 0.3 * vary * self.rng.standard_normal(4))
        mixed = np.array(colour or kind.colour) * tone
        self.surfaces.append(Surface(LAYER[layer], corners, kind, mixed, rows, plane, thing))

    def pave(self, layer: str, shape: Polygon, material: str, *, vary: float = 0.06) -> None:
        """Add a paved surface that is land cover of class road."""
        self.add(layer, shape, material, vary=vary)
        self.cover["road"].append(shape)

    def thing(self, kind: str, footprint: Polygon) -> int:
        """Index of a new labelled object."""
        if kind == "building":
            self.cover["building"].append(footprint)
        self.objects.append((kind, footprint))
        return len(self.objects) - 1

    def grass(self) -> str:
        """One of the city's grounds."""
        return pick(self.rng, self.city.grass)


def pick(rng: np.random.Generator, weighted: Sequence[tuple]):
    """One first member of ((member, weight), ...)."""
    weights = np.array([w for _, w in weighted], float)
    return weighted[int(rng.choice(len(weighted), p=weights / weights.sum()))][0]
