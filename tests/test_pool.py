"""Processes of a pool do their work, and end with the process that made it."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

from rvkernels.pool import pool

# Prints the numbers of two processes that have work, and is then killed.
KILLED = """
import os, signal, time
from rvkernels.pool import pool

if __name__ == "__main__":
    with pool(2) as made:
        busy = [made.submit(time.sleep, 0.2) for _ in range(8)]
        found = set()
        while len(found) < 2:
            found.add(made.submit(os.getpid).result())
        print(*found, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_work_is_done_and_the_initializer_called_first(tmp_path):
    with pool(2, os.chdir, (tmp_path,)) as made:
        assert list(made.map(abs, range(-5, 5))) == list(map(abs, range(-5, 5)))
        assert made.submit(os.getpid).result() != os.getpid()
        assert made.submit(os.getcwd).result() == str(tmp_path)


def test_they_end_with_a_process_that_is_killed(tmp_path):
    path = tmp_path / "killed.py"
    path.write_text(KILLED)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -9, done.stderr
    workers = [int(word) for word in done.stdout.split()]
    assert len(workers) == 2
    _, alive = psutil.wait_procs([p for p in psutil.process_iter() if p.pid in workers], timeout=30)
    assert not alive
