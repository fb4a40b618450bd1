"""What all kernels have from cpp/parallel.h; each runs in a process of its own, that may end as it likes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

COMMON = """
import os, threading
import numpy as np
from rvkernels.ops.philox import bits

def same(threads, count=1 << 19):
    got = bits(7, 0, 0, 0, count, threads=threads)
    assert np.array_equal(got, bits(7, 0, 0, 0, count, threads=1))
"""


def run(code: str, *, before: str = "") -> None:
    """`before` is what the process does first, which then begins anew as one that runs the code."""
    # OpenBLAS has threads of its own; -P: the package that is installed, not the sources in this folder.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    again = "import os, sys; os.execv(sys.executable, [sys.executable, '-P', '-c', sys.argv[1]])"
    code = COMMON + textwrap.dedent(code)
    command = [sys.executable, "-P", "-c", f"{before}\n{again}", code]
    subprocess.run(command, env=environment, check=True, timeout=600)


def test_calls_that_do_not_wait_for_their_threads():
    """More threads than cores, from several threads at once, and an exit right after the last call."""
    run("""
        def often():
            for _ in range(50):
                same(16)
        several = [threading.Thread(target=often) for _ in range(3)]
        for thread in several:
            thread.start()
        for thread in several:
            thread.join()
        same(64)
    """)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_threads_of_its_own():
    run("""
        same(8)
        child = os.fork()
        if child == 0:
            same(8)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        same(8)
    """)


@pytest.mark.skipif("libtsan" in os.environ.get("LD_PRELOAD", ""), reason="TSan wants the usual address layout")
def test_without_a_thread_left_the_caller_does_the_work():
    """A stack that no address space holds, so that no thread starts."""
    run(
        """
        try:
            threading.Thread(target=print).start()
        except RuntimeError:
            same(8)
        else:
            raise SystemExit("a thread has started")
        """,
        before="from resource import *; setrlimit(RLIMIT_STACK, (1 << 50, getrlimit(RLIMIT_STACK)[1]))",
    )
