"""Initial weights: the same bytes for ever, the documented spread; files: whole, equal and checked."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from rvkernels import registry, weights
from rvkernels.models import BatchNorm, Conv, ConvTranspose, Dense, GlobalMean, Graph, weight_shapes


def model(name, bands=3, classes=4, **settings):
    return registry.load("models", name).graph(bands, classes, **settings)


def digest(arrays):
    total = hashlib.sha256()
    for name, array in arrays.items():
        total.update(name.encode())
        total.update(array.astype("<f4").tobytes())
    return total.hexdigest()[:16]


@pytest.mark.parametrize(
    ("name", "expected"), [("cnn", "4b7561cbb97e5177"), ("unet", "546ce8a766fedb44"), ("detector", "1c4267bcf3cf4022")]
)
def test_bytes_are_fixed_for_ever(name, expected):
    # A published study starts from these bytes: a change of them is a new seed stream, never a repair of this test.
    assert digest(weights.initial(model(name), seed=7)) == expected


@pytest.mark.parametrize("name", registry.names("models"))
def test_every_model_gets_all_its_weights_as_float32(name):
    graph = model(name)
    found = weights.initial(graph, seed=1)
    assert list(found) == list(weight_shapes(graph))
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in found.values())
    weights.check(graph, found)


def test_a_weight_depends_on_seed_and_name_only():
    one, two = weights.initial(model("cnn", blocks=2), 3), weights.initial(model("cnn", blocks=3), 3)
    assert all(np.array_equal(one[name], two[name]) for name in one if not name.startswith("head"))
    other = weights.initial(model("cnn", blocks=2), 4)
    assert not np.array_equal(one["block1.conv1.weight"], other["block1.conv1.weight"])
    assert not np.array_equal(one["block1.conv1.weight"].ravel()[:288], one["block2.conv1.weight"].ravel()[:288])


def test_spreads_are_those_documented():
    layers = (
        Conv("a", "image", 64, kernel=3, pad=1),
        BatchNorm("n", "a", scale_start=0.0),
        ConvTranspose("t", "n", 48, kernel=2, stride=2, bias=True),
        Conv("o", "t", 32, kernel=3, bias=True, bias_start=-2.5),
        GlobalMean("m", "o"),
        Dense("d", "m", 500),
    )
    found = weights.initial(Graph("classification", layers, "d", 40, 500), seed=5)

    def deviation(name):
        array = found[name].astype(np.float64)
        error = 4 / math.sqrt(2 * array.size)  # four standard errors of a normal's deviation
        return pytest.approx(math.sqrt((array**2).mean()), rel=error)

    assert math.sqrt(2 / (64 * 9)) == deviation("a.weight")
    assert math.sqrt(1 / 64) == deviation("t.weight")
    assert math.sqrt(1 / (48 * 9) / 3) == deviation("o.weight")
    assert np.abs(found["o.weight"]).max() <= (48 * 9) ** -0.5
    assert math.sqrt(1 / 32 / 3) == deviation("d.weight")
    normal = found["a.weight"] / math.sqrt(2 / (64 * 9))
    assert abs(float(normal.mean())) < 4 / math.sqrt(normal.size)
    assert float((normal**4).mean()) == pytest.approx(3, abs=4 * math.sqrt(96 / normal.size))
    assert (found["o.bias"] == -2.5).all()
    assert not found["t.bias"].any()
    assert not found["n.scale"].any()
    assert (found["n.variance"] == 1).all()


def test_residual_branches_start_as_nothing_and_the_detector_at_its_prior():
    found = weights.initial(model("resnet"), seed=1)
    assert not found["stage1.0.conv2_bn.scale"].any()
    assert (found["stage1.0.conv1_bn.scale"] == 1).all()
    bias = weights.initial(model("detector"), seed=1)["head4.class.bias"]
    assert 1 / (1 + np.exp(-bias.astype(float))) == pytest.approx(np.full(4, 0.01), rel=1e-6)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_named(seed):
    with pytest.raises(ValueError, match=f"seed is {seed}"):
        weights.initial(model("cnn"), seed)


def test_a_file_gives_back_what_was_saved_and_equal_bytes(tmp_path):
    found = weights.initial(model("cnn", width=4), seed=1)
    weights.save(tmp_path / "a.npz", found)
    weights.save(tmp_path / "b.npz", weights.load(tmp_path / "a.npz"))
    again = weights.load(tmp_path / "b.npz")
    assert list(again) == list(found)
    assert all(np.array_equal(again[name], found[name]) and again[name].dtype == np.float32 for name in found)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_a_failed_save_leaves_the_old_file(tmp_path):
    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise OSError("disk full")

    weights.save(tmp_path / "a.npz", {"x": np.ones(3)})
    before = (tmp_path / "a.npz").read_bytes()
    with pytest.raises(OSError, match="disk full"):
        weights.save(tmp_path / "a.npz", {"x": np.ones(3), "y": Broken()})
    assert (tmp_path / "a.npz").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.npz: no such file"):
        weights.load(tmp_path / "none.npz")
    with pytest.raises(ValueError, match=r"a\.txt: a file of weights ends in \.npz"):
        weights.save(tmp_path / "a.txt", {})
    np.save(tmp_path / "single.npy", np.ones(3))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    (tmp_path / "empty.npz").touch()
    (tmp_path / "text.npz").write_text("not an archive")
    weights.save(tmp_path / "cut.npz", {"x": np.arange(1000.0)})
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:5000])
    weights.save(tmp_path / "flipped.npz", {"x": np.arange(1000.0)})
    damaged = bytearray((tmp_path / "flipped.npz").read_bytes())
    damaged[4000] ^= 1
    (tmp_path / "flipped.npz").write_bytes(damaged)
    for name in ("single", "empty", "text", "cut", "flipped"):
        with pytest.raises(ValueError, match=rf"{name}\.npz: not an \.npz file of plain arrays, or damaged"):
            weights.load(tmp_path / f"{name}.npz")


def test_weights_that_do_not_fit_are_named():
    graph = model("cnn", width=4)
    good = weights.initial(graph, 1)
    missing = {name: array for name, array in good.items() if name != "head.bias"}
    with pytest.raises(ValueError, match=r"file\.npz: 'head\.bias' is missing"):
        weights.check(graph, missing, "file.npz")
    with pytest.raises(ValueError, match=r"'head\.bias' has shape \(5,\); the model needs \(4,\)"):
        weights.check(graph, {**good, "head.bias": np.zeros(5)})
    with pytest.raises(ValueError, match=r"'extra' is no weight of the model"):
        weights.check(graph, {**good, "extra": np.zeros(5)})
