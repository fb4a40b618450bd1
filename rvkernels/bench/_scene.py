"""A drawn scene for timings: 0.3 m UTM imagery in four encodings, and the buildings on it."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
from osgeo import gdal, gdal_array, ogr, osr

from rvkernels.files import atomic, locked
from rvkernels.progress import LOG, Progress

VERSION = 1  # of the drawing: raise it when the picture changes, so that an old one is drawn again
SIZE, QUICK_SIZE = 10_000, 2_048
POLYGONS_PER_PIXEL = 20_000 / SIZE**2
BANDS, SEED = 4, 7
# East and north of the upper left corner, and the pixel size, in metres of UTM zone 31.
EAST, NORTH, GSD, EPSG = 500_000.0, 4_600_000.0, 0.3, 32631
TILED = ("TILED=YES", "INTERLEAVE=PIXEL", "NUM_THREADS=ALL_CPUS")
ENCODINGS = {
    "deflate512": (*TILED, "BLOCKXSIZE=512", "BLOCKYSIZE=512", "COMPRESS=DEFLATE"),
    "deflate512_pred2": (*TILED, "BLOCKXSIZE=512", "BLOCKYSIZE=512", "COMPRESS=DEFLATE", "PREDICTOR=2"),
    "lzw256": (*TILED, "BLOCKXSIZE=256", "BLOCKYSIZE=256", "COMPRESS=LZW", "PREDICTOR=2"),
    "strip": ("TILED=NO", "INTERLEAVE=PIXEL"),
}
for _library in (gdal, ogr, osr):
    _library.UseExceptions()

IMAGE, BUILDINGS = "scene_hwc.npy", "buildings.geojson"


class Scene:
    """10,000 x 10,000 x 4 uint8 (quick: 2,048 x 2,048), a wedge of nodata (0), and 20,000 (839) buildings.

    It is drawn when it is first asked for, below `cache`, unless it is there; `folder` is one with such files instead,
    of any size, whatever `quick` says. Raises FileNotFoundError when one of them is missing there.
    """

    def __init__(self, *, quick: bool, cache: str | Path, folder: str | Path | None = None) -> None:
        self._size = QUICK_SIZE if quick else SIZE
        self._given = None if folder is None else Path(folder)
        self._cache = Path(cache)
        if self._given is not None:
            for name in (IMAGE, BUILDINGS, *(f"{encoding}.tif" for encoding in ENCODINGS)):
                if not (self._given / name).is_file():
                    raise FileNotFoundError(f"scene: no {name} in {self._given}")

    @functools.cached_property
    def folder(self) -> Path:
        if self._given is not None:
            return self._given
        folder = self._cache / f"scene-{self._size}-v{VERSION}"
        with locked(self._cache / ".lock"):  # against another process that draws it, too
            if not folder.is_dir():
                draw(folder, self._size)
        return folder

    @functools.cached_property
    def image(self) -> np.ndarray:
        """(rows, cols, 4) uint8, a read-only memory map."""
        return np.load(self.folder / IMAGE, mmap_mode="r")

    @property
    def rows(self) -> int:
        return self.image.shape[0]

    @property
    def cols(self) -> int:
        return self.image.shape[1]

    def path(self, encoding: str) -> str:
        """The GeoTIFF in one of ENCODINGS."""
        assert encoding in ENCODINGS, encoding
        return str(self.folder / f"{encoding}.tif")

    def blocks(self, encoding: str) -> tuple[np.ndarray, np.ndarray]:
        """Offsets and sizes in bytes of the GeoTIFF's blocks, row by row."""
        dataset = gdal.Open(self.path(encoding))
        band = dataset.GetRasterBand(1)
        across, down = (-(-size // block) for size, block in zip((band.XSize, band.YSize), band.GetBlockSize()))
        keys = [f"{{}}_{x}_{y}" for y in range(down) for x in range(across)]
        offsets, sizes = (
            [int(band.GetMetadataItem(key.format(item), "TIFF")) for key in keys]
            for item in ("BLOCK_OFFSET", "BLOCK_SIZE")
        )
        return np.array(offsets), np.array(sizes)

    @property
    def buildings(self) -> str:
        """GeoJSON of polygons in the CRS of the image, with the property cls, 1 to 5."""
        return str(self.folder / BUILDINGS)


def draw(folder: str | Path, size: int) -> None:
    """Write the files of a scene of size x size pixels into a new folder, atomically; the same for the same size.

    Relief of five octaves, roofs with shades of their own, blurred noise; of the form of what peers are known to be
    fast or slow with: DEFLATE makes it 1.7 times as small, and 3.3 times with a predictor.
    """
    rng = np.random.default_rng(SEED)
    LOG.info("drawing a scene of %d x %d pixels into %s, once", size, size, folder)
    with atomic(folder) as temporary, Progress(1 + BANDS + len(ENCODINGS), "scene", "parts") as progress:
        temporary.mkdir()
        polygons = [_building(rng, size) for _ in range(max(1, round(POLYGONS_PER_PIXEL * size**2)))]
        _write_buildings(temporary / BUILDINGS, polygons)
        roofs = _roofs(polygons, rng.integers(-60, 80, len(polygons)), size)
        relief = np.zeros((size, size), np.float32)
        for step, height in ((1000, 22), (300, 14), (80, 9), (20, 5), (6, 2)):
            relief += _octave(rng, size, step, height)
        progress.add(1, "relief")
        image = np.lib.format.open_memmap(temporary / IMAGE, "w+", np.uint8, (size, size, BANDS))
        for band, (gain, offset) in enumerate(((1.0, 95), (0.9, 100), (0.8, 85), (1.2, 120))):
            value = _octave(rng, size, 40, 3.0)
            value += _noise(rng, size, 3.8)
            value += relief * np.float32(gain)
            value += roofs * np.float32(0.9 + 0.1 * band)
            value += np.float32(offset)
            image[..., band] = value.clip(0, 255, out=value)
            progress.add(1, f"band {band + 1}")
        row, col = np.ogrid[:size, :size]
        image[col + 2 * row < 0.45 * size] = 0
        for encoding, options in ENCODINGS.items():
            _write_tif(temporary / f"{encoding}.tif", image, options)
            progress.add(1, encoding)


def _building(rng: np.random.Generator, size: int) -> np.ndarray:
    """Corners (n, 2) of (x, y) pixels: a turned rectangle, L or U."""
    w, h = rng.uniform(12, 60, 2)
    forms = (
        [(0, 0), (1, 0), (1, 1), (0, 1)],
        [(0, 0), (1, 0), (1, 0.5), (0.5, 0.5), (0.5, 1), (0, 1)],
        [(0, 0), (0.3, 0), (0.3, 0.2), (0.7, 0.2), (0.7, 0), (1, 0), (1, 1), (0, 1)],
    )
    corners = (np.array(forms[rng.integers(len(forms))]) - 0.5) * (w, h)
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return corners @ turn + rng.uniform(20, size - 20, 2)


def _write_buildings(path: Path, polygons: list[np.ndarray]) -> None:
    features = []
    for i, corners in enumerate(polygons):
        ring = (np.array([EAST, NORTH]) + corners * (GSD, -GSD)).round(3).tolist()
        geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
        features.append({"type": "Feature", "properties": {"id": i, "cls": 1 + i % 5}, "geometry": geometry})
    crs = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{EPSG}"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": features}))


def _roofs(polygons: list[np.ndarray], shades: np.ndarray, size: int) -> np.ndarray:
    """(size, size) int16: the shade of the roof, 0 beside them."""
    image = gdal.GetDriverByName("MEM").Create("", size, size, 1, gdal.GDT_Int16)
    image.SetGeoTransform((0, 1, 0, 0, 0, 1))
    image.SetSpatialRef(_grid())
    vectors = ogr.GetDriverByName("Memory").CreateDataSource("")
    layer = vectors.CreateLayer("", _grid())
    layer.CreateField(ogr.FieldDefn("shade", ogr.OFTInteger))
    for corners, shade in zip(polygons, shades.tolist()):
        text = ", ".join(f"{x:.3f} {y:.3f}" for x, y in (*corners.tolist(), corners[0].tolist()))
        feature = ogr.Feature(layer.GetLayerDefn())
        feature.SetGeometry(ogr.CreateGeometryFromWkt(f"POLYGON (({text}))"))
        feature["shade"] = shade
        layer.CreateFeature(feature)
    gdal.RasterizeLayer(image, [1], layer, options=["ATTRIBUTE=shade"])
    return image.ReadAsArray()


def _octave(rng: np.random.Generator, size: int, step: int, height: float) -> np.ndarray:
    """(size, size) float32: random heights about `step` pixels apart, cubic between them."""
    points = rng.standard_normal((size // step + 3, size // step + 3), np.float32) * np.float32(height)
    coarse = gdal_array.OpenArray(points)
    return coarse.ReadAsArray(buf_xsize=size, buf_ysize=size, resample_alg=gdal.GRIORA_Cubic)


def _noise(rng: np.random.Generator, size: int, sigma: float) -> np.ndarray:
    """(size, size) float32: normal noise of `sigma`, blurred by five binomial taps along both axes."""
    noise = np.empty((size, size), np.float32)
    for top in range(0, size, 256):
        rows = min(256, size - top)
        part = rng.standard_normal((rows + 4, size + 4), np.float32) * np.float32(sigma / 256)
        part = part[:-4] + part[4:] + 4 * (part[1:-3] + part[3:-1]) + 6 * part[2:-2]
        noise[top : top + rows] = part[:, :-4] + part[:, 4:] + 4 * (part[:, 1:-3] + part[:, 3:-1]) + 6 * part[:, 2:-2]
    return noise


def _write_tif(path: Path, image: np.ndarray, options: tuple[str, ...]) -> None:
    source = gdal_array.OpenArray(image.transpose(2, 0, 1))
    source.SetSpatialRef(_grid())
    source.SetGeoTransform((EAST, GSD, 0, NORTH, 0, -GSD))
    for band in range(image.shape[2]):
        source.GetRasterBand(band + 1).SetNoDataValue(0)
    options = (*options, "PHOTOMETRIC=MINISBLACK", "ALPHA=NO")
    gdal.GetDriverByName("GTiff").CreateCopy(str(path), source, 0, list(options)).FlushCache()


def _grid() -> osr.SpatialReference:
    grid = osr.SpatialReference()
    grid.ImportFromEPSG(EPSG)
    return grid
