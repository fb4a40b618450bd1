"""Processes that train one model together: which of them this one is, how they meet, and what ends them together.

Every worker makes its own slice of each global batch, and its framework sums gradients, batch statistics and losses
over all of them (`team` in rvkernels/frameworks/__init__.py). The first one alone validates and writes.

Which worker a process is stands in its environment: RANK, WORLD_SIZE and LOCAL_RANK, which torchrun and `start` set;
TF_CONFIG; or of a task of srun SLURM_PROCID, SLURM_NTASKS and SLURM_LOCALID. All meet at one address, where the first
listens: RVK_MEETING (host:port), or else one that follows from MASTER_ADDR and MASTER_PORT, TF_CONFIG or SLURM's job.
There each gets the addresses of all, over which its framework connects its own collective operations. The connections
of the meeting stay open: when a process dies, in whatever way, the system closes its own, and the others end instead of
waiting for it for ever.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import json
import os
import queue
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Callable, NamedTuple

from rvkernels import own_model, registry
from rvkernels.progress import tell_error
from rvkernels.record import machine

MEETING_SECONDS = 600.0  # that workers wait for each other: nodes of a cluster do not start together
# Of a worker whose framework failed: the news that another is gone, which explains it, may be an instant behind.
NEWS_SECONDS = 5.0


class Seat(NamedTuple):
    """What the environment tells a worker about itself."""

    rank: int  # from 0
    count: int
    local: int  # its number among the workers of its machine, from 0
    host: str  # where all meet
    port: int


@functools.cache
def frameworks() -> tuple[str, ...]:
    """Frameworks that train in several processes: their files have a function `launch`. None of them is imported."""
    return tuple(
        name
        for name in registry.names("frameworks")
        if any(isinstance(n, ast.FunctionDef) and n.name == "launch" for n in registry.tree("frameworks", name).body)
    )


def check(count: int, framework: str, settings: Mapping[str, object], *, own: bool) -> None:
    """Raise ValueError, one line, when `count` workers cannot train in `framework` with the train `settings`.

    own  a model of the user's own
    """
    if type(count) is not int or count < 1:
        raise ValueError(f"workers is {count!r}, expected a whole number of at least 1")
    if count == 1:
        return
    if framework not in frameworks():
        raise ValueError(
            f"workers is {count}, but {framework} trains in one process only; of several are capable "
            f"{', '.join(frameworks())}"
        )
    if settings["batch"] < count:
        raise ValueError(f"train: batch is {settings['batch']}, but each of {count} workers needs a chip of each batch")
    if settings["accumulate"] > 1 and settings["batch"] % (settings["accumulate"] * count):
        raise ValueError(
            f"train: batch is {settings['batch']}, but with accumulate {settings['accumulate']} it must be a multiple "
            f"of {settings['accumulate'] * count}: each of {count} workers needs an equal part of each micro-batch"
        )
    if own and framework not in own_model.TOGETHER:
        raise ValueError(f"workers is {count}, but a model of your own trains in one process only in {framework}")
    if settings["compile"]:
        raise ValueError(f"train: compile is for one worker, not for {count}")


def seat(environment: Mapping[str, str]) -> Seat | None:
    """Which worker `environment` makes of a process; None: it trains alone.

    Raises ValueError naming the variable when it is not as expected.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        rank, count = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
        local = _number(environment, "LOCAL_RANK", "0")
        # MASTER_PORT itself is torchrun's.
        host, port = environment.get("MASTER_ADDR", ""), _number(environment, "MASTER_PORT", "29500") + 1
    elif "TF_CONFIG" in environment:
        rank, addresses = _tf_config(environment["TF_CONFIG"])
        count, hosts = len(addresses), [address.rpartition(":")[0] for address in addresses]
        local, host = hosts[:rank].count(hosts[rank]), hosts[0]
        port = 1 + max(int(address.rpartition(":")[2]) for address, at in zip(addresses, hosts) if at == host)
    elif "SLURM_STEP_ID" in environment:  # a task of srun: a batch script has SLURM_PROCID and SLURM_NTASKS, too
        rank, count = _number(environment, "SLURM_PROCID"), _number(environment, "SLURM_NTASKS")
        local = _number(environment, "SLURM_LOCALID", "0")
        nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
        host = environment.get("MASTER_ADDR") or first_host(nodes)
        # The same in all tasks, and another one for jobs and steps that share a node.
        job, step = _number(environment, "SLURM_JOB_ID", "0"), _number(environment, "SLURM_STEP_ID")
        port = _number(environment, "MASTER_PORT", str(20000 + (job + 4999 * step) % 20000))
    else:
        return None
    if not 0 <= rank < count:
        raise ValueError(f"the environment names worker {rank} of {count}; expected one from 0 to {count - 1}")
    if count == 1:
        return None
    if "RVK_MEETING" in environment:
        host, _, number = environment["RVK_MEETING"].rpartition(":")
        if not number.isdigit():
            raise ValueError(f"RVK_MEETING is {environment['RVK_MEETING']!r}, expected host:port")
        port = int(number)
    if not host:
        raise ValueError("several workers, but nothing tells where they meet; set MASTER_ADDR to the first one's host")
    return Seat(rank, count, local, host, port)


def _number(environment: Mapping[str, str], name: str, default: str | None = None) -> int:
    value = environment.get(name, default)
    if value is None or not value.isdigit():
        raise ValueError(f"{name} is {value!r} in the environment, expected a whole number")
    return int(value)


def _tf_config(text: str) -> tuple[int, list[str]]:
    """Number of this worker and host:port of all, of TensorFlow's variable."""
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        addresses, rank, kind = list(cluster["worker"]), int(task["index"]), task["type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"TF_CONFIG names no workers ({error!r}); expected cluster: worker, task: type, index"
        ) from None
    if set(cluster) != {"worker"} or kind != "worker":
        raise ValueError(f"TF_CONFIG has tasks {', '.join(sorted(cluster))}; only those of type worker train here")
    return rank, addresses


def first_host(nodes: str) -> str:
    """The first name of SLURM's list of nodes: gpu01 of "gpu[01-03,7],cpu1"."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[([^-,\]]+)[^\]]*\]", r"\1", first.group())


def take_device(seat: Seat, environment: dict[str, str]) -> None:
    """Leave one GPU visible, before a framework looks: that of the worker's number on its machine.

    One that is alone is the worker's already: SLURM bound it. Raises ValueError when there are fewer than workers.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        environment["CUDA_VISIBLE_DEVICES"] = str(seat.local)
        return
    devices = visible.split(",")
    if len(devices) > 1 and seat.local >= len(devices):
        raise ValueError(f"worker {seat.rank} is number {seat.local} of its machine, which shows {len(devices)} GPUs")
    environment["CUDA_VISIBLE_DEVICES"] = devices[0] if len(devices) == 1 else devices[seat.local]


def check_devices(count: int, environment: Mapping[str, str]) -> None:
    """Raise ValueError when this machine shows fewer GPUs than `count` workers need."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    there = len(machine().get("gpus", ())) if visible is None else len(visible.split(","))
    if there < count:
        raise ValueError(f"workers is {count}, but this machine shows {there} GPUs; each worker needs one")


def free_port() -> int:
    """A port that nobody listened at a moment ago."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def start(count: int, command: Sequence[str]) -> dict[int, int]:
    """Run `command` as `count` workers on this machine until all have ended.

    Returns the exit status of those that failed by rank; negative: the signal that killed it. When one fails the others
    are ended, too, unless they do so by themselves.
    """
    processes = []
    try:
        for rank in range(count):
            told = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            processes.append(subprocess.Popen(command, env={**os.environ, **told}))
        failed_at = None
        while any(process.poll() is None for process in processes):
            if failed_at is None and any(process.returncode for process in processes):
                failed_at = time.monotonic()
            if failed_at is not None and time.monotonic() - failed_at > 2 * NEWS_SECONDS:
                break
            time.sleep(0.1)
        return {rank: process.returncode for rank, process in enumerate(processes) if process.returncode}
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def ended(failed: Mapping[int, int], count: int) -> str:
    """How the workers ended, in words: those that a signal killed where there are any, as the others follow them."""
    words = []
    for rank, status in sorted(({r: n for r, n in failed.items() if n < 0} or failed).items()):
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        words.append(f"worker {rank} of {count} {how}")
    return f"{', '.join(words)}; the same command goes on from the last checkpoint"


class Team:
    """The workers of a training, seen from one of them; `Team()` is one that trains alone.

    rank, count   this worker and how many there are
    addresses     host:port of each, the ports free for the framework
    machines      of each machine {"workers": ranks, ...} with what rvkernels.record.machine tells; empty when alone

    A context manager: leaving it tells the others whether this worker came to its end or failed.
    """

    def __init__(
        self,
        rank: int = 0,
        count: int = 1,
        addresses: Sequence[str] = (),
        machines: Sequence[Mapping[str, object]] = (),
        connections: Mapping[int, socket.socket] | None = None,
        end: Callable[[str | None, int], None] | None = None,
    ) -> None:
        self.rank, self.count = rank, count
        self.addresses, self.machines = list(addresses), [dict(m) for m in machines]
        self._connections = dict(connections or {})
        self._end = end or end_process
        self._leaving = threading.Event()
        self._sending = threading.Lock()
        self._shared: queue.Queue[object] = queue.Queue()
        for other, connection in self._connections.items():
            threading.Thread(target=self._listen, args=(other, connection), daemon=True, name="workers").start()

    @property
    def first(self) -> bool:
        """Whether this is the worker that validates and writes."""
        return self.rank == 0

    def share(self, value: object = None) -> object:
        """The first worker's `value`, a JSON value, in all of them; the others wait for it."""
        if self.first:
            self._tell({"value": value})
            return value
        return self._shared.get()

    def __enter__(self) -> Team:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, (ValueError, FileNotFoundError)) and self._connections:
            time.sleep(NEWS_SECONDS)
        self._leaving.set()
        status = 0 if error is None else 2 if isinstance(error, (ValueError, FileNotFoundError)) else 1
        self._tell({"left": status})

    def _tell(self, message: Mapping[str, object], but: int | None = None) -> None:
        with self._sending:
            for other, connection in self._connections.items():
                if other != but:
                    with contextlib.suppress(OSError):  # it is gone, and the thread that listens to it says so
                        _send(connection, message)

    def _listen(self, other: int, connection: socket.socket) -> None:
        """Take what worker `other` says until it leaves; end this process when it is lost or failed."""
        with connection:
            for message in _messages(connection):
                if "value" in message:
                    self._shared.put(message["value"])
                elif message.get("left") == 0:
                    return
                else:  # it has said itself why
                    self._leave(None, message["left"], other)
                    return
            self._leave(f"worker {other} of {self.count} is gone, so worker {self.rank} ends", 1, other)

    def _leave(self, reason: str | None, status: int, other: int) -> None:
        """End this process because of worker `other`, after telling the rest: only the first is connected with all."""
        if not self._leaving.is_set():
            self._leaving.set()
            self._tell({"left": status}, but=other)
            self._end(reason, status)


def end_process(reason: str | None, status: int) -> None:
    """End this process at once, whatever its other threads wait for; tell `reason`."""
    if reason is not None:
        tell_error(f"rvk train: error: {reason}; the same command goes on from the last checkpoint")
    os._exit(status)


def meet(seat: Seat, identity: str, *, seconds: float = MEETING_SECONDS) -> Team:
    """Wait for all workers.

    identity  of the training; all must have the same

    Raises ValueError when not all come within `seconds`, or one has another identity or number of workers.
    """
    deadline = time.monotonic() + seconds
    hello: dict[str, object] = {"rank": seat.rank, "count": seat.count, "identity": identity, "machine": machine()}
    hello["node"] = os.environ.get("SLURMD_NODENAME", socket.gethostname())
    if seat.rank:
        return _come(seat, hello, deadline)
    return _receive(seat, hello, deadline)


def _receive(seat: Seat, hello: dict[str, object], deadline: float) -> Team:
    """The first worker's part: greet all others, then tell each what all have said."""
    here = seat.host if seat.host in ("127.0.0.1", "localhost") else ""
    try:
        server = socket.create_server((here, seat.port), backlog=seat.count)
    except OSError as error:
        raise ValueError(f"worker 0 cannot listen at port {seat.port} ({error}); set MASTER_PORT to another") from None
    connections: dict[int, socket.socket] = {}
    greetings = {0: {**hello, "address": f"{seat.host}:{free_port()}"}}
    with server, contextlib.ExitStack() as opened:
        while len(greetings) < seat.count:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                connection, _ = server.accept()
            except socket.timeout:
                missing = ", ".join(str(rank) for rank in range(seat.count) if rank not in greetings)
                raise ValueError(
                    f"worker 0 of {seat.count} waited at {seat.host}:{seat.port}, but worker {missing} did not come"
                ) from None
            opened.enter_context(connection).settimeout(10)
            said = next(_messages(connection), {})
            if not {"rank", "count", "identity", "node", "address", "machine"} <= said.keys():
                connection.close()  # nobody of ours
                continue
            for name, what in (("count", "number of workers"), ("identity", "training: settings, chips or version")):
                if said[name] != hello[name]:
                    text = f"worker {said['rank']} came with another {what} than worker 0"
                    _send(connection, {"refused": text})
                    raise ValueError(text)
            connections[said["rank"]] = connection
            greetings[said["rank"]] = said
        addresses = [greetings[rank]["address"] for rank in range(seat.count)]
        machines: dict[str, dict[str, object]] = {}
        for rank in range(seat.count):
            known = machines.setdefault(greetings[rank]["node"], {"workers": [], **greetings[rank]["machine"]})
            known["workers"].append(rank)
        for connection in connections.values():
            _send(connection, {"addresses": addresses, "machines": list(machines.values())})
            _keep_open(connection)
        opened.pop_all()
    return Team(0, seat.count, addresses, list(machines.values()), connections)


def _come(seat: Seat, hello: dict[str, object], deadline: float) -> Team:
    """Any other worker's part."""
    with contextlib.ExitStack() as opened:
        connection = opened.enter_context(_reach(seat, deadline))
        _send(connection, {**hello, "address": f"{connection.getsockname()[0]}:{free_port()}"})
        connection.settimeout(max(10, deadline - time.monotonic()))
        told = next(_messages(connection), {"refused": f"worker {seat.rank} met worker 0, but it ended"})
        if "refused" in told:
            raise ValueError(told["refused"])
        _keep_open(connection)
        opened.pop_all()
    return Team(seat.rank, seat.count, told["addresses"], told["machines"], {0: connection})


def _reach(seat: Seat, deadline: float) -> socket.socket:
    """A connection with the first worker, which may not listen yet."""
    while True:
        try:
            return socket.create_connection((seat.host, seat.port), timeout=10)
        except OSError as error:  # a name that means nothing does not come to mean something later
            if time.monotonic() > deadline or isinstance(error, socket.gaierror):
                raise ValueError(
                    f"worker {seat.rank} of {seat.count} does not reach worker 0 at {seat.host}:{seat.port} ({error}); "
                    f"set MASTER_ADDR and MASTER_PORT"
                ) from None
            time.sleep(0.2)


def _send(connection: socket.socket, message: Mapping[str, object]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _messages(connection: socket.socket) -> Iterator[dict]:
    """What comes over a connection until it is closed, in whatever way, or speaks another language."""
    with connection.makefile("rb", buffering=0) as lines, contextlib.suppress(OSError, ValueError):
        while line := _line(lines):
            message = json.loads(line)
            if not isinstance(message, dict):
                return
            yield message


def _line(source: object) -> bytes:
    """One line, read byte by byte so that nothing behind it is taken from the connection; b"" at the end."""
    found = bytearray()
    while (byte := source.read(1)) not in (b"", b"\n", None):
        found += byte
    return bytes(found)


def _keep_open(connection: socket.socket) -> None:
    """No time limit, and a look every now and then whether the other machine is still there: one that lost its power
    closes nothing."""
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 6)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
