"""A SLURM of virtual nodes with fake GPUs on this machine: real daemons in namespaces of their own.

The mount namespace puts a configuration at /etc/slurm that nobody else sees, and all processes are in a PID namespace
whose first process reads a pipe of the tests': when these end, however they end, the kernel kills every daemon and job.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

PACKAGES = "apt-get install -y --no-install-recommends slurm-wlm munge"
PROGRAMS = ("slurmctld", "slurmd", "scontrol", "sbatch", "munged", "mungekey", "unshare", "nsenter")
NODES = {"cpu1": 0, "cpu2": 0, "gpu1": 2, "gpu2": 2}  # name -> GPUs
CPUS = 8
MEMORY_MB = 60000
SECONDS = 300  # the longest wait for a daemon

# Virtual nodes promise more than this machine has (config_overrides). Without control groups, SLURM finds a job's
# processes in /proc and kills one that takes too much memory when it looks at it, every second. SLURM's own waits for a
# daemon's answer are long, as this machine may have other work.
CONFIGURATION = """\
ClusterName=virtual
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
CryptoType=crypto/munge
CredType=cred/munge
StateSaveLocation={root}/state
SlurmctldPidFile={root}/slurmctld.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdSpoolDir={root}/spool/%n
SlurmdPidFile={root}/%n.pid
SlurmdLogFile={root}/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
MinJobAge=86400
KillWait=2
MessageTimeout=60
TCPTimeout=30
BatchStartTimeout=300
ReturnToService=2
SlurmctldTimeout=120
SlurmdTimeout=120
GresTypes=gpu
"""


@dataclass
class Slurm:
    """A running cluster. `folder` has its configuration, state and logs."""

    folder: Path
    holder: subprocess.Popen

    @property
    def _first(self) -> int:
        """The first process of the namespaces, by its number outside of them."""
        (child,) = psutil.Process(self.holder.pid).children()
        return child.pid

    def namespace(self) -> str | None:
        """The PID namespace of the daemons and jobs."""
        return namespace_of(self._first)

    def command(self, *arguments: str | Path, cwd: Path | None = None) -> list[str]:
        """The command line that runs a program inside the namespaces."""
        enter = ["nsenter", "--target", str(self._first), "--mount", "--uts", "--pid", f"--wd={cwd or Path.cwd()}"]
        return [*enter, "--", *map(str, arguments)]

    def run(self, *arguments: str | Path) -> str:
        """Run a program inside and return its output; pytest fails with its errors when it fails."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(map(str, arguments))}: {done.stderr}"
        return done.stdout

    def jobs(self) -> list[dict[str, str]]:
        """Every job since the start, in the order of submission, as `scontrol show job` has them."""
        lines = self.run("scontrol", "show", "job", "--oneliner").splitlines()
        # Values may hold spaces; a key is a word that begins with a capital and ends at an equals sign.
        jobs = [
            dict(part.split("=", 1) for part in line.split() if "=" in part and part[0].isupper()) for line in lines
        ]
        return sorted((job for job in jobs if "JobId" in job), key=lambda job: int(job["JobId"]))

    def job(self, number: str) -> dict[str, str]:
        """One of `jobs`."""
        (job,) = (job for job in self.jobs() if job["JobId"] == number)
        return job

    def start(self) -> None:
        """Write the configuration, start the daemons, and wait until every node is idle."""
        for name in ("state", "devices"):
            (self.folder / name).mkdir()
        self.configure()
        key = self.folder / "munge.key"
        self.run("mungekey", "--create", f"--keyfile={key}")
        files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
        self.run("munged", "--force", f"--socket={self.folder}/munge.socket", *files)
        self.run("slurmctld")
        for node in NODES:
            (self.folder / "spool" / node).mkdir(parents=True)
            self.run("slurmd", "-N", node)
        self._await_idle_nodes()

    def _await_idle_nodes(self) -> None:
        deadline = time.monotonic() + SECONDS
        while (states := self.run("sinfo", "--noheader", "--Node", "--format=%t").split()) != ["idle"] * len(NODES):
            assert time.monotonic() < deadline, f"nodes are {states}; see the logs in {self.folder}"
            time.sleep(0.2)

    def kill_node(self, node: str) -> None:
        """End a node as a power cut does: its daemon, and the jobs on it with all their processes, by SIGKILL.

        The controller is told so at once, which it would find out after SlurmdTimeout.
        """
        jobs = self.run("squeue", "--noheader", f"--nodelist={node}", "--format=%A").split()
        assert jobs, f"nothing runs on {node}"
        namespace, lost = self.namespace(), []
        for process in psutil.process_iter(["cmdline"]):
            line = " ".join(process.info["cmdline"] or []).strip()
            of_step = line.startswith(tuple(f"slurmstepd: [{job}." for job in jobs))
            if (of_step or line.endswith(f"slurmd -N {node}")) and namespace_of(process.pid) == namespace:
                lost += [process, *process.children(recursive=True)]
        assert len(lost) > 1, f"no daemon and step on {node}"
        for process in lost:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    def mend_node(self, node: str) -> None:
        """Start the daemon of a node that `kill_node` ended, and wait until all nodes are idle."""
        self.run("slurmd", "-N", node)
        self._await_idle_nodes()

    def configure(self) -> None:
        """Write slurm.conf and gres.conf into the folder that is mounted at /etc/slurm."""
        gpus = max(NODES.values())
        for i in range(gpus):
            # SLURM sets CUDA_VISIBLE_DEVICES for character devices alone; this one is /dev/null once more.
            os.mknod(self.folder / f"devices/nvidia{i}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        ports = free_ports(1 + len(NODES))
        text = CONFIGURATION.format(port=ports.pop(), root=self.folder)
        devices = ""
        for node, count in NODES.items():
            text += (
                f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports.pop()} CPUs={CPUS} Boards=1"
                f" SocketsPerBoard=1 CoresPerSocket={CPUS} ThreadsPerCore=1 RealMemory={MEMORY_MB}"
                f"{f' Gres=gpu:fake:{count}' if count else ''} State=UNKNOWN\n"
            )
            if count:
                devices += f"NodeName={node} Name=gpu Type=fake File={self.folder}/devices/nvidia[0-{count - 1}]\n"
        for kind, default in (("cpu", "YES"), ("gpu", "NO")):
            nodes = ",".join(node for node in NODES if node.startswith(kind))
            text += f"PartitionName={kind} Nodes={nodes} Default={default} MaxTime=UNLIMITED State=UP\n"
        (self.folder / "configuration/slurm.conf").write_text(text)
        (self.folder / "configuration/gres.conf").write_text(devices)


def namespace_of(process: int) -> str | None:
    """The PID namespace of a process; None when it has ended, or is not ours to ask."""
    try:
        return os.readlink(f"/proc/{process}/ns/pid")
    except (FileNotFoundError, PermissionError):
        return None


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """A running Slurm; skipped where it cannot be had."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} on this machine; {PACKAGES}")
    folder = tmp_path_factory.mktemp("slurm")
    hold = (
        f"mount --bind {folder}/configuration /etc/slurm && hostname localhost && echo ready"
        # Not the last command, so that bash stays and reaps the daemons' children.
        " && cat; true"
    )
    (folder / "configuration").mkdir()
    unshare = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", hold]
    with subprocess.Popen(
        unshare, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as holder:
        if holder.stdout.readline() != "ready\n":
            pytest.skip(f"no namespaces for a SLURM of our own (root may make them): {holder.stderr.read().strip()}")
        cluster = Slurm(folder, holder)
        configuration, namespace = os.listdir("/etc/slurm"), cluster.namespace()
        cluster.start()
        yield cluster
        holder.stdin.close()
        holder.wait(SECONDS)
        assert os.listdir("/etc/slurm") == configuration
        assert not [process for process in psutil.pids() if namespace_of(process) == namespace]
