"""Weights from elsewhere: a ResNet of torchvision's names gives its own logits, partial fits, every misfit named."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from rvkernels import cli, pretrained, registry, weights
from rvkernels.checkpoint import Checkpoint, write_checkpoint
from rvkernels.frameworks import reference
from rvkernels.models import weight_shapes

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def model(name, bands=3, classes=4, **settings):
    return registry.load("models", name).graph(bands, classes, **settings)


def torchvision_shapes(depth, width, bands, classes):
    """Names and shapes of the state_dict of torchvision.models.resnet<depth> (timm's are the same)."""
    found = {}

    def conv(name, filters, into, kernel):
        found[f"{name}.weight"] = (filters, into, kernel, kernel)

    def norm(name, filters):
        found.update({f"{name}.{part}": (filters,) for part in ("weight", "bias", "running_mean", "running_var")})
        found[f"{name}.num_batches_tracked"] = ()

    conv("conv1", width, bands, 7)
    norm("bn1", width)
    into = width
    for stage, count in enumerate(BLOCKS[depth], start=1):
        filters = width * 2 ** (stage - 1)
        out = filters * (4 if depth == 50 else 1)
        for block in range(count):
            name = f"layer{stage}.{block}"
            kernels = (1, 3, 1) if depth == 50 else (3, 3)
            last = into
            for i, kernel in enumerate(kernels, start=1):
                made = out if i == len(kernels) else filters
                conv(f"{name}.conv{i}", made, last, kernel)
                norm(f"{name}.bn{i}", made)
                last = made
            if block == 0 and (stage > 1 or into != out):
                conv(f"{name}.downsample.0", out, into, 1)
                norm(f"{name}.downsample.1", out)
            into = out
    found["fc.weight"], found["fc.bias"] = (classes, into), (classes,)
    return found


def state_dict(depth, width=4, bands=3, classes=6, seed=0):
    rng = np.random.default_rng(seed)
    state = {}
    for name, shape in torchvision_shapes(depth, width, bands, classes).items():
        if name.endswith("num_batches_tracked"):
            state[name] = np.array(100, np.int64)
        elif name.endswith("running_var") or (len(shape) == 1 and name.endswith(".weight")):
            state[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            # Activations keep their size through the network.
            size = np.prod(shape[1:]) if len(shape) > 1 else 4
            state[name] = rng.normal(0, size**-0.5, shape).astype(np.float32)
    return state


def torchvision_logits(torch, state, depth, images):
    """The forward pass of torchvision's ResNet, written out with its names."""
    f = torch.nn.functional
    w = {name: torch.tensor(array) for name, array in state.items()}

    def norm(x, name):
        parts = (w[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return f.batch_norm(x, *parts, training=False, eps=1e-5)

    def block(x, name, stride):
        same = x
        if f"{name}.downsample.0.weight" in w:
            same = norm(f.conv2d(x, w[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
        if depth == 50:
            x = f.relu(norm(f.conv2d(x, w[f"{name}.conv1.weight"]), f"{name}.bn1"))
            x = f.relu(norm(f.conv2d(x, w[f"{name}.conv2.weight"], stride=stride, padding=1), f"{name}.bn2"))
            x = norm(f.conv2d(x, w[f"{name}.conv3.weight"]), f"{name}.bn3")
        else:
            x = f.relu(norm(f.conv2d(x, w[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1"))
            x = norm(f.conv2d(x, w[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
        return f.relu(x + same)

    x = f.relu(norm(f.conv2d(images, w["conv1.weight"], stride=2, padding=3), "bn1"))
    x = f.max_pool2d(x, 3, stride=2, padding=1)
    for stage, count in enumerate(BLOCKS[depth], start=1):
        for i in range(count):
            x = block(x, f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1)
    return f.linear(x.mean(dim=(2, 3)), w["fc.weight"], w["fc.bias"]).numpy()


def test_the_names_are_those_that_torchvision_publishes():
    # torchvision's resnet18 has 122 entries in its state_dict, resnet34 218, resnet50 320; the numbers are its own.
    sizes = {18: (122, 11_689_512), 34: (218, 21_797_672), 50: (320, 25_557_032)}
    for depth, (entries, numbers) in sizes.items():
        found = torchvision_shapes(depth, 64, 3, 1000)
        fitted = {n: s for n, s in found.items() if not n.endswith(("running_mean", "running_var", "tracked"))}
        assert (len(found), sum(int(np.prod(s)) for s in fitted.values())) == (entries, numbers)


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_a_converted_resnet_gives_torchvision_s_logits(depth, tmp_path, caplog, monkeypatch):
    torch = pytest.importorskip("torch", minversion="2")
    monkeypatch.setattr(logging.getLogger("rvkernels"), "propagate", True)
    state = state_dict(depth)
    torch.save({name: torch.tensor(array) for name, array in state.items()}, tmp_path / "resnet.pth")
    assert cli.main(["convert-weights", str(tmp_path / "resnet.pth"), "--out", str(tmp_path / "w.npz")]) == 0
    settings, _ = pretrained.from_torchvision(state, "resnet.pth")
    assert settings == {"depth": depth, "width": 4, "stem": "standard"}
    graph = model("resnet", 3, 6, **settings)
    converted = pretrained.read(tmp_path / "w.npz")
    weights.check(graph, converted)

    images = np.random.default_rng(1).normal(size=(2, 45, 70, 3)).astype(np.float32)
    net = reference.Framework(graph, converted, {"name": "cross_entropy"}, {"name": "sgd"})
    wanted = torchvision_logits(torch, state, depth, torch.tensor(images.transpose(0, 3, 1, 2).copy()))
    assert np.abs(wanted).max() > 0.1
    np.testing.assert_allclose(net.predict(images), wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_safetensors_and_wrapped_state_dicts_convert_to_the_same_file(tmp_path):
    numpy_files, torch = pytest.importorskip("safetensors.numpy"), pytest.importorskip("torch", minversion="2")
    state = state_dict(18)
    numpy_files.save_file(state, tmp_path / "a.safetensors")
    tensors = {name: torch.tensor(array) for name, array in state.items()}
    torch.save({"state_dict": tensors, "epoch": 90}, tmp_path / "b.pth")
    for name in ("a.safetensors", "b.pth"):
        pretrained.convert(tmp_path / name, tmp_path / f"{name}.npz")
    assert (tmp_path / "a.safetensors.npz").read_bytes() == (tmp_path / "b.pth.npz").read_bytes()
    numpy_files.save_file(pretrained.read(tmp_path / "b.pth.npz"), tmp_path / "c.safetensors")
    again = pretrained.read(tmp_path / "c.safetensors")
    assert all(np.array_equal(again[n], a) for n, a in pretrained.read(tmp_path / "b.pth.npz").items())


def changed(state, name, array):
    return {**state, name: array} if array is not None else {n: a for n, a in state.items() if n != name}


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("conv1.weight", None, "x: 'conv1.weight' is missing"),
        ("layer2.0.downsample.0.weight", None, "'stage2.0.shortcut.weight' is missing for a ResNet-18"),
        ("layer1.0.conv2.weight", (4, 2, 3, 3), r"has shape \(4, 2, 3, 3\); a ResNet-18 of width 4 has \(4, 4, 3, 3\)"),
        ("layer5.0.conv1.weight", (4, 4, 3, 3), "'layer5.0.conv1.weight' is no weight of torchvision's or timm's"),
        ("conv1.0.weight", (4, 3, 3, 3), "'conv1.0.weight' is no weight"),
        ("layer1.0.se.fc1.weight", (4, 4), "'layer1.0.se.fc1.weight' is no weight"),
        ("layer1.2.conv1.weight", (4, 4, 3, 3), r"\(3, 2, 2, 2\) basic blocks per stage; there are .* 10, 18, 34, 50"),
        ("layer1.0.downsample.0.weight", (4, 4, 1, 1), "'stage1.0.shortcut.weight' is no weight of a ResNet-18"),
    ],
)
def test_another_network_is_refused(name, shape, message):
    array = None if shape is None else np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=message):
        pretrained.from_torchvision(changed(state_dict(18), name, array), "x")


def test_a_state_dict_without_head_converts():
    state = {name: a for name, a in state_dict(18).items() if not name.startswith("fc")}
    _, found = pretrained.from_torchvision(state, "x")
    assert "stage4.1.conv2_bn.scale" in found
    assert not any(name.startswith("head") for name in found)


def random_weights(graph, seed=5):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in weight_shapes(graph).items()}


@pytest.fixture
def log(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("rvkernels"), "propagate", True)
    caplog.set_level(logging.INFO, "rvkernels")
    return caplog


def test_head_and_first_layer_of_other_sizes_keep_the_seed_s_weights(log):
    found = random_weights(model("resnet", 3, 10, width=4))
    graph = model("resnet", 4, 6, width=4)
    start = weights.initial(graph, 1)
    fitted = pretrained.fit(graph, found, start, "w.npz")
    weights.check(graph, fitted)
    for name, array in fitted.items():
        seeded = name in ("stem.weight", "head.weight", "head.bias")
        assert np.array_equal(array, start[name] if seeded else found[name]), name
    assert "from w.npz; from the seed: head, stem; of the file unused: nothing" in log.text


@pytest.mark.parametrize(
    ("name", "settings", "seeded", "unused"),
    [
        ("fcn", {"width": 4}, {"score_coarse", "score_middle", "score_fine"}, "head"),
        ("detector", {"width": 4, "stem": "standard", "strides": (4, 8, 16)}, {"fpn", "head"}, "head, stage4"),
    ],
)
def test_a_classifier_s_encoder_serves_the_other_tasks(name, settings, seeded, unused, log):
    found = random_weights(model("resnet", 3, 10, width=4, stem="standard"))
    graph = model(name, 3, 4, **settings)
    start = weights.initial(graph, 1)
    fitted = pretrained.fit(graph, found, start, "w.npz")
    for key, array in fitted.items():
        from_seed = any(key.startswith(part) for part in seeded)
        assert np.array_equal(array, start[key] if from_seed else found[key]), key
    assert f"of the file unused: {unused}" in log.text


def test_bands_are_placed_by_name_and_others_take_the_mean():
    found = random_weights(model("cnn", 3, 4, width=4))
    graph = model("cnn", 4, 4, width=4)
    start = weights.initial(graph, 1)
    # The file reads red, green, blue; the image has nir, red, blue, swir.
    kernel = found["block1.conv1.weight"]
    fitted = pretrained.fit(graph, found, start, "w.npz", [1, None, 2])["block1.conv1.weight"]
    mean = kernel.mean(axis=1)
    expected = np.stack([mean, kernel[:, 0], kernel[:, 2], mean], axis=1) * 3 / 4
    np.testing.assert_allclose(fitted, expected, rtol=1e-6)
    # An image of four equal bands is seen as the file saw one of three equal bands.
    graph = model("cnn", 5, 4, width=4)
    fitted = pretrained.fit(graph, found, weights.initial(graph, 1), "w.npz", [4, 0, 3])["block1.conv1.weight"]
    np.testing.assert_allclose(
        pretrained.fit(graph, found, weights.initial(graph, 1), "w.npz", [None] * 3)["block1.conv1.weight"].sum(axis=1),
        kernel.sum(axis=1), rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    assert np.array_equal(fitted[:, 3], kernel[:, 2] * np.float32(3 / 5))
    with pytest.raises(ValueError, match=r"w\.npz: bands names 2 bands, but the file's first layer reads 3"):
        pretrained.fit(graph, found, start, "w.npz", [0, 1])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (("resnet", 3, 4, {"width": 4, "depth": 34}), "w: 'stage1.2.conv1.weight' has no place in the model"),
        (("resnet", 3, 4, {"width": 4, "depth": 10}), "w: 'stage1.1.conv1.weight' is missing"),
        (("resnet", 3, 4, {"width": 8}), r"w: 'stem.weight' has shape \(8, 3, 3, 3\); the model needs \(4, 3, 3, 3\)"),
        (("resnet", 3, 4, {"width": 4, "stem": "standard"}), r"w: 'stem.weight' has shape \(4, 3, 7, 7\)"),
        (("resnet", 3, 4, {"width": 4, "depth": 50}), "w: '.*' has no place in the model"),
        (("cnn", 3, 4, {"width": 16, "blocks": 1}), "w: 'head.weight' has shape .*; the model needs"),
        (("unet", 3, 4, {}), "w: nothing in it is for this model, whose weights start with 'stem.weight'"),
    ],
)
def test_weights_of_another_network_are_refused(other, message):
    name, bands, classes, settings = other
    found = random_weights(model(name, bands, classes, **settings))
    graph = model("resnet", 3, 4, width=4)
    with pytest.raises(ValueError, match=message):
        pretrained.fit(graph, found, weights.initial(graph, 1), "w")


def test_a_head_alone_is_no_fit():
    found = random_weights(model("cnn", 3, 4, width=4, blocks=4))
    graph = model("resnet", 3, 4, width=4)
    with pytest.raises(ValueError, match="nothing in it is for this model"):
        pretrained.fit(graph, found, weights.initial(graph, 1), "w")


def test_init_starts_from_a_checkpoint_of_another_training(tmp_path):
    graph = model("cnn", 3, 10, width=4)
    found = random_weights(graph)
    write_checkpoint(tmp_path / "best.npz", Checkpoint(found, {"epoch": 3}))
    start = pretrained.initial(
        model("cnn", 4, 5, width=4), 7, tmp_path / "best.npz", ["blue", "green", None], ["nir", "blue", "red", "green"]
    )
    assert np.array_equal(start["block2.conv1.weight"], found["block2.conv1.weight"])
    assert np.array_equal(start["block1.conv1.weight"][:, 3], found["block1.conv1.weight"][:, 1] * np.float32(0.75))
    assert np.array_equal(start["head.weight"], weights.initial(model("cnn", 4, 5, width=4), 7)["head.weight"])


def test_wrong_files_are_one_line(tmp_path, capsys):
    pytest.importorskip("torch", minversion="2")

    def error(name):
        assert cli.main(["convert-weights", str(tmp_path / name), "--out", str(tmp_path / "out.npz")]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert str(tmp_path / name) in line
        return line

    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    assert "no such file" in error("none.pth")
    assert "not a state_dict that torch.load reads" in error("text.pth")
    assert "not a .safetensors file" in error("cut.safetensors")
    (tmp_path / "w.h5").touch()
    assert "is no .npz or .safetensors" in error("w.h5")
    assert not (tmp_path / "out.npz").exists()
