"""What the forms share: names in an archive or a folder, name patterns, and scenes out of rasters."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path

from rvkernels import archive as archives
from rvkernels.registry import suggest
from rvkernels.scene import Scene

log = logging.getLogger(__name__)


class Source:
    """The files of one archive, read in place through GDAL or unpacked by fetch, or of one folder.

    names   paths below it with forward slashes, sorted
    """

    def __init__(
        self, description: dict, files: dict[str, str | Path], archive: str | None, folder: str | None
    ) -> None:
        if (archive is None) == (folder is None):
            raise ValueError(f"{description['name']}: layout: give either archive or folder")
        if archive is not None:
            if archive not in files:
                raise ValueError(f"{description['name']}: layout: no file {archive!r}; {suggest(archive, files)}")
            root = Path(files[archive]).resolve()
        else:
            root = Path(description["folder"], folder).resolve()
            if not root.is_dir():
                raise FileNotFoundError(f"{root}: no such folder; layout.folder is relative to the description")
        self.shown = str(root)
        if root.is_file():
            self._prefix = archives.prefix(root)
            if self._prefix is None:
                raise ValueError(f"{description['name']}: layout: {archive} is no archive by its name; see files.name")
            self.names = archives.names(root)
        else:
            self.names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
            self._prefix = root.as_posix() + "/"

    def path(self, name: str) -> str:
        """`name` as GDAL opens it."""
        return self._prefix + name

    def match(self, pattern: str) -> dict[tuple[str, ...], str]:
        """Names that fit `pattern`, by their fields in the order of the fields' names.

        {field} stands for any characters but a slash, and for the same ones wherever it comes again; * for any
        characters but a slash, kept nowhere. Raises ValueError when two names have the same fields.
        """
        expression, seen = "", set()
        for part in re.split(r"(\{\w+\}|\*)", pattern):
            if part == "*":
                expression += "[^/]*"
            elif part.startswith("{") and part.endswith("}"):
                field = part[1:-1]
                expression += f"(?P={field})" if field in seen else f"(?P<{field}>[^/]+)"
                seen.add(field)
            else:
                expression += re.escape(part)
        found: dict[tuple[str, ...], str] = {}
        for name in self.names:
            fit = re.fullmatch(expression, name)
            if fit:
                key = tuple(value for _, value in sorted(fit.groupdict().items()))
                if key in found:
                    raise ValueError(f"{self.shown}: {found[key]} and {name} are the same scene by pattern {pattern!r}")
                found[key] = name
        return found


def sources(
    description: dict, files: dict[str, str | Path], archive: str | None, folder: str | None, label_archive: str | None
) -> tuple[Source, Source]:
    """Where a layout's images are, and where its labels are: in an archive of their own, or with the images."""
    images = Source(description, files, archive, folder)
    return images, images if label_archive is None else Source(description, files, label_archive, None)


def fields(pattern: str) -> list[str]:
    """Names of the fields of a pattern, sorted."""
    return sorted(set(re.findall(r"\{(\w+)\}", pattern)))


def paired(
    source: Source,
    images: str,
    labels: str | None,
    aoi: str | None = None,
    *,
    label_source: Source | None = None,
    optional_labels: bool = False,
    skip_unpaired: bool = False,
) -> list[dict]:
    """Scenes whose image and label have the same fields in their names, as keyword arguments of `build`.

    label_source    where labels are when they are not in `source`
    optional_labels whether an image may be without label, as it may be without AOI
    skip_unpaired   leave out images without label and labels without image, with a warning, instead of an error

    The field `group` is the scene's group. The id is the fields that name the scene: all but `group` when that is
    enough to tell scenes apart.
    """
    places = {"labels": label_source or source, "aoi": source}
    found = source.match(images)
    if not found:
        raise ValueError(f"{source.shown}: no image fits {images!r}; the first file there is {source.names[:1]}")
    others = {}
    for what, pattern in (("labels", labels), ("aoi", aoi)):
        if pattern is None:
            continue
        if fields(pattern) != fields(images):
            raise ValueError(f"{source.shown}: images {images!r} and {what} {pattern!r} must have the same fields")
        others[what] = places[what].match(pattern)
        unpaired = []
        stray = sorted(set(others[what]) - set(found))
        if stray:
            unpaired.append(f"{places[what].shown}: {others[what][stray[0]]} has no image by pattern {images!r}")
        missing = [] if what == "aoi" or optional_labels else sorted(set(found) - set(others[what]))
        if missing:
            unpaired.append(
                f"{source.shown}: {found[missing[0]]} has no label file by pattern {pattern!r} ({len(missing)} of "
                f"{len(found)} images have none)"
            )
        if unpaired and not skip_unpaired:
            raise ValueError(unpaired[0])
        for text in unpaired:
            log.warning("%s; left out", text)
        found = {key: name for key, name in found.items() if key not in missing}
    names = fields(images)
    if not names:
        raise ValueError(f"{source.shown}: pattern {images!r} needs a field, such as {{name}}")
    short = [i for i, n in enumerate(names) if n != "group"] or list(range(len(names)))
    if len({tuple(key[i] for i in short) for key in found}) < len(found):
        short = list(range(len(names)))
    scenes = []
    for key, image in sorted(found.items()):
        entry = {"id": safe("_".join(key[i] for i in short)), "images": [source.path(image)]}
        if "group" in names:
            entry["group"] = key[names.index("group")]
        for what, there in others.items():
            if key in there:
                entry[what] = places[what].path(there[key])
        scenes.append(entry)
    return scenes


def safe(text: str) -> str:
    """`text` as an id that is also a file name: characters other than letters, digits, . - _ become _."""
    return re.sub(r"[^\w.-]", "_", text)


def build(entries: Iterable[dict], threads: int = 0) -> list[Scene]:
    """Scenes from keyword arguments of Scene without those that the rasters tell (rows, cols, bands, dtype, ...).

    Opens every raster. Raises FileNotFoundError or ValueError naming the file when one does not open, or when rasters
    that are to be stacked have no place on one grid.
    """
    from rvkernels import raster  # here, so that a description loads where there is no GDAL

    entries = list(entries)
    single = iter(raster.describe_many([e["images"][0] for e in entries if len(e["images"]) == 1], threads))
    scenes = []
    for entry in entries:
        info = next(single) if len(entry["images"]) == 1 else raster.describe(entry["images"])
        told = {key: info[key] for key in ("rows", "cols", "bands", "dtype", "crs", "nodata")}
        told["transform"] = tuple(info["transform"])
        scenes.append(Scene(**{**told, **entry, "images": tuple(entry["images"])}))
    return scenes


def check_sizes(scenes: list[Scene], threads: int = 0) -> None:
    """Raise ValueError naming the first label image that is not of its scene's size."""
    from rvkernels import raster

    for scene, info in zip(scenes, raster.describe_many([s.labels for s in scenes], threads)):
        if (info["rows"], info["cols"]) != (scene.rows, scene.cols):
            raise ValueError(
                f"{scene.labels}: {info['rows']} rows and {info['cols']} columns, but its image has {scene.rows} and "
                f"{scene.cols}"
            )
