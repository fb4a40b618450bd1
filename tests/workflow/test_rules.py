"""The workflow as files: layering rules, lint, and a dry run of every study."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rvkernels import registry
from rvkernels.live import Watcher

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "config").glob("*.yaml"))
# Where a package may be imported: frameworks and heavy libraries stay in one place. The files of bench/peers/ are never
# imported: each runs in a process, and most in an environment, of its own.
HOME = {
    **{name: (f"frameworks/{name}.py",) for name in registry.names("frameworks") if name != "reference"},
    "onnx": ("onnx.py",),
    "safetensors": ("pretrained.py",),
    "osgeo": ("raster.py", "ops/tile.py", "bench/_scene.py"),
    "pycocotools": ("metrics.py",),
    "matplotlib": ("figures/", "report.py", "views.py"),
    "snakemake": (),
}


def snakemake(*arguments, **variables):
    binaries = Path(sys.executable).parent
    return subprocess.run(
        [binaries / "snakemake", "--snakefile", ROOT / "workflow/Snakefile", *arguments],
        cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, check=False,
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
    assert stray == set() or here.startswith("bench/peers/")


@pytest.mark.parametrize("path", sorted((ROOT / "rvkernels").rglob("*.py")), ids=lambda p: p.stem)
def test_syntax_is_that_of_the_oldest_python(path):
    ast.parse(path.read_text(), feature_version=(3, 9))


def test_what_a_rule_calls_is_a_verb():
    from rvkernels.cli import parser

    verbs = set(next(a for a in parser()._actions if a.dest == "verb").choices)
    called = set()
    for rules in (ROOT / "workflow/rules").glob("*.smk"):
        text = rules.read_text()
        called |= {part.split()[0] for part in text.split(" --log {log:q} ")[1:]}
    assert called
    assert called <= verbs


def test_captions_of_snakemakes_report_are_there_and_used():
    rules = "".join(
        path.read_text() for path in [*(ROOT / "workflow").glob("rules/*.smk"), ROOT / "workflow/Snakefile"]
    )
    named = set(re.findall(r'"(?:\.\./)?report/(\w+\.rst)"', rules))
    assert named == {path.name for path in (ROOT / "workflow/report").iterdir()}
    assert rules.count("caption=") == rules.count(" category=") == rules.count("labels=")


@pytest.mark.study
@pytest.mark.parametrize("parts", ["", "parts: { chip: 2, predict: 3, evaluate: 4 }"])
def test_the_stages_that_watch_counts_are_those_of_the_workflow(tmp_path, parts):
    study = tmp_path / "study.yaml"
    text = (ROOT / "config/smoke.yaml").read_text() + "\nseeds: [0, 1]\nframeworks: [torch, jax]\nbench: quick\n"
    study.write_text(f"{text}divergence_control: true\n{parts}\n")
    plan = snakemake("--dry-run", "--configfile", study, "--directory", tmp_path / "work").stdout
    counts = dict(re.findall(r"^(\w+) +(\d+)$", plan.partition("Job stats:")[2].partition("\n\n")[0], re.M))
    stages = {stage.rule: str(stage.total) for stage in Watcher(study, datasets=ROOT / "config/datasets").look().stages}
    assert {rule: count for rule, count in counts.items() if rule not in ("all", "total")} == stages


@pytest.mark.study
@pytest.mark.parametrize("study", STUDIES, ids=lambda p: p.stem)
def test_dry_run(study, tmp_path):
    done = snakemake("--dry-run", "--quiet", "rules", "--configfile", study, "--directory", tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.study
def test_with_conda_every_python_gets_a_build_and_its_jobs_run_that(tmp_path, conda):
    study = tmp_path / "study.yaml"
    study.write_text(f"{(ROOT / 'config/smoke.yaml').read_text()}\nframeworks: [torch, caffe2]\n")
    arguments = ("--dry-run", "--printshellcmds", "--configfile", study, "--directory", tmp_path)
    done = snakemake(*arguments, "--use-conda", PATH=conda)
    assert done.returncode == 0, done.stdout + done.stderr
    plan = done.stdout + done.stderr
    # torch and the other stages have one Python, Caffe2 another.
    assert set(re.findall(r"--target (\S+)", plan)) == {"build/conda/base", "build/conda/caffe2"}
    commands = [" ".join(line.split()) for line in plan.splitlines() if " --log results/" in line]
    assert len(commands) > 10
    for command in commands:
        build = "build/conda/caffe2" if " --framework caffe2 " in command else "build/conda/base"
        assert f" PYTHONPATH={build}$" in f" {command}", command
        assert f" exec python {build}/bin/rvk " in command

    plain = snakemake(*arguments)
    assert "build/conda" not in plain.stdout + plain.stderr


@pytest.mark.study
@pytest.mark.parametrize("bench", ["false", "quick", "full"])
def test_the_kernels_are_timed_for_a_study_that_asks(tmp_path, conda, bench):
    study = tmp_path / "study.yaml"
    study.write_text(f"{(ROOT / 'config/smoke.yaml').read_text()}\nbench: {bench}\n")
    arguments = ("--dry-run", "--printshellcmds", "--configfile", study, "--directory", tmp_path)
    plan = snakemake(*arguments).stdout
    commands = [
        line.split(" bench ")[1].split()
        for line in plan.splitlines()
        if " kernels.log bench " in line.replace("results/bench/", " ")
    ]
    options = {"false": [], "quick": [["--quick", "--out", "results/bench"]], "full": [["--out", "results/bench"]]}
    assert commands == options[bench]
    with_conda = snakemake(*arguments, "--use-conda", PATH=conda).stdout
    assert ("RVK_BENCH_PYTHON=$(cat build/conda/bench.python) " in with_conda) == (bench != "false")


@pytest.mark.study
def test_a_study_stops_before_its_first_job_when_a_framework_is_not_installed(tmp_path):
    # As if torch were not there: what Python imports first hides it from the look-up.
    hidden = tmp_path / "hide/sitecustomize.py"
    hidden.parent.mkdir()
    hidden.write_text(
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'torch' else find(name, package)\n"
    )
    # No empty part: that is the working directory, whose source tree would hide the installed package.
    paths = os.pathsep.join(filter(None, [str(hidden.parent), os.environ.get("PYTHONPATH")]))
    arguments = ("--cores", "1", "--configfile", ROOT / "config/smoke.yaml", "--directory", tmp_path / "work")
    done = snakemake(*arguments, PYTHONPATH=paths)
    assert done.returncode == 1
    assert "torch is not installed: no package torch" in done.stderr
    assert not list((tmp_path / "work").rglob("*.jsonl"))


@pytest.mark.study
def test_lint(tmp_path):
    done = snakemake("--lint", "--directory", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.study
def test_a_dry_run_for_a_cluster_tells_what_each_job_asks_for(tmp_path):
    pytest.importorskip("snakemake_executor_plugin_slurm")
    table = yaml.safe_load((ROOT / "config/clusters/slurm.yaml").read_text())
    table["every_job"].update(slurm_partition="long", slurm_account="ours")
    table["gpu_job"].update(slurm_partition="fast", gpu_model="a100")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(table))
    (tmp_path / "study.yaml").write_text(f"{(ROOT / 'config/smoke.yaml').read_text()}\ndevice: cuda\n")
    profile = ("--profile", "workflow/profiles/slurm", "--configfile", tmp_path / "study.yaml", "--directory", tmp_path)
    done = snakemake("--dry-run", *profile, "--config", f"cluster={tmp_path / 'mine.yaml'}")
    assert done.returncode == 0, done.stderr
    seen = set()
    for rule, resources in re.findall(r"^ *rule (\w+):\n(?: +.*\n)*? +resources: (.*)$", done.stdout, re.M):
        asked = dict(part.split("=") for part in resources.split(", "))
        row = {**table["every_job"], **table["rules"].get(rule, {})}
        if rule in ("train", "predict"):
            row = {**table["every_job"], **table["gpu_job"], **table["rules"][rule]}
        if rule != "all":
            assert row == {name: yaml.safe_load(asked[name]) for name in row}, rule
            assert ("gpu" in asked) == ("gpu" in row), rule
            seen.add(rule)
    assert len(seen) == 12
    groups = re.findall(r"^\[.*\] Group job (\w+)", done.stdout, re.M)
    assert sorted(groups) == ["data", "data", "data", "evaluate", "init", "report"]

    table["rules"]["trian"] = {}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(table))
    done = snakemake("--dry-run", *profile, "--config", f"cluster={tmp_path / 'mine.yaml'}")
    assert done.returncode == 1
    assert "no rule 'trian'" in done.stdout + done.stderr


@pytest.mark.study
def test_parts_ask_a_cluster_for_what_their_stage_asks(tmp_path):
    pytest.importorskip("snakemake_executor_plugin_slurm")
    rules = yaml.safe_load((ROOT / "config/clusters/slurm.yaml").read_text())["rules"]
    study = tmp_path / "study.yaml"
    parts = "device: cuda\nparts: { chip: 2, predict: 3, evaluate: 2 }"
    study.write_text(f"{(ROOT / 'config/smoke.yaml').read_text()}\n{parts}\n")
    profile = ("--profile", "workflow/profiles/slurm", "--configfile", study, "--directory", tmp_path)
    plan = snakemake("--dry-run", *profile).stdout
    asked: dict[str, set] = {}
    for rule, resources in re.findall(r"^ *rule (\w+):\n(?: +.*\n)*? +resources: (.*)$", plan, re.M):
        named = dict(part.split("=") for part in resources.split(", "))
        asked.setdefault(rule, set()).add((named.get("mem_mb"), named.get("gpu")))
    for stage, gather, gpu in (
        ("chip", "gather_chips", None),
        ("predict", "gather_predictions", "1"),
        ("evaluate", "gather_evaluation", None),
    ):
        assert asked[f"{stage}_part"] == {(str(rules[stage]["mem_mb"]), gpu)}
        assert asked[gather] == {(str(rules[stage]["mem_mb"]), None)}
    # Parts are there to run on several nodes: none shares a job with another.
    groups = re.findall(r"^\[.*\] Group job .*\n(?:(?!\[).*\n)*", plan, re.M)
    assert max(group.count("rule evaluate_part:") for group in groups) == 1
    assert not any(f"rule {stage}_part:" in group for group in groups for stage in ("chip", "predict"))


def test_the_rules_have_no_retries_of_their_own():
    # The snakemake inside a SLURM job would repeat the rule in the same allocation.
    assert "retries:" not in "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
