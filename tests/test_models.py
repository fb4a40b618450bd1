"""Graphs: published sizes, shapes worked by hand, and an error for every way a graph or a setting can be wrong."""

from __future__ import annotations

import pytest

from rvkernels import registry
from rvkernels.models import (
    Add,
    AveragePool,
    BatchNorm,
    Concat,
    Conv,
    ConvTranspose,
    Dense,
    GlobalMean,
    Graph,
    Locations,
    MaxPool,
    Relu,
    Resize,
    channels,
    parameter_count,
    shapes,
    weight_shapes,
)


def model(name, bands=3, classes=4, **settings):
    return registry.load("models", name).graph(bands, classes, **settings)


@pytest.mark.parametrize(("depth", "count"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)])
def test_resnet_has_the_published_size(depth, count):
    assert parameter_count(model("resnet", 3, 1000, depth=depth, width=64, stem="standard")) == count


def test_resnet50_has_the_published_shapes():
    graph = model("resnet", 3, 1000, depth=50, width=64, stem="standard")
    found = shapes(graph, 224, 224)
    assert found["stem"] == (112, 112, 64)
    assert found["stage1.2.relu"] == (56, 56, 256)
    assert found["stage2.3.relu"] == (28, 28, 512)
    assert found["stage3.5.relu"] == (14, 14, 1024)
    assert found["stage4.2.relu"] == (7, 7, 2048)
    assert found["head"] == (1000,)
    weights = weight_shapes(graph)
    assert weights["stage4.0.conv2.weight"] == (512, 512, 3, 3)
    assert weights["stage4.0.shortcut.weight"] == (2048, 1024, 1, 1)
    assert weights["head.weight"] == (1000, 2048)


def test_unet_has_the_paper_s_size_with_batch_norm():
    # Counted from the paper's figure 1, with 3x3 convolutions without bias, each with a batch norm.
    widths = [64, 128, 256, 512, 1024]
    pairs = list(zip([3, *widths[:-1]], widths)) + [(w, w) for w in widths]
    pairs += [(2 * w, w) for w in widths[:-1]] + [(w, w) for w in widths[:-1]]
    convs = sum(9 * i * o + 2 * o for i, o in pairs)
    grow = sum(4 * 2 * w * w + w for w in widths[:-1])
    assert parameter_count(model("unet", 3, 2, depth=4, width=64)) == convs + grow + 64 * 2 + 2 == 31_037_698


@pytest.mark.parametrize("name", registry.names("models"))
def test_every_model_takes_bands_classes_and_its_own_multiple(name):
    graph = model(name, bands=5, classes=7)
    assert graph.task == registry.load("models", name).TASK
    rows, cols = 32 // graph.multiple * graph.multiple, 64
    assert shapes(graph, rows, cols)[graph.output][-1] == graph.classes + (4 if graph.task == "detection" else 0)
    assert channels(graph)["image"] == 5
    if graph.multiple > 1:
        with pytest.raises(ValueError, match=f"33 x 64 pixels.*multiples of {graph.multiple}, such as"):
            shapes(graph, 33, 64)


def test_fcn_fuses_at_the_strides_of_fcn_8s():
    found = shapes(model("fcn"), 64, 96)
    assert [found[f"score_{part}"] for part in ("coarse", "middle", "fine")] == [(2, 3, 4), (4, 6, 4), (8, 12, 4)]
    assert found["logits"] == (64, 96, 4)


def test_detector_levels_have_their_strides():
    graph = model("detector", strides=(8, 16, 32), stem="half", tower=1)
    found = shapes(graph, 64, 96)
    assert [found[f"head{s}.join"] for s in graph.strides] == [(8, 12, 8), (4, 6, 8), (2, 3, 8)]
    assert found["logits"] == (8 * 12 + 4 * 6 + 2 * 3, 8)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet", {"depth": 20}, "depth is 20; there are 10, 18, 34, 50"),
        ("resnet", {"stem": "tiny"}, "stem is 'tiny'; there are small, half, standard"),
        ("resnet", {"width": 0}, "width is 0; it must be an integer of at least 1"),
        ("fcn", {"width": 2.5}, "width is 2.5"),
        ("fcn", {"stem": "tiny"}, "stem is 'tiny'"),
        ("unet", {"depth": 0}, "depth is 0"),
        ("cnn", {"blocks": True}, "blocks is True"),
        ("detector", {"strides": (4, 16)}, r"strides are \[4, 16\]"),
        ("detector", {"strides": ()}, r"strides are \[\]"),
        ("detector", {"strides": (1, 2)}, "must start with one of"),
        ("detector", {"stem": "tiny"}, "stem is 'tiny'"),
        ("detector", {"tower": -1}, "tower is -1"),
    ],
)
def test_wrong_settings_are_named(name, settings, message):
    with pytest.raises(ValueError, match=message):
        model(name, **settings)


def test_every_layer_has_the_size_worked_by_hand():
    layers = (
        Conv("conv", "image", 6, kernel=5, stride=2, pad=1),  # floor((13 + 2 - 5) / 2) + 1 = 6; 17 -> 8
        BatchNorm("norm", "conv"),
        Relu("relu", "norm"),
        MaxPool("max", "relu", kernel=3, stride=2, pad=1),  # 3 x 4
        AveragePool("average", "relu", kernel=3, stride=2, pad=1),
        Add("add", "max", "average"),
        Resize("up", "add", 2, "nearest"),  # 6 x 8
        ConvTranspose("grow", "add", 5, kernel=2, stride=2),  # 6 x 8
        Concat("join", ("up", "grow")),
        GlobalMean("mean", "join"),
        Dense("head", "mean", 4),
    )
    found = shapes(Graph("classification", layers, "head", 3, 4), 13, 17)
    assert found["conv"] == found["norm"] == found["relu"] == (6, 8, 6)
    assert found["max"] == found["average"] == found["add"] == (3, 4, 6)
    assert found["up"] == (6, 8, 6)
    assert found["grow"] == (6, 8, 5)
    assert found["join"] == (6, 8, 11)
    assert found["mean"] == (11,)


def head(source):
    return (GlobalMean("mean", source), Dense("head", "mean", 4))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((Relu("image", "image"), *head("image")), "Relu 'image': the name is taken"),
        ((Relu("r", "later"), *head("r")), "Relu 'r': input 'later' is no earlier layer"),
        ((Relu("r", "image"), *head("image")), "layer 'r' is neither read by a layer nor the output"),
        ((GlobalMean("mean", "image"),), "output 'head' is no layer"),
        ((Conv("c", "image", 5, 1), Add("a", "c", "image"), *head("a")), "Add 'a': inputs have 5 and 3 channels"),
        ((Conv("c", "image", 3, 3), Add("a", "c", "image"), *head("a")), r"Add 'a': .*\(10, 14, 3\) and \(12, 16, 3\)"),
        ((Conv("c", "image", 3, 3), Concat("a", ("c", "image")), *head("a")), "Concat 'a': .* rows and columns"),
        ((Conv("c", "image", 3, 13), *head("c")), "Conv 'c': its input of 12 x 16 is smaller than its kernel"),
        ((Resize("u", "image", 2, "cubic"), *head("u")), "Resize 'u': unknown method 'cubic'"),
        ((Dense("head", "image", 4),), "Dense 'head': .*GlobalMean comes first"),
        (
            (GlobalMean("m", "image"), GlobalMean("n", "m"), Dense("head", "n", 4)),
            "GlobalMean 'n': input 'm' has shape",
        ),
        ((GlobalMean("mean", "image"), Dense("head", "mean", 5)), r"output 'head' has shape \(5,\).* needs \(4,\)"),
        ((Conv("c", "image", 5, 1), Locations("head", ("c", "image"))), "Locations 'head': inputs have 5 and 3"),
    ],
)
def test_a_wrong_graph_is_named(layers, message):
    with pytest.raises(ValueError, match=message):
        shapes(Graph("classification", layers, "head", 3, 4), 12, 16)


def test_an_unknown_task_is_named():
    with pytest.raises(ValueError, match="unknown task 'depth'"):
        shapes(Graph("depth", head("image"), "head", 3, 4), 12, 16)
