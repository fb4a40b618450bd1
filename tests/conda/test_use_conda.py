"""`snakemake --use-conda` from end to end: the small study in environments that are made of a channel in a folder.

No conda and none of its channels is asked: conda.py stands in for the one, channel.py makes the other of what this
machine has. The run prints what of it is real and what is stood in for.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rattler", reason="py-rattler, which solves and links environments, is not installed")
pytest.importorskip("conda_package_handling", reason="conda-package-handling, which packs packages, is not installed")
sys.path.insert(0, str(Path(__file__).parent))
import channel
import conda

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = sorted(path.stem for path in (ROOT / "envs").glob("*.yaml"))
FRAMEWORKS = [name for name in ENVIRONMENTS if name not in ("base", "bench")]


class Machine:
    """A copy of the checkout's sources, a channel, a working directory, and the stand-in for conda on PATH."""

    def __init__(self, folder, say):
        self.say, self.folder = say, folder
        self.checkout, self.channels, self.work = (folder / name for name in ("checkout", "channels", "work"))
        compiled = shutil.ignore_patterns("*.so", "__pycache__")
        for name in ("config", "cpp", "envs", "rvkernels", "workflow"):
            shutil.copytree(ROOT / name, self.checkout / name, ignore=compiled)
        for name in ("CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy2(ROOT / name, self.checkout / name)
        binaries = conda.install(folder / "conda")
        here = Path(sys.executable).parent
        # What is linked into a new environment is not compiled: Python has to keep what it compiles, or every job would
        # compile pandas and the rest anew.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.variables = {
            **inherited,
            "PATH": os.pathsep.join([str(binaries), str(here), os.environ["PATH"]]),
            "RVK_CHANNELS": str(self.channels),
        }

    def serve(self, *environments):
        """Fill the channel with what these environments ask for; skip where this machine has not got that."""
        self.channels.mkdir(exist_ok=True)
        try:
            lines = channel.write(self.channels, [self.checkout / f"envs/{name}.yaml" for name in environments])
        except LookupError as missing:
            pytest.skip(f"no packages to be had for {', '.join(environments)}: {missing}")
        for line in lines:
            self.say(line)

    def call(self, *command, **variables):
        done = subprocess.run(
            command, env={**self.variables, **variables}, cwd=self.folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]
        return done.stdout + done.stderr

    def snakemake(self, *arguments):
        return self.call(
            self.checkout / "workflow/run.sh", "--configfile", self.checkout / "config/smoke.yaml", "--cores", "2",
            "--directory", self.work, *arguments,
        )  # fmt: skip

    def python(self, environment, code):
        """What `code` prints in an environment, with the rvkernels that was built for it."""
        built = str(self.work / "build/conda/base")
        return self.call(environment / "bin/python", "-c", code, PYTHONPATH=built).strip()


@pytest.fixture(scope="module")
def machine(tmp_path_factory, request):
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    machine = Machine(tmp_path_factory.mktemp("with conda"), lambda line: reporter.write_line(f"  conda: {line}"))
    machine.say("real: Snakemake, rattler's solver, pip with the machine's package index, the C++ build, the study")
    machine.say("stood in for: the command conda, by tests/conda/conda.py; conda-forge, by a folder of these packages:")
    machine.serve("base", "torch")
    return machine


@pytest.fixture(scope="module")
def study(machine):
    """The finished small study, and what snakemake said of it."""
    return machine.snakemake("--sdm", "conda")


@pytest.fixture
def environment(machine, study):
    """A function: the folder of an environment that snakemake made."""

    def of(name):
        made = machine.work.glob(".snakemake/conda/*.yaml")
        text = (machine.checkout / f"envs/{name}.yaml").read_text()
        return next(path.with_suffix("") for path in made if path.read_text() == text)

    return of


def test_the_study_with_conda_has_the_tables_of_the_study_without(machine, study, smoke, assert_same_study):
    assert_same_study(machine.work, smoke)


def test_each_rule_ran_in_the_environment_of_its_framework(study, environment, machine):
    base, torch = environment("base"), environment("torch")
    activated = [
        line.rpartition(" ")[2].rstrip("_") for line in study.splitlines() if "Activating conda environment" in line
    ]
    trained = study.count("rule train:") + study.count("rule predict:")
    assert trained == 6
    assert activated.count(f".snakemake/conda/{torch.name.rstrip('_')}") == trained
    assert set(activated) == {f".snakemake/conda/{path.name.rstrip('_')}" for path in (base, torch)}
    look = (
        "from importlib.util import find_spec; print(*(find_spec(n) is not None for n in ('torch', 'pandas', 'numpy')))"
    )
    assert machine.python(torch, look) == "True False True"
    assert machine.python(base, look) == "False True True"


def test_an_environment_holds_what_its_file_asks_for(environment, machine):
    for name in ("base", "torch"):
        said = machine.call(environment(name) / "bin/python", "-m", "pip", "list", "--format", "freeze")
        has = {line.partition("==")[0].lower().replace("_", "-"): line.partition("==")[2] for line in said.splitlines()}
        dependencies = yaml.safe_load((machine.checkout / f"envs/{name}.yaml").read_text())["dependencies"]
        asked = [r.split("==") for d in dependencies if isinstance(d, dict) for r in d["pip"]]
        asked += [[word.strip() for word in d.split("=")] for d in dependencies if isinstance(d, str) and "=" in d]
        for package, version in asked:
            package = package.lower().replace("_", "-").removesuffix("-base")
            if package not in ("python", "gdal", *channel.OF_THE_MACHINE):
                assert has[package].partition("+")[0] == version, f"{package} in {name}"
        assert "No broken requirements" in machine.call(environment(name) / "bin/python", "-m", "pip", "check")


def test_with_nothing_edited_there_is_nothing_to_do(machine, study):
    assert "Nothing to be done" in machine.snakemake("--sdm", "conda")


def test_an_edit_of_a_cpp_file_is_compiled_and_the_jobs_that_call_kernels_run_again(machine, environment):
    source = machine.checkout / "cpp/module_core.cpp"
    text, mark = source.read_text(), 'm.attr("flags")'
    assert text.count(mark) == 1
    source.write_text(text.replace(mark, f'm.attr("edited") = 7;\n  {mark}'))
    assert f"Updated input files: {source}" in machine.snakemake("--dry-run", "--sdm", "conda")

    machine.snakemake("build/conda/base", "--sdm", "conda")
    plan = machine.snakemake("--dry-run", "--sdm", "conda")
    jobs = plan.partition("Job stats:")[2].partition("total")[0].split()
    assert {"chip", "train", "evaluate", "report"} <= set(jobs)
    assert "package" not in jobs
    for name in ("base", "torch"):
        assert machine.python(environment(name), "from rvkernels import _core; print(_core.edited)") == "7"


@pytest.mark.parametrize("name", [name for name in FRAMEWORKS if name != "torch"])
def test_the_other_frameworks_run_with_the_same_build(name, machine, study):
    machine.serve(name)
    prefix = machine.folder / name
    machine.call("conda", "env", "create", "--file", machine.checkout / f"envs/{name}.yaml", "--prefix", prefix)
    assert "No broken requirements" in machine.call(prefix / "bin/python", "-m", "pip", "check")
    load = f"from rvkernels.frameworks.{name} import Framework; print(Framework.__module__)"
    assert (
        machine.python(prefix, f"import rvkernels.predict, rvkernels.train; {load}") == f"rvkernels.frameworks.{name}"
    )
