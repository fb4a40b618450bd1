"""Predict whole regions of scenes window by window, and put the windows together again, in one job or in several.

A window never reads outside its region, so that a test region is predicted without a pixel of the training regions;
where a window is larger than what is there, the image is mirrored at the edge.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

import numpy as np

from rvkernels import dihedral, predicted_parts, record, registry
from rvkernels.assemble import FINDERS, WRITERS, Window, Windows, share_of
from rvkernels.batches import Normalisation
from rvkernels.checkpoint import read_checkpoint
from rvkernels.chips import DTYPES
from rvkernels.files import atomic, write_json
from rvkernels.ops import tile
from rvkernels.ops.blend import WINDOWS
from rvkernels.ops.normalize import normalize
from rvkernels.parts import WHOLE, Part
from rvkernels.progress import LOG, Progress
from rvkernels.registry import suggest
from rvkernels.scene import Region, Scene, check_regions
from rvkernels.train import build_graph

# What predict_scenes verifies, for the record.
CHECK = "every score is a finite probability; every region is covered"
# Windows are read in portions of about so many bytes.
READ_BYTES = 1 << 26

# Windows (n, rows, cols, bands) in the scenes' dtype -> per window: classification (n, classes) and segmentation
# (n, rows, cols, classes) float32 probabilities; detection a sequence of (boxes, scores, classes).
Score = Callable[[np.ndarray], Any]


def complete_settings(
    *,
    size: int | None = None,
    stride: int | None = None,
    batch: int = 16,
    crop: int = 0,
    window: str = "cosine",
    scores: str = "uint8",
    polygons: int | None = 16,
    score_min: float = 0.05,
    score_show: float = 0.3,
    nms_iou: float = 0.5,
    views: int = 1,
) -> dict[str, Any]:
    """The settings of a prediction, with defaults; `for_task` completes those that depend on the task.

    size        rows and columns of a window in pixels: those of the training chips; None for classification: whole
                regions, which must be squares of one size
    stride      pixels between windows; the size for classification, half of it else
    batch       windows per batch
    crop        segmentation: pixels at a window's edges that are left out, except at the edges of a region
    window      segmentation: weights of overlapping windows: "constant", "linear" or "cosine" (rvkernels/ops/blend.py)
    scores      segmentation: "uint8", "float32" or "none": what scores.tif holds
    polygons    segmentation: write the areas as polygons too, those of fewer pixels as part of the largest beside them;
                None: no polygons
    score_min   detection: boxes below are dropped; low, because average precision needs the whole curve
    score_show  detection: boxes from here on count as found in <scene>.json and in precision, recall and F1
    nms_iou     detection: of boxes of a class that overlap more, the better one is kept
    views       1, 4 or 8: how a window is looked at, as it is, mirrored, and turned too (rvkernels/dihedral.py). What
                the network says of all of them is put together: the mean of probabilities, and of boxes those that are
                left when the suppression of `nms_iou` has seen all. It takes so many times as long
    """
    for key, value in (("size", size), ("stride", stride), ("batch", batch), ("polygons", polygons)):
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"predict: {key} is {value!r}, expected a whole number of at least 1")
    if type(crop) is not int or crop < 0:
        raise ValueError(f"predict: crop is {crop!r}, expected a whole number of at least 0")
    if window not in WINDOWS:
        raise ValueError(f"predict: window: no {window!r}; {suggest(str(window), WINDOWS)}")
    if scores not in ("uint8", "float32", "none"):
        raise ValueError(f"predict: scores is {scores!r}, expected uint8, float32 or none")
    for key, value in (("score_min", score_min), ("score_show", score_show), ("nms_iou", nms_iou)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ValueError(f"predict: {key} is {value!r}, expected a number from 0 to 1")
    if type(views) is not int or views not in dihedral.COUNTS:
        raise ValueError(f"predict: views is {views!r}, expected 1, 4 or 8")
    return {
        "size": size,
        "stride": stride,
        "batch": batch,
        "crop": crop,
        "window": window,
        "scores": scores,
        "polygons": polygons,
        "score_min": float(score_min),
        "score_show": float(score_show),
        "nms_iou": float(nms_iou),
        "views": views,
    }


def for_task(settings: Mapping[str, Any], task: str) -> dict[str, Any]:
    """`complete_settings(**settings)` with the stride of the task; ValueError for settings that do not suit it."""
    registry.check_parameters(complete_settings, settings, "predict")
    settings = complete_settings(**settings)
    size, crop = settings["size"], settings["crop"]
    if size is None:
        if task == "classification":
            return settings
        raise ValueError("predict: size is missing; give the rows and columns of the training chips")
    if crop and task != "segmentation":
        raise ValueError(f"predict: crop is {crop}, but only segmentation crops windows")
    if 2 * crop >= size:
        raise ValueError(f"predict: crop is {crop}, which leaves nothing of windows of {size} pixels")
    if settings["stride"] is None:
        settings["stride"] = size if task == "classification" else max(1, min(size // 2, size - 2 * crop))
    if task != "classification" and settings["stride"] > size - 2 * crop:
        raise ValueError(
            f"predict: stride is {settings['stride']}, more than the {size - 2 * crop} pixels that a window covers"
        )
    return settings


def predict(
    *,
    framework: str,
    model: str,
    model_settings: Mapping[str, Any],
    task: str,
    checkpoint: str | Path,
    scenes: Mapping[str, Scene],
    regions: Sequence[Region],
    statistics: Mapping[str, Any],
    classes: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    out: str | Path,
    split: str = "test",
    threads: int = 1,
    device: str = "cpu",
    dataset: str | None = None,
    seed: int | None = None,
    part: Part | None = None,
) -> None:
    """Predict the regions of `split` with a trained network; write the folder `out` (rvkernels/predictions.py), whole.

    With `part` only that part of the windows is predicted, and `out` is for `gather` (rvkernels/predicted_parts.py).

    framework, model  names of files in rvkernels/frameworks and rvkernels/models
    checkpoint        best.npz or last.npz of `rvk train`; the network computes in the precision it was trained in
    statistics        "mean" and "std" per band, of `rvk analyze`
    classes           {"name", "color": "#rrggbb"} in order of class id
    settings          keyword-only parameters of `complete_settings`
    threads           0 = all cores
    dataset, seed     kept in the record

    out/record.json has every batch's time in the network ("network": normalise, forward, decode), the same for the
    first batch of each size once before ("warmup": a framework may compile), the times of reading ("read", in a thread
    of its own), all but warm-up together ("total"), and what is done once: "import" of the framework and "build" of
    the network in it. chips_per_s is windows per second in the network. Raises ValueError or FileNotFoundError, one
    line, before any prediction where possible.
    """
    started = record.utc_now()
    settings = for_task(settings, task)
    threads = threads or os.cpu_count() or 1
    bands = len(statistics["mean"])
    trained = read_checkpoint(checkpoint)
    precision = trained.meta["identity"]["settings"]["precision"]
    network = Network(
        framework,
        build_graph(model, model_settings, task, bands, len(classes)),
        trained.weights,
        statistics,
        settings,
        threads=threads,
        device=device,
        precision=precision,
    )
    with atomic(out) as folder:
        folder.mkdir()
        times, result = predict_scenes(
            network,
            task=task,
            multiple=network.graph.multiple,
            scenes=scenes,
            regions=regions,
            split=split,
            bands=bands,
            classes=classes,
            settings=settings,
            folder=folder,
            threads=threads,
            part=part,
        )
        record.write_record(
            folder / "record.json",
            what="predict",
            validated=True,
            check=CHECK,
            dataset=dataset,
            task=task,
            model=model,
            framework=framework,
            seed=seed,
            device=device,
            threads=threads,
            started=started,
            settings={
                "predict": settings,
                "model": dict(model_settings),
                "precision": precision,
                "classes": [{"name": c["name"], "color": c["color"]} for c in classes],
                "dtype": next(scenes[r.scene].dtype for r in regions if r.split == split),
            },
            result=result,
            times_s={**network.seconds, **times},
            chips_per_s=result["windows"] / max(sum(times["network"]), 1e-9),
            software_of=network.versions(),
        )


def gather(
    parts: Sequence[str | Path],
    *,
    task: str,
    scenes: Mapping[str, Scene],
    regions: Sequence[Region],
    classes: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    out: str | Path,
    split: str = "test",
    threads: int = 1,
) -> None:
    """Write the folder `out`, whole, from the folders of all parts: the files of a single job, byte for byte.

    Of the record, times are those of all parts, and the machine is that of the first. Raises FileNotFoundError for a
    missing part, and ValueError when the parts are not those of one whole.
    """
    settings = for_task(settings, task)
    used, wanted, windows, settings = _plan(task, scenes, regions, split, settings)
    with atomic(out) as folder:
        folder.mkdir()
        writer = WRITERS[task](used, wanted, classes, settings, folder, threads or os.cpu_count() or 1)
        predicted_parts.replay(parts, task, len(windows), wanted, writer.put)
        writer.close()
        result = _counts(used, wanted, len(windows))
        write_json(folder / "record.json", predicted_parts.merged_record(parts, result))


class Network:
    """A trained network as a Score: normalise, predict, decode. `seconds`: what import and build of it took."""

    def __init__(
        self,
        framework: str,
        graph: Any,
        weights: Mapping[str, np.ndarray],
        statistics: Mapping[str, Any],
        settings: Mapping[str, Any],
        *,
        threads: int = 1,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        self.graph = graph
        self._task = registry.load("tasks", graph.task)
        began = time.perf_counter()
        kind = registry.load("frameworks", framework).Framework
        imported = time.perf_counter()
        self._framework = kind(
            graph,
            dict(weights),
            self._task.LOSS,
            {"name": "sgd", "momentum": 0.0},  # an optimizer that keeps nothing
            device=device,
            threads=threads,
            precision=precision,
        )
        self._framework.wait()
        self.seconds = {"import": [imported - began], "build": [time.perf_counter() - imported]}
        self._normalisation = Normalisation.of(statistics, graph.bands)
        self._settings = settings
        self._threads = threads

    def __call__(self, images: np.ndarray) -> Any:
        """Put together from all views; windows are squares, so that every view has their shape."""
        scale = self._normalisation
        layout = self._framework.layout
        ready = normalize(images, scale.mean, scale.std, layout=layout, threads=self._threads)
        first = 2 if layout == "NCHW" else 1
        outputs = (
            self._framework.predict(np.ascontiguousarray(dihedral.look(ready, view, first=first)))
            for view in range(self._settings["views"])
        )
        if self.graph.task == "detection":
            return self._boxes(outputs, images.shape[1:3])
        return self._mean(outputs)

    def _mean(self, outputs: Iterator[np.ndarray]) -> np.ndarray:
        """The mean of the probabilities, view by view so that two arrays of them are in memory and not eight."""
        total = self._task.probabilities(next(outputs))
        for view, logits in enumerate(outputs, 1):
            found = self._task.probabilities(logits)
            total += dihedral.undo(found, view) if self.graph.task == "segmentation" else found
        return total / np.float32(self._settings["views"]) if self._settings["views"] > 1 else total

    def _boxes(self, outputs: Iterator[np.ndarray], shape: tuple[int, int]) -> list[Any]:
        """The detections of every image, of all views."""
        score, iou = self._settings["score_min"], self._settings["nms_iou"]
        views = [self._task.decode(raw, self.graph, shape, score=score, iou=iou) for raw in outputs]
        if len(views) == 1:
            return views[0]
        turned = [
            [found._replace(boxes=dihedral.undo_boxes(found.boxes, view, shape)) for found in images]
            for view, images in enumerate(views)
        ]
        return [self._task.merge(found, iou=iou) for found in zip(*turned)]

    def versions(self) -> dict[str, str]:
        return self._framework.versions()


# --- windows -------------------------------------------------------------------------------------------------------


def mirror(index: np.ndarray, low: int, high: int) -> np.ndarray:
    """Indices moved into [low, high) by reflection at its ends, edge pixels repeated (... 1 0 | 0 1 ...)."""
    period = 2 * (high - low)
    folded = (index - low) % period
    return low + np.minimum(folded, period - 1 - folded)


class Reader:
    """Batches of windows of `size`, mirrored where they leave their region.

    Windows are read many batches at a time, so that a file is opened and a block decoded once for all windows that need
    them; the next ones are read in a thread.
    """

    def __init__(
        self,
        windows: Windows | Sequence[Window],
        regions: Sequence[Region],
        scenes: Mapping[str, Scene],
        size: int,
        batch: int,
        threads: int,
        valid: bool,
        wanted: range | None = None,
    ) -> None:
        """`wanted`: numbers of the windows to read; None: all."""
        self._windows, self._regions, self._scenes = windows, regions, scenes
        self._wanted = range(len(windows)) if wanted is None else wanted
        self._size, self._batch, self._threads, self._valid = size, batch, threads, valid
        self._open: tuple[str, tile.Raster] | None = None
        self.seconds: list[float] = []

    def __iter__(self) -> Iterator[tuple[Sequence[Window], np.ndarray, np.ndarray | None]]:
        first = self._scenes[self._regions[0].scene]
        window_bytes = self._size**2 * first.bands * np.dtype(first.dtype).itemsize
        step = self._batch * max(1, READ_BYTES // (window_bytes * self._batch))
        firsts = self._wanted[::step]

        def read(first: int) -> tuple[Sequence[Window], np.ndarray, np.ndarray | None]:
            part = self._windows[first : min(first + step, self._wanted.stop)]
            return (part, *self._read(part))

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(read, firsts[0]) if firsts else None
            for following in itertools.chain(firsts[1:], [None] if firsts else []):
                part, images, valid = waiting.result()
                if following is not None:
                    waiting = pool.submit(read, following)
                for i in range(0, len(part), self._batch):
                    some = slice(i, i + self._batch)
                    yield part[some], images[some], None if valid is None else valid[some]

    def _read(self, windows: Sequence[Window]) -> tuple[np.ndarray, np.ndarray | None]:
        began = time.perf_counter()
        places = [self._regions[w.region] for w in windows]
        whole = [self._scenes[p.scene] for p in places]
        if not self._valid and all(self._is_image(w, p, s) for w, p, s in zip(windows, places, whole)):
            images, valid = tile.read_many([s.images[0] for s in whole], threads=self._threads), None
        else:
            parts = [self._scene_part(list(part)) for _, part in itertools.groupby(windows, self._scene_of)]
            images = np.concatenate([p[0] for p in parts]) if len(parts) > 1 else parts[0][0]
            valid = np.concatenate([p[1] for p in parts]) if self._valid else None
        self.seconds.append(time.perf_counter() - began)
        return images, valid

    def _is_image(self, window: Window, region: Region, scene: Scene) -> bool:
        """True when the window is the whole of a scene that is one image."""
        square = scene.rows == scene.cols == region.rows == region.cols == self._size
        plain = len(scene.images) == 1 and scene.dtype in ("uint8", "uint16")
        return plain and square and window.row == window.col == 0

    def _scene_of(self, window: Window) -> str:
        return self._regions[window.region].scene

    def _scene_part(self, windows: list[Window]) -> tuple[np.ndarray, np.ndarray | None]:
        scene = self._scenes[self._scene_of(windows[0])]
        if self._open is None or self._open[0] != scene.id:
            self._open = scene.id, tile.Raster(scene.images)
        size = self._size
        asked = np.array([(w.row, w.col, size, size) for w in windows], np.int64)
        source = self._open[1]
        masked = self._valid or source.dtype.name not in ("uint8", "uint16")
        result = source.read(asked, valid=masked, threads=self._threads)
        images, valid = result if masked else (result, None)
        images = images.astype(DTYPES[images.dtype.name], copy=False)
        if images.dtype == np.float32:  # pixels without data may be NaN; they are 0 in chips too
            images[valid == 0] = 0
        for i, window in enumerate(windows):
            region = self._regions[window.region]
            rows = mirror(window.row + np.arange(size), region.row, region.row + region.rows) - window.row
            cols = mirror(window.col + np.arange(size), region.col, region.col + region.cols) - window.col
            if rows[0] == cols[0] == 0 and rows[-1] == cols[-1] == size - 1:
                continue
            images[i] = images[i][rows[:, None], cols]
            if valid is not None:
                valid[i] = valid[i][rows[:, None], cols]
        return images, valid if self._valid else None


def _side(regions: Sequence[Region]) -> int:
    """Rows and columns of regions that are squares of one size."""
    side = regions[0].rows
    for region in regions:
        if (region.rows, region.cols) != (side, side):
            raise ValueError(
                f"predict: size is missing, and scene {region.scene} is {region.rows} x {region.cols} pixels where "
                f"{regions[0].scene} has {side} rows; give the rows and columns of the training chips"
            )
    return side


# --- the loop ------------------------------------------------------------------------------------------------------


def _plan(
    task: str,
    scenes: Mapping[str, Scene],
    regions: Sequence[Region],
    split: str,
    settings: Mapping[str, Any],
) -> tuple[dict[str, Scene], list[Region], Windows, Mapping[str, Any]]:
    """The split's scenes, its regions in order, their windows, and the settings with a size. No file is opened."""
    wanted = [r for r in regions if r.split == split]
    if not wanted:
        there = sorted({r.split for r in regions})
        raise ValueError(f"no region is in split {split!r}; there are {', '.join(there) or 'none'}")
    check_regions(wanted, scenes)
    order = {name: i for i, name in enumerate(scenes)}
    wanted.sort(key=lambda r: (order[r.scene], r.row, r.col))
    if settings["size"] is None:
        settings = {**settings, **dict.fromkeys(("size", "stride"), _side(wanted))}
    windows = Windows(wanted, task, settings["size"], settings["stride"])
    return {r.scene: scenes[r.scene] for r in wanted}, wanted, windows, settings


def _counts(used: Mapping[str, Scene], wanted: Sequence[Region], windows: int) -> dict[str, int]:
    return {"scenes": len(used), "windows": windows, "pixels": sum(r.rows * r.cols for r in wanted)}


def predict_scenes(
    score: Score,
    *,
    task: str,
    multiple: int,
    scenes: Mapping[str, Scene],
    regions: Sequence[Region],
    split: str,
    bands: int,
    classes: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    folder: Path,
    threads: int = 1,
    part: Part | None = None,
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Score every window of the split's regions and write everything but the record into `folder`.

    With `part`: the windows of that part, of which what `gather` needs is written (rvkernels/predicted_parts.py).
    Returns (times in seconds: warmup, network, read, total; counts: scenes, windows, pixels; of windows those scored).
    Raises ValueError when the split has no region, a scene does not fit the model, or a score is no probability.
    """
    used, wanted, windows, settings = _plan(task, scenes, regions, split, settings)
    first = next(iter(used.values()))
    for scene in used.values():
        if scene.bands != bands:
            raise ValueError(f"scene {scene.id}: it has {scene.bands} bands, but the statistics are of {bands}")
        if scene.dtype != first.dtype:
            raise ValueError(
                f"scene {scene.id}: its pixels are {scene.dtype}, but those of {first.id} are {first.dtype}"
            )
    share = share_of(windows, task, settings["batch"], part or WHOLE)
    size = -(-settings["size"] // multiple) * multiple  # what the network sees; the surplus is not used
    valid = task == "segmentation"
    reader = Reader(windows, wanted, used, size, settings["batch"], threads, valid=valid, wanted=share.scored)
    warmup: dict[int, float] = {}  # by size of batch
    network: list[float] = []
    began = time.perf_counter()
    if part is None:
        writer = WRITERS[task](used, wanted, classes, settings, folder, threads)
    else:
        writer = predicted_parts.keeper(folder, task, part, share, len(windows), wanted, len(classes))
    finder = FINDERS[task](wanted, windows, share, len(classes), settings, writer.put, threads)
    done = share.scored.start
    with Progress(len(share.scored), f"predict {split}", "windows") as progress:
        for batch, images, masks in reader:
            if len(images) not in warmup:  # it runs twice: what is compiled or allocated once is not counted
                start = time.perf_counter()
                score(images)
                warmup[len(images)] = time.perf_counter() - start
            start = time.perf_counter()
            results = score(images)
            network.append(time.perf_counter() - start)
            last = max(share.used.start - done, 0)
            for region, some in itertools.groupby(w.region for w in batch[last : max(share.used.stop - done, 0)]):
                these = slice(last, last + sum(1 for _ in some))
                finder.add(region, batch[these], results[these], None if masks is None else masks[these])
                last = these.stop
            done += len(batch)
            progress.add(len(batch))
    finder.close()
    writer.close()
    total = time.perf_counter() - began - sum(warmup.values())
    times = {"warmup": list(warmup.values()), "network": network, "read": reader.seconds, "total": [total]}
    LOG.info("predict %s: %d scenes, %d windows, %.1f s", split, len(used), len(share.scored), total)
    return times, _counts(used, wanted, len(share.scored))
