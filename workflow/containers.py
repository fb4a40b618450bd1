"""Writes what an image with all environments of envs/ is built from: a Dockerfile, and the same for Apptainer.

    .venv/bin/python workflow/containers.py FOLDER

asks `snakemake --containerize` for both, with `conda` on PATH. The image has the environments alone; the workflow
builds rvkernels in it, from the checkout.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
# Snakemake names the image that it starts from without a version.
NAMED, PINNED = "condaforge/miniforge3:latest", "condaforge/miniforge3:25.3.1-0"
# Apptainer builds without the variables of the image that it starts from.
POST = "%post\n    export PATH=/opt/conda/bin:$PATH\n"
FILES = {"Dockerfile": "dockerfile", "apptainer.def": "apptainer"}


def study() -> dict:
    """One whose workflow has a job in every environment: Snakemake takes them from its jobs."""
    config = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    frameworks = sorted({path.stem for path in (ROOT / "envs").glob("*.yaml")} - {"base", "bench"})
    return {**config, "frameworks": frameworks, "divergence_control": True, "bench": "quick"}


def definition(kind: str) -> str:
    """What Snakemake prints for this kind of file, with a fixed version of the image that it starts from."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "study.yaml").write_text(yaml.safe_dump(study()))
        snakemake = [Path(sys.executable).with_name("snakemake"), "--snakefile", ROOT / "workflow/Snakefile"]
        targets = ["all", "bench_train", "--configfile", "study.yaml", "--cores", "1"]
        command = [*snakemake, *targets, "--sdm", "conda", "--containerize", kind]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        # Files to be copied are named from the working directory; an image is built in the checkout.
        text = done.stdout.replace(f"{os.path.relpath(ROOT, os.path.realpath(folder))}/", "")
    if done.returncode or text.count(NAMED) != 1:
        sys.exit(f"containers: error: snakemake --containerize {kind} failed:\n{done.stderr}{text}")
    return text.replace(NAMED, PINNED).replace("%post\n", POST)


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("containers.py", description=__doc__, formatter_class=form)
    parser.add_argument("folder", type=Path, help="where the two files are written")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, kind in FILES.items():
        (folder / name).write_text(definition(kind))
        print(f"containers: {folder / name}")


if __name__ == "__main__":
    main()
