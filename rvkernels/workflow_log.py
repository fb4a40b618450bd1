"""Snakemake's log of a run of the workflow, .snakemake/log/<time>.snakemake.log: which jobs there are, and how far.

The package does not import snakemake; it reads what the workflow leaves.
"""

from __future__ import annotations

import functools
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

TIME = re.compile(r"\[(\w{3} \w{3} +\d+ [\d:]{8} \d{4})\]$")
RULE = re.compile(r"(?:local)?(?:rule|checkpoint) (\w+):$")
FINISHED = re.compile(r"Finished jobid: (\d+) \(Rule: \w+\)")
FAILED = re.compile(r"(?:Error in rule|Error executing rule) (\w+)")
CORES = re.compile(r"Provided cores: (\d+)")
COUNT = re.compile(r"(\w+) +(\d+)$")


@dataclass
class Job:
    """A job that was started. Times are seconds since 1970; wildcards by name."""

    rule: str
    number: int = -1
    wildcards: dict[str, str] = field(default_factory=dict)
    log: str | None = None
    started: float = 0.0
    ended: float | None = None
    failed: bool = False

    @property
    def running(self) -> bool:
        return self.ended is None


@dataclass
class WorkflowLog:
    """One log. `counts` has the jobs per rule that this run set out to do, `jobs` those that were started."""

    started: float
    cores: int = 1
    counts: dict[str, int] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    ended: bool = False


def find(directory: Path, study: str) -> Path | None:
    """The newest log below `directory` (snakemake's working directory) with a job of results/<study>/."""
    for path in sorted(directory.glob(".snakemake/log/*.snakemake.log"), reverse=True):
        if _has_job(path, path.stat().st_mtime_ns, study):
            return path
    return None


@functools.lru_cache(maxsize=1024)
def _has_job(path: Path, changed: int, study: str) -> bool:
    """Whether it is of a job of the study: a dry run, or one that only makes a report, leaves a log, too."""
    return f"\n    log: results/{study}/" in _text(path, changed)


def silent(directory: Path) -> Path | None:
    """The newest log below `directory` if it is empty, as snakemake --quiet leaves it."""
    newest = max(directory.glob(".snakemake/log/*.snakemake.log"), default=None)
    return newest if newest and newest.stat().st_size == 0 else None


def read(path: Path) -> WorkflowLog:
    """Read a log, also while it is written."""
    log = WorkflowLog(started=_named_time(path))
    moment, job, counting, failing = log.started, None, False, False
    by_number: dict[int, Job] = {}
    for line in _text(path, path.stat().st_mtime_ns).splitlines():
        if found := TIME.match(line):
            moment, job, failing = time.mktime(time.strptime(found[1])), None, False
        elif line == "Job stats:":
            counting = True
        elif counting:
            counting = bool(line)
            if (found := COUNT.match(line)) and found[1] not in ("job", "total"):
                log.counts[found[1]] = int(found[2])
        elif found := RULE.match(line):
            job, failing = Job(found[1], started=moment), False
            log.jobs.append(job)
        elif line.startswith("    jobid: "):
            number = int(line.rpartition(" ")[2])
            if failing and number in by_number:
                by_number[number].ended, by_number[number].failed = moment, True
            elif job:
                job.number, by_number[number] = number, job
        elif job and line.startswith("    wildcards: "):
            pairs = line.strip().removeprefix("wildcards: ").split(", ")
            job.wildcards = dict(pair.split("=", 1) for pair in pairs)
        elif job and line.startswith("    log: "):
            job.log = line.removeprefix("    log: ")
        elif found := FINISHED.match(line):
            if int(found[1]) in by_number:
                by_number[int(found[1])].ended = moment
        elif FAILED.match(line):
            job, failing = None, True
        elif found := CORES.match(line):
            log.cores = int(found[1])
        elif line.startswith("Complete log"):
            log.ended = True
    return log


def _named_time(path: Path) -> float:
    """The moment in the log's name, which is local time."""
    return time.mktime(time.strptime(path.name.partition(".")[0], "%Y-%m-%dT%H%M%S"))


@functools.lru_cache(maxsize=1)
def _text(path: Path, changed: int) -> str:
    """The text of the last file that was asked for, which `changed`, its time, tells from what it was before."""
    return path.read_text(errors="replace")
