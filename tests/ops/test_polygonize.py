"""What only polygonize promises; its parity with the reference is in test_parity.py."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from osgeo import gdal, ogr
from scipy import ndimage

from rvkernels.ops import KERNELS, core
from rvkernels.ops.components import components
from rvkernels.ops.polygonize import Polygons, polygonize
from rvkernels.ops.rasterize import POLYGON, Geometries, rasterize

TRANSFORM = (500000.1, 0.3, 0.07, 4600000.7, -0.02, -0.3)


def by_gdal(labels, background=0, connectivity=4, transform=None):
    """Values, and shapely polygons in the order of gdal.Polygonize."""
    rows, cols = labels.shape
    image = gdal.GetDriverByName("MEM").Create("", cols, rows, 2, gdal.GDT_Int32)
    if transform is not None:
        image.SetGeoTransform(transform)
    image.GetRasterBand(1).WriteArray(labels)
    wanted = np.ones_like(labels) if background is None else labels != background
    image.GetRasterBand(2).WriteArray(wanted.astype(np.uint8))
    layer = (vectors := ogr.GetDriverByName("Memory").CreateDataSource("")).CreateLayer("", None, ogr.wkbPolygon)
    layer.CreateField(ogr.FieldDefn("value", ogr.OFTInteger))
    options = ["8CONNECTED=8"] if connectivity == 8 else []
    gdal.Polygonize(image.GetRasterBand(1), image.GetRasterBand(2), layer, 0, options)
    found = [(f.GetField(0), bytes(f.GetGeometryRef().ExportToWkb())) for f in layer]
    del vectors
    return [value for value, _ in found], shapely.from_wkb([wkb for _, wkb in found])


def as_set(values, geometries):
    """Values with polygons whose rings begin and run in one way, sorted."""
    return sorted(zip(map(int, values), shapely.to_wkb(shapely.normalize(geometries)).tolist()))


def random_labels(seed, rows, cols, values, smooth):
    rng = np.random.default_rng(seed)
    if not smooth:
        return rng.integers(0, values, (rows, cols)).astype(np.uint8)
    field = ndimage.uniform_filter(rng.random((rows, cols)), 3)
    return np.digitize(field, np.quantile(field, np.arange(1, values) / values)).astype(np.uint8)


def area(ring):
    """Twice the signed area."""
    (x, y), (u, v) = ring[:-1].T.astype(np.float64), ring[1:].T.astype(np.float64)
    return (x * v - u * y).sum()


@pytest.mark.parametrize("kernel", KERNELS)
def test_worked_by_hand(kernel):
    labels = np.array([[3, 3, 3, 0], [3, 0, 3, 0], [3, 3, 0, 3]], np.int32)
    four = polygonize(labels, kernel=kernel)
    assert four.values.tolist() == [3, 3]
    assert four.polygon_start.tolist() == [0, 2, 3]
    assert four.coordinates() == [
        [
            [[0, 0], [0, 3], [2, 3], [2, 2], [3, 2], [3, 0], [0, 0]],
            [[2, 1], [2, 2], [1, 2], [1, 1], [2, 1]],
        ],
        [[[3, 2], [3, 3], [4, 3], [4, 2], [3, 2]]],
    ]
    eight = polygonize(labels, (10, 2, 0, 20, 0, -1), connectivity=8, kernel=kernel)
    outer = [[0, 0], [0, 3], [2, 3], [2, 2], [3, 2], [3, 3], [4, 3], [4, 2], [3, 2], [3, 0], [0, 0]]
    assert eight.coordinates()[0][0] == [[10 + 2 * x, 20 - y] for x, y in outer]
    assert len(polygonize(labels, min_area=2, kernel=kernel)) == 1


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 14),
    st.integers(1, 90),
    st.integers(2, 4),
    st.booleans(),
    st.sampled_from([4, 8]),
    st.sampled_from([None, 0, 1]),
)
def test_equals_gdal(seed, rows, cols, values, smooth, connectivity, background):
    labels = random_labels(seed, rows, cols, values, smooth)
    for transform in (None, TRANSFORM):
        got = polygonize(labels, transform, background=background, connectivity=connectivity, threads=2)
        assert as_set(got.values, got.geometries()) == as_set(*by_gdal(labels, background, connectivity, transform))


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("background", [None, 0])
@pytest.mark.parametrize("labels", [np.ones((1, 1)), np.zeros((1, 1)), np.full((5, 7), 3), np.eye(6), 1 - np.eye(6)])
def test_small_masks_equal_gdal(labels, background, connectivity):
    labels = labels.astype(np.uint8)
    got = polygonize(labels, background=background, connectivity=connectivity)
    assert as_set(got.values, got.geometries()) == as_set(*by_gdal(labels, background, connectivity))


def scene(kind):
    """(rows, cols) uint8 of two million pixels: three strips."""
    rng = np.random.default_rng(5)
    rows, cols = 1700, 1300
    if kind == "classes":
        blocks = rng.integers(0, 3, (rows // 10, cols // 10)).astype(np.uint8)
        return np.kron(blocks, np.ones((10, 10), np.uint8))
    comb = np.zeros((rows, cols), np.uint8)  # one ring of many turns, across all strips
    comb[:, ::2] = 1
    comb[-1] = 1
    return comb


@pytest.mark.parametrize("kind", ["classes", "comb"])
def test_a_scene_equals_gdal(kind):
    labels = scene(kind)
    got = polygonize(labels, threads=1)
    assert as_set(got.values, got.geometries()) == as_set(*by_gdal(labels))
    again = polygonize(labels, threads=3)
    for field in dataclasses.fields(Polygons):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(got, field.name))


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 80), st.booleans(), st.sampled_from([4, 8]),
    st.integers(1, 5),
)  # fmt: skip
def test_properties(seed, rows, cols, smooth, connectivity, min_area):
    labels = random_labels(seed, rows, cols, 3, smooth)
    got = polygonize(labels, connectivity=connectivity, min_area=min_area)
    parts = components(labels, connectivity=connectivity, min_area=min_area, statistics=True)
    assert len(got) == parts.count
    assert got.values.tolist() == parts.statistics.value.tolist()
    rings = [got.coords[begin:end] for begin, end in zip(got.ring_start, got.ring_start[1:])]
    areas = np.array([area(ring) for ring in rings])
    outer = np.zeros(len(rings), bool)
    outer[got.polygon_start[:-1]] = True
    # Anticlockwise with y downwards is a negative area. Holes count with their own sign: the sum is the pixels.
    assert (areas[outer] < 0).all()
    assert (areas[~outer] > 0).all()
    if len(got):
        assert (np.add.reduceat(areas, got.polygon_start[:-1]) == -2 * parts.statistics.area).all()
    for ring in rings:
        step = np.diff(ring, axis=0)
        assert (ring[0] == ring[-1]).all()
        assert ((step == 0).sum(axis=1) == 1).all()  # along rows and columns only
        assert ((step[:, 0] == 0) != (np.roll(step, 1, axis=0)[:, 0] == 0)).all()  # turning at every vertex
    if connectivity == 4:
        assert shapely.is_valid(got.geometries()).all()
    # Burned in order, an 8-connected region covers none of another, so that any order gives the mask.
    features = np.arange(len(got) + 1)
    geometries = Geometries(
        got.coords.astype(np.float64), got.ring_start, got.polygon_start, features, np.full(len(got), POLYGON, np.uint8)
    )
    burned = rasterize(geometries, got.values, labels.shape)
    assert (burned == np.where(parts.labels > 0, labels, 0)).all()


def test_holes_are_inside():
    labels = random_labels(1, 40, 60, 2, True)
    found = polygonize(labels)
    holes = 0
    for polygon in found.geometries():
        shell = shapely.Polygon(polygon.exterior)
        holes += len(polygon.interiors)
        assert all(shell.covers(shapely.Polygon(hole)) for hole in polygon.interiors)
    assert holes > 10


def test_geometries():
    found = polygonize(random_labels(2, 30, 40, 3, True), TRANSFORM)
    _, coords, starts = shapely.to_ragged_array(found.geometries())
    for got, want in zip((coords, *starts), (found.coords, found.ring_start, found.polygon_start)):
        np.testing.assert_array_equal(got, want)
    empty = polygonize(np.zeros((3, 4), np.uint8))
    assert empty.geometries().tolist() == []
    assert len(empty.simplified(1.0)) == 0


def test_coordinates_are_those_of_geojson():
    found = polygonize(np.array([[0, 4], [4, 4]], np.uint8))
    assert found.coordinates() == [[[[1, 0], [1, 1], [0, 1], [0, 2], [2, 2], [2, 0], [1, 0]]]]


def test_simplified():
    stairs = np.tri(20, dtype=np.uint8) + 1
    found = polygonize(stairs)
    each = found.simplified(1.0)
    assert each.values.tolist() == found.values.tolist()
    assert len(each.coords) < len(found.coords) / 4
    for simple, exact in zip(each.geometries(), found.geometries()):
        assert simple.hausdorff_distance(exact) <= 1
    shared = found.simplified(2.0, shared=True)
    assert len(shared.coords) < len(found.coords) / 2
    assert shapely.coverage_is_valid(shared.geometries())
    assert shapely.area(shared.geometries()).sum() == pytest.approx(400)
    with pytest.raises(ValueError, match="tolerance: expected a distance"):
        found.simplified(-1)


def test_bad_arguments():
    mask = np.zeros((3, 4), np.uint8)
    for transform in ((0, 1, 0, 0, 0), (0, 1, 0, 0, 0, np.nan)):
        with pytest.raises(ValueError, match="transform: expected six finite numbers"):
            polygonize(mask, transform)
    with pytest.raises(ValueError, match="labels: expected dtype uint8 or int32, got float32"):
        polygonize(mask.astype(np.float32))
    with pytest.raises(ValueError, match="background: expected a value of uint8"):
        polygonize(mask, background=-1)
    with pytest.raises(ValueError, match="connectivity: expected 4 or 8"):
        polygonize(mask, connectivity=1)


def test_more_numbers_than_fit_are_refused():
    """The limit is 2^31 - 1 sides of runs; here it is lowered."""
    stripes = np.tile(np.array([0, 1], np.uint8), (2, 3))
    run = core().polygonize_uint8
    assert len(run(stripes, 0, False, 1, None, 1, most_pieces=12)[3]) == 3
    with pytest.raises(ValueError, match="labels: more than 5 runs"):
        run(stripes, 0, False, 1, None, 1, most_pieces=11)
