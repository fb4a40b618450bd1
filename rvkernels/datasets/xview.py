"""Pictures with the boxes of all of them in one GeoJSON file, in pixels, as xView has them."""

from __future__ import annotations

import logging
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from rvkernels.datasets._files import build, paired, sources
from rvkernels.datasets._labels import Shape, box, converted, numbers, read_json
from rvkernels.registry import suggest
from rvkernels.scene import Scene

if TYPE_CHECKING:
    from rvkernels.labels import Classes

log = logging.getLogger(__name__)


def scenes(
    description: dict,
    files: dict[str, str | Path],
    *,
    task: str,
    images: str,
    labels: str,
    only_listed: bool = False,
    archive: str | None = None,
    folder: str | None = None,
    label_archive: str | None = None,
    threads: int = 0,
) -> list[Scene]:
    """One scene per picture; one without features has no object.

    images              pattern of the names below the archive or folder; the field {group} becomes the scene's group
    labels              path of the GeoJSON file. Of a feature's properties, image_id is the name of its picture's file,
                        type_id its class, among the `aliases` of a class of the description, and bounds_imcoords the
                        text "xmin,ymin,xmax,ymax" in pixels; its geometry is not used
    only_listed         leave out types that are no class of the description, instead of an error
    archive or folder   an archive of the description, or a folder beside the description
    label_archive       the archive of the GeoJSON file, when it is another

    Features of pictures that are not there, and boxes that lie outside of their picture or have no area, as the
    publisher has some, are left out with a warning. Raises ValueError naming file and feature.
    """
    source, label_source = sources(description, files, archive, folder, label_archive)
    if labels not in label_source.names:
        raise ValueError(f"{label_source.shown}: no file {labels!r}; {suggest(labels, label_source.names[:20])}")
    path = label_source.path(labels)
    built = build([{**entry, "labels": path} for entry in paired(source, images, None)], threads)
    features = read_json(path).get("features")
    if not isinstance(features, list):
        raise ValueError(f"{path}: features: expected a list, got {type(features).__name__}; is it GeoJSON?")
    of: dict[str, list[tuple[str, dict]]] = defaultdict(list)
    for i, feature in enumerate(features):
        where = f"{path}: feature {i}"
        properties = feature.get("properties") if isinstance(feature, dict) else None
        for key in ("image_id", "type_id", "bounds_imcoords"):
            if not isinstance(properties, dict) or key not in properties:
                raise ValueError(f"{where}: properties: {key} is missing; each has image_id, type_id, bounds_imcoords")
        of[str(properties["image_id"])].append((where, properties))
    elsewhere = sorted(set(of) - {PurePosixPath(scene.images[0]).name for scene in built})
    if elsewhere:
        log.warning("%s: %d pictures with labels are not there, first %s", path, len(elsewhere), elsewhere[0])

    def read(scene: Scene, known: Classes) -> list[Shape]:
        shapes, outside = [], []
        for where, properties in of.get(PurePosixPath(scene.images[0]).name, []):
            name = str(properties["type_id"])
            if only_listed and name not in known:
                continue
            words = str(properties["bounds_imcoords"]).split(",")
            xmin, ymin, xmax, ymax = numbers(words, 4, "bounds_imcoords xmin,ymin,xmax,ymax", where)
            xmin, ymin, xmax, ymax = max(xmin, 0), max(ymin, 0), min(xmax, scene.cols), min(ymax, scene.rows)
            if xmin < xmax and ymin < ymax:
                shapes.append((known.id(name, where), box(xmin, ymin, xmax, ymax, where)))
            else:
                outside.append(where)
        if outside:
            log.warning("%s: has no area in its picture, left out (%d in %s)", outside[0], len(outside), scene.id)
        return shapes

    return converted(description, built, read, threads)
