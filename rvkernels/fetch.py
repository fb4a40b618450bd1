"""The fetch stage: obtain a dataset's files, and list and check its scenes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rvkernels import cache, checksums, dataset, labels, registry
from rvkernels.scene import Scene, write_scenes

log = logging.getLogger(__name__)


def fetch(
    description: str | Path,
    downloads: str | Path,
    mirror: str | Path | None = None,
    out: str | Path | None = None,
    *,
    task: str | None = None,
    layout: dict | None = None,
    threads: int = 0,
) -> list[Scene]:
    """Obtain and verify the files of a dataset, check its scenes, and write them to `out` as JSON lines.

    description     config/datasets/NAME.yaml or a description of the user's own
    downloads       the cache: files go to <downloads>/NAME/; several processes may share it
    mirror          folder or URL that is asked before the published URLs, or None
    task            one of the description's tasks; None means its first
    layout          settings of the form that replace those of the description
    threads         0 = all cores

    Raises ValueError (wrong checksum, corrupt archive, a label that is no class, ...) or FileNotFoundError (a file
    that is nowhere), each one line. Only verified files have their names in the cache.
    """
    wanted = dataset.load(description)
    task = task or wanted["tasks"][0]
    if task not in wanted["tasks"]:
        raise ValueError(f"{description}: no labels for task {task!r}; {registry.suggest(task, wanted['tasks'])}")
    form = registry.load("datasets", wanted["form"])
    settings = {**wanted["layout"], **(layout or {})}
    registry.check_parameters(form.scenes, settings, f"{description}: layout")
    folder = Path(downloads).resolve() / wanted["name"]
    # For labels that the form writes anew: another folder when anything they depend on differs.
    wanted["made"] = str(folder / f"labels-{_digest([wanted['form'], task, settings, wanted['classes']])}")
    cache.check_by_hand([description], downloads, mirror)
    lock = checksums.lock_file(description)
    files = {}
    for entry in wanted["files"]:
        try:
            files[entry["name"]] = cache.obtain(entry, folder, mirror, get=wanted.get("get", ""), lock=lock)
        except FileNotFoundError as error:
            if not entry["optional"]:
                raise
            log.warning("%s (optional, going on without it)", error)
    if "folder" not in settings and "folder" in registry.parameters(form.scenes) and hasattr(form, "draw"):
        settings["folder"] = str(folder)
    scenes = form.scenes(wanted, files, **{"task": task, "threads": threads, **settings})
    check(scenes, wanted, task, threads)
    if out is not None:
        write_scenes(out, scenes)
    return scenes


def _digest(what: object) -> str:
    """Twelve letters that differ when `what`, as JSON, does."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]


def check(scenes: list[Scene], description: dict, task: str, threads: int = 0) -> None:
    """Raise ValueError for scenes that no later stage could use: see the messages."""
    name = description["name"]
    if not scenes:
        raise ValueError(f"{name}: no scene found; check the description's layout")
    twice = [i for i, count in Counter(s.id for s in scenes).items() if count > 1]
    if twice:
        raise ValueError(f"{name}: two scenes have the id {twice[0]!r}; ids must differ")
    bands, dtype = len(description["bands"]), scenes[0].dtype
    classes = dataset.class_names(description)
    for scene in scenes:
        if scene.bands != bands:
            raise ValueError(
                f"{scene.images[0]}: scene {scene.id} has {scene.bands} bands, but {name} names {bands}: "
                f"{', '.join(description['bands'])}"
            )
        if scene.dtype != dtype:
            raise ValueError(
                f"{scene.images[0]}: scene {scene.id} is {scene.dtype}, but scene {scenes[0].id} is {dtype}; the "
                f"scenes of a dataset have one data type"
            )
        if scene.class_name is not None and scene.class_name not in classes:
            raise ValueError(
                f"{name}: scene {scene.id} has class {scene.class_name!r}, which is not in the class list; "
                f"{registry.suggest(scene.class_name, classes)}"
            )
        if scene.labels is None and (task != "classification" or scene.class_name is None):
            raise ValueError(f"{name}: scene {scene.id} has no labels, which {task} needs")
    vector = [s for s in scenes if s.labels is not None and dataset.is_vector(s.labels)]
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        # Reading the features checks classes and CRS.
        for _ in pool.map(lambda s: labels.load_features(s, description["classes"]), vector):
            pass
