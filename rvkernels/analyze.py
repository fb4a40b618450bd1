"""Statistics of the pixels of the training regions, and of nothing else: what ops.statistics tells of them (mean, std,
min, max, quantiles per band, ...), and in `scenes` and `regions` how many were read.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from rvkernels import chip
from rvkernels.chips import DTYPES
from rvkernels.files import write_json
from rvkernels.ops import tile
from rvkernels.ops.statistics import Statistics
from rvkernels.progress import Progress
from rvkernels.scene import Region, Scene, check_regions, read_regions, read_scenes

_merging = threading.Lock()


def analyze(scenes: str | Path, regions: str | Path, *, out: str | Path | None = None, threads: int = 0) -> dict:
    """Statistics of the training regions, as the module says; written to `out` as JSON.

    scenes          JSON lines of `rvk fetch`
    regions         CSV of `rvk split`
    threads         0 = all cores

    Pixels without data are not counted. Raises ValueError when there is no training region, or a band has no data in
    any of them.
    """
    places = read_scenes(scenes)
    train = [r for r in read_regions(regions) if r.split == "train"]
    if not train:
        raise ValueError(f"{regions}: zero scenes in split 'train'; run `rvk split` again")
    check_regions(train, places)
    used = [places[r.scene] for r in train]
    workers = threads or os.cpu_count() or 1
    total = Statistics(used[0].bands, DTYPES[used[0].dtype], threads=threads)
    with Progress(len(train), "analyze", "regions") as progress:
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
            jobs = [pool.submit(_add, s, r, inner, total) for r, s in others]
            for job in jobs:
                job.result()
                progress.add(1)
    try:
        summary = total.summary()
    except ValueError as error:
        raise ValueError(f"{scenes}: the {len(train)} training regions: {error}") from None
    result = {"scenes": len({r.scene for r in train}), "regions": len(train), **summary}
    if out is not None:
        write_json(out, result)
    return result


def _add(scene: Scene, region: Region, threads: int, total: Statistics) -> None:
    """Count the pixels of one region in `total`."""
    statistics = Statistics(total.bands, total.dtype, threads=threads)
    statistics.add_rasters(scene.images, np.array([region.extent], np.int64))
    with _merging:
        total.merge(statistics)  # sums are exact, so the order does not matter
