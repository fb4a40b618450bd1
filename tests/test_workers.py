"""Processes that train one model together: which one a process is, how they meet and end, whole trainings by `rvk`."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from rvkernels import workers
from rvkernels.batches import Batches, Normalisation
from rvkernels.checkpoint import read_meta
from rvkernels.chips import Chips
from rvkernels.study import Study, load
from rvkernels.train import Run, complete_settings
from rvkernels.workers import Seat, Team, first_host, meet, seat

ROOT = Path(__file__).parents[1]
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu1", "MASTER_PORT": "29500"}
SLURM = {
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_ID": "17",
    "SLURM_PROCID": "1",
    "SLURM_NTASKS": "2",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_NODELIST": "cpu[01-02]",
}


def tf_config(*addresses, index=0, **more):
    task = {"type": "worker", "index": index}
    return {"TF_CONFIG": json.dumps({"cluster": {"worker": list(addresses), **more}, "task": task})}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (TORCHRUN, Seat(3, 4, 1, "gpu1", 29501)),
        ({**TORCHRUN, "RVK_MEETING": "127.0.0.1:5000"}, Seat(3, 4, 1, "127.0.0.1", 5000)),
        ({**TORCHRUN, "RANK": "0", "WORLD_SIZE": "1"}, None),
        (tf_config("a:1", "b:1", "b:2", index=2), Seat(2, 3, 1, "a", 2)),
        (tf_config("a:7", "a:9", "b:1", index=1), Seat(1, 3, 1, "a", 10)),
        (SLURM, Seat(1, 2, 0, "cpu01", 20017)),
        ({**SLURM, "SLURM_STEP_NODELIST": "cpu02"}, Seat(1, 2, 0, "cpu02", 20017)),
        ({**SLURM, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "4000"}, Seat(1, 2, 0, "10.0.0.1", 4000)),
        ({**SLURM, "SLURM_STEP_ID": "1"}, Seat(1, 2, 0, "cpu01", 25016)),
        ({**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, None),
        # torchrun under srun: its own processes count.
        ({**SLURM, **TORCHRUN}, Seat(3, 4, 1, "gpu1", 29501)),
        # A batch script has these too, and is no task of srun.
        ({k: v for k, v in SLURM.items() if k != "SLURM_STEP_ID"}, None),
    ],
)
def test_the_environment_tells_which_worker_a_process_is(environment, expected):
    assert seat(environment) == expected


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({**TORCHRUN, "RANK": "four"}, "RANK is 'four'"),
        ({**TORCHRUN, "RANK": "4"}, "worker 4 of 4"),
        ({**TORCHRUN, "MASTER_ADDR": ""}, "set MASTER_ADDR"),
        ({**TORCHRUN, "RVK_MEETING": "here"}, "RVK_MEETING is 'here', expected host:port"),
        ({**SLURM, "SLURM_PROCID": ""}, "SLURM_PROCID is ''"),
        ({**SLURM, "SLURM_JOB_NODELIST": ""}, "set MASTER_ADDR"),
        ({"TF_CONFIG": "{}"}, "TF_CONFIG names no workers"),
        (tf_config("a:1", "b:1", ps=["c:1"]), "TF_CONFIG has tasks ps, worker"),
    ],
)
def test_an_environment_that_makes_no_sense_is_named(environment, words):
    with pytest.raises(ValueError, match=words):
        seat(environment)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("cpu1", "cpu1"),
        ("cpu[1-4]", "cpu1"),
        ("gpu[03,07-09],cpu[1-2]", "gpu03"),
        ("login,cpu[1-2]", "login"),
        ("rack[0-1]n[2-3]", "rack0n2"),
    ],
)
def test_first_host_of_a_list_of_nodes(nodes, first):
    assert first_host(nodes) == first


@pytest.mark.parametrize(
    ("visible", "local", "left"), [(None, 1, "1"), ("4,6", 1, "6"), ("5", 1, "5"), ("GPU-a,GPU-b", 0, "GPU-a")]
)
def test_each_worker_sees_one_gpu(visible, local, left):
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    workers.take_device(Seat(3, 4, local, "a", 1), environment)
    assert environment == {"CUDA_VISIBLE_DEVICES": left}


def test_more_workers_than_gpus_are_refused():
    with pytest.raises(ValueError, match="worker 2 is number 2 of its machine, which shows 2 GPUs"):
        workers.take_device(Seat(2, 3, 2, "a", 1), {"CUDA_VISIBLE_DEVICES": "0,1"})
    with pytest.raises(ValueError, match="workers is 3, but this machine shows 2 GPUs"):
        workers.check_devices(3, {"CUDA_VISIBLE_DEVICES": "0,1"})


def test_frameworks_that_can_are_found_without_importing_them():
    assert workers.frameworks() == ("tensorflow", "torch")


# --- meeting ---------------------------------------------------------------------------------------------------------


def meet_all(count, identities=None, **more):
    """What `meet` gives or raises in each of `count` workers, all threads of this process."""
    port = workers.free_port()
    found = [None] * count
    identities = identities or ["same"] * count

    def come(rank):
        try:
            found[rank] = meet(Seat(rank, count, rank, "127.0.0.1", port), identities[rank], **more)
        except ValueError as error:
            found[rank] = error

    threads = [threading.Thread(target=come, args=(rank,)) for rank in reversed(range(count))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_workers_meet_and_the_first_tells_all():
    teams = meet_all(3)
    assert [team.rank for team in teams] == [0, 1, 2]
    assert [team.first for team in teams] == [True, False, False]
    assert teams[0].addresses == teams[1].addresses == teams[2].addresses
    assert len(set(teams[0].addresses)) == 3
    assert [machine["workers"] for machine in teams[2].machines] == [[0, 1, 2]]
    for value in (None, {"step": 3}, False):
        assert [team.share(value if team.first else "ignored") for team in teams] == [value] * 3
    for team in teams:
        with team:
            pass


def test_one_that_trains_alone_waits_for_nobody():
    assert Team().share("value") == "value"


def test_workers_of_two_trainings_do_not_meet():
    found = meet_all(2, ["one", "other"])
    assert all("worker 1 came with another training" in str(error) for error in found)


def test_a_worker_that_does_not_come_is_named():
    port = workers.free_port()
    with pytest.raises(ValueError, match="but worker 1, 2 did not come"):
        meet(Seat(0, 3, 0, "127.0.0.1", port), "same", seconds=0.2)
    with pytest.raises(ValueError, match=f"worker 1 of 3 does not reach worker 0 at 127.0.0.1:{port}.*MASTER_ADDR"):
        meet(Seat(1, 3, 0, "127.0.0.1", port), "same", seconds=0.2)


def test_a_place_that_has_no_address_is_named_at_once():
    with pytest.raises(
        ValueError, match=r"worker 1 of 2 does not reach worker 0 at no.such.host.invalid:1 .*MASTER_ADDR"
    ):
        meet(Seat(1, 2, 0, "no.such.host.invalid", 1), "same")


def test_strangers_are_no_workers():
    port = workers.free_port()
    found = []
    first = threading.Thread(target=lambda: found.append(meet(Seat(0, 2, 0, "127.0.0.1", port), "same")))
    first.start()
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"rank": 1}\n', b""):
        for _ in range(100):
            try:
                stranger = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                time.sleep(0.05)
        stranger.sendall(said)
        stranger.close()
    other = meet(Seat(1, 2, 1, "127.0.0.1", port), "same")
    first.join()
    assert found[0].count == other.count == 2


def lifelines(count, ranks):
    """Teams of `ranks`, connected with the first worker; of those that would have ended their process a list of
    (rank, reason, status); the connections, the first worker's end before the other's."""
    over, connections = [], [socket.socketpair() for _ in range(1, count)]

    def end_of(rank):
        return lambda reason, status: over.append((rank, reason, status))

    def ends_of(rank):
        others = {r: pair[0] for r, pair in enumerate(connections, 1)}
        return {0: connections[rank - 1][1]} if rank else others

    teams = [Team(rank, count, connections=ends_of(rank), end=end_of(rank)) for rank in ranks]
    return teams, over, connections


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_a_lost_worker_ends_all_others():
    _, over, connections = lifelines(3, ranks=[0, 1])
    connections[1][1].close()  # as the system does when worker 2 is killed
    wait_for(lambda: len(over) == 2)
    assert {rank: how for rank, *how in over} == {
        0: ["worker 2 of 3 is gone, so worker 0 ends", 1],
        1: [None, 1],  # the first has said why
    }


def test_a_lost_first_worker_ends_all_others():
    _, over, connections = lifelines(3, ranks=[1, 2])
    for first, _ in connections:  # as the system does when worker 0 is killed
        first.close()
    wait_for(lambda: len(over) == 2)
    assert sorted(over) == [(rank, f"worker 0 of 3 is gone, so worker {rank} ends", 1) for rank in (1, 2)]


def test_a_worker_that_fails_ends_the_others_with_its_status():
    teams, over, _ = lifelines(3, ranks=[0, 1, 2])
    with pytest.raises(ValueError, match="no such chips"), teams[2]:
        raise ValueError("no such chips")
    wait_for(lambda: len(over) == 2)
    assert sorted(over) == [(0, None, 2), (1, None, 2)]


def test_workers_that_leave_end_nobody():
    teams, over, connections = lifelines(3, ranks=[0, 1, 2])
    for team in teams:
        with team:
            pass
    wait_for(lambda: all(end.fileno() == -1 for pair in connections for end in pair))  # all listeners have ended
    assert over == []


# --- slices of batches -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 4])
def test_workers_make_the_slices_of_the_same_batches(study, count):
    arguments = study("detection")
    chips = Chips.open(arguments["chips"])
    plain = Normalisation(np.zeros(3, np.float32), np.ones(3, np.float32))
    settings = {"seed": 1, "epoch": 2, "shuffle": True, "drop_last": True, "settings": {"flip": True, "noise": 0.1}}

    def take(part):
        with Batches(chips, chips.rows("train"), 7, plain, part=part, **settings) as stream:
            return list(stream)

    parts = [take((rank, count)) for rank in range(count)]
    for whole, *slices in zip(take((0, 1)), *parts):
        for name in ("rows", "images", "boxes", "box_class"):
            np.testing.assert_array_equal(getattr(whole, name), np.concatenate([getattr(s, name) for s in slices]))
        sizes = [len(s.rows) for s in slices]
        assert max(sizes) - min(sizes) <= 1


def test_workers_have_a_slice_of_each_micro_batch(study):
    chips = Chips.open(study()["chips"])
    plain = Normalisation(np.zeros(3, np.float32), np.ones(3, np.float32))

    def take(part, micro):
        with Batches(chips, chips.rows("train"), 8, plain, shuffle=True, drop_last=True, part=part, micro=micro) as s:
            return [batch.rows for batch in s]

    for whole, first, second in zip(take((0, 1), 1), take((0, 2), 2), take((1, 2), 2)):
        assert first.tolist() == [*whole[:2], *whole[4:6]]
        assert second.tolist() == [*whole[2:4], *whole[6:]]


# --- whole trainings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("framework", "count", "settings", "words"),
    [
        ("reference", 2, {}, "reference trains in one process only; of several are capable tensorflow, torch"),
        ("caffe2", 2, {}, "caffe2 trains in one process only"),
        ("jax", 2, {}, "jax trains in one process only"),
        ("torch", 0, {}, "workers is 0"),
        ("torch", 5, {}, "batch is 4, but each of 5 workers needs a chip"),
        ("torch", 2, {"accumulate": 4}, "with accumulate 4 it must be a multiple of 8: each of 2 workers"),
        ("torch", 2, {"compile": True}, "compile is for one worker"),
    ],
)
def test_what_workers_cannot_do_is_said_before_work(study, framework, count, settings, words):
    with pytest.raises(ValueError, match=words):
        Run(**{**study(**settings), "framework": framework, "count": count})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"frameworks": ["torch", "jax"]},
            "study: experiments: landcover: workers is 2, but jax trains in one process",
        ),
        ({"frameworks": ["tensorflow"], "workers": 9}, "batch is 8, but each of 9 workers"),
        ({"workers": 0}, "workers: 0 is less than the minimum of 1"),
    ],
)
def test_a_study_whose_workers_cannot_train_is_refused(changes, words):
    config = {**load(str(ROOT / "config/smoke.yaml")), "workers": 2}
    with pytest.raises(ValueError, match=words):
        Study.resolve({**config, **changes}, datasets=ROOT / "config/datasets")


def test_an_own_model_trains_in_several_processes_in_torch_only():
    settings = complete_settings()
    workers.check(2, "torch", settings, own=True)
    with pytest.raises(ValueError, match="a model of your own trains in one process only in tensorflow"):
        workers.check(2, "tensorflow", settings, own=True)


TASKS = {"torch": "segmentation", "tensorflow": "classification"}


@pytest.fixture(scope="module", params=TASKS)
def training(request, tmp_path_factory, write_training, training_by_rvk):
    """A training in one framework that one process has done, in the folder "alone"."""
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed in this environment")
    root = tmp_path_factory.mktemp(request.param)
    task = TASKS[request.param]
    arguments = write_training(root, task, epochs=6, checkpoint_steps=2, schedule={"name": "one_cycle", "lr": 0.01})
    if task == "segmentation":
        labels = np.load(root / "chips/labels.npy")
        labels[::3, 2:] = 255  # nearly nothing of every third chip counts
        np.save(root / "chips/labels.npy", labels)
    made = training_by_rvk(root, request.param, arguments)
    made.run("alone")
    return made


def assert_same_training(training, out):
    """The losses of every step, and the metrics of every epoch, of the training by one process."""
    np.testing.assert_allclose(training.losses(out), training.losses("alone"), rtol=1e-3)
    tables = []
    for folder in ("alone", out):
        with (training.root / folder / "log.csv").open(newline="") as lines:
            tables.append(list(csv.DictReader(lines)))
    assert [row["step"] for row in tables[0]] == [row["step"] for row in tables[1]]
    assert training.record(out)["validated"] is True


def test_two_workers_train_as_one(training):
    training.run("two", "--workers", "2")
    assert_same_training(training, "two")
    found = training.record("two")["workers"]
    assert (found["count"], found["starts"]) == (2, [2])
    (machine,) = found["machines"]
    assert machine["workers"] == [0, 1]
    assert machine["cpu"]
    assert training.record("alone")["workers"] == {"count": 1, "starts": [1], "machines": []}
    expected = {"best.npz", "last.npz", "log.csv", "record.json", "finished.json", "steps.npz"}
    assert {p.name for p in (training.root / "two").iterdir()} == expected
    log = Path(f"{training.root / 'two'}.log").read_text()
    assert log.count("epoch 1/6") == 1  # of one worker, and nothing of the other


def children(process):
    """Processes that `process` has started, by the rank of the worker that they are."""
    found = {}
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        try:
            entries = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        variables = dict(entry.decode().partition("=")[::2] for entry in entries if entry)
        if "RANK" in variables:
            found[int(variables["RANK"])] = int(child)
    return found


@pytest.mark.parametrize(("training", "victim"), [("torch", 0), ("torch", 1), ("tensorflow", 1)], indirect=["training"])
def test_a_killed_worker_ends_the_job_and_others_go_on_from_its_checkpoint(training, victim):
    out, more = f"killed{victim}", {0: "1", 1: "3"}[victim]  # of four chips three workers have two, one and one
    process = training.start(out, "--workers", "2")
    last = training.root / out / "last.npz"
    wait_for(lambda: last.is_file() or process.poll() is not None, 1800)
    os.kill(children(process.pid)[victim], signal.SIGKILL)
    _, errors = process.communicate(timeout=1800)
    assert process.returncode == 1, errors[-3000:]
    assert f"worker {victim} of 2 was ended by SIGKILL; the same command goes on from the last checkpoint" in errors
    assert f"worker {victim} of 2 is gone, so worker {1 - victim} ends" in errors
    assert "Traceback" not in errors
    assert "is gone" in Path(f"{training.root / out}.log").read_text()
    assert not (training.root / out / "record.json").exists()
    assert read_meta(last)["course"]["workers"] == [2]

    training.run(out, "--workers", more)
    assert_same_training(training, out)
    assert training.record(out)["workers"]["starts"] == [2, int(more)]


@pytest.mark.parametrize("training", ["torch"], indirect=True)
def test_tasks_of_srun_find_each_other(training):
    """Four on two nodes, from SLURM's variables alone."""
    port = workers.free_port()
    tasks = [
        training.start(
            "slurm",
            SLURM_STEP_ID="0",
            SLURM_JOB_ID="5",
            SLURM_PROCID=str(rank),
            SLURM_LOCALID=str(rank % 2),
            SLURM_NTASKS="4",
            SLURM_JOB_NODELIST="node[1-2]",
            SLURMD_NODENAME=f"node{1 + rank // 2}",
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        for rank in range(4)
    ]
    for task in tasks:
        _, errors = task.communicate(timeout=1800)
        assert task.returncode == 0, errors[-3000:]
    assert_same_training(training, "slurm")
    assert [machine["workers"] for machine in training.record("slurm")["workers"]["machines"]] == [[0, 1], [2, 3]]


@pytest.mark.parametrize("training", ["torch"], indirect=True)
def test_wrong_inputs_are_one_line_before_workers_start(training):
    process = training.start("wrong", "--workers", "2", "--weights", training.root / "nowhere.npz")
    _, errors = process.communicate(timeout=1800)
    assert process.returncode == 2
    assert len(errors.splitlines()) == 1
    assert "nowhere.npz" in errors
