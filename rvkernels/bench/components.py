"""Connected components of the scene's buildings: a fifth of the pixels, half as many components as buildings.

And of textures, as many runs of one pixel as there can be, that are regular (a checkerboard) or not (noise): the worst
that a mask can be for an algorithm by runs.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
from scipy import ndimage

from rvkernels.bench import Case, Inputs, Peer, Scene
from rvkernels.bench.rasterize import polygons, rasterizer
from rvkernels.ops.components import Components, components

TEXTURE = 4096  # rows and columns


def buildings(scene: Scene) -> np.ndarray:
    """(rows, cols) uint8: 1 to 5 on buildings, by their property cls, 0 beside."""
    return rasterizer(polygons(scene), 0).windows(np.zeros((1, 2), np.int64), scene.rows, scene.cols)[0]


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
        check=as_scipy,
        peers=peers,
        floor=Peer("read uint8, write int32", "numpy:widen"),
    )


def run_components(inputs: Inputs, threads: int) -> Callable[[], Components]:
    mask, connectivity, statistics = inputs["mask"], inputs["connectivity"], inputs["statistics"]
    out = np.empty(mask.shape, np.int32)
    return lambda: components(mask, connectivity=connectivity, statistics=statistics, out=out, threads=threads)


def as_scipy(inputs: Inputs, found: Components) -> None:
    connected = ndimage.generate_binary_structure(2, inputs["connectivity"] // 4)
    labels, count = ndimage.label(inputs["mask"], connected)
    same_components(found, {"count": count, "labels": labels})
    if found.statistics is not None:
        np.testing.assert_array_equal(found.statistics.area, np.bincount(found.labels.ravel())[1:])
        places = ndimage.find_objects(found.labels)
        boxes = [(rows.start, cols.start, rows.stop, cols.stop) for rows, cols in places]
        np.testing.assert_array_equal(found.statistics.box, boxes)


def same_components(ours: Components, theirs: dict[str, Any]) -> None:
    """Labels that differ by their numbers only, areas too where there are any."""
    assert ours.count == theirs["count"], f"{ours.count} components, theirs are {theirs['count']}"
    number = np.zeros(ours.count + 1, np.int64)
    number[ours.labels] = theirs["labels"]
    assert (number[ours.labels] == theirs["labels"]).all(), "not the same components"
    if "area" in theirs:
        np.testing.assert_array_equal(ours.statistics.area, np.asarray(theirs["area"])[number[1:]])
