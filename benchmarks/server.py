"""`shortlist` as people run it: commands in processes of their own, a server that is ended by its own process id."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
NO_HEAD: dict[str, str] = {}


def command(root: Path, *arguments: str) -> list[str]:
    """The argv of a verb on the store at `root`."""
    return [sys.executable, "-m", "shortlist", *arguments, "--set", f"paths.store={root}"]


def start(root: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a verb; what it prints is dropped."""
    return subprocess.Popen(
        command(root, *arguments), cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@contextmanager
def serving(root: Path, workers: int) -> Iterator[list[http.client.HTTPConnection]]:
    """A server on a free loopback port; one connection to each worker, all of them ready."""
    argv = command(root, "serve", "--port", "0", "--workers", str(workers))
    with subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[2].removeprefix("http://")
            connections = [_connect_to(worker, address, server) for worker in _workers(server)]
            yield connections
            for connection in connections:
                connection.close()
        finally:
            server.terminate()


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    head: dict[str, str] = NO_HEAD,
) -> tuple[int, bytes]:
    """Status and body of one answer."""
    connection.request(method, path, body, head)
    answer = connection.getresponse()
    return answer.status, answer.read()


def _workers(server: subprocess.Popen[str]) -> list[int]:
    """Process ids of the workers, as the kernel knows them."""
    return [int(pid) for pid in Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()]


def _connect_to(worker: int, address: str, server: subprocess.Popen[str]) -> http.client.HTTPConnection:
    """A connection that this very worker has accepted: the others, which share the socket, are held still meanwhile."""
    others = [pid for pid in _workers(server) if pid != worker]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        connection = http.client.HTTPConnection(address, timeout=60)
        while ask(connection, "GET", "/readyz")[0] != 200:
            time.sleep(0.05)
        return connection
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)
