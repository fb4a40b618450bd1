"""Training end to end on tiny chips, with the reference framework: what is written, resumed, stopped and refused."""

from __future__ import annotations

import csv
import io
import itertools
import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rvkernels import registry, timing
from rvkernels import train as training
from rvkernels.checkpoint import read_checkpoint
from rvkernels.frameworks.reference import Framework
from rvkernels.train import Run, balanced_weights, complete_settings

CLASSES = ["water", "field"]


@pytest.fixture(autouse=True)
def few_predictions(monkeypatch):
    """Single predictions are timed as few times as may be: what matters here is that they are."""
    monkeypatch.setattr(timing, "LATENCY_SECONDS", 0.0)


TASKS = ("classification", "segmentation", "detection")
TIMES = ("train_seconds", "val_seconds", "chips_per_s", "data_wait_share", "peak_rss_mb", "peak_device_mb")


def read_log(out):
    with (Path(out) / "log.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def without_times(out):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_log(out)]


def assert_same_run(a, b):
    """The same weights, state, log and losses, bit for bit; only times may differ."""
    a, b = Path(a), Path(b)
    assert (a / "best.npz").read_bytes() == (b / "best.npz").read_bytes()
    first, second = read_checkpoint(a / "last.npz"), read_checkpoint(b / "last.npz")
    for group in ("weights", "state", "best"):
        one, other = getattr(first, group), getattr(second, group)
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].tobytes() == other[name].tobytes(), f"{group}/{name}"
    assert without_times(a) == without_times(b)
    with np.load(a / "steps.npz") as one, np.load(b / "steps.npz") as other:
        for name in ("loss", "lr", "epoch"):
            np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize("task", TASKS)
def test_a_run_writes_what_it_says_and_learns(study, task):
    arguments = study(task, epochs=6, schedule={"name": "one_cycle", "lr": 0.02})
    Run(**arguments).go()
    out = Path(arguments["out"])
    expected = {"best.npz", "last.npz", "log.csv", "record.json", "finished.json", "steps.npz"}
    assert {p.name for p in out.iterdir()} == expected
    log = read_log(out)
    assert [int(row["epoch"]) for row in log] == [1, 2, 3, 4, 5, 6]
    assert [int(row["step"]) for row in log] == [5, 10, 15, 20, 25, 30]
    assert float(log[-1]["train_loss"]) < 0.9 * float(log[0]["train_loss"])
    with np.load(out / "steps.npz") as steps:
        assert set(steps.files) == set(training.STEP_COLUMNS)
        assert steps["since_start"].tolist() == list(range(30))
        assert steps["loss"][:5].mean() == pytest.approx(float(log[0]["train_loss"]))
        assert (steps["seconds"] > 0).all()
    record = json.loads((out / "record.json").read_text())
    assert record["validated"] is True
    assert record["dataset"] == "patches"
    assert record["settings"]["pretrained"] is None
    assert len(record["times_s"]["train_epoch"]) == 6
    assert len(record["times_s"]["step"]) == 30
    assert record["result"]["train_chips"] == 20
    best = read_checkpoint(out / "best.npz")
    primary = {"classification": "accuracy", "segmentation": "miou", "detection": "ap50"}[task]
    values = [float(row[f"val_{primary}"]) for row in log]
    assert best.meta["epoch"] == 1 + int(np.argmax(values))
    assert best.meta["metrics"][primary] == max(values)
    assert best.meta["identity"]["classes"] == CLASSES


@pytest.mark.parametrize("steps", [0, 3, 5, 6, 12])
def test_an_interrupted_run_resumed_is_the_uninterrupted_run(study, tmp_path, interrupt, steps):
    """Five steps make an epoch: before the first checkpoint, within an epoch, at its end, and after."""
    arguments = study(epochs=3, checkpoint_steps=2, optimizer={"name": "sgd", "momentum": 0.9})
    Run(**{**arguments, "out": str(tmp_path / "whole")}).go()
    interrupt(arguments, steps)
    assert not (tmp_path / "run" / "record.json").exists()
    Run(**arguments).go()
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    with np.load(tmp_path / "run" / "steps.npz") as made:
        # Checkpoints are written after steps 2 and 4 of the run and at the end of each epoch.
        resumed_at = {0: 0, 3: 2, 5: 5, 6: 6, 12: 12}[steps]
        assert made["since_start"].tolist() == [*range(resumed_at), *range(15 - resumed_at)]


@pytest.mark.parametrize("name", ["torch", "caffe2"])
def test_a_run_in_another_framework_goes_on_exactly(study, tmp_path, interrupt, name):
    """The same with AdamW's moments and step count in a framework's own tensors."""
    pytest.importorskip(name, minversion={"torch": "2"}.get(name))
    framework = registry.load("frameworks", name)
    arguments = {**study("segmentation", epochs=2, checkpoint_steps=3), "framework": name}
    Run(**{**arguments, "out": str(tmp_path / "whole")}).go()
    interrupt(arguments, 8, framework.Framework)
    Run(**arguments).go()
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    assert json.loads((tmp_path / "run" / "record.json").read_text())["software"][name]


def test_a_lost_best_file_comes_back(study, tmp_path, interrupt):
    """A workflow removes the outputs of a job that was killed; last.npz alone must be enough."""
    arguments = study(epochs=3)
    Run(**{**arguments, "out": str(tmp_path / "whole")}).go()
    interrupt(arguments, 12)
    for name in ("best.npz", "log.csv"):
        (tmp_path / "run" / name).unlink()
    Run(**arguments).go()
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_a_finished_run_is_not_trained_again(study, monkeypatch):
    arguments = study()
    Run(**arguments).go()
    before = {name: Path(arguments["out"], name).read_bytes() for name in ("best.npz", "record.json")}
    for name in ("record.json", "log.csv", "steps.npz"):
        Path(arguments["out"], name).unlink()
    monkeypatch.delattr(Run, "train_epoch")
    Run(**arguments).go()  # with times, which would differ
    assert Path(arguments["out"], "log.csv").is_file()
    assert Path(arguments["out"], "steps.npz").is_file()
    assert {name: Path(arguments["out"], name).read_bytes() for name in before} == before


def test_the_record_of_another_run_is_not_kept(study):
    arguments = study()
    Run(**arguments).go()
    first = json.loads(Path(arguments["out"], "record.json").read_text())
    Run(**{**arguments, "code": "edited"}).go()
    second = json.loads(Path(arguments["out"], "record.json").read_text())
    assert second["started"] >= first["started"]
    assert second["times_s"] != first["times_s"]


@pytest.mark.parametrize("task", ["classification", "detection"])
def test_killed_at_random_moments(study, tmp_path, task):
    """SIGKILL, several times at moments nobody chose, then once to the end."""
    arguments = study(task, epochs=4, checkpoint_steps=1)
    whole, killed = {**arguments, "out": str(tmp_path / "whole")}, {**arguments, "out": str(tmp_path / "killed")}
    Run(**whole).go()
    code = "import json, sys; from rvkernels.train import Run; Run(**json.loads(sys.argv[1])).go()"
    command = [sys.executable, "-c", code, json.dumps(killed)]
    clock = random.Random(task)
    last = tmp_path / "killed" / "last.npz"
    kills = 0
    while kills < 4:
        process = subprocess.Popen(command, cwd=tmp_path)
        before = last.stat().st_mtime_ns if last.exists() else None
        if kills % 2:  # in the middle of writing a file
            while process.poll() is None and not list(last.parent.glob(".last.npz.*")):
                pass
        else:  # some time after a checkpoint
            while process.poll() is None and (last.stat().st_mtime_ns if last.exists() else None) == before:
                time.sleep(0.002)
            time.sleep(clock.uniform(0, 0.06))
        if process.poll() is not None:
            break
        process.kill()
        assert process.wait() == -signal.SIGKILL
        kills += 1
        read_checkpoint(last)  # whole, whatever was being written
    assert kills
    Run(**killed).go()
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    assert not [p.name for p in (tmp_path / "killed").iterdir() if p.name.startswith(".")]


def read_record(out):
    return json.loads((Path(out) / "record.json").read_text())


def slow_start(monkeypatch):
    """Let steps take 100 s and 50 s of the processor for the first five steps of a process, then 2 s and 1 s."""
    number = itertools.count()

    def timed_step(net, images, targets, rate):
        loss = float(net.step(images, targets, rate))
        return timing.Step(loss, 100.0, 50.0) if next(number) < 5 else timing.Step(loss, 2.0, 1.0)

    monkeypatch.setattr(timing, "timed_step", timed_step)


def test_times_tell_warm_up_waiting_and_processor_apart(study, monkeypatch):
    arguments = study(epochs=3)
    slow_start(monkeypatch)
    Run(**arguments).go()
    record = read_record(arguments["out"])
    times, result = record["times_s"], record["result"]
    assert times["step"] == [100.0] * 5 + [2.0] * 10  # the raw times have all steps
    assert times["step_cpu"] == [50.0] * 5 + [1.0] * 10
    assert times["first_step"] == [100.0]
    assert result["warmup_steps"] == 5
    assert result["step_median_s"] == 2
    assert result["step_cpu_median_s"] == 1
    wait = sum(times["wait"][5:])
    assert len(times["wait"]) == 15
    assert record["chips_per_s"] == pytest.approx(4 * 10 / (20 + wait), abs=0.01)
    assert result["data_wait_share"] == pytest.approx(wait / (20 + wait), rel=1e-2, abs=1e-5)
    assert len(times["import"]) == len(times["build"]) == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record["started"])
    assert "peak_device_mb" not in record  # the CPU's is the process's


def test_waiting_for_data_is_counted(study, monkeypatch):
    arguments = study(epochs=2)
    slow_start(monkeypatch)
    stream = training.Batches.__iter__

    def late(self):
        for batch in stream(self):
            self.waited = 0.5
            yield batch

    monkeypatch.setattr(training.Batches, "__iter__", late)
    Run(**arguments).go()
    record = read_record(arguments["out"])
    assert record["times_s"]["wait"] == [0.5] * 10
    assert record["result"]["data_wait_share"] == pytest.approx(0.5 / 2.5)
    assert record["chips_per_s"] == pytest.approx(4 / 2.5)


def test_a_resumed_run_keeps_the_times_of_every_start(study, tmp_path, monkeypatch, interrupt):
    arguments = study(epochs=3, checkpoint_steps=2)
    clock = iter(f"2026-01-01T00:00:0{i}Z" for i in range(9))
    monkeypatch.setattr(training, "utc_now", lambda: next(clock))
    slow_start(monkeypatch)
    interrupt(arguments, 8)
    slow_start(monkeypatch)  # a new process
    Run(**arguments).go()
    record = read_record(arguments["out"])
    assert record["times_s"]["step"] == [100.0] * 5 + [2.0] * 3 + [100.0] * 5 + [2.0] * 2
    assert record["result"]["step_median_s"] == 2
    assert record["result"]["starts"] == 2
    assert record["started"] == "2026-01-01T00:00:00Z"
    for name in ("import", "build", "first_step"):
        assert len(record["times_s"][name]) == 2


def test_a_checkpoint_of_another_form_starts_afresh(study, monkeypatch, interrupt, caplog):
    """What last.npz holds may change from version to version."""
    arguments = study()
    with monkeypatch.context() as patch:
        patch.delitem(training.STEP_COLUMNS, "cpu_seconds")
        interrupt(arguments, 12)
    with caplog.at_level("INFO", logger="rvkernels"):
        Run(**arguments).go()
    assert "had other checkpoint: starting afresh" in caplog.text
    assert len(read_record(arguments["out"])["times_s"]["step"]) == 15


@pytest.mark.parametrize("task", TASKS)
def test_single_predictions_are_timed_on_validation_chips(study, monkeypatch, task):
    """Six of them: a batch of 32 repeats them."""
    arguments = study(task, epochs=1)
    calls = []
    predict = Framework.predict

    def counted(self, images):
        calls.append(images.copy())
        return predict(self, images)

    monkeypatch.setattr(Framework, "predict", counted)
    Run(**arguments).go()
    record = read_record(arguments["out"])
    times, result = record["times_s"], record["result"]
    share = np.median(times["passes"]) / np.median(times["passes_and_update"])
    assert result["passes_share"] == pytest.approx(min(1.0, share), rel=1e-3)
    for size in (1, 32):
        seconds = times[f"latency_{size}"]
        assert 3 <= len(seconds) <= 20
        assert len([c for c in calls if len(c) == size]) == len(seconds) + 2  # two warm up
        assert result[f"latency_{size}_median_s"] == pytest.approx(np.median(seconds), abs=1e-6)
    assert result["inference_chips_per_s"] == pytest.approx(32 / result["latency_32_median_s"])
    many = next(c for c in calls if len(c) == 32)
    np.testing.assert_array_equal(many[:2], many[6:8])
    assert not (many[0] == many[1]).all()


def test_chips_that_may_not_fit_are_not_predicted_together(study, monkeypatch, caplog):
    arguments = study(epochs=1)
    monkeypatch.setattr(training, "LATENCY_BYTES", 1)
    with caplog.at_level("INFO", logger="rvkernels"):
        Run(**arguments).go()
    record = read_record(arguments["out"])
    assert "latency_1" in record["times_s"]  # no more than a training step's batch of 4
    assert "latency_32" not in record["times_s"]
    assert "inference_chips_per_s" not in record["result"]
    assert "the time to predict 32 chips at once is not measured" in caplog.text


def test_memory_of_the_device_is_recorded_where_the_framework_tells(study, monkeypatch):
    arguments = study(epochs=2)
    held = iter([3 * 2**20] * 2 + [5 * 2**20] * 2)
    monkeypatch.setattr(Framework, "memory", lambda self: next(held))
    Run(**arguments).go()
    assert read_record(arguments["out"])["peak_device_mb"] == 5
    assert [row["peak_device_mb"] for row in read_log(arguments["out"])] == ["3.0", "5.0"]


def test_other_settings_start_afresh(study, tmp_path, caplog):
    arguments = study()
    Run(**arguments).go()
    changed = {**arguments, "seed": 4, "settings": {**arguments["settings"], "epochs": 2}}
    with caplog.at_level("INFO", logger="rvkernels"):
        Run(**changed).go()
    assert "had other seed, settings: starting afresh" in caplog.text
    assert len(read_log(arguments["out"])) == 2
    Run(**{**changed, "out": str(tmp_path / "new")}).go()
    assert_same_run(tmp_path / "new", arguments["out"])


def test_other_code_starts_afresh(study, caplog):
    """Else the weights of the code before an edit would get the record of the code after it."""
    arguments = study(epochs=1)
    Run(**arguments, code="a").go()
    with caplog.at_level("INFO", logger="rvkernels"):
        Run(**arguments, code="b").go()
    assert "had other code: starting afresh" in caplog.text
    assert read_record(arguments["out"])["result"]["starts"] == 1


def test_other_chips_start_afresh(study, caplog):
    arguments = study()
    Run(**arguments).go()
    path = Path(arguments["chips"], "images.npy")
    images = np.load(path)
    images[0, 0, 0, 0] ^= 1
    np.save(path, images)
    with caplog.at_level("INFO", logger="rvkernels"):
        Run(**arguments).go()
    assert "had other chips: starting afresh" in caplog.text


def test_a_damaged_checkpoint_is_named(study):
    arguments = study()
    Run(**arguments).go()
    last = Path(arguments["out"], "last.npz")
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"last\.npz: not a readable checkpoint"):
        Run(**arguments).go()


def scripted(monkeypatch, values):
    """Let validation find the given accuracies, one per call; returns the list of calls."""
    calls = []

    def validate(framework, graph, stream):
        calls.append(framework.weights())
        return {"accuracy": values[len(calls) - 1], "macro_f1": -float(len(calls))}

    module = training.registry.load("tasks", "classification")
    monkeypatch.setattr(module, "validate", validate)
    return calls


def test_the_best_epoch_is_kept_and_the_first_of_equals(study, monkeypatch):
    arguments = study(epochs=4)
    calls = scripted(monkeypatch, [0.2, 0.7, 0.7, 0.5, 0.7])
    Run(**arguments).go()
    best = read_checkpoint(Path(arguments["out"], "best.npz"))
    assert best.meta["epoch"] == 2
    for name, array in best.weights.items():
        np.testing.assert_array_equal(array, calls[1][name])
        np.testing.assert_array_equal(array, calls[4][name])  # the check reads the same weights back
    assert not all((best.weights[name] == calls[3][name]).all() for name in best.weights)


def test_another_metric_chooses_another_epoch(study, monkeypatch):
    arguments = study(epochs=3, metric="macro_f1")
    scripted(monkeypatch, [0.2, 0.7, 0.9, 0.2])
    # macro_f1 falls from -1 to -3; the check reads the first epoch's weights back but is the fourth call.
    with pytest.raises(ValueError, match=r"best\.npz: read back, its macro_f1 is -4\.0+, but -1\.0+ was measured"):
        Run(**arguments).go()
    assert read_checkpoint(Path(arguments["out"], "best.npz")).meta["epoch"] == 1
    assert not Path(arguments["out"], "record.json").exists()


def test_early_stopping(study, monkeypatch):
    arguments = study(epochs=20, early_stopping={"patience": 3})
    scripted(monkeypatch, [0.1, 0.5, 0.4, 0.6, 0.3, 0.6, 0.5, 0.6])
    Run(**arguments).go()
    # Best at epoch 4; 5, 6 (equal is no growth) and 7 do not better it.
    assert len(read_log(arguments["out"])) == 7
    record = json.loads(Path(arguments["out"], "record.json").read_text())
    assert record["result"]["stopped_early"] is True
    assert record["result"]["best_epoch"] == 4


def test_an_undefined_metric_ends_the_run(study, monkeypatch):
    arguments = study()
    scripted(monkeypatch, [float("nan")])
    with pytest.raises(ValueError, match="accuracy of the validation split is undefined"):
        Run(**arguments).go()


def test_a_loss_that_is_not_finite_ends_the_run(study, monkeypatch):
    arguments = study()
    monkeypatch.setattr(Framework, "step", lambda *a: float("inf"))
    with pytest.raises(ValueError, match=r"the loss is inf at step 1 .*lower schedule\.lr"):
        Run(**arguments).go()


def test_weights_that_do_not_read_back_leave_no_record(study, monkeypatch):
    """The check of the record must be able to fail: here every fresh model forgets its weights."""
    arguments = study(epochs=6, schedule={"name": "one_cycle", "lr": 0.02})
    finish = training.Run.finish

    def forgetting(self):
        self.build = lambda weights: type(self).build(self, {k: 0 * v for k, v in weights.items()})
        finish(self)

    monkeypatch.setattr(training.Run, "finish", forgetting)
    with pytest.raises(ValueError, match="no record is written"):
        Run(**arguments).go()
    assert not Path(arguments["out"], "record.json").exists()


def test_the_schedule_reaches_the_framework(study, monkeypatch):
    arguments = study(epochs=2, schedule={"name": "step", "lr": 0.5, "at": [0.5], "factor": 0.1})
    rates = []
    step = Framework.step
    monkeypatch.setattr(Framework, "step", lambda self, i, t, lr: rates.append(lr) or step(self, i, t, lr))
    Run(**arguments).go()
    assert rates[:10] == pytest.approx([0.5] * 5 + [0.05] * 5)
    assert not any(rates[10:])  # the steps that are timed afterwards
    assert [float(row["lr"]) for row in read_log(arguments["out"])] == pytest.approx([0.5, 0.05])


def test_every_epoch_sees_every_chip_in_another_order(study, monkeypatch):
    arguments = study(epochs=2, augment=None)
    seen = []
    step = Framework.step
    monkeypatch.setattr(
        Framework, "step", lambda self, i, t, lr: seen.extend(i.sum(axis=(1, 2, 3)).tolist()) or step(self, i, t, lr)
    )
    Run(**arguments).go()
    first, second = seen[:20], seen[20:40]
    assert len(set(first)) == 20
    assert sorted(first) == sorted(second)
    assert first != second


def test_accumulation_leaves_batches_as_they_are(study, tmp_path, monkeypatch):
    """A step takes the same chips, augmented the same, and is still one step."""
    seen: dict[int, list[bytes]] = {1: [], 2: []}
    step = Framework.step

    def watched(self, images, targets, rate):
        seen[self._accumulate].append(images.tobytes())
        return step(self, images, targets, rate)

    monkeypatch.setattr(Framework, "step", watched)
    arguments = study(epochs=1, batch=8)
    for accumulate in seen:
        settings = {**arguments["settings"], "accumulate": accumulate}
        Run(**{**arguments, "settings": settings, "out": str(tmp_path / str(accumulate))}).go()
    assert seen[1][:2] == seen[2][:2]
    records = [json.loads((tmp_path / str(n) / "record.json").read_text()) for n in seen]
    assert [record["result"]["steps"] for record in records] == [2, 2]
    assert [record["settings"]["accumulate"] for record in records] == [1, 2]


def test_balanced_class_weights():
    assert balanced_weights(np.array([6, 0, 2])) == pytest.approx([8 / 12, 0.0, 8 / 4])


def test_balanced_weights_reach_the_loss(study):
    splits = ("train", "train", "test") * 6 + ("val",) * 4
    arguments = study(splits=splits, epochs=1, loss={"name": "cross_entropy", "class_weights": "balanced"})
    Run(**arguments).go()
    weights = read_checkpoint(Path(arguments["out"], "best.npz")).meta["identity"]["settings"]["loss"]["class_weights"]
    classes = np.arange(22)[[s == "train" for s in splits]] % 2
    assert weights == pytest.approx(balanced_weights(np.bincount(classes)))


def test_log_lines(study, caplog):
    arguments = study()
    with caplog.at_level("INFO", logger="rvkernels"):
        Run(**arguments).go()
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("epoch ")]
    assert len(lines) == 3
    assert all("chips/s" in line and "data wait" in line for line in lines)


def test_log_csv_has_plain_lines(study):
    arguments = study()
    Run(**arguments).go()
    text = Path(arguments["out"], "log.csv").read_bytes().decode()
    assert "\r" not in text
    names = next(csv.reader(io.StringIO(text)))
    assert names[:6] == ["epoch", "step", "lr", "train_loss", "val_accuracy", "val_macro_f1"]
    assert tuple(names[6:]) == TIMES


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"framework": "referense"}, "no 'referense' in rvkernels/frameworks/; .*Did you mean 'reference'"),
        ({"model": "resnett"}, "Did you mean 'resnet'"),
        ({"model": "unet"}, "unet is for segmentation; for classification there are cnn, resnet"),
        ({"model_settings": {"widht": 3}}, "cnn: unknown setting 'widht'; .*Did you mean 'width'"),
        ({"task": "segmentation", "model": "unet", "model_settings": {}}, "these chips are for classification"),
        ({"classes": ["water"]}, "label 1 is no class id"),
        ({"bands": ["red", "green"]}, "chips have 3 bands, but the study names 2"),
        ({"weights": "nowhere.npz"}, "nowhere.npz"),
        ({"model_settings": {"width": 8, "blocks": 2}}, r"weights\.npz: .* has shape"),
        ({"seed": -1}, "seed is -1"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_wrong_arguments_are_named_before_work(study, change, words):
    arguments = {**study(), **change}
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        Run(**arguments).go()
    assert not Path(arguments["out"]).exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epoch": 3}, "train: unknown setting 'epoch'; .*Did you mean 'epochs'"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch": 21}, "20 chips, fewer than one batch of 21"),
        ({"batch": 2.5}, r"batch is 2\.5"),
        ({"accumulate": 0}, "train: accumulate is 0, expected a whole number"),
        ({"accumulate": 3}, "batch is 4, no multiple of accumulate 3"),
        ({"accumulate": 2, "loss": {"name": "dice"}}, "train: accumulate is 2, but the loss 'dice'"),
        ({"metric": "acuracy"}, "no 'acuracy'; .*Did you mean 'accuracy'"),
        ({"loss": {"name": "detection"}}, "does not fit"),
        ({"optimizer": {"name": "sgd", "momentom": 0.9}}, "Did you mean 'momentum'"),
        ({"schedule": {"name": "one_cycle"}}, "train: schedule: 'lr' is missing"),
        ({"augment": {"flipp": True}}, r"train: augment.*flipp"),
        ({"assign": {"radius": 2}}, "train: assign: unknown setting 'radius'"),
        ({"early_stopping": {"patients": 2}}, "unknown setting 'patients'"),
        ({"early_stopping": {"patience": 0}}, "patience is 0"),
        ({"checkpoint_minutes": -1}, "checkpoint_minutes is -1"),
        ({"checkpoint_steps": 0}, "checkpoint_steps is 0"),
        ({"precision": "float8"}, "float8"),
        ({"kernel": "cuda"}, "cuda"),
    ],
)
def test_wrong_settings_are_named_before_work(study, settings, words):
    arguments = study(**settings)
    with pytest.raises(ValueError, match=words):
        Run(**arguments).go()
    assert not Path(arguments["out"]).exists()


def test_a_split_without_labels_is_named(study):
    arguments = study("detection")
    starts = np.minimum(np.arange(29), 20).astype(np.int64)  # boxes of the training chips only
    for name in ("boxes", "box_class"):
        path = Path(arguments["chips"], f"{name}.npy")
        np.save(path, np.load(path)[:20])
    np.save(Path(arguments["chips"], "box_start.npy"), starts)
    with pytest.raises(ValueError, match="split 'val' has no label"):
        Run(**arguments).go()


def test_an_empty_split_is_named(study):
    with pytest.raises(ValueError, match="no chip is in split 'val'"):
        Run(**study(splits=("train",) * 8)).go()


def test_settings_are_complete():
    assert set(complete_settings()) == set(training.registry.parameters(complete_settings))
