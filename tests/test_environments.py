"""Environments: what the files of envs/ ask for, where a framework runs, and what is said where one cannot."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rvkernels import cli, environment, registry

ROOT = Path(__file__).parents[1]
FILES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "envs").glob("*.yaml"))}
FRAMEWORKS = [name for name in registry.names("frameworks") if name != "reference"]


def module(name):
    """A script of envs/, imported."""
    sys.path.insert(0, str(ROOT / "envs"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "envs"))


find_python = module("find_python")
frameworks = module("frameworks")


def normal(name):
    """A package's name as pip compares names."""
    return re.sub(r"[-_.]+", "-", name).lower().removesuffix("-base")


def conda_pins(file):
    """{package: version, or None} of an environment file's part for conda."""
    pairs = (re.split(r"\s*=+\s*", d, maxsplit=1) for d in file["dependencies"] if isinstance(d, str))
    return {normal(pair[0]): pair[1] if len(pair) == 2 else None for pair in pairs}


def pip_pins(lines):
    """{package: version} of requirements, every one of which is pinned."""
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), lines
    return {normal(name): version for name, version in (line.split("==") for line in lines)}


def pip_list(file):
    return [line for d in file["dependencies"] if isinstance(d, dict) for line in d["pip"]]


BASE = pip_pins([x for x in (ROOT / "envs/base.txt").read_text().splitlines() if x and not x.startswith("#")])


def test_a_framework_is_a_file_of_the_package_and_one_of_envs():
    assert set(FILES) - {"base", "bench"} == set(FRAMEWORKS)


@pytest.mark.parametrize("name", FILES)
def test_an_environment_is_pinned_and_says_one_version_of_a_package(name):
    file = FILES[name]
    assert file["channels"] == ["conda-forge", "nodefaults"]
    conda, pip = conda_pins(file), pip_pins(pip_list(file))
    # The compilers, and pip itself, decide no result.
    assert {package for package, version in conda.items() if version is None} - {"cxx-compiler"} == {"pip"}
    for package in conda.keys() & pip.keys():
        assert conda[package] == pip[package], package


@pytest.mark.parametrize("name", [n for n in FILES if frameworks.home(n) == frameworks.VENV])
def test_what_shares_an_environment_agrees_on_versions(name):
    for other in FILES:
        theirs = BASE if other == "base" else pip_pins(pip_list(FILES[other]))
        if frameworks.home(other) == frameworks.VENV:
            for package, version in {**conda_pins(FILES[name]), **pip_pins(pip_list(FILES[name]))}.items():
                if package in theirs and version is not None:
                    assert theirs[package] == version, f"{package} in {name} and {other}"


DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "osgeo": "gdal", "vl_convert": "vl-convert-python"}
# Of batches in bfloat16, which no training asks for, and of `rvk logs --to tensorboard`; their absence is told then.
OPTIONAL = {"ml_dtypes", "tensorboard"}


def packages(name):
    return conda_pins(FILES[name]).keys() | pip_pins(pip_list(FILES[name])).keys()


def third_party(*modules):
    """Packages that `modules` of rvkernels import, and the modules of ours that those import, in a function or not."""
    found, seen, waiting = set(), set(), list(modules)
    while waiting:
        name = waiting.pop()
        path = ROOT / name.replace(".", "/")
        path = next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)
        if path is None or path in seen:
            continue
        seen.add(path)
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {a.name for a in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
        waiting += names
        found |= {n.partition(".")[0] for n in names}
    return found - {"rvkernels", *sys.stdlib_module_names}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_an_environment_has_all_that_training_and_prediction_import(name):
    """Modules that are loaded by name, forms of datasets and the like, are among them."""
    kinds = ("datasets", "models", "tasks")
    modules = [f"rvkernels.{kind}.{module}" for kind in kinds for module in registry.names(kind)]
    needed = third_party("rvkernels.train", "rvkernels.predict", *modules)
    assert {"numpy", "PIL", "osgeo"} <= needed
    assert {normal(DISTRIBUTIONS.get(n, n)) for n in needed - OPTIONAL} - packages(name) == set()


def test_base_has_all_that_the_other_stages_import():
    kinds = ("charts", "datasets", "figures", "models", "tasks")
    modules = [f"rvkernels.{kind}.{module}" for kind in kinds for module in registry.names(kind)]
    needed = third_party("rvkernels.cli", *modules) - OPTIONAL
    assert {"pandas", "matplotlib", "jsonschema"} <= needed
    assert {normal(DISTRIBUTIONS.get(n, n)) for n in needed} - packages("base") == set()


@pytest.mark.parametrize("name", [n for n in FILES if n != "bench"])
def test_what_builds_is_where_something_is_built(name):
    """rvkernels is built once for a Python; the compilers are big."""
    builds = name == "base" or not frameworks.shares_base(name)
    tools = {"cmake", "ninja", "pybind11", "scikit-build-core"}
    assert tools & packages(name) == (tools if builds else set())
    compiles = {"torch"}  # with `compile: true`
    assert ("cxx-compiler" in packages(name)) == (builds or name in compiles)


def test_another_python_means_an_environment_of_its_own():
    assert frameworks.read("base")[0] == "3.11"
    assert frameworks.home("torch") == ROOT / ".venv"
    assert frameworks.read("caffe2")[0] == "3.9"
    assert frameworks.home("caffe2") == ROOT / ".venv-caffe2"


def test_peers_of_the_kernels_get_an_environment_without_rvkernels(tmp_path, monkeypatch):
    assert frameworks.home("bench") == ROOT / ".venv-bench"
    monkeypatch.setattr(frameworks, "VENV", tmp_path / ".venv")
    script(tmp_path / "bin/gdal-config", "echo 3.6.2")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    ran, built = [], []
    monkeypatch.setattr(frameworks, "pip", lambda environment, *arguments: ran.append((environment, arguments)))
    monkeypatch.setattr(frameworks, "build", built.append)
    assert frameworks.main(["bench"]) == 0
    own = tmp_path / ".venv-bench"
    assert frameworks.runs(own)
    assert [environment for environment, _ in ran] == [own, own]
    (_, installed), (_, checked) = ran
    assert installed[:2] == ("install", "--quiet")
    assert {"torch==2.13.0", "rusterize==0.9.1"} < set(installed)
    assert checked == ("check",)
    assert built == [tmp_path / ".venv"]
    assert frameworks.main(["bench"]) == 0  # a second time there is nothing to do
    assert len(ran) == 2


def test_packages_installed_here_are_those_of_the_files():
    """Where the tests run in .venv, it holds what base.txt says."""
    if Path(sys.prefix) != frameworks.VENV:
        pytest.skip("the tests do not run in this checkout's .venv")
    from importlib.metadata import version

    assert {name: version(name) for name in BASE} == BASE


def test_set_up_names_an_unknown_framework_and_a_wrong_study(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(frameworks, "build", lambda environment: None)
    assert frameworks.main(["troch"]) == 1
    study = tmp_path / "study.yaml"
    study.write_text("study: a")
    assert frameworks.main([str(study)]) == 1
    assert frameworks.main([str(tmp_path / "none.yaml")]) == 1
    unknown, wrong, absent = capsys.readouterr().out.splitlines()
    assert unknown.startswith("setup: error: no envs/troch.yaml; there are base, ")
    assert "experiments" in wrong
    assert "none.yaml: no such study file" in absent


def test_set_up_reads_the_frameworks_of_a_study():
    smoke = str(ROOT / "config/smoke.yaml")
    assert frameworks.asked([smoke]) == ["torch"]
    assert frameworks.asked(["caffe2", smoke, "caffe2"]) == ["caffe2", "torch"]


def test_a_study_with_the_kernels_times_wants_their_peers(tmp_path):
    text = (ROOT / "config/smoke.yaml").read_text()
    (tmp_path / "study.yaml").write_text(f"{text}\nbench: quick\n")
    assert frameworks.asked([str(tmp_path / "study.yaml")]) == ["torch", "bench"]


def test_set_up_builds_again_when_a_source_changes_and_only_then(tmp_path, monkeypatch):
    (tmp_path / "cpp/ops").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (tmp_path / "cpp/ops/a.cpp").write_text("one")
    monkeypatch.setattr(frameworks, "ROOT", tmp_path)
    ran = []
    monkeypatch.setattr(frameworks, "pip", lambda environment, *arguments: ran.append(arguments))
    environment_folder = tmp_path / ".venv"
    environment_folder.mkdir()
    for text in ("one", "one", "two", "two"):
        (tmp_path / "cpp/ops/a.cpp").write_text(text)
        frameworks.build(environment_folder)
    assert len(ran) == 2


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine with nothing on PATH, no pyenv, no conda."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.delenv("RVK_PYTHON39", raising=False)
    monkeypatch.setattr(find_python, "KEYRING", tmp_path / "keyring.gpg")
    return tmp_path


def test_without_any_python_one_line_says_where_was_looked(bare):
    with pytest.raises(find_python.PythonMissingError) as error:
        find_python.find("3.9", bare / "made")
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("no Python 3.9 (")
    for way in find_python.WAYS:
        assert f"{way}: " in message


def test_set_up_without_a_python_fails_with_a_hint(bare, capsys, monkeypatch):
    monkeypatch.setattr(frameworks, "ROOT", bare)
    monkeypatch.setattr(frameworks, "VENV", bare / ".venv")
    monkeypatch.setattr(frameworks, "build", lambda environment: None)
    script(bare / "bin/gdal-config", "echo 3.6.2")
    assert frameworks.main(["caffe2"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("setup: error: caffe2: no Python 3.9")
    assert line.endswith("or take caffe2 out of `frameworks:` in the study")


def test_a_python_on_path_that_does_not_run_is_passed_over(bare):
    script(bare / "bin/python3.9", "echo 'pyenv: python3.9: command not found' >&2; exit 127")
    script(bare / "pyenv/versions/3.9.2/bin/python3.9", "echo no headers")
    good = script(bare / "pyenv/versions/3.9.10/bin/python3.9", "echo 3.9")
    assert find_python.find("3.9", bare / "made") == good


def test_one_way_may_be_asked_for(bare, monkeypatch):
    script(bare / "bin/python3.9", "echo 3.9")
    monkeypatch.setenv("RVK_PYTHON39", "pyenv")
    with pytest.raises(find_python.PythonMissingError, match=r"^no Python 3\.9 \(pyenv: none with headers\)$"):
        find_python.find("3.9", bare / "made")
    monkeypatch.setenv("RVK_PYTHON39", "apt")
    with pytest.raises(find_python.PythonMissingError, match="RVK_PYTHON39 is 'apt'; expected one of path, pyenv"):
        find_python.find("3.9", bare / "made")


def test_a_python_of_another_version_is_not_usable():
    assert not find_python.usable(Path(sys.executable), "3.8")
    assert not find_python.usable(Path("/nonexistent/python3.9"), "3.9")


ONE_LINE = """
# deb http://old.example/debian bookworm main
deb [arch=amd64 trusted=yes] http://one.example/debian bookworm main contrib  # the mirror
deb-src http://one.example/debian bookworm main
deb http://one.example/debian bookworm-updates main
deb http://one.example/debian-security bookworm-security main
deb https://vendor.example/linux bookworm stable
deb https://vendor.example/apt cloud-bookworm main
"""
DEB822 = """
Types: deb deb-src
# URIs: http://old.example/debian
URIs: http://two.example/debian
  mirror+file:/etc/apt/mirrors.list
Suites: stable stable-updates
Components: main contrib
Signed-By: /usr/share/keyrings/other.gpg

Types: deb
URIs: http://two.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main
"""


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"sources.list": ONE_LINE},
            ["http://one.example/debian bullseye", "http://one.example/debian-security bullseye-security"],
        ),
        (
            {"debian.sources": DEB822},
            [
                "http://two.example/debian bullseye",
                "mirror+file:/etc/apt/mirrors.list bullseye",
                "http://two.example/debian-security bullseye-security",
            ],
        ),
        ({"a.list": ONE_LINE, "sources.list": ONE_LINE, "readme.txt": "deb"}, 2),
        ({"a.list": "deb http://one.example/debian trixie main"}, []),
    ],
)
def test_sources_of_an_older_release_come_from_the_machines_own(files, expected):
    lines = find_python.sources(files, "bookworm", "bullseye")
    if isinstance(expected, int):
        assert len(lines) == expected
    else:
        key = f"deb [signed-by={find_python.KEYRING}] "
        assert lines == [f"{key}{line} main" for line in expected]


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """This process as if its environment were tmp_path/.venv, with the environment of caffe2 beside it.

    Its rvk writes what it was given into the file that is returned.
    """
    folder = tmp_path / "a checkout"
    monkeypatch.setattr(sys, "prefix", str(folder / ".venv"))
    (folder / ".venv/bin").mkdir(parents=True)
    heard = folder / "heard.txt"
    script(
        folder / ".venv-caffe2/bin/rvk",
        f'echo "$0|$*|$OMP_NUM_THREADS $OPENBLAS_NUM_THREADS $MKL_NUM_THREADS|${{PYTHONPATH-none}}" > "{heard}"',
    )
    return heard


def test_a_framework_runs_in_its_own_environment_where_there_is_one(beside):
    assert environment.home("caffe2") == beside.parent / ".venv-caffe2"
    assert environment.home("torch") == beside.parent / ".venv"


def test_an_unfinished_environment_is_none(beside):
    (beside.parent / ".venv-caffe2/bin/rvk").unlink()
    assert environment.home("caffe2") == beside.parent / ".venv"


def enter(code, **variables):
    """Run `code` in a process of its own: environment.enter replaces the process."""
    variables = {**{k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}, **variables}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_entering_another_environment_leaves_its_packages_behind(beside):
    package = os.path.dirname(os.path.dirname(environment.__file__))
    code = (
        f"import sys; sys.path.insert(0, {package!r}); sys.prefix = {str(beside.parent / '.venv')!r}\n"
        "from rvkernels import environment\n"
        "environment.enter('caffe2', 3, ['train', '--threads', '3'])\n"
        "print('still here')"
    )
    other = "/x/lib/python3.11/site-packages"
    assert enter(code, PYTHONPATH=f"{other}:/my models", OMP_NUM_THREADS="7") == ""
    rvk = beside.parent / ".venv-caffe2/bin/rvk"
    assert beside.read_text() == f"{rvk}|train --threads 3|3 3 3|/my models\n"
    enter(code, PYTHONPATH=other)
    assert beside.read_text().endswith("|3 3 3|none\n")


@pytest.mark.parametrize(("threads", "expected"), [(1, 1), (0, len(os.sched_getaffinity(0)))])
def test_threads_are_set_before_anything_numerical_is_imported(threads, expected, tmp_path, monkeypatch):
    (tmp_path / "settings.json").write_text("{}")
    code = f"""
import os, sys
from rvkernels import cli

def enter(*arguments):
    original(*arguments)
    waiting = [os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")]
    print(os.environ["OMP_NUM_THREADS"], *waiting, "numpy" in sys.modules)

def train(a):
    print("trains")

original, cli.environment.enter, cli.train = cli.environment.enter, enter, train
files = [f"--{{name}}=settings.json" for name in ("settings", "dataset", "chips", "statistics", "weights", "out")]
cli.main(["train", "--framework", "torch", "--model", "cnn", "--seed", "0", "--threads", "{threads}", *files])
"""
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    assert enter(code).split() == [str(expected), "None", "10000", "False", "trains"]
    assert enter(code, OMP_WAIT_POLICY="ACTIVE").split() == [str(expected), "ACTIVE", "None", "False", "trains"]
    assert enter(code, GOMP_SPINCOUNT="7").split() == [str(expected), "None", "7", "False", "trains"]


def test_a_missing_framework_is_one_line_with_the_command_that_installs_it(monkeypatch, capsys):
    monkeypatch.setattr(environment, "_packages", lambda framework: ["numpy", "no_such_package"])
    assert cli.main(["check", str(ROOT / "config/smoke.yaml"), "--datasets", str(ROOT / "config/datasets")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "rvk check: error: study: frameworks: torch is not installed: no package no_such_package in "
    )
    assert "`envs/setup.sh torch`" in line


def test_packages_of_another_environment_are_looked_up_there(beside):
    here = beside.parent / ".venv-caffe2/bin/python"
    here.symlink_to(sys.executable)
    assert environment._missing(here.parents[1], ["json", "no_such_package"]) == ["no_such_package"]
    here.unlink()
    script(here, "exit 1")
    assert environment._missing(here.parents[1], ["json"]) == ["json"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_framework_file_says_which_package_it_stands_on(framework):
    assert set(environment._packages(framework)) - {"numpy"} - set(sys.stdlib_module_names)
