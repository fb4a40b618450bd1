"""What jobs ask a cluster for: tables of config/clusters/."""

from pathlib import Path

import pytest
import yaml

from rvkernels.cluster import Cluster

CLUSTERS = Path(__file__).parents[1] / "config/clusters"


@pytest.fixture
def read(tmp_path):
    """A function that reads a table given as a dict."""

    def of(**table):
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(table))
        return Cluster.read(str(path), clusters=CLUSTERS)

    return of


def values(resources, attempt=1):
    return {k: v(wildcards=None, attempt=attempt) if callable(v) else v for k, v in resources.items()}


def test_without_a_table_jobs_ask_for_a_gpu_alone():
    assert Cluster().asks("train", gpu=True) == {"gpu": 1}
    assert Cluster().asks("train") == {}
    Cluster().check_rules(["train"])


def test_the_last_row_wins_and_null_asks_for_nothing(read):
    cluster = read(
        every_job={"slurm_partition": "cpu", "slurm_account": "a", "mem_mb": 100, "runtime": 5},
        gpu_job={"slurm_partition": "gpu", "gpu": 2, "gpu_model": "a100"},
        rules={"train": {"mem_mb": 300, "slurm_account": None}, "predict": {"gpu": 1}},
    )
    split = {"slurm_partition": "cpu", "slurm_account": "a", "mem_mb": 100, "runtime": 5}
    assert values(cluster.asks("split")) == split
    train = {"slurm_partition": "gpu", "gpu": 2, "gpu_model": "a100", "mem_mb": 300, "runtime": 5}
    assert values(cluster.asks("train", gpu=True)) == train
    assert cluster.asks("predict", gpu=True)["gpu"] == 1
    # The study computes on the CPU: no row asks for a GPU then.
    assert values(cluster.asks("predict")) == split


def test_a_retry_asks_for_more_memory_and_time_and_for_nothing_else(read):
    asks = read(every_job={"mem_mb": 100, "runtime": 5, "cpus_per_task": 4}).asks("split")
    assert [values(asks, attempt) for attempt in (1, 2, 3)] == [
        {"mem_mb": 100 * n, "runtime": 5 * n, "cpus_per_task": 4} for n in (1, 2, 3)
    ]


def test_gpus_are_asked_for_in_one_way(read):
    generic = read(gpu_job={"gres": "gpu:a100:1"})
    assert generic.asks("train", gpu=True) == {"gres": "gpu:a100:1"}
    both = read(gpu_job={"gpu": 1}, rules={"train": {"gres": "gpu:1"}})
    with pytest.raises(ValueError, match=r"mine.yaml: train: both gres and gpu ask for GPUs"):
        both.asks("train", gpu=True)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"every_job": {"memory": 1}}, "every_job: unknown key 'memory'"),
        ({"rules": {"train": {"mem_mb": "4 GB"}}}, "rules: train: mem_mb: '4 GB' is not of type"),
        ({"gpu_job": {"gpu": 0}}, "gpu_job: gpu: 0 is less than the minimum of 1"),
        ({"gpu_job": {"gpu_model": "'a100'"}}, "gpu_job: gpu_model: .* does not match"),
        ({"partition": "cpu"}, "unknown key 'partition'"),
    ],
)
def test_a_wrong_table_is_refused(read, table, message):
    with pytest.raises(ValueError, match=f"mine.yaml: {message}"):
        read(**table)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"no 'slrum' in config/clusters/; .*'slurm'"):
        Cluster.read("slrum", clusters=CLUSTERS)
    with pytest.raises(FileNotFoundError, match=r"no file .*none.yaml"):
        Cluster.read(str(tmp_path / "none.yaml"), clusters=CLUSTERS)
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ValueError, match=r"empty.yaml: expected keys and values, got NoneType"):
        Cluster.read(str(tmp_path / "empty.yaml"), clusters=CLUSTERS)


def test_a_row_for_no_rule_is_refused(read):
    cluster = read(rules={"trian": {"mem_mb": 1}})
    with pytest.raises(ValueError, match=r"mine.yaml: rules: no rule 'trian'; .*'train'"):
        cluster.check_rules(["train", "chip"])
    cluster.check_rules(["trian"])


def test_workers_share_a_node_unless_they_are_to_have_several(read):
    one = read(gpu_job={"gpu": 1, "gpu_model": "a100"})
    assert one.asks("train", gpu=True, workers=4, threads=2) == {"gpu": 4, "gpu_model": "a100"}
    assert one.asks("train", workers=4, threads=2) == {}
    two = read(rules={"train": {"nodes": 2}})
    spread = {"nodes": 2, "tasks": 4, "mpi": "srun", "cpus_per_task": 3}
    assert two.asks("train", workers=4, threads=3) == spread
    assert two.asks("train", gpu=True, workers=4, threads=3) == {**spread, "gpu": 4, "tasks_per_gpu": 1}
    assert two.asks("train") == {}
