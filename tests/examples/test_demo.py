"""The parts of the demo that decide something: which days, what is kept, what counts as a failure."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import demo
import pytest
from traffic import Traffic, percentile

from schemas.config_file import load_config


@pytest.mark.parametrize(
    ("now", "last"),
    [
        (datetime(2026, 11, 22, 3, 14, tzinfo=UTC), date(2026, 11, 20)),
        (datetime(2026, 11, 22, 3, 15, tzinfo=UTC), date(2026, 11, 21)),
        (datetime(2026, 11, 22, 23, 59, tzinfo=UTC), date(2026, 11, 21)),
        (datetime(2027, 1, 1, 12, 0, tzinfo=UTC), date(2026, 12, 31)),
    ],
)
def test_the_two_nights_are_the_last_two_that_are_due(now: datetime, last: date) -> None:
    first, second = demo.two_days(now)
    assert second == last
    assert (second - first).days == 1


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(demo, "DEMO", tmp_path)
    monkeypatch.setattr(demo, "CONFIG", tmp_path / "shortlist.toml")
    return tmp_path


def test_the_configuration_is_valid_and_its_history_ends_the_day_before_the_first_night(folder: Path) -> None:
    demo.write_configuration(date(2026, 11, 20))
    config = load_config(folder / "shortlist.toml", environ={})
    opened = date.fromisoformat(config.simulate.start_day)
    assert (date(2026, 11, 20) - opened).days == config.simulate.days
    assert config.paths.store == str(folder / "store")


def test_an_interrupted_demo_of_today_is_kept_and_one_of_yesterday_is_made_anew(folder: Path) -> None:
    demo.write_configuration(date(2026, 11, 20))
    (folder / "work").mkdir()
    (folder / "lock").touch()
    demo.write_configuration(date(2026, 11, 20))
    assert (folder / "work").is_dir()
    demo.write_configuration(date(2026, 11, 21))
    assert sorted(path.name for path in folder.iterdir()) == ["lock", "shortlist.toml"]


Answer = Callable[[int], tuple[int, Any]]


@pytest.fixture
def server() -> Iterator[Callable[[Answer], int]]:
    """Starts an HTTP server that answers the n-th request as told; returns its port."""
    running = []

    def start(answer: Answer) -> int:
        asked = iter(range(1_000_000))

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                status, body = answer(next(asked))
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Silent."""

        listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((listening, thread))
        return int(listening.server_address[1])

    yield start
    for listening, thread in running:
        listening.shutdown()
        thread.join()
        listening.server_close()


def full(version: str) -> dict[str, Any]:
    return {"version": version, "items": [{"item": str(n)} for n in range(20)]}


def test_traffic_notes_when_the_answers_change_from_one_version_to_the_other(server: Any) -> None:
    seen = threading.Event()

    def answer(n: int) -> tuple[int, Any]:
        if n >= 60:
            seen.set()
        return 200, full("new" if n >= 30 else "old")

    with Traffic(server(answer), ["a", "b"], per_second=2000) as traffic:
        assert seen.wait(30)
    assert traffic.first_from("new", 0.0) is not None
    assert traffic.failures == []
    assert traffic.first_from("new", float("inf")) is None


def test_traffic_counts_an_error_and_a_short_answer_as_failures(server: Any) -> None:
    seen = threading.Event()
    told = [(503, {"error": "not_ready"}), (200, {"version": "v", "items": []})]

    def answer(n: int) -> tuple[int, Any]:
        if n >= 2:
            seen.set()
        return told[n] if n < 2 else (200, full("v"))

    with Traffic(server(answer), ["a"], per_second=2000, connections=1) as traffic:
        assert seen.wait(30)
    assert [failure[:3] for failure in traffic.failures] == ["503", "200"]


def test_an_unreachable_server_is_not_ready() -> None:
    assert not demo.is_ready(1)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([7.0], 0.5) == 7.0
