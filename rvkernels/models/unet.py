"""U-Net: Ronneberger, Fischer and Brox (2015), with padded convolutions and batch norm.

Padding keeps feature maps in step, so that nothing is cropped and the output has the size of the image.
"""

from __future__ import annotations

from rvkernels.models import Concat, Conv, ConvTranspose, Graph, Layer, MaxPool
from rvkernels.models._blocks import at_least, conv_norm_relu

TASK = "segmentation"


def graph(bands: int, classes: int, *, depth: int = 3, width: int = 16) -> Graph:
    """The graph for images whose sides are multiples of 2^depth.

    depth  pooling steps; 4 in the paper
    width  filters of the first level, doubled at each further one; 64 in the paper
    """
    at_least("unet", depth=(depth, 1), width=(width, 1))
    layers: list[Layer] = []
    skips = []
    last = "image"
    for level in range(depth + 1):
        if level > 0:
            layers.append(MaxPool(f"down{level}.pool", last, kernel=2, stride=2))
            last = layers[-1].name
        last = conv_norm_relu(layers, f"down{level}.conv1", last, width * 2**level, kernel=3)
        last = conv_norm_relu(layers, f"down{level}.conv2", last, width * 2**level, kernel=3)
        skips.append(last)
    for level in reversed(range(depth)):
        filters = width * 2**level
        layers.append(ConvTranspose(f"up{level}.grow", last, filters, kernel=2, stride=2, bias=True))
        layers.append(Concat(f"up{level}.join", (skips[level], f"up{level}.grow")))
        last = conv_norm_relu(layers, f"up{level}.conv1", f"up{level}.join", filters, kernel=3)
        last = conv_norm_relu(layers, f"up{level}.conv2", last, filters, kernel=3)
    layers.append(Conv("logits", last, classes, kernel=1, bias=True))
    return Graph(TASK, tuple(layers), "logits", bands, classes, multiple=2**depth)
