"""A sliding plan of 40,000 windows over a scene, and which of them lie in an area of interest with holes."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import shapely

from rvkernels.bench import Case, Inputs, Peer, Scene
from rvkernels.ops import windows

SIZE = 256
POINTS, HOLES = 4000, 30  # of the area's outline, and in it


def cases(scene: Scene, quick: bool) -> list[Case]:
    rows, cols, stride = (2560, 2560, 49) if quick else (10_000, 10_000, 49)
    inputs = {"rows": rows, "cols": cols, "size": SIZE, "stride": stride, **_area(rows, cols)}
    count = len(windows.sliding((0, 0, rows, cols), SIZE, stride))
    peers = {
        "within": (
            Peer("shapely prepared", "shapely:prepared_within", check=same),
            Peer("shapely STRtree of windows", "shapely:tree_within", check=same),
        ),
        "intersects": (Peer("shapely prepared", "shapely:prepared_intersects", check=same),),
    }
    return [
        Case(
            kernel="windows",
            name=f"{count:,} windows, {rule}",
            inputs={**inputs, "rule": rule},
            ours=run_inside,
            check=as_reference,
            peers=peers[rule],
        )
        for rule in windows.RULES
    ]


def _area(rows: int, cols: int) -> dict[str, np.ndarray]:
    """Coordinates (x, y) of rings and where each starts: an outline with bays, and round holes."""
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
    radius = 0.38 + 0.04 * np.sin(7 * angle) + 0.02 * np.cos(31 * angle) + rng.normal(0, 1e-5, POINTS)
    rings = [np.stack([0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)], 1)]
    turn = angle[:: POINTS // 100]
    for k in range(HOLES):
        place = 0.5 + 0.05 * (1 + k % 5) * np.array([np.cos(k), np.sin(k)])
        rings.append(place + 0.006 * np.stack([np.cos(turn), np.sin(turn)], 1))
    closed = [np.concatenate([ring, ring[:1]]) * (cols, rows) for ring in rings]
    start = np.cumsum([0, *map(len, closed)], dtype=np.int64)
    return {"coords": np.concatenate(closed), "ring_start": start}


def run_inside(inputs: Inputs, threads: int) -> Callable[[], np.ndarray]:
    area = polygon(inputs)

    def run() -> np.ndarray:
        plan = windows.sliding((0, 0, inputs["rows"], inputs["cols"]), inputs["size"], inputs["stride"])
        return windows.inside(plan, area, inputs["rule"], threads=threads)

    return run


def polygon(inputs: Inputs) -> shapely.Polygon:
    start = inputs["ring_start"]
    rings = [inputs["coords"][a:b] for a, b in zip(start, start[1:])]
    return shapely.make_valid(shapely.Polygon(rings[0], rings[1:]))


def as_reference(inputs: Inputs, found: np.ndarray) -> None:
    plan = windows.sliding((0, 0, inputs["rows"], inputs["cols"]), inputs["size"], inputs["stride"])
    np.testing.assert_array_equal(found, windows.inside(plan, polygon(inputs), inputs["rule"], kernel="reference"))
    assert 0 < found.sum() < len(found)


def same(ours: np.ndarray, theirs: Any) -> None:
    np.testing.assert_array_equal(ours, theirs)
