"""What the jobs of each rule ask a cluster for: a table of config/clusters/, checked.

The workflow's rules ask a Cluster for their `resources:`; nothing of it changes a result, so no stage knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from rvkernels import registry, schema

# What a retry asks more of: as many times as it is attempts.
GROWING = ("mem_mb", "runtime")
GPU = ("gpu", "gpu_model", "gres")


class Cluster:
    """The table of one cluster; made by `read`. Without a table, jobs ask for nothing but their GPU."""

    def __init__(self, table: dict | None = None, where: str = "") -> None:
        self._table = table or {"every_job": {}, "gpu_job": {"gpu": 1}, "rules": {}}
        self._where = where

    @classmethod
    def read(cls, name: str, *, clusters: str | Path) -> Cluster:
        """The table `name`: <clusters>/<name>.yaml, or the path of a YAML file of the user's own.

        Raises ValueError or FileNotFoundError, one line each.
        """
        path = Path(name)
        if path.suffix not in (".yaml", ".yml"):
            known = {found.stem: found for found in Path(clusters).glob("*.yaml")}
            if name not in known:
                raise ValueError(f"cluster: no {name!r} in config/clusters/; {registry.suggest(name, known)}")
            path = known[name]
        elif not path.is_file():
            raise FileNotFoundError(f"cluster: no file {name}; the path is relative to the working directory")
        return cls(schema.validate(schema.read(path), schema.find("cluster.schema.yaml"), str(path)), str(path))

    def check_rules(self, rules: Iterable[str]) -> None:
        """Raise ValueError, one line, when the table has a row for a rule that is none of `rules`."""
        names = list(rules)
        for name in self._table["rules"]:
            if name not in names:
                raise ValueError(f"{self._where}: rules: no rule {name!r}; {registry.suggest(name, names)}")

    def asks(self, rule: str, *, gpu: bool = False, workers: int = 1, threads: int = 1) -> dict[str, object]:
        """The resources of a rule's jobs, by Snakemake's names.

        gpu      whether its jobs compute on a GPU; rows for GPUs count for these alone
        workers  processes that share a job's work, `threads` each: they have `gpu` GPUs each. On several `nodes` srun
                 starts them, as the tasks of what Snakemake calls an MPI job; on one they start themselves
        Returns name -> value, or for memory and run time a function of (wildcards, attempt). The rule's row goes before
        the one of GPU jobs, and that before the one of every job; what is null is not asked for.
        Raises ValueError when the rows ask for GPUs in both ways.
        """
        row = dict(self._table["every_job"])
        if gpu:
            row.update(self._table["gpu_job"])
        row.update(self._table["rules"].get(rule, {}))
        row = {name: value for name, value in row.items() if value is not None and (gpu or name not in GPU)}
        if "gres" in row and row.keys() & {"gpu", "gpu_model"}:
            raise ValueError(f"{self._where}: {rule}: both gres and gpu ask for GPUs; set one of them to null")
        nodes = min(row.pop("nodes", 1), workers)
        if "gpu" in row:
            row["gpu"] *= workers
        if nodes > 1:
            row = {"cpus_per_task": threads, **row, "nodes": nodes, "tasks": workers, "mpi": "srun"}
            if gpu:
                row["tasks_per_gpu"] = 1  # the plugin would ask for `tasks` per GPU
        return {name: _growing(value) if name in GROWING else value for name, value in row.items()}


def _growing(value: int) -> Callable[[object, int], int]:
    # Snakemake passes these arguments by name.
    def of(wildcards: object, attempt: int) -> int:
        return value * attempt

    return of
