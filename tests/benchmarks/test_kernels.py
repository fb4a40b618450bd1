"""Every kernel and its peers on the quick cases of rvkernels/bench, after their checks, grouped by case.

    pytest tests/benchmarks/test_kernels.py --benchmark-only

What takes part in a ratio is timed in turns by `rvk bench`; here each side is timed alone. A peer's times in the table
hold the 0.1 ms it takes to ask its process; the seconds that it measured itself are in extra_info, as are the kernel's.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest

from rvkernels import registry
from rvkernels.bench import Case, Scene
from rvkernels.bench._pairs import CheckError, check_sides
from rvkernels.bench._processes import FOLDER, Processes

SCENE = Scene(quick=True, cache=Path(__file__).parents[2] / "downloads/bench")


@functools.cache
def cases() -> list[Case]:
    return [case for name in registry.names("bench") for case in registry.load("bench", name).cases(SCENE, True)]


def pytest_generate_tests(metafunc):
    sides = [(i, peer, case) for i, case in enumerate(cases()) for peer in (None, *case.sides)]
    names = [f"{case.kernel}-{case.name}-{peer.name if peer else 'ours'}" for _, peer, case in sides]
    metafunc.parametrize(("number", "peer"), [(i, peer) for i, peer, _ in sides], ids=names)


@pytest.fixture(scope="module")
def checked():
    """A function: the clocks of all sides of a case whose results are right, and why others are missing."""
    with Processes(timeout=60, folder=FOLDER) as processes, tempfile.TemporaryDirectory() as folder:

        @functools.lru_cache(maxsize=1)
        def check(number):
            processes.forget()
            case, lost, work = cases()[number], {}, Path(folder, str(number))
            work.mkdir()
            try:
                return check_sides(case, case.threads[0], processes, work, lost), lost
            except CheckError as error:
                return error, lost

        yield check


def test_kernel(benchmark, checked, number, peer):
    case = cases()[number]
    clocks, lost = checked(number)
    if isinstance(clocks, CheckError):
        pytest.fail(f"{case}: {clocks}", pytrace=False)
    if peer not in clocks:
        pytest.skip(f"{peer.library}: {lost[peer]}")
    seconds = []
    benchmark.group = str(case)
    benchmark.pedantic(lambda: seconds.extend(clocks[peer](1, 0)), rounds=5, warmup_rounds=1)
    benchmark.extra_info.update(
        kernel=case.kernel,
        case=case.name,
        threads=case.threads[0],
        side="ours" if peer is None else "floor" if peer is case.floor else peer.name,
        seconds=float(np.median(seconds)),
    )
