"""Heads over a real socket: too long ones are 431, however they come; what is no HTTP is 400; the server lives on."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator

import httpx
import pytest
from serving_shop import Shop
from shop_server import Server, eventually

from reranker import Client
from reranker.errors import NotReadyError
from schemas.messages import RecommendRequest

LIMIT = 16_384
BODY = b'{"user": "u0"}'
POST = b"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 14\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("heads")
    shop = Shop(folder / "store")
    shop.publish("a")
    running = Server(shop.root, folder, 1)

    def is_ready() -> bool:
        try:
            with Client(running.url, timeout_seconds=60.0) as client:
                return bool(client.version())
        except NotReadyError:
            return False

    try:
        eventually(is_ready)
        yield running
    finally:
        running.end()


def exchange(server: Server, *pieces: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """The answers to what is sent piece by piece, until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), 60) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                line.sendall(piece)
        except OSError:
            pass  # it has been refused already
        received = b""
        try:
            while data := line.recv(65_536):
                received += data
        except ConnectionResetError:
            pass
    return list(answers_in(received))


def answers_in(received: bytes) -> Iterator[tuple[int, dict[str, str], bytes]]:
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        length = int(headers.get("content-length", "0"))
        yield int(first.split()[1]), headers, rest[:length]
        received = rest[length:]


def test_a_head_within_the_limit_is_answered(server: Server) -> None:
    request = POST + b"X: " + b"y" * (LIMIT - 200) + b"\r\nConnection: close\r\n\r\n" + BODY
    ((status, _, body),) = exchange(server, request)
    assert status == 200
    assert json.loads(body)["items"]


def counted(server: Server, status: int) -> float:
    """How many requests the server counts as answered so."""
    page = httpx.get(f"{server.url}/metrics", timeout=60).text
    return sum(map(float, re.findall(rf'^shortlist_requests_total{{path=".*",status="{status}"}} (.*)$', page, re.M)))


@pytest.mark.parametrize(
    "request_",
    [
        POST + b"X: " + b"y" * LIMIT + b"\r\n\r\n" + BODY,
        POST + b"X: y\r\n" * 3_000 + b"\r\n" + BODY,
        b"GET /v1/similar/" + b"a" * LIMIT + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        POST + b"y" * LIMIT + b": x\r\n\r\n" + BODY,
        POST + b"X: y" + b" " * LIMIT + b"\r\n\r\n" + BODY,
    ],
    ids=["a long value", "many headers", "a long target", "a long name", "many blanks"],
)
def test_a_head_beyond_the_limit_is_431(server: Server, request_: bytes) -> None:
    before = counted(server, 431)
    ((status, headers, body),) = exchange(server, request_)
    assert (status, json.loads(body)["error"]) == (431, "head_too_large")
    assert counted(server, 431) == before + 1
    assert (headers["connection"], headers["content-type"]) == ("close", "application/json")


def test_a_head_without_an_end_is_given_up(server: Server) -> None:
    pieces = [POST + b"X: ", *[b"y" * 4_096] * 1_000]
    with socket.create_connection(("127.0.0.1", server.port), 60) as line:
        sent = 0
        try:
            for piece in pieces:
                line.sendall(piece)
                sent += len(piece)
        except OSError:
            pass
        assert sent < 4_000_000, "the server reads no further"


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /v1/similar/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/9.9\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\n\r\n",
        POST.replace(b"14", b"-1") + b"\r\n" + BODY,
        POST.replace(b"14", b"\xb2") + b"\r\n" + BODY,
        POST + b"Content-Length: 3\r\n\r\n" + BODY,
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"zz\r\n",
        b"GET /v1/version HTTP/1.1\r\nA\x00: b\r\n\r\n",
        b"\r\n\r\n\x00\x00",
    ],
)
def test_what_is_no_http_is_400(server: Server, request_: bytes) -> None:
    before = counted(server, 400)
    answers = exchange(server, request_)
    assert [status for status, _, _ in answers] == [400]
    assert counted(server, 400) == before + 1
    assert json.loads(answers[0][2])["error"] == "malformed_request"


LIMITED = POST + b"Connection: close\r\n"
TO_EITHER_WAY = pytest.mark.parametrize(
    "head",
    [
        LIMITED,
        LIMITED.replace(b"json", b"json; charset=utf-8"),
        LIMITED.replace(b"Host: x", b"Upgrade: h2c").replace(b"close", b"upgrade, close"),
    ],
    ids=["the short way", "the long way", "behind a wish for another protocol"],
)


@TO_EITHER_WAY
@pytest.mark.parametrize("blanks", [b"\t", b" ", b" \t \t", b" " * 99], ids=["tab", "space", "both", "many"])
def test_blanks_around_a_value_are_none_of_it(server: Server, head: bytes, blanks: bytes) -> None:
    """RFC 9110, section 5.5."""
    padded = (
        head.replace(b" 14", blanks + b"14" + blanks) + b"X-Deadline-Ms:" + blanks + b"60000" + blanks + b"\r\n\r\n"
    )
    for each in (padded, padded.replace(b"\r\nContent-Length", blanks + b"\r\nContent-Length")):
        for pieces in ([each + BODY], [each[:-6], each[-6:], BODY]):
            ((status, _, body),) = exchange(server, *pieces)
            assert (status, json.loads(body).get("rung")) == (200, "personal")


@TO_EITHER_WAY
@pytest.mark.parametrize("value", [b"5\t0", b"5 0", b"\xa050", b"50\x85", b"\t \t", b"50\t;"])
def test_what_is_no_number_without_its_blanks_is_none(server: Server, head: bytes, value: bytes) -> None:
    ((status, _, body),) = exchange(server, head + b"X-Deadline-Ms: " + value + b"\r\n\r\n" + BODY)
    assert (status, json.loads(body)["field"]) == (422, "X-Deadline-Ms")


def test_headers_behind_the_body_are_not_taken_for_those_before_it(server: Server) -> None:
    head = POST.replace(b"Content-Length: 14", b"Transfer-Encoding: chunked\r\nConnection: close")
    chunked = head + b"\r\ne\r\n" + BODY + b"\r\n0\r\n"
    assert [status for status, _, _ in exchange(server, chunked + b"\r\n")] == [200]
    assert [status for status, _, _ in exchange(server, chunked + b"Authorization: Bearer x\r\n\r\n")] == [400]


JAVA = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\nUpgrade: h2c\r\n\r\n"
"""As `java.net.http.HttpClient` ends the head of its first request."""
CHUNKED = POST.replace(b"Content-Length: 14", b"Transfer-Encoding: chunked")


@pytest.mark.parametrize("parts", [1, 2, 5])
@pytest.mark.parametrize(
    ("head", "body"),
    [(POST, BODY), (CHUNKED, b"e\r\n" + BODY + b"\r\n0\r\n\r\n")],
    ids=["of known length", "chunked"],
)
def test_a_request_that_asks_for_another_protocol_is_answered_by_this_one(
    server: Server, head: bytes, body: bytes, parts: int
) -> None:
    each = head + JAVA + body
    text = each * 3 + each.replace(b"Upgrade, ", b"Upgrade, close, ")
    size = -(-len(text) // parts)
    answers = exchange(server, *(text[at : at + size] for at in range(0, len(text), size)))
    assert [status for status, _, _ in answers] == [200] * 4
    assert {json.loads(body)["rung"] for _, _, body in answers} == {"personal"}


@pytest.mark.parametrize("length", [b"Content-Length: %d", b"Transfer-Encoding: chunked"])
def test_a_body_behind_an_upgrade_is_not_taken_for_another_request(server: Server, length: bytes) -> None:
    inner = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    head = POST.replace(b"Content-Length: 14", length.replace(b"%d", b"%d" % len(inner)))
    ((status, _, _),) = exchange(server, head + b"Connection: upgrade, close\r\nUpgrade: h2c\r\n\r\n", inner)
    assert status == 400


def test_a_head_that_asks_for_another_protocol_is_measured_too(server: Server) -> None:
    answers = exchange(server, POST + b"X: " + b"y" * LIMIT + b"\r\n" + JAVA + BODY)
    assert [status for status, _, _ in answers] == [431]


def test_an_upgrade_without_a_body_is_not_made(server: Server) -> None:
    get = b"GET /healthz HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade, close\r\nContent-Length: 0\r\n\r\n"
    assert [status for status, _, _ in exchange(server, get)] == [200]


def test_a_connect_is_answered_once(server: Server) -> None:
    asked = b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade, close\r\n\r\n"
    assert [status // 100 for status, _, _ in exchange(server, asked)] == [4]


def test_requests_behind_one_another_are_measured_one_by_one(server: Server) -> None:
    each = POST + b"X: " + b"y" * 6_000 + b"\r\n\r\n" + BODY
    answers = exchange(server, each * 5, POST[:50], POST[50:] + b"Connection: close\r\n\r\n" + BODY)
    assert [status for status, _, _ in answers] == [200] * 6


def test_the_server_lives_on(server: Server) -> None:
    with Client(server.url, timeout_seconds=60.0) as client:
        assert client.recommend(RecommendRequest(user="u0")).items
    assert not [line for line in server.lines() if line["level"] == "error" or "exception" in line]
