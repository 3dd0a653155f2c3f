"""`POST /v1/events`: what is refused, what an acknowledgement promises, and what it does to the next answer."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from asgi_client import JSON_HEADERS, AsgiClient
from serving_shop import Shop
from shop_server import PATIENCE_SECONDS, Server, eventually

from reranker.app import create_app
from reranker.serving_log.frames import Tail
from reranker.serving_log.reading import read_log
from reranker.serving_log.records import EventsRecord, LoggedEvent, SettingsRecord
from schemas.messages import ErrorAnswer

PATH = "/v1/events"
NOW = 1_795_000_000.0
EVENT = {"user": "u0", "item": "a10", "event": "view"}


def body(*events: object, **fields: object) -> bytes:
    return json.dumps({"events": list(events), **fields}).encode()


def changed(**fields: object) -> bytes:
    return body(EVENT, {**EVENT, **fields})


MALFORMED: dict[str, tuple[bytes, int, str | None]] = {
    "nothing": (b"", 400, None),
    "half an object": (b'{"events": [', 400, None),
    "NaN": (b'{"events": [{"user": "u", "item": "i", "event": "view", "time": NaN}]}', 400, "events[0].time"),
    "a lone surrogate": (b'{"events": [{"user": "\\ud800", "item": "i", "event": "view"}]}', 400, "events[0].user"),
    "bytes that are not UTF-8": (
        b'{"events": [{"user": "\xff", "item": "i", "event": "view"}]}',
        400,
        "events[0].user",
    ),
    "a bare list": (b"[]", 422, None),
    "no events": (b"{}", 422, "events"),
    "an empty list": (body(), 422, "events"),
    "one event and no list": (json.dumps({"events": EVENT}).encode(), 422, "events"),
    "too many events": (body(*[{"user": "u", "item": "i", "event": "v"}] * 501), 422, "events"),
    "an unknown field": (body(EVENT, source="web"), 422, "source"),
    "an unknown field of an event": (changed(kind="view"), 422, "events[1].kind"),
    "a field given twice": (
        b'{"events": [{"user": "u", "user": "v", "item": "i", "event": "view"}]}',
        422,
        "events[0].user",
    ),
    "events given twice": (b'{"events": [], ' + body(EVENT)[1:], 422, "events"),
    "an event without a user": (body({"item": "i", "event": "view"}), 422, "events[0].user"),
    "an event without an item": (body({"user": "u", "event": "view"}), 422, "events[0].item"),
    "an event without a type": (body({"user": "u", "item": "i"}), 422, "events[0].event"),
    "an empty user": (changed(user=""), 422, "events[1].user"),
    "a user of too many bytes": (changed(user="ü" * 300), 422, "events[1].user"),
    "an item of too many bytes": (changed(item="ü" * 300), 422, "events[1].item"),
    "a user that is a number": (changed(user=7), 422, "events[1].user"),
    "an event type that is too long": (changed(event="v" * 65), 422, "events[1].event"),
    "a time in milliseconds": (changed(time=1_795_000_000_000), 422, "events[1].time"),
    "a time before 1970": (changed(time=-1), 422, "events[1].time"),
    "a time that is text": (changed(time="now"), 422, "events[1].time"),
    "a position of zero": (changed(position=0), 422, "events[1].position"),
    "a position beyond every answer": (changed(position=1001), 422, "events[1].position"),
    "a position that is no whole number": (changed(position=1.5), 422, "events[1].position"),
    "an empty request id": (changed(request_id=""), 422, "events[1].request_id"),
    "a request id that is too long": (changed(request_id="r" * 65), 422, "events[1].request_id"),
    "a device that is too long": (changed(device="d" * 65), 422, "events[1].device"),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    shop = Shop(tmp_path_factory.mktemp("events") / "store")
    shop.publish("a")
    return shop


class Site:
    """An application with a log and sessions of its own."""

    def __init__(self, client: AsgiClient, folder: Path) -> None:
        self.client = client
        self.folder = folder

    def logged(self) -> list[LoggedEvent]:
        found = read_log(self.folder / "events", pytest.fail)
        return [event for record in found if isinstance(record, EventsRecord) for event in record.events]

    def items(self, user: str = "u0", **fields: object) -> list[str]:
        reply = self.client.post("/v1/recommend", {"user": user, "k": 5, **fields})
        assert reply.status == 200
        return [item["item"] for item in reply.json()["items"]]

    def metric(self, name: str) -> float:
        lines = self.client.get("/metrics").body.decode().splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


def overrides(folder: Path) -> list[str]:
    return [f"paths.events={folder / 'events'}", f"paths.sessions={folder / 'sessions'}"]


@pytest.fixture
def site(published: Shop, tmp_path: Path) -> Iterator[Site]:
    config = published.config(*overrides(tmp_path))
    with AsgiClient(create_app(config, now=lambda: NOW)) as client:
        yield Site(client, tmp_path)


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_body_is_refused_with_the_fields_name_and_nothing_is_kept(site: Site, kind: str) -> None:
    text, status, field = MALFORMED[kind]
    reply = site.client.request("POST", PATH, [text], JSON_HEADERS)
    error = msgspec.json.decode(reply.body, type=ErrorAnswer)
    assert (reply.status, error.field) == (status, field)
    assert site.logged() == []


def test_all_of_a_full_body_is_in_the_log_when_it_is_acknowledged(site: Site) -> None:
    full = {**EVENT, "time": 1_794_999_000.5, "request_id": "ab12", "position": 3, "device": "phone"}
    reply = site.client.post(PATH, {"events": [full, EVENT, EVENT]})
    assert (reply.status, reply.json()) == (200, {"accepted": 3})
    first, second, third = site.logged()
    assert first == LoggedEvent("u0", "a10", "view", 1_794_999_000.5, "ab12", 3, "phone")
    assert third == LoggedEvent("u0", "a10", "view", NOW)
    assert NOW - 0.001 < second.time < NOW
    assert site.metric("shortlist_events_total") == 3.0


def test_events_without_a_time_keep_their_order(site: Site) -> None:
    names = [f"i{number}" for number in (5, 1, 4, 2, 3)]
    site.client.post(PATH, {"events": [{**EVENT, "item": name} for name in names]})
    feedback = site.client._state["service"].feedback
    assert [event.item for event in feedback.known_of("u0").session] == names


def test_500_full_events_are_accepted_and_a_larger_body_is_refused(site: Site) -> None:
    full = {**EVENT, "time": 1_794_999_000.123456, "request_id": "f" * 32, "position": 200, "device": "phone"}
    assert site.client.post(PATH, {"events": [full] * 500}).json() == {"accepted": 500}
    assert len(site.logged()) == 500
    reply = site.client.post(PATH, {"events": [{**full, "item": "i" * 400}] * 500})
    assert (reply.status, reply.json()["error"]) == (413, "body_too_large")


def test_the_next_answer_is_the_one_that_the_same_session_in_the_request_gives(site: Site) -> None:
    plain = site.items()
    session = [{"item": "a20", "event": "view", "time": NOW - 5.0}, {"item": "a23", "event": "cart", "time": NOW - 2.0}]
    in_request = site.items(session=session)
    assert in_request != plain
    site.client.post(PATH, {"events": [{"user": "u0", **event} for event in session]})
    assert site.items() == in_request
    assert site.items(session=session) == in_request, "what both tell of counts once"
    assert site.items("u1") != in_request


def test_an_event_of_a_clock_that_is_ahead_counts_once_however_often_it_is_told(site: Site) -> None:
    def scores(*session: object) -> list[tuple[str, float]]:
        reply = site.client.post("/v1/recommend", {"user": "u0", "k": 5, "session": session})
        return [(item["item"], item["score"]) for item in reply.json()["items"]]

    ahead = {"item": "a20", "event": "view", "time": NOW + 5.0}
    assert site.client.post(PATH, {"events": [{**EVENT, "time": NOW - 5.0}, {"user": "u0", **ahead}]}).status == 200
    once = scores()
    assert scores(ahead) == once
    assert site.client.post(PATH, {"events": [{"user": "u0", **ahead}]}).status == 200
    assert scores() == once


def test_an_impression_moves_nothing_and_is_logged(site: Site) -> None:
    before = site.items()
    site.client.post(PATH, {"events": [{"user": "u0", "item": item, "event": "impression"} for item in before]})
    assert site.items() == before
    assert len(site.logged()) == 5


def test_without_stored_sessions_events_are_only_logged(published: Shop, tmp_path: Path) -> None:
    config = published.config("sessions.enabled=false", *overrides(tmp_path))
    with AsgiClient(create_app(config, now=lambda: NOW)) as client:
        site = Site(client, tmp_path)
        before = site.items()
        assert client.post(PATH, {"events": [{**EVENT, "item": "a20"}]}).status == 200
        assert site.items() == before
        assert len(site.logged()) == 1
    assert not (tmp_path / "sessions").exists()


def test_a_full_disk_is_503_and_the_session_knows_nothing_of_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = site.items()
    with monkeypatch.context() as patched:
        patched.setattr("os.fdatasync", full)
        reply = site.client.post(PATH, {"events": [{**EVENT, "item": "a20"}]})
    assert (reply.status, reply.json()["error"]) == (503, "not_recorded")
    assert int(reply.headers["retry-after"]) >= 1
    assert site.items() == before
    assert site.metric("shortlist_log_failures_total") == 1.0
    assert site.client.post(PATH, {"events": [{**EVENT, "item": "a20"}]}).status == 200
    assert site.items() != before


def test_where_nothing_can_be_written_answers_are_given_all_the_same(published: Shop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    config = published.config(*overrides(tmp_path / "file"))
    with AsgiClient(create_app(config, now=lambda: NOW)) as client:
        site = Site(client, tmp_path)
        assert len(site.items()) == 5
        reply = client.post(PATH, {"events": [EVENT]})
        assert (reply.status, reply.json()["error"]) == (503, "not_recorded")
        assert site.metric("shortlist_session_failures_total") >= 1.0


def test_events_are_taken_before_there_is_a_version_but_no_store_is_made_for_them(tmp_path: Path) -> None:
    config = Shop(tmp_path / "store").config()
    with AsgiClient(create_app(config, now=lambda: NOW)) as client:
        assert client.post(PATH, {"events": [EVENT]}).status == 503
        assert not (tmp_path / "store").exists()
        (tmp_path / "store").mkdir()
        assert client.post(PATH, {"events": [EVENT]}).status == 200
    assert list((tmp_path / "store/events").iterdir())


@pytest.fixture
def server(shop: Shop, tmp_path: Path) -> Iterator[Server]:
    shop.publish("a")
    started = Server(shop.root, tmp_path)
    try:
        yield started
    finally:
        started.end()


def test_whichever_worker_takes_an_event_every_worker_knows_it_at_once(server: Server) -> None:
    def ask() -> list[str]:  # a connection each, so that both workers are asked
        with httpx.Client(base_url=server.url, timeout=PATIENCE_SECONDS) as client:
            return [item["item"] for item in client.post("/v1/recommend", json={"user": "u0", "k": 5}).json()["items"]]

    before = ask()
    hidden = before[0]  # what is in the session is not shown
    reply = httpx.post(f"{server.url}{PATH}", json={"events": [{**EVENT, "item": hidden}]}, timeout=PATIENCE_SECONDS)
    assert reply.json() == {"accepted": 1}
    after = ask()
    assert hidden not in after
    assert all(ask() == after for _ in range(20))
    assert server.stop() == 0


class Senders:
    """Clients that send numbered events without end, and what they were told."""

    def __init__(self, url: str, clients: int = 4) -> None:
        self._url = url
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]
        self.acknowledged: list[str] = []
        self.lost = 0

    def __enter__(self) -> Senders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        count = 0
        while not self._stopping.is_set():
            count += 1
            item = f"i{number}-{count}"
            try:
                reply = httpx.post(
                    f"{self._url}{PATH}", json={"events": [{**EVENT, "item": item}]}, timeout=PATIENCE_SECONDS
                )
            except httpx.HTTPError:
                self.lost += 1
                continue
            assert reply.status_code == 200
            self.acknowledged.append(item)


def test_every_acknowledged_event_is_in_the_log_whatever_workers_are_killed(server: Server, shop: Shop) -> None:
    with Senders(server.url) as senders:
        for round_ in range(6):
            count = len(senders.acknowledged)
            eventually(lambda count=count: len(senders.acknowledged) > count + 20)  # type: ignore[misc]
            victim = sorted(server.workers())[round_ % 2]
            os.kill(victim, signal.SIGKILL)
            eventually(lambda victim=victim: len(server.workers() - {victim}) == 2)  # type: ignore[misc]
    assert server.stop() == 0
    tails: list[Tail] = []
    logged: list[str] = []
    for record in read_log(shop.root / "events", tails.append):
        assert isinstance(record, EventsRecord | SettingsRecord)
        logged += [event.item for event in getattr(record, "events", [])]
    assert len(senders.acknowledged) > 120
    assert set(senders.acknowledged) <= set(logged)
    assert len(logged) == len(set(logged)) <= len(senders.acknowledged) + senders.lost
