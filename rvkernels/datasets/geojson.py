"""A user's own GeoTIFFs with GeoJSON labels or label rasters, and areas of interest where only part is labelled."""

from __future__ import annotations

from pathlib import Path

from rvkernels.datasets._files import Source, build, paired, safe
from rvkernels.registry import suggest
from rvkernels.scene import Scene

KEYS = ("id", "images", "labels", "aoi", "group", "split")


def scenes(
    description: dict,
    files: dict[str, str | Path],
    *,
    task: str,
    scenes: list[dict] | None = None,
    images: str | None = None,
    labels: str | None = None,
    aoi: str | None = None,
    folder: str = ".",
    threads: int = 0,
) -> list[Scene]:
    """One scene per entry of `scenes`, or per file that fits the pattern `images`.

    scenes      [{id, images, labels, aoi, group, split}, ...]; images is a path or a list of paths whose bands are
                stacked, labels a GeoJSON or a label raster; id is the first image's name when it is not given
    images, labels, aoi     patterns of file names with the same {fields}, instead of `scenes`
    folder      what all paths are relative to; itself relative to the description

    Raises ValueError for an unknown key and FileNotFoundError for a file that is not there.
    """
    where = f"{description['name']}: layout"
    if (scenes is None) == (images is None):
        raise ValueError(f"{where}: give either scenes (a list) or images (a pattern such as images/{{name}}.tif)")
    if images is not None:
        source = Source(description, files, None, folder)
        return build(paired(source, images, labels, aoi), threads)

    entries = []
    for i, given in enumerate(scenes):
        place = f"{where}: scenes[{i}]"
        for key in given:
            if key not in KEYS:
                raise ValueError(f"{place}: unknown key {key!r}; {suggest(key, KEYS)}")
        paths = given.get("images")
        paths = [paths] if isinstance(paths, str) else paths
        if not paths:
            raise ValueError(f"{place}: images is missing; give the path of a raster or a list of paths")
        entry = {key: value for key, value in given.items() if value is not None}
        entry["images"] = [_find(description, folder, p, place) for p in paths]
        entry.setdefault("id", safe(Path(paths[0]).stem))
        for key in ("labels", "aoi"):
            if key in entry:
                entry[key] = _find(description, folder, entry[key], place)
        entries.append(entry)
    return build(entries, threads)


def _find(description: dict, folder: str, path: str, where: str) -> str:
    found = Path(description["folder"], folder, path).resolve()
    if not found.is_file():
        raise FileNotFoundError(f"{where}: no file {found}; paths are relative to the description")
    return str(found)
