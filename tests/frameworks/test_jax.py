"""What only JAX has: functions that XLA compiles once, donated buffers, one number of threads per process."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from rvkernels import registry, weights

pytest.importorskip("jax", reason="JAX is not installed in this environment")

GRAPH = registry.load("models", "cnn").graph(3, 4, width=8, blocks=2)
LOSS, SGD = {"name": "cross_entropy"}, {"name": "sgd"}


def model(**settings):
    return registry.load("frameworks", "jax").Framework(GRAPH, weights.initial(GRAPH, 1), LOSS, SGD, **settings)


def batch():
    rng = np.random.default_rng(0)
    return rng.standard_normal((6, 16, 20, 3)).astype(np.float32), (np.arange(6, dtype=np.int32) % 4,)


def compilations(function, caplog):
    """How many functions XLA compiles while `function` runs."""
    import jax

    caplog.clear()
    with jax.log_compiles(True):
        function()
    return sum("Finished XLA compilation" in record.message for record in caplog.records)


def test_a_function_is_compiled_once_per_shape_and_not_per_model(caplog):
    images, targets = batch()
    # sizes that no other test has
    images = np.ascontiguousarray(images[:5, :12]), np.ascontiguousarray(images[:4, :12])
    first, second = model(), model()
    assert compilations(lambda: first.step(images[0], (targets[0][:5],), 0.1), caplog) >= 1
    assert compilations(lambda: first.step(images[0], (targets[0][:5],), 0.2), caplog) == 0
    assert compilations(lambda: second.step(images[0], (targets[0][:5],), 0.1), caplog) == 0
    assert compilations(lambda: second.gradients(images[0], (targets[0][:5],)), caplog) == 0
    assert compilations(lambda: first.predict(images[0]), caplog) == 1
    assert compilations(lambda: first.predict(images[1]), caplog) == 1
    assert compilations(lambda: second.predict(images[1]), caplog) == 0


def test_compiling_is_always_on():
    images, targets = batch()
    plain, compiled = model(), model(compile=True)
    assert plain.step(images, targets, 0.1) == compiled.step(images, targets, 0.1)
    assert np.array_equal(plain.predict(images), compiled.predict(images))


def test_the_update_writes_over_the_old_weights():
    built = model()
    before = built._weights["block1.conv1.weight"]
    built.step(*batch(), 0.1)
    assert before.is_deleted()


def test_what_is_handed_out_is_a_copy():
    built = model()
    images, targets = batch()
    kept = built.weights()
    copies = {name: array.copy() for name, array in kept.items()}
    built.step(images, targets, 0.1)
    assert all(np.array_equal(kept[name], copies[name]) for name in kept)
    given = weights.initial(GRAPH, 1)
    built.load(given)
    built.step(images, targets, 0.1)
    assert all(np.array_equal(given[name], array) for name, array in weights.initial(GRAPH, 1).items())
    logits = built.predict(images)
    logits[:] = 0
    assert built.predict(images).any()


def test_another_number_of_threads_in_one_process_is_an_error():
    model(threads=1)
    with pytest.raises(ValueError, match=r"threads is 3, but JAX has started with 1 in this process .*per process"):
        model(threads=3)


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
@pytest.mark.parametrize("threads", [1, 3])
def test_xla_starts_as_many_threads_as_asked(threads):
    """Whatever the machine has; NPROC in the environment is left as it was."""
    script = f"""
import os, pathlib
os.environ["NPROC"] = "7"
from rvkernels import registry, weights
graph = registry.load("models", "cnn").graph(3, 4, width=4, blocks=1)
build = registry.load("frameworks", "jax").Framework
build(graph, weights.initial(graph, 1), {LOSS}, {SGD}, threads={threads})
names = [(task / "comm").read_text() for task in pathlib.Path("/proc/self/task").iterdir()]
print(sum(name.startswith("tf_XLAEigen") for name in names), os.environ["NPROC"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(threads), "7"]


def test_versions_name_the_libraries():
    found = model().versions()
    assert found.keys() == {"jax", "jaxlib", "device"}
    assert all(isinstance(value, str) and value for value in found.values())
