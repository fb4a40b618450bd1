"""One training by the tasks of srun, on two nodes."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest


def test_two_nodes_train_one_model_together(slurm, tmp_path, write_training, training_by_rvk):
    pytest.importorskip("torch", minversion="2", reason="PyTorch 2 is not installed in this environment")
    training = training_by_rvk(tmp_path, "torch", write_training(tmp_path, "segmentation", epochs=2))
    training.run("alone")
    # The names of virtual nodes have no address.
    variables = {"PYTHONPATH": os.pathsep.join(sys.path), "MASTER_ADDR": "127.0.0.1"}
    told = ",".join(["ALL", *(f"{name}={value}" for name, value in variables.items())])
    asked = ["--partition=cpu", "--nodes=2", "--ntasks=2", "--kill-on-bad-exit=1", f"--chdir={tmp_path}"]
    tasks = ["srun", *asked, f"--export={told}"]
    slurm.run(*tasks, *training.command("nodes"))
    np.testing.assert_allclose(training.losses("nodes"), training.losses("alone"), rtol=1e-3)
    found = training.record("nodes")["workers"]
    assert found["count"] == 2
    assert [machine["workers"] for machine in found["machines"]] == [[0], [1]]
