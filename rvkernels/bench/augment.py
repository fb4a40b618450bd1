"""Augmentation of 32 chips of 256 x 256 x 3 bytes with their labels: moves, interpolation, colours, and all steps.

The peers that take numbers get those that the kernel draws; the others draw from the same ranges. A case without
normalisation has bytes as output on all sides.
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from rvkernels.bench import Case, Inputs, Peer, Scene
from rvkernels.ops.augment import Batch, Numbers, augment, check_settings, draw_moves, draw_pixels
from rvkernels.ops.normalize import band_scale

SIDE = 256
CHECKED = 2  # chips: the reference takes a tenth of a second for one
MOVES = {"flip": True, "turn": True}
AFFINE = {"scale": [0.8, 1.25], "rotate": 30, "shift": 0.1}
COLOUR = {"brightness": 0.2, "contrast": 0.2, "gamma": 0.2, "saturation": 0.2, "hue": 0.05}
EVERYTHING = {
    **MOVES,
    **AFFINE,
    **COLOUR,
    "blur": 1.0,
    "noise": 0.02,
    "cutout": {"count": 2, "size": 0.2},
    "channel_drop": 0.1,
}
DRAWS = "draws its own numbers, from the same ranges"
ROUNDS = "rounds to bytes after every step, draws its own noise"


def cases(scene: Scene, quick: bool) -> list[Case]:
    rng = np.random.default_rng(0)
    n = 8 if quick else 32
    corners = rng.integers(0, (scene.rows - SIDE, scene.cols - SIDE), (n, 2))
    images = np.stack([scene.image[r : r + SIDE, c : c + SIDE, :3] for r, c in corners])
    labels = rng.integers(0, 6, (n, SIDE // 32, SIDE // 32), dtype=np.uint8).repeat(32, axis=1).repeat(32, axis=2)
    chips = {"images": images, "labels": labels}
    copy = Peer("copy of images and labels", "numpy:copy_images_and_labels")
    return [
        Case(
            kernel="augment",
            name="flips and turns",
            inputs={**chips, **drawn(images, MOVES)},
            ours=run_augment,
            check=part_as_reference,
            peers=(
                Peer("OpenCV", "opencv:augment_moves", check=same_batch),
                Peer("NumPy", "numpy:augment_moves", check=same_batch),
                Peer("albumentations", "albumentations:augment_moves", differs=DRAWS),
            ),
            floor=copy,
        ),
        Case(
            kernel="augment",
            name="scale, rotate, shift",
            inputs={**chips, **drawn(images, AFFINE)},
            ours=run_augment,
            check=part_as_reference,
            peers=(
                Peer("OpenCV", "opencv:augment_affine", check=close_batch),
                Peer("albumentations", "albumentations:augment_affine", differs=DRAWS),
                Peer("kornia", "kornia:augment_affine", differs=DRAWS),
            ),
            floor=copy,
        ),
        Case(
            kernel="augment",
            name="colours",
            inputs={**chips, **drawn(images, COLOUR)},
            ours=run_augment,
            check=part_as_reference,
            peers=(
                Peer("OpenCV in HSV", "opencv:augment_colour_hsv", differs="turns hue and saturation in another space"),
                Peer("OpenCV by a matrix", "opencv:augment_colour", check=close_colours),
                Peer("albumentations", "albumentations:augment_colour", differs=DRAWS),
                Peer("kornia", "kornia:augment_colour", differs=DRAWS),
            ),
            floor=copy,
        ),
        Case(
            kernel="augment",
            name="everything, to float32 NCHW",
            inputs={**chips, **drawn(images, EVERYTHING), "std": images.std(axis=(0, 1, 2))},
            ours=run_augment,
            check=part_as_reference,
            peers=(
                Peer("OpenCV in HSV", "opencv:augment_everything_hsv", differs=ROUNDS),
                Peer("OpenCV by a matrix", "opencv:augment_everything", differs=ROUNDS),
                Peer("albumentations", "albumentations:augment_everything", differs=DRAWS),
                Peer("kornia", "kornia:augment_everything", differs=DRAWS),
            ),
            floor=Peer("write float32", "numpy:write_batch"),
        ),
    ]


def drawn(images: np.ndarray, settings: dict) -> dict[str, Any]:
    """The settings, the bands' mean, and what `augment` draws for each chip, as rvkernels.ops.augment.Draw has it.

    map is in pixels here, not in fixed point; turn and stretch are what hue and saturation make of colours.
    """
    bands, mean = images.shape[3], images.mean(axis=(0, 1, 2))
    checked = check_settings(settings, dtype="uint8")
    numbers = Numbers(0, 0, np.arange(len(images)), checked, bands, "cpp")
    moves = draw_moves(numbers, checked, (SIDE, SIDE), (SIDE, SIDE))
    draw = draw_pixels(numbers, checked, moves, (SIDE, SIDE), band_scale(mean, np.ones(bands), bands)[0], 255.0)
    found = {key: value for key, value in draw._asdict().items() if value is not None}
    found["map"] = draw.map / 2.0**32
    if "noise" in found:
        found["noise"] = numbers.uniform("noise")[:, 0] * settings["noise"] * 255
    if "matrix" in found:
        found["turn"] = numbers.around("hue", settings["hue"])[:, 0]
        found["stretch"] = 1 + numbers.around("saturation", settings["saturation"])[:, 0]
    return {"settings": settings, "mean": mean, **found}


def run_augment(inputs: Inputs, threads: int) -> Callable[[], Batch]:
    images, labels = inputs["images"], inputs["labels"]
    arguments = _arguments(inputs)
    n, rows, cols, bands = images.shape
    planar = "std" in inputs
    out = np.empty((n, bands, rows, cols), np.float32) if planar else np.empty(images.shape, np.uint8)
    out_labels, index = np.empty(labels.shape, np.uint8), np.arange(n)
    return lambda: augment(images, index, **arguments, out=out, out_labels=out_labels, threads=threads)


def _arguments(inputs: Inputs) -> dict[str, Any]:
    std = inputs.get("std")
    layout = "NHWC" if std is None else "NCHW"
    found = {"seed": 0, "epoch": 0, "labels": inputs["labels"], "layout": layout, "settings": inputs["settings"]}
    return {**found, "mean": inputs["mean"], "std": std}


def part_as_reference(inputs: Inputs, batch: Batch) -> None:
    want = augment(inputs["images"], np.arange(CHECKED), **_arguments(inputs), kernel="reference")
    np.testing.assert_array_equal(batch.images[:CHECKED], want.images)
    np.testing.assert_array_equal(batch.labels[:CHECKED], want.labels)


def same_batch(ours: Batch, theirs: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(ours.images, theirs["images"])
    np.testing.assert_array_equal(ours.labels, theirs["labels"])


def close_batch(ours: Batch, theirs: dict[str, np.ndarray]) -> None:
    """OpenCV has coarser fractions of pixels, and mixes the pixels at the border with the colour beyond."""
    assert np.abs(ours.images.astype(int) - theirs["images"]).mean() < 1, "other pixels"
    assert (ours.labels == theirs["labels"]).mean() > 0.99, "other labels"


def close_colours(ours: Batch, theirs: dict[str, np.ndarray]) -> None:
    """OpenCV rounds to bytes before the matrix, which adds up three of them."""
    assert np.abs(ours.images.astype(int) - theirs["images"]).max() <= 2
