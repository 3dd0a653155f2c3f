"""Serving under pressure: three times the load that it can carry, thousands of bad connections, a killed worker.

    python -m benchmarks.pressure [--held 5000] [--seconds 5]

Two cores as in benchmarks.serving: one worker on one, all clients on the other. Latencies count from when a request was
due. Half-sent bodies are begun anew whenever the server gives one up, so that as many are always open.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import load, services, wrk
from benchmarks.measure import Row, finish, header
from benchmarks.serving import CLIENT, CONNECTIONS, ITEMS, SERVER, bodies_for, cpu_seconds
from benchmarks.versions import write_version
from prediction_store.durable import remove_folder

OVERLOADED, ROUNDS = "three times the most", 3
LEAST = "the least refusal"
TIMES = 3.0
"""The most that the server can do."""
OPEN_CONNECTIONS = 512
HEALTHY_SHARE = 0.1
"""Of the most: what the healthy client asks for while others hold connections."""
CONNECTS_AT_ONCE, PAUSE_SECONDS = 20, 0.005
"""Of whoever holds: beyond what a worker can accept, the kernel has connections wait a second."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--held", type=int, default=5_000, help="half-sent bodies, and as many idle connections")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--hold", nargs=3, type=int, metavar=("PORT", "HALF", "IDLE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.hold:
        hold(*options.hold)
        return
    facts = header("pressure")
    root = Path(tempfile.mkdtemp(prefix="shortlist-bench-"))
    try:
        write_version(root / "store", options.users, ITEMS)
        bodies = bodies_for(options.users)
        requests = [services.request_of(body) for body in bodies]
        serving = partial(services.shortlist, root, body=bodies[0])
        with services.least(root, cores={SERVER}) as running:  # first: it needs what may be missing, wrk and cc
            least = _refused(running, bodies, options.seconds)
        with serving(workers=1, cores={SERVER}) as running, services.client(CLIENT) as client:
            rows, most = _overload(running, client, requests, options.seconds)
            rows += _held(running, client, requests, HEALTHY_SHARE * most, held=options.held, seconds=options.seconds)
        with serving(workers=1, cores={SERVER}) as running:
            rows.append(_killed(running, requests[0]))
        with serving(workers=2, cores={SERVER, CLIENT}) as running, services.client(CLIENT) as client:
            rows.append(_killed_of_two(running, client, requests, 0.2 * most, options.seconds))
        rows.append(least)
        found = {str(row["name"]): row for row in rows}
        over, held = found[OVERLOADED], found["held connections"]
        summary = {
            "goodput_at_3x": over["goodput"],
            "shed_p50_ms_at_3x": over["shed_p50_ms"],
            "shed_p99_ms_at_3x": over["shed_p99_ms"],
            "p99_ms_with_held_connections": held["p99_ms"],
            "failed_with_held_connections": held["not_200"],
            "killed_worker_back_s": found["killed worker"]["seconds"],
            "failed_by_a_killed_worker": found["one of two killed"]["failed"],
            "least_refusal_us": found[LEAST]["cpu_us"],
        }
        finish(facts, rows, {name: float(value) for name, value in summary.items()})
    finally:
        remove_folder(root)


def hold(port: int, half_sent: int, idle: int) -> None:
    """Hold connections until stdin ends: so many with a body that is never whole, so many that say nothing."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    body = b'{"user": "u0000001"'
    half = services.request_of(body + b" " * 100)[:-100]
    waiting, lines = select.epoll(), dict[int, tuple[socket.socket, bytes]]()

    def begin(first: bytes) -> None:
        line = socket.create_connection(("127.0.0.1", port), services.PATIENCE_SECONDS)
        line.sendall(first)
        waiting.register(line.fileno(), select.EPOLLIN)
        lines[line.fileno()] = line, first

    wanted = [half] * half_sent + [b""] * idle
    waiting.register(0, select.EPOLLIN)
    announced = False
    renewed = 0
    while True:
        for first in wanted[:CONNECTS_AT_ONCE]:
            begin(first)
        del wanted[:CONNECTS_AT_ONCE]
        if wanted:
            time.sleep(PAUSE_SECONDS)
        if not (wanted or announced):
            print("held", flush=True)
            announced = True
        for fd, _ in waiting.poll(0.0 if wanted else 1.0, CONNECTS_AT_ONCE):
            if fd == 0:
                print(renewed, flush=True)
                return
            line, first = lines.pop(fd)
            waiting.unregister(fd)
            line.close()
            wanted.append(first)
            renewed += 1


def _overload(
    running: services.Running, client: ProcessPoolExecutor, requests: list[bytes], seconds: float
) -> tuple[list[Row], float]:
    """Some rounds, of which the one in the middle counts, by its goodput; and the most that the server could do."""
    closed = partial(load.closed_loop, running.port, requests, connections=CONNECTIONS)
    client.submit(closed, seconds=1.0, warm_up=0.0).result()
    rows = sorted((_overloaded(running, client, requests, seconds) for _ in range(ROUNDS)), key=_goodput)
    most = max(float(row["most_per_second"]) for row in rows)
    rows[ROUNDS // 2]["name"] = OVERLOADED
    return rows, most


def _goodput(row: Row) -> float:
    return float(row["goodput"])


def _overloaded(running: services.Running, client: ProcessPoolExecutor, requests: list[bytes], seconds: float) -> Row:
    closed = partial(load.closed_loop, running.port, requests, connections=CONNECTIONS)
    peak = client.submit(closed, seconds=seconds, warm_up=0.0).result()
    most = peak.per_second()
    opened = partial(load.open_loop, running.port, requests, connections=OPEN_CONNECTIONS)
    before = cpu_seconds(running.pid)
    over = client.submit(opened, per_second=TIMES * most, seconds=seconds, warm_up=1.0).result()
    busy = (cpu_seconds(running.pid) - before) / (over.seconds + 1.0)
    after = client.submit(closed, seconds=seconds, warm_up=0.5).result()
    offered = sum(over.statuses.values()) / over.seconds
    has_shed = "503" in over.latencies
    row: Row = {
        "name": "one of the rounds",
        "most_per_second": round(most, 1),
        "most_afterwards": round(after.per_second(), 1),
        "offered_per_second": round(offered, 1),
        "answered_per_second": round(over.per_second(), 1),
        "goodput": round(over.per_second() / max(most, after.per_second()), 3),
        "shed_per_second": round(over.per_second("503"), 1),
        "shed_p50_ms": round(over.percentile_ms(50, "503"), 2) if has_shed else 0.0,
        "shed_p99_ms": round(over.percentile_ms(99, "503"), 2) if has_shed else 0.0,
        "answered_p99_ms": round(over.percentile_ms(99), 2),
        "not_200_or_503": sum(count for status, count in over.statuses.items() if status not in ("200", "503")),
        "cpu_share": round(busy, 2),
        "load_1m": round(os.getloadavg()[0], 2),
    }
    print(row, flush=True)
    return row


def _held(
    running: services.Running, client: ProcessPoolExecutor, requests: list[bytes], per_second: float,
    *, held: int, seconds: float,
) -> list[Row]:  # fmt: skip
    opened = partial(load.open_loop, running.port, requests, connections=CONNECTIONS, per_second=per_second)
    rows: list[Row] = []
    for name, many in (("no held connections", 0), ("held connections", held)):
        with _holding(running.port, many) as renewed:
            outcome = client.submit(opened, seconds=seconds, warm_up=1.0).result()
            (worker,) = services.workers_of(running)
            memory = services.memory_mb(worker)["Anonymous"]
        rows.append(
            {
                "name": name,
                "held": 2 * many,
                "renewed": renewed[0],
                "worker_mb": round(memory, 1),
                "per_second": round(per_second, 1),
                "p50_ms": round(outcome.percentile_ms(50), 2),
                "p99_ms": round(outcome.percentile_ms(99), 2),
                "max_ms": round(outcome.percentile_ms(100), 2),
                "not_200": sum(count for status, count in outcome.statuses.items() if status != "200"),
                "load_1m": round(os.getloadavg()[0], 2),
            }
        )
        print(rows[-1], flush=True)
    return rows


@contextlib.contextmanager
def _holding(port: int, many: int) -> Iterator[list[int]]:
    """Another process holds twice as many connections; how many it had to begin anew, once it has ended."""
    renewed = [0]
    if not many:
        yield renewed
        return
    argv = [sys.executable, "-m", "benchmarks.pressure", "--hold", str(port), str(many), str(many)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        os.sched_setaffinity(holder.pid, {CLIENT})
        assert holder.stdin is not None and holder.stdout is not None
        holder.stdout.readline()
        yield renewed
        holder.stdin.close()
        renewed[0] = int(holder.stdout.readline())


def _killed(running: services.Running, request: bytes) -> Row:
    """Seconds from the death of the only worker to the first answer of its successor."""
    (worker,) = services.workers_of(running)
    began = time.perf_counter()
    os.kill(worker, signal.SIGKILL)
    while True:
        line = load.Line(running.port)
        line.socket.sendall(request)
        while not (status := line.answer()):
            pass
        line.socket.close()
        if status == "200":
            break
    row: Row = {"name": "killed worker", "seconds": round(time.perf_counter() - began, 2)}
    print(row, flush=True)
    return row


def _killed_of_two(
    running: services.Running, client: ProcessPoolExecutor, requests: list[bytes], per_second: float, seconds: float
) -> Row:
    """Requests that fail when one of two workers is killed under a steady load."""
    victim = services.workers_of(running)[0]
    timer = threading.Timer(1.0 + seconds / 2, os.kill, (victim, signal.SIGKILL))
    timer.start()
    outcome = client.submit(
        load.open_loop, running.port, requests, connections=CONNECTIONS, per_second=per_second, seconds=seconds,
        warm_up=1.0,
    ).result()  # fmt: skip
    timer.join()
    row: Row = {
        "name": "one of two killed",
        "answered": outcome.statuses["200"],
        "failed": sum(count for status, count in outcome.statuses.items() if status != "200"),
        "p99_ms": round(float(np.percentile(outcome.latencies["200"], 99)) * 1000, 2),
        "connections": CONNECTIONS,
    }
    print(row, flush=True)
    return row


def _refused(running: services.Running, bodies: list[bytes], seconds: float) -> Row:
    """CPU time of a refusal where it is nothing but receiving and sending: what no server can be below."""
    refused = partial(wrk.closed_loop, running.port, bodies, connections=OPEN_CONNECTIONS, cores={CLIENT})
    refused(seconds=1)
    before = cpu_seconds(running.pid)
    most = refused(seconds=seconds)
    cpu_us = 1e6 * (cpu_seconds(running.pid) - before) / most.not_200
    row: Row = {"name": LEAST, "cpu_us": round(cpu_us, 1), "per_second": round(most.per_second, 1)}
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
