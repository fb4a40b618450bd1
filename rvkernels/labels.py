"""Labels of a scene in its pixels: shapes from GeoJSON, class masks, classes of cells, areas of interest.

Shapes are shapely geometries with x = column and y = row. Class ids count the class list from 0; 255 means ignore.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from shapely.geometry import shape as shape_of

from rvkernels import raster
from rvkernels.dataset import is_vector
from rvkernels.ops import tile
from rvkernels.ops.rasterize import FARTHEST, Geometries, Rasterizer, simple_parts, widen
from rvkernels.ops.windows import inside
from rvkernels.registry import suggest
from rvkernels.scene import Scene

IGNORE = 255
# An area of interest is written with rounded coordinates; a window on its edge may stick out by this much.
EDGE_PIXELS = 0.05
_POLYGON = 3  # shapely's number of the type


@dataclass(frozen=True)
class Features:
    """Labelled shapes of a scene in pixels, in file order.

    geometries  shapely points, lines and polygons (no collections), neither empty nor invalid, not clipped to the scene
    class_ids   (n,) int32
    boxes       (n, 4) float32: ymin, xmin, ymax, xmax of each
    """

    geometries: list[shapely.Geometry]
    class_ids: np.ndarray
    boxes: np.ndarray


class Classes:
    """The class list of a description: names, or mappings with `name` and what else the schema has.

    values  (classes,) int64: the number that stands for each class in a label image of one band
    """

    def __init__(self, classes: Sequence[str | Mapping]):
        self.names = [c if isinstance(c, str) else c["name"] for c in classes]
        self.colors = [None if isinstance(c, str) else c.get("color") for c in classes]
        self.line_widths = np.array([0 if isinstance(c, str) else c.get("line_width", 0) for c in classes], np.float64)
        given = [i if isinstance(c, str) else c.get("value", i) for i, c in enumerate(classes)]
        self.values = np.array(given, np.int64)
        self._ids = {name: i for i, name in enumerate(self.names)}
        for i, c in enumerate(classes):
            self._ids.update((alias, i) for alias in ([] if isinstance(c, str) else c.get("aliases", ())))

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self._ids

    def id(self, name: str, where: str) -> int:
        """The id of a name or alias; ValueError, naming `where` and the class list, when there is no such class."""
        if name in self._ids:
            return self._ids[name]
        raise ValueError(f"{where}: class {name!r} is not in the class list; {suggest(name, self.names)}")

    def of_properties(self, properties: Mapping, where: str) -> int:
        """The class of a feature: its class_id, else its class_name or label, else the class with the alias ''."""
        names = [str(properties[k]) for k in ("class_name", "label") if properties.get(k) is not None]
        given = properties.get("class_id")
        if given is None:
            return self.id(names[0] if names else "", where)
        if isinstance(given, bool) or not isinstance(given, (int, float)) or given not in range(len(self)):
            raise ValueError(
                f"{where}: class_id {given!r} is not one of 0 to {len(self) - 1}; {suggest('', self.names)}"
            )
        if names and self._ids.get(names[0], given) != given:
            raise ValueError(
                f"{where}: class_id {given} is {self.names[int(given)]!r} in the class list, but its name is "
                f"{names[0]!r}; correct one of them"
            )
        return int(given)

    def palette(self, where: str) -> np.ndarray:
        """(classes, 3) uint8 colours; ValueError when one is missing or two are the same."""
        missing = [n for n, c in zip(self.names, self.colors) if c is None]
        if missing:
            raise ValueError(f"{where}: is a colour image, but class {missing[0]!r} has no color in the class list")
        rgb = [bytes.fromhex(c.lstrip("#")) if isinstance(c, str) else bytes(c) for c in self.colors]
        for i, color in enumerate(rgb):
            if color in rgb[:i]:
                twice = self.names[rgb.index(color)]
                raise ValueError(f"{where}: classes {twice!r} and {self.names[i]!r} have the same color")
        return np.frombuffer(b"".join(rgb), np.uint8).reshape(-1, 3)


def load_features(scene: Scene, classes: Sequence[str | Mapping]) -> Features:
    """The shapes of a scene's label file, GeoJSON.

    GeoJSON is in the CRS of its `crs` member, else in EPSG:4326; `"crs": null` says pixels. A feature's class is its
    class_id, else its class_name or label. Empty geometries are dropped, collections split, invalid polygons repaired.
    Lines of a class with a line_width become the polygons that they cover, with round ends; the width is in the unit of
    the image's CRS, in pixels when it has none.

    Raises FileNotFoundError, or ValueError naming file and feature: for a class outside the list, a file that is not
    what its name says, and georeferenced labels on an image without CRS.
    """
    if scene.labels is None:
        raise ValueError(f"{scene.images[0]}: scene {scene.id} has no labels")
    known = Classes(classes)
    features, crs = _read_geojson(scene.labels)
    wheres = [f"{scene.labels}: feature {i}" for i in range(len(features))]
    ids = [known.of_properties(f.get("properties") or {}, where) for f, where in zip(features, wheres)]
    parts, index = _in_pixels(scene, features, crs, scene.labels)
    pixel = np.hypot(scene.transform[1:3], scene.transform[4:6]) if scene.crs else (1.0, 1.0)
    class_ids = np.array(ids, np.int32)
    parts, of = simple_parts(widen(parts, known.line_widths[class_ids[index]], pixel=tuple(pixel)))
    return Features(
        parts.tolist(),
        class_ids[index[of]],
        shapely.bounds(parts)[:, [1, 0, 3, 2]].astype(np.float32),
    )


def _read_geojson(path: str) -> tuple[list[dict], str | None]:
    """Features with a geometry or None, and the CRS they are in (None: pixels)."""
    text = raster.read_bytes(path)
    # The collector would look through all positions read so far again and again: most of the time goes there.
    collects = gc.isenabled()
    gc.disable()
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from None
    finally:
        if collects:
            gc.enable()
    kind = content.get("type") if isinstance(content, dict) else None
    if kind not in ("FeatureCollection", "Feature"):
        raise ValueError(f"{path}: expected a GeoJSON FeatureCollection, got {kind or type(content).__name__}")
    features = content.get("features", []) if kind == "FeatureCollection" else [content]
    if not isinstance(features, list):
        raise ValueError(f"{path}: features: expected a list, got {type(features).__name__}")
    for i, feature in enumerate(features):
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            raise ValueError(f"{path}: feature {i}: expected type Feature")
        for member in ("properties", "geometry"):
            if not isinstance(feature.get(member), (dict, type(None))):
                raise ValueError(f"{path}: feature {i}: {member}: expected an object or null")
    if "crs" not in content:
        return features, raster.MAP
    if content["crs"] is None:
        return features, None
    try:
        return features, content["crs"]["properties"]["name"]
    except (TypeError, KeyError):
        raise ValueError(f"{path}: crs: expected a named CRS, got {json.dumps(content['crs'])[:80]}") from None


def _in_pixels(scene: Scene, features: list[dict], crs: str | None, path: str) -> tuple[np.ndarray, np.ndarray]:
    """Points, lines and valid polygons in the scene's pixels, and the (n,) number of the feature that each is of."""
    texts = [json.dumps(f["geometry"]) if f.get("geometry") else None for f in features]
    geometries = shapely.from_geojson(np.array(texts, object), on_invalid="ignore")
    # What GEOS does not take is a ring that is not closed, which shapely closes, or an error, which is named.
    for i in np.flatnonzero(shapely.is_missing(geometries)):
        if texts[i] is not None:
            try:
                geometries[i] = shape_of(*raster.move_geometries([features[i]["geometry"]], lambda xy: _near(xy, xy)))
            except (ValueError, KeyError, TypeError, AttributeError, shapely.errors.ShapelyError) as error:
                raise ValueError(f"{path}: feature {i}: {error}") from None

    def move(xy: np.ndarray) -> np.ndarray:
        return _near(xy if crs is None else raster.to_pixels(scene, xy, crs), xy)

    try:
        return _valid_parts(shapely.transform(geometries, move))
    except (ValueError, shapely.errors.ShapelyError) as error:
        raise ValueError(f"{path}: {error}") from None


def _near(pixels: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """The pixels, when all are numbers within FARTHEST; else ValueError with their coordinates in the file."""
    far = ~(np.abs(pixels) <= FARTHEST).all(1)
    if far.any():
        x, y = xy[far][0].tolist()
        raise ValueError(f"coordinates ({x}, {y}) lie more than 2^29 pixels from the image; check the CRS")
    return pixels


def _valid_parts(geometries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points, lines and valid polygons of geometries, none empty, and the (n,) number of the geometry each is of.

    make_valid keeps both halves of a bow tie, of which buffer(0) drops one; the lines it may leave of a polygon go.
    """
    parts, index = simple_parts(geometries)
    valid = shapely.is_valid(parts)
    if valid.all():
        return parts, index
    broken = np.flatnonzero(~valid)
    repaired, of = simple_parts(np.array([_valid(part) for part in parts[broken]], object))
    same = shapely.get_type_id(repaired) == shapely.get_type_id(parts[broken[of]])
    place = np.concatenate([np.flatnonzero(valid), broken[of[same]]])
    order = np.argsort(place, kind="stable")
    return np.concatenate([parts[valid], repaired[same]])[order], index[place[order]]


def _valid(geometry: shapely.Geometry) -> shapely.Geometry:
    try:
        return shapely.make_valid(geometry)
    except shapely.errors.GEOSException:  # where rings meet themselves in points only, this method gives up
        return shapely.make_valid(geometry, method="structure", keep_collapsed=False)


class SceneMasks:
    """Segmentation labels of one scene, of its label image or its shapes, opened once for any number of windows.

    background   class of pixels without a shape; None = 255
    all_touched  burn every pixel a shape touches, not only those whose centre it covers; shapes burn in file order
    threads      0 = all cores

    A label image of one band without colour table: the values are class ids, or the `value` of classes that have one;
    another value is an error, but for 255 and nodata. With three bands, or a colour table that has a class colour other
    than black (tables are filled up with it): colours, and one that no class has becomes 255.
    Raises ValueError naming the file; also when the label image is not on the scene's grid.
    """

    def __init__(
        self,
        scene: Scene,
        classes: Sequence[str | Mapping],
        *,
        background: str | None = None,
        all_touched: bool = False,
        threads: int = 0,
    ):
        known = Classes(classes)
        empty = IGNORE if background is None else known.id(background, "background")
        if scene.labels is not None and not is_vector(scene.labels):
            self._labels: _LabelImage | _Shapes = _LabelImage(scene, known, threads)
        else:
            found = load_features(scene, classes)
            self._labels = _Shapes(scene, found.geometries, found.class_ids, empty, all_touched, threads)
        area = aoi(scene)
        self._area = None
        if area is not None:
            self._area = _Shapes(scene, area, np.zeros(len(area), np.int32), IGNORE, False, threads)

    def read(self, windows: np.ndarray) -> np.ndarray:
        """Windows (n, 4) of one size, (n, rows, cols) uint8 class ids; 255 outside the image and the AOI."""
        windows = np.asarray(windows, np.int64).reshape(-1, 4)
        found = self._labels.read(windows)
        if self._area is not None:
            found[self._area.read(windows) == IGNORE] = IGNORE
        return found


class _Shapes:
    """Shapes burnt in their order into `background`; 255 outside the scene."""

    def __init__(
        self,
        scene: Scene,
        geometries: list[shapely.Geometry],
        ids: np.ndarray,
        background: int,
        all_touched: bool,
        threads: int,
    ):
        self.shape = (scene.rows, scene.cols)
        options = {"all_touched": all_touched, "background": background, "threads": threads}
        self.index = Rasterizer(Geometries.from_shapely(geometries), ids, self.shape, **options)

    def read(self, windows: np.ndarray) -> np.ndarray:
        rows, cols = windows[0, 2:].tolist() if len(windows) else (0, 0)
        if (windows[:, 2:] != (rows, cols)).any():
            raise ValueError("windows: rows and cols must be the same in all windows of a call")
        burnt = self.index.windows(np.ascontiguousarray(windows[:, :2]), rows, cols)
        for mask, (row, col) in zip(burnt, windows[:, :2].tolist()):
            mask[: max(0, -row)] = IGNORE
            mask[:, : max(0, -col)] = IGNORE
            mask[max(0, self.shape[0] - row) :] = IGNORE
            mask[:, max(0, self.shape[1] - col) :] = IGNORE
        return burnt


class _LabelImage:
    """Class ids out of a scene's label image; 255 outside it and where nodata."""

    def __init__(self, scene: Scene, known: Classes, threads: int):
        self.path, self.known, self.threads = scene.labels, known, threads
        found = raster.describe(self.path)
        size = (found["rows"], found["cols"])
        if size != (scene.rows, scene.cols):
            grid = f"{scene.images[0]} has {scene.rows} x {scene.cols}"
            raise ValueError(f"{self.path}: has {size[0]} x {size[1]} pixels, but {grid}")
        if found["crs"] and scene.crs:
            ours = tile.Grid(*size, scene.transform, scene.crs)
            differs = ours.difference(tile.Grid(*size, found["transform"], found["crs"]))
            if differs:
                raise ValueError(f"{self.path}: {differs} than {scene.images[0]}; warp it onto that with gdalwarp")
        self.bands, self.table = found["bands"], None  # the ids of the values of a colour table
        if self.bands >= 3:
            if found["dtype"] != "uint8":
                raise ValueError(f"{self.path}: a label image of colours is uint8, got {found['dtype']}")
            self.palette = known.palette(self.path)
        elif self.bands != 1:
            expected = "expected a label image of one band (ids) or three (colours)"
            raise ValueError(f"{self.path}: {expected}, got {self.bands}")
        elif found["palette"] is not None and None not in known.colors:
            colors = np.array(found["palette"], np.uint8)[:, :3]
            ids = _classes_of_colors(colors, known.palette(self.path))
            if ((ids != IGNORE) & colors.any(axis=1)).any():
                self.table = np.append(ids, np.uint8(IGNORE))
        self.image = tile.Raster(self.path)

    def read(self, windows: np.ndarray) -> np.ndarray:
        bands = [0] if self.bands == 1 else [0, 1, 2]
        values, valid = self.image.read(windows, bands=bands, valid=True, threads=self.threads)
        if self.bands >= 3:
            return np.where(valid, _classes_of_colors(values, self.palette), np.uint8(IGNORE))
        values = values[..., 0]
        if self.table is not None:
            place = np.minimum(values.astype(np.int64), len(self.table) - 1)
            return np.where(valid, self.table[place], np.uint8(IGNORE))
        ids = np.full(values.shape, IGNORE, np.uint8)
        for class_id, value in enumerate(self.known.values):
            ids[values == value] = class_id
        wrong = (valid == 1) & (values != IGNORE) & (ids == IGNORE)
        if wrong.any():
            pairs = ", ".join(f"{value} {name}" for value, name in zip(self.known.values, self.known.names))
            raise ValueError(
                f"{self.path}: holds {values[wrong][0]:g}, but classes are {pairs}; {IGNORE} and nodata mean no label"
            )
        return np.where(valid, ids, np.uint8(IGNORE))


def _classes_of_colors(pixels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """(..., 3) uint8 to (...) uint8 ids; 255 for a colour outside the (classes, 3) palette."""

    def keys(colors: np.ndarray) -> np.ndarray:
        wide = colors.astype(np.int32)
        return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]

    ours, theirs = keys(palette), keys(pixels)
    order = np.argsort(ours)
    place = np.minimum(np.searchsorted(ours[order], theirs), len(ours) - 1)
    return np.where(ours[order][place] == theirs, order[place], IGNORE).astype(np.uint8)


def cells(
    scene: Scene,
    windows: np.ndarray,
    classes: Sequence[str | Mapping],
    *,
    features: Features | None = None,
    min_share: float = 0.5,
    background: str | None = None,
) -> np.ndarray:
    """Classes of cells by inference from polygons, (n,) int32.

    A cell gets the class whose polygons cover the greatest area of it (overlaps within a class counted once, the lowest
    id on a tie), when that is at least `min_share` of the cell's area and more than none; else the `background` class,
    or -1 without one.
    """
    known = Classes(classes)
    features = load_features(scene, classes) if features is None else features
    windows = np.asarray(windows, np.int64).reshape(-1, 4)
    areas = class_areas(features, windows, len(known))
    best = areas.argmax(axis=1)
    covered = areas[np.arange(len(windows)), best]
    enough = (covered > 0) & (covered >= min_share * windows[:, 2] * windows[:, 3] * (1 - 1e-9))
    return np.where(enough, best, -1 if background is None else known.id(background, "background")).astype(np.int32)


def class_areas(features: Features, windows: np.ndarray, classes: int) -> np.ndarray:
    """Area of each window that polygons of each class cover, exactly, in square pixels: (n, classes) float64."""
    windows = np.asarray(windows, np.int64).reshape(-1, 4)
    areas = np.zeros((len(windows), classes))
    polygonal = [i for i, g in enumerate(features.geometries) if shapely.get_type_id(g) == _POLYGON]
    if not polygonal or not len(windows):
        return areas
    polygons = np.array([features.geometries[i] for i in polygonal], object)
    ids = features.class_ids[polygonal]
    boxes = _boxes_of(windows)
    window, polygon = shapely.STRtree(polygons).query(boxes, predicate="intersects")
    parts = shapely.intersection(polygons[polygon], boxes[window])
    group = window * classes + ids[polygon]
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(order)]):
        members = parts[order[start:end]]
        whole = members[0] if len(members) == 1 else shapely.union_all(members)
        areas.flat[group[order[start]]] = shapely.area(whole)
    return areas


def boxes_in(boxes: np.ndarray, window: Sequence[int], min_share: float = 0.25) -> tuple[np.ndarray, np.ndarray]:
    """Boxes that keep at least `min_share` of their area in a window (row, col, rows, cols).

    boxes    (n, 4) float32 in the scene
    Returns  (m, 4) float32 clipped to the window and counted from its corner, and their (m,) int64 rows in `boxes`.
    """
    row, col, rows, cols = (float(v) for v in window)
    corner = np.array([row, col, row, col])
    there = np.asarray(boxes, np.float64).reshape(-1, 4) - corner
    clipped = np.clip(there, 0, (rows, cols, rows, cols))
    whole, kept = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (there, clipped))
    rows_kept = np.flatnonzero((kept > 0) & (kept >= min_share * whole))
    return clipped[rows_kept].astype(np.float32), rows_kept


def aoi(scene: Scene) -> list[shapely.Polygon] | None:
    """The scene's area of interest as polygons in pixels; None means everywhere.

    Read as GeoJSON labels are, without their classes. Raises FileNotFoundError, or ValueError naming the file.
    """
    if scene.aoi is None:
        return None
    features, crs = _read_geojson(scene.aoi)
    parts, _ = _in_pixels(scene, features, crs, scene.aoi)
    polygons = parts[shapely.get_type_id(parts) == _POLYGON].tolist()
    if not polygons:
        raise ValueError(f"{scene.aoi}: holds no polygon, so no part of {scene.images[0]} would be used")
    return polygons


def in_aoi(windows: np.ndarray, polygons: Sequence[shapely.Polygon] | None, rule: str = "within") -> np.ndarray:
    """Which windows lie in the union of the polygons, (n,) bool; all of them when there are no polygons (None).

    rule  within | intersects, see ops.windows.inside. A window may stick out by EDGE_PIXELS, since coordinates in files
          are rounded
    """
    if polygons is None:
        return np.ones(len(windows), bool)
    grown = shapely.buffer(list(polygons), EDGE_PIXELS, join_style="mitre") if rule == "within" else polygons
    return inside(windows, list(grown), rule)


def _boxes_of(windows: np.ndarray) -> np.ndarray:
    row, col, rows, cols = windows.T.astype(np.float64)
    return shapely.box(col, row, col + cols, row + rows)
