"""Residual networks: He et al. (2016), "Deep Residual Learning for Image Recognition", table 1.

With the standard stem and width 64, shapes and parameter counts are those of torchvision's resnet18, 34 and 50, where a
bottleneck's stride is at its 3x3 convolution. The last batch norm of every residual branch starts with scale 0, so that
a block starts as the identity (Goyal et al. 2017, section 5.1).
"""

from __future__ import annotations

from rvkernels.models import Add, Dense, GlobalMean, Graph, Layer, MaxPool, Relu
from rvkernels.models._blocks import at_least, conv_norm, conv_norm_relu

TASK = "classification"

# depth: (bottleneck blocks, blocks per stage)
DEPTHS = {
    10: (False, (1, 1, 1, 1)),
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
}
# stem: stride in pixels of the first stage
STEMS = {"small": 1, "half": 2, "standard": 4}


def graph(bands: int, classes: int, *, depth: int = 18, width: int = 32, stem: str = "small") -> Graph:
    """The graph for images of `bands` bands and any size.

    depth  10 (one basic block per stage), 18, 34 or 50
    width  filters of the first stage's 3x3 convolutions; 64 in the paper
    stem   "small": 3x3; "half": 3x3 with stride 2; "standard": 7x7 with stride 2, then 3x3 max pooling with stride 2
    """
    layers: list[Layer] = []
    last = encoder(layers, depth, width, stem, where="resnet")[-1]
    layers += [GlobalMean("mean", last), Dense("head", "mean", classes)]
    return Graph(TASK, tuple(layers), "head", bands, classes)


def encoder(layers: list[Layer], depth: int, width: int, stem: str, *, stages: int = 4, where: str) -> list[str]:
    """Append stem and the first `stages` stages.

    Returns the name of each stage's output; stage i (from 0) has the stride STEMS[stem] * 2^i.
    Raises ValueError, naming the model `where`, for a depth or stem there is not.
    """
    at_least(where, width=(width, 1))
    if depth not in DEPTHS:
        raise ValueError(f"{where}: depth is {depth!r}; there are {', '.join(map(str, DEPTHS))}")
    if stem not in STEMS:
        raise ValueError(f"{where}: stem is {stem!r}; there are {', '.join(STEMS)}")
    bottleneck, counts = DEPTHS[depth]
    if stem == "standard":
        conv_norm_relu(layers, "stem", "image", width, kernel=7, stride=2)
        layers.append(MaxPool("stem_pool", "stem_relu", kernel=3, stride=2, pad=1))
    else:
        conv_norm_relu(layers, "stem", "image", width, kernel=3, stride=STEMS[stem])
    last, into = layers[-1].name, width
    outputs = []
    for stage in range(stages):
        filters = width * 2**stage
        out = filters * (4 if bottleneck else 1)
        for block in range(counts[stage]):
            stride = 2 if stage > 0 and block == 0 else 1
            name = f"stage{stage + 1}.{block}"
            if bottleneck:
                branch = conv_norm_relu(layers, f"{name}.conv1", last, filters, kernel=1)
                branch = conv_norm_relu(layers, f"{name}.conv2", branch, filters, kernel=3, stride=stride)
                branch = conv_norm(layers, f"{name}.conv3", branch, out, kernel=1, scale_start=0.0)
            else:
                branch = conv_norm_relu(layers, f"{name}.conv1", last, filters, kernel=3, stride=stride)
                branch = conv_norm(layers, f"{name}.conv2", branch, out, kernel=3, scale_start=0.0)
            if stride != 1 or into != out:
                last = conv_norm(layers, f"{name}.shortcut", last, out, kernel=1, stride=stride)
            layers += [Add(f"{name}.add", branch, last), Relu(f"{name}.relu", f"{name}.add")]
            last, into = layers[-1].name, out
        outputs.append(last)
    return outputs
