"""kornia: whole batches of float32 planes in [0, 1], with the number of threads that a case asks for."""

import math
import os

import kornia.augmentation as kornia
import numpy as np
import torch


def _run(inputs, threads, transforms, scaled):
    torch.set_num_threads(threads or os.cpu_count())
    images = torch.from_numpy(np.array(inputs["images"]))
    labels = torch.from_numpy(np.array(inputs["labels"]))[:, None]
    pipeline = kornia.AugmentationSequential(*transforms, data_keys=["input", "mask"])

    def run():
        values = images.permute(0, 3, 1, 2).to(torch.float32) / 255
        made, mask = pipeline(values.contiguous(), labels.to(torch.float32))
        if not scaled:
            made = (made * 255).clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return {"images": made.numpy(), "labels": mask[:, 0].to(torch.uint8).numpy()}

    return run


def _affine(settings):
    shift, scale = settings["shift"], tuple(settings["scale"])
    return kornia.RandomAffine(degrees=settings["rotate"], translate=(shift, shift), scale=scale, p=1)


def _colours(settings):
    gamma = 1 + settings["gamma"]
    amounts = (settings[name] for name in ("brightness", "contrast", "saturation", "hue"))
    return [kornia.ColorJitter(*amounts, p=1), kornia.RandomGamma((1 / gamma, gamma), p=1)]


def augment_affine(inputs, threads):
    return _run(inputs, threads, [_affine(inputs["settings"])], scaled=False)


def augment_colour(inputs, threads):
    return _run(inputs, threads, _colours(inputs["settings"]), scaled=False)


def augment_everything(inputs, threads):
    settings = inputs["settings"]
    area = settings["cutout"]["size"] ** 2
    taps = 2 * math.ceil(3 * settings["blur"]) + 1
    mean, std = (torch.from_numpy((inputs[name] / 255).astype(np.float32)) for name in ("mean", "std"))
    transforms = [
        kornia.RandomHorizontalFlip(p=0.5),
        kornia.RandomVerticalFlip(p=0.5),
        kornia.RandomRotation90((0, 3), p=1),
        _affine(settings),
        *_colours(settings),
        kornia.RandomGaussianBlur((taps, taps), (0.01, settings["blur"]), p=1),
        kornia.RandomGaussianNoise(std=settings["noise"] / 2, p=1),
        *(kornia.RandomErasing(scale=(area, area), ratio=(1.0, 1.0), p=1) for _ in range(settings["cutout"]["count"])),
        kornia.Normalize(mean, std, p=1),
    ]
    return _run(inputs, threads, transforms, scaled=True)
