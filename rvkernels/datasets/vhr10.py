"""Pictures with boxes in text files as NWPU VHR-10 has them: a line (xmin,ymin),(xmax,ymax),class per object."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from rvkernels.datasets._files import Source, build, paired
from rvkernels.datasets._labels import Shape, box, converted, from_lines, numbers
from rvkernels.scene import Scene

if TYPE_CHECKING:
    from rvkernels.labels import Classes

LINE = re.compile(r"\(([^,()]+),([^,()]+)\),\(([^,()]+),([^,()]+)\),([^,()]+)")


def scenes(
    description: dict,
    files: dict[str, str | Path],
    *,
    task: str,
    images: str,
    labels: str,
    negatives: str | None = None,
    archive: str | None = None,
    folder: str | None = None,
    threads: int = 0,
) -> list[Scene]:
    """One scene per picture.

    images, labels      patterns of the names below the archive or folder, with the same {fields}; the field {group}
                        becomes the scene's group, what must stay together in a split
    negatives           pattern of pictures without any object and without label file; their ids begin with negative_
    archive or folder   an archive of the description, or a folder beside the description

    The files' class, a number, is among the `aliases` of a class of the description. Raises ValueError for a picture
    without text file, a text file without picture, and a line that is something else, by file and line.
    """
    source = Source(description, files, archive, folder)
    entries = paired(source, images, labels)
    if negatives is not None:
        entries += [{**entry, "id": f"negative_{entry['id']}"} for entry in paired(source, negatives, None)]
    return converted(description, build(entries, threads), from_lines(_parse), threads)


def _parse(line: str, scene: Scene, known: Classes, where: str) -> Shape:
    fit = LINE.fullmatch(re.sub(r"\s", "", line))
    if fit is None:
        raise ValueError(f"{where}: expected (xmin,ymin),(xmax,ymax),class, got {line!r}")
    corners = numbers(fit.groups()[:4], 4, "numbers xmin, ymin, xmax, ymax", where)
    return known.id(fit[5], where), box(*corners, where)
