"""Statistics of a file's bands, which are counted as blocks are decoded, and histograms of images in memory."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from rvkernels.bench import Case, Inputs, Peer, Scene
from rvkernels.ops.statistics import Statistics

ROWS = 4000  # of the scene that are in memory


def cases(scene: Scene, quick: bool) -> list[Case]:
    rows = scene.rows // 4 if quick else min(ROWS, scene.rows)
    flat = scene.image[-rows:].reshape(-1, 4)
    listed = [
        _file(scene, "file, DEFLATE, predictor 2", "deflate512_pred2"),
        _memory("uint8, 1 band", np.ascontiguousarray(flat[:, :1])),
        _memory("uint8, 4 bands", flat),
    ]
    if quick:
        return listed
    # Bands beyond the scene's are its own from other rows.
    more = np.concatenate([np.roll(flat, shift * scene.cols, 0) for shift in range(4)], 1)[: len(flat) // 2, :13]
    wedge = scene.image[:rows].reshape(-1, 4)
    words = (flat.astype(np.uint16) << 4) + (np.roll(flat, 1, 1) & 15)
    return [
        *listed,
        _file(scene, "file, LZW, predictor 2", "lzw256"),
        _file(scene, "file, uncompressed strips", "strip"),
        _memory("uint8, 3 bands", np.ascontiguousarray(flat[:, :3])),
        _memory("uint8, 4 bands, nodata", wedge, wedge.any(1).astype(np.uint8)),
        _memory("uint8, 13 bands", np.ascontiguousarray(more)),
        _memory("uint16, 12 bits, 4 bands", words),
    ]


def _file(scene: Scene, name: str, encoding: str) -> Case:
    inputs: dict[str, Any] = {"path": scene.path(encoding), "image": scene.image}
    floor = Peer("read the file", "numpy:read_file")
    if encoding.startswith("deflate"):
        inputs["offsets"], inputs["sizes"] = scene.blocks(encoding)
        floor = Peer("inflate with libdeflate", "imagecodecs:inflate")
    return Case(
        kernel="statistics",
        name=name,
        inputs=inputs,
        ours=run_file,
        check=counts_of_the_scene,
        peers=(
            Peer("GDAL ComputeStatistics", "gdal:statistics", check=same_moments),
            Peer("GDAL GetHistogram", "gdal:histogram", check=same_counts),
            Peer("rasterio statistics", "rasterio:statistics", check=same_moments),
        ),
        floor=floor,
    )


def _memory(name: str, images: np.ndarray, valid: np.ndarray | None = None) -> Case:
    peers = [
        Peer("OpenCV calcHist", "opencv:histogram", check=same_histogram),
        Peer("NumPy bincount", "numpy:histogram", check=same_histogram),
    ]
    if images.dtype == np.uint8 and valid is None:
        moments = "mean and deviation only, in floating point"
        peers.append(Peer("OpenCV meanStdDev", "opencv:moments", differs=moments, rival=False))
    return Case(
        kernel="statistics",
        name=name,
        inputs={"images": images, **({} if valid is None else {"valid": valid})},
        ours=run_memory,
        check=as_numpy,
        peers=tuple(peers),
        floor=Peer("add up", "numpy:add_up"),
    )


def run_file(inputs: Inputs, threads: int) -> Callable[[], dict]:
    """The counts, and all that follows from them."""

    def run() -> dict:
        counted = Statistics(4, "uint8", threads=threads)
        counted.add_rasters(inputs["path"])
        return {"histogram": counted.histogram, "mean": counted.summary()["mean"]}

    return run


def run_memory(inputs: Inputs, threads: int) -> Callable[[], np.ndarray]:
    images, valid = inputs["images"], inputs.get("valid")

    def run() -> np.ndarray:
        counted = Statistics(images.shape[1], images.dtype, threads=threads)
        counted.add(images, valid)
        return counted.histogram

    return run


def counts_of_the_scene(inputs: Inputs, ours: dict) -> None:
    """What the file holds is in memory as well; pixels of zeros are nodata."""
    flat = inputs["image"].reshape(-1, 4)
    kept = flat[flat.view(np.uint32)[:, 0] != 0]
    for band in range(4):
        np.testing.assert_array_equal(ours["histogram"][band], np.bincount(kept[:, band], minlength=256))
    np.testing.assert_allclose(ours["mean"], kept.mean(0, dtype=np.float64), rtol=1e-12)


def as_numpy(inputs: Inputs, ours: np.ndarray) -> None:
    images = inputs["images"]
    kept = images[inputs["valid"] == 1] if "valid" in inputs else images
    bins = np.iinfo(images.dtype).max + 1
    np.testing.assert_array_equal(ours, [np.bincount(values, minlength=bins) for values in kept.T])


def same_histogram(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_array_equal(ours, theirs)


def same_counts(ours: dict, theirs: np.ndarray) -> None:
    np.testing.assert_array_equal(as_gdal(ours), theirs)


def same_moments(ours: dict, theirs: dict) -> None:
    values, counts = np.arange(256), as_gdal(ours)
    mean = counts @ values / counts.sum(1)
    std = np.sqrt(counts @ values**2 / counts.sum(1) - mean**2)
    present = [np.flatnonzero(band) for band in counts]
    np.testing.assert_allclose(theirs["mean"], mean, rtol=1e-9)
    np.testing.assert_allclose(theirs["std"], std, rtol=1e-9)
    np.testing.assert_array_equal(theirs["min"], [found[0] for found in present])
    np.testing.assert_array_equal(theirs["max"], [found[-1] for found in present])


def as_gdal(ours: dict) -> np.ndarray:
    """GDAL leaves every 0 out, in each band by itself, where we leave out pixels of which all bands are 0."""
    counts = ours["histogram"].copy()
    counts[:, 0] = 0
    return counts
