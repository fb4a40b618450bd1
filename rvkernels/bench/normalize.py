"""Normalisation of 32 images of 256 x 256: bytes to float32 planes, as networks read them, and the other ways there."""

from __future__ import annotations

from typing import Callable

import numpy as np

from rvkernels.bench import Case, Inputs, Peer, Scene
from rvkernels.ops.normalize import normalize

SIDE = 256


def cases(scene: Scene, quick: bool) -> list[Case]:
    rng = np.random.default_rng(0)
    n = 8 if quick else 32
    corners = rng.integers(0, (scene.rows - SIDE, scene.cols - SIDE), (n, 2))
    images = np.stack([scene.image[r : r + SIDE, c : c + SIDE] for r, c in corners])
    wide = images.astype(np.uint16) * 257
    found = []
    for name, pixels, layout in (
        ("3 bands of uint8 to NCHW", np.ascontiguousarray(images[..., :3]), "NCHW"),
        ("3 bands of uint8 to NHWC", np.ascontiguousarray(images[..., :3]), "NHWC"),
        ("4 bands of uint16 to NCHW", wide, "NCHW"),
    ):
        inputs = {"images": pixels, "mean": pixels.mean(axis=(0, 1, 2)), "std": pixels.std(axis=(0, 1, 2))}
        peers = [Peer("NumPy", "numpy:normalize", check=close_pixels)]
        if not quick:  # to compile takes longer than all the rest
            peers.append(Peer("torch.compile", "torch:normalize", check=close_pixels))
        if pixels.dtype == np.uint8 and layout == "NCHW":
            peers.append(Peer("OpenCV tables", "opencv:normalize", check=close_pixels))
        found.append(
            Case(
                kernel="normalize",
                name=name,
                inputs={**inputs, "layout": layout},
                ours=run_normalize,
                check=as_reference,
                peers=tuple(peers),
                floor=Peer("write float32", "numpy:write_batch"),
            )
        )
    return found


def run_normalize(inputs: Inputs, threads: int) -> Callable[[], np.ndarray]:
    images, layout = inputs["images"], inputs["layout"]
    n, rows, cols, bands = images.shape
    out = np.empty((n, bands, rows, cols) if layout == "NCHW" else images.shape, np.float32)
    return lambda: normalize(images, inputs["mean"], inputs["std"], layout, out=out, threads=threads)


def as_reference(inputs: Inputs, out: np.ndarray) -> None:
    arguments = [inputs[name] for name in ("images", "mean", "std", "layout")]
    np.testing.assert_array_equal(out, normalize(*arguments, kernel="reference"))


def close_pixels(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Sums and products may be rounded once or twice, and mean and deviation be float64 or float32."""
    np.testing.assert_allclose(theirs, ours, atol=2e-6, rtol=1e-5)
