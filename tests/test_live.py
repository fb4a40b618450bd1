"""How far a study is, in every state that it can be in, from files as the workflow and its jobs leave them."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from rich.console import Console

from rvkernels import record, workflow_log
from rvkernels.files import write_json
from rvkernels.live import Watcher, _gpus
from rvkernels.progress import Status, birth, boot
from rvkernels.serve import Server, serve
from rvkernels.study import Study, load
from rvkernels.watch import render, spark, watch

ROOT = Path(__file__).parents[1]
RUN = "runs/landcover/unet/torch/0"

# What snakemake 9 writes, shortened.
LOG = """Assuming unrestricted shared filesystem usage.

Building DAG of jobs...
Provided cores: 2
Job stats:
job         count
--------  -------
fetch           3
split           3
train           3
all             1
total          10

Select jobs to execute...
Execute 2 jobs...
[Sun Nov 22 12:52:12 2026]
localrule fetch:
    input: /somewhere/towns.yaml
    output: results/smoke/data/landcover/scenes.jsonl
    log: results/smoke/logs/landcover/fetch.log
    jobid: 34
    wildcards: experiment=landcover
    resources: tmpdir=/tmp
[Sun Nov 22 12:52:12 2026]
localrule fetch:
    log: results/smoke/logs/cells/fetch.log
    jobid: 22
    wildcards: experiment=cells
[Sun Nov 22 12:52:22 2026]
Finished jobid: 22 (Rule: fetch)
1 of 10 steps (10%) done
[Sun Nov 22 12:52:32 2026]
Error in rule fetch:
    message: None
    jobid: 34
    log: results/smoke/logs/landcover/fetch.log (check log file(s) for error details)
[Sun Nov 22 12:52:42 2026]
localrule train:
    log: results/smoke/logs/landcover/train/unet/torch/0.log
    jobid: 7
    wildcards: experiment=landcover, model=unet, framework=torch, seed=0
"""


@pytest.fixture
def smoke(tmp_path, monkeypatch):
    """A working directory where the smoke study has been resolved, and nothing else."""
    directory = tmp_path / "a study"
    directory.mkdir()
    monkeypatch.chdir(directory)
    study = Study.resolve(load(str(ROOT / "config/smoke.yaml")), datasets=ROOT / "config/datasets")
    study.settings_file("results/smoke/settings", ("compare",))
    return directory


def watcher() -> Watcher:
    return Watcher("results/smoke")


def write_log(text: str = LOG) -> None:
    """As if snakemake had started where LOG says."""
    folder = Path(".snakemake/log")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "2026-11-22T125200.123456.snakemake.log").write_text(text)


def write_outputs(one: Watcher, *rules: str) -> None:
    for rule, _, path in one.outputs():
        if rule in rules or not rules:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")


def write_training(folder: Path, epochs: int) -> None:
    """log.csv as after so many epochs."""
    head = "epoch,step,lr,train_loss,val_miou,train_seconds,val_seconds,chips_per_s,peak_rss_mb,peak_device_mb"
    rows = [f"{e},{10 * e},0.1,{2 / e},{0.1 * e},4.0,1.0,50.0,300.0," for e in range(1, epochs + 1)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.csv").write_text("\n".join([head, *rows, ""]))


def write_status(folder: Path, process: int, born: str | None, **values) -> None:
    status = {"epochs": 2, "steps": 20, "batch": 8, "metric": "miou", "phase": "train", "epoch": 2, "step": 15}
    status |= {"loss": 0.75, "lr": 0.1, "cores": 1.5, "steps_per_s": 2.0, "updated": time.time(), "boot": boot()}
    write_json(folder / "status.json", {**status, "process": process, "born": born, **values})


def ended_process() -> tuple[int, str]:
    """A process that is no more, and when it was born."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    born = birth(child.pid)
    child.communicate(b"\n")
    return child.pid, born


def shown(state, width: int = 160, lines: int | None = None) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(render(state, width, lines))
    return console.file.getvalue()


# --- states ----------------------------------------------------------------------------------------------------------


def test_a_study_that_has_not_begun(smoke):
    state = watcher().look()
    assert (state.state, state.seconds, state.left_s, state.running) == ("not begun", None, None, [])
    assert {stage.rule: stage.total for stage in state.stages} == {
        **dict.fromkeys(("fetch", "split", "analyze", "chip", "init", "train", "predict", "baseline"), 3),
        "evaluate": 6,
        "compare": 1,
        "report": 1,
        "blog": 1,
    }
    assert all((stage.done, stage.running, stage.waiting) == (0, 0, stage.total) for stage in state.stages)
    assert {t.state for t in state.trainings} == {"waiting"}
    assert "not begun" in shown(state)


def test_the_studys_file_is_enough(smoke):
    (smoke / "results").rename(smoke / "elsewhere")
    state = Watcher(ROOT / "config/smoke.yaml", datasets=ROOT / "config/datasets").look()
    assert (state.study, state.state, state.folder) == ("smoke", "not begun", "results/smoke")


def test_a_running_study(smoke):
    one, folder = watcher(), Path("results/smoke") / RUN
    write_outputs(one, "fetch", "split", "init")
    write_log()
    write_training(folder, epochs=1)
    write_status(folder, os.getpid(), birth(os.getpid()))
    log = Path("results/smoke/logs/landcover/train/unet/torch/0.log")
    log.parent.mkdir(parents=True)
    log.write_text("2026-11-22 12:52:44 epoch 1/2: loss 2.0\n")
    state = one.look()
    assert state.state == "running"
    stages = {stage.rule: (stage.done, stage.running, stage.waiting) for stage in state.stages}
    assert stages["fetch"] == (1, 0, 2), "three were to be done again, one is, one failed"
    assert stages["split"] == (0, 0, 3), "files of jobs that are to be done again do not count"
    assert stages["init"] == (3, 0, 0)
    assert stages["train"] == (0, 1, 2)
    (job,) = state.running
    assert (job.rule, job.what, job.line) == ("train", "landcover unet torch 0", "epoch 1/2: loss 2.0")
    assert [job.rule for job in state.failed] == ["fetch"]
    training = next(t for t in state.trainings if t.state == "running")
    assert (training.epoch, training.step, training.steps, training.loss) == (2, 15, 20, 0.75)
    assert (training.metric, training.value, training.best, training.chips_per_s) == ("miou", 0.1, 0.1, 16.0)
    assert training.left_s == pytest.approx(5 / 2 + 1)  # five steps and a validation
    assert state.left_s is None, "no training has ended yet, and two are to come"
    assert training.memory_mb > 0
    text = shown(state)
    for words in ("15/20", "miou 0.100", "time left not known yet", "failed fetch"):
        assert words in text
    narrow = shown(state, 90)
    assert max(map(len, narrow.splitlines())) <= 90
    assert "miou 0.100" in narrow


def test_the_time_left_is_that_of_jobs_like_those_that_are_left(smoke):
    one = watcher()
    write_outputs(one)
    for rule, _, path in one.outputs():
        if rule in ("report", "predict"):
            path.unlink()
    running, done = (Path("results/smoke") / f"runs/{run}/torch/0" for run in ("landcover/unet", "cells/cnn"))
    (running / "record.json").unlink()
    write_training(running, epochs=1)
    write_training(done, epochs=2)
    write_status(running, os.getpid(), birth(os.getpid()))
    counts = LOG.replace("fetch           3\nsplit           3\n", "predict         3\nreport          1\n")
    predicted = """[Sun Nov 22 12:52:00 2026]
localrule predict:
    jobid: 90
    wildcards: experiment=cells, model=cnn, framework=torch, seed=0
[Sun Nov 22 12:53:40 2026]
Finished jobid: 90 (Rule: predict)
"""
    write_log(counts.replace("train           3", "train           1") + predicted)
    write_outputs(one, "predict")
    for experiment in ("landcover/unet", "objects/detector"):
        (Path("results/smoke/runs") / experiment / "torch/0/predictions/record.json").unlink()
    state = one.look()
    # This training's 3.5 s and two predictions like the one that took 100 s; no report has ended yet. Jobs take turns:
    # each has two threads, and there are two cores.
    assert state.left_s == pytest.approx(203.5)
    assert state.left_least
    assert "at least 3 min 2" in shown(state)


def test_a_training_of_this_run_counts_once(smoke):
    """One that the log says took 100 s, beside an earlier one whose epochs took 10: the next takes their mean."""
    one = watcher()
    write_outputs(one)
    runs = [Path("results/smoke/runs") / run for run in ("landcover/unet", "cells/cnn", "objects/detector")]
    for run in runs[:2]:
        write_training(run / "torch/0", epochs=2)
    (runs[2] / "torch/0/record.json").unlink()
    write_status(runs[2] / "torch/0", os.getpid(), birth(os.getpid()), steps_per_s=None)
    trained = """[Sun Nov 22 12:52:00 2026]
localrule train:
    log: results/smoke/logs/cells/train/cnn/torch/0.log
    jobid: 90
    wildcards: experiment=cells, model=cnn, framework=torch, seed=0
[Sun Nov 22 12:53:40 2026]
Finished jobid: 90 (Rule: train)
"""
    head = LOG[: LOG.index("[Sun")].replace("fetch           3\nsplit           3\n", "")
    write_log(head.replace("train           3", "train           2") + trained)
    state = one.look()
    assert state.left_s == pytest.approx((100 + 10) / 2)


def test_a_killed_study(smoke):
    one, folder = watcher(), Path("results/smoke") / RUN
    write_outputs(one, "fetch")
    write_log()
    write_training(folder, epochs=1)
    write_status(folder, *ended_process())
    state = one.look()
    assert (state.state, state.running, state.left_s) == ("stopped", [], None)
    training = next(t for t in state.trainings if t.state == "stopped")
    assert (training.epoch, training.value) == (1, 0.1)
    assert [job.rule for job in state.failed] == ["fetch"]
    assert "stopped" in shown(state)


@pytest.mark.parametrize(("silent", "expected"), [(5, "running"), (3600, "stopped")])
def test_a_training_on_another_machine_runs_while_it_tells(smoke, silent, expected):
    folder = Path("results/smoke") / RUN
    folder.mkdir(parents=True)
    write_status(folder, 1, "0", boot="another", updated=time.time() - silent)
    state = watcher().look()
    assert {t.state for t in state.trainings} == {"waiting", expected}
    assert state.state == ("running" if expected == "running" else "not begun")


def test_a_complete_study(smoke):
    one = watcher()
    write_outputs(one)
    write_training(Path("results/smoke") / RUN, epochs=2)
    write_log(LOG + "Complete log(s): /somewhere\n")
    state = one.look()
    assert state.state == "complete"
    assert all(stage.done == stage.total for stage in state.stages)
    assert state.trainings[0].curve == [(1, 2.0, 0.1), (2, 1.0, 0.2)]
    assert "▁█" in shown(state)


def test_another_studys_log_is_left_aside(smoke):
    write_log(LOG.replace("results/smoke/", "results/other/"))
    assert workflow_log.find(smoke, "smoke") is None
    assert watcher().look().state == "not begun"


@pytest.mark.parametrize(("quiet", "state"), [(True, "running"), (False, "stopped")])
def test_a_workflow_is_found_by_its_process(smoke, quiet, state):
    """One that is called snakemake, works in this directory, and started just before its log."""
    one = watcher()
    write_outputs(one, "fetch")
    write_log(LOG)
    Path("snakemake").write_text("input()")
    process = subprocess.Popen([sys.executable, "./snakemake"], stdin=subprocess.PIPE)
    if quiet:
        name = time.strftime("%Y-%m-%dT%H%M%S", time.localtime(time.time() + 1))
        Path(f".snakemake/log/{name}.123456.snakemake.log").touch()
    found = one.look()
    process.communicate(b"\n")
    assert found.state == state
    assert found.stages[0].done == 3
    assert one.look().state == "stopped"


def test_what_is_no_study_is_an_error(smoke):
    with pytest.raises(FileNotFoundError, match="neither a study's folder"):
        Watcher("results/nothing")
    with pytest.raises(FileNotFoundError, match="no study has begun here"):
        Watcher(smoke)


def test_many_trainings_are_cut_to_the_terminal(smoke):
    state = watcher().look()
    state = dataclasses.replace(state, trainings=state.trainings * 10)
    assert "and " not in shown(state)
    text = shown(state, lines=30)
    assert re.search(r"and \d+ waiting", text)
    assert len(text.splitlines()) <= 30


def test_spark_lines():
    assert spark([0.0, 0.5, 1.0]) == "▁▅█"
    assert spark([1.0, None]) == ""
    assert spark([2.0, 2.0]) == "▁▁"


# --- what a training tells -------------------------------------------------------------------------------------------


def test_status_is_written_in_time_and_removed_at_the_end(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    status = Status(tmp_path / "run/status.json", steps=30)
    status.tell("build", step=0)
    first = json.loads(status.path.read_text())
    assert (first["phase"], first["steps"], first["steps_per_s"]) == ("build", 30, None)
    assert (first["process"], first["born"]) == (os.getpid(), birth(os.getpid()))
    clock[0] += 0.5
    status.tell("train", now=False, step=5)
    assert json.loads(status.path.read_text()) == first, "not yet time"
    clock[0] += 1.5
    status.tell("train", now=False, step=10)
    second = json.loads(status.path.read_text())
    assert (second["phase"], second["step"], second["steps_per_s"]) == ("train", 10, 5.0)
    clock[0] += 100
    status.tell("validate")
    clock[0] += 2
    status.tell("train", now=False, step=11)
    assert json.loads(status.path.read_text())["steps_per_s"] == 5.0, "a validation is no slow step"
    status.end()
    assert list(status.path.parent.iterdir()) == []


# --- terminal and page -----------------------------------------------------------------------------------------------


def test_one_state_is_printed_where_there_is_no_terminal(smoke, capsys):
    watch("results/smoke")
    assert "Smoke study" in capsys.readouterr().out


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminated"])
def test_its_end_leaves_a_clean_terminal(smoke, end):
    main, side = pty.openpty()
    # Where the tests run in the background a shell has told them to ignore SIGINT, and so their children.
    program = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from rvkernels.cli import main; sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "watch", "results/smoke", "--every", "0.2"],
        stdin=side, stdout=side, stderr=side, cwd=smoke,
        env={**os.environ, "TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "120"},
    )  # fmt: skip
    os.close(side)
    text, deadline, asked = b"", time.monotonic() + 180, False
    while time.monotonic() < deadline:
        if select.select([main], [], [], 0.1)[0]:
            try:
                text += os.read(main, 65536)
            except OSError:  # the other side is closed
                break
        if not asked and text.count(b"Smoke study") >= 3:  # refreshed twice
            process.send_signal(end)
            asked = True
    os.close(main)
    assert process.wait(60) == 0
    assert asked
    after = text[text.rindex(b"\x1b[?1049l") :]  # back from the screen of its own
    assert text.count(b"\x1b[?1049h") == text.count(b"\x1b[?1049l") == 1
    assert text.rindex(b"\x1b[?25h") > text.rindex(b"\x1b[?25l"), "the cursor is shown again"
    assert b"Smoke study" in after
    assert b"Traceback" not in text


@pytest.fixture
def server(smoke):
    server = Server(watcher(), 0, 0.0)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask(server: Server, path: str, **headers: str) -> str:
    request = urllib.request.Request(server.address + path, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read().decode()


def test_a_port_that_is_taken_is_an_error(server):
    with pytest.raises(ValueError, match="choose another port"):
        serve("results/smoke", port=server.server_port, every=1.0)


def test_the_page_and_its_state(server):
    assert server.server_address[0] == "127.0.0.1"
    page = ask(server, "")
    assert "{{" not in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    state = json.loads(ask(server, "state"))
    assert (state["study"], state["state"], len(state["trainings"])) == ("smoke", "not begun", 3)
    write_training(Path("results/smoke") / RUN, epochs=2)
    first = json.loads(ask(server, "state"))["trainings"][0]
    assert first["curve"] == [[1, 2.0, 0.1], [2, 1.0, 0.2]]
    assert set(re.findall(r"\bt\.(\w+)", page)) <= first.keys(), "the page asks for what the state has not"
    words = json.loads(ask(server, "state"))["words"]
    assert set(re.findall(r"\bwords\.(\w+)", page)) == words.keys()
    heads, cells = [head for head, _ in words["heads"]], words["rows"][0]["cells"]
    assert dict(zip(heads, cells)) | {"epoch": "2/2", "loss": "1", "metric": "miou 0.200"} == dict(zip(heads, cells))


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (768, "dark"), (1440, "light")])
def test_the_page_in_a_browser(server, browser, width, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    folder = Path("results/smoke") / RUN
    write_training(folder, epochs=2)
    write_status(folder, os.getpid(), birth(os.getpid()))
    write_log()
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda r: said.append(r.url) if not r.url.startswith((server.address, "data:")) else None)
    page.goto(server.address)
    page.wait_for_selector("#trainings tr")
    assert "running" in page.inner_text("#head")
    assert page.inner_text("#trainings tr").split("\t")[:7] == [
        *("landcover", "unet", "torch", "0", "running", "2/2", "15/20")
    ]
    assert page.locator("#charts path").count() == 2  # the metric and the loss of the one that has epochs
    assert page.locator("#stages .stage").count() == len(watcher().look().stages)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = axe.Axe().run(page).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    context.close()
    assert said == []


def test_gpus_are_those_that_nvidia_smi_tells_of(tmp_path, monkeypatch):
    assert isinstance(_gpus(), list)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 97, 1024, 143771'\necho 'Other, [N/A], 10, 20'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert _gpus() == [
        {"name": "NVIDIA H200", "share": 0.97, "memory_used_mb": 1024.0, "memory_mb": 143771.0},
        {"name": "Other", "share": None, "memory_used_mb": 10.0, "memory_mb": 20.0},
    ]


@pytest.mark.parametrize("script", ["echo 'NVIDIA H200, 97, 1024, 143771'; exit 9", "exec sleep 60"])
def test_a_tool_that_fails_or_hangs_tells_of_no_gpu(tmp_path, monkeypatch, script):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(record, "PATIENCE_SECONDS", 0.5)
    assert _gpus() == []


@pytest.mark.parametrize(("path", "headers", "code"), [("state", {"Host": "elsewhere.example"}, 403), ("x", {}, 404)])
def test_the_server_answers_only_what_it_is_for(server, path, headers, code):
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(server, path, **headers)
    assert refused.value.code == code
    refused.value.close()
