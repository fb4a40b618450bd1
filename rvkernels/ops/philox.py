"""Random numbers that are a pure function of (seed, epoch, sample, op, position): Philox 4x32-10.

Key: the 64-bit seed as (low, high) 32 bits. Counter of block i: (i, op, sample, epoch) as uint32; word w of block i is
number 4 i + w of its stream. So workers, batches and kernels may take the numbers in any order and all see the same.
Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

`op` says what the numbers are for. ORDER is the batch order, 1 to 99 are augmentations (rvkernels/ops/augment.py);
other users take numbers from 100 on.
"""

from __future__ import annotations

import operator

import numpy as np

from rvkernels.ops import check_kernel, core

TOLERANCE = 0
ORDER = 0

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)


def uniform(
    seed: int, epoch: int, sample: int, op: int, count: int, *, kernel: str = "cpp", threads: int = 0
) -> np.ndarray:
    """The first `count` numbers of a stream, uniform in [0, 1): (word >> 8) * 2^-24. Returns float32 (count,).

    Raises ValueError when seed is not a 64-bit, or epoch, sample, op not a 32-bit unsigned number, or count < 0.
    """
    if check_kernel(kernel) == "reference":
        return to_uniform(bits(seed, epoch, sample, op, count, kernel="reference"))
    return core().philox_uniform(*_stream(seed, epoch, sample, op, count), threads)


def bits(
    seed: int, epoch: int, sample: int, op: int, count: int, *, kernel: str = "cpp", threads: int = 0
) -> np.ndarray:
    """The first `count` words of a stream: uint32 (count,). Raises as `uniform`."""
    seed, epoch, sample, op, count = _stream(seed, epoch, sample, op, count)
    if check_kernel(kernel) == "reference":
        counters = np.zeros((-(-count // 4), 4), np.uint32)
        counters[:, 0] = np.arange(len(counters), dtype=np.uint64) & _LOW
        counters[:, 1:] = op, sample, epoch
        return reference_blocks(counters, seed).reshape(-1)[:count]
    return core().philox_bits(seed, epoch, sample, op, count, threads)


def blocks(counters: np.ndarray, seed: int, *, kernel: str = "cpp", threads: int = 0) -> np.ndarray:
    """One block of four words for each counter: uint32 (n, 4) from counters uint32 (n, 4) = (i, op, sample, epoch)."""
    seed = check_seed(seed)
    if check_kernel(kernel) == "reference":
        return reference_blocks(counters, seed)
    return core().philox_blocks(counters, seed, threads)


def permutation(n: int, seed: int, epoch: int, *, op: int = ORDER, kernel: str = "cpp", threads: int = 0) -> np.ndarray:
    """The numbers 0 .. n-1 in random order: int64 (n,).

    The stable argsort of n 64-bit keys; key i is words 2 i (low half) and 2 i + 1 (high half) of stream (op, sample 0).
    """
    seed, epoch, _, op, n = _stream(seed, epoch, 0, op, n)
    if check_kernel(kernel) == "reference":
        words = bits(seed, epoch, 0, op, 2 * n, kernel="reference").astype(np.uint64)
        return np.argsort(words[0::2] | words[1::2] << np.uint64(32), kind="stable").astype(np.int64)
    return core().philox_permutation(seed, epoch, op, n)


def to_uniform(words: np.ndarray) -> np.ndarray:
    """Uniform float32 numbers in [0, 1) with 24 random bits, from uint32 words of any shape."""
    return (words >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def reference_blocks(counters: np.ndarray, seed: int) -> np.ndarray:
    """Ten Philox rounds on counters uint32 (n, 4) in NumPy: uint32 (n, 4)."""
    x = [counters[:, i].astype(np.uint64) for i in range(4)]
    key = [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        a, b = _MULTIPLIERS[0] * x[0], _MULTIPLIERS[1] * x[2]
        x = [
            (b >> np.uint64(32)) ^ x[1] ^ np.uint64(key[0]),
            b & _LOW,
            (a >> np.uint64(32)) ^ x[3] ^ np.uint64(key[1]),
            a & _LOW,
        ]
        key = [(k + step) & 0xFFFFFFFF for k, step in zip(key, _KEY_STEPS)]
    return np.stack(x, axis=1).astype(np.uint32)


def check_seed(seed: int) -> int:
    """`seed` as an int; ValueError unless it is a 64-bit unsigned number."""
    return _unsigned("seed", seed, 64)


def check_epoch(epoch: int) -> int:
    """`epoch` as an int; ValueError unless it is a 32-bit unsigned number."""
    return _unsigned("epoch", epoch, 32)


def _unsigned(name: str, value: int, width: int) -> int:
    value = operator.index(value)
    if not 0 <= value < 2**width:
        raise ValueError(f"{name}: expected a whole number from 0 to 2^{width}-1, got {value}")
    return value


def _stream(seed: int, epoch: int, sample: int, op: int, count: int) -> tuple[int, int, int, int, int]:
    return (
        check_seed(seed),
        check_epoch(epoch),
        _unsigned("sample", sample, 32),
        _unsigned("op", op, 32),
        _unsigned("count", count, 34),
    )


op = uniform


def cases() -> list[tuple[str, dict]]:
    """Streams of lengths around the 4, 128 and 16384 words that the C++ kernel makes at a time."""
    return [
        (
            f"{count} numbers",
            {"seed": 2**63 + 12345678901 + count, "epoch": 3, "sample": 70000, "op": 5, "count": count},
        )
        for count in (0, 1, 5, 128, 129, 16384, 40001)
    ]
