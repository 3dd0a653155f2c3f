"""Promise 9: descriptors, maps and memory are flat, however often a process flips."""

from __future__ import annotations

from pathlib import Path

from promises import leaks
from promises.leaks import Gauge, Use
from promises.outcome import Outcome


def test_a_store_that_flips_leaks_nothing(folder: Path) -> None:
    outcome = leaks.run(6, 300, folder)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried == 300
    assert outcome.highest["store: descriptors, most"] > 0


def test_a_worker_that_flips_leaks_nothing(folder: Path) -> None:
    outcome = leaks.run_server(6, 60, folder)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried == 60


def test_a_leak_would_be_noticed() -> None:
    gauge, outcome = Gauge(1000), Outcome()
    for flips in range(0, 1001, 50):
        gauge._found.append((flips, Use(descriptors=30 + flips // 50, maps=300, megabytes=50)))
    gauge.judge(outcome, "a process")
    assert outcome.violations == 1
    assert outcome.highest["a process: descriptors more after 1,000 flips"] > 10
    assert outcome.highest["a process: maps more after 1,000 flips"] == 0
