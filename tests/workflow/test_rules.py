"""The workflow as files: layering rules, lint, and a dry run of every study."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "config").glob("*.yaml"))
# Where a package may be imported: frameworks and heavy libraries stay in one place.
HOME = {
    "torch": ("frameworks/torch.py",),
    "tensorflow": ("frameworks/tensorflow.py",),
    "onnx": ("onnx.py",),
    "safetensors": ("pretrained.py",),
    "osgeo": ("raster.py", "ops/tile.py"),
    "pycocotools": ("metrics.py",),
    "matplotlib": ("figures/",),
    "snakemake": (),
}


def snakemake(*arguments):
    binaries = Path(sys.executable).parent
    return subprocess.run(
        [binaries / "snakemake", "--snakefile", ROOT / "workflow/Snakefile", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[0] for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", sorted((ROOT / "rvkernels").rglob("*.py")), ids=lambda p: p.stem)
def test_heavy_imports_stay_home(path):
    here = path.relative_to(ROOT / "rvkernels").as_posix()
    stray = {name for name in imports(path) if name in HOME and not here.startswith(HOME[name] or "-")}
    assert stray == set()


@pytest.mark.parametrize("path", sorted((ROOT / "rvkernels").rglob("*.py")), ids=lambda p: p.stem)
def test_syntax_is_that_of_the_oldest_python(path):
    ast.parse(path.read_text(), feature_version=(3, 9))


def test_what_a_rule_calls_is_a_verb():
    from rvkernels.cli import parser

    verbs = set(next(a for a in parser()._actions if a.dest == "verb").choices)
    called = set()
    for rules in (ROOT / "workflow/rules").glob("*.smk"):
        text = rules.read_text()
        called |= {part.split()[0] for part in text.split("rvk --log {log:q} ")[1:]}
    assert called
    assert called <= verbs


@pytest.mark.study
@pytest.mark.parametrize("study", STUDIES, ids=lambda p: p.stem)
def test_dry_run(study, tmp_path):
    done = snakemake("--dry-run", "--quiet", "rules", "--configfile", study, "--directory", tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.study
def test_lint(tmp_path):
    done = snakemake("--lint", "--directory", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
