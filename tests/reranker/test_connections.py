"""Connections: the short way gives the answers of the long one; deadlines, limits and drains hold on real sockets."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from asgi_client import AsgiClient
from malformed_bodies import MALFORMED
from serving_shop import Shop
from shop_server import PATIENCE_SECONDS, Server, eventually
from uvicorn.server import ServerState

from reranker.app import create_app
from reranker.connections import Connection

BODY = b'{"user": "u0", "k": 3, "session": [{"item": "a01"}]}'
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


class Client:
    """One connection, and the answers on it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        self._arrived = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> Client:
        self.socket.sendall(data)
        return self

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next answer; raises EOFError when the server closes instead."""
        while True:
            head, found, rest = self._arrived.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            if found and length and len(rest) >= int(length[1]):
                self._arrived = rest[int(length[1]) :]
                first, *lines = head.decode().split("\r\n")
                headers = dict(line.split(": ", 1) for line in lines)
                return int(first.split()[1]), headers, rest[: int(length[1])]
            part = self.socket.recv(1 << 16)
            if not part:
                raise EOFError
            self._arrived += part

    @property
    def is_closed(self) -> bool:
        """The server has closed it, and sends nothing before it does."""
        try:
            return self.socket.recv(1 << 16) == b""
        except ConnectionResetError:
            return True


def plain(body: bytes, *more: bytes) -> bytes:
    lines = [b"POST /v1/recommend HTTP/1.1", b"Host: x", b"Content-Type: application/json", *more]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


def chunked(body: bytes) -> bytes:
    """The same request, which cannot go the short way."""
    lines = [b"POST /v1/recommend HTTP/1.1", b"Host: x", b"Content-Type: application/json"]
    chunks = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
    return b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", chunks + b"0\r\n\r\n"])


def both_ways(server: Server, body: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    with Client(server.port) as client:
        found = [client.send(request).answer() for request in (plain(body), chunked(body))]
    for _, headers, _ in found:
        headers.pop("date")
    return found


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
        answers.append((status, headers, {**found, "request_id": "", "age_seconds": 0}))
        assert len(found["request_id"]) == 32
    assert answers[0] == answers[1]


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


def test_a_request_after_line_ends_is_answered(server: Server) -> None:
    with Client(server.port) as client:
        for request in (plain(BODY), chunked(BODY), plain(BODY)):
            assert client.send(b"\r\n").send(b"\r\n" + request).answer()[0] == 200


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


class Wire:
    """What a connection writes to, without a socket."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = self.is_aborted = False
        self.unread_bytes = 0
        self.then: Callable[[], None] = lambda: None
        """Called after each write."""

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self.then()

    def get_extra_info(self, _: str) -> None:
        return None

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return self.unread_bytes

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True


class Worker:
    """An application and connections to it in this process: nothing happens between two calls."""

    def __init__(self, client: AsgiClient, app: Any) -> None:
        self._client, self._server = client, ServerState()
        self._config = uvicorn.Config(app, log_config=None, access_log=False)
        self._config.load()

    def send(self, *requests: bytes) -> list[bytes]:
        """Send each request on a connection of its own, all before any is answered; what was answered at once."""
        return self._client._runner.run(self._send(requests))

    def overloaded(self, parts: list[bytes]) -> Wire:
        """What is written to one connection that these come on, one after the other, while another request waits."""
        return self._client._runner.run(self._overloaded(parts))

    def read_late(self, data: bytes) -> Connection:
        """A connection on which this has come, whose client reads none of an answer before all of it is written."""
        return self._client._runner.run(self._read_late(data))

    def never_read(self, *parts: bytes) -> Wire:
        """What is written to a connection on which these come, whose client reads none of it; once it is given up."""
        return self._client._runner.run(self._never_read(parts))

    async def _never_read(self, parts: Sequence[bytes]) -> Wire:
        wire, connection = self._connected()
        wire.unread_bytes = 1
        for part in parts:
            connection.data_received(part)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not wire.is_aborted:
                await asyncio.sleep(0.01)
        connection.connection_lost(None)
        return wire

    async def _read_late(self, data: bytes) -> Connection:
        wire, connection = self._connected()
        wire.then = connection.pause_writing
        connection.data_received(data)
        while connection.flow.write_paused or not connection.cycle.response_complete:
            await asyncio.sleep(0)
            if connection.flow.write_paused:
                connection.resume_writing()
        return connection

    async def _overloaded(self, parts: list[bytes]) -> Wire:
        (wire, second), (_, first), _ = self._connected(), self._connected(), self._connected()
        first.data_received(plain(BODY))
        for part in parts:
            second.data_received(part)
        return wire

    def _connected(self) -> tuple[Wire, Connection]:
        wire, connection = Wire(), Connection(self._config, self._server, self._client._state)
        connection.connection_made(wire)
        return wire, connection

    async def _send(self, requests: tuple[bytes, ...]) -> list[bytes]:
        made = [self._connected() for _ in requests]
        for (_, connection), request in zip(made, requests, strict=True):
            connection.data_received(request)
        return [b"".join(wire.written) for wire, _ in made]


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
