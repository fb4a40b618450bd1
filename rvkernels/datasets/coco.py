"""Pictures with annotations in COCO's JSON, a file for all of them or one per split."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from rvkernels.datasets._files import Source, build, safe, sources
from rvkernels.datasets._labels import Shape, box, converted, numbers, polygon, read_json
from rvkernels.ops.polygonize import polygonize
from rvkernels.registry import suggest
from rvkernels.scene import Scene

if TYPE_CHECKING:
    from rvkernels.labels import Classes


def scenes(
    description: dict,
    files: dict[str, str | Path],
    *,
    task: str,
    annotations: str | dict[str, str],
    images: str = "",
    only_listed: bool = False,
    archive: str | None = None,
    folder: str | None = None,
    label_archive: str | None = None,
    threads: int = 0,
) -> list[Scene]:
    """One scene per entry of `images` in the JSON; an entry without annotations has no object.

    annotations         path of the JSON file, or {"train": path, ...}: the publisher's split
    images              folder that file_name is relative to; {split} in it stands for the split
    only_listed         leave out categories that are no class of the description, instead of an error
    archive or folder   an archive of the description, or a folder beside the description
    label_archive       the archive of the JSON files, when it is another

    Detection takes `bbox` and leaves out crowds (iscrowd), since a box around many is no object. Other tasks take
    `segmentation`: polygons, and run lengths as lists, which crowds have.
    Raises ValueError naming file and entry.
    """
    source, label_source = sources(description, files, archive, folder, label_archive)
    parts = annotations if isinstance(annotations, dict) else {None: annotations}
    there = set(source.names)
    entries, found, names = [], {}, {}
    for part, path in parts.items():
        if path not in label_source.names:
            raise ValueError(f"{label_source.shown}: no annotations {path!r}; {suggest(path, _json(label_source))}")
        content = _Annotations(label_source.path(path))
        base = (images if part is None else images.replace("{split}", part)).strip("/")
        for image in content.images:
            name = f"{base}/{image['file_name']}" if base else image["file_name"]
            if name not in there:
                raise ValueError(
                    f"{content.path}: image {image['id']}: no file {name!r} in {source.shown}; check layout.images"
                )
            entries.append({"id": "", "images": [source.path(name)], "labels": content.path, "split": part})
            key = entries[-1]["images"][0]
            if key in found:
                raise ValueError(f"{content.path}: image {image['id']}: {name} is there twice; remove one entry")
            found[key], names[key] = (content, image), PurePosixPath(image["file_name"])
    _identify(entries, names)
    built = build(entries, threads)

    def read(scene: Scene, known: Classes) -> list[Shape]:
        content, image = found[scene.images[0]]
        rows, cols = image.get("height", scene.rows), image.get("width", scene.cols)
        if (rows, cols) != (scene.rows, scene.cols):
            raise ValueError(
                f"{content.path}: image {image['id']}: is for {rows} x {cols} pixels, but {scene.images[0]} is "
                f"{scene.rows} x {scene.cols}"
            )
        return content.shapes(image["id"], known, task == "detection", only_listed, (rows, cols))

    return converted(description, built, read, threads)


def _json(source: Source) -> list[str]:
    return [name for name in source.names if name.endswith(".json")]


def _identify(entries: list[dict], names: dict[str, PurePosixPath]) -> None:
    """Give scenes the shortest ids that differ: of the file, of its path, of split and path."""
    ways = (
        lambda path, part: path.stem,
        lambda path, part: str(path.with_suffix("")),
        lambda path, part: f"{part}/{path.with_suffix('')}",
    )
    for way in ways:
        for entry in entries:
            entry["id"] = safe(way(names[entry["images"][0]], entry["split"]))
        if len({e["id"] for e in entries}) == len(entries):
            return


class _Annotations:
    """One JSON file, its annotations by the id of their image."""

    def __init__(self, path: str) -> None:
        self.path = path
        content = read_json(path)
        for key in ("images", "annotations", "categories"):
            members = content.get(key)
            if not isinstance(members, list) or not all(isinstance(m, dict) for m in members):
                raise ValueError(
                    f"{path}: {key}: expected a list of objects, as COCO has; got {type(members).__name__}"
                )
        self.images = content["images"]
        self.categories = {self._get(c, "id", f"categories[{i}]"): c for i, c in enumerate(content["categories"])}
        known = set()
        for i, image in enumerate(self.images):
            self._get(image, "file_name", f"images[{i}]")
            number = self._get(image, "id", f"images[{i}]")
            if number in known:
                raise ValueError(f"{path}: images[{i}]: id {number!r} is there twice; give each image one of its own")
            known.add(number)
        self._of: dict[object, list[tuple[str, dict]]] = defaultdict(list)
        for i, entry in enumerate(content["annotations"]):
            where = f"annotations[{i}] (id {entry.get('id')})"
            image, category = (self._get(entry, key, where) for key in ("image_id", "category_id"))
            for value, there, key in ((image, known, "image_id"), (category, self.categories, "category_id")):
                if value not in there:
                    raise ValueError(
                        f"{path}: {where}: {key} {value!r} is in no entry of the file; correct or remove it"
                    )
            self._of[image].append((f"{path}: {where}", entry))

    def _get(self, entry: dict, key: str, where: str) -> object:
        if not isinstance(entry.get(key), (str, int)):
            raise ValueError(f"{self.path}: {where}: {key}: expected a number or a text, got {entry.get(key)!r}")
        return entry[key]

    def shapes(
        self, image: object, known: Classes, boxes: bool, only_listed: bool, size: tuple[int, int]
    ) -> list[Shape]:
        """Boxes, or else outlines, of the annotations of an image of `size` (rows, cols)."""
        found = []
        for where, entry in self._of.get(image, []):
            name = str(self.categories[entry["category_id"]].get("name", ""))
            if (only_listed and name not in known) or (boxes and entry.get("iscrowd")):
                continue
            class_id = known.id(name, where)
            if boxes:
                x, y, width, height = numbers(entry.get("bbox"), 4, "bbox x, y, width, height", where)
                found.append((class_id, box(x, y, x + width, y + height, where)))
            else:
                found.extend((class_id, part) for part in _outline(entry.get("segmentation"), size, where))
        return found


def _outline(segmentation: object, size: tuple[int, int], where: str) -> list[dict]:
    """Polygons of the rings [x, y, x, y, ...], or of the run lengths {"size", "counts"}, of one annotation."""
    if isinstance(segmentation, dict):
        return _runs(segmentation, size, where)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(f"{where}: segmentation: expected polygons or run lengths, got {segmentation!r}")
    found = []
    for ring in segmentation:
        if not isinstance(ring, list) or len(ring) < 6 or len(ring) % 2:
            raise ValueError(f"{where}: segmentation: expected x, y of three points or more, got {ring!r}")
        flat = numbers(ring, len(ring), "numbers x, y", f"{where}: segmentation")
        found.append(polygon(list(zip(flat[::2], flat[1::2]))))
    return found


def _runs(encoded: dict, size: tuple[int, int], where: str) -> list[dict]:
    """Polygons of run lengths: pixels outside and inside in turn, column by column."""
    counts = encoded.get("counts")
    if isinstance(counts, str):
        raise ValueError(
            f"{where}: segmentation: the run lengths are compressed; write them as a list of numbers "
            f"(pycocotools: mask.decode, then mask by columns)"
        )
    if encoded.get("size") != list(size):
        raise ValueError(
            f"{where}: segmentation: size: expected {list(size)}, that of the image, got {encoded.get('size')}"
        )
    if (
        not isinstance(counts, list)
        or not all(type(c) is int and c >= 0 for c in counts)
        or sum(counts) != size[0] * size[1]
    ):
        raise ValueError(
            f"{where}: segmentation: counts: expected run lengths that add up to {size[0] * size[1]} pixels"
        )
    inside = np.repeat(np.arange(len(counts)) % 2, counts).astype(np.uint8)
    inside = np.ascontiguousarray(inside.reshape(size, order="F"))
    return [{"type": "Polygon", "coordinates": rings} for rings in polygonize(inside).coordinates()]
