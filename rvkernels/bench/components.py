"""Connected components of the scene's buildings: a fifth of the pixels, half as many components as buildings.

And of textures, as many runs of one pixel as there can be, that are regular (a checkerboard) or not (noise): the worst
that a mask can be for an algorithm by runs.
"""

from __future__ import annotations

import json
from typing import Any, Callable

import numpy as np

from rvkernels.bench import Case, Inputs, Peer, Scene
from rvkernels.ops.components import Components, components
from rvkernels.ops.rasterize import POLYGON, Geometries, rasterize
from rvkernels.raster import describe

TEXTURE = 4096  # rows and columns
CHECKED = 256  # rows and columns: the reference looks at pixel by pixel


def buildings(scene: Scene) -> np.ndarray:
    """(rows, cols) uint8: 1 to 5 on buildings, by their property cls, 0 beside."""
    with open(scene.buildings) as file:
        features = json.load(file)["features"]
    rings = [np.array(feature["geometry"]["coordinates"][0]) for feature in features]
    start = np.cumsum([0, *map(len, rings)])
    one_each = np.arange(len(rings) + 1)
    east, gsd, _, north, _, _ = describe(scene.path("strip"))["transform"]
    corners = (np.concatenate(rings) - (east, north)) / (gsd, -gsd)
    geometries = Geometries(corners, start, one_each, one_each, np.full(len(rings), POLYGON, np.uint8))
    classes = np.array([feature["properties"]["cls"] for feature in features])
    return rasterize(geometries, classes, (scene.rows, scene.cols))


def cases(scene: Scene, quick: bool) -> list[Case]:
    mask = (buildings(scene) > 0).view(np.uint8)
    side = TEXTURE // (4 if quick else 1)
    checkers = (np.indices((side, side)).sum(0) % 2).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 2, (side, side), np.uint8)
    peers = (
        Peer("cc3d", "cc3d:components", check=same_components),
        Peer("OpenCV SAUF", "opencv:components_sauf", check=same_components),
        Peer("OpenCV BBDT", "opencv:components_bbdt", check=same_components),
        Peer("OpenCV Spaghetti", "opencv:components_spaghetti", check=same_components),
        Peer("SciPy", "scipy:components", check=same_components),
    )
    with_statistics = (
        Peer("OpenCV with statistics", "opencv:components_with_statistics", check=same_components),
        Peer("cc3d with statistics", "cc3d:components_with_statistics", check=same_components),
    )
    return [
        *(_case("buildings", mask, connectivity, peers) for connectivity in (4, 8)),
        _case("buildings", mask, 4, with_statistics, statistics=True),
        *(_case("checkerboard", checkers, connectivity, peers) for connectivity in (4, 8)),
        *(_case("noise", noise, connectivity, peers) for connectivity in (4, 8)),
    ]


def _case(name: str, mask: np.ndarray, connectivity: int, peers: tuple[Peer, ...], statistics: bool = False) -> Case:
    return Case(
        kernel="components",
        name=f"{name}, {connectivity} neighbours" + (", area and box" if statistics else ""),
        inputs={"mask": mask, "connectivity": connectivity, "statistics": statistics},
        ours=run_components,
        check=part_as_reference,
        peers=peers,
        floor=Peer("read uint8, write int32", "numpy:widen"),
    )


def run_components(inputs: Inputs, threads: int) -> Callable[[], Components]:
    mask, connectivity, statistics = inputs["mask"], inputs["connectivity"], inputs["statistics"]
    out = np.empty(mask.shape, np.int32)
    return lambda: components(mask, connectivity=connectivity, statistics=statistics, out=out, threads=threads)


def part_as_reference(inputs: Inputs, found: Components) -> None:
    part = np.ascontiguousarray(inputs["mask"][:CHECKED, :CHECKED])
    arguments = {"connectivity": inputs["connectivity"], "statistics": True}
    got, want = components(part, **arguments), components(part, **arguments, kernel="reference")
    np.testing.assert_array_equal(got.labels, want.labels)
    for name in ("area", "box", "center_sum", "value"):
        np.testing.assert_array_equal(getattr(got.statistics, name), getattr(want.statistics, name))
    assert ((found.labels > 0) == (inputs["mask"] > 0)).all(), "not the foreground"


def same_components(ours: Components, theirs: dict[str, Any]) -> None:
    """Labels that differ by their numbers only, areas too where there are any."""
    assert ours.count == theirs["count"], f"{ours.count} components, theirs are {theirs['count']}"
    number = np.zeros(ours.count + 1, np.int64)
    number[ours.labels] = theirs["labels"]
    assert (number[ours.labels] == theirs["labels"]).all(), "not the same components"
    if "area" in theirs:
        np.testing.assert_array_equal(ours.statistics.area, np.asarray(theirs["area"])[number[1:]])
