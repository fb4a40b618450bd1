"""The view of a running study as a page on this machine alone: 127.0.0.1, no other address."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rvkernels import live_words, registry
from rvkernels.files import to_json
from rvkernels.frameworks import color
from rvkernels.live import State, Watcher

ADDRESS = "127.0.0.1"
PAGE = Path(__file__).with_name("page") / "watch.html"


class Server(ThreadingHTTPServer):
    """`/` is the page, `/state` the state as JSON, looked up at most once in `every` seconds however many ask."""

    daemon_threads = True

    def __init__(self, watcher: Watcher, port: int, every: float) -> None:
        super().__init__((ADDRESS, port), Handler)
        self._watcher, self.every = watcher, every
        self._lock, self._state = threading.Lock(), b""
        self._looked = float("-inf")
        page = PAGE.read_text().replace("{{EVERY}}", str(round(1000 * every)))
        self.page = page.replace(
            "{{COLORS}}", json.dumps({name: color(name) for name in registry.names("frameworks")})
        ).encode()
        self.names = {f"{host}:{self.server_port}" for host in (ADDRESS, "localhost")}

    @property
    def address(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/"

    def state(self) -> bytes:
        with self._lock:
            if time.monotonic() - self._looked >= self.every:
                self._state = as_json(self._watcher.look()).encode()
                self._looked = time.monotonic()
            return self._state


class Handler(BaseHTTPRequestHandler):
    """Answers GET of the page and of the state."""

    server: Server

    def do_GET(self) -> None:
        # A page of another site may have its name point here; what it asks for carries that name.
        if self.headers.get("Host") not in self.server.names:
            self.send_error(HTTPStatus.FORBIDDEN)
        elif self.path == "/":
            self._answer(self.server.page, "text/html; charset=utf-8")
        elif self.path == "/state":
            self._answer(self.server.state(), "application/json")
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", "default-src 'self' 'unsafe-inline'; img-src data:")
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the page was closed meanwhile
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: a line every two seconds would hide the address."""


def as_json(state: State) -> str:
    """The state with the names of its fields, and `words`, what is said of it; numbers that are not finite are null."""
    trainings = live_words.in_order(state.trainings)
    rows = [live_words.row(t) for t in trainings]
    heads = live_words.heads(rows)
    words = {
        "progress": live_words.progress(state),
        "machine": live_words.machine(state),
        "jobs": [
            [kind, job.rule, job.what, live_words.duration(job.seconds), job.line]
            for kind, jobs in (("running", state.running), ("failed", state.failed))
            for job in jobs
        ],
        "heads": [[head, head in live_words.NUMBERS] for head in heads],
        "rows": [{"state": t.state, "cells": [row[head] for head in heads]} for t, row in zip(trainings, rows)],
    }
    return json.dumps(to_json({**dataclasses.asdict(state), "words": words}), allow_nan=False)


def serve(where: str | Path, *, port: int, every: float) -> None:
    """Serve the page until Ctrl-C. ValueError when the port is taken; port 0: any that is free."""
    watcher = Watcher(where)
    try:
        server = Server(watcher, port, every)
    except OSError as error:
        raise ValueError(f"--serve {port}: {error.strerror}; choose another port, or 0 for any") from None
    with server:
        print(f"{watcher.study.name}: {server.address} (Ctrl-C ends)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
