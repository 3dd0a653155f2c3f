"""Connections: the short way gives the answers of the long one; who waits too long is told; drains hold."""

from __future__ import annotations

import json
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from asgi_client import AsgiClient
from bare_connections import BODY, Client, Worker, chunked, plain
from fuzzed_requests import Fuzzer
from malformed_bodies import MALFORMED
from serving_shop import Shop
from shop_server import PATIENCE_SECONDS, Server

from reranker.app import create_app


@pytest.fixture(scope="module")
def server(stocked_shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(stocked_shop.root, tmp_path_factory.mktemp("server"), 1)
    try:
        yield started
        assert started.stop() == 0
    finally:
        started.end()


def both_ways(server: Server, body: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    with Client(server.port) as client:
        found = [client.send(request).answer() for request in (plain(body), chunked(body))]
    for _, headers, _ in found:
        headers.pop("date")
    return found


def without_request_id(body: bytes) -> dict[str, Any]:
    return {**json.loads(body), "request_id": "", "age_seconds": 0}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_body_is_refused_alike_on_both_ways(server: Server, kind: str) -> None:
    body, status, _ = MALFORMED[kind]
    short, long = both_ways(server, body)
    assert short == long
    assert short[0] == status


def test_both_ways_give_the_same_answer(server: Server) -> None:
    answers = []
    for status, headers, body in both_ways(server, BODY):
        found = json.loads(body)
        answers.append((status, headers, without_request_id(body)))
        assert len(found["request_id"]) == 32
    assert answers[0] == answers[1]


def test_whatever_the_body_both_ways_say_the_same(server: Server) -> None:
    """The soak's requests come by the application's own door, and not by the short way that most clients take."""
    fuzzer, statuses = Fuzzer(11, ["u0", "ü2"]), Counter[int]()
    while statuses.total() < 400:
        request = fuzzer.next()
        if request.method != "POST" or request.path != "/v1/recommend" or request.body is None:
            continue
        (status, headers, short), (*same, long) = both_ways(server, request.body)
        assert [status, headers] == same, request.body
        assert without_request_id(short) == without_request_id(long), request.body
        assert status < 500
        statuses[status] += 1
    assert {200, 400, 422} <= statuses.keys()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (plain(BODY).replace(b"application/json", b"text/plain"), 415),
        (plain(BODY, b"Content-Type: text/plain"), 200),  # the first one counts, as it does for Starlette
        (plain(BODY, b"Content-Encoding: gzip"), 415),
        (plain(b" " * 70_000), 413),
        (plain(BODY).replace(b"POST", b"PUT"), 405),
        (plain(BODY).replace(b"recommend ", b"recommend?k=3 "), 200),
        (plain(BODY).replace(b"/recommend", b"/%72ecommend"), 200),
        (plain(BODY).replace(b"HTTP/1.1", b"HTTP/1.0"), 200),
        (plain(BODY, b"Expect: 100-continue"), 100),
        (plain(BODY).replace(b"Content-Length", b"Content-Length: 3\r\nContent-Length"), 400),
        (plain(BODY).replace(b"Host: x", b"Host: x\r\nTransfer-Encoding: chunked"), 400),
    ],
    ids=["type", "two types", "gzip", "too large", "method", "query", "escaped path", "HTTP/1.0", "expect",
         "two lengths", "length and chunks"],
)  # fmt: skip
def test_what_is_not_plain_is_answered_by_its_own_rules(server: Server, request_: bytes, status: int) -> None:
    with Client(server.port) as client:
        client.send(request_)
        assert client.socket.recv(1 << 16).split(b" ")[1] == b"%d" % status


def test_a_request_in_single_bytes_is_answered_as_one_in_one_piece(server: Server) -> None:
    with Client(server.port) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in plain(BODY):
            client.send(bytes([byte]))
        assert client.answer()[0] == 200


def test_requests_sent_at_once_are_answered_in_their_order_whichever_way_they_go(server: Server) -> None:
    version = b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n"
    sizes = (1, 2, 3, 4, 5)
    requests = [plain(json.dumps({"user": "u0", "k": k}).encode()) for k in sizes]
    with Client(server.port) as client:
        client.send(requests[0] + requests[1] + version + requests[2] + chunked(BODY) + requests[3] + requests[4])
        answers = [json.loads(client.answer()[2]) for _ in range(7)]
    assert "space_id" in answers[2]
    assert [len(answers[place]["items"]) for place in (0, 1, 3, 4, 5, 6)] == [1, 2, 3, 3, 4, 5]


def test_a_client_that_says_close_is_answered_and_closed(server: Server) -> None:
    with Client(server.port) as client:
        status, headers, _ = client.send(plain(BODY, b"Connection: close")).answer()
        assert (status, headers["connection"]) == (200, "close")
        assert client.is_closed


def test_a_request_after_line_ends_is_answered(server: Server) -> None:
    with Client(server.port) as client:
        for request in (plain(BODY), chunked(BODY), plain(BODY)):
            assert client.send(b"\r\n").send(b"\r\n" + request).answer()[0] == 200


def test_requests_that_wait_are_answered_after_sigterm(stocked_shop: Shop, tmp_path: Path) -> None:
    server = Server(stocked_shop.root, tmp_path, 1, "serve.max_wait_ms=60000", "serve.body_seconds=60")
    try:
        clients = [Client(server.port) for _ in range(40)]
        for client in clients:  # what is half there is under way: the worker has read it
            client.send(plain(BODY)[:-1])
        assert httpx.get(f"{server.url}/healthz", timeout=PATIENCE_SECONDS).is_success
        server.process.send_signal(signal.SIGTERM)
        for client in clients:
            client.send(BODY[-1:])
        assert [client.answer()[0] for client in clients] == [200] * len(clients)
        assert server.process.wait(PATIENCE_SECONDS) == 0
    finally:
        for client in clients:
            client.socket.close()
        server.end()


def test_who_would_wait_too_long_is_told_at_once_whatever_the_body_says(stocked_shop: Shop) -> None:
    app = create_app(stocked_shop.config("serve.max_wait_ms=0.001"))
    with AsgiClient(app) as client:
        waiting, shed, malformed = Worker(client, app).send(plain(BODY), plain(BODY), plain(b"{"))
        page = client.get("/metrics").body.decode()
    assert waiting == b""
    assert malformed == shed
    for told in (shed, malformed):
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in told
        assert b'"error":"overloaded"' in told
    assert 'shortlist_requests_total{path="/v1/recommend",status="503"} 2.0' in page


def test_who_is_turned_away_stays_connected_however_the_request_arrives(stocked_shop: Shop) -> None:
    whole = plain(BODY)
    app = create_app(stocked_shop.config("serve.max_wait_ms=0.001"))
    with AsgiClient(app) as client:
        worker = Worker(client, app)
        for parts, told, is_closed in (
            ([whole, whole], 2, False),
            ([whole[:9], whole[9:], whole], 2, False),
            ([whole[:-1], whole[-1:] + whole], 2, False),
            ([whole + whole[:20], whole[20:]], 2, False),
            ([plain(BODY, b"Connection: close")], 1, True),
        ):
            wire = worker.overloaded(parts)
            answers = b"".join(wire.written).split(b"HTTP/1.1 ")[1:]
            assert [answer[:3] for answer in answers] == [b"503"] * told, parts
            assert wire.is_closed is is_closed
        since = [*client._state["door"].connections.idle.values()]
    assert since == sorted(since), "who has just been told something has not been idle for long"


def test_no_request_goes_around_the_middleware_of_an_application(stocked_shop: Shop) -> None:
    class Closed:
        def __init__(self, app: Any) -> None:
            self._app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
                await send({"type": "http.response.body", "body": b""})
            else:
                await self._app(scope, receive, send)

    app = create_app(stocked_shop.config())
    app.add_middleware(Closed)
    with AsgiClient(app) as client:
        assert client._state["door"].is_open is False
        worker = Worker(client, app)
        assert worker.send(plain(BODY)) == [b""]  # a task of its own answers it
        assert client.get("/healthz").status == 401
