"""In which order the workflow trains and measures frameworks: the real rules, with an `rvk` that notes its calls."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rvkernels import environment, registry
from rvkernels.bench_train import Measurement
from rvkernels.study import Study

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.study
RVK = """#!/bin/bash
verb=$3
while [ "$1" != --out ]; do shift; done
out=$2
echo "$verb $out" >> "$CALLS"
case $verb in
  train) mkdir -p "$out"; touch "$out/record.json" "$out/log.csv" ;;
  chip) mkdir -p "$out" ;;
  *) touch "$out" ;;
esac
"""


def installed(framework):
    try:
        environment.check([framework])
    except ValueError:
        return False
    return True


STUDY = {
    "study": "order",
    "seeds": [0, 1],
    "frameworks": [name for name in registry.names("frameworks") if name != "reference" and installed(name)],
    "threads": 2,
    "bench_train": {"rounds": 2, "batches": [1, 8]},
    "experiments": {
        "cells": {"task": "classification", "dataset": "towns", "models": {"cnn": {}, "resnet": {}}},
        "objects": {"task": "detection", "dataset": "towns_objects", "models": {"detector": {}}},
    },
}
STUDY["experiments"]["cells"]["chip"] = {"size": 32}
STUDY["experiments"]["objects"]["chip"] = {"size": 64}


@pytest.fixture
def calls(tmp_path):
    """A function that runs the workflow with two cores and returns what `rvk` was asked for: (verb, path), in order."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "rvk").write_text(RVK)
    (folder / "rvk").chmod(0o755)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY))
    # bash reads this before a job's command, when snakemake has set its own PATH.
    (tmp_path / "path.sh").write_text(f'export PATH="{folder}:$PATH"\n')
    variables = {**os.environ, "BASH_ENV": str(tmp_path / "path.sh"), "CALLS": str(tmp_path / "calls")}

    def run(*arguments):
        done = subprocess.run(
            [
                Path(sys.executable).parent / "snakemake", "--snakefile", ROOT / "workflow/Snakefile",
                "--configfile", tmp_path / "study.yaml", "--directory", tmp_path, "--cores", "2", *arguments,
            ],
            cwd=ROOT, env=variables, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [line.split(" ", 1) for line in (tmp_path / "calls").read_text().splitlines()]

    return run


def test_frameworks_train_in_turn(calls):
    study = Study.resolve(STUDY, datasets=ROOT / "config/datasets")
    made = [tuple(Path(out).parts[-4:]) for verb, out in calls("--until", "train") if verb == "train"]
    assert sorted(made) == sorted((e, m, f, str(s)) for e, m, f, s in study.runs())
    # Experiments begin when their data are ready; a model and seed stays together, and in the order of its block.
    blocks = [list(runs) for _, runs in itertools.groupby(made, key=lambda run: (run[0], run[1], run[3]))]
    assert len(blocks) == 6
    for block in blocks:
        ranks = [study.priority(*run) for run in block]
        assert ranks == sorted(ranks, reverse=True)
    if len(STUDY["frameworks"]) > 1:
        assert len({tuple(run[2] for run in block) for block in blocks}) > 1


def test_measurements_are_made_in_turn(calls):
    study = Study.resolve(STUDY, datasets=ROOT / "config/datasets")
    records = [Path(out).with_suffix("").parts[-5:] for verb, out in calls("bench_train") if verb == "bench-train"]
    made = [Measurement(e, m, f, int(batch), int(number)) for e, m, f, batch, number in records]
    whole = [m for m in made if m.experiment == "cells"]  # whose data are ready may differ from machine to machine
    assert whole == [m for m in study.measurements() if m.experiment == "cells"]
    assert sorted(made) == sorted(study.measurements())
