"""How far a study is, from the files below results/<study>/ and Snakemake's log. Nothing is written, no job is asked.

What there is to do follows from the study's settings, what is done from the files that are there, what runs from
Snakemake's log, and how far a training is from its status.json and log.csv (rvkernels/train.py).
"""

from __future__ import annotations

import functools
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from rvkernels import workflow_log
from rvkernels.files import read_json
from rvkernels.progress import birth, boot
from rvkernels.record import output_of
from rvkernels.runs import Epoch, read_log
from rvkernels.study import Study, load
from rvkernels.workflow_log import Job, WorkflowLog

GPU_QUERY = "name,utilization.gpu,memory.used,memory.total"
# A training on another machine is taken for running as long after its last word.
SILENT_SECONDS = 600.0
# Between the start of a snakemake process and the name of its log.
START_SECONDS = 300.0
# Of a stage that may be several jobs: the rule that gathers its parts, and what a part leaves below parts/.
PARTS = {
    "chip": ("gather_chips", "{experiment}/chip/{scatteritem}/part.npz"),
    "predict": ("gather_predictions", "{experiment}/predict/{model}/{framework}/{seed}/{scatteritem}/part.json"),
    "evaluate": ("gather_evaluation", "{experiment}/evaluate/{run}/{scatteritem}.npz"),
}
STATES = ("waiting", "running", "stopped", "done")


@dataclass(frozen=True)
class Stage:
    """Jobs of one rule."""

    rule: str
    total: int
    done: int
    running: int

    @property
    def waiting(self) -> int:
        return self.total - self.done - self.running


@dataclass(frozen=True)
class Running:
    """A job that runs: its rule, its wildcards as a text, for how many seconds, and the last line of its log."""

    rule: str
    what: str
    seconds: float
    line: str


@dataclass(frozen=True)
class Training:
    """One training. Epochs and steps count from 1; None: not known yet.

    state      waiting, running, stopped (it was begun, and no process goes on with it) or done
    phase      of a running one: build, train, validate or finish
    value      the validation metric `metric` of the last epoch; best: of the best one
    cores      processor cores that it keeps busy
    memory_mb  largest resident memory so far, device_mb: what the framework held on the device
    left_s     seconds until it is done, estimated
    curve      (epoch, training loss, validation metric) of every epoch
    """

    experiment: str
    model: str
    framework: str
    seed: int
    state: str
    phase: str | None = None
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    metric: str | None = None
    value: float | None = None
    best: float | None = None
    chips_per_s: float | None = None
    cores: float | None = None
    memory_mb: float | None = None
    device_mb: float | None = None
    left_s: float | None = None
    curve: list[tuple[int, float | None, float | None]] = field(default_factory=list)


@dataclass(frozen=True)
class State:
    """A study at one moment.

    state       not begun, running, stopped (killed or failed) or complete
    seconds     since the workflow was started, or what its last run took
    left_s      seconds until all is done; None: not known
    left_least  whether `left_s` leaves out stages of which none has finished yet
    failed      the jobs that failed in the last run, with the last line of their logs
    machine     of the machine that watches: cpu_share (None: not known yet), cores, memory_mb, memory_used_mb, gpus
    """

    study: str
    title: str
    folder: str
    state: str
    time: float
    seconds: float | None
    left_s: float | None
    left_least: bool
    stages: list[Stage]
    running: list[Running]
    failed: list[Running]
    trainings: list[Training]
    machine: dict


class Watcher:
    """Looks at one study again and again."""

    def __init__(self, where: str | Path, datasets: str | Path = "config/datasets") -> None:
        """`where` is results/STUDY or the study's file, whose results are then below the working directory.

        Raises FileNotFoundError or ValueError when it is neither.
        """
        path = Path(where)
        if path.suffix in (".yaml", ".yml"):
            self.study = Study.resolve(load(str(path)), datasets=datasets)
            self.folder = Path("results") / self.study.name
        elif path.is_dir():
            self.study, self.folder = Study.read(path), path
        else:
            raise FileNotFoundError(f"{path}: neither a study's folder, results/STUDY, nor its file, config/STUDY.yaml")
        self.directory = self.folder.resolve().parents[1]
        self._gpus: tuple[float, list[dict]] = (0.0, [])
        self._cpu = _cpu_seconds()
        self._share: float | None = None

    def look(self) -> State:
        """The study now."""
        now = time.time()
        path = workflow_log.find(self.directory, self.study.name)
        silent = workflow_log.silent(self.directory)
        if silent and self._works(workflow_log.read(silent)):
            path = silent  # all that is known of its jobs is what they leave
        log = workflow_log.read(path) if path else None
        alive = log is not None and not log.ended and self._works(log)
        trainings = [self._training(*run) for run in self.study.runs()]
        alive = alive or any(t.state == "running" for t in trainings)
        if log is not None and not alive:
            for job in log.jobs:
                if job.running:
                    job.ended = path.stat().st_mtime
        stages = self._stages(log, alive)
        complete = all(stage.done == stage.total for stage in stages)
        begun = any(stage.done or stage.running for stage in stages) or alive
        state = "complete" if complete and not alive else "running" if alive else "stopped" if begun else "not begun"
        left, least = self._left(log, stages, trainings, now) if alive else (None, False)
        ended = now if alive or not path else path.stat().st_mtime
        return State(
            study=self.study.name,
            title=self.study.config["title"],
            folder=str(self.folder),
            state=state,
            time=now,
            seconds=None if log is None else max(0.0, ended - log.started),
            left_s=left,
            left_least=least,
            stages=stages,
            running=[self._told(job, now) for job in log.jobs if job.running] if log and alive else [],
            failed=[self._told(job, now) for job in log.jobs if job.failed] if log else [],
            trainings=trainings,
            machine=self._machine(now),
        )

    def _works(self, log: WorkflowLog) -> bool:
        """Whether the snakemake that writes this log runs on this machine."""
        for process in psutil.process_iter():
            try:
                if (
                    0 <= log.started + 1 - process.create_time() <= START_SECONDS
                    and any(Path(part).name == "snakemake" for part in process.cmdline()[:3])
                    and Path(process.cwd()) == self.directory
                ):
                    return True
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return False

    # --- what there is to do ---------------------------------------------------------------------------------------

    def outputs(self) -> Iterator[tuple[str, dict[str, str], Path]]:
        """(rule, wildcards, the file that is there when the job is done) of every job of the study."""
        for rule, keys, path in self._stage_outputs():
            count = self.study.parts.get(rule, 1)
            if count == 1:
                yield rule, keys, path
                continue
            gather, left = PARTS[rule]
            for number in range(1, count + 1):
                part = {**keys, "scatteritem": f"{number}-of-{count}"}
                # When they are gathered, Snakemake removes them.
                yield f"{rule}_part", part, path if path.exists() else self.folder / "parts" / left.format(**part)
            yield gather, keys, path

    def _stage_outputs(self) -> Iterator[tuple[str, dict[str, str], Path]]:
        """The same where every stage is one job."""
        study, data, runs = self.study, self.folder / "data", self.folder / "runs"
        for rule, name in (
            *(("fetch", "scenes.jsonl"), ("split", "regions.csv"), ("analyze", "statistics.json")),
            ("chip", "chips/chips.csv"),
        ):
            yield from ((rule, {"experiment": e}, data / e / name) for e in study.experiments)
        starts = dict.fromkeys((e, m, s) for e, m, _, s in study.runs())
        for e, m, s in starts:
            yield "init", {"experiment": e, "model": m, "seed": str(s)}, data / e / "init" / m / f"{s}.npz"
        for rule, jobs, name in (
            ("train", study.runs(), "record.json"),
            ("control", study.controls(), "control/record.json"),
            ("predict", study.runs(), "predictions/record.json"),
        ):
            for e, m, f, s in jobs:
                keys = {"experiment": e, "model": m, "framework": f, "seed": str(s)}
                yield rule, keys, runs / e / m / f / str(s) / name
        for e in study.experiments:
            yield "baseline", {"experiment": e}, runs / e / "baseline/logistic/0/record.json"
        evaluated = [(e, f"{m}/{f}/{s}") for e, m, f, s in study.runs()]
        for e, run in [*evaluated, *((e, "baseline/logistic/0") for e in study.experiments)]:
            yield "evaluate", {"experiment": e, "run": run}, runs / e / run / "eval.json"
        yield "compare", {}, self.folder / "tables/runs.csv"
        if study.config["bench"]:
            yield "bench", {}, self.folder.parent / "bench/kernels.json"
        yield "report", {}, self.folder / "report.html"
        yield "blog", {}, self.folder / "blog/post.md"

    def _stages(self, log: WorkflowLog | None, alive: bool) -> list[Stage]:
        there: dict[str, list[bool]] = {}
        for rule, _, path in self.outputs():
            there.setdefault(rule, []).append(path.exists())
        stages = []
        for rule, found in there.items():
            total, running, left = len(found), 0, 0
            if log:
                jobs = [job for job in log.jobs if job.rule == rule]
                running = sum(job.running for job in jobs) if alive else 0
                # Files of jobs that are to be done again are still there.
                left = log.counts.get(rule, 0) - sum(not (job.running or job.failed) for job in jobs) if alive else 0
            stages.append(Stage(rule, total, max(0, min(sum(found), total - left, total - running)), running))
        return stages

    # --- trainings -------------------------------------------------------------------------------------------------

    def _training(self, experiment: str, model: str, framework: str, seed: int) -> Training:
        folder = self.folder / "runs" / experiment / model / framework / str(seed)
        settings = self.study.experiments[experiment]["train"]
        metric = settings["metric"]
        rows = _rows(folder)
        curve = [(int(row["epoch"]), row.get("train_loss"), row.get(f"val_{metric}")) for row in rows]
        values = [value for _, _, value in curve if value is not None]
        last = rows[-1] if rows else {}
        found = {
            "epochs": settings["epochs"],
            "metric": metric,
            "value": values[-1] if values else None,
            "best": max(values) if values else None,
            "curve": curve,
            "epoch": int(last["epoch"]) if rows else None,
            "step": int(last["step"]) if rows else None,
            "loss": last.get("train_loss"),
            "chips_per_s": last.get("chips_per_s"),
            "memory_mb": last.get("peak_rss_mb"),
            "device_mb": last.get("peak_device_mb"),
        }
        key = (experiment, model, framework, seed)
        if (folder / "record.json").is_file():
            return Training(*key, state="done", steps=found["step"], **found)
        status = _status(folder / "status.json")
        if status is None or not _runs(status):
            begun = bool(status or rows or (folder / "last.npz").is_file())
            return Training(*key, state="stopped" if begun else "waiting", **found)
        for name in ("phase", "epoch", "epochs", "step", "steps", "loss", "cores"):
            found[name] = status.get(name, found.get(name))
        if status.get("steps_per_s"):
            found["chips_per_s"] = status["steps_per_s"] * status["batch"]
        memory = _resident_mb(status["process"]) if status["boot"] == boot() else None
        found["memory_mb"] = max(filter(None, (memory, found["memory_mb"])), default=None)
        return Training(*key, state="running", left_s=_training_left(status, rows), **found)

    # --- estimates -------------------------------------------------------------------------------------------------

    def _left(
        self, log: WorkflowLog | None, stages: list[Stage], trainings: list[Training], now: float
    ) -> tuple[float | None, bool]:
        """Seconds until all is done, and whether some of it is not known: from jobs like those that are left."""
        took = [(job.rule, job.wildcards, job.ended - job.started) for job in _finished(log)]
        timed = [wildcards for rule, wildcards, _ in took if rule == "train"]
        for t in trainings:
            if t.state == "done" and _wildcards(t) not in timed:
                rows = _rows(self.folder / "runs" / t.experiment / t.model / t.framework / str(t.seed))
                took.append(("train", _wildcards(t), sum(row["train_seconds"] + row["val_seconds"] for row in rows)))
        left: list[tuple[str, float | None]] = []
        known = {tuple(sorted(_wildcards(t).items())): t.left_s for t in trainings if t.state == "running"}
        for job in log.jobs if log else []:
            if job.running:
                estimate = known.get(tuple(sorted(job.wildcards.items()))) if job.rule == "train" else None
                if estimate is None and (like := _like(job.rule, job.wildcards, took)) is not None:
                    estimate = max(0.0, like - (now - job.started))
                left.append((job.rule, estimate))
        longest = max((seconds for _, seconds in left if seconds is not None), default=0.0)
        started = {(job.rule, *sorted(job.wildcards.items())) for job in log.jobs} if log else set()
        waiting: dict[str, list[dict]] = {}
        for rule, wildcards, path in self.outputs():
            if (rule, *sorted(wildcards.items())) not in started and not path.exists():
                waiting.setdefault(rule, []).append(wildcards)
        for stage in stages:
            jobs = waiting.get(stage.rule, [])[: stage.waiting]
            # Jobs that are to be done again have their files, so that only their number is known.
            jobs += [{}] * (stage.waiting - len(jobs))
            left += [(stage.rule, _like(stage.rule, keys, took)) for keys in jobs]
        if ("train", None) in left:  # what takes longest
            return None, True
        together = max(1, (log.cores if log else 1) // (self.study.threads * self.study.workers))
        seconds = sum(seconds for _, seconds in left if seconds is not None) / together
        return max(longest, seconds), any(seconds is None for _, seconds in left)

    def _told(self, job: Job, now: float) -> Running:
        what = " ".join(job.wildcards.values())
        path = self.directory / job.log if job.log else None
        return Running(job.rule, what, (job.ended or now) - job.started, _last_line(path) if path else "")

    def _machine(self, now: float) -> dict:
        if now - self._gpus[0] > 5:
            self._gpus = (now, _gpus())
        # psutil.cpu_percent() counts anew in every thread, and the page's requests come in one each.
        busy, all_ = (y - x for x, y in zip(self._cpu, _cpu_seconds()))
        if all_ > 0.1:
            self._share, self._cpu = busy / all_, _cpu_seconds()
        memory = psutil.virtual_memory()
        return {
            "cpu_share": self._share,
            "cores": os.cpu_count(),
            "memory_mb": memory.total / 2**20,
            "memory_used_mb": (memory.total - memory.available) / 2**20,
            "gpus": self._gpus[1],
        }


def _cpu_seconds() -> tuple[float, float]:
    """Seconds that this machine's cores were busy, and all of their seconds."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0), sum(times)


def _wildcards(training: Training) -> dict[str, str]:
    return {name: str(getattr(training, name)) for name in ("experiment", "model", "framework", "seed")}


def _finished(log: WorkflowLog | None) -> list[Job]:
    return [job for job in log.jobs if not (job.running or job.failed)] if log else []


def _like(rule: str, wildcards: dict[str, str], took: list[tuple[str, dict[str, str], float]]) -> float | None:
    """Mean seconds of the finished jobs of this rule that have the most leading wildcards in common; None: none."""
    keys = ("experiment", "model", "framework")
    for depth in range(len(keys), -1, -1):
        wanted = [wildcards.get(key) for key in keys[:depth]]
        like = [s for r, found, s in took if r == rule and [found.get(key) for key in keys[:depth]] == wanted]
        if like:
            return statistics.fmean(like)
    return None


def _training_left(status: dict, rows: list[Epoch]) -> float | None:
    """Seconds that the steps and validations take that are left; early stopping and timing at the end apart."""
    rate = status.get("steps_per_s")
    if rate is None and rows:
        rate = rows[-1]["step"] / len(rows) / statistics.fmean(row["train_seconds"] for row in rows)
    if not rate:
        return None
    validation = statistics.fmean(row["val_seconds"] for row in rows) if rows else 0.0
    return (status["steps"] - status["step"]) / rate + (status["epochs"] - len(rows)) * validation


def _rows(run: Path) -> list[Epoch]:
    """The epochs of a training; [] when there is none yet."""
    try:
        return _read(run, (run / "log.csv").stat().st_mtime_ns)
    except FileNotFoundError:
        return []


@functools.lru_cache(maxsize=4096)
def _read(run: Path, changed: int) -> list[Epoch]:
    """`changed` is the time of its log: one that has not moved is not read again."""
    return read_log(run)


def _status(path: Path) -> dict | None:
    try:
        return read_json(path)
    except FileNotFoundError:
        return None


def _runs(status: dict) -> bool:
    """Whether the process that wrote this runs; on another machine, whether it wrote lately."""
    if status["boot"] == boot() and status["boot"]:
        return birth(status["process"]) == status["born"] is not None
    return time.time() - status["updated"] < SILENT_SECONDS


def _resident_mb(process: int) -> float | None:
    try:
        return psutil.Process(process).memory_info().rss / 2**20
    except psutil.NoSuchProcess:
        return None


def _last_line(path: Path) -> str:
    """The last line of a log file, without its time; "" when it has none."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 4096))
            lines = log.read().decode(errors="replace").split("\n")
    except FileNotFoundError:
        return ""
    last = next((line for line in reversed(lines) if line.strip()), "")
    moment, _, rest = last[:19], last[19:20], last[20:]
    return rest if moment[:4].isdigit() and moment[10:11] == " " else last


def _gpus() -> list[dict]:
    """name, share (busy), memory_used_mb and memory_mb of every GPU that nvidia-smi tells of."""
    told = output_of(["nvidia-smi", f"--query-gpu={GPU_QUERY}", "--format=csv,noheader,nounits"])
    found = []
    for line in (told or "").splitlines():
        name, share, used, total = (part.strip() for part in line.split(","))
        numbers = [float(n) if n.replace(".", "", 1).isdigit() else None for n in (share, used, total)]
        busy = None if numbers[0] is None else numbers[0] / 100
        found.append({"name": name, "share": busy, "memory_used_mb": numbers[1], "memory_mb": numbers[2]})
    return found
