"""What the benchmarks of serving start and load, at a size that measures nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import load, services, serving
from benchmarks.versions import write_version


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("serving")
    write_version(root / "store", 30, 1100)
    return root


def test_a_worker_answers_and_tells_what_it_takes(root: Path) -> None:
    seconds, memory = services.start_of_a_worker(root, serving.bodies_for(30)[0])
    assert seconds > 0
    assert 0 < memory["Anonymous"] < memory["Rss"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_answers_all_that_it_is_loaded_with(root: Path, workers: int) -> None:
    bodies = serving.bodies_for(30)
    with services.shortlist(root, workers=workers, cores={0}, body=bodies[0]) as running:
        assert len(services.workers_of(running)) == workers
        requests = [services.request_of(body) for body in bodies]
        closed = load.closed_loop(running.port, requests, connections=4, seconds=0.3, warm_up=0.0)
        opened = load.open_loop(running.port, requests, per_second=50, seconds=0.3, warm_up=0.0, connections=4)
        assert serving.cpu_seconds(running.pid) > 0
    for outcome in (closed, opened):
        assert set(outcome.statuses) == {"200"}
        assert outcome.percentile_ms(50) > 0
