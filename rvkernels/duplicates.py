"""Chips of different splits that show the same picture, or nearly the same, found by hashes of their pixels.

A chip is averaged over its bands to a grey thumbnail of 8 x 9 pixels. Its difference hash (dHash: N. Krawetz, "Kind
of Like That", 2013) has a bit for each of the 64 pairs of neighbours in a row: whether the right one is brighter.
Chips whose hashes differ in few bits are looked at once more, since smooth pictures are often brighter to the same
side: their thumbnails have to be correlated, too.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from rvkernels.chips import Chips
from rvkernels.split import SPLITS

ROWS, COLS = 8, 9  # of a thumbnail
# Of EuroSAT on the AiTLAS split these find two validation pictures, each the bend of a river of a training picture;
# hashes alone would tell of nine pairs more.
BITS = 4  # hashes of near duplicates differ in no more
CORRELATION = 0.95  # and their thumbnails are correlated at least so much
EXAMPLES = 12
_VALUES = 1 << 24  # pixels hashed, and values of pairs of thumbnails compared, at a time
# Hashes that differ in at most BITS of 64 bits are equal in one of BITS + 1 pieces of them.
_PIECES = np.linspace(0, 64, BITS + 2).astype(np.uint64)
_BITS_OF = np.array([bin(value).count("1") for value in range(1 << 16)], np.uint8)  # NumPy counts bits since 2.0


def duplicates(chips: Chips) -> dict[str, Any]:
    """What chips of later splits have in common with those of earlier ones.

    Returns a dict
    bits, correlation  BITS and CORRELATION, for who reads the file
    pairs     for val and train, test and train, test and val: {"split", "against", "of", "exact", "near"}: how many
              chips there are in `split`, of how many the very pixels are in `against`, and of how many more something
              like them
    examples  of EXAMPLES chips at most {"chip", "like", "bits"}: numbers of two chips, and in how many bits their
              hashes differ, None for equal pixels; the most alike first
    """
    thumbs, hashes, digests = _hashed(chips.images)
    splits = np.array(chips.table["split"])
    members = {s: np.flatnonzero(splits == s) for s in SPLITS}
    pairs: list[dict[str, Any]] = []
    examples: list[tuple[int, int, int]] = []
    for against, split in itertools.combinations(SPLITS, 2):
        ours, theirs = members[split], members[against]
        same = _equal(digests, ours, theirs)
        near = _near(thumbs, hashes, ours, theirs)
        near = near[~np.isin(near[:, 0], same[:, 0])]
        numbers = {"exact": len(same), "near": len(np.unique(near[:, 0]))}
        pairs.append({"split": split, "against": against, "of": len(ours), **numbers})
        examples += [(-1, *pair) for pair in same.tolist()]
        examples += [(bits, chip, like) for chip, like, bits in near.tolist()]
    shown: dict[int, dict[str, Any]] = {}
    for bits, chip, like in sorted(examples):
        shown.setdefault(chip, {"chip": chip, "like": like, "bits": None if bits < 0 else bits})
    return {
        "bits": BITS,
        "correlation": CORRELATION,
        "pairs": pairs,
        "examples": list(shown.values())[:EXAMPLES],
    }


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Images (n, rows, cols, bands) as means (n, 8, 9) float32 of all bands over cells of nearly equal size."""
    n, rows, cols, bands = images.shape
    first = [np.arange(count) * size // count for count, size in ((ROWS, rows), (COLS, cols))]
    strips = np.add.reduceat(images.reshape(n, rows, cols * bands), first[0], axis=1, dtype=np.float32)
    cells = np.add.reduceat(strips.reshape(n, ROWS, cols, bands).sum(3), first[1], axis=2)
    # Of an image with fewer pixels than cells, reduceat repeats pixels.
    high, wide = (np.maximum(np.diff([*start, size]), 1) for start, size in zip(first, (rows, cols)))
    return cells / (high[:, None] * wide * bands).astype(np.float32)


def difference_hashes(thumbs: np.ndarray) -> np.ndarray:
    """dHashes (n,) uint64 of thumbnails (n, 8, 9)."""
    brighter = thumbs[:, :, 1:] > thumbs[:, :, :-1]
    return np.packbits(brighter.reshape(len(thumbs), -1), axis=1).view(np.uint64)[:, 0]


def _hashed(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thumbnails (n, 72) with mean 0 and length 1, those of flat images 0; dHashes (n,); digests of the pixels (n,)."""
    n = len(images)
    thumbs = np.empty((n, ROWS, COLS), np.float32)
    digests = np.empty(n, "S32")
    step = max(1, _VALUES // int(np.prod(images.shape[1:])))
    for begin in range(0, n, step):
        some = np.ascontiguousarray(images[begin : begin + step])
        thumbs[begin : begin + step] = thumbnails(some)
        digests[begin : begin + step] = [hashlib.blake2b(image, digest_size=16).hexdigest() for image in some]
    hashes = difference_hashes(thumbs)
    flat = thumbs.reshape(n, -1) - thumbs.mean((1, 2))[:, None]
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    # What rounding leaves of an image of one value is no picture.
    shown = length > 1e-5 * np.abs(thumbs).max((1, 2), initial=0)[:, None]
    return np.where(shown, flat / np.where(shown, length, 1), 0), hashes, digests


def _equal(digests: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(m, 2) of `ours` with a chip of `theirs` of the same pixels, the first, once each."""
    values, first = np.unique(digests[theirs], return_index=True)
    place = np.searchsorted(values, digests[ours])
    found = np.flatnonzero(values[np.minimum(place, len(values) - 1)] == digests[ours])
    return np.column_stack([ours[found], theirs[first[place[found]]]])


def _near(thumbs: np.ndarray, hashes: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """(m, 3): a chip of `ours`, one of `theirs` that is nearly the same, and in how many bits; every such pair once."""
    ours, theirs = (index[thumbs[index].any(1)] for index in (ours, theirs))
    found = [np.empty((0, 3), np.int64)]
    for a, b in _sharing_a_piece(hashes, ours, theirs):
        bits = _BITS_OF[(hashes[a] ^ hashes[b]).view(np.uint16)].reshape(-1, 4).sum(1)
        few = bits <= BITS
        a, b, bits = a[few], b[few], bits[few]
        alike = np.einsum("nk,nk->n", thumbs[a], thumbs[b]) >= CORRELATION
        found.append(np.column_stack([a, b, bits])[alike])
    return np.unique(np.concatenate(found), axis=0)


def _sharing_a_piece(
    hashes: np.ndarray, ours: np.ndarray, theirs: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs, as two arrays, whose hashes are equal in a piece: all that are to be compared."""
    for low, high in zip(_PIECES, _PIECES[1:]):
        piece = (hashes >> low) & ((np.uint64(1) << (high - low)) - np.uint64(1))
        sorted_theirs = theirs[np.argsort(piece[theirs], kind="stable")]
        begin = np.searchsorted(piece[sorted_theirs], piece[ours], "left")
        count = np.searchsorted(piece[sorted_theirs], piece[ours], "right") - begin
        start = 0
        while start < len(ours):
            total = np.cumsum(count[start:])
            stop = start + max(1, int(np.searchsorted(total, _VALUES // (ROWS * COLS), "right")))
            some = count[start:stop]
            within = np.arange(some.sum()) - np.repeat(np.cumsum(some) - some, some)
            yield np.repeat(ours[start:stop], some), sorted_theirs[np.repeat(begin[start:stop], some) + within]
            start = stop
