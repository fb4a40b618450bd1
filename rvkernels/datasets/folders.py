"""Labelled pictures, one folder per class: <root>/<Class>/<picture>."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

from rvkernels.dataset import class_names
from rvkernels.datasets._files import Source, build, safe
from rvkernels.registry import suggest
from rvkernels.scene import Scene


def scenes(
    description: dict,
    files: dict[str, str | Path],
    *,
    task: str,
    archive: str | None = None,
    folder: str | None = None,
    root: str = "",
    suffix: str = ".jpg",
    split: dict[str, str] | None = None,
    threads: int = 0,
) -> list[Scene]:
    """One scene per picture; its class is the name of its folder.

    archive or folder   an archive of the description, or a folder beside the description
    root                path inside it
    suffix              ending of the pictures' names, any case
    split               {"train": file name, ...}: CSV files of the description, `path,label` without header, where
                        path is relative to root and its suffix counts for nothing: the publisher's split, also for
                        the same pictures in another format

    Raises ValueError for a folder that is no class, a class without pictures, and a split file that names a picture
    that is not there, gives it another class, or is at odds with another split file.
    """
    source = Source(description, files, archive, folder)
    classes = class_names(description)
    start = f"{root.strip('/')}/" if root.strip("/") else ""
    entries: dict[str, dict] = {}
    for name in source.names:
        below = PurePosixPath(name[len(start) :])
        if not name.startswith(start) or len(below.parts) != 2 or below.suffix.lower() != suffix.lower():
            continue
        if below.parts[0] not in classes:
            raise ValueError(f"{source.shown}: {name} is in no folder of a class; {suggest(below.parts[0], classes)}")
        entries[str(below.with_suffix(""))] = {
            "id": safe(below.stem),
            "images": [source.path(name)],
            "class_name": below.parts[0],
        }
    empty = sorted(set(classes) - {e["class_name"] for e in entries.values()})
    if empty:
        raise ValueError(
            f"{source.shown}: no {suffix} file in {start}{empty[0]}/, so class {empty[0]!r} has no picture"
        )
    if len({e["id"] for e in entries.values()}) < len(entries):
        for entry in entries.values():
            entry["id"] = f"{safe(entry['class_name'])}_{entry['id']}"
    for part, file in (split or {}).items():
        if file not in files:
            raise ValueError(f"{description['name']}: layout: split: no file {file!r}; {suggest(file, files)}")
        _assign(Path(files[file]), part, entries, source.shown)
    return build(entries.values(), threads)


def _assign(path: Path, part: str, entries: dict[str, dict], shown: str) -> None:
    with path.open(newline="") as lines:
        for number, row in enumerate(csv.reader(lines), 1):
            where = f"{path}: line {number}"
            if len(row) != 2:
                raise ValueError(f"{where}: expected path,label, got {','.join(row)!r}")
            entry = entries.get(str(PurePosixPath(row[0]).with_suffix("")))
            if entry is None:
                raise ValueError(f"{where}: {row[0]} is not in {shown}")
            if row[1] != entry["class_name"]:
                raise ValueError(f"{where}: {row[0]} is labelled {row[1]}, but lies in folder {entry['class_name']}")
            if entry.setdefault("split", part) != part:
                raise ValueError(f"{where}: {row[0]} is in two splits, {entry['split']} and {part}")
