"""The logs of trainings for other programs say what steps.npz and log.csv say."""

from __future__ import annotations

import csv
import subprocess
import sys

import numpy as np
import pytest

from rvkernels import train
from rvkernels.cli import main
from rvkernels.logs import write_logs

RUN = "towns/cnn/reference/3"


@pytest.fixture
def results(study, tmp_path):
    """A study's folder with one training of three epochs of five steps."""
    out = tmp_path / "results/made/runs" / RUN
    train.Run(**{**study(epochs=3), "out": str(out)}).go()
    return tmp_path / "results/made"


def table(path):
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_csv_has_every_step_and_epoch(results, tmp_path):
    assert write_logs(results, "csv", tmp_path / "logs") == 1
    steps = table(tmp_path / "logs" / RUN / "steps.csv")
    with np.load(results / "runs" / RUN / "steps.npz") as kept:
        assert [int(row["step"]) for row in steps] == list(range(1, 16))
        assert [float(row["loss"]) for row in steps] == kept["loss"].tolist()
        assert set(steps[0]) == {"step", *kept.files}
    epochs, log = table(tmp_path / "logs" / RUN / "epochs.csv"), table(results / "runs" / RUN / "log.csv")
    assert [float(row["train_loss"]) for row in epochs] == [float(row["train_loss"]) for row in log]
    assert list(epochs[0]) == list(log[0])


def test_a_training_that_has_not_ended_is_written_as_far_as_it_is(results, tmp_path):
    run = results / "runs" / RUN
    (run / "record.json").unlink()
    (run / "steps.npz").unlink()
    write_logs(results, "csv", tmp_path / "logs")
    assert len(table(tmp_path / "logs" / RUN / "steps.csv")) == 15  # of the last checkpoint
    (run / "last.npz").unlink()
    write_logs(results, "csv", tmp_path / "logs")
    assert [path.name for path in (tmp_path / "logs" / RUN).iterdir()] == ["epochs.csv"]


def test_tensorboard_reads_what_is_written(results, tmp_path, capsys):
    pytest.importorskip("tensorboard", reason="no TensorBoard to read event files with")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main(["logs", str(results), "--to", "tensorboard", "--out", str(tmp_path / "logs")]) == 0
    assert "1 trainings" in capsys.readouterr().out
    events = EventAccumulator(str(tmp_path / "logs" / RUN), size_guidance={"scalars": 0}).Reload()
    with np.load(results / "runs" / RUN / "steps.npz") as kept:
        losses = kept["loss"]
    found = events.Scalars("train/loss")
    assert [event.step for event in found] == list(range(1, 16))
    assert [event.value for event in found] == pytest.approx(losses.tolist(), rel=1e-6)
    assert all(a.wall_time < b.wall_time for a, b in zip(found, found[1:]))
    log = table(results / "runs" / RUN / "log.csv")
    accuracy = events.Scalars("val/accuracy")
    assert [event.step for event in accuracy] == [5, 10, 15]
    assert [event.value for event in accuracy] == pytest.approx([float(row["val_accuracy"]) for row in log])
    tags = set(events.Tags()["scalars"])
    assert {"train/lr", "seconds/step", "seconds/wait", "epoch/train_loss", "epoch/chips_per_s"} <= tags
    assert "epoch/peak_device_mb" not in tags  # undefined on the CPU


def test_no_framework_is_imported(results, tmp_path):
    pytest.importorskip("tensorboard", reason="no TensorBoard to write event files with")
    program = (
        "import sys; from rvkernels.logs import write_logs; write_logs(*sys.argv[1:]); "
        "print(*sorted({'torch', 'tensorflow', 'jax'} & sys.modules.keys()))"
    )
    arguments = [sys.executable, "-c", program, str(results), "tensorboard", str(tmp_path / "logs")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "\n")


def test_errors_are_one_line(results, tmp_path, monkeypatch, capsys):
    out = ["--out", str(tmp_path / "logs")]
    assert main(["logs", str(results), "--to", "tensorbord", *out]) == 2
    assert "Did you mean 'tensorboard'" in capsys.readouterr().err
    assert main(["logs", str(tmp_path), "--to", "csv", *out]) == 2
    assert "no training with a log.csv" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    for name in [name for name in sys.modules if name.startswith("tensorboard.")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["logs", str(results), "--to", "tensorboard", *out]) == 2
    assert "pip install tensorboard" in capsys.readouterr().err
    assert not (tmp_path / "logs").exists()
