"""Pictures with boxes in Pascal VOC XML, in pixels, one file per picture."""

from __future__ import annotations

from pathlib import Path

from rvkernels.datasets._files import Source, build, paired
from rvkernels.scene import Scene


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
    archive or folder   a zip file of the description, or a folder beside the description

    Raises ValueError for a picture without XML and an XML without picture. Other names that the files use for a class
    are its `aliases` in the description.
    """
    return build(paired(Source(description, files, archive, folder), images, labels), threads)
