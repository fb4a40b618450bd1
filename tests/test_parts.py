"""Chips, predictions and evaluations of all parts together are those of one job; planning reads no pixel."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings, strategies

from rvkernels import assemble, chip, evaluate, predict, predicted_parts, raster
from rvkernels.files import read_json, write_json
from rvkernels.ops.tile import IDENTITY
from rvkernels.parts import Part, check_complete
from rvkernels.scene import Region, Scene, write_regions, write_scenes
from rvkernels.split import SPLITS, split

CLASSES = [
    {"name": "field", "color": "#102030"},
    {"name": "wood", "color": "#405060"},
    {"name": "road", "color": "#708090"},
]
TASKS = ("classification", "segmentation", "detection")
NODATA = 7.0


def parts_of(count: int) -> list[Part]:
    return [Part(number, count) for number in range(1, count + 1)]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- a dataset of scenes of odd sizes, with an area of interest and pixels without data ------------------------------


def polygon(*corners: tuple[float, float]) -> dict:
    return {"type": "Polygon", "coordinates": [[[x, y] for y, x in (*corners, corners[0])]]}


def made_scene(folder: Path, name: str, rows: int, cols: int, seed: int, aoi: bool = False) -> Scene:
    rng = np.random.default_rng(seed)
    image = rng.integers(10, 250, (rows, cols, 2)).astype(np.uint8)
    image[rows // 3 : rows // 2, : cols // 3] = int(NODATA)
    image[rng.random((rows, cols)) < 0.01] = int(NODATA)
    path = folder / f"{name}.tif"
    raster.write_geotiff(path, image, None, IDENTITY, nodata=NODATA)
    features = []
    for number in range(max(4, rows * cols // 150)):
        y, x = rng.uniform(0, rows), rng.uniform(0, cols)
        high, wide = rng.uniform(3, 14, 2)
        box = polygon((y, x), (y, x + wide), (y + high, x + wide), (y + high, x))
        features.append({"type": "Feature", "properties": {"class_id": number % 3}, "geometry": box})
    collection = {"type": "FeatureCollection", "crs": None, "features": features}
    (folder / f"{name}.geojson").write_text(json.dumps(collection))
    area = None
    if aoi:
        triangle = polygon((0, 0), (0, cols), (rows, cols), (rows, cols // 4))
        area = folder / f"{name}.aoi.geojson"
        feature = {"type": "Feature", "properties": {}, "geometry": triangle}
        area.write_text(json.dumps({"type": "FeatureCollection", "crs": None, "features": [feature]}))
    return Scene(
        id=name,
        images=(str(path),),
        rows=rows,
        cols=cols,
        bands=2,
        dtype="uint8",
        nodata=NODATA,
        labels=str(folder / f"{name}.geojson"),
        aoi=str(area) if area else None,
    )


class Dataset:
    """Two scenes, one of them cut into regions, and the files that the stages read."""

    def __init__(self, folder: Path, sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
        self.folder = folder
        (rows, cols), (other_rows, other_cols) = sizes
        a = made_scene(folder, "a", rows, cols, 1, aoi=True)
        b = made_scene(folder, "b", other_rows, other_cols, 2)
        self.scenes = {"a": a, "b": b}
        half, middle, centre = rows // 2, other_rows // 2, other_cols // 2
        self.regions = [
            Region("b", 0, 0, other_rows, centre, "train"),
            Region("b", 0, centre, middle, other_cols - centre, "val"),
            Region("a", 0, 0, half, cols, "test"),
            Region("a", half, 3, rows - half, cols - 3, "test"),
            Region("b", middle, centre, other_rows - middle, other_cols - centre, "test"),
        ]
        description = {
            "title": "Made",
            "tasks": list(TASKS),
            "form": "geojson",
            "classes": CLASSES,
            "bands": ["red", "green"],
            "licence": "none",
        }
        (folder / "made.yaml").write_text(yaml.safe_dump(description))
        write_scenes(folder / "scenes.jsonl", self.scenes.values())
        write_regions(folder / "regions.csv", self.regions)
        self.files = tuple(folder / name for name in ("made.yaml", "scenes.jsonl", "regions.csv"))

    def gathered_chips(self, task: str, count: int | None, options: dict) -> dict[str, bytes]:
        """The chips folder of one job, or of `count` parts."""
        out = self.folder / f"chips-{task}-{count}"
        if count is None:
            chip.chip(*self.files, task=task, settings=options, out=out, threads=2)
            return contents(out)
        folders = [self.folder / f"{task}-chips-{p.number}-of-{count}" for p in parts_of(count)]
        for folder, part in zip(folders, parts_of(count)):
            chip.chip(*self.files, task=task, settings=options, out=folder, threads=1, part=part)
        chip.gather(*self.files[:2], folders, task=task, settings=options, out=out)
        return contents(out)

    def predicted(self, task: str, count: int | None, options: dict) -> Path:
        """The folder of predictions, without its record, of one job or of `count` parts."""
        out = self.folder / f"predictions-{task}-{count}"
        common = {
            "task": task,
            "scenes": self.scenes,
            "regions": self.regions,
            "split": "test",
            "classes": CLASSES,
        }
        if count is None:
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            self._predict(common, options, out)
            return out
        folders = [self.folder / f"{task}-{p.number}-of-{count}" for p in parts_of(count)]
        for folder, part in zip(folders, parts_of(count)):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            times, result = self._predict(common, options, folder, part=part)
            record = {"validated": True, "started": f"2026-01-0{part.number % 9 + 1}", "peak_rss_mb": part.number}
            write_json(folder / "record.json", {**record, "times_s": times, "result": result})
        predict.gather(folders, settings=options, out=out, **common)
        return out

    def _predict(self, common: dict, options: dict, folder: Path, part: Part | None = None) -> tuple[dict, dict]:
        task = common["task"]
        return predict.predict_scenes(
            SCORES[task],
            multiple=1,
            bands=2,
            settings=predict.for_task(options, task),
            folder=folder,
            part=part,
            **common,
        )

    def evaluated(self, predictions: Path, count: int | None) -> bytes:
        out = self.folder / "eval.json"
        common = {"predictions": predictions, "scenes": self.scenes, "classes": CLASSES, "background": "field"}
        if count is None:
            evaluate.evaluate(out=out, **common)
            return out.read_bytes()
        files = [self.folder / f"eval-{part.number}.npz" for part in parts_of(count)]
        for path, part in zip(files, parts_of(count)):
            evaluate.evaluate(out=path, part=part, **common)
        evaluate.gather(files, predictions=predictions, classes=CLASSES, out=out)
        return out.read_bytes()


def softmax(raw: np.ndarray) -> np.ndarray:
    scores = np.exp(raw - raw.max(-1, keepdims=True))
    return (scores / scores.sum(-1, keepdims=True)).astype(np.float32)


def batch_noise(images: np.ndarray) -> np.float32:
    """As with a real network, the last bits of every score depend on the whole batch."""
    return np.float32(1 + 1e-5 * (images.sum(dtype=np.int64) % 97))


def score_cells(images: np.ndarray) -> np.ndarray:
    mean = images.mean((1, 2))
    return softmax(np.stack([mean[:, 0], mean[:, 1], mean.mean(1)], 1) / 9 * batch_noise(images))


def score_pixels(images: np.ndarray) -> np.ndarray:
    offset = images[:, :1, :1, :1].astype(np.float32) / 60  # differs from window to window, so that blending matters
    value = images.astype(np.float32) / 50 * batch_noise(images)
    return softmax(np.concatenate([value, offset + value[..., :1] * 0], axis=-1))


def score_boxes(images: np.ndarray) -> list:
    """Boxes at places that pixels say, many of them over each other."""
    size, found = images.shape[1], []
    for image in images:
        rng = np.random.default_rng(int(image[..., 0].sum()))
        corner = rng.uniform(0, size - 4, (12, 2)).astype(np.float32)
        boxes = np.concatenate([corner, np.minimum(corner + rng.uniform(3, 12, (12, 2)), size)], 1).astype(np.float32)
        scores = np.minimum(rng.uniform(0, 1, 12).astype(np.float32) * batch_noise(images), np.float32(1))
        found.append((boxes, scores, rng.integers(0, 3, 12).astype(np.int32)))
    return found


SCORES = {"classification": score_cells, "segmentation": score_pixels, "detection": score_boxes}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset(tmp_path_factory.mktemp("made"), ((97, 71), (83, 114)))


COUNTS = (2, 5)


# --- chips -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("segmentation", {"size": 16, "stride": 9}),
        ("segmentation", {"size": 13, "method": "random", "count": 11, "aoi": "intersects", "seed": 5}),
        ("segmentation", {"size": 8, "targets": ["road"], "target_pixels": 9, "negatives": 0.2, "nodata_max": 0.2}),
        ("classification", {"size": 9, "background": "field", "limit": {"train": 11, "test": 20}}),
        ("detection", {"size": 8, "stride": 5, "negatives": 0.1, "nodata_max": 0.3}),
    ],
)
def test_chips_of_parts_are_those_of_one_job(dataset, task, options):
    whole = dataset.gathered_chips(task, None, options)
    assert len(whole["chips.csv"].splitlines()) > 10
    for count in (*COUNTS, 40) if "limit" in options else COUNTS:
        assert dataset.gathered_chips(task, count, options) == whole, count


def test_whole_pictures_in_parts(tmp_path):
    scenes = [made_scene(tmp_path, f"p{i}", 8, 8, i) for i in range(11)]
    scenes = [replace(s, nodata=None, labels=None, class_name="wood") for s in scenes]
    made = Dataset(tmp_path, ((40, 40), (40, 40)))
    write_scenes(tmp_path / "scenes.jsonl", scenes)
    regions = [Region(s.id, 0, 0, 8, 8, SPLITS[i % 3]) for i, s in enumerate(scenes)]
    write_regions(tmp_path / "regions.csv", sorted(regions, key=lambda r: SPLITS.index(r.split)))
    whole = made.gathered_chips("classification", None, {})
    assert all(made.gathered_chips("classification", count, {}) == whole for count in (2, 5, 20))


# --- predictions and their evaluation --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("segmentation", {"size": 16, "stride": 7, "batch": 5, "scores": "float32", "polygons": 4}),
        ("segmentation", {"size": 20, "stride": 6, "crop": 4, "batch": 3, "window": "linear"}),
        ("segmentation", {"size": 60, "batch": 2, "scores": "none", "polygons": None}),
        ("classification", {"size": 9, "batch": 4}),
        ("detection", {"size": 24, "stride": 11, "batch": 4, "score_min": 0.1}),
    ],
)
def test_predictions_and_evaluations_of_parts_are_those_of_one_job(dataset, monkeypatch, task, options):
    monkeypatch.setattr(assemble, "STRIP", 10)
    monkeypatch.setattr(predicted_parts, "STRIP", 10)
    monkeypatch.setattr(evaluate, "BLOCK", 16)
    monkeypatch.setattr(evaluate, "WINDOW", 8)
    folder = dataset.predicted(task, None, options)
    whole, judged = contents(folder), dataset.evaluated(folder, None)
    assert "predictions.npz" in whole
    for count in COUNTS:
        made = contents(dataset.predicted(task, count, options))
        record = json.loads(made.pop("record.json"))
        assert made.keys() == whole.keys()
        assert [name for name in whole if made[name] != whole[name]] == [], count
        assert record["result"]["pixels"] == 97 * 71 - 3 * 49 + 42 * 57
        assert record["peak_rss_mb"] == count
        assert len(record["times_s"]["total"]) == count
        assert dataset.evaluated(folder, count) == judged, count


@given(data=strategies.data())
@settings(max_examples=25)
def test_blocks_of_any_mosaic_are_those_of_the_whole(data):
    """Parts hand over every row once, with the labels and scores of one job, whatever the sizes."""
    number = strategies.integers
    rows, cols = data.draw(number(1, 50)), data.draw(number(1, 20))
    size = data.draw(number(1, 20))
    crop = data.draw(number(0, (size - 1) // 2))
    stride = data.draw(number(max(1, (size - 2 * crop) // 4), size - 2 * crop))
    batch, count = data.draw(number(1, 9)), data.draw(number(1, 9))
    regions = [Region("a", 2, 1, rows, cols, "test"), Region("a", 2 + rows, 0, data.draw(number(1, 20)), cols, "test")]
    windows = assemble.Windows(regions, "segmentation", size, stride)
    chosen = {"size": size, "crop": crop, "window": "cosine", "scores": "float32"}

    def run(part: Part) -> dict[int, list[tuple[int, np.ndarray, np.ndarray]]]:
        found: dict[int, list] = {0: [], 1: []}
        share = assemble.share_of(windows, "segmentation", batch, part)
        assert share.scored.start % batch == 0
        assert share.scored.stop % batch == 0 or share.scored.stop in (0, len(windows))
        put = lambda region, first, labels, scores: found[region].append((first, labels.copy(), scores.copy()))  # noqa: E731
        finder = assemble.FINDERS["segmentation"](regions, windows, share, 2, chosen, put, 1)
        for index in share.used:
            (window,) = windows[index : index + 1]
            rng = np.random.default_rng(index)
            score = softmax(rng.normal(size=(1, size, size, 2)))
            finder.add(window.region, [window], score, rng.random((1, size, size)) < 0.9)
        finder.close()
        return found

    whole = run(Part(1, 1))
    parts = [run(part) for part in parts_of(count)]
    for region, place in enumerate(regions):
        strips = [strip for part in parts for strip in part[region]]
        ends = [first + len(labels) for first, labels, _ in strips]
        assert [first for first, _, _ in strips] == [0, *ends[:-1]]
        assert ends[-1] == place.rows
        for kind in (1, 2):
            ours, theirs = (np.concatenate([s[kind] for s in found]) for found in (strips, whole[region]))
            assert ours.tobytes() == theirs.tobytes()


@given(things=strategies.integers(0, 1000), batch=strategies.integers(1, 20), count=strategies.integers(1, 30))
def test_parts_share_every_batch_once(things, batch, count):
    regions = [Region("a", 0, 0, 1, things + 1, "test")]
    for task in ("classification", "detection"):
        windows = assemble.Windows(regions, task, 1, 1)
        shares = [assemble.share_of(windows, task, batch, part) for part in parts_of(count)]
        assert [i for share in shares for i in share.used] == list(range(things + 1))
        batches = math.ceil((things + 1) / batch)
        assert max(len(s.used) for s in shares) <= math.ceil(batches / count) * batch


# --- a scene that nobody could read ----------------------------------------------------------------------------------

EDGE = 100_000
VRT = f"""<VRTDataset rasterXSize="{EDGE}" rasterYSize="{EDGE}">
 {{bands}}
</VRTDataset>"""
BAND = f"""<VRTRasterBand dataType="Byte" band="{{band}}"><SimpleSource>
  <SourceFilename relativeToVRT="1">nowhere.tif</SourceFilename><SourceBand>{{band}}</SourceBand>
  <SourceProperties RasterXSize="{EDGE}" RasterYSize="{EDGE}" DataType="Byte" BlockXSize="512" BlockYSize="512"/>
  <SrcRect xOff="0" yOff="0" xSize="{EDGE}" ySize="{EDGE}"/>
  <DstRect xOff="0" yOff="0" xSize="{EDGE}" ySize="{EDGE}"/>
 </SimpleSource></VRTRasterBand>"""


def test_a_scene_of_ten_thousand_million_pixels_is_planned_without_reading_it(tmp_path):
    path = tmp_path / "huge.vrt"
    path.write_text(VRT.format(bands="".join(BAND.format(band=b) for b in (1, 2))))
    about = raster.describe(path)
    assert (about["rows"], about["cols"], about["bands"]) == (EDGE, EDGE, 2)
    labels = tmp_path / "huge.geojson"
    labels.write_text(json.dumps({"type": "FeatureCollection", "crs": None, "features": []}))
    scene = Scene("huge", (str(path),), EDGE, EDGE, 2, "uint8", labels=str(labels))
    regions = split([scene], {"by": "blocks", "size": EDGE // 4})
    description = {"classes": CLASSES, "bands": ["red", "green"]}
    scenes = {"huge": scene}

    pieces = chip.plan(description, scenes, regions, task="segmentation", settings={"size": 256})
    shares = [chip._share(pieces, part) for part in parts_of(8)]
    numbers = [sum(len(p.windows) for p in share) for share in shares]
    assert sum(numbers) == sum(-(-r.rows // 256) * -(-r.cols // 256) for r in regions)
    assert max(numbers) - min(numbers) <= 1
    assert (np.concatenate([p.windows for s in shares for p in s]) == np.concatenate([p.windows for p in pieces])).all()

    whole = [Region("huge", 0, 0, EDGE, EDGE, "test")]
    for task, stride in (("segmentation", 128), ("detection", 128), ("classification", 256)):
        windows = assemble.Windows(whole, task, 256, stride)
        shares = [assemble.share_of(windows, task, 16, part) for part in parts_of(64)]
        assert max(len(share.scored) for share in shares) < 1.1 * len(windows) / 64 + 2 * len(windows.cols[0])
        if task == "segmentation":
            blocks = [block for share in shares for block in share.blocks]
            assert [b.top for b in blocks] == [0, *(b.bottom for b in blocks[:-1])]
            assert blocks[-1].bottom == EDGE
        else:
            assert sum(len(share.used) for share in shares) == len(windows)

    # Whoever reads a pixel finds out that there is none.
    for part in (Part(1, 64), Part(64, 64)):
        with pytest.raises((ValueError, FileNotFoundError), match=r"nowhere\.tif"):
            predict.predict_scenes(
                score_pixels, task="segmentation", multiple=1, scenes=scenes, regions=whole, split="test", bands=2,
                classes=CLASSES, settings=predict.for_task({"size": 256}, "segmentation"), folder=tmp_path, part=part,
            )  # fmt: skip


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "3", "0/8", "9/8", "3/", "3-of-8", "a/b", "-1/2"])
def test_what_is_no_part(text):
    with pytest.raises(ValueError, match="part: expected a number and how many there are, such as 3/8, got"):
        Part.parse(text)


def test_only_all_parts_are_gathered(dataset):
    one, two, three = (Part.parse(f"{k}/3") for k in (1, 2, 3))
    check_complete([("a", one), ("b", two), ("c", three)])
    with pytest.raises(ValueError, match="b: is part 3/3, expected 2/2; give every part"):
        check_complete([("a", Part(1, 2)), ("b", three)])
    with pytest.raises(ValueError, match="b: is part 1/3, expected 2/3"):
        check_complete([("a", one), ("b", one), ("c", two)])
    with pytest.raises(ValueError, match="nothing to gather"):
        check_complete([])

    options = {"size": 16, "stride": 16}
    counts = dataset.folder / "counts"  # a name without the suffix that NumPy adds to others
    folder = dataset.predicted("segmentation", None, options)
    judged = {"predictions": folder, "classes": CLASSES}
    evaluate.evaluate(scenes=dataset.scenes, background="field", out=counts, part=Part(1, 1), **judged)
    evaluate.gather([counts], out=dataset.folder / "eval.json", **judged)
    for other, said in ((folder / "predictions.npz", "not counts of"), (dataset.files[0], "not counts of")):
        with pytest.raises(ValueError, match=f"{other.name}: {said} `rvk evaluate --part`"):
            evaluate.gather([other], out=dataset.folder / "eval.json", **judged)
    with pytest.raises(FileNotFoundError, match="nowhere: no such file; run `rvk evaluate --part` first"):
        evaluate.gather([dataset.folder / "nowhere"], out=dataset.folder / "eval.json", **judged)
    dataset.predicted("segmentation", None, {**options, "stride": 8})
    with pytest.raises(ValueError, match="counts: counts of other predictions than"):
        evaluate.gather([counts], out=dataset.folder / "eval.json", **judged)

    dataset.predicted("segmentation", 2, options)
    folders = [dataset.folder / f"segmentation-{k}-of-2" for k in (1, 2)]
    wanted = sorted((r for r in dataset.regions if r.split == "test"), key=lambda r: (r.scene, r.row))
    windows = assemble.Windows(wanted, "segmentation", 16, 16)
    with pytest.raises(ValueError, match=r"segmentation-1-of-2: is a part of \d+ windows, but these regions have 1;"):
        predicted_parts.replay(folders, "segmentation", 1, wanted, print)
    about = read_json(folders[1] / "part.json")
    write_json(folders[1] / "part.json", {**about, "blocks": about["blocks"][1:]})
    with pytest.raises(ValueError, match=r"scene a: of \d+ rows of a region the parts have .*; predict them again"):
        predicted_parts.replay(folders, "segmentation", len(windows), wanted, lambda *found: None)
    (folders[0] / "part.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"part\.json: no such file; run `rvk predict-regions --part` first"):
        predicted_parts.replay(folders, "segmentation", len(windows), wanted, print)
