"""Promise 9: descriptors, maps and memory are flat, however often a process flips."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from promises import leaks
from promises.leaks import Gauge, Use
from promises.outcome import Outcome


def test_a_store_that_flips_leaks_nothing(folder: Path) -> None:
    outcome = leaks.run(6, 150, folder)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried == 150
    assert outcome.highest["store: descriptors, most"] > 0


def test_a_worker_that_flips_leaks_nothing(folder: Path) -> None:
    outcome = leaks.run_server(6, 40, folder)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried == 40


@pytest.mark.parametrize("flips", [40, 150])
def test_a_descriptor_lost_at_each_of_so_few_flips_is_noticed(flips: int) -> None:
    gauge, outcome = Gauge(flips), Outcome()
    with ExitStack() as lost:
        for number in range(1, flips + 1):
            lost.enter_context(Path("/dev/null").open())
            gauge.look(number)
        gauge.judge(outcome, "a process")
    assert outcome.violations == 1
    assert "descriptors grew" in outcome.shown[0]


def test_a_slow_leak_would_be_noticed_by_the_soak() -> None:
    gauge, outcome = Gauge(1000), Outcome()
    for flips in range(0, 1001, 50):
        gauge._found.append((flips, Use(descriptors=30 + flips // 50, maps=300, megabytes=50)))
    gauge.judge(outcome, "a process")
    assert outcome.violations == 1
    assert outcome.highest["a process: descriptors more after 1,000 flips"] > 10
    assert outcome.highest["a process: maps more after 1,000 flips"] == 0
