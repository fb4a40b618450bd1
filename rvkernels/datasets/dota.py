"""Pictures with quadrilaterals in DOTA's text files: a line `x1 y1 x2 y2 x3 y3 x4 y4 category difficult` per object."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rvkernels.datasets._files import build, paired, sources
from rvkernels.datasets._labels import Shape, box, converted, from_lines, numbers, polygon
from rvkernels.scene import Scene

if TYPE_CHECKING:
    from rvkernels.labels import Classes

HEADER = ("imagesource:", "gsd:")


def scenes(
    description: dict,
    files: dict[str, str | Path],
    *,
    task: str,
    images: str,
    labels: str,
    difficult: bool = True,
    archive: str | None = None,
    folder: str | None = None,
    label_archive: str | None = None,
    threads: int = 0,
) -> list[Scene]:
    """One scene per picture.

    images, labels      patterns of the names below the archive or folder, with the same {fields}; the field {group}
                        becomes the scene's group, what must stay together in a split
    difficult           whether to keep objects that are marked as difficult (1)
    archive or folder   an archive of the description, or a folder beside the description
    label_archive       the archive of the text files, when it is another

    Detection takes the box around the four corners, other tasks the quadrilateral. Raises ValueError for a picture
    without text file, a text file without picture, and a line that is something else, by file and line.
    """
    source, label_source = sources(description, files, archive, folder, label_archive)
    built = build(paired(source, images, labels, label_source=label_source), threads)

    def parse(line: str, scene: Scene, known: Classes, where: str) -> Shape | None:
        if line.startswith(HEADER):
            return None
        words = line.split()
        if len(words) != 10 or words[9] not in ("0", "1"):
            raise ValueError(f"{where}: expected x1 y1 x2 y2 x3 y3 x4 y4 category difficult (0 or 1), got {line!r}")
        corners = numbers(words[:8], 8, "eight numbers x1 y1 ... x4 y4", where)
        class_id = known.id(words[8], where)
        if words[9] == "1" and not difficult:
            return None
        xs, ys = corners[::2], corners[1::2]
        around = box(min(xs), min(ys), max(xs), max(ys), where)
        return class_id, around if task == "detection" else polygon(list(zip(xs, ys)))

    return converted(description, built, from_lines(parse), threads)
