"""A plain convolutional network: blocks of 3x3 convolutions, each block followed by 2x2 max pooling."""

from __future__ import annotations

from rvkernels.models import Dense, GlobalMean, Graph, Layer, MaxPool
from rvkernels.models._blocks import at_least, conv_norm_relu

TASK = "classification"


def graph(bands: int, classes: int, *, width: int = 32, blocks: int = 4, convs: int = 1) -> Graph:
    """The graph for images of `bands` bands, at least 2^blocks pixels on a side.

    width   filters of the first block; each further block has twice as many, at most 8 width
    blocks  pooling steps
    convs   convolutions (each with batch norm and ReLU) per block
    """
    at_least("cnn", width=(width, 1), blocks=(blocks, 1), convs=(convs, 1))
    layers: list[Layer] = []
    last = "image"
    for block in range(1, blocks + 1):
        for conv in range(1, convs + 1):
            filters = width * min(2 ** (block - 1), 8)
            last = conv_norm_relu(layers, f"block{block}.conv{conv}", last, filters, kernel=3)
        layers.append(MaxPool(f"block{block}.pool", last, kernel=2, stride=2))
        last = layers[-1].name
    layers += [GlobalMean("mean", last), Dense("head", "mean", classes)]
    return Graph(TASK, tuple(layers), "head", bands, classes)
