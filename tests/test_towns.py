"""The drawn towns: reproducible, georeferenced, labels that fill the scene and fit the pixels, colours that overlap."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from scipy.optimize import minimize
from scipy.special import logsumexp
from shapely.geometry import Polygon, box

from rvkernels import dataset, fetch, labels, raster, split
from rvkernels.datasets import towns
from rvkernels.datasets._towns import cover
from rvkernels.datasets._towns.city import CITIES
from rvkernels.datasets._towns.layout import plan_scene
from rvkernels.datasets._towns.paint import paint, shade
from rvkernels.datasets._towns.plan import Plan
from rvkernels.datasets._towns.things import add_car, add_crown
from rvkernels.ops import tile
from rvkernels.scene import Scene

SIZE = 256
DESCRIPTIONS = Path(__file__).parent.parent / "config" / "datasets"


def pixels(scene: Scene) -> np.ndarray:
    """(rows, cols, bands)"""
    return tile.read(scene.images, np.array([[0, 0, scene.rows, scene.cols]]))[0]


def mask(scene: Scene) -> np.ndarray:
    """(rows, cols) uint8 land cover, 255 where there is none."""
    everywhere = replace(scene, aoi=None)
    return labels.SceneMasks(everywhere, towns.LAND_COVER).read(np.array([[0, 0, scene.rows, scene.cols]]))[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("towns")


@pytest.fixture(scope="module")
def drawn(folder) -> dict[str, Scene]:
    """Four small scenes, drawn by two processes; a01 and b01 have a collar."""
    return {s.id: s for s in towns.draw(folder, size=SIZE, scenes_per_city=2, threads=2)}


def test_same_seed_gives_the_same_bytes_whatever_the_processes(drawn, tmp_path):
    again = {s.id: s for s in towns.draw(tmp_path, size=SIZE, scenes_per_city=2, threads=1)}
    for name, scene in drawn.items():
        np.testing.assert_array_equal(pixels(scene), pixels(again[name]))
        assert Path(scene.labels).read_bytes() == Path(again[name].labels).read_bytes()
        assert Path(scene.aoi).read_bytes() == Path(again[name].aoi).read_bytes()


def test_seeds_and_cities_differ(drawn):
    plans = [plan_scene(city, 0, SIZE, seed) for city, seed in ((CITIES[0], 0), (CITIES[0], 1), (CITIES[1], 0))]
    assert len({plan.surfaces[5].corners.tobytes() for plan in plans}) == 3
    assert len({pixels(scene).tobytes() for scene in drawn.values()}) == 4


def test_scenes_are_drawn_once(drawn, folder, monkeypatch):
    jobs = []
    monkeypatch.setattr(towns, "_draw_scene", lambda *job: jobs.append(job[1]))
    towns.draw(folder, size=SIZE, scenes_per_city=2, threads=1)
    assert jobs == []
    record = folder / "b00.json"
    kept = record.read_text()
    record.unlink()  # as after a kill: the record is written last
    towns.draw(folder, size=SIZE, scenes_per_city=2, threads=1)
    assert jobs == ["b00"]
    record.write_text(kept)
    towns.draw(folder, size=SIZE, scenes_per_city=2, threads=1, seed=1)
    assert jobs[1:] == ["a00", "a01", "b00", "b01"]


def test_georeference(drawn):
    zones = set()
    for scene in drawn.values():
        found = raster.describe(scene.images[0])
        assert (found["rows"], found["cols"], found["bands"], found["dtype"]) == (SIZE, SIZE, 4, "uint8")
        assert found["crs"] == scene.crs
        assert tuple(found["transform"]) == scene.transform
        assert found["nodata"] == 0
        assert found["block"] == (256, 256)
        zones.add(scene.crs)
        for path in (scene.labels, scene.aoi):
            content = json.loads(Path(path).read_text())
            assert "crs" not in content  # longitude and latitude
            places = shapely.get_coordinates(shapely.from_geojson(json.dumps(content)))
            assert (abs(places) < (12, 60)).all()
            found = raster.to_pixels(scene, places)
            assert found.min() > -0.01
            assert found.max() < SIZE + 0.01
    assert len(zones) == 2


def test_land_cover_fills_the_swath_and_nothing_else(drawn):
    seen = Counter()
    for scene in drawn.values():
        found, image = mask(scene), pixels(scene)
        imaged = (image > 0).all(2)
        assert ((image > 0).any(2) == imaged).all()
        np.testing.assert_array_equal(found != labels.IGNORE, imaged)
        seen.update(found[imaged].tolist())
        aoi = shapely.unary_union(shapely.from_geojson(Path(scene.aoi).read_text()).geoms)
        aoi = Polygon(raster.to_pixels(scene, np.array(aoi.exterior.coords)))
        y, x = np.nonzero(~imaged)
        assert not shapely.contains_xy(aoi, x + 0.5, y + 0.5).any()
        collar = scene.id.endswith("01")
        assert (aoi.area < 0.98 * SIZE**2) == collar == (not imaged.all())
    assert sorted(seen) == list(range(len(towns.LAND_COVER)))


def test_land_cover_does_not_overlap():
    shapes = [shape for _, shape in cover.land_cover(plan_scene(CITIES[1], 0, SIZE, 0))]
    assert all(shape.is_valid for shape in shapes)
    assert sum(s.area for s in shapes) == pytest.approx(SIZE**2, rel=0.005)
    assert shapely.unary_union(shapes).area == pytest.approx(SIZE**2, abs=0.1)


def explained(image: np.ndarray, found: np.ndarray, row: int, col: int) -> float:
    """Share of the image's variance that lies between classes when the labels are moved by (row, col)."""
    inner = slice(4, -4)
    values = image[inner, inner].astype(float).reshape(-1, image.shape[2])
    ids = np.roll(found, (row, col), (0, 1))[inner, inner].ravel()
    within = sum(((values[ids == k] - values[ids == k].mean(0)) ** 2).sum() for k in np.unique(ids))
    return 1 - within / ((values - values.mean(0)) ** 2).sum()


@pytest.mark.parametrize("name", ["a00", "b00"])
def test_labels_fit_the_pixels(drawn, name):
    image, found = pixels(drawn[name]), mask(drawn[name])
    here = explained(image, found, 0, 0)
    for row, col in ((1, 0), (-1, 0), (0, 1), (0, -1), (2, 2), (-2, -2)):
        assert explained(image, found, row, col) < here


def test_objects(drawn, folder):
    scenes = towns.draw(folder, size=SIZE, scenes_per_city=2, objects=True)
    sizes, kinds = [], Counter()
    for scene in scenes:
        features = labels.load_features(scene, towns.OBJECTS)
        for shape, kind in zip(features.geometries, features.class_ids):
            assert box(-0.01, -0.01, SIZE + 0.01, SIZE + 0.01).contains(shape)
            if towns.OBJECTS[kind] == "car" and box(1, 1, SIZE - 1, SIZE - 1).contains(shape) and scene.id == "a00":
                ring = np.array(shape.minimum_rotated_rectangle.exterior.coords)
                sizes.append(sorted(np.linalg.norm(np.diff(ring[:3], axis=0), axis=1)))
        kinds.update(towns.OBJECTS[k] for k in features.class_ids)
    width, length = np.array(sizes).T
    assert min(kinds[k] for k in towns.OBJECTS) > 20
    assert len(sizes) > 5
    assert ((width > 3.4) & (width < 4.4) & (length > 8.1) & (length < 12.1)).all()


def test_hidden_objects_are_not_labelled():
    rng = np.random.default_rng(0)
    plan = Plan(CITIES[0], 64, 40, rng, 180.0, 60.0, box(0, 0, 64, 64))
    plan.add("ground", box(-40, -40, 104, 104), "asphalt")
    places = {
        "open": (20, 20),
        "under a tree": (44, 44),
        "beside a tree": (20, 44),
        "outside": (67, 30),
        "cut": (61, 8),
    }
    for x, y in places.values():
        add_car(plan, x, y, 0.0)
    add_crown(plan, 44, 44, 9.0, 20.0)
    add_crown(plan, 20, 51, 6.0, 15.0)
    _, seen, valid = paint(plan, 0, 0)
    share = dict(zip(places, seen))
    assert valid.all()
    assert share["open"] == pytest.approx(1, abs=0.1)
    assert share["under a tree"] == 0
    assert share["beside a tree"] > 0.5
    assert share["outside"] < 0.5 < share["cut"] < 0.95
    kept = cover.visible_objects(plan, seen)
    assert len(kept) == 3
    assert all(plan.swath.contains(shape) or plan.swath.covers(shape) for _, shape in kept)


@pytest.mark.parametrize(("azimuth", "side"), [(180.0, (-1, 0)), (0.0, (1, 0)), (90.0, (0, -1)), (270.0, (0, 1))])
def test_shadow_falls_away_from_the_sun(azimuth, side):
    height = np.zeros((101, 101), np.float32)
    height[48:53, 48:53] = 20
    shadow = shade(height, azimuth, 45.0)
    row, col = np.nonzero(shadow)
    assert row.mean() - 50 == pytest.approx(12.5 * side[0], abs=1)
    assert col.mean() - 50 == pytest.approx(12.5 * side[1], abs=1)
    assert len(row) == pytest.approx(5 * 20, abs=10)  # as long as the block is high


def test_colours_of_classes_overlap(drawn):
    """A per-pixel logistic regression fails often even where it was fitted."""
    values, ids = [], []
    for scene in drawn.values():
        image, found = pixels(scene), mask(scene)
        take = found != labels.IGNORE
        values.append(image[take][::31])
        ids.append(found[take][::31])
    x, y = np.concatenate(values) / 255.0, np.concatenate(ids)
    x = (x - x.mean(0)) / x.std(0)
    x = np.concatenate((x, x**2, np.ones((len(x), 1))), 1)
    hot = np.eye(len(towns.LAND_COVER))[y]

    def loss(w):
        scores = x @ w.reshape(x.shape[1], -1)
        total = logsumexp(scores, axis=1, keepdims=True)
        return (total[:, 0] - (scores * hot).sum(1)).mean(), (x.T @ (np.exp(scores - total) - hot)).ravel() / len(x)

    fit = minimize(loss, np.zeros(x.shape[1] * hot.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 60})
    accuracy = ((x @ fit.x.reshape(x.shape[1], -1)).argmax(1) == y).mean()
    chance = np.bincount(y).max() / len(y)
    assert chance + 0.1 < accuracy < 0.85


def test_sixteen_bits_show_the_same_scenes(drawn, tmp_path):
    towns._draw_scene(tmp_path, "a01", 0, SIZE, "uint16")
    fine = tile.read(str(tmp_path / "images" / "a01.tif"), np.array([[0, 0, SIZE, SIZE]]))[0]
    coarse = pixels(drawn["a01"])
    assert fine.dtype == np.uint16
    np.testing.assert_array_equal(fine == 0, coarse == 0)
    assert np.percentile(fine, 99) > 2000
    for band in range(4):
        # The 8-bit picture is a rising function of the 16-bit one, but for rounding.
        order = np.argsort(fine[..., band], axis=None, kind="stable")
        assert np.diff(coarse[..., band].ravel()[order].astype(int)).min() >= -2


@pytest.mark.parametrize("n", [2, 3, 4, 5, 7, 10])
def test_every_split_has_scenes_of_the_second_city_last(n):
    found = Counter(towns.splits(n).values())
    assert set(found) == {"train", "val", "test"}
    assert found["train"] == max(found.values())
    if n == 7:
        assert found == {"train": 8, "val": 2, "test": 4}
        assert Counter(i[0] for i, s in towns.splits(7).items() if s == "test") == {"a": 1, "b": 3}


@pytest.mark.parametrize("name", ["towns", "towns16", "towns_objects"])
def test_descriptions(name):
    known = dataset.load(DESCRIPTIONS / f"{name}.yaml")
    assert known["form"] == "towns"
    assert tuple(known["bands"]) == towns.BANDS
    assert known["gsd"] == towns.GSD
    for task in known["tasks"]:
        assert tuple(dataset.class_names(known)) == towns.CLASSES[task]


def test_two_datasets_share_one_drawing(tmp_path):
    small = {"size": SIZE, "scenes_per_city": 2}
    found = {}
    for name, task in (("towns", "segmentation"), ("towns", "classification"), ("towns_objects", "detection")):
        path = DESCRIPTIONS / f"{name}.yaml"
        found[task] = fetch.fetch(path, tmp_path, task=task, layout=small, threads=1)
        regions = split.split(found[task], dataset.load(path)["split"])
        assert {r.split for r in regions} == {"train", "val", "test"}
        written = {p: p.stat().st_mtime_ns for p in (tmp_path / "towns").rglob("*.tif")}
        assert written == found.setdefault("pictures", written)
    assert found["detection"][0].images == found["segmentation"][0].images
    assert found["detection"][0].labels != found["segmentation"][0].labels
    assert len(list(tmp_path.rglob("*.tif"))) == 4


def test_errors_name_the_setting(tmp_path):
    for settings, message in (
        ({"size": 100}, "towns: size: expected an integer of at least 256, got 100"),
        ({"size": 258}, "towns: size: expected a multiple of 4, got 258"),
        ({"scenes_per_city": 1}, "towns: scenes_per_city: expected an integer of at least 2, got 1"),
        ({"dtype": "float32"}, "towns: dtype: expected uint8 or uint16, got 'float32'"),
        ({"seed": -1}, "towns: seed: expected an integer of at least 0, got -1"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            towns.draw(tmp_path, **settings)
    wrong = {"name": "mine", "classes": [{"name": "car"}]}
    with pytest.raises(
        ValueError, match=r"mine: classes: the labels for detection have car, building, but .* lists car;"
    ):
        towns.scenes(wrong, {}, task="detection", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
