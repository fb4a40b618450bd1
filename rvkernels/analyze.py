"""Statistics of the pixels and labels of the training regions, and of nothing else.

The result holds what ops.statistics tells of the pixels (mean, std, min, max, quantiles per band, ...) and

    scenes, regions     how many were read
    class_unit          what is counted: "cells" (chips), "pixels" or "boxes"
    class_names         names in the order of their ids
    class_counts        per class
    class_shares        class_counts over their sum
    class_weights       sum / (classes * count), so that classes weigh the same in a loss; 0 for a class without labels
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from rvkernels import chip, dataset, labels
from rvkernels.files import write_json
from rvkernels.ops import tile, windows
from rvkernels.ops.statistics import Statistics
from rvkernels.progress import Progress
from rvkernels.scene import Region, Scene, read_regions, read_scenes

SIZE = 1024  # rows and columns of a piece of a region that is read at a time
_merging = threading.Lock()
UNITS = {"classification": "cells", "segmentation": "pixels", "detection": "boxes"}


def analyze(
    description: str | Path,
    scenes: str | Path,
    regions: str | Path,
    *,
    task: str,
    settings: Mapping[str, Any],
    out: str | Path | None = None,
    threads: int = 0,
) -> dict:
    """Statistics of the training regions, as the module says; written to `out` as JSON.

    description     of the dataset, YAML
    scenes          JSON lines of `rvk fetch`
    regions         CSV of `rvk split`
    settings        of the chips (rvkernels.chip.DEFAULTS): classification counts the cells that become chips;
                    segmentation takes `background` and `all_touched`
    threads         0 = all cores

    Pixels without data are not counted, nor labels there. A box belongs to the region that holds its centre.
    Raises ValueError when there is no training region, or a band has no data in any of them.
    """
    described, places = dataset.load(description), read_scenes(scenes)
    train = [r for r in read_regions(regions) if r.split == "train"]
    if not train:
        raise ValueError(f"{regions}: zero scenes in split 'train'; run `rvk split` again")
    used = [places[r.scene] for r in train]
    workers = threads or os.cpu_count() or 1
    total = Statistics(len(described["bands"]), chip.DTYPES[used[0].dtype], threads=threads)
    counts = np.zeros(len(described["classes"]), np.int64)
    with Progress(len(train), "analyze", "regions") as progress:
        if task == "classification":
            for piece in chip.plan(described, places, train, task=task, settings=settings, threads=threads):
                counts += np.bincount(piece.classes, minlength=len(counts))
        size = used[0].rows, used[0].cols
        whole = [chip.is_picture(s) and size == (s.rows, s.cols) == (r.rows, r.cols) for r, s in zip(train, used)]
        pictures = [s.images[0] for s, is_whole in zip(used, whole) if is_whole]
        step = chip.pictures_at_once(used[0])
        for first in range(0, len(pictures), step):
            part = pictures[first : first + step]
            total.add(tile.read_many(part, threads=threads))
            progress.add(len(part))
        others = [(r, s) for r, s, is_whole in zip(train, used, whole) if not is_whole]
        inner = max(1, workers // max(1, min(workers, len(others))))
        with ThreadPoolExecutor(workers) as pool:
            jobs = [pool.submit(_region, described, s, r, task, settings, inner, total) for r, s in others]
            for job in jobs:
                counts += job.result()
                progress.add(1)
    try:
        summary = total.summary()
    except ValueError as error:
        raise ValueError(f"{scenes}: the {len(train)} training regions: {error}") from None
    result = {
        "scenes": len({r.scene for r in train}),
        "regions": len(train),
        **summary,
        "class_unit": UNITS[task],
        "class_names": dataset.class_names(described),
        "class_counts": counts.tolist(),
        "class_shares": (counts / max(1, counts.sum())).tolist(),
        "class_weights": [float(counts.sum() / (len(counts) * c)) if c else 0.0 for c in counts],
    }
    if out is not None:
        write_json(out, result)
    return result


def _region(
    description: dict,
    scene: Scene,
    region: Region,
    task: str,
    settings: Mapping[str, Any],
    threads: int,
    total: Statistics,
) -> np.ndarray:
    """Class counts of one region, whose pixels are added to `total`; cells are counted elsewhere."""
    classes = description["classes"]
    statistics = Statistics(total.bands, total.dtype, threads=threads)
    counts = np.zeros(len(classes), np.int64)
    features = None
    if task != "classification" and dataset.is_vector(scene.labels):
        features = labels.load_features(scene, classes)
    if task == "detection":
        centre = (features.boxes[:, :2] + features.boxes[:, 2:]) / 2 - (region.row, region.col)
        here = ((centre >= 0) & (centre < (region.rows, region.cols))).all(axis=1)
        counts += np.bincount(features.class_ids[here], minlength=len(counts))
    if task != "segmentation":  # which counts labels where pixels have data, and so reads both
        window = np.array([region.extent], np.int64)
        statistics.add_rasters(scene.images, window)
    else:
        source = tile.Raster(scene.images)
        for group in windows.tiles(region.extent, SIZE):
            step = max(1, chip.PIXELS // int(np.prod(group[0, 2:])))
            for first in range(0, len(group), step):
                part = np.ascontiguousarray(group[first : first + step])
                images, valid = source.read(part, valid=True, threads=threads)
                statistics.add(images.astype(total.dtype, copy=False), valid)
                mask = labels.masks(
                    scene,
                    part,
                    classes,
                    features=features,
                    background=settings.get("background"),
                    all_touched=settings.get("all_touched", False),
                    threads=threads,
                )
                counts += np.bincount(mask[valid == 1], minlength=256)[: len(counts)]
    with _merging:
        total.merge(statistics)  # sums are exact, so the order does not matter
    return counts
