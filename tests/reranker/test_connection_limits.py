"""Deadlines and the number of connections: whoever does not send, does not read, or says nothing is given up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from asgi_client import AsgiClient
from bare_connections import BODY, Client, Wire, Worker, chunked, plain
from serving_shop import Shop
from shop_server import Server, eventually

from reranker.app import create_app

SLOW = "the request did not arrive within"


@pytest.fixture(scope="module")
def server(stocked_shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One worker, impatient."""
    folder = tmp_path_factory.mktemp("server")
    started = Server(stocked_shop.root, folder, 1, "serve.body_seconds=0.3", "serve.idle_seconds=0.3")
    try:
        yield started
        assert started.stop() == 0
    finally:
        started.end()


@pytest.mark.parametrize("part", [b"P", plain(BODY)[:40], plain(BODY)[:-1], plain(BODY) + b"GET /healthz HT"])
def test_a_request_that_stops_half_way_is_given_up_and_told_so(server: Server, part: bytes) -> None:
    with Client(server.port) as client:
        client.send(part)
        status, headers, body = client.answer()
        if status == 200:  # the one before it
            status, headers, body = client.answer()
        assert (status, headers["connection"], json.loads(body)["error"]) == (408, "close", "body_too_slow")
        assert SLOW in json.loads(body)["message"]
        assert client.is_closed


def test_a_connection_without_a_request_is_closed(server: Server) -> None:
    with Client(server.port) as silent, Client(server.port) as client:
        assert client.send(plain(BODY)).answer()[0] == 200
        assert silent.is_closed
        assert client.is_closed


def test_line_ends_before_a_request_keep_no_connection_open(server: Server) -> None:
    with Client(server.port) as silent, Client(server.port) as client, Client(server.port) as dripping:
        silent.send(b"\r\n")
        assert client.send(plain(BODY)).answer()[0] == 200
        client.send(b"\r\n\r\n")
        eventually(lambda: is_closed_though_it_drips(dripping))
        assert silent.is_closed
        assert client.is_closed


def is_closed_though_it_drips(client: Client) -> bool:
    client.socket.settimeout(0.02)
    try:
        client.send(b"\r\n")
        return client.is_closed
    except TimeoutError:
        return False
    except (BrokenPipeError, ConnectionResetError):
        return True


def test_one_connection_too_many_closes_that_which_has_been_idle_for_longest(
    stocked_shop: Shop, tmp_path: Path
) -> None:
    server = Server(stocked_shop.root, tmp_path, 1, "serve.max_connections=2", "serve.body_seconds=60")
    try:
        with Client(server.port) as first, Client(server.port) as second:
            assert first.send(plain(BODY)).answer()[0] == 200
            assert second.send(plain(BODY)).answer()[0] == 200
            with Client(server.port) as third:
                assert third.send(plain(BODY)[:-1]).socket
                assert first.is_closed
                second.send(plain(BODY)[:-1])
                eventually(lambda: turned_away(server.port))
                assert third.send(BODY[-1:]).answer()[0] == 200
        page = b""
        while b"shortlist_closed" not in page:  # the closed ones may not have been noticed yet
            with Client(server.port) as fourth:
                page = fourth.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").answer()[2]
        assert b'shortlist_closed_connections_total{reason="full"}' in page
    finally:
        server.end()


def turned_away(port: int) -> bool:
    """A new connection is answered 503 without a word of its own; False: it was not, as one was idle."""
    with Client(port) as client:
        client.socket.settimeout(0.2)
        try:
            status, headers, body = client.answer()
        except (TimeoutError, EOFError):
            return False
        assert (status, headers["connection"], json.loads(body)["error"]) == (503, "close", "overloaded")
        assert int(headers["Retry-After".lower()]) >= 1
        return True


@pytest.mark.parametrize("request_", [plain(BODY), chunked(BODY)], ids=["short", "long"])
def test_a_request_that_stops_half_way_has_a_deadline_also_behind_an_answer_that_was_read_late(
    stocked_shop: Shop, request_: bytes
) -> None:
    app = create_app(stocked_shop.config())
    with AsgiClient(app) as client:
        worker, connections = Worker(client, app), client._state["door"].connections
        half = worker.read_late(request_ + plain(BODY)[:20])
        assert half in connections.arriving
        done = worker.read_late(request_)
        assert done in connections.idle
        assert done not in connections.arriving


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([plain(BODY, b"Connection: close")], 200),
        ([chunked(BODY).replace(b"Host: x", b"Host: x\r\nConnection: close")], 200),
        ([b"no HTTP\r\n\r\n"], 400),
        ([b"GET / HTTP/1.1\r\n", b"a: " + b"b" * 70_000], 431),
        ([plain(BODY)[:-1]], 408),
    ],
    ids=["short way", "long way", "no HTTP", "long head", "half a body"],
)
def test_a_client_that_never_reads_its_last_answer_is_given_up(
    stocked_shop: Shop, parts: list[bytes], status: int
) -> None:
    app = create_app(stocked_shop.config("serve.body_seconds=0.05"))
    with AsgiClient(app) as client:
        wire = Worker(client, app).never_read(*parts)
        assert b"".join(wire.written).startswith(b"HTTP/1.1 %d " % status)
        page = client.get("/metrics").body.decode()
        assert 'shortlist_closed_connections_total{reason="slow"}' in page


def test_whoever_reads_or_sends_late_again_and_again_keeps_nobody_else_open(stocked_shop: Shop) -> None:
    with AsgiClient(create_app(stocked_shop.config())) as client:
        connections = client._state["door"].connections
        first, second = Wire(), Wire()
        for wire in (first, second, first):
            connections.begin(wire)
        assert [*connections.arriving] == [second, first]
