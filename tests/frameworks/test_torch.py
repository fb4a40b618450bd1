"""What only PyTorch has: torch.compile, views of NumPy memory, channels-last."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from rvkernels import registry, weights

pytest.importorskip("torch", minversion="2", reason="PyTorch 2 is not installed in this environment")

GRAPH = registry.load("models", "cnn").graph(3, 4, width=8, blocks=2)
LOSS, SGD = {"name": "cross_entropy"}, {"name": "sgd"}


def model(**settings):
    return registry.load("frameworks", "torch").Framework(GRAPH, weights.initial(GRAPH, 1), LOSS, SGD, **settings)


def batch():
    rng = np.random.default_rng(0)
    return rng.standard_normal((6, 16, 20, 3)).astype(np.float32), (np.arange(6, dtype=np.int32) % 4,)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.skipif(" " in np.__file__, reason="torch.compile cannot link in an environment whose path holds a space")
def test_compile_gives_the_same_numbers():
    # One convolution and its gradient only: the C++ compiler takes seconds for each graph.
    graph = registry.load("models", "cnn").graph(3, 4, width=4, blocks=1)
    build = registry.load("frameworks", "torch").Framework
    plain = build(graph, weights.initial(graph, 1), LOSS, SGD)
    compiled = build(graph, weights.initial(graph, 1), LOSS, SGD, compile=True)
    images, targets = batch()
    for rate in (0.1, 0.05):
        assert compiled.step(images, targets, rate) == pytest.approx(plain.step(images, targets, rate), rel=1e-4)
    for name, array in plain.weights().items():
        np.testing.assert_allclose(compiled.weights()[name], array, rtol=1e-3, atol=1e-5)


def test_compile_without_a_compiler_is_an_error(monkeypatch):
    torch = pytest.importorskip("torch")

    def broken(function, **settings):
        def call(*arguments):
            raise RuntimeError("no C++ compiler\nmore lines")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(torch, "__file__", "/env/torch/__init__.py")
    with pytest.raises(ValueError, match=r"compile is asked for, but .* on this machine: no C\+\+ compiler$"):
        model(compile=True)
    monkeypatch.setattr(torch, "__file__", "/my env/torch/__init__.py")
    with pytest.raises(ValueError, match=r"in a folder whose path holds a space \(no C\+\+ compiler\)$"):
        model(compile=True)


def test_images_are_read_in_place_and_read_only_ones_too():
    images, targets = batch()
    frozen = images.copy()
    frozen.setflags(write=False)
    one, other = model(), model()
    assert one._images(images).data_ptr() == images.ctypes.data
    assert np.array_equal(one.predict(images), other.predict(frozen))
    assert one.step(images, targets, 0.1) == other.step(frozen, targets, 0.1)
    assert np.array_equal(images, frozen)
    strided = np.ascontiguousarray(images[:, ::-1])[:, ::-1]
    assert np.array_equal(one.predict(images), one.predict(strided))


def test_memory_is_channels_last_from_image_to_weight():
    torch = pytest.importorskip("torch")
    built = model()
    assert built._images(batch()[0]).is_contiguous(memory_format=torch.channels_last)
    assert built._tensors["block2.conv1.weight"].is_contiguous(memory_format=torch.channels_last)


def test_versions_name_the_libraries():
    found = registry.load("frameworks", "torch").Framework.versions()
    assert found["torch"]
    assert found["cpu_capability"]
    assert all(isinstance(value, str) for value in found.values())
