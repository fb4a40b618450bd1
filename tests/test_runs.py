"""What a training keeps, read back."""

from __future__ import annotations

import numpy as np
import pytest

from rvkernels.runs import read_log, read_steps


def test_epochs_are_numbers_and_undefined_where_there_is_none(tmp_path):
    (tmp_path / "log.csv").write_text("epoch,train_loss,peak_device_mb\n1,2.5,\n2,1.25,7\n")
    assert read_log(tmp_path) == [
        {"epoch": 1.0, "train_loss": 2.5, "peak_device_mb": None},
        {"epoch": 2.0, "train_loss": 1.25, "peak_device_mb": 7.0},
    ]


def test_steps_are_columns(tmp_path):
    np.savez(tmp_path / "steps.npz", loss=np.array([3.0, 2.0]), lr=np.array([0.1, 0.1]))
    assert {name: column.tolist() for name, column in read_steps(tmp_path).items()} == {
        "loss": [3, 2],
        "lr": [0.1, 0.1],
    }


@pytest.mark.parametrize("read", [read_log, read_steps])
def test_a_run_that_is_not_finished_is_an_error(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="not finished"):
        read(tmp_path)
