"""GeoTIFFs with GeoJSON labels or label rasters each, and areas of interest where only part is labelled."""

from __future__ import annotations

from pathlib import Path

from rvkernels.datasets._files import build, paired, safe, sources
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
    archive: str | None = None,
    label_archive: str | None = None,
    skip_unpaired: bool = False,
    threads: int = 0,
) -> list[Scene]:
    """One scene per entry of `scenes`, or per file that fits the pattern `images`.

    scenes      [{id, images, labels, aoi, group, split}, ...]; images is a path or a list of paths whose bands are
                stacked, labels a GeoJSON or a label raster; id is the first image's name when it is not given. A path
                may also be the name of a file of the description
    images, labels, aoi     patterns of file names with the same {fields}, instead of `scenes`
    folder      what all paths are relative to; itself relative to the description
    archive     an archive of the description instead of the folder, for patterns
    label_archive   the archive of the labels, when it is another
    skip_unpaired   leave out images without labels and labels without image, with a warning, instead of an error

    Labels may lie in folders of their own and have other names: SpaceNet's are images PS-RGB/*_img{number}.tif and
    labels geojson_roads/*_img{number}.geojson. Raises ValueError for an unknown key and for half a pair, and
    FileNotFoundError for a file that is not there.
    """
    where = f"{description['name']}: layout"
    if (scenes is None) == (images is None):
        raise ValueError(f"{where}: give either scenes (a list) or images (a pattern such as images/{{name}}.tif)")
    if images is not None:
        folder = folder if archive is None else None
        source, label_source = sources(description, files, archive, folder, label_archive)
        options = {"label_source": label_source, "skip_unpaired": skip_unpaired}
        return build(paired(source, images, labels, aoi, **options), threads)

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
        entry["images"] = [_find(description, files, folder, p, place) for p in paths]
        entry.setdefault("id", safe(Path(paths[0]).stem))
        for key in ("labels", "aoi"):
            if key in entry:
                entry[key] = _find(description, files, folder, entry[key], place)
        entries.append(entry)
    return build(entries, threads)


def _find(description: dict, files: dict[str, str | Path], folder: str, path: str, where: str) -> str:
    if path in files:
        return str(files[path])
    found = Path(description["folder"], folder, path).resolve()
    if not found.is_file():
        raise FileNotFoundError(
            f"{where}: no file {found}; paths are relative to the description, or names of its files"
        )
    return str(found)
