"""Confusion matrices of 100 million labels: drawn one by one, in stretches as on a map, of many classes, of int64."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from rvkernels.bench import Case, Inputs, Peer, Scene
from rvkernels.ops.confusion import confusion

CHUNK = 1 << 22  # labels that are counted at a time to check
IGNORE = 255


def cases(scene: Scene, quick: bool) -> list[Case]:
    n = 4_000_000 if quick else 100_000_000
    listed = [_case("6 classes, at random", n, 6, "uint8", stretch=1)]
    if quick:
        return listed
    return [
        *listed,
        _case("6 classes, in stretches", n, 6, "uint8", stretch=50, ignored=0.1),
        _case("30 classes, at random", n, 30, "uint8", stretch=1),
        _case("6 classes, int64, at random", n // 4, 6, "int64", stretch=1),
    ]


def _case(name: str, n: int, classes: int, dtype: str, *, stretch: int, ignored: float = 0.0) -> Case:
    """Labels come in stretches of a length; where there is more than one, nine of ten are predicted right."""
    rng = np.random.default_rng(0)
    draws = rng.integers(0, classes, -(-n // stretch), np.uint8)
    draws[rng.random(len(draws), np.float32) < ignored] = IGNORE
    truth = np.repeat(draws, stretch)[:n]
    predicted = rng.integers(0, classes, n, np.uint8)
    if stretch > 1:
        np.copyto(predicted, truth, where=(rng.random(n, np.float32) < 0.9) & (truth != IGNORE))
    inputs = {"truth": truth.astype(dtype), "predicted": predicted.astype(dtype), "classes": classes}
    peers = [
        Peer("numba, four tables", "numba:confusion", check=same_counts),
        Peer("torch bincount", "torch:confusion", check=same_counts),
        Peer("NumPy bincount", "numpy:confusion", check=same_counts),
    ]
    if dtype == "uint8":
        peers.append(Peer("OpenCV calcHist", "opencv:confusion", check=same_counts))
    return Case(
        kernel="confusion",
        name=f"{n / 1e6:g} M, {name}",
        inputs=inputs,
        ours=run_confusion,
        check=as_numpy,
        peers=tuple(peers),
        floor=Peer("add both up", "numpy:add_labels_up"),
    )


def run_confusion(inputs: Inputs, threads: int) -> Callable[[], np.ndarray]:
    truth, predicted, classes = inputs["truth"], inputs["predicted"], inputs["classes"]
    return lambda: confusion(truth, predicted, classes, IGNORE, threads=threads)


def as_numpy(inputs: Inputs, ours: np.ndarray) -> None:
    classes = inputs["classes"]
    want = np.zeros(classes**2, np.int64)
    for first in range(0, len(inputs["truth"]), CHUNK):
        truth, predicted = (inputs[name][first : first + CHUNK].astype(np.int64) for name in ("truth", "predicted"))
        known = truth != IGNORE
        want += np.bincount(truth[known] * classes + predicted[known], minlength=classes**2)
    np.testing.assert_array_equal(ours, want.reshape(classes, classes))


def same_counts(ours: np.ndarray, theirs: Any) -> None:
    np.testing.assert_array_equal(ours, theirs)
