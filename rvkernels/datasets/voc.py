"""Pictures with boxes in Pascal VOC XML, in pixels, one file per picture."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import TYPE_CHECKING

from rvkernels.datasets._files import Source, build, paired
from rvkernels.datasets._labels import Shape, box, converted, numbers, read_bytes
from rvkernels.scene import Scene

if TYPE_CHECKING:
    from rvkernels.labels import Classes

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def scenes(
    description: dict,
    files: dict[str, str | Path],
    *,
    task: str,
    images: str,
    labels: str,
    archive: str | None = None,
    folder: str | None = None,
    threads: int = 0,
) -> list[Scene]:
    """One scene per picture.

    images, labels      patterns of the names below the archive or folder, with the same {fields}; the field {group}
                        becomes the scene's group, what must stay together in a split
    archive or folder   an archive of the description, or a folder beside the description

    Boxes are taken as corners in pixels. Raises ValueError for a picture without XML and an XML without picture, and
    naming the file for one that is something else. Other names that the files use for a class are its `aliases` in the
    description.
    """
    built = build(paired(Source(description, files, archive, folder), images, labels), threads)
    return converted(description, built, _read, threads)


def _read(scene: Scene, known: Classes) -> list[Shape]:
    path = scene.labels
    try:
        root = ElementTree.fromstring(read_bytes(path))
    except ElementTree.ParseError as error:
        raise ValueError(f"{path}: not XML: {error}") from None
    if root.tag != "annotation":
        raise ValueError(f"{path}: expected Pascal VOC (an <annotation>), got <{root.tag}>")
    size = root.find("size")
    if size is not None:
        rows, cols = (int(size.findtext(tag, "0")) for tag in ("height", "width"))
        if (rows, cols) != (scene.rows, scene.cols):
            raise ValueError(
                f"{path}: is for {rows} x {cols} pixels, but {scene.images[0]} is {scene.rows} x {scene.cols}"
            )
    shapes = []
    for i, thing in enumerate(root.findall("object")):
        where = f"{path}: object {i}"
        class_id = known.id((thing.findtext("name") or "").strip(), where)
        texts = [thing.findtext(f"bndbox/{tag}") for tag in CORNERS]
        shapes.append((class_id, box(*numbers(texts, 4, f"bndbox: {', '.join(CORNERS)}", where), where)))
    return shapes
