"""What every benchmark prints: where it ran, percentiles of what it timed, and one line of JSON at the end."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, float | str]
Call = tuple[Callable[[Any], object], Any]
"""A function and what to call it with."""
RAW = Path(__file__).parent / "raw"


def header(name: str) -> dict[str, object]:
    """Machine, commit and time of a run; printed first and kept with the raw lines."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    facts: dict[str, object] = {
        "benchmark": name,
        "cpu": model,
        "cores": os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "commit": commit.stdout.strip() or "unknown",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    print("  ".join(f"{key}={value}" for key, value in facts.items()))
    return facts


def time_each(calls: Iterable[Callable[[], object]], *, warm_up: int) -> np.ndarray:
    """float64[n]: microseconds of each call after the first `warm_up`."""
    taken = []
    clock = time.perf_counter_ns
    for number, call in enumerate(calls):
        started = clock()
        call()
        ended = clock()
        if number >= warm_up:
            taken.append((ended - started) / 1000)
    return np.array(taken)


def time_in_turns(contestants: Mapping[str, Sequence[Call]], *, turns: int = 5) -> dict[str, np.ndarray]:
    """float64[n] per contestant: microseconds of each call. They take turns, so that all have the same weather."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    clock = time.perf_counter_ns
    for turn in range(turns):
        for name, calls in contestants.items():
            for call, argument in calls[turn::turns]:
                started = clock()
                call(argument)
                ended = clock()
                taken[name].append((ended - started) / 1000)
    return {name: np.array(micros) for name, micros in taken.items()}


def row(name: str, micros: np.ndarray, **more: float) -> Row:
    """One line of the table: p50, p99 and max of what was timed, in microseconds, and calls per second."""
    p50, p99 = np.percentile(micros, [50, 99])
    found: Row = {
        "name": name,
        "n": len(micros),
        "p50_us": round(float(p50), 1),
        "p99_us": round(float(p99), 1),
        "max_us": round(float(micros.max()), 1),
        "per_second": round(1e6 / float(micros.mean())),
        **more,
    }
    print(
        f"{name:<44} n={len(micros):<7} p50 {p50:>9.1f} µs   p99 {p99:>9.1f} µs   max {micros.max():>10.1f} µs"
        f"   {found['per_second']:>9,}/s",
        flush=True,
    )
    return found


def finish(facts: dict[str, object], rows: list[Row], summary: Mapping[str, float | None]) -> None:
    """Keep the raw lines in benchmarks/raw and end with the summary as one line of JSON."""
    RAW.mkdir(exist_ok=True)
    with (RAW / f"{facts['benchmark']}.jsonl").open("a") as file:
        file.write(json.dumps({"facts": facts, "rows": rows, "summary": summary}) + "\n")
    sys.stdout.flush()
    print(json.dumps(summary))
