"""The descriptions of config/datasets, each on tiny archives with the names that its publisher gives to files.

What checksums and addresses there are is taken out; classes, patterns, splits and all else stays.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from rvkernels import dataset, raster
from rvkernels.fetch import fetch
from rvkernels.labels import SceneMasks, load_features
from rvkernels.split import split

DESCRIPTIONS = Path(__file__).parents[2] / "config" / "datasets"
DEGREES = (-115.0, 2.7e-6, 0.0, 36.0, 0.0, -2.7e-6)


def geotiff(workplace, bands: int, dtype: str = "uint8", crs: str | None = None, size: int = 8) -> bytes:
    path = workplace.folder / "image.tif"
    raster.write_geotiff(path, np.ones((size, size, bands), dtype), crs, DEGREES)
    return path.read_bytes()


def mask(workplace, values: tuple, size: int = 8) -> bytes:
    """A label image with these values or colours in strips from left to right."""
    strips = np.array(values, np.uint8)
    return workplace.picture(strips[np.arange(size) * len(values) // size][None].repeat(size, 0), "TIFF")


def shapes(geometry: str, pixels: list[tuple[float, float]], **properties: object) -> str:
    """GeoJSON with one geometry through these columns and rows of a tile in degrees."""
    points = [[DEGREES[0] + col * DEGREES[1], DEGREES[3] + row * DEGREES[5]] for col, row in pixels]
    shape = {"type": geometry, "coordinates": [points] if geometry == "Polygon" else points}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
    feature = {"type": "Feature", "properties": properties, "geometry": shape}
    return json.dumps({"type": "FeatureCollection", "crs": crs, "features": [feature]})


SQUARE = [(2, 1), (6, 1), (6, 5), (2, 5), (2, 1)]


def pictures(workplace, root: str, names: list[str], per_class: int, suffix: str, data: bytes) -> dict[str, bytes]:
    return {f"{root}/{c}/{c}{i:02d}{suffix}": data for c in names for i in range(per_class)}


def eurosat_ms(workplace, names):
    data = geotiff(workplace, 13, "uint16")
    found = {"EuroSAT_MS.zip": {f"EuroSAT_MS/{c}/{c}_{i}.tif": data for c in names for i in range(1, 6)}}
    for part, numbers in {"train": (1, 2, 3), "val": (4,), "test": (5,)}.items():
        found[f"eurosat_{part}.csv"] = "".join(f"{c}/{c}_{i}.jpg,{c}\n" for c in names for i in numbers)
    return found


def ucmerced(workplace, names):
    data = workplace.noise((8, 8), "TIFF")
    return {"UCMerced_LandUse.zip": pictures(workplace, "UCMerced_LandUse/Images", names, 5, ".tif", data)}


def resisc45(workplace, names):
    data = workplace.noise((8, 8), "JPEG")
    return {"NWPU-RESISC45.zip": pictures(workplace, "NWPU-RESISC45", names, 5, ".jpg", data)}


def spacenet_vegas(workplace, names):
    data, top = geotiff(workplace, 3, "uint16", "EPSG:4326"), "AOI_2_Vegas_Train"
    members = {}
    for i in range(1, 11):
        members[f"{top}/RGB-PanSharpen/RGB-PanSharpen_AOI_2_Vegas_img{i}.tif"] = data
        members[f"{top}/MUL/MUL_AOI_2_Vegas_img{i}.tif"] = b"not read"
        members[f"{top}/geojson/buildings/buildings_AOI_2_Vegas_img{i}.geojson"] = shapes("Polygon", SQUARE)
    return {"SN2_buildings_train_AOI_2_Vegas.tar.gz": members}


def spacenet_roads(workplace, names):
    data, top = geotiff(workplace, 3, "uint16", "EPSG:4326", 64), "AOI_2_Vegas"
    members = {}
    for i in range(1, 11):
        members[f"{top}/PS-RGB/SN3_roads_train_AOI_2_Vegas_PS-RGB_img{i}.tif"] = data
        line = shapes("LineString", [(32, -50), (32, 114)], road_id=i)
        members[f"{top}/geojson_roads/SN3_roads_train_AOI_2_Vegas_geojson_roads_img{i}.geojson"] = line
    members[f"{top}/geojson_roads/SN3_roads_train_AOI_2_Vegas_geojson_roads_img1000.geojson"] = line
    return {"SN3_roads_train_AOI_2_Vegas.tar.gz": members}


def spacenet_rio(workplace, names):
    data = geotiff(workplace, 3, "uint8", "EPSG:4326")
    return {
        "SN1_buildings_train_AOI_1_Rio_3band.tar.gz": {f"3band/3band_AOI_1_RIO_img{i}.tif": data for i in range(1, 11)},
        "SN1_buildings_train_AOI_1_Rio_geojson_buildings.tar.gz": {
            f"geojson/Geo_AOI_1_RIO_img{i}.geojson": shapes("Polygon", SQUARE) for i in range(1, 11)
        },
    }


def potsdam(workplace, names):
    about = yaml.safe_load((DESCRIPTIONS / "potsdam.yaml").read_text())["split"]
    tiles = [name for part in ("train", "val", "test") for name in about[part]]
    image, label = geotiff(workplace, 4), mask(workplace, ((255, 255, 255), (0, 0, 0), (255, 255, 0)))
    return {
        "4_Ortho_RGBIR.zip": {f"4_Ortho_RGBIR/top_potsdam_{n}_RGBIR.tif": image for n in tiles},
        "5_Labels_all.zip": {f"top_potsdam_{n}_label.tif": label for n in tiles},
    }


def vaihingen(workplace, names):
    numbers = (*range(1, 9), *range(10, 18), *range(20, 25), *range(26, 36), 37, 38)
    areas = [f"top_mosaic_09cm_area{i}.tif" for i in numbers if i not in (18, 19, 25, 36, 9)]
    label = mask(workplace, ((255, 255, 255), (0, 255, 0)))
    return {
        "ISPRS_semantic_labeling_Vaihingen.zip": {
            f"{folder}/{name}": workplace.noise((8, 8), "TIFF") for folder in ("top", "dsm") for name in areas
        },
        "ISPRS_semantic_labeling_Vaihingen_ground_truth_COMPLETE.zip": dict.fromkeys(areas, label),
    }


def inria(workplace, names):
    tiles = [f"{c}{i}.tif" for c in ("austin", "chicago", "kitsap", "tyrol-w", "vienna") for i in range(1, 37)]
    image, label, members = workplace.noise((8, 8), "TIFF"), mask(workplace, (0, 255)), {}
    for name in tiles:
        members[f"AerialImageDataset/train/images/{name}"] = image
        members[f"AerialImageDataset/train/gt/{name}"] = label
    return {"NEW2-AerialImageDataset.zip": {**members, "AerialImageDataset/test/images/sfo1.tif": image}}


def landcoverai(workplace, names):
    image, label = workplace.noise((8, 8), "TIFF"), mask(workplace, (0, 1, 2, 4))
    members = {f"images/N-33-60-D-c-4-{i}.tif": image for i in range(10)}
    return {
        "landcover.ai.v1.zip": {**members, **{n.replace("images", "masks"): label for n in members}, "split.py": ""}
    }


def massachusetts(what: str, values: tuple):
    def members(workplace, names):
        image, label, found = workplace.noise((8, 8), "TIFF"), mask(workplace, values), {}
        for part in ("train", "valid", "test"):
            found[f"mass_{what}/{part}/sat/22678915_15.tiff"] = image
            found[f"mass_{what}/{part}/map/22678915_15.tif"] = label
        return {f"mass_{what}.zip": found}

    return members


def vhr10(workplace, names):
    top, members = "NWPU VHR-10 dataset", {}
    for i in range(1, 7):
        members[f"{top}/positive image set/{i:03d}.jpg"] = workplace.noise((8, 8 + i), "JPEG")
        members[f"{top}/ground truth/{i:03d}.txt"] = "(1,2),(3,5),10\n"
        members[f"{top}/negative image set/{i:03d}.jpg"] = workplace.noise((9, 8), "JPEG")
    return {f"{top}.zip": members}


def cowc_potsdam(workplace, names):
    tiles = ["2_10", "2_11", "2_12", "2_13", "2_14", "3_10", "3_11", "3_13", "4_10", "5_10", "6_7", "6_8", "6_9"]
    image = geotiff(workplace, 4, "uint8", "EPSG:4326")
    return {
        "4_Ortho_RGBIR.zip": {f"4_Ortho_RGBIR/top_potsdam_{n}_RGBIR.tif": image for n in [*tiles, "7_13"]},
        "cowc_potsdam_labels.zip": {f"labels/all/top_potsdam_{n}_RGBIR.json": shapes("Polygon", SQUARE) for n in tiles},
    }


def xview(workplace, names):
    image = workplace.noise((8, 8), "TIFF")
    box = {"image_id": "3.tif", "type_id": 18, "bounds_imcoords": "1,2,3,5"}
    features = [{"type": "Feature", "properties": p, "geometry": None} for p in (box, {**box, "type_id": 73})]
    return {
        "train_images.zip": {f"train_images/{i}.tif": image for i in range(10)},
        "train_labels.zip": {"xView_train.geojson": json.dumps({"type": "FeatureCollection", "features": features})},
    }


# What is in the archives; scenes in train, val and test; what the labels of the first scene hold: classes of pixels,
# or of objects and their number.
KNOWN = {
    "eurosat_ms": (eurosat_ms, (30, 10, 10), None),
    "ucmerced": (ucmerced, (63, 21, 21), None),
    "resisc45": (resisc45, (135, 45, 45), None),
    "spacenet_vegas": (spacenet_vegas, (7, 1, 2), {0: 16, 1: 48}),
    "spacenet_roads": (spacenet_roads, (7, 1, 2), {0: 30 * 64, 1: 34 * 64}),
    "spacenet_rio": (spacenet_rio, (7, 1, 2), {0: 48, 1: 16}),
    "spacenet_rio_objects": (spacenet_rio, (7, 1, 2), [0]),
    "potsdam": (potsdam, (21, 3, 14), {0: 24, 255: 24, 4: 16}),
    "vaihingen": (vaihingen, (14, 2, 17), {0: 32, 3: 32}),
    "inria": (inria, (130, 25, 25), {0: 32, 1: 32}),
    "landcoverai": (landcoverai, (6, 2, 2), {0: 16, 1: 16, 2: 16, 4: 16}),
    "massachusetts_buildings": (massachusetts("buildings", ((0, 0, 0), (255, 0, 0))), (1, 1, 1), {0: 32, 1: 32}),
    "massachusetts_roads": (massachusetts("roads", (0, 255)), (1, 1, 1), {0: 32, 1: 32}),
    "vhr10": (vhr10, (8, 2, 2), [9]),
    "cowc_potsdam": (cowc_potsdam, (8, 2, 3), [0]),
    "xview": (xview, (7, 1, 2), [0]),
}
REAL = {"eurosat", "dubai", "neon_trees", "spacenet_sample", "spacenet_sample_objects", "spacenet_sample_roads"}


def test_every_description_is_read():
    drawn = {p.stem for p in DESCRIPTIONS.glob("*.yaml") if yaml.safe_load(p.read_text())["form"] == "towns"}
    assert {p.stem for p in DESCRIPTIONS.glob("*.yaml")} == set(KNOWN) | REAL | drawn


def pack(path: Path, members: dict[str, bytes | str] | str, workplace) -> None:
    if isinstance(members, str):
        path.write_text(members)
    elif path.name.endswith(".zip"):
        workplace.archive(path.name, members)
    else:
        with tarfile.open(path, "w:gz") as archive:
            for name, data in members.items():
                data = data.encode() if isinstance(data, str) else data
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("name", KNOWN)
def test_read(workplace, name):
    contents, counts, held = KNOWN[name]
    about = yaml.safe_load((DESCRIPTIONS / f"{name}.yaml").read_text())
    for file, members in contents(workplace, [c["name"] for c in about["classes"]]).items():
        pack(workplace.mirror / file, members, workplace)
    about["files"] = [{"name": entry["name"]} for entry in about["files"]]
    path = workplace.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(about))

    scenes = fetch(path, workplace.downloads, workplace.mirror)
    description = dataset.load(path)
    assert all(s.bands == len(description["bands"]) for s in scenes)
    found = Counter(region.split for region in split(scenes, description["split"]))
    assert tuple(found[part] for part in ("train", "val", "test")) == counts
    assert len(scenes) == sum(counts)
    if isinstance(held, dict):
        first = scenes[0]
        background = next((n for n in ("background", "no_building") if n in dataset.class_names(description)), None)
        masks = SceneMasks(first, description["classes"], background=background)
        pixels = masks.read(np.array([[0, 0, first.rows, first.cols]]))[0]
        assert dict(Counter(pixels.ravel().tolist())) == held
    elif held is not None:
        objects = [ids for s in scenes for ids in load_features(s, description["classes"]).class_ids.tolist()]
        assert set(objects) == set(held)
