"""albumentations, chip by chip on one thread: it draws and checks in Python, so threads would wait for each other."""

import albumentations as alb
import cv2
import numpy as np


def _run(inputs, threads, transforms, out):
    cv2.setNumThreads(threads or cv2.getNumberOfCPUs())
    pipeline = alb.Compose(transforms)
    labels = np.empty(inputs["labels"].shape, np.uint8)

    def run():
        for i, (image, mask) in enumerate(zip(inputs["images"], inputs["labels"])):
            made = pipeline(image=image, mask=mask)
            out[i] = made["image"].transpose(2, 0, 1) if out.shape[1] == 3 else made["image"]
            labels[i] = made["mask"]
        return {"images": out, "labels": labels}

    return run


def _moves():
    return [alb.HorizontalFlip(p=0.5), alb.VerticalFlip(p=0.5), alb.RandomRotate90(p=1)]


def _affine(settings, mean):
    shift, degrees = settings["shift"], settings["rotate"]
    return alb.Affine(
        scale=tuple(settings["scale"]),
        rotate=(-degrees, degrees),
        translate_percent=(-shift, shift),
        fill=mean.tolist(),
        fill_mask=255,
        p=1,
    )


def _colours(settings):
    bright, contrast, stretch = (settings[name] for name in ("brightness", "contrast", "saturation"))
    hue = 180 * settings["hue"]
    gamma = 100 * (1 + settings["gamma"])
    return [
        alb.RandomBrightnessContrast(brightness_limit=bright, contrast_limit=contrast, p=1),
        alb.RandomGamma(gamma_limit=(10_000 / gamma, gamma), p=1),
        alb.HueSaturationValue(hue_shift_limit=hue, sat_shift_limit=255 * stretch, val_shift_limit=0, p=1),
    ]


def augment_moves(inputs, threads):
    return _run(inputs, threads, _moves(), np.empty(inputs["images"].shape, np.uint8))


def augment_affine(inputs, threads):
    transforms = [_affine(inputs["settings"], inputs["mean"])]
    return _run(inputs, threads, transforms, np.empty(inputs["images"].shape, np.uint8))


def augment_colour(inputs, threads):
    return _run(inputs, threads, _colours(inputs["settings"]), np.empty(inputs["images"].shape, np.uint8))


def augment_everything(inputs, threads):
    settings, mean, std = inputs["settings"], inputs["mean"], inputs["std"]
    n, rows, cols, bands = inputs["images"].shape
    holes, side = settings["cutout"]["count"], settings["cutout"]["size"]
    transforms = [
        *_moves(),
        _affine(settings, mean),
        *_colours(settings),
        alb.GaussianBlur(blur_limit=0, sigma_limit=(0.01, settings["blur"]), p=1),
        alb.GaussNoise(std_range=(0, settings["noise"]), p=1),
        alb.CoarseDropout(
            num_holes_range=(holes, holes), hole_height_range=(side, side), hole_width_range=(side, side), p=1
        ),
        alb.ChannelDropout(channel_drop_range=(1, 1), p=1 - (1 - settings["channel_drop"]) ** bands),
        alb.Normalize(mean=mean.tolist(), std=std.tolist(), max_pixel_value=1.0, p=1),
    ]
    return _run(inputs, threads, transforms, np.empty((n, bands, rows, cols), np.float32))
