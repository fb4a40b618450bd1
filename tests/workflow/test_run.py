"""workflow/run.sh finds the working directory that snakemake is told, in every spelling."""

import os
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "workflow/run.sh"


@pytest.mark.parametrize("spelling", [["--directory", "a folder"], ["--directory=a folder"], ["-d", "a folder"], []])
def test_the_lock_lies_in_snakemakes_working_directory(tmp_path, spelling):
    snakemake = tmp_path / "bin/snakemake"
    snakemake.parent.mkdir()
    snakemake.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    snakemake.chmod(0o755)
    env = {**os.environ, "PATH": f"{snakemake.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [RUN, *spelling, "-n"],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[2:] == [*spelling, "-n"]
    locks = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("run.lock")]
    assert locks == ["a folder/.snakemake/run.lock" if spelling else ".snakemake/run.lock"]
