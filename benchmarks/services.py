"""Servers as processes of their own, on loopback, each kept to some cores: ours and those it is compared with."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks import load
from benchmarks.peers import MissingPeerError
from benchmarks.server import REPOSITORY, ask, command
from reranker.assignment import Assignment
from reranker.counts import new_file
from schemas.config import Config, Paths

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
HEAD = {"content-type": "application/json"}
PATIENCE_SECONDS = 60.0


class Running(NamedTuple):
    """A server that answers."""

    port: int
    pid: int
    """Of the process that was started: with Shortlist, the parent of the workers."""


def paths(root: Path) -> Paths:
    """Of a store in this folder, with all that serving writes beside it."""
    return Paths(store=str(root / "store"), events=str(root / "events"), sessions=str(root / "sessions"))


@contextlib.contextmanager
def module(name: str, *arguments: str, cores: set[int], body: bytes) -> Iterator[Running]:
    """`python -m name FD …`, once it answers to a body."""
    with _listening([sys.executable, "-m", name], arguments, cores) as running:
        _await(running.port, body)
        yield running


@contextlib.contextmanager
def least(root: Path, *, cores: set[int]) -> Iterator[Running]:
    """What refuses all, and does as little for it as any server can: see least_server.c, compiled into a folder.

    Raises:
        MissingPeerError: there is no C compiler.
    """
    compiler, program = shutil.which("cc"), root / "least_server"
    if compiler is None:
        raise MissingPeerError("there is no cc on PATH: Debian's package is gcc")
    subprocess.run([compiler, "-O2", "-o", program, Path(__file__).with_name("least_server.c")], check=True)
    with _listening([str(program)], (), cores) as running:
        yield running


@contextlib.contextmanager
def shortlist(
    root: Path, *, workers: int, cores: set[int], body: bytes, settings: Sequence[str] = ()
) -> Iterator[Running]:
    """`shortlist serve` over the store in a folder, once it answers to a body."""
    found = paths(root)
    own = [f"--set=paths.{name}={getattr(found, name)}" for name in ("events", "sessions")]
    more = [f"--set={setting}" for setting in settings]
    argv = command(root / "store", "serve", "--port", "0", "--workers", str(workers), *own, *more)
    with _process(argv, cores) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split()[2].rpartition(b":")[2])
        _await(port, body)
        yield Running(port, process.pid)


def workers_of(running: Running) -> list[int]:
    """Process ids of Shortlist's workers, as the kernel knows them."""
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def start_of_a_worker(root: Path, body: bytes) -> tuple[float, dict[str, float]]:
    """Seconds from the spawn of a worker to its first answer, and its memory in MB by kind, after that answer."""
    counts = new_file()
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener, os.fdopen(counts):
        given = Assignment(
            config=Config(paths=paths(root)), log_key=b"k" * 16, drain_seconds=5, counts=[counts], slot=0
        )
        argv = [sys.executable, "-P", "-m", "reranker.worker", str(listener.fileno())]
        begin = time.perf_counter()
        with _process(argv, {0, 1}, pass_fds=[listener.fileno(), counts], stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            process.stdin.write(msgspec.json.encode(given) + b"\n")
            process.stdin.flush()
            _await(listener.getsockname()[1], body)
            return time.perf_counter() - begin, memory_mb(process.pid)


def memory_mb(pid: int) -> dict[str, float]:
    """What a process has in memory, in MB, by the names of /proc/PID/smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}


@contextlib.contextmanager
def client(core: int) -> Iterator[ProcessPoolExecutor]:
    """A process to load from, on a core of its own."""
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=load.pin, initargs=({core},)) as executor:
        yield executor


def request_of(body: bytes) -> bytes:
    """The bytes of a request."""
    head = f"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


@contextlib.contextmanager
def _listening(argv: Sequence[str], arguments: Sequence[str], cores: set[int]) -> Iterator[Running]:
    """`argv FD …` on a free port."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        words = [*argv, str(listener.fileno()), *arguments]
        with _process(words, cores, pass_fds=[listener.fileno()]) as process:
            yield Running(listener.getsockname()[1], process.pid)


def _await(port: int, body: bytes) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        try:
            if ask(connection, "POST", "/v1/recommend", body, HEAD)[0] == 200:
                return
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
        finally:
            connection.close()
        time.sleep(0.01)


@contextlib.contextmanager
def _process(
    argv: list[str], cores: set[int], *, pass_fds: Sequence[int] = (), stdin: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        argv, cwd=REPOSITORY, env={**os.environ, **ONE_THREAD}, pass_fds=pass_fds, stdin=stdin,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            os.sched_setaffinity(process.pid, cores)  # it has no threads and no children yet
            yield process
        finally:
            process.terminate()
