"""Pictures with boxes in YOLO's text files: a line `class x y width height` per object, in shares of the picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rvkernels.datasets._files import Source, build, paired
from rvkernels.datasets._labels import Shape, box, converted, from_lines, numbers
from rvkernels.scene import Scene

if TYPE_CHECKING:
    from rvkernels.labels import Classes

ROUNDING = 1e-4  # shares are written with few decimals, so one may pass 1 by so much


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
    """One scene per picture; one without text file has no object.

    images, labels      patterns of the names below the archive or folder, with the same {fields}; the field {group}
                        becomes the scene's group, what must stay together in a split
    archive or folder   an archive of the description, or a folder beside the description

    x and y are those of the box's centre. The class is the number of a class of the description, counted from 0.
    Raises ValueError for a text file without picture, and for a line that is something else, by file and line.
    """
    source = Source(description, files, archive, folder)
    built = build(paired(source, images, labels, optional_labels=True), threads)
    return converted(description, built, from_lines(_parse), threads)


def _parse(line: str, scene: Scene, known: Classes, where: str) -> Shape:
    x, y, width, height = numbers(line.split()[1:], 4, "class x y width height", where)
    if not all(0 <= share <= 1 + ROUNDING for share in (x, y, width, height)):
        raise ValueError(f"{where}: expected x, y, width, height as shares of the picture, 0 to 1, got {line!r}")
    number = line.split()[0]
    if not number.isdecimal() or int(number) >= len(known):
        raise ValueError(
            f"{where}: class {number!r} is not one of 0 to {len(known) - 1} ({', '.join(known.names)}); give the "
            f"description all classes in YOLO's order"
        )
    xs, ys = ((v - size / 2, v + size / 2) for v, size in ((x, width), (y, height)))
    corners = (xs[0] * scene.cols, ys[0] * scene.rows, xs[1] * scene.cols, ys[1] * scene.rows)
    return int(number), box(*corners, where)
