"""How long `shortlist rollback` takes, and how long until every worker of a server answers from the old version."""

from __future__ import annotations

import json
import statistics
import subprocess
import threading
import time
from http.client import HTTPConnection
from pathlib import Path

from benchmarks import server
from benchmarks.versions import write_version

PAUSE_SECONDS = 0.002


def measure_rollback(root: Path, rollbacks: int, *, users: int, items: int, workers: int) -> tuple[float, float]:
    """Median seconds of the command, and from its start to the last worker that answers from the old version.

    Each rollback leaves the newest of a chain of versions that is one longer than there are rollbacks. The command
    verifies the version that it goes to, so that it takes longer to go to a larger one.
    """
    chain = [write_version(root, users, items, inputs=f"rollback {number}").name for number in range(rollbacks + 1)]
    of_command, of_last_worker = [], []
    with server.serving(root, workers) as connections:
        for target in reversed(chain[:-1]):
            command_seconds, last_worker_seconds = _roll_back(root, target, connections)
            of_command.append(command_seconds)
            of_last_worker.append(last_worker_seconds)
    return statistics.median(of_command), statistics.median(of_last_worker)


def _roll_back(root: Path, target: str, connections: list[HTTPConnection]) -> tuple[float, float]:
    ends: list[float] = []
    started = time.perf_counter()
    command = server.start(root, "rollback", "--why", "benchmark")
    waiting = threading.Thread(target=_note_end, args=[command, ends])
    waiting.start()
    left = list(connections)
    while left:
        left = [connection for connection in left if _version(connection) != target]
        assert command.poll() in (None, 0), "the rollback failed"
        time.sleep(PAUSE_SECONDS)
    last = time.perf_counter()
    waiting.join()
    return ends[0] - started, last - started


def _note_end(command: subprocess.Popen[bytes], ends: list[float]) -> None:
    command.wait()
    ends.append(time.perf_counter())


def _version(connection: HTTPConnection) -> str:
    """The version that a worker answers from."""
    _, body = server.ask(connection, "GET", "/v1/version")
    name: str = json.loads(body)["version"]
    return name
