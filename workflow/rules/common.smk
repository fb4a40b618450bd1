import os
import sys
import tomllib
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod

from rvkernels import environment
from rvkernels.cluster import Cluster
from rvkernels.study import Study

CHECKOUT = Path(workflow.basedir).parent
sys.path.append(str(CHECKOUT / "envs"))
from frameworks import shares_base

# With conda a rule runs the rvkernels that package.smk builds from the checkout. Without, it runs the rvk beside snakemake,
# which goes on in the framework's own environment where there is one (rvkernels/environment.py).
CONDA = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
RVK = (
    "PYTHONPATH={input.package:q}${{PYTHONPATH:+:$PYTHONPATH}} exec python {input.package:q}/bin/rvk"
    if CONDA
    else "exec rvk"
)

# A cluster's table is no part of a study: a profile names it. Nor is the image with all environments.
SITE = config.pop("cluster", None)
IMAGE = config.pop("container", None)
try:
    STUDY = Study.resolve(
        config,
        datasets=CHECKOUT / "config/datasets",
        sources=CHECKOUT if CONDA else None,
    )
    CLUSTER = (
        Cluster.read(SITE, clusters=CHECKOUT / "config/clusters") if SITE else Cluster()
    )
except (ValueError, FileNotFoundError) as error:
    raise WorkflowError(str(error)) from None

RESULTS = f"results/{STUDY.name}"
DATA = f"{RESULTS}/data/{{experiment}}"
BENCH = f"{RESULTS}/bench_train"
# Kernels have nothing to do with a study: those that ask for their times share them.
KERNELS = "results/bench/kernels.json"
PEERS_PYTHON = "build/conda/bench.python"
RUN = f"{RESULTS}/runs/{{experiment}}/{{model}}/{{framework}}/{{seed}}"
PARTS = f"{RESULTS}/parts/{{experiment}}"
BASELINE = f"{RESULTS}/runs/{{experiment}}/baseline/logistic/0"

STUDY.tell_jobs()


# Where a stage is one job, the rules of its parts are not there.
scattergather:
    **STUDY.parts,


wildcard_constraints:
    experiment="[a-z0-9_]+",
    model="(?!baseline/)[a-z0-9_]+",
    framework="[a-z0-9_]+",
    seed="[0-9]+",
    batch="[0-9]+",
    round="[0-9]+",
    environment="[a-z0-9_]+",


def asks(rule, device="cpu", workers=1):
    """What the jobs of this rule ask a cluster for."""
    gpu = device == "cuda"
    try:
        return CLUSTER.asks(rule, gpu=gpu, workers=workers, threads=STUDY.threads)
    except ValueError as error:
        raise WorkflowError(str(error)) from None


def start_workers(wildcards, resources):
    """What stands before `rvk train`: on several nodes the command that starts it as so many tasks.

    They do not look after this snakemake, which runs on one of the nodes; SLURM ends them with its job.
    """
    if not resources.get("mpi"):
        return ""
    return (
        f"{resources.mpi} --ntasks={resources.tasks} --cpus-per-task={resources.cpus_per_task}"
        " --kill-on-bad-exit=1 --export=ALL,RVK_PARENT="
    )


def check_cluster():
    """Stop when the cluster's table has a row for a rule that is not there."""
    try:
        CLUSTER.check_rules(rule.name for rule in workflow.rules)
    except ValueError as error:
        raise WorkflowError(str(error)) from None


def settings(*stages):
    """A params function: the file with the settings of these stages for the wildcards' experiment."""

    def of(wildcards):
        return STUDY.settings_file(f"{RESULTS}/settings", stages, **wildcards)

    return of


def require_frameworks():
    """Stop before the first job when a framework of the study is not installed."""
    try:
        environment.check(STUDY.frameworks)
    except ValueError as error:
        raise WorkflowError(str(error)) from None


def require_files():
    """Stop before the first job when files are missing that a person has to get."""
    try:
        STUDY.check_files(RESULTS)
    except (ValueError, FileNotFoundError) as error:
        raise WorkflowError(str(error)) from None


def package(environment):
    """An input function: the rvkernels of an environment, none without conda.

    It is built once for all environments of one Python. Which jobs an edit of the code concerns is told by their
    settings file, not by the time of the build.
    """

    def of(wildcards):
        name = environment.format(**wildcards)
        return ancient(f"build/conda/{'base' if shares_base(name) else name}")

    return of if CONDA else []


def package_sources(wildcards):
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    return [
        str(path)
        for pattern in project["tool"]["rvkernels"]["sources"]
        for path in CHECKOUT.glob(pattern)
    ]


def part(wildcards):
    """A params function: the option for the part that this job is to do."""
    return f"--part {wildcards.scatteritem.replace('-of-', '/')}"


def dataset_file(wildcards):
    return STUDY.dataset_file(wildcards.experiment)


def split_file(wildcards):
    return STUDY.split_file(wildcards.experiment)


def pretrained_files(wildcards):
    return STUDY.pretrained_files(wildcards.experiment, wildcards.model)


def train_priority(wildcards):
    return STUDY.priority(**wildcards)


def bench_records(wildcards):
    return [m.path(BENCH) for m in STUDY.measurements()]


def bench_priority(wildcards):
    return STUDY.bench_priority(**wildcards)


def runs(name):
    """An input function: this file of every run of the study."""

    def of(wildcards):
        return [f"{RESULTS}/runs/{e}/{m}/{f}/{s}/{name}" for e, m, f, s in STUDY.runs()]

    return of


def controls(name):
    """An input function: this file of every control of the divergence."""

    def of(wildcards):
        return [
            f"{RESULTS}/runs/{e}/{m}/{f}/{s}/control/{name}"
            for e, m, f, s in STUDY.controls()
        ]

    return of


def baselines(name):
    """An input function: this file of every experiment's baseline."""

    def of(wildcards):
        return [f"{BASELINE}/{name}".format(experiment=e) for e in STUDY.experiments]

    return of


def of_every_experiment(name):
    """An input function: this file of every experiment's data."""

    def of(wildcards):
        return [f"{DATA}/{name}".format(experiment=e) for e in STUDY.experiments]

    return of


def figure_experiment(wildcards):
    """The experiment that a figure of the report is about, the last part of its name; "all" when it is of all."""
    ends = [e for e in STUDY.experiments if wildcards.name.endswith(f"_{e}")]
    return max(ends, key=len, default="all")
