"""Serving over HTTP against the least and the usual: a bare echo on the same server, and FastAPI with Redis and numpy.

    python -m benchmarks.serving [--rounds 3] [--seconds 4]

Two cores: the server has one, the load comes from another process on the other. The most is found in a closed loop of
32 connections by wrk, which has to be installed; latency at 70 % of it in an open loop, where a request's time counts
from when it was due. Rounds of all servers follow one another, and the best round of each counts: other work on the
machine only ever takes away. The CPU time that a server uses for a request is printed beside; that of two workers,
which share their cores with the load, is their limit there. So is the machine: what two loops of plain Python do
against one is measured, too.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks import load, peers, services, wrk
from benchmarks.measure import Row, finish, header
from benchmarks.ranking import measure_ranking
from benchmarks.versions import item_name, list_pool, user_name, write_version
from prediction_store.durable import remove_folder
from prediction_store.reader import Version

ITEMS, SESSION = 5_000, (7, 11, 13)
SERVER, CLIENT = 0, 1
CONNECTIONS = 32
REQUESTS = 5_000
"""In process."""
AT = 0.7
"""Of the most: the rate of the open loop."""
ECHO, OURS, TWO = "echo", "shortlist, one worker", "shortlist, two workers"
JSON, PACKED = "FastAPI + Redis (JSON) + numpy", "FastAPI + Redis (packed) + numpy"
CLIENTS = {TWO: {SERVER, CLIENT}}
"""Who shares their cores with the load; the others leave it one of its own."""
Opened = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each loop")
    options = parser.parse_args()
    facts = header("serving")
    root = Path(tempfile.mkdtemp(prefix="shortlist-bench-"))
    try:
        version = write_version(root / "store", options.users, ITEMS).name
        bodies = bodies_for(options.users)
        rows: list[Row] = []
        ranked = measure_ranking(root / "ranking", REQUESTS, rows)
        starts = [services.start_of_a_worker(root, bodies[0]) for _ in range(options.rounds)]
        with ExitStack() as stack:
            contestants = _contestants(root, version, options.users, bodies, stack)
            found = http_rows(contestants, bodies, options.rounds, options.seconds)
        rows += found
        most = {
            kind: max(float(one["most_per_second"]) for one in found if one["name"] == kind) for kind in contestants
        }
        seconds, memory = min(starts, key=lambda start: start[0])
        print(f"a worker answers {seconds:.2f} s after its spawn; memory in MB: " + json.dumps(_rounded(memory)))
        summary = {
            **ranked,
            "http_rps": round(most[OURS]),
            "http_vs_echo": round(most[OURS] / most[ECHO], 2),
            "http_vs_fastapi_redis": round(most[OURS] / most[JSON], 1),
            "http_p99_ms_at_70": min(float(one["p99_ms"]) for one in found if one["name"] == OURS),
            "two_workers_vs_one": round(most[TWO] / most[OURS], 2),
            "two_loops_vs_one": round(two_loops_vs_one(), 2),
            "worker_start_s": round(seconds, 2),
            "worker_rss_mb": round(memory["Anonymous"], 1),
        }
        print(f"against FastAPI with lists packed: {most[OURS] / most[PACKED]:.1f} times as many requests")
        finish(facts, rows, summary)
    finally:
        remove_folder(root)


def two_loops_vs_one(rounds: int = 40) -> float:
    """How much more two processes do than one where they have a core each and nothing in common: 2 were ideal.

    By short turns, the best of which count: other work on the machine takes from some and not from others.
    """
    alone, together = [], []
    with ExitStack() as stack:
        both = [stack.enter_context(services.client(core)) for core in (SERVER, CLIENT)]
        for _ in range(rounds):
            alone.append([process.submit(_turns).result() for process in both])
            at_once = [process.submit(_turns) for process in both]
            together.append([each.result() for each in at_once])
    return float(2 * np.max(together, axis=0).sum() / np.max(alone, axis=0).sum())


def _turns(seconds: float = 0.1) -> int:
    until, turns = time.perf_counter() + seconds, 0
    while time.perf_counter() < until:
        turns += 1
    return turns


def bodies_for(users: int) -> list[bytes]:
    """Requests of users at random, as clients write them: what is not said is not sent."""
    session = [{"item": item_name(item)} for item in SESSION]
    chosen = np.random.default_rng(2).integers(0, users, 3_000).tolist()
    return [msgspec.json.encode({"user": user_name(user), "session": session}) for user in chosen]


def http_rows(contestants: dict[str, Opened], bodies: list[bytes], rounds: int, seconds: float) -> list[Row]:
    """Each contestant in each round: the most, and the latency at a share of it."""
    rows = []
    for _ in range(rounds):
        for name, opened in contestants.items():
            with opened() as running, services.client(CLIENT) as client:
                rows.append(_measure(name, running, client, bodies, seconds))
    return rows


def _measure(
    name: str, running: services.Running, client: ProcessPoolExecutor, bodies: list[bytes], seconds: float
) -> Row:
    closed = partial(wrk.closed_loop, running.port, bodies, connections=CONNECTIONS, cores=CLIENTS.get(name, {CLIENT}))
    closed(seconds=1)
    before = cpu_seconds(running.pid)
    most = closed(seconds=seconds)
    cpu_us = 1e6 * (cpu_seconds(running.pid) - before) / max(1, most.answers)
    requests = [services.request_of(body) for body in bodies]
    opened = partial(load.open_loop, running.port, requests, connections=4 * CONNECTIONS)
    steady = client.submit(opened, per_second=AT * most.per_second, seconds=seconds, warm_up=0.5).result()
    found: Row = {
        "name": name,
        "most_per_second": round(most.per_second, 1),
        "cpu_us": round(cpu_us, 1),
        "p50_ms": round(steady.percentile_ms(50), 3),
        "p99_ms": round(steady.percentile_ms(99), 3),
        "not_200": most.not_200 + sum(count for status, count in steady.statuses.items() if status != "200"),
        "load_1m": round(os.getloadavg()[0], 2),
    }
    print(
        f"{name:<34} {found['most_per_second']:>9,}/s   {found['cpu_us']:>7} µs of CPU   at 70 %:"
        f" p50 {found['p50_ms']:>8} ms, p99 {found['p99_ms']:>8} ms   not 200: {found['not_200']}"
        f"   load {found['load_1m']}",
        flush=True,
    )
    return found


def _contestants(root: Path, version: str, users: int, bodies: list[bytes], stack: ExitStack) -> dict[str, Opened]:
    redis_port = stack.enter_context(peers.redis_server(root))
    _fill_redis(redis_port, users)
    vectors = root / "vectors.npy"
    with Version.open(root / "store", version) as opened:
        np.save(vectors, np.asarray(opened.item_vectors))
    first = bodies[0]

    def similarity(kind: str) -> Opened:
        return partial(
            services.module, "benchmarks.similarity_service", str(redis_port), str(vectors), kind,
            cores={SERVER}, body=first,
        )  # fmt: skip

    return {
        ECHO: partial(services.module, "benchmarks.echo_service", cores={SERVER}, body=first),
        OURS: partial(services.shortlist, root, workers=1, cores={SERVER}, body=first),
        JSON: similarity("json"),
        PACKED: similarity("packed"),
        TWO: partial(services.shortlist, root, workers=2, cores={SERVER, CLIENT}, body=first),
    }


def _fill_redis(port: int, users: int) -> None:
    """The lists of all users, as JSON and packed."""
    import redis

    client = redis.Redis(port=port)
    peers.await_answer(client.ping, redis.ConnectionError)
    pool = list_pool(users, ITEMS)
    names = [item_name(item) for item in range(ITEMS)]
    with client:
        for first in range(0, users, 1_000):
            with client.pipeline(transaction=False) as pipeline:
                for user in range(first, min(users, first + 1_000)):
                    items, scores = (lists[user % len(pool.items)] for lists in pool)
                    pairs = zip(items.tolist(), scores.tolist(), strict=True)
                    listed = [[names[item], round(score, 6)] for item, score in pairs]
                    pipeline.set(f"json:{user_name(user)}", json.dumps(listed))
                    pipeline.set(f"packed:{user_name(user)}", items.tobytes() + scores.tobytes())
                pipeline.execute()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ticks = 0
    for one in (str(pid), *children):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _rounded(memory: dict[str, float]) -> dict[str, float]:
    return {name: round(memory[name], 1) for name in ("Rss", "Pss", "Anonymous", "Private_Dirty", "Private_Clean")}


if __name__ == "__main__":
    main()
