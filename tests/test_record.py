"""Records have a closed set of keys and tell nothing about who ran them; logs are plain lines."""

from __future__ import annotations

import getpass
import json
import logging
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rvkernels import progress
from rvkernels.progress import LOG, Progress, start_log
from rvkernels.record import THREAD_VARIABLES, _commit, machine, software, write_record


def test_record_is_complete_and_anonymous(tmp_path):
    path = tmp_path / "record.json"
    write_record(path, what="train", validated=True, seed=1, times_s={"epoch": [1.5, 1.25]}, software_of={"net": "2.0"})
    text = path.read_text()
    record = json.loads(text)
    assert record["times_s"]["epoch"] == [1.5, 1.25]
    assert record["software"]["net"] == "2.0"
    assert record["software"]["python"] == platform.python_version()
    assert record["peak_rss_mb"] > 1
    assert {"cpu", "cores", "memory_mb"} <= record["machine"].keys()
    assert "kernel" not in record
    strings = re.findall(r'"([^"]*)"', text)
    for private in (platform.node(), getpass.getuser(), str(Path.home()), str(tmp_path), str(Path(__file__).parent)):
        assert private not in strings
        assert len(private) < 6 or private not in text


def test_a_record_says_how_threads_were_set(tmp_path, monkeypatch):
    for name in THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv("OMP_TOOL_LIBRARIES", "/home/someone/lib")
    write_record(tmp_path / "record.json", what="train", validated=True)
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["environment"] == {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "PASSIVE"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"what": "train"}, "'validated' is missing"),
        ({"validated": True}, "'what' is missing"),
        ({"what": "train", "validated": 1}, "expected True or False"),
        ({"what": "train", "validated": True, "sed": 1}, "unknown key 'sed'; .*Did you mean 'seed'"),
        ({"what": "train", "validated": True, "chips_per_s": float("nan")}, "JSON"),
    ],
)
def test_wrong_records_are_refused(tmp_path, fields, words):
    with pytest.raises(ValueError, match=words):
        write_record(tmp_path / "record.json", **fields)
    assert not list(tmp_path.iterdir())


def test_machine_counts():
    found = machine()
    assert 1 <= found["usable_cores"] <= found["cores"]
    assert found["memory_mb"] > 100
    assert found["cpu"]


def test_commit_of_a_checkout(tmp_path):
    def git(*words):
        settings = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *settings, "-C", tmp_path, *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    module = tmp_path / "__init__.py"
    module.write_text("")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message", "one")
    head = git("rev-parse", "HEAD")
    assert _commit(tmp_path) == {"commit": head, "dirty": False}
    module.write_text("changed = True")
    assert _commit(tmp_path) == {"commit": head, "dirty": True}


def test_commit_that_an_installed_package_was_built_from(tmp_path):
    assert _commit(tmp_path) == {}
    (tmp_path / "commit.txt").write_text("0123abc-dirty\n")
    assert _commit(tmp_path) == {"commit": "0123abc", "dirty": True}
    (tmp_path / "commit.txt").write_text("\n")
    assert _commit(tmp_path) == {}


def test_kernels_tell_how_they_were_built():
    pytest.importorskip("rvkernels._core")
    found = software()
    assert re.match(r"\w+ \d+\.\d+", found["compiler"])
    assert "-ffp-contract=off" in found["flags"]


def test_peak_memory_sees_an_allocation(tmp_path):
    code = "from rvkernels.record import peak_rss_mb as p; a = p(); b = b'x' * 2**27; b = None; print(p() - a)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert 120 < float(done.stdout) < 140


@pytest.fixture
def log_file(tmp_path):
    start_log(tmp_path / "logs" / "train.log")
    yield tmp_path / "logs" / "train.log"
    for handler in list(LOG.handlers):
        LOG.removeHandler(handler)
        handler.close()
    LOG.propagate = True


def test_log_lines_carry_the_time_and_progress_is_sparse(log_file, monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(progress.time, "perf_counter", lambda: float(next(clock)))
    logging.getLogger("rvkernels").info("start")
    with Progress(10, "train", "chips") as bar:
        for _ in range(10):
            bar.add(1, "loss 0.5")
    lines = log_file.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    assert lines[0].endswith("start")
    # Every add takes 4 s and a line comes at most every 10 s: after adds 3, 6 and 9.
    assert [re.search(r"train: (\d+) of 10 chips", line).group(1) for line in lines[1:]] == ["3", "6", "9"]
    assert lines[1].endswith("loss 0.5")
    assert "\r" not in log_file.read_text()


def test_second_start_replaces_the_first(log_file, tmp_path):
    start_log(tmp_path / "other.log")
    logging.getLogger("rvkernels").info("here")
    assert log_file.read_text() == ""
    assert "here" in (tmp_path / "other.log").read_text()


class Terminal:
    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass

    def isatty(self):
        return True


def test_a_terminal_gets_a_bar(log_file, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    start_log(None)
    with Progress(3, "chips", "chip") as bar:
        assert "chips" in terminal.text
        assert "0/3" in terminal.text
        bar._bar.mininterval = 0.0
        bar.add(3)
        assert "3/3" in terminal.text


def test_a_terminal_gets_a_bar_beside_the_log_file(log_file, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with Progress(3, "chips", "chip") as bar:
        bar.add(1)
    assert "chips" in terminal.text
    assert "chips: 1 of 3 chip" in log_file.read_text()
