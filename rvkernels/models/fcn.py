"""Fully convolutional network: Long, Shelhamer and Darrell (2015), the skip fusions of FCN-8s on a residual encoder.

Class scores are taken from the last three stages by 1x1 convolutions, each sum is doubled in size by fixed bilinear
interpolation and added to the next finer scores; the last sum is interpolated to the size of the image.
"""

from __future__ import annotations

from rvkernels.models import Add, Conv, Graph, Layer, Resize
from rvkernels.models.resnet import STEMS, encoder

TASK = "segmentation"


def graph(bands: int, classes: int, *, depth: int = 18, width: int = 16, stem: str = "standard") -> Graph:
    """The graph for images whose sides are multiples of the coarsest stride.

    depth, width, stem  the encoder's, as in resnet.py; the stem "standard" fuses at 1/32, 1/16 and 1/8 as FCN-8s
                        does, "half" at 1/16, 1/8 and 1/4
    """
    layers: list[Layer] = []
    _, fine, middle, coarse = encoder(layers, depth, width, stem, where="fcn")
    layers += [
        Conv("score_coarse", coarse, classes, kernel=1, bias=True),
        Resize("up_coarse", "score_coarse", 2, "bilinear"),
        Conv("score_middle", middle, classes, kernel=1, bias=True),
        Add("fuse_middle", "up_coarse", "score_middle"),
        Resize("up_middle", "fuse_middle", 2, "bilinear"),
        Conv("score_fine", fine, classes, kernel=1, bias=True),
        Add("fuse_fine", "up_middle", "score_fine"),
        Resize("logits", "fuse_fine", 2 * STEMS[stem], "bilinear"),
    ]
    return Graph(TASK, tuple(layers), "logits", bands, classes, multiple=8 * STEMS[stem])
