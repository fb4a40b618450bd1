"""rvk bench: pairs, checks, peers that are missing or end, and the JSON. The peers here are a file of the test's."""

from __future__ import annotations

import ast
import json
import re
import signal
import sys
import types

import numpy as np
import pytest
from osgeo import gdal

from rvkernels import cli, raster, registry
from rvkernels.bench import Case, Peer, Scene, _pairs, _processes, _run, _scene, _server
from rvkernels.bench._pairs import QUICK, measure

# A library of doubles: some right, some wrong, some that end. Its clock goes on by what a call says that it takes, so
# that no test depends on how busy the machine is.
LIBRARY = """
import os, signal, sys, time
import numpy as np

now = 0.0
time.perf_counter = lambda: now

def takes(seconds, call):
    def run():
        global now
        now += seconds
        return call()
    return run

def double(inputs, threads):
    out = np.empty_like(inputs["values"])
    return takes(0.001, lambda: np.multiply(inputs["values"], 2, out=out))

def slow(inputs, threads):
    return takes(0.019, double(inputs, threads))

def wrong(inputs, threads):
    return takes(0.001, lambda: inputs["values"] * 3)

def says_threads(inputs, threads):
    return takes(0.001, lambda: {"given": threads, "set": os.environ.get("OMP_NUM_THREADS")})

def prints(inputs, threads):
    print("hello from a library")
    return double(inputs, threads)

def raises(inputs, threads):
    def run():
        raise ValueError("no\\nsuch thing")
    return run

def dies(inputs, threads):
    def run():
        print("out of luck", file=sys.stderr)
        os._exit(3)
    return run

def dies_later(inputs, threads):
    run, calls = double(inputs, threads), []
    def once():
        calls.append(1)
        if len(calls) > 1:
            os._exit(4)
        return run()
    return once

def hangs(inputs, threads):
    return signal.pause
"""
DOUBLE, SLOW = 0.001, 0.02  # seconds of a call of these
TICK = 1e-4
PATIENCE = 600.0  # for an answer that comes, however busy the machine is
VALUES = np.arange(5.0)


def ours(inputs, threads):
    out = np.empty_like(inputs["values"])
    return lambda: np.multiply(inputs["values"], 2, out=out)


def twice(inputs, result):
    np.testing.assert_array_equal(result, inputs["values"] + inputs["values"])


def peer(function, check=np.testing.assert_array_equal, **more):
    return Peer(function, f"fake:{function}", check=check, **more)


def case(*peers, check=twice, **more):
    return Case(kernel="double", name="five", inputs={"values": VALUES}, ours=ours, peers=peers, check=check, **more)


class Clock:
    """In the place of the module `time`: goes on by a tick with each look at it, and when it is told to sleep."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        self.now += TICK
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    for module in (_pairs, _server):
        monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def folder(tmp_path, monkeypatch, clock):
    monkeypatch.setenv("RVK_BENCH_PYTHON", sys.executable)
    made = tmp_path / "peers"
    made.mkdir()
    (made / "fake.py").write_text(LIBRARY)
    (made / "absent.py").write_text("import a_library_that_is_not_there")
    return made


@pytest.fixture
def processes(folder):
    with _processes.Processes(timeout=PATIENCE, folder=folder) as started:
        yield started


def test_a_kernel_its_peers_and_its_floor_are_checked_and_timed(processes):
    floor = Peer("the same", "fake:double")
    record = measure(case(peer("slow"), peer("double"), floor=floor), 1, processes, QUICK)
    assert record["checked"]
    assert record["failed"] is None
    assert record["peer"] == "double"
    assert record["n"] == QUICK.rounds
    assert record["ours_s"] == pytest.approx(TICK)
    assert record["floor_s"] == pytest.approx(DOUBLE)
    assert record["ratio_to_fastest_peer"] == record["peer_s"] / record["ours_s"]
    assert record["ratio_to_floor"] == record["floor_s"] / record["ours_s"]
    slow, double = record["peers"]
    assert slow["peer_s"] == pytest.approx(SLOW)
    assert double["peer_s"] == record["peer_s"] == pytest.approx(DOUBLE)
    assert slow["checked"]
    assert double["checked"]
    json.dumps(record, allow_nan=False)


def test_without_a_floor_there_is_no_share_of_it(processes):
    record = measure(case(peer("double")), 1, processes, QUICK)
    assert record["ours_s"] > 0
    assert record["floor"] is record["floor_s"] is record["ratio_to_floor"] is None


def test_sides_take_turns_and_far_ones_only_once():
    calls = []

    def side(name, seconds):
        def clock(number, warm):
            calls.append(name)
            return [seconds * (1 + len(calls))] * number

        return clock

    near, far, floor = peer("double"), peer("slow"), peer("prints")
    easy = peer("raises", rival=False)  # beside which the near one is not far
    clocks = {None: side("ours", 1e-4), near: side("near", 2e-4), far: side("far", 1)}
    clocks |= {floor: side("floor", 1e-5), easy: side("easy", 1e-6)}
    seconds, rounds = _pairs._take_turns(
        clocks, case(near, far, easy, floor=floor), 1, _pairs.Effort(4, 1e-3, 10, 4, 1), {}
    )
    assert rounds == 4
    assert calls[:5] == ["ours", "near", "far", "floor", "easy"]
    turns = [calls[i : i + 4] for i in range(5, len(calls), 4)]
    assert all(sorted(turn) == ["easy", "floor", "near", "ours"] for turn in turns)
    assert len({turn[0] for turn in turns}) == 4
    # The median of the rounds, without the first calls, that decide how often each is called.
    assert seconds[None] == pytest.approx(
        np.median([1e-4 * (1 + i) for i, c in enumerate(calls, 1) if c == "ours"][1:])
    )
    assert seconds[far] == 4


def test_a_side_stops_when_its_time_is_up(clock):
    calls = []

    def twenty_milliseconds(number, warm):
        calls.append(number)
        clock.sleep(0.02)
        return [0.02]

    near = peer("double")
    effort = _pairs.Effort(rounds=8, turn=1e-3, limit=0.05, far=4, timeout=1)
    clocks = {None: lambda *_: [0.01], near: twenty_milliseconds}
    seconds, rounds = _pairs._take_turns(clocks, case(near), 1, effort, {})
    assert rounds == 8
    assert len(calls) == 3
    assert seconds == {None: 0.01, near: 0.02}


def test_a_peer_with_an_easier_task_is_timed_but_is_no_rival(processes):
    easy = Peer("easy", "fake:double", differs="it guesses", rival=False)
    record = measure(case(easy, peer("slow")), 1, processes, QUICK)
    assert record["peer"] == "slow"
    assert record["ratio_to_fastest_peer"] == record["peer_s"] / record["ours_s"]
    assert record["peers"][0]["peer_s"] == pytest.approx(DOUBLE)
    assert record["peers"][0]["note"] == "it guesses"
    assert not record["peers"][0]["checked"]


@pytest.mark.parametrize("function", ["wrong", "double"])
def test_a_wrong_result_is_seen_and_nothing_is_timed(processes, function):
    """Of a peer, or of the kernel: the one that has no reference is judged by its peer."""
    made = case(peer(function), check=None)
    if function == "double":
        made = Case(**{**vars(made), "ours": lambda inputs, threads: lambda: inputs["values"] * 2 + 1e-9})
    record = measure(made, 1, processes, QUICK)
    assert not record["checked"]
    assert record["failed"].startswith(f"{function}: Arrays are not equal")
    assert "\n" not in record["failed"]
    assert record["ours_s"] is record["peer_s"] is record["ratio_to_fastest_peer"] is None
    assert record["peers"][0]["peer_s"] is None


def test_a_kernel_that_is_not_its_reference_is_seen(processes):
    def never(inputs, result):
        raise AssertionError(f"expected 1,\n got {result[0]:g}")

    record = measure(case(peer("double"), check=never), 1, processes, QUICK)
    assert not record["checked"]
    assert record["failed"] == "ours: expected 1, got 0"
    assert record["ours_s"] is None


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("fake:dies", "ended with 3: out of luck"),
        ("fake:dies_later", "ended with 4"),
        ("fake:raises", "ValueError: no such thing"),
        ("fake:nothing", "AttributeError: .* has no attribute 'nothing'"),
        ("absent:any", "ModuleNotFoundError: No module named 'a_library_that_is_not_there'"),
        ("unwritten:any", "there is no peers/unwritten.py"),
    ],
)
def test_a_peer_that_is_missing_or_ends_leaves_its_reason_and_the_others(processes, caplog, function, reason):
    caplog.set_level("INFO", logger="rvkernels")
    other = Peer("numpy", "numpy:double", check=np.testing.assert_array_equal)
    (processes._folder / "numpy.py").write_text(LIBRARY)
    lost = Peer("lost", function, check=np.testing.assert_array_equal)
    record = measure(case(lost, other), 1, processes, QUICK)
    assert record["checked"]
    assert record["peer"] == "numpy"
    entry = record["peers"][0]
    assert entry["peer_s"] is None
    assert not entry["checked"]
    assert re.fullmatch(reason, entry["note"])
    assert f"double, five, 1 threads: lost is left out: {entry['note']}" in caplog.text


def test_without_any_check_nothing_is_timed(processes):
    record = measure(case(peer("dies"), check=None), 1, processes, QUICK)
    assert not record["checked"]
    assert record["failed"] == "no peer is there whose result could check ours"
    assert record["ours_s"] is None


def test_a_peer_that_hangs_is_ended(folder):
    with _processes.Processes(timeout=0.1, folder=folder) as processes:
        record = measure(case(peer("hangs"), peer("double")), 1, processes, QUICK)
        assert [p["note"] for p in record["peers"]] == ["no answer in 0.1 s", "no answer in 0.1 s"]
        assert processes.get("fake", 1)._process.wait(PATIENCE) == -signal.SIGKILL


def test_without_the_environment_of_the_peers_it_says_how_to_make_it(folder, monkeypatch):
    monkeypatch.setenv("RVK_BENCH_PYTHON", "/none/bin/python")
    with _processes.Processes(timeout=PATIENCE, folder=folder) as processes:
        record = measure(case(peer("double")), 1, processes, QUICK)
        assert "no /none/bin/python; `make bench`" in record["peers"][0]["note"]
        assert record["checked"]  # by its reference
        assert record["ours_s"] > 0


def test_every_number_of_threads_has_its_process(processes, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")

    def says(given, set_):
        return peer("says_threads", lambda ours, theirs: np.testing.assert_equal(theirs, {"given": given, "set": set_}))

    for threads, set_ in ((1, "1"), (0, None), (2, "2")):
        assert measure(case(says(threads, set_)), threads, processes, QUICK)["failed"] is None


def test_what_a_library_prints_is_no_answer(processes):
    assert measure(case(peer("prints")), 1, processes, QUICK)["peer"] == "prints"


def test_inputs_and_results_pass_through_files_unchanged(tmp_path):
    mapped = np.lib.format.open_memmap(tmp_path / "whole.npy", "w+", np.uint8, (4, 6))
    mapped[:] = np.arange(24).reshape(4, 6)
    value = {
        "array": np.arange(6, dtype=np.int16).reshape(2, 3).T,
        "number": 0.1,
        "none": None,
        "path/with slash": "text",
        "parts": [np.float32(0.5), (np.zeros((0, 4), np.float32), {"deep": np.array(3)})],
        "mapped": mapped,
        "part of a map": mapped[1:3],
    }
    sent = json.loads(json.dumps(_server.encode(value, tmp_path)))
    assert sent["dict"]["mapped"] == {"array": str(tmp_path / "whole.npy")}
    got = _server.decode(sent)
    assert type(got["array"]) is np.ndarray
    assert not got["array"].flags.writeable
    deep = got["parts"][1]
    assert deep[0].shape == (0, 4)
    assert deep[0].dtype == np.float32
    np.testing.assert_equal(got, {**value, "parts": [0.5, [value["parts"][1][0], {"deep": np.array(3)}]]})
    with pytest.raises(TypeError, match="no set among inputs"):
        _server.encode({1}, tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"peers": (Peer("a", "b:c"),)}, "double, five: a: needs a check, or `differs`"),
        ({"check": None}, "double, five: nothing checks the result"),
        ({"check": None, "peers": (Peer("a", "b:c", differs="it rounds"),)}, "nothing checks the result"),
    ],
)
def test_a_case_that_nothing_checks_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Case(**{**vars(case()), **fields})


def test_a_peer_names_library_and_function():
    with pytest.raises(ValueError, match=r"expected 'library:function', got 'cv2\.flip'"):
        Peer("flip", "cv2.flip")


@pytest.fixture
def kernels(monkeypatch, folder, tmp_path):
    """A registry of one kernel, whose cases a test sets, and a function that runs `rvk bench` on it."""
    made = types.SimpleNamespace(cases=[], quick=[])

    def load(kind, name):
        def cases(scene, quick):
            made.quick.append((name, quick))
            return made.cases

        return types.SimpleNamespace(cases=cases)

    monkeypatch.setattr(registry, "names", lambda kind: ["double", "half"])
    monkeypatch.setattr(registry, "load", load)
    monkeypatch.setattr(_run, "FOLDER", folder)
    monkeypatch.setattr(_run, "QUICK", QUICK._replace(timeout=PATIENCE))
    made.run = lambda *arguments: cli.main(["bench", "--out", str(tmp_path / "out"), *arguments])
    return made


def test_the_verb_writes_records_and_the_machine(kernels, tmp_path, capsys):
    kernels.cases = [case(peer("double"), floor=Peer("f", "fake:double"))]
    assert kernels.run("--quick", "--only", "double") == 0
    assert kernels.quick == [("double", True)]
    records = json.loads((tmp_path / "out/kernels.json").read_text())
    assert [(r["kernel"], r["case"], r["threads"]) for r in records] == [("double", "five", 1), ("double", "five", 0)]
    asked = {
        *("kernel", "case", "threads", "checked", "ours_s", "peer", "peer_s"),
        *("ratio_to_fastest_peer", "floor_s", "ratio_to_floor", "n"),
    }
    for record in records:
        assert asked <= record.keys()
        assert record["checked"] is True
        assert all(record[key] > 0 for key in ("ours_s", "peer_s", "ratio_to_fastest_peer", "floor_s", "n"))
    machine = json.loads((tmp_path / "out/machine.json").read_text())
    assert machine["quick"] is True
    assert machine["machine"]["cores"] >= 1
    assert machine["software"]["numpy"] == np.__version__
    assert machine["missing"] == {}
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:4] == ["kernel", "case", "threads", "ours"]
    assert [line.split()[:3] for line in lines[1:]] == [["double", "five", "1"], ["double", "five", "all"]]
    assert "%" in lines[1]


def test_full_runs_take_all_kernels_and_the_threads_asked_for(kernels, tmp_path):
    kernels.cases = [case(threads=(1,)), case(threads=(1, 0))]
    assert kernels.run("--threads", "2") == 0
    assert kernels.quick == [("double", False), ("half", False)]
    records = json.loads((tmp_path / "out/kernels.json").read_text())
    assert [r["threads"] for r in records] == [2, 2]  # not the case for one thread
    assert json.loads((tmp_path / "out/machine.json").read_text())["quick"] is False


def test_a_wrong_result_ends_in_another_exit_code_after_the_rest(kernels, tmp_path, capsys):
    kernels.cases = [case(peer("wrong")), case(peer("double"))]
    assert kernels.run("--quick", "--only", "double", "--threads", "1") == 1
    records = json.loads((tmp_path / "out/kernels.json").read_text())
    assert [r["checked"] for r in records] == [False, True]
    assert "wrong: Arrays are not equal" in capsys.readouterr().out


def test_a_missing_library_is_told_once_and_in_the_record_of_the_run(kernels, tmp_path, capsys):
    kernels.cases = [case(Peer("lost", "absent:any", differs="x"))] * 2
    assert kernels.run("--quick", "--only", "double", "--threads", "1") == 0
    missing = json.loads((tmp_path / "out/machine.json").read_text())["missing"]
    reason = "ModuleNotFoundError: No module named 'a_library_that_is_not_there'"
    assert missing == {"absent": reason}
    first, last = capsys.readouterr().err.splitlines()  # the reason only once
    assert first == f"peers of absent are left out: {reason}"
    assert last.startswith("2 timings in ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "dobule"], "--only: no kernel 'dobule'; there are double, half. Did you mean 'double'?"),
        (["--threads", "-1"], "--threads: expected 0 (all cores) or positive numbers, got -1"),
        (["--scene", "/none"], "scene: no scene_hwc.npy in /none"),
    ],
)
def test_wrong_usage_is_one_line(kernels, capsys, arguments, message):
    assert kernels.run(*arguments) == 2
    assert capsys.readouterr().err == f"rvk bench: error: {message}\n"


def test_the_scene_is_drawn_once_and_as_described(tmp_path, monkeypatch):
    monkeypatch.setattr(_scene, "QUICK_SIZE", 700)
    scene = Scene(quick=True, cache=tmp_path)
    assert not list(tmp_path.iterdir())  # until it is asked for
    assert scene.image.shape == (scene.rows, scene.cols, 4) == (700, 700, 4)
    assert not scene.image.flags.writeable
    empty = (scene.image == 0).all(2)
    assert 0.04 < empty.mean() < 0.08
    features = json.loads((scene.folder / "buildings.geojson").read_text())["features"]
    assert len(features) == 98
    assert {f["properties"]["cls"] for f in features} == {1, 2, 3, 4, 5}
    for encoding in _scene.ENCODINGS:
        found = raster.describe(scene.path(encoding))
        assert (found["rows"], found["cols"], found["bands"], found["dtype"]) == (700, 700, 4, "uint8")
        assert found["nodata"] == 0
        assert not found["alpha"]
        assert np.array_equal(gdal.Open(scene.path(encoding)).ReadAsArray().transpose(1, 2, 0), scene.image)
    monkeypatch.setattr(_scene, "draw", None)
    again = Scene(quick=True, cache=tmp_path)
    assert again.folder == scene.folder
    given = Scene(quick=True, cache=tmp_path / "other", folder=scene.folder)
    assert given.buildings == scene.buildings
    again_made = tmp_path / "again"
    monkeypatch.undo()
    _scene.draw(again_made, 700)
    assert np.array_equal(np.load(again_made / "scene_hwc.npy"), scene.image)


@pytest.mark.parametrize("kernel", ["blend", "components", "confusion", "nms", "statistics"])
def test_a_kernel_s_check_sees_one_wrong_number_in_what_is_timed(kernel, tmp_path, monkeypatch):
    monkeypatch.setattr(_scene, "QUICK_SIZE", 700)
    for made in registry.load("bench", kernel).cases(Scene(quick=True, cache=tmp_path), True):
        result = made.ours(made.inputs, 1)()
        made.check(made.inputs, result)
        array = result["histogram"] if isinstance(result, dict) else getattr(result, "labels", result)
        array.flat[array.size // 2] += 1
        with pytest.raises(AssertionError):
            made.check(made.inputs, result)


def called(path, name):
    """Calls of `name` in a source file."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [n for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == name]


@pytest.mark.parametrize("name", registry.names("bench"))
def test_the_peers_that_a_kernel_names_are_written(name):
    """Their libraries need not be there: the files are not loaded."""
    functions = [call.args[1].value.split(":") for call in called(_processes.FOLDER.parent / f"{name}.py", "Peer")]
    assert functions
    for library, function in functions:
        tree = ast.parse((_processes.FOLDER / f"{library}.py").read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, library
