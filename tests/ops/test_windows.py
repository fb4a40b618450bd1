"""Windows stay in their extent, cover it, are the same for the same seed, and lie in areas exactly as GEOS has it."""

from __future__ import annotations

import functools
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from rvkernels.ops import windows


def extent(rows: int, cols: int, row: int = 7, col: int = 3) -> tuple[int, int, int, int]:
    return row, col, rows, cols


def painted(found: np.ndarray, r: tuple[int, int, int, int]) -> np.ndarray:
    """How often each pixel of the extent is covered; fails for a window that leaves it."""
    count = np.zeros(r[2:], int)
    for row, col, rows, cols in (found - (r[0], r[1], 0, 0)).tolist():
        part = count[row : row + rows, col : col + cols]
        assert row >= 0
        assert col >= 0
        assert part.shape == (rows, cols)
        part += 1
    return count


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(1, 25))


@settings(max_examples=100, deadline=None)
@given(sizes)
def test_sliding_windows_cover_the_extent(case):
    rows, cols, size, stride = case
    r = extent(rows, cols)
    found = windows.sliding(r, size, min(stride, size))[:]
    count = painted(found, r)
    assert len(np.unique(found, axis=0)) == len(found)
    if size <= min(rows, cols):
        assert count.min() >= 1
    else:
        assert len(found) == 0
    assert found.tolist() == sorted(found.tolist())


def test_without_flush_windows_stay_on_the_grid():
    assert windows.starts(10, 4, 4, flush=False).tolist() == [0, 4]
    assert windows.starts(10, 4, 4, flush=True).tolist() == [0, 4, 6]
    assert windows.starts(8, 4, 4, flush=True).tolist() == [0, 4]
    assert windows.starts(3, 4, 4, flush=True).tolist() == []


@settings(max_examples=60, deadline=None)
@given(sizes)
def test_tiles_cover_every_pixel_once(case):
    rows, cols, size, _ = case
    r = extent(rows, cols)
    found = windows.tiles(r, size)
    assert (painted(np.concatenate(found), r) == 1).all()
    assert all(len(np.unique(group[:, 2:], axis=0)) == 1 for group in found)


def test_random_windows():
    r = extent(50, 60)
    found = windows.random(r, 8, 500, seed=1, sample=0)
    painted(found, r)
    assert found.tolist() == windows.random(r, 8, 500, seed=1, sample=0).tolist()
    assert found.tolist() != windows.random(r, 8, 500, seed=2, sample=0).tolist()
    assert found.tolist() != windows.random(r, 8, 500, seed=1, sample=1).tolist()
    # All 43 x 53 positions are equally likely: corners are reached, and the mean is that of a uniform distribution.
    low, high = found[:, :2].min(0) - (7, 3), found[:, :2].max(0) - (7, 3)
    assert (low <= 1).all()
    assert (high >= (41, 51)).all()
    assert np.abs((found[:, :2] - (7, 3)).mean(0) - (21, 26)).max() < 3 * 52 / np.sqrt(12 * 500)


def test_random_windows_in_an_area_of_interest():
    r = extent(50, 60, 0, 0)
    found = windows.random(r, 8, 40, seed=1, sample=0, inside=lambda w: w[:, 1] + 8 <= 20)
    assert len(found) == 40
    assert (found[:, 1] <= 12).all()
    with pytest.raises(ValueError, match=r"^only 0 of 4000 random windows of 8 pixels lie in the area"):
        windows.random(r, 8, 40, seed=1, sample=0, inside=lambda w: np.zeros(len(w), bool))


def test_random_windows_of_several_sizes():
    r = extent(50, 60)
    found = windows.random(r, None, 3000, seed=5, sizes=(8, 16))
    painted(found, r)
    assert (found[:, 2] == found[:, 3]).all()
    # Each of the nine edges is drawn about 333 times.
    share = np.bincount(found[:, 2], minlength=17)[8:]
    assert len(share) == 9
    assert np.abs(share - 3000 / 9).max() < 4 * np.sqrt(3000 / 9)
    assert found.tolist() == windows.random(r, None, 3000, seed=5, sizes=(8, 16)).tolist()
    # The last position of every size can be met.
    assert ((found[:, 0] - 7 + found[:, 2]) == 50).any()
    apart = windows.random(r, None, 500, seed=5, sizes=((8, 9), (30, 60)))
    assert set(apart[:, 2].tolist()) == {8, 9}
    assert apart[:, 3].min() >= 30
    assert apart[:, 3].max() > 55
    assert windows.random(r, (5, 9), 3, seed=0)[:, 2:].tolist() == [[5, 9]] * 3
    assert windows.random(r, 5, 0, seed=0).shape == (0, 4)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 8, "sizes": (1, 2)}, "size: give either"),
        ({"size": None}, "size: give either"),
        ({"size": 51}, "size: windows of 51 x 51 pixels do not fit into 50 x 60"),
        ({"size": None, "sizes": (9, 8)}, "sizes: expected"),
        ({"size": None, "sizes": (0.5, 8)}, "sizes: expected"),
        ({"size": 0}, "size: expected at least 1"),
        ({"size": (1, 2, 3)}, "size: expected a whole number or two"),
        ({"count": -1}, "count: expected"),
    ],
)
def test_wrong_random_windows_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        windows.random(extent(50, 60), **{"size": 8, "count": 3, "seed": 0, **options})


def plain_sliding(r, size, stride, padding, ends, direction) -> list[tuple[int, int, int, int]]:
    """The definition, window by window."""

    def axis(first: int, length: int, size: int, stride: int) -> list[int]:
        found = []
        start = first
        while start + size <= first + length:
            found.append(start)
            start += stride
        end = first + length
        if ends == "flush" and found and found[-1] + size < end:
            found.append(end - size)
        if ends == "over":
            while length > 0 and (not found or found[-1] + size < end):
                found.append(found[-1] + stride if found else first)
        return found

    (top, bottom), (left, right) = padding
    rows = axis(r[0] - top, r[2] + top + bottom, size[0], stride[0])
    cols = axis(r[1] - left, r[3] + left + right, size[1], stride[1])
    if direction == "cols":
        return [(row, col, *size) for col in cols for row in rows]
    turns = [cols[::-1] if direction == "serpentine" and i % 2 else cols for i in range(len(rows))]
    return [(row, col, *size) for row, line in zip(rows, turns) for col in line]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_plan_equals_its_definition(data):
    draw = data.draw
    r = tuple(draw(st.integers(*limits)) for limits in ((-9, 9), (-9, 9), (0, 30), (0, 30)))
    size, stride = (tuple(draw(st.integers(1, 12)) for _ in range(2)) for _ in range(2))
    pad = draw(st.sampled_from([((0, 0), (0, 0)), ((2, 3), (0, 7)), ((-1, 4), (5, -2))]))
    ends, direction = draw(st.sampled_from(windows.ENDS)), draw(st.sampled_from(windows.DIRECTIONS))
    plan = windows.sliding(r, size, stride, padding=pad, ends=ends, direction=direction)
    expected = plain_sliding(r, size, stride, pad, ends, direction)
    assert [tuple(w) for w in plan[:].tolist()] == expected
    assert len(plan) == len(expected)
    assert [w.tolist() for w in plan] == [list(w) for w in expected]
    if expected:
        i = draw(st.integers(-len(expected), len(expected) - 1))
        assert tuple(plan[i].tolist()) == expected[i]
        some = draw(st.lists(st.integers(0, len(expected) - 1), max_size=5))
        assert [tuple(w) for w in plan[np.array(some, int)].tolist()] == [expected[i] for i in some]
        part = slice(draw(st.integers(-5, 5)), draw(st.integers(-5, 50)), draw(st.integers(1, 3)))
        assert [tuple(w) for w in plan[part].tolist()] == expected[part]


def test_a_plan_of_a_large_scene_takes_no_memory():
    tracemalloc.start()
    plan = windows.sliding((0, 0, 100_000, 100_000), 256, 128)
    assert len(plan) == 781 * 781
    assert plan[-1].tolist() == [99744, 99744, 256, 256]
    assert plan[300_000:300_002].tolist() == [[384 * 128, 96 * 128, 256, 256], [384 * 128, 97 * 128, 256, 256]]
    assert sum(len(part) for part in plan.parts(10_000)) == len(plan)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000
    with pytest.raises(IndexError, match="window 609961 of 609961"):
        plan[len(plan)]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": 0}, "size: expected at least 1"),
        ({"stride": 0}, "stride: expected at least 1"),
        ({"stride": 1.5}, "stride: expected a whole number"),
        ({"ends": "wrap"}, "ends: no 'wrap'"),
        ({"direction": "up"}, "direction: no 'up'"),
        ({"padding": (1, 2, 3)}, "padding: expected a whole number or"),
        ({"padding": 0.5}, "padding: expected a whole number or"),
        ({"extent": (0, 0, -1, 4)}, "extent: expected"),
    ],
)
def test_wrong_plans_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        windows.sliding(**{"extent": extent(9, 9), "size": 3, **options})


# Areas


def test_within_and_intersecting_by_hand():
    area = shapely.Polygon([(10, 10), (50, 10), (50, 50), (10, 50)], [[(20, 20), (30, 20), (30, 30), (20, 30)]])
    found = np.array(
        [
            (10, 10, 10, 10),  # in a corner
            (30, 20, 10, 10),  # below the hole, touching it
            (20, 20, 10, 10),  # the hole
            (22, 22, 4, 4),  # in the hole
            (25, 25, 10, 10),  # over the hole's edge
            (0, 0, 10, 10),  # touches the corner from outside
            (0, 10, 10, 10),  # touches the edge from outside
            (0, 10, 11, 10),  # reaches in
            (0, 0, 60, 60),  # around all
            (15, 15, 20, 20),  # around the hole
        ]
    )
    within = [True, True, False, False, False, False, False, False, False, False]
    some = [True, True, False, False, True, False, False, True, True, True]
    for kernel in ("cpp", "reference"):
        assert windows.inside(found, area, kernel=kernel).tolist() == within
        assert windows.inside(found, area, "intersects", kernel=kernel).tolist() == some


coordinate = st.one_of(st.integers(0, 24), st.floats(0, 24, width=32), st.integers(0, 240).map(lambda v: v / 10))


def exact_place(window, rings) -> str:
    """outside, partly or within, in exact fractions: the definition in cpp/ops/windows.h."""
    row, col, rows, cols = (int(v) for v in window)
    half = Fraction(1, 2)
    middle_x, middle_y, odd = col + cols * half, row + rows * half, False
    for ring in rings:
        points = [(Fraction(x), Fraction(y)) for x, y in ring]
        for (ax, ay), (bx, by) in zip(points, points[1:]):
            start, end = Fraction(0), Fraction(1)  # of the part of the segment in the open rectangle
            for a, b, low, high in ((ax, bx, col, col + cols), (ay, by, row, row + rows)):
                if a == b:
                    if not low < a < high:
                        start, end = Fraction(1), Fraction(0)
                    continue
                near, far = sorted(((low - a) / (b - a), (high - a) / (b - a)))
                start, end = max(start, near), min(end, far)
            # An open rectangle: a part of no length counts when the segment ends in there or is a point of the inside.
            at = (start + end) * half
            x, y = ax + at * (bx - ax), ay + at * (by - ay)
            if start <= end and col < x < col + cols and row < y < row + rows:
                return "partly"
            if (ay > middle_y) != (by > middle_y) and ax + (middle_y - ay) / (by - ay) * (bx - ax) > middle_x:
                odd = not odd
    return "within" if odd else "outside"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_areas_are_decided_exactly(data):
    """By fractions; and as GEOS does, which rounds where it cuts lines, but for slivers."""
    draw = data.draw
    rings = draw(st.lists(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=7), min_size=1, max_size=3))
    shapes = [shapely.make_valid(shapely.Polygon(ring)) for ring in rings]
    parts = [p for s in shapes for p in shapely.get_parts(s) if p.geom_type == "Polygon"]
    whole = shapely.union_all(parts)
    if draw(st.booleans()):  # holes
        whole = functools.reduce(shapely.symmetric_difference, parts, shapely.Polygon())
    area = [p for p in shapely.get_parts(whole) if p.geom_type == "Polygon"]
    plan = windows.sliding((-2, -2, 28, 28), draw(st.integers(1, 9)), draw(st.integers(2, 4)))
    whole = shapely.union_all(area)
    lines = [shapely.get_coordinates(ring).tolist() for ring in shapely.get_rings(shapely.get_parts(whole))]
    within, some = (windows.inside(plan, area, rule, threads=2) for rule in ("within", "intersects"))
    for i in range(0, len(plan), max(1, len(plan) // 25)):
        place = exact_place(plan[i], lines)
        assert (within[i], some[i]) == (place == "within", place != "outside"), plan[i]
    for rule, got in (("within", within), ("intersects", some)):
        for i in np.flatnonzero(got != windows.inside(plan, area, rule, kernel="reference")):
            row, col, rows, cols = plan[i].tolist()
            shared = shapely.area(shapely.intersection(whole, shapely.box(col, row, col + cols, row + rows)))
            assert min(shared, rows * cols - shared) < 1e-9


def test_a_line_that_misses_a_corner_by_the_last_bit():
    """The edge from (0, 0) to (x, y) passes the corner (13, 4) of a window as exact fractions say it does."""
    seen = set()
    for x in (13.0, 26.0, 1000 / 3, 1e6 / 7, 2.0**20 + 1):
        for steps in (-2, -1, 0, 1, 2):
            y = x * 4 / 13
            for _ in range(abs(steps)):
                y = np.nextafter(y, np.sign(steps) * np.inf)
            area = shapely.Polygon([(0, 0), (x, y), (x, -5), (0, -5)])
            reaches_in = Fraction(float(y)) * 13 > 4 * Fraction(x)
            seen.add(reaches_in)
            assert windows.inside(np.array([[4, 12, 1, 1]]), area, "intersects").tolist() == [reaches_in], (x, steps)
    assert seen == {True, False}


def test_an_area_without_windows_or_polygons():
    area = shapely.box(0, 0, 9, 9)
    assert windows.inside(np.empty((0, 4), np.int64), area).shape == (0,)
    for empty in ([], shapely.Polygon(), shapely.MultiPolygon()):
        assert not windows.inside(np.array([[0, 0, 2, 2]]), empty).any()
    with pytest.raises(ValueError, match="area: expected polygons, got LineString"):
        windows.inside(np.array([[0, 0, 2, 2]]), shapely.LineString([(0, 0), (1, 1)]))
    with pytest.raises(ValueError, match="rule: no 'touches'"):
        windows.inside(np.array([[0, 0, 2, 2]]), area, "touches")
    for wrong in (np.array([[0, 0, 0, 2]]), np.array([[0.0, 0, 2, 2]]), np.array([0, 0, 2, 2])):
        with pytest.raises(ValueError, match="windows: "):
            windows.inside(wrong, area)


# Masks


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_counts_equal_sums(data):
    draw = data.draw
    rows, cols = draw(st.integers(0, 300)), draw(st.integers(0, 40))
    mask = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 4, (rows, cols)).astype(np.uint8)
    place, length = st.integers(-30, 320), st.integers(1, 90)
    some = np.array(draw(st.lists(st.tuples(place, place, length, length), max_size=20)), np.int64).reshape(-1, 4)
    values = draw(st.sampled_from([1, [0, 3], [], 200]))
    expected = windows.count(mask, some, values, kernel="reference")
    for threads in (1, 3):
        np.testing.assert_array_equal(windows.count(mask, some, values, threads=threads), expected)


def test_counts_are_checked():
    mask = np.zeros((5, 5), np.uint8)
    some = np.array([[-1, -1, 3, 3]])
    assert windows.count(mask, some, 0).tolist() == [4]
    with pytest.raises(ValueError, match=r"values: .* got 256"):
        windows.count(mask, some, 256)
    with pytest.raises(ValueError, match="mask: expected dtype uint8"):
        windows.count(mask.astype(bool), some, 0)
    with pytest.raises(ValueError, match="mask: must be C-contiguous"):
        windows.count(mask.T[::2], some, 0)
