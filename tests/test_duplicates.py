"""Equal and nearly equal pictures in two splits are found, all of them and no others."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rvkernels import duplicates as module
from rvkernels.chips import Chips
from rvkernels.duplicates import BITS, difference_hashes, duplicates, thumbnails


def chips(images: np.ndarray, splits: list[str]) -> Chips:
    return Chips("", "classification", images, {"split": splits})


def pictures(n: int, rows: int = 40, cols: int = 45, bands: int = 3) -> np.ndarray:
    """Blobs that no two have in common."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (n, 8, 9, bands))
    return np.repeat(np.repeat(coarse, rows // 8, axis=1), cols // 9, axis=2).astype(np.uint8)


def counts(found: dict) -> dict[tuple[str, str], tuple[int, int]]:
    return {(p["split"], p["against"]): (p["exact"], p["near"]) for p in found["pairs"]}


def test_thumbnails_are_means_of_cells():
    images = np.random.default_rng(0).integers(0, 255, (2, 19, 31, 3)).astype(np.uint8)
    rows, cols = (np.append(np.arange(k) * size // k, size) for k, size in ((8, 19), (9, 31)))
    expected = [
        [[i[a:b, c:d].mean() for c, d in itertools.pairwise(cols)] for a, b in itertools.pairwise(rows)] for i in images
    ]
    np.testing.assert_allclose(thumbnails(images), expected, rtol=1e-5)


def test_a_bit_says_whether_the_right_neighbour_is_brighter():
    thumb = np.zeros((1, 8, 9), np.float32)
    thumb[0, 0, 3] = 1
    thumb[0, 7, 8] = 1
    bits = np.unpackbits(difference_hashes(thumb).view(np.uint8))
    assert np.flatnonzero(bits).tolist() == [2, 63]


def test_equal_and_nearly_equal_pictures():
    images = pictures(9)
    images[5] = images[0]  # val is train
    images[6] = images[1]
    images[6, :5, 5:10] += 3  # test is nearly train
    images[7] = np.clip(images[2] * 0.9 + 10, 0, 255)  # darker
    found = duplicates(chips(images, ["train"] * 4 + ["val"] * 2 + ["test"] * 3))
    assert counts(found) == {("val", "train"): (1, 0), ("test", "train"): (0, 2), ("test", "val"): (0, 0)}
    equal, *near = found["examples"]
    assert equal == {"chip": 5, "like": 0, "bits": None}
    assert {(e["chip"], e["like"]) for e in near} == {(6, 1), (7, 2)}
    assert 0 <= near[0]["bits"] <= near[1]["bits"] <= BITS


def test_within_a_split_nothing_is_told():
    images = pictures(4)
    images[1] = images[0]
    assert set(counts(duplicates(chips(images, ["train", "train", "val", "test"]))).values()) == {(0, 0)}


def test_flat_pictures_are_equal_or_nothing():
    images = np.zeros((5, 16, 18, 1), np.uint8)
    images[:, :] = np.array([7, 7, 9, 11, 12])[:, None, None, None]
    found = counts(duplicates(chips(images, ["train", "val", "train", "val", "test"])))
    assert found == {("val", "train"): (1, 0), ("test", "train"): (0, 0), ("test", "val"): (0, 0)}


def test_smooth_pictures_brighter_to_the_same_side_are_not_near():
    ramp = np.arange(36)[None, :, None] * np.ones((32, 1, 1))
    one, other = ramp**3 / 36**2, 36 - (36 - ramp) ** 3 / 36**2
    found = duplicates(chips(np.stack([one, other, other[:, ::-1]]).astype(np.float32), ["train", "test", "val"]))
    assert set(counts(found).values()) == {(0, 0)}


@pytest.mark.parametrize("at_once", [1 << 24, 7])
def test_all_pairs_are_found_that_comparing_each_finds(monkeypatch, at_once):
    monkeypatch.setattr(module, "_VALUES", at_once)
    rng = np.random.default_rng(2)
    base = rng.integers(0, 1 << 63, 6, dtype=np.uint64)
    hashes = base[rng.integers(0, 6, 60)]
    for _ in range(4):  # up to four bits turned
        hashes ^= np.where(
            rng.random(60) < 0.7, np.uint64(1) << rng.integers(0, 64, 60).astype(np.uint64), np.uint64(0)
        )
    ours, theirs = np.arange(30), np.arange(30, 60)
    thumbs = np.ones((60, 1), np.float32)
    found = {(a, b) for a, b, _ in module._near(thumbs, hashes, ours, theirs).tolist()}
    expected = {
        (a, b) for a in range(30) for b in range(30, 60) if (int(hashes[a]) ^ int(hashes[b])).bit_count() <= BITS
    }
    assert found == expected
    assert 0 < len(expected) < 900
