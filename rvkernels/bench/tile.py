"""Chips of 256 x 256 x 4 out of GeoTIFF files, opened afresh each time: sliding by 128, and at random places.

Chips are NHWC here, in tifffile and in Raster Vision, NCHW in the others, where that is cheaper for them. All are
written to one array of the whole size, which is reused. Raster Vision's and torchgeo's readers deliver some dozens of
chips a second, hence a case of their own with few windows.
"""

from __future__ import annotations

import functools
from typing import Any, Callable

import numpy as np

from rvkernels.bench import Case, Inputs, Peer, Scene
from rvkernels.ops import tile
from rvkernels.ops import windows as plans

SIZE, STRIDE = 256, 128
RANDOM = 1000
SMALL_CACHE_MB = 16
COMPARED = 60  # chips of a result that are compared


def same_chips(ours: np.ndarray, theirs: Any) -> None:
    np.testing.assert_array_equal(ours, theirs)


def same_data(ours: np.ndarray, theirs: Any) -> None:
    """Equal but for zeros, nodata in these files: torchgeo reads through GDAL's warper.

    Of a pixel that has data in some bands the warper moves the others off the nodata value.
    """
    np.testing.assert_array_equal(ours, np.where(ours == 0, 0, theirs))


WINDOWED = (
    Peer("GDAL ReadAsArray", "gdal:chips", check=same_chips),
    Peer("rasterio", "rasterio:chips", check=same_chips),
)
WHOLE = (Peer("tifffile imread", "tifffile:chips", check=same_chips),)
PROJECTS = (
    Peer("Raster Vision", "rastervision:chips", check=same_chips),
    Peer("torchgeo", "torchgeo:chips", check=same_data),
)


def cases(scene: Scene, quick: bool) -> list[Case]:
    corners = [np.arange(0, extent - SIZE + 1, STRIDE) for extent in (scene.rows, scene.cols)]
    sliding = _windows(np.stack(np.meshgrid(*corners, indexing="ij"), -1).reshape(-1, 2))
    limits = (scene.rows - SIZE, scene.cols - SIZE)
    random = _windows(np.random.default_rng(0).integers(0, limits, (RANDOM // (10 if quick else 1), 2)))
    predicted = functools.partial(_case, scene, encoding="deflate512_pred2")
    inflate = Peer("inflate with libdeflate", "imagecodecs:inflate")
    write = Peer("write the chips", "numpy:write_chips")
    found = [
        predicted("sliding, DEFLATE, predictor 2", sliding, floor=inflate, blocks=True),
        _case(scene, "sliding, DEFLATE", sliding, encoding="deflate512", floor=inflate, blocks=True),
        _case(scene, "sliding, LZW, predictor 2", sliding, encoding="lzw256", floor=write),
        _case(scene, "sliding, uncompressed strips", sliding, encoding="strip", floor=write),
        predicted(f"{len(random):,} random", random, whole=False),
        predicted(f"{len(random):,} random, {SMALL_CACHE_MB} MB cache", random, whole=False, cache_mb=SMALL_CACHE_MB),
        predicted(f"{len(random):,} random, one by one", random, whole=False, ours=run_one_by_one),
        predicted("8 rows, other projects' readers", sliding[: 8 * len(corners[1])], peers=PROJECTS),
        _stretched(scene, quick),
    ]
    return found


def _stretched(scene: Scene, quick: bool) -> Case:
    """Random windows of half to twice the size, as in training with scale jitter, bilinear."""
    extent, count = (0, 0, scene.rows, scene.cols), RANDOM // (10 if quick else 1)
    plan = plans.random(extent, None, count, sizes=(SIZE // 2, 2 * SIZE), seed=0)
    inputs = _inputs(scene, "deflate512_pred2", plan)
    # Next to pixels without data GDAL weighs rows alike however little of them there is; we weigh pixels.
    whole = [i for i, window in enumerate(plan.tolist()) if _has_data(scene.image, window)]
    inputs["compared"] = np.array(whole[:: max(1, len(whole) // COMPARED)])
    return Case(
        kernel="tile",
        name=f"{count:,} random, resized to {SIZE}",
        inputs=inputs,
        ours=run_chips,
        check=as_reference,
        peers=(Peer("GDAL ReadAsArray, bilinear", "gdal:chips", check=nearly_same_chips),),
    )


def _has_data(image: np.ndarray, window: list[int]) -> bool:
    """Whether all pixels of a window hold data (are not 0), and those that a kernel reaches around it."""
    row, col, rows, cols = window
    return bool((image[max(0, row - 2) : row + rows + 2, max(0, col - 2) : col + cols + 2] != 0).all())


def _windows(corners: np.ndarray) -> np.ndarray:
    return np.column_stack([corners, np.full_like(corners, SIZE)]).astype(np.int64)


def _case(
    scene: Scene,
    name: str,
    windows: np.ndarray,
    *,
    encoding: str,
    whole: bool = True,
    blocks: bool = False,
    floor: Peer | None = None,
    cache_mb: int | None = None,
    ours: Callable | None = None,
    peers: tuple[Peer, ...] = (),
) -> Case:
    """`whole`: the windows cover the scene, so that peers may as well read all of it. `peers`: others instead."""
    inputs = _inputs(scene, encoding, windows, cache_mb)
    inputs["compared"] = np.unique(np.linspace(0, len(windows) - 1, COMPARED).astype(np.int64))
    if blocks:
        inputs["offsets"], inputs["sizes"] = scene.blocks(encoding)
    return Case(
        kernel="tile",
        name=name,
        inputs=inputs,
        ours=ours or run_chips,
        check=chips_of_the_scene,
        peers=peers or (WINDOWED + WHOLE if whole else WINDOWED),
        floor=floor,
    )


def _inputs(scene: Scene, encoding: str, windows: np.ndarray, cache_mb: int | None = None) -> dict[str, Any]:
    path, image = scene.path(encoding), scene.image
    return {"path": path, "windows": windows, "size": SIZE, "image": image, "cache_mb": cache_mb}


def run_chips(inputs: Inputs, threads: int) -> Callable[[], np.ndarray]:
    path, windows, compared = inputs["path"], inputs["windows"], inputs["compared"]
    out = np.empty((len(windows), SIZE, SIZE, inputs["image"].shape[2]), np.uint8)
    options = {} if inputs["cache_mb"] is None else {"cache_mb": inputs["cache_mb"]}

    def run() -> np.ndarray:
        tile.Raster(path, **options).read(windows, size=SIZE, out=out, threads=threads)
        return out[compared]

    return run


def run_one_by_one(inputs: Inputs, threads: int) -> Callable[[], np.ndarray]:
    path, windows, compared = inputs["path"], inputs["windows"], inputs["compared"]
    out = np.empty((len(windows), SIZE, SIZE, inputs["image"].shape[2]), np.uint8)

    def run() -> np.ndarray:
        raster = tile.Raster(path, cache_mb=512)  # GDAL's default is a twentieth of the memory
        for i in range(len(windows)):
            raster.read(windows[i : i + 1], out=out[i : i + 1], threads=threads)
        return out[compared]

    return run


def as_reference(inputs: Inputs, chips: np.ndarray) -> None:
    some = inputs["compared"][::10]
    expected = tile.read(inputs["path"], inputs["windows"][some], size=inputs["size"], kernel="reference")
    np.testing.assert_array_equal(chips[::10], expected)


def nearly_same_chips(ours: np.ndarray, theirs: Any) -> None:
    """GDAL sums in double: halves may be rounded the other way."""
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.max() <= 1, difference.max()
    assert (difference > 0).mean() < 0.01, (difference > 0).mean()


def chips_of_the_scene(inputs: Inputs, chips: np.ndarray) -> None:
    for chip, (row, col, rows, cols) in zip(chips, inputs["windows"][inputs["compared"]]):
        np.testing.assert_array_equal(chip, inputs["image"][row : row + rows, col : col + cols])
