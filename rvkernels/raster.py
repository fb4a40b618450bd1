"""Rasters and coordinates: what a file says of itself, GeoTIFF and GeoJSON writing, pixels to map and back.

Points are (x, y) rows of float64: in pixels x is the column and y the row, corners at whole numbers; in a CRS x is east
or longitude and y north or latitude, whatever order the CRS itself prefers. Pixels are read by rvkernels.ops.tile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from osgeo import gdal, gdal_array, ogr, osr

from rvkernels import _raster
from rvkernels.files import atomic
from rvkernels.ops.polygonize import Polygons
from rvkernels.ops.tile import read_dtype
from rvkernels.registry import suggest
from rvkernels.scene import Scene

for _library in (gdal, ogr, osr):
    _library.UseExceptions()

MAP = "EPSG:4326"
# GeoJSON decimals: 1e-8 degree is about a millimetre on the ground; pixels to a thousandth.
DEGREE_DECIMALS, PIXEL_DECIMALS = 8, 3
_WRITTEN = ("uint8", "uint16", "int16", "uint32", "int32", "float32", "float64")
_thread = threading.local()


def describe(path: str | Path | Sequence[str]) -> dict:
    """What a raster, or the rasters of one scene taken as one stack on the first one's grid, say of themselves.

    Returns a dict
    rows, cols, bands  bands without alpha
    dtype, stored      as ops.tile reads it (uint8, uint16, int16 or float32), and as it is in the file
    crs, transform     WKT or None; GDAL's six numbers, the identity when there are none
    nodata             of the first band; None also when it is NaN, since NaN never counts as data
    alpha, mask        whether there is an alpha band, a mask
    block, driver      (rows, cols) of what is compressed as one; GDAL's name of the format
    palette            (red, green, blue, alpha) of each value, or None

    Raises FileNotFoundError, or ValueError naming the file; with several, also when one has no place on the grid.
    """
    if isinstance(path, (str, Path)):
        return describe_many([path], threads=1)[0]
    stack = _raster.Stack([str(p) for p in path])
    first = _tidy(stack.descriptions[0])
    return {**first, "bands": stack.bands, "dtype": read_dtype(stack.dtype), "stored": stack.dtype}


def describe_many(paths: Sequence[str | Path], threads: int = 0) -> list[dict]:
    """`describe` of each of many single rasters, opened in parallel (0 = all cores), in their order."""
    return [_tidy(d) for d in _raster.describe([str(p) for p in paths], threads)]


def _tidy(found: dict) -> dict:
    nodata = found["nodata"]
    return {
        **found,
        "dtype": read_dtype(found["dtype"]),
        "stored": found["dtype"],
        "nodata": None if nodata is None or math.isnan(nodata) else nodata,
    }


def read_bytes(path: str | Path) -> bytes:
    """A whole file, also one inside an archive (/vsizip/...). Raises FileNotFoundError."""
    path = str(path)
    stat = gdal.VSIStatL(path)
    if stat is None or stat.IsDirectory():
        raise FileNotFoundError(f"{path}: no such file")
    file = gdal.VSIFOpenL(path, "rb")
    try:
        return bytes(gdal.VSIFReadL(1, stat.size, file)) if stat.size else b""
    finally:
        gdal.VSIFCloseL(file)


def read_polygons(path: str | Path, attribute: str, layer: str | None = None) -> tuple[list[bytes], list, str]:
    """Polygons of a vector file that GDAL reads (GeoJSON, GPKG, ...): WKB, the values of `attribute`, the CRS as WKT.

    layer  of a file with several
    Raises FileNotFoundError, or ValueError naming the file, what is missing and what there is.
    """
    if gdal.VSIStatL(str(path)) is None:
        raise FileNotFoundError(f"{path}: no such file")
    try:
        opened = gdal.OpenEx(str(path), gdal.OF_VECTOR | gdal.OF_READONLY)
    except RuntimeError as error:
        raise ValueError(f"{path}: cannot be read as a vector file: {error}") from None
    names = [opened.GetLayer(i).GetName() for i in range(opened.GetLayerCount())]
    if layer is None and len(names) != 1:
        raise ValueError(
            f"{path}: has {len(names)} layers, name one as `layer`; there are {', '.join(names) or 'none'}"
        )
    if layer is not None and layer not in names:
        raise ValueError(f"{path}: no layer {layer!r}; {suggest(layer, names)}")
    features = opened.GetLayer(0) if layer is None else opened.GetLayerByName(layer)
    reference = features.GetSpatialRef()
    if reference is None:
        raise ValueError(f"{path}: has no CRS, so its polygons have no place on the ground")
    definition = features.GetLayerDefn()
    fields = [definition.GetFieldDefn(i).GetName() for i in range(definition.GetFieldCount())]
    if attribute not in fields:
        raise ValueError(f"{path}: no attribute {attribute!r}; {suggest(attribute, fields)}")
    polygons, values = [], []
    for number, feature in enumerate(features):
        geometry = feature.GetGeometryRef()
        kind = None if geometry is None else ogr.GT_Flatten(geometry.GetGeometryType())
        if kind not in (ogr.wkbPolygon, ogr.wkbMultiPolygon):
            name = "nothing" if kind is None else geometry.GetGeometryName()
            raise ValueError(f"{path}: feature {number}: expected a polygon, got {name}")
        polygons.append(bytes(geometry.ExportToWkb()))
        values.append(feature.GetField(attribute))
    return polygons, values, reference.ExportToWkt()


def write_geotiff(
    path: str | Path,
    array: np.ndarray,
    crs: str | None,
    transform: Sequence[float],
    *,
    nodata: float | None = None,
    colors: Mapping[int, Sequence[int]] | None = None,
    names: Sequence[str] | None = None,
    photometric: str | None = None,
    cog: bool = False,
) -> None:
    """Write (rows, cols) or (rows, cols, bands) as a tiled, deflated GeoTIFF, atomically.

    crs          anything GDAL understands as a CRS (WKT, "EPSG:32618"), or None
    colors       value -> (red, green, blue[, alpha]) 0..255: the colour table of a single-band uint8 or uint16 image
    names        band descriptions
    photometric  "rgb" marks the first three bands as red, green, blue; a fourth is not taken for alpha
    cog          cloud-optimised, with overviews (nearest neighbour for images with a colour table, else averages)

    Raises ValueError naming the path and what does not fit.
    """
    path = Path(path)
    stack = array[..., None] if array.ndim == 2 else array
    if stack.ndim != 3 or 0 in stack.shape:
        raise ValueError(f"{path}: expected an array (rows, cols) or (rows, cols, bands), got {array.shape}")
    bands = stack.shape[2]
    if array.dtype.name not in _WRITTEN:
        raise ValueError(f"{path}: no GeoTIFF of dtype {array.dtype}; there are {', '.join(_WRITTEN)}")
    if colors is not None and (bands != 1 or array.dtype.name not in ("uint8", "uint16")):
        raise ValueError(f"{path}: a colour table needs one band of uint8 or uint16, got {bands} of {array.dtype}")
    if names is not None and len(names) != bands:
        raise ValueError(f"{path}: {len(names)} band names for {bands} bands")
    if photometric not in (None, "rgb") or (photometric == "rgb" and bands < 3):
        raise ValueError(f"{path}: photometric is None, or 'rgb' for three bands or more; got {photometric!r}, {bands}")
    image = gdal_array.OpenNumPyArray(stack, False)
    _georeference(image, crs, transform, nodata, names)
    for b in range(3 if photometric == "rgb" else 0):
        band_color = (gdal.GCI_RedBand, gdal.GCI_GreenBand, gdal.GCI_BlueBand)[b]
        image.GetRasterBand(b + 1).SetColorInterpretation(band_color)
    if colors is not None:
        table = gdal.ColorTable()
        for value, color in colors.items():
            table.SetColorEntry(
                int(value), tuple(int(c) for c in color) if len(color) == 4 else (*map(int, color), 255)
            )
        image.GetRasterBand(1).SetColorTable(table)
    if cog:
        overviews = "NEAREST" if colors is not None else "AVERAGE"
        options = ["COMPRESS=DEFLATE", "PREDICTOR=YES", "BLOCKSIZE=256", f"RESAMPLING={overviews}"]
    else:
        options = _tiled(array.dtype)
        options += ["PHOTOMETRIC=RGB", "ALPHA=NO"] if photometric == "rgb" else []
    options.append("BIGTIFF=IF_SAFER")
    with atomic(path) as temporary, _writing(path):
        written = gdal.GetDriverByName("COG" if cog else "GTiff").CreateCopy(str(temporary), image, 0, options)
        written.FlushCache()
        del written


@contextlib.contextmanager
def geotiff_parts(
    path: str | Path,
    shape: tuple[int, int, int],
    dtype: str,
    crs: str | None,
    transform: Sequence[float],
    *,
    names: Sequence[str] | None = None,
) -> Iterator[Callable[[int, int, np.ndarray], None]]:
    """A GeoTIFF as write_geotiff makes it, of an array that is never whole in memory.

    shape  (rows, cols, bands) of the image
    Gives `write(row, col, part)`, which puts a part (rows, cols, bands) of `dtype` at its first row and column. Parts
    in order of rows are fastest; what none covers is 0. The file appears when the block ends without an error.
    Raises ValueError naming the path and what does not fit.
    """
    path = Path(path)
    rows, cols, bands = shape
    if min(shape) < 1:
        raise ValueError(f"{path}: expected rows, cols and bands of at least 1, got {shape}")
    options = [*_tiled(np.dtype(dtype)), "BIGTIFF=IF_SAFER"]
    with atomic(path) as temporary:
        with _writing(path):
            kind = gdal_array.NumericTypeCodeToGDALTypeCode(np.dtype(dtype))
            image = gdal.GetDriverByName("GTiff").Create(str(temporary), cols, rows, bands, kind, options)
            _georeference(image, crs, transform, None, names)

        def write(row: int, col: int, part: np.ndarray) -> None:
            got = f"got {part.shape} of {part.dtype} at {row}, {col}"
            if part.ndim != 3 or part.shape[2] != bands or part.dtype != dtype:
                raise ValueError(f"{path}: expected a part (rows, cols, {bands}) of {dtype}, {got}")
            if row < 0 or col < 0 or row + len(part) > rows or col + part.shape[1] > cols:
                raise ValueError(f"{path}: expected a part inside the image of {shape}, {got}")
            with _writing(path):
                image.WriteArray(part.transpose(2, 0, 1), col, row)

        try:
            yield write
            with _writing(path):
                image.FlushCache()
        finally:
            with _writing(path):
                image = None  # GDAL ends the file when nobody has it any more


def _tiled(dtype: np.dtype) -> list[str]:
    predictor = 3 if dtype.kind == "f" else 2
    return ["TILED=YES", "BLOCKXSIZE=256", "BLOCKYSIZE=256", "COMPRESS=DEFLATE", f"PREDICTOR={predictor}"]


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """GDAL's calls that write `path`: their errors name it.

    Without PAM everything goes into the file itself; a sidecar would not be renamed with it.
    """
    before = gdal.GetThreadLocalConfigOption("GDAL_PAM_ENABLED")
    gdal.SetThreadLocalConfigOption("GDAL_PAM_ENABLED", "NO")
    try:
        yield
    except RuntimeError as error:
        raise ValueError(f"{path}: cannot write a GeoTIFF: {error}") from None
    finally:
        gdal.SetThreadLocalConfigOption("GDAL_PAM_ENABLED", before)


def _georeference(
    image: gdal.Dataset,
    crs: str | None,
    transform: Sequence[float],
    nodata: float | None,
    names: Sequence[str] | None,
) -> None:
    image.SetGeoTransform([float(v) for v in transform])
    if crs is not None:
        image.SetSpatialRef(_spatial_reference(crs))
    for b in range(image.RasterCount):
        band = image.GetRasterBand(b + 1)
        if nodata is not None:
            band.SetNoDataValue(float(nodata))
        if names is not None:
            band.SetDescription(names[b])


def _spatial_reference(crs: str) -> osr.SpatialReference:
    reference = osr.SpatialReference()
    try:
        reference.SetFromUserInput(str(crs))
    except RuntimeError as error:
        raise ValueError(f"no CRS {str(crs)[:60]!r}: {error}; expected WKT or a name such as EPSG:32618") from None
    reference.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    return reference


def reproject(xy: np.ndarray, crs_from: str, crs_to: str) -> np.ndarray:
    """(n, 2) x, y of a CRS in another, float64. Raises ValueError when a point does not transform."""
    # A transformation belongs to one thread, and making one costs milliseconds.
    known = _thread.__dict__.setdefault("transformations", {})
    pair = (crs_from, crs_to)
    if pair not in known:
        ours, theirs = _spatial_reference(crs_from), _spatial_reference(crs_to)
        known[pair] = None if ours.IsSame(theirs) else osr.CoordinateTransformation(ours, theirs)
    if known[pair] is None or not len(xy):
        return xy
    try:
        moved = np.array(known[pair].TransformPoints(xy.tolist()), np.float64)[:, :2]
    except RuntimeError as error:
        raise ValueError(f"coordinates do not transform from {crs_from[:60]} to {crs_to[:60]}: {error}") from None
    if not np.isfinite(moved).all():
        bad = xy[~np.isfinite(moved).all(axis=1)][0].tolist()
        raise ValueError(
            f"point {bad} of CRS {crs_from[:60]} has no place in {crs_to[:60]}; are the axes in x, y order?"
        )
    return moved


def to_pixels(scene: Scene, xy: np.ndarray, crs_from: str = MAP) -> np.ndarray:
    """(n, 2) x, y of a CRS to (n, 2) column, row of the scene, float64.

    Raises ValueError naming the image when the scene has no CRS, or a point does not transform.
    """
    if scene.crs is None:
        raise ValueError(
            f"{scene.images[0]}: has no CRS, so labels in {crs_from[:60]} have no place in it; "
            "give the image one (gdal_edit.py -a_srs EPSG:...) or label it in pixels"
        )
    xy = np.asarray(xy, np.float64).reshape(-1, 2)
    t = scene.transform
    moved = reproject(xy, crs_from, scene.crs) - (t[0], t[3])
    matrix = np.array([[t[1], t[2]], [t[4], t[5]]])
    return moved @ np.linalg.inv(matrix).T


def to_map(scene: Scene, pixels: np.ndarray, crs_to: str = MAP) -> np.ndarray:
    """(n, 2) column, row of the scene to (n, 2) x, y of a CRS, float64; column, row again when the scene has no CRS."""
    pixels = np.asarray(pixels, np.float64).reshape(-1, 2)
    if scene.crs is None:
        return pixels
    t = scene.transform
    xy = pixels @ np.array([[t[1], t[2]], [t[4], t[5]]]).T + (t[0], t[3])
    return reproject(xy, scene.crs, crs_to)


def move_geometries(geometries: Sequence[dict], move: Callable[[np.ndarray], np.ndarray]) -> list[dict]:
    """GeoJSON geometries with their points moved by `move` ((n, 2) -> (n, 2)), called once for all of them.

    Heights are dropped. Raises ValueError for coordinates that are not numbers.
    """
    lines: list[np.ndarray] = []  # points are moved line by line: a scene's polygons have 100,000s of them
    ends = [0]

    def collect(coordinates: object) -> object:
        """The nested coordinates with each line, ring or single point as its number in `lines`."""
        if not isinstance(coordinates, (list, tuple)):
            raise ValueError(f"coordinates {coordinates!r} are not numbers x, y")
        first = next((c for c in coordinates if c not in ([], ())), [])  # parts that are empty stay so
        if isinstance(first, (list, tuple)) and (not first or isinstance(first[0], (list, tuple))):
            return [collect(c) for c in coordinates]
        points = coordinates if isinstance(first, (list, tuple)) else [coordinates]
        lines.append(_points(points))
        ends.append(ends[-1] + len(points))
        return (len(lines) - 1, points is coordinates)

    def place(index: object, moved: list) -> object:
        if isinstance(index, list):
            return [place(i, moved) for i in index]
        number, is_line = index
        line = moved[ends[number] : ends[number + 1]]
        return line if is_line else line[0]

    def shapes(geometry: dict) -> dict:
        if geometry["type"] == "GeometryCollection":
            return {"type": geometry["type"], "geometries": [shapes(g) for g in geometry["geometries"]]}
        return {"type": geometry["type"], "coordinates": collect(geometry["coordinates"])}

    def fill(shape: dict, moved: list) -> dict:
        if "geometries" in shape:
            return {"type": shape["type"], "geometries": [fill(s, moved) for s in shape["geometries"]]}
        return {"type": shape["type"], "coordinates": place(shape["coordinates"], moved)}

    indexed = [shapes(g) for g in geometries]
    moved = np.asarray(move(np.concatenate([np.empty((0, 2)), *lines]))).tolist()
    return [fill(shape, moved) for shape in indexed]


def _points(points: Sequence[Sequence[float]]) -> np.ndarray:
    """(n, 2) float64 from GeoJSON points, without heights."""
    try:
        found = np.array(points)
    except ValueError:  # some have a height, some not, or something is no point
        found = np.array([point[:2] for point in points if _is_point(point)])
    if found.shape[:1] != (len(points),) or found.ndim != 2 or found.shape[1] < 2 or found.dtype.kind not in "fiu":
        bad = next((point for point in points if not _is_point(point)), points[0])
        raise ValueError(f"coordinates {bad!r} are not numbers x, y")
    return found[:, :2].astype(np.float64)


def _is_point(point: object) -> bool:
    return isinstance(point, (list, tuple)) and len(point) >= 2 and all(isinstance(c, (int, float)) for c in point)


def box_geometry(box: Sequence[float]) -> dict:
    """The GeoJSON polygon of a box (ymin, xmin, ymax, xmax), its ring in Raster Vision's order."""
    ymin, xmin, ymax, xmax = (float(v) for v in box)
    ring = [[xmax, ymin], [xmax, ymax], [xmin, ymax], [xmin, ymin], [xmax, ymin]]
    return {"type": "Polygon", "coordinates": [ring]}


def sieve(labels: np.ndarray, least: int, ignore: int) -> np.ndarray:
    """Labels (rows, cols) uint8 whose areas (4-neighbours) of fewer than `least` pixels are part of the largest beside.

    Pixels of the value `ignore` stay as they are. Returns `labels` itself when no area is too small for `least`.
    """
    if least <= 1:
        return labels
    image = gdal.GetDriverByName("MEM").Create("", labels.shape[1], labels.shape[0], 2, gdal.GDT_Byte)
    areas, wanted = image.GetRasterBand(1), image.GetRasterBand(2)
    areas.WriteArray(labels)
    wanted.WriteArray((labels != ignore).view(np.uint8))
    gdal.SieveFilter(areas, wanted, areas, least, 4)
    return areas.ReadAsArray()


def to_geojson(path: str | Path, scene: Scene, features: Iterable[tuple[dict, dict]]) -> None:
    """Write a FeatureCollection in EPSG:4326 from (geometry in the scene's pixels, properties) pairs, atomically.

    Coordinates are rounded to 8 decimals. Without a CRS they stay columns and rows, which `"crs": null` says.
    """
    geometries, properties = [], []
    for geometry, attributes in features:
        geometries.append(geometry)
        properties.append(attributes)
    moved = move_geometries(geometries, lambda points: _for_geojson(scene, points))
    _write_collection(path, scene, zip(moved, properties))


def polygons_to_geojson(path: str | Path, scene: Scene, polygons: Polygons, properties: Mapping) -> None:
    """The same from polygons in the scene's pixels, all with the same properties."""
    moved = dataclasses.replace(polygons, coords=_for_geojson(scene, polygons.coords))
    geometries = ({"type": "Polygon", "coordinates": rings} for rings in moved.coordinates())
    _write_collection(path, scene, ((geometry, properties) for geometry in geometries))


def _for_geojson(scene: Scene, pixels: np.ndarray) -> np.ndarray:
    return np.round(to_map(scene, pixels), PIXEL_DECIMALS if scene.crs is None else DEGREE_DECIMALS)


def _write_collection(path: str | Path, scene: Scene, features: Iterable[tuple[dict, Mapping]]) -> None:
    collection: dict = {"type": "FeatureCollection"}
    if scene.crs is None:
        collection["crs"] = None
    collection["features"] = [
        {"type": "Feature", "geometry": geometry, "properties": properties} for geometry, properties in features
    ]
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(collection, allow_nan=False) + "\n")
