"""ZIP archives of small images with bytes of their directory, headers or members overwritten, or cut off."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from osgeo import gdal, gdal_array
from run import clear

from rvkernels.ops import tile

gdal.UseExceptions()
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def written(rng: np.random.Generator, path: Path) -> tuple[list[str], np.ndarray]:
    """Names and pixels (n, rows, cols, 3) of the members of an archive written to `path`."""
    shape = (int(rng.integers(1, 6)), *rng.integers(1, 20, 2).tolist(), 3)
    images = rng.integers(0, 256, shape).astype(np.uint8)
    folders = [str(rng.choice(["", "a/", "a.b/c/"])) for _ in images]
    driver, suffix = [("PNG", "png"), ("GTiff", "tif")][rng.integers(0, 2)]
    names = [f"{folder}{i}.{suffix}" for i, folder in enumerate(folders)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = bytes(rng.integers(0, 256, rng.integers(0, 40)).astype(np.uint8))
        for name, image in zip(names, images):
            held = path.with_name(f"member.{suffix}")
            gdal.GetDriverByName(driver).CreateCopy(str(held), gdal_array.OpenNumPyArray(image, False))
            archive.write(held, name, METHODS[rng.integers(0, 2)])
            held.unlink()
    return names, images


def round(rng: np.random.Generator, folder: Path) -> None:
    path = folder / f"{rng.integers(1 << 62)}.zip"  # GDAL keeps the directory of an archive by its name
    names, images = written(rng, path)
    members = [f"/vsizip/{path}/{name}" for name in names]
    np.testing.assert_array_equal(tile.read_many(members, threads=int(rng.integers(1, 3))), images)
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    for at in rng.integers(directory if rng.integers(0, 4) else 0, len(data), rng.integers(1, 5)):
        data[at] = rng.choice([0, 1, 0x7F, 0xFF, rng.integers(0, 256)])
    if rng.integers(0, 4) == 0:
        data = data[: rng.integers(0, len(data))]
    broken = path.with_name(f"broken-{path.name}")
    broken.write_bytes(data)
    found = clear(tile.read_many, [f"/vsizip/{broken}/{name}" for name in names])
    assert found is None or found.shape[0] == len(names)
    path.unlink()
    broken.unlink()
