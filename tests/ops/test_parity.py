"""Every operation with cases(): each kernel against its NumPy reference, on every case."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rvkernels import registry

OPERATIONS = [(name, registry.load("ops", name)) for name in registry.names("ops")]
CASES = [
    pytest.param(module, kwargs, id=f"{name}-{case}")
    for name, module in OPERATIONS
    if hasattr(module, "cases")
    for case, kwargs in module.cases()
]


def parts(result: object) -> dict[str, object]:
    """A result as named arrays and values: tuples, named tuples, dataclasses and dictionaries are taken apart."""
    if dataclasses.is_dataclass(result):
        result = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    elif isinstance(result, tuple):
        result = dict(zip(getattr(result, "_fields", map(str, range(len(result)))), result))
    elif not isinstance(result, dict):
        return {"": result}
    return {f"{key}.{inner}": value for key, part in result.items() for inner, value in parts(part).items()}


def assert_same(got: object, want: object, tolerance: float) -> None:
    got, want = parts(got), parts(want)
    assert got.keys() == want.keys()
    for key, expected in want.items():
        actual = got[key]
        if not isinstance(expected, np.ndarray):
            assert actual == expected, key
            continue
        assert actual.dtype == expected.dtype, key
        assert actual.shape == expected.shape, key
        if tolerance and expected.dtype.kind == "f" and expected.size:
            assert (np.isnan(actual) == np.isnan(expected)).all(), key
            difference = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
            assert np.nanmax(difference, initial=0) <= tolerance, key
        else:
            np.testing.assert_array_equal(actual, expected, err_msg=key)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("module", "kwargs"), CASES)
def test_cpp_equals_reference(module, kwargs, threads):
    want = module.op(**kwargs, kernel="reference")
    assert_same(module.op(**kwargs, kernel="cpp", threads=threads), want, module.TOLERANCE)


@pytest.mark.parametrize("module", [p for _, p in OPERATIONS if hasattr(p, "cases")], ids=lambda m: m.__name__)
def test_an_unknown_kernel_is_refused(module):
    _, kwargs = module.cases()[0]
    with pytest.raises(ValueError, match="kernel: no 'fastest'"):
        module.op(**kwargs, kernel="fastest")


def test_a_difference_is_seen():
    """The comparison above can fail: on a value, a shape, a dtype, a NaN and a missing part."""
    one = np.ones(3, np.float32)
    near = one + np.float32(0.5)
    assert_same((one, 2), (near, 2), 0.5)
    nan = np.array([1, np.nan, 1], np.float32)
    for got, want in (
        (near, one),
        (one[:2], one),
        (one.astype(np.float64), one),
        (nan, one),
        ((one,), (one, one)),
        ({"a": {"b": 1}}, {"a": {"b": 2}}),
    ):
        with pytest.raises(AssertionError):
            assert_same(got, want, 0.25)
