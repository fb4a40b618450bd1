import numpy as np
import pytest

from rvkernels.ops import KERNELS, philox

# counter, key, output: the lines "philox4x32 10" of kat_vectors, published with Random123 (D. E. Shaw Research)
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_blocks_match_the_published_vectors(counter, key, expected, kernel):
    low, high = words(key)
    found = philox.blocks(np.array([words(counter)], np.uint32), low | high << 32, kernel=kernel)
    assert found.tolist() == [words(expected)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_stream_is_the_blocks_of_its_counters(kernel):
    counters = np.array([[i, 7, 11, 5] for i in range(100)], np.uint32)
    expected = philox.blocks(counters, 2**40 + 9, kernel=kernel).reshape(-1)
    for count in (0, 3, 64, 65, 400):
        np.testing.assert_array_equal(philox.bits(2**40 + 9, 5, 11, 7, count, kernel=kernel), expected[:count])


def test_streams_differ_in_every_part_of_their_name():
    names = [(1, 2, 3, 4), (2, 2, 3, 4), (1 + 2**32, 2, 3, 4), (1, 3, 3, 4), (1, 2, 4, 4), (1, 2, 3, 5)]
    streams = {tuple(philox.bits(*name, 8).tolist()) for name in names}
    assert len(streams) == len(names)


def test_uniform_is_flat_and_below_one():
    values = philox.uniform(1, 0, 0, 100, 100_000)
    assert values.dtype == np.float32
    assert values.min() >= 0
    assert values.max() < 1
    counts = np.histogram(values, 20, (0, 1))[0]
    assert ((counts - 5000) ** 2 / 5000).sum() < 45  # chi-squared, 19 degrees of freedom: 99.9 % are below 44
    assert philox.to_uniform(np.array([0xFFFFFFFF], np.uint32))[0] < 1


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_uniform_does_not_depend_on_threads(threads):
    expected = philox.uniform(9, 1, 2, 3, 50_000, kernel="reference")
    np.testing.assert_array_equal(philox.uniform(9, 1, 2, 3, 50_000, threads=threads), expected)


@pytest.mark.parametrize("n", [0, 1, 2, 1000])
def test_permutation_holds_every_number_once_and_matches_the_reference(n):
    order = philox.permutation(n, 5, 1)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    np.testing.assert_array_equal(order, philox.permutation(n, 5, 1, kernel="reference"))
    if n == 1000:
        assert (order != philox.permutation(n, 5, 2)).sum() > 900


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 0, 0, 0, 1), "seed"),
        ((2**64, 0, 0, 0, 1), "seed"),
        ((0, 2**32, 0, 0, 1), "epoch"),
        ((0, 0, 0, 0, -1), "count"),
    ],
)
def test_numbers_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        philox.uniform(*arguments)
