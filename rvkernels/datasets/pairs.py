"""Pictures with a label image of the same size each; the label image has one colour, or one number, per class."""

from __future__ import annotations

from pathlib import Path

from rvkernels.datasets._files import build, check_sizes, paired, sources
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
    label_archive: str | None = None,
    threads: int = 0,
) -> list[Scene]:
    """One scene per pair.

    images, labels      patterns of the names below the archive or folder, with the same {fields}; the field {group}
                        becomes the scene's group, what must stay together in a split
    archive or folder   an archive of the description, or a folder beside the description
    label_archive       the archive of the label images, when it is another

    Raises ValueError for an image without label, a label without image, and a label of another size than its image.
    """
    source, label_source = sources(description, files, archive, folder, label_archive)
    built = build(paired(source, images, labels, label_source=label_source), threads)
    check_sizes(built, threads)
    return built
