"""The smoke study as SLURM jobs, through workflow/profiles/slurm: what they ask for, and how it ends after mishaps.

What is real: SLURM, its plugin for Snakemake, the profile, the rules and the study. What is not: the nodes are all this
machine, their GPUs are device files, and `sacctmgr` is two lines that know one account, since there is no accounting.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import yaml

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SMOKE = ROOT / "config/smoke.yaml"
BINARIES = Path(sys.executable).parent
WAIT_S = 1800  # the longest wait for a job to begin

# Mishaps: what a job's shell does before its rvk. ONCE is for the first attempt alone.
ONCE = 'rm "$RVK_TRIAL/$place"\n'
HANGS = "exec sleep 1000\n"
WAITS = 'while [ ! -e "$RVK_TRIAL/go" ]; do sleep 0.2; done\n'
TAKES_2_GB = 'exec python3 -c "import time; taken = bytearray(2_000_000_000); time.sleep(1000)"\n'
FAILS = 'echo "a planted failure" >&2; exit 3\n'


class Trial:
    """A working directory for studies whose jobs run tests/slurm/rvk, and the mishaps that these meet.

    real       the program that the jobs' rvk becomes after it
    table      what jobs ask for
    variables  in the jobs' environment
    """

    def __init__(
        self, slurm, folder: Path, real: Path = BINARIES / "rvk", table: Path = HERE / "cluster.yaml", **variables: str
    ) -> None:
        self.slurm, self.table = slurm, table
        self.work = folder / "work"
        self.notes = folder / "notes"
        programs = folder / "bin"
        for made in (self.work, self.notes, programs):
            made.mkdir()
        shutil.copy(HERE / "rvk", programs)
        (programs / "sacctmgr").write_text("#!/bin/sh\necho towns\n")
        (programs / "sacctmgr").chmod(0o755)
        # A job's bash reads this when snakemake has set its own PATH.
        (folder / "path.sh").write_text(f'export PATH="{programs}:$PATH"\n')
        self._variables = {
            **os.environ,
            "PATH": os.pathsep.join([str(programs), str(BINARIES), os.environ["PATH"]]),
            "BASH_ENV": str(folder / "path.sh"),
            "RVK_TRIAL": str(self.notes),
            "RVK_REAL": str(real),
            **variables,
        }
        self._earlier = 0

    def plant(self, place: str, mishap: str) -> None:
        (self.notes / place).write_text(mishap)

    def calls(self, place: str | None = None) -> list[SimpleNamespace]:
        """Every note of the jobs' rvk, or those of one place, in order."""
        path = self.notes / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        names = ("kind", "place", "job", "node", "device")
        calls = [SimpleNamespace(**dict(zip(names, line.split()))) for line in lines]
        return [call for call in calls if place in (None, call.place)]

    def await_call(self, place: str, run: subprocess.Popen) -> SimpleNamespace:
        """The first call of a place since the start of this run."""
        deadline = time.monotonic() + WAIT_S
        while not (calls := [call for call in self.calls()[self._earlier :] if call.place == place]):
            assert run.poll() is None, f"the study ended before {place} began: {run.communicate()[0][-5000:]}"
            assert time.monotonic() < deadline, f"{place} did not begin"
            time.sleep(0.1)
        return calls[0]

    def start(self, *arguments: str | Path, study: Path = SMOKE) -> subprocess.Popen:
        """Snakemake with the profile, begun. The profile's two retries would take long; one is as good."""
        self._earlier = len(self.calls())
        often = [sys.executable, HERE / "often.py", *arguments, "--profile", "workflow/profiles/slurm"]
        table = ["--config", f"cluster={self.table}"]
        status = ["--slurm-init-seconds-before-status-checks", "3", "--retries", "1"]
        return self._start(*often, *table, *status, "--configfile", study)

    def run_here(self, *arguments: str | Path, study: Path) -> tuple[int, str]:
        """The same without SLURM."""
        return end(self._start(BINARIES / "snakemake", *arguments, "--cores", "2", "--configfile", study))

    def _start(self, *command: str | Path) -> subprocess.Popen:
        command = self.slurm.command(*command, "--directory", self.work, cwd=ROOT)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        # Where the tests run in the background a shell has told them to ignore SIGINT, and so their children.
        heeding = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(command, env=self._variables, cwd=ROOT, preexec_fn=heeding, **pipes)


def end(run: subprocess.Popen) -> tuple[int, str]:
    """The exit code of a run, and what it said."""
    with run:
        said, _ = run.communicate()
    return run.returncode, said


def jobs_of(jobs: list[dict[str, str]], name: str) -> list[dict[str, str]]:
    """The jobs of a rule or group: the plugin's comment has wildcards, or the rules of a group, after its name."""
    return [job for job in jobs if job["Comment"].startswith(f"rule_{name}_")]


def asked(job: dict[str, str]) -> tuple[int, int, int]:
    """(CPUs, memory in MB, run time in minutes) that a job was submitted with."""
    hours, minutes, seconds = job["TimeLimit"].split(":")
    assert seconds == "00"
    return int(job["NumCPUs"]), int(job["MinMemoryNode"].removesuffix("M")), 60 * int(hours) + int(minutes)


@pytest.fixture(scope="module")
def story(slurm, tmp_path_factory):
    """The smoke study in three calls: with mishaps in its jobs, stopped with Ctrl-C, and left to itself."""
    trial = Trial(slurm, tmp_path_factory.mktemp("story"))
    before = len(slurm.jobs())

    trial.plant("objects_fetch", ONCE + WAITS)
    trial.plant("landcover_fetch", ONCE + TAKES_2_GB)
    trial.plant("cells_fetch", ONCE + HANGS)
    trial.plant("landcover_init_unet_0", ONCE + HANGS)
    trial.plant("cells_train_cnn_torch_0", FAILS)
    run = trial.start()
    drained = trial.await_call("objects_fetch", run)
    slurm.run("scontrol", "update", f"NodeName={drained.node}", "State=DRAIN", "Reason=test")
    try:
        not_started = [job["JobId"] for job in slurm.jobs() if job["JobState"] == "PENDING"]
        begun = slurm.jobs()[-1]["JobId"]
        late = trial.await_call("landcover_init_unet_0", run)
        (shortened,) = (job for job in slurm.jobs() if job["JobId"] == late.job)
        slurm.run("scontrol", "update", f"JobId={late.job}", "TimeLimit=1")  # the row's minutes would take long
        cancelled = trial.await_call("cells_fetch", run)
        slurm.run("scancel", cancelled.job)
        (trial.notes / "go").touch()
        mishaps = end(run)
    finally:
        slurm.run("scontrol", "update", f"NodeName={drained.node}", "State=RESUME")
    first = slurm.jobs()[before:]
    elsewhere = [job for job in first if job["JobId"] in not_started or int(job["JobId"]) > int(begun)]

    trial.plant("cells_train_cnn_torch_0", HANGS)
    run = trial.start()
    interrupted = trial.await_call("cells_train_cnn_torch_0", run)
    (snakemake,) = psutil.Process(run.pid).children()
    snakemake.send_signal(signal.SIGINT)
    stopped = end(run)
    left = slurm.run("squeue", "--noheader", "--states=PENDING,RUNNING")

    (trial.notes / "cells_train_cnn_torch_0").unlink()
    finished = end(trial.start())
    return SimpleNamespace(
        trial=trial, jobs=slurm.jobs()[before:],
        mishaps=mishaps, first=first, drained=drained, elsewhere=elsewhere, cancelled=cancelled, shortened=shortened,
        stopped=stopped, interrupted=interrupted, left=left, finished=finished,
    )  # fmt: skip


def attempts(story, place):
    """The jobs of the first call in which this place was reached, in order."""
    numbers = [call.job for call in story.trial.calls(place)]
    return [job for job in story.first if job["JobId"] in numbers]


def log_of(story, job):
    """SLURM's log of a job."""
    (log,) = (story.trial.work / ".snakemake/slurm_logs").rglob(f"{job['JobId']}.log")
    return log


def test_the_study_ends_with_the_tables_of_the_local_one(slurm, story, smoke, assert_same_study):
    code, said = story.finished
    assert code == 0, said
    assert_same_study(story.trial.work, smoke)


# CPUs, memory and run time of an undisturbed job, from cluster.yaml and the study's two threads. A group asks for the
# memory and CPUs of what runs side by side on the profile's eight CPUs, and the run times of what runs in turn.
ASKED = {
    "data": (2, 1100, 50 + 10 + 20),
    "init": (3, 3 * 1000, 60),
    "chip": (2, 1200, 110),
    "train": (2, 3000, 120),
    "predict": (2, 3100, 130),
    "baseline": (3, 1300, 100),
    "evaluate": (8, 4 * 1000, 2 * 100),
    "report": (2, 3200, 100 + 140 + 100),
}


def test_every_rule_runs_as_a_job_and_asks_for_what_its_row_says(story):
    assert {re.match("rule_([a-z]+)", job["Comment"])[1] for job in story.jobs} == ASKED.keys()
    for name, row in ASKED.items():
        of_name = jobs_of(story.jobs, name)
        assert asked(story.shortened if name == "init" else of_name[0]) == row, name
        assert {(job["Partition"], job["Account"]) for job in of_name} == {("cpu", "towns")}, name
    assert all(call.node.startswith("cpu") for call in story.trial.calls())
    ran = {place for place in (call.place for call in story.trial.calls()) if place.count("_") == 0}
    assert ran == {"compare", "report", "blog"}


def test_the_log_of_every_job_is_kept(story):
    kept = {path.stem for path in (story.trial.work / ".snakemake/slurm_logs").rglob("*.log")}
    assert kept == {job["JobId"] for job in story.jobs}


def test_a_job_that_takes_too_much_memory_is_killed_and_retried_with_more(story):
    killed, again = attempts(story, "landcover_fetch")
    assert killed["JobState"] == "FAILED"
    assert "exceeded memory limit" in log_of(story, killed).read_text()
    assert again["JobState"] == "COMPLETED"
    cpus, memory, minutes = ASKED["data"]
    assert asked(again) == (cpus, 2 * memory, 2 * minutes)


def test_a_job_that_takes_too_long_is_killed_and_retried_with_more(story):
    killed, again = attempts(story, "landcover_init_unet_0")
    assert killed["JobState"] == "TIMEOUT"
    assert again["JobState"] == "COMPLETED"
    cpus, memory, minutes = ASKED["init"]
    assert asked(again) == (cpus, 2 * memory, 2 * minutes)


def test_a_cancelled_job_is_submitted_again(story):
    cancelled, again = attempts(story, "cells_fetch")
    assert cancelled["JobId"] == story.cancelled.job
    assert cancelled["JobState"] == "CANCELLED"
    assert again["JobState"] == "COMPLETED"


def test_a_job_on_a_drained_node_ends_there_and_later_ones_run_elsewhere(story):
    (job,) = attempts(story, "objects_fetch")
    assert (job["JobState"], job["NodeList"]) == ("COMPLETED", story.drained.node)
    assert story.elsewhere
    assert {job["NodeList"] for job in story.elsewhere} == {"cpu1", "cpu2"} - {story.drained.node}


def test_a_job_that_fails_is_reported_and_keeps_only_those_from_running_that_need_it(story):
    code, said = story.mishaps
    assert code == 1
    failed = attempts(story, "cells_train_cnn_torch_0")
    assert [job["JobState"] for job in failed] == ["FAILED", "FAILED"]
    for job in failed:
        assert "a planted failure" in log_of(story, job).read_text()
        assert str(log_of(story, job)) in said
    predicted = {job["Comment"] for job in jobs_of(story.first, "predict") if job["JobState"] == "COMPLETED"}
    assert len(predicted) == 2
    assert not any("cells" in comment for comment in predicted)


def test_ctrl_c_cancels_the_jobs(story):
    code, _ = story.stopped
    assert code != 0
    (job,) = (job for job in story.jobs if job["JobId"] == story.interrupted.job)
    assert job["JobState"] == "CANCELLED"
    assert story.left == ""


def test_two_nodes_train_one_model_of_the_study_together(slurm, smoke, tmp_path):
    table = yaml.safe_load((HERE / "cluster.yaml").read_text())
    table["rules"]["train"]["nodes"] = 2
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(table))
    study = tmp_path / "together.yaml"
    study.write_text(f"{SMOKE.read_text()}workers: 2\n")
    # The names of virtual nodes have no address.
    trial = Trial(slurm, tmp_path, table=tmp_path / "two.yaml", MASTER_ADDR="127.0.0.1")
    runs = "results/smoke/runs"
    shutil.copytree(smoke, trial.work, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs"))
    before = len(slurm.jobs())
    trained = f"{runs}/cells/cnn/torch/0"
    code, said = end(trial.start(f"{trained}/record.json", study=study))
    assert code == 0, said

    (job,) = slurm.jobs()[before:]
    assert job["NumNodes"] == "2"
    assert {(call.place, call.job, call.node) for call in trial.calls()} == {
        ("cells_train_cnn_torch_0", job["JobId"], node) for node in ("cpu1", "cpu2")
    }
    together, alone = trial.work / trained, smoke / trained
    workers = json.loads((together / "record.json").read_text())["workers"]
    assert workers["count"] == 2
    assert [machine["workers"] for machine in workers["machines"]] == [[0], [1]]
    with np.load(together / "steps.npz") as a, np.load(alone / "steps.npz") as b:
        assert len(b["loss"]) > 0
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-3)


# In place of rvk where nothing is to be computed: makes what a rule wants.
MAKES = """#!/bin/bash
verb=$3
until [ "$1" = --out ]; do shift || exit 1; done
case $verb in
  train) mkdir -p "$2"; touch "$2/record.json" "$2/log.csv" ;;
  chip) mkdir -p "$2" ;;
  *) touch "$2" ;;
esac
"""
# Four trainings run at a time, so that all four GPUs are in use, and the fifth waits for one.
TRAINS = """for _ in $(seq 3000); do
  [ "$(grep -c '^begin cells_train' "$RVK_TRIAL/calls")" -ge 4 ] && break
  sleep 0.1
done
sleep 1
note end
"""


@pytest.fixture
def makes(tmp_path):
    """The program of MAKES."""
    path = tmp_path / "makes"
    path.write_text(MAKES)
    path.chmod(0o755)
    return path


def write_cells(path: Path, **settings: object) -> Path:
    """A study of one experiment, cells, with one network."""
    cells = {"task": "classification", "dataset": "towns", "chip": {"size": 32}, "models": {"cnn": {}}}
    path.write_text(yaml.safe_dump({**settings, "experiments": {"cells": cells}}))
    return path


def test_a_job_whose_node_dies_is_submitted_again_and_runs_elsewhere(slurm, tmp_path, makes):
    trial = Trial(slurm, tmp_path, makes)
    trial.plant("cells_init_cnn_0", ONCE + HANGS)
    before, wanted = len(slurm.jobs()), "results/lost/data/cells/init/cnn/0.npz"
    run = trial.start(wanted, study=write_cells(tmp_path / "lost.yaml", study="lost"))
    lost = trial.await_call("cells_init_cnn_0", run)
    try:
        slurm.kill_node(lost.node)
        code, said = end(run)
        first, again = slurm.jobs()[before:]
    finally:
        slurm.mend_node(lost.node)
    assert code == 0, said
    assert (first["JobId"], first["JobState"], first["NodeList"]) == (lost.job, "NODE_FAIL", lost.node)
    assert again["JobState"] == "COMPLETED"
    assert {again["NodeList"]} == {"cpu1", "cpu2"} - {lost.node}
    assert (trial.work / wanted).exists()


def test_no_two_gpu_jobs_share_a_device(slurm, tmp_path, makes):
    trial = Trial(slurm, tmp_path, makes)
    study = write_cells(tmp_path / "gpus.yaml", study="gpus", device="cuda", seeds=[*range(5)])
    code, said = trial.run_here("--until", "analyze", "chip", "init", study=study)
    assert code == 0, said
    for seed in range(5):
        trial.plant(f"cells_train_cnn_torch_{seed}", TRAINS)
    before = len(slurm.jobs())
    code, said = end(trial.start("--until", "train", study=study))
    assert code == 0, said

    jobs = slurm.jobs()[before:]
    assert len(jobs) == 5
    assert all((job["Partition"], job["TresPerJob"]) == ("gpu", "gres:gpu:fake:1") for job in jobs)
    busy, most = set(), 0
    for call in trial.calls():
        if "_train_" not in call.place:
            continue
        device = (call.node, call.device)
        assert call.device in ("0", "1")
        if call.kind == "begin":
            assert device not in busy
            busy.add(device)
        else:
            busy.remove(device)
        most = max(most, len(busy))
    assert most == 4
    assert busy == set()
