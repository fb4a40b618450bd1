"""One-stage anchor-free detector: Tian et al. (2019), "FCOS", without the centre-ness branch.

A residual encoder, a feature pyramid (Lin et al. 2017), and per level one tower for class scores and one for the four
distances. Weights are named by layer, so heads are not shared between levels; each level has its own batch norm anyhow.
"""

from __future__ import annotations

import math

from rvkernels.models import Add, Concat, Conv, Graph, Layer, Locations, Resize
from rvkernels.models._blocks import at_least, conv_norm, conv_norm_relu
from rvkernels.models.resnet import STEMS, encoder

TASK = "detection"

# Probability of an object at a location before training: background, by far the most frequent, does not dominate the
# loss of the first steps (Lin et al. 2017, "Focal Loss for Dense Object Detection", section 4.1).
PRIOR = 0.01


def graph(
    bands: int,
    classes: int,
    *,
    depth: int = 18,
    width: int = 16,
    stem: str = "half",
    strides: tuple[int, ...] = (4, 8, 16),
    pyramid: int = 64,
    tower: int = 2,
) -> Graph:
    """The graph for images whose sides are multiples of the coarsest stride.

    depth, width, stem  the encoder's, as in resnet.py
    strides             pixels per location of each level, each twice the one before; a stride that the encoder's four
                        stages do not reach is made by a 3x3 convolution with stride 2 on the level before
    pyramid             channels of every pyramid level and tower
    tower               3x3 convolutions (each with batch norm and ReLU) of each tower
    """
    at_least("detector", pyramid=(pyramid, 1), tower=(tower, 0))
    strides = tuple(strides)
    if stem not in STEMS:
        raise ValueError(f"detector: stem is {stem!r}; there are {', '.join(STEMS)}")
    stage_strides = [STEMS[stem] * 2**stage for stage in range(4)]
    doubling = all(fine * 2 == coarse for fine, coarse in zip(strides, strides[1:]))
    if not strides or strides[0] not in stage_strides or not doubling:
        raise ValueError(
            f"detector: strides are {list(strides)}; with the stem {stem!r} they must start with one of "
            f"{stage_strides}, each further one twice the one before"
        )
    layers: list[Layer] = []
    used = [stride for stride in strides if stride in stage_strides]
    outputs = encoder(layers, depth, width, stem, stages=stage_strides.index(used[-1]) + 1, where="detector")

    levels: dict[int, str] = {}
    above = ""
    for stride in reversed(used):
        lateral = conv_norm(layers, f"fpn{stride}.lateral", outputs[stage_strides.index(stride)], pyramid, kernel=1)
        if above:
            layers.append(Resize(f"fpn{stride}.up", above, 2, "nearest"))
            layers.append(Add(f"fpn{stride}.sum", lateral, f"fpn{stride}.up"))
            lateral = f"fpn{stride}.sum"
        levels[stride] = conv_norm_relu(layers, f"fpn{stride}.out", lateral, pyramid, kernel=3)
        above = lateral
    for stride in strides[len(used) :]:
        levels[stride] = conv_norm_relu(layers, f"fpn{stride}.out", levels[stride // 2], pyramid, kernel=3, stride=2)

    for stride in strides:
        scores = boxes = levels[stride]
        for i in range(1, tower + 1):
            scores = conv_norm_relu(layers, f"head{stride}.class{i}", scores, pyramid, kernel=3)
            boxes = conv_norm_relu(layers, f"head{stride}.box{i}", boxes, pyramid, kernel=3)
        start = -math.log((1 - PRIOR) / PRIOR)
        layers += [
            Conv(f"head{stride}.class", scores, classes, kernel=3, pad=1, bias=True, bias_start=start),
            Conv(f"head{stride}.box", boxes, 4, kernel=3, pad=1, bias=True),
            Concat(f"head{stride}.join", (f"head{stride}.class", f"head{stride}.box")),
        ]
    layers.append(Locations("logits", tuple(f"head{stride}.join" for stride in strides)))
    return Graph(TASK, tuple(layers), "logits", bands, classes, multiple=strides[-1], strides=strides)
