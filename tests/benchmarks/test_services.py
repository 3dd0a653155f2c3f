"""What the benchmarks of serving start and load, at a size that measures nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import load, services, serving, wrk
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


@pytest.mark.skipif(shutil.which("wrk") is None, reason="there is no wrk on PATH")
def test_wrk_counts_answers_and_refusals(root: Path) -> None:
    bodies = serving.bodies_for(30)
    with services.shortlist(root, workers=1, cores={0}, body=bodies[0]) as running:
        good = wrk.closed_loop(running.port, bodies, connections=4, seconds=1, cores={0})
        bad = wrk.closed_loop(running.port, [b"{}"], connections=4, seconds=1, cores={0})
    assert (good.answers > 0, good.per_second > 0, good.not_200) == (True, True, 0)
    assert bad.not_200 == bad.answers > 0


def test_what_wrk_prints_is_read() -> None:
    said = "  4108 requests in 4.01s, 2.10MB read\n  Socket errors: connect 0, read 3, write 1, timeout 2\n"
    said += "  Non-2xx or 3xx responses: 7\nRequests/sec:   1024.31\nTransfer/sec:    535.70KB\n"
    assert wrk.read(said) == wrk.Most(4108, 1024.31, 13)
