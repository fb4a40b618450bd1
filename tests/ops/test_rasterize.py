"""What only rasterize promises: GDAL's pixels, windows equal to the scene, and checks on geometries."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from rvkernels.ops import KERNELS
from rvkernels.ops.rasterize import Geometries, Rasterizer, random_shapes, rasterize, widen


def square(top, left, bottom, right):
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def polygon(*rings):
    return shapely.Polygon(rings[0], rings[1:])


def burn(shapes, shape, **options):
    return rasterize(Geometries.from_shapely(shapes), np.arange(1, len(shapes) + 1), shape, **options)


@pytest.fixture(scope="module")
def gdal():
    module = pytest.importorskip("osgeo.gdal", reason="GDAL's Python bindings are not installed")
    module.UseExceptions()
    return module


def gdal_mask(gdal, shapes, shape, all_touched):
    """What one call of RasterizeLayer burns: features 1, 2, ... in their order."""
    from osgeo import ogr

    raster = gdal.GetDriverByName("MEM").Create("", shape[1], shape[0], 1, gdal.GDT_Int32)
    raster.SetGeoTransform((0, 1, 0, 0, 0, -1))
    source = ogr.GetDriverByName("Memory").CreateDataSource("")
    layer = source.CreateLayer("")
    layer.CreateField(ogr.FieldDefn("value", ogr.OFTInteger))
    for value, s in enumerate(shapes, 1):
        feature = ogr.Feature(layer.GetLayerDefn())
        feature.SetField("value", value)
        mirrored = shapely.transform(s, lambda xy: xy * [1, -1])  # y upwards, as the raster has it; exact
        feature.SetGeometry(ogr.CreateGeometryFromWkb(shapely.to_wkb(mirrored)))
        layer.CreateFeature(feature)
    gdal.PushErrorHandler("CPLQuietErrorHandler")  # it warns that pixel coordinates have no CRS
    try:
        gdal.RasterizeLayer(raster, [1], layer, options=["ATTRIBUTE=value", f"ALL_TOUCHED={str(all_touched).upper()}"])
    finally:
        gdal.PopErrorHandler()
    return raster.ReadAsArray()


def skip_touched_edges(gdal, grid, all_touched):
    if all_touched and grid and gdal.VersionInfo()[:3] != "306":
        pytest.skip("versions of GDAL differ for segments that end on pixel edges; the rule here is that of 3.6")


def overruns(shape, cols):
    """Whether GDAL 3.6, burning what this touches, writes past the end of a row: a vertex on the last pixel edge."""
    return (shapely.get_coordinates(shape)[:, 0] == cols).any()


@pytest.mark.parametrize("all_touched", [False, True])
@pytest.mark.parametrize("grid", [0, 1 / 16, 0.25, 0.5, 1])
@pytest.mark.parametrize("size", [3, 12, 200])
def test_equals_gdal(gdal, grid, all_touched, size):
    """Small scenes of one to three shapes: with holes, crossing themselves, tiny, on centres and edges, outside."""
    skip_touched_edges(gdal, grid, all_touched)
    compared = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shape = tuple(rng.integers(1, 30, 2).tolist())
        shapes = random_shapes(rng, int(rng.integers(1, 4)), max(shape), size, grid)
        if all_touched and any(overruns(s, shape[1]) for s in shapes):
            continue
        compared += 1
        mask = rasterize(Geometries.from_shapely(shapes), np.arange(1, len(shapes) + 1), shape, all_touched=all_touched)
        expected = gdal_mask(gdal, shapes, shape, all_touched)
        assert (mask == expected).all(), f"seed {seed}: {shapes}"
    assert compared > 30


@pytest.mark.parametrize("all_touched", [False, True])
@pytest.mark.parametrize(("grid", "step"), [(0, 40), (1 / 16, 37.5), (0.25, 33.25), (0.5, 30.5), (1, 31)])
def test_a_thousand_shapes_equal_gdal(gdal, grid, all_touched, step):
    """Ten scenes, 10,000 shapes: a tenth again later, some huge, most beside each other so that no pixel is hidden."""
    skip_touched_edges(gdal, grid, all_touched)
    rng = np.random.default_rng(7)
    side = int(30 * step)
    shapes = []
    for size, number in ((1.5, 100), (6, 250), (step, 500)):
        for s in random_shapes(rng, number, 0.8 * step, size, grid):
            corner = rng.integers(-1, 31, 2) * step  # some in each direction beyond the scene
            shapes.append(shapely.transform(s, lambda xy, by=corner: xy + by))
    shapes = random_shapes(rng, 50, side, 3 * side, grid) + shapes
    shapes += [shapes[i] for i in rng.integers(0, len(shapes), 100)]
    assert len(shapes) == 1000
    if all_touched:
        shapes = [s for s in shapes if not overruns(s, side)]
    geometries = Geometries.from_shapely(shapes)
    mask = rasterize(
        geometries, np.arange(1, len(shapes) + 1), (side, side), all_touched=all_touched, dtype="int32", threads=1
    )
    different = np.argwhere(mask != gdal_mask(gdal, shapes, (side, side), all_touched))
    assert not len(different), f"{len(different)} pixels differ, the first at {different[0]}"
    assert len(np.unique(mask)) > 500


@pytest.mark.parametrize("cap", ["round", "flat", "square"])
@pytest.mark.parametrize("width", [0.4, 1, 3, 7.5])
def test_wide_lines_equal_gdal_on_their_buffer(gdal, cap, width):
    rng = np.random.default_rng(3)
    lines = [rng.random((int(rng.integers(2, 7)), 2)) * 90 - 10 for _ in range(40)]
    lines += [np.round(line * 2) / 2 for line in lines]
    shapes = [shapely.LineString(line) for line in lines]
    buffered = [s.buffer(width / 2, quad_segs=16, cap_style=cap) for s in shapes]
    mask = burn(widen(np.array(shapes), width, cap), (70, 80))
    assert (mask == gdal_mask(gdal, buffered, (70, 80), False)).all()


def test_width_and_length_of_a_line():
    """Pixels whose centres are within half the width; in metres with pixels of 0.5 x 2 m; one width per feature."""
    line = shapely.LineString([[3, 5], [13, 5]])
    row = burn(widen(np.array([line]), 4, "flat"), (10, 20))
    assert row.nonzero()[0].min() == 3
    assert row.sum() == 4 * 10
    metres = widen(np.array([line]), 4, "square", (0.5, 2))
    assert burn(metres, (10, 20)).sum() == 2 * (4 + 10 + 4) - 2
    mixed = [shapely.MultiLineString([line, shapely.LineString([[3, 15], [13, 15]])]), line, shapely.box(0, 0, 2, 2)]
    found = burn(widen(np.array(mixed), np.array([6, 2, 9]), "flat"), (20, 20))
    assert [int((found == k).sum()) for k in (1, 2, 3)] == [6 * 10 * 2 - 2 * 10, 2 * 10, 4]


@pytest.mark.parametrize(
    ("geometries", "message"),
    [
        ([None, 3], "feature 1: expected a shapely geometry or None, got 'int'"),
        ([None, shapely.Point(1, 1e12)], "feature 1: expected finite pixel coordinates"),
        ([shapely.box(0, 0, 1, 1), shapely.box(0, 0, 1, np.inf)], "feature 1: expected finite"),
    ],
)
def test_bad_shapely(geometries, message):
    with pytest.raises(ValueError, match=message):
        Geometries.from_shapely(geometries)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"line_width": -1}, "line_width: expected one number from 0"),
        ({"line_width": np.ones(3)}, "line_width: expected one number from 0, or one per geometry"),
        ({"line_width": 1, "cap": "butt"}, "cap: expected round, flat or square, got 'butt'"),
        ({"line_width": 1, "pixel": (0, 1)}, "pixel: expected"),
    ],
)
def test_bad_widths(options, message):
    with pytest.raises(ValueError, match=message):
        widen(np.array([shapely.Point(1, 1), None]), **options)


@pytest.mark.parametrize("all_touched", [False, True])
def test_a_ring_of_many_edges(gdal, all_touched):
    """Windows leave out the runs of edges that are far away, but not what lies left of them."""
    rng = np.random.default_rng(4)
    angle = np.linspace(0, 2 * np.pi, 6000, endpoint=False)
    radius = 420 + 60 * np.sin(40 * angle) + rng.random(6000) * 20
    outer = np.stack([500 + radius * np.cos(angle), 500 + radius * np.sin(angle)], 1)
    hole = np.stack([480 + radius[::3] * np.cos(-angle[::3]) * 0.5, 520 + radius[::3] * np.sin(-angle[::3]) * 0.5], 1)
    shape = polygon([*outer.tolist(), outer[0].tolist()], [*hole.tolist(), hole[0].tolist()])
    expected = gdal_mask(gdal, [shape], (1000, 1000), all_touched)
    scene = Rasterizer(Geometries.from_shapely([shape]), np.array([1]), (1000, 1000), all_touched=all_touched)
    assert (scene.window(0, 0, 1000, 1000) == expected).all()
    places = rng.integers(0, 940, (200, 2))
    for (row, col), mask in zip(places, scene.windows(places, 60, 60)):
        assert (mask == expected[row : row + 60, col : col + 60]).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_worked_by_hand(kernel):
    """A square with a hole over pixel centres, a point, and a later feature on top."""
    shapes = [
        polygon(square(0.5, 0.4, 4.6, 4.4), square(1.6, 1.6, 3.4, 3.4)),
        shapely.Point(4.9, 0.0),
        shapely.LineString([[0.2, 3.9], [3.9, 3.1]]),
    ]
    assert burn(shapes, (5, 5), kernel=kernel).tolist() == [
        [1, 1, 1, 1, 2],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 1, 0],
        [3, 3, 3, 3, 0],
        [1, 1, 1, 1, 0],
    ]


@pytest.mark.parametrize("kernel", KERNELS)
def test_all_touched_adds_the_pixels_of_the_edge(kernel):
    small = [polygon(square(1.6, 1.6, 2.4, 2.4))]
    assert burn(small, (4, 4), kernel=kernel).sum() == 0
    touched = burn(small, (4, 4), all_touched=True, kernel=kernel)
    assert np.argwhere(touched).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    aligned = [polygon(square(1, 1, 3, 3))]
    assert burn(aligned, (4, 4), kernel=kernel).sum() == 4


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 0.25, 0.5, 1]),
    st.booleans(),
    st.tuples(st.integers(-20, 60), st.integers(-20, 60), st.integers(0, 40), st.integers(0, 40)),
)
def test_a_window_is_a_part_of_the_scene(seed, grid, all_touched, window):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 60, 2).tolist())
    shapes = random_shapes(rng, 12, 50, float(rng.choice([3, 20, 90])), grid)
    geometries, ids = Geometries.from_shapely(shapes), np.arange(1, 13)
    scene = np.full((200, 200), 99, np.uint8)
    scene[60 : 60 + shape[0], 60 : 60 + shape[1]] = rasterize(
        geometries, ids, shape, all_touched=all_touched, background=99
    )
    row, col, rows, cols = window
    part = rasterize(geometries, ids, shape, window=window, all_touched=all_touched, background=99)
    assert (part == scene[60 + row : 60 + row + rows, 60 + col : 60 + col + cols]).all()


@pytest.mark.parametrize("all_touched", [False, True])
def test_many_windows_of_a_scene(all_touched):
    """A thousand features through the index, small and very large, in strips on two threads."""
    rng = np.random.default_rng(2)
    shapes = random_shapes(rng, 30, 900, 2000) + random_shapes(rng, 970, 900, 40)
    geometries, ids = Geometries.from_shapely(shapes), rng.integers(0, 200, 1000).astype(np.int32)
    whole = Rasterizer(geometries, ids, (900, 800), all_touched=all_touched, threads=1).window(0, 0, 900, 800)
    assert len(np.unique(whole)) > 100
    scene = Rasterizer(geometries, ids, (900, 800), all_touched=all_touched, threads=2)
    assert (scene.window(0, 0, 900, 800) == whole).all()
    places = rng.integers(0, 700, (40, 2))
    out = np.empty((40, 100, 100), np.uint8)
    assert scene.windows(places, 100, 100, out) is out
    for (row, col), mask in zip(places, out):
        assert (mask == whole[row : row + 100, col : col + 100]).all()
    open_ended = Rasterizer(geometries, ids, all_touched=all_touched)
    assert (open_ended.window(300, 310, 200, 100) == whole[300:500, 310:410]).all()


def test_parts_of_a_multipolygon_burn_one_by_one():
    """Where two of them overlap the pixels are inside, unlike the rings of one polygon."""
    two = [square(0, 0, 3, 3), square(1, 1, 4, 4)]
    assert burn([shapely.MultiPolygon([polygon(ring) for ring in two])], (4, 4))[1, 1] == 1
    assert burn([polygon(*two)], (4, 4))[1, 1] == 0


def test_shapes_of_every_type():
    """Collections in collections, lines that are rings, heights, empty ones, and nothing at all, in their order."""
    collection = shapely.GeometryCollection(
        [
            polygon(square(2, 0, 4, 2)),
            shapely.GeometryCollection([shapely.MultiLineString([[[0, 5], [1, 5]], [[2, 4], [2, 5]]])]),
        ]
    )
    ring = shapely.LinearRing([[0, 0], [0.4, 0], [0.4, 0.4]])
    geometries = Geometries.from_shapely([None, shapely.Point(1.5, 0.5, 70), collection, shapely.Polygon(), ring])
    assert len(geometries) == 5
    assert np.diff(geometries.feature_start).tolist() == [0, 1, 3, 0, 1]
    assert rasterize(geometries, np.array([1, 2, 3, 4, 5]), (6, 3)).tolist() == [
        [5, 2, 0],
        [0, 0, 0],
        [3, 3, 0],
        [3, 3, 0],
        [0, 0, 3],
        [3, 3, 3],
    ]
    assert len(Geometries.from_shapely([])) == 0


def test_bad_arrays():
    good = Geometries.from_shapely([polygon(square(0, 0, 2, 2))])
    fields = {name: getattr(good, name) for name in ("coords", "ring_start", "part_start", "feature_start", "kinds")}
    for name, value, message in (
        ("coords", good.coords[:, ::-1], "coords: must be C-contiguous"),
        ("coords", good.coords + np.arange(5)[:, None], "must be closed"),
        ("coords", np.full((5, 2), np.inf), "expected finite"),
        ("ring_start", np.array([0, 6]), "ring_start: expected rising positions from 0 to 5"),
        ("part_start", np.array([0, 2, 1]), "part_start: expected rising"),
        ("kinds", np.array([3], np.uint8), "kinds: expected 0"),
        ("kinds", np.array([2, 2], np.uint8), "kinds: expected one per part"),
    ):
        with pytest.raises(ValueError, match=message):
            Geometries(**{**fields, name: value})


def test_bad_arguments():
    one = Geometries.from_shapely([polygon(square(0, 0, 2, 2))])
    with pytest.raises(ValueError, match="class_ids: expected 1 integers"):
        rasterize(one, np.array([1, 2]), (3, 3))
    with pytest.raises(ValueError, match="class_ids: expected 0 to 255, got 256"):
        rasterize(one, np.array([256]), (3, 3))
    with pytest.raises(ValueError, match="class_ids: expected 0 to 65535, got 65536"):
        rasterize(one, np.array([65536]), (3, 3), dtype="uint16")
    with pytest.raises(ValueError, match="dtype: expected uint8, uint16, int32, got 'float32'"):
        rasterize(one, np.array([1]), (3, 3), dtype="float32")
    with pytest.raises(ValueError, match="out: expected dtype uint16"):
        rasterize(one, np.array([1]), (3, 3), dtype="uint16", out=np.zeros((3, 3), np.uint8))
    with pytest.raises(ValueError, match="background"):
        rasterize(one, np.array([1]), (3, 3), background=-1)
    with pytest.raises(ValueError, match="shape"):
        rasterize(one, np.array([1]), (-3, 3))
    with pytest.raises(ValueError, match=r"out: expected shape \(3, 3\)"):
        rasterize(one, np.array([1]), (3, 3), out=np.zeros((3, 4), np.uint8))
