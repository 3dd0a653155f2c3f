"""The client, over a real server: the answers and errors of the re-ranker in this process."""

from __future__ import annotations

import contextlib
import http.client
import math
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from asgi_client import JSON_HEADERS, AsgiClient
from serving_shop import MADE_AT, Shop
from shop_server import PATIENCE_SECONDS, Server, eventually

import reranker
from reranker import Client, Reranker, open_reranker
from reranker.app import create_app
from reranker.errors import (
    InvalidFieldError,
    MalformedBodyError,
    NoAnswerError,
    NotReadyError,
    RequestError,
    UnknownItemError,
    UnknownUserError,
)
from schemas.live_items import ItemChange
from schemas.messages import (
    Context,
    ListAnswer,
    PostedEvent,
    RecommendAnswer,
    RecommendManyRequest,
    RecommendRequest,
    SessionEvent,
    VersionAnswer,
)

AT = Context(time=float(MADE_AT + 60))
"""Items age between two calls: an explained freshness has six digits, and the last one moves."""
REQUESTS = [
    RecommendRequest(user="u0", context=AT),
    RecommendRequest(user="u1", k=40, session=[SessionEvent(item="a12", event="cart")], explain=True, context=AT),
    RecommendRequest(user="ü2", k=3, exclude=["a20"], placement="basket", context=AT),
    RecommendRequest(user="nobody / at all?", context=AT),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Shop]]:
    folder = tmp_path_factory.mktemp("client")
    shop = Shop(folder / "store")
    shop.publish("a")
    running = Server(shop.root, folder)
    try:
        with Client(running.url, timeout_seconds=60.0) as client:
            eventually(lambda: _is_ready(client))
        yield running, shop
    finally:
        running.end()


def _is_ready(client: Client) -> bool:
    try:
        return bool(client.version())
    except NotReadyError:
        return False


@pytest.fixture
def client(server: tuple[Server, Shop]) -> Iterator[Client]:
    with Client(server[0].url, timeout_seconds=60.0) as made:
        yield made


@pytest.fixture
def here(server: tuple[Server, Shop]) -> Iterator[Reranker]:
    with open_reranker(server[1].config()) as made:
        yield made


@pytest.fixture(scope="module")
def app(stocked_shop: Shop) -> Iterator[AsgiClient]:
    with AsgiClient(create_app(stocked_shop.config("serve.max_batch=2"))) as made:
        yield made


def same(answer: RecommendAnswer) -> RecommendAnswer:
    """What does not depend on the moment and the number of the request."""
    return msgspec.structs.replace(answer, request_id="", age_seconds=0)


def test_answers_are_those_of_the_reranker_in_this_process(client: Client, here: Reranker) -> None:
    for request in REQUESTS:
        assert same(client.recommend(request)) == same(here.recommend(request))
    many = client.recommend_many(REQUESTS)
    assert [same(answer) for answer in many] == [same(answer) for answer in here.recommend_many(REQUESTS)]


def test_events_that_were_posted_move_the_answers_in_this_process_too(client: Client, here: Reranker) -> None:
    request = RecommendRequest(user="u3", context=AT)
    before = here.recommend(request)
    client.post_events(
        [PostedEvent(user="u3", item="b7", event="view"), PostedEvent(user="u3", item="b8", event="cart")]
    )
    assert same(here.recommend(request)) == same(client.recommend(request)) != same(before)


def test_what_the_documents_show_of_client_and_reranker_works(
    server: tuple[Server, Shop], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shortlist.toml").write_text(f'paths.store = "{server[1].root}"')
    monkeypatch.chdir(tmp_path)
    root = Path(reranker.__file__).parents[1]
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    for name in ("Client", "open_reranker"):
        shown = [lines for lines in blocks if f"import {name}" in lines]
        assert shown
        for lines in shown:
            exec(lines.replace("http://127.0.0.1:8080", server[0].url), {})
            assert capsys.readouterr().out.startswith("['")


def test_lists_are_those_of_the_reranker_in_this_process(
    client: Client, here: Reranker, server: tuple[Server, Shop]
) -> None:
    def aged(answer: ListAnswer) -> ListAnswer:
        return msgspec.structs.replace(answer, age_seconds=0)

    for call in (
        lambda side: side.similar("a11"),
        lambda side: side.similar("a11", 2),
        lambda side: side.popular(),
        lambda side: side.popular("DE", 3),
        lambda side: side.popular("no such segment"),
        lambda side: side.trending(),
        lambda side: side.trending("DE", 3),
        lambda side: side.trending("no such segment", 3),
        lambda side: side.candidates("u1", 30),
        lambda side: side.candidates("ü2"),
    ):
        assert aged(call(client)) == aged(call(here))
    shop = server[1]
    assert [item.item for item in client.candidates("u0", 40).items] == shop.list_of("u0")
    shown = [item for item in shop.popular("") if shop.in_stock(item)]
    assert [item.item for item in client.popular(k=40).items] == shown
    assert [item.item for item in client.trending().items] == ["a00", "a01"]
    assert [item.item for item in client.trending("DE").items] == ["a07", "a02"], "in stock"
    assert {item.item[1] for item in client.similar("a11").items} == {"1"}


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda side: side.similar("never heard of"), UnknownItemError),
        (lambda side: side.similar("a/b?c#d%2F"), UnknownItemError),
        (lambda side: side.similar("a\nb"), UnknownItemError),
        (lambda side: side.similar("a01\n"), UnknownItemError),
        (lambda side: side.similar("a" * 512), InvalidFieldError),
        (lambda side: side.candidates("nobody"), UnknownUserError),
        (lambda side: side.candidates("u\n0"), UnknownUserError),
        (lambda side: side.candidates("u0", 100_000), InvalidFieldError),
        (lambda side: side.popular(k=0), InvalidFieldError),
        (lambda side: side.recommend(RecommendRequest(user="u0", k=201)), InvalidFieldError),
        (
            lambda side: side.recommend_many([RecommendRequest(user="u0"), RecommendRequest(user="u", k=999)]),
            InvalidFieldError,
        ),
        (lambda side: side.recommend(RecommendRequest(user="ä" * 400)), InvalidFieldError),
    ],
)
def test_errors_are_those_of_the_reranker_in_this_process(
    client: Client, here: Reranker, call: Callable[[object], object], error: type[RequestError]
) -> None:
    with pytest.raises(error) as there:
        call(client)
    with pytest.raises(error) as same_here:
        call(here)
    assert (there.value.message, there.value.field) == (same_here.value.message, same_here.value.field)
    assert client.recommend(REQUESTS[0]).items, "the connection is of use after an error"


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (RecommendRequest(user=""), "user"),
        (RecommendRequest(user="u0", placement=""), "placement"),
        (RecommendRequest(user="u0", placement="p" * 65), "placement"),
        (RecommendRequest(user="u0", session=[SessionEvent(item="a01"), SessionEvent(item="")]), "session[1].item"),
        (RecommendRequest(user="u0", session=[SessionEvent(item="a01", event="")]), "session[0].event"),
        (RecommendRequest(user="u0", exclude=[""]), "exclude[0]"),
        (RecommendRequest(user="u0", context=Context(time=-5)), "context.time"),
        (RecommendRequest(user="u0", context=Context(time=1e12)), "context.time"),
        (RecommendRequest(user="u0", context=Context(device="d" * 65)), "context.device"),
        (RecommendRequest(user="u0", k=0), "k"),
        (RecommendRequest(user="u0", k=201), "k"),
        (RecommendRequest(user="u0", k=2.0), "k"),  # type: ignore[arg-type]
    ],
)
def test_what_a_server_refuses_is_refused_alike_in_this_process(
    app: AsgiClient, here: Reranker, request_: RecommendRequest, field: str
) -> None:
    for path, asked, prefix, call in (
        ("/v1/recommend", request_, "", lambda: here.recommend(request_)),
        (
            "/v1/recommend/batch",
            RecommendManyRequest(requests=[REQUESTS[0], request_]),
            "requests[1].",
            lambda: here.recommend_many([REQUESTS[0], request_]),
        ),
    ):
        reply = app.request("POST", path, [msgspec.json.encode(asked)], JSON_HEADERS)
        assert (reply.status, reply.json()["field"]) == (422, prefix + field)
        with pytest.raises(InvalidFieldError) as caught:
            call()
        assert (caught.value.message, caught.value.field) == (reply.json()["message"], prefix + field)


@pytest.mark.parametrize("n_requests", [0, 101])
def test_a_batch_of_none_or_too_many_is_refused_alike_in_this_process(
    server: tuple[Server, Shop], here: Reranker, n_requests: int
) -> None:
    requests = REQUESTS[:1] * n_requests
    reply = httpx.post(
        f"{server[0].url}/v1/recommend/batch",
        content=msgspec.json.encode(RecommendManyRequest(requests=requests)),
        headers=JSON_HEADERS,
        timeout=PATIENCE_SECONDS,
    )
    with pytest.raises(InvalidFieldError) as caught:
        here.recommend_many(requests)
    assert (reply.status_code, reply.json()["field"]) == (422, "requests")
    assert (caught.value.message, caught.value.field) == (reply.json()["message"], "requests")


@pytest.mark.parametrize("deadline_ms", [0, -1, 10**9])
def test_a_limit_in_time_that_a_server_refuses_is_refused_alike_in_this_process(
    client: Client, here: Reranker, deadline_ms: int
) -> None:
    for call in (
        lambda side: side.recommend(REQUESTS[0], deadline_ms=deadline_ms),
        lambda side: side.recommend_many(REQUESTS, deadline_ms=deadline_ms),
    ):
        with pytest.raises(InvalidFieldError, match="wanted 1 to") as there:
            call(client)
        with pytest.raises(InvalidFieldError) as same_here:
            call(here)
        assert (there.value.message, there.value.field) == (same_here.value.message, same_here.value.field)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (RecommendRequest(user="u0", context=Context(time=math.nan)), InvalidFieldError),
        (RecommendRequest(user="u0", k=10**30), InvalidFieldError),
        (RecommendRequest(user=object()), InvalidFieldError),  # type: ignore[arg-type]
        (RecommendRequest(user="\ud800"), MalformedBodyError),
        (RecommendRequest(user="u0", exclude=["a\udcff"]), MalformedBodyError),
    ],
    ids=["not a number", "beyond all numbers", "no text", "half a character", "a byte that is none"],
)
def test_what_json_cannot_say_is_refused_by_the_client_and_in_this_process(
    client: Client, here: Reranker, request_: RecommendRequest, error: type[RequestError]
) -> None:
    for side in (client, here):
        for call in (side.recommend, lambda request, side=side: side.recommend_many([request])):
            with pytest.raises(error) as caught:
                call(request_)  # type: ignore[operator]
            assert type(caught.value) is error
            assert caught.value.field or error is InvalidFieldError
    assert client.recommend(REQUESTS[0]).items


def test_events_and_items_go_through_it(client: Client) -> None:
    assert client.post_events([PostedEvent(user="somebody", item="a15", event="view")]) == 1
    answer = client.recommend(RecommendRequest(user="somebody"))
    assert answer.rung == "session"
    assert client.change_items([ItemChange(item="a17", hidden=True)]).changed == 1
    assert client.item("a17").hidden.value is True
    assert "a17" not in [item.item for item in client.similar("a15", 40).items]
    assert client.change_items([ItemChange(item="a17", hidden=None)]).changed == 1


def test_a_connection_that_the_server_closed_is_opened_again(client: Client) -> None:
    first = client.recommend(REQUESTS[0])
    sock = client._connection.sock
    assert isinstance(client._connection, http.client.HTTPConnection)
    assert sock is not None
    sock.shutdown(2)
    assert same(client.recommend(REQUESTS[0])) == same(first)


def test_a_server_that_is_not_there_is_told_as_such(tmp_path: Path) -> None:
    with Client("http://127.0.0.1:1") as nobody, pytest.raises(NoAnswerError):
        nobody.version()
    assert tmp_path.exists()


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8080", "http://", "http://h:99999", "http://h:abc", "http://[::1", "http://a b", "http://h/a b",
     "http://h/\u00e9", "http://a..b", f"http://{'a' * 64}", "http://h\0"],
)  # fmt: skip
def test_what_is_no_url_of_a_server_is_refused_at_once(url: str) -> None:
    with pytest.raises(RequestError, match="is not the URL"):
        Client(url)


GOOD = msgspec.json.encode(
    VersionAnswer(
        version="v", number=1, age_seconds=0, stale=False, items=1, users=1, dimensions=1, space_id="s", shards="0-0/1"
    )
)


@contextlib.contextmanager
def a_server_that_says(*answers: bytes) -> Iterator[str]:
    """The URL of a server that gives one answer on each connection, whatever is asked, and closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):  # the test is over
                for answer in answers:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(1 << 16)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
        b'HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{"version":"\xff"',
        b'HTTP/1.1 200 OK\r\n\r\n{"x":' + b"[" * 100_000,
    ],
    ids=["cut off", "no chunk", "long header", "many headers", "no HTTP", "nothing", "no UTF-8", "deep"],
)
def test_after_an_answer_that_is_none_the_next_call_is_answered(answer: bytes) -> None:
    good = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(GOOD), GOOD)
    with a_server_that_says(answer, good, answer, good) as url, Client(url, timeout_seconds=PATIENCE_SECONDS) as client:
        for _ in range(2):
            with pytest.raises(NoAnswerError, match="GET /v1/version"):
                client.version()
            assert client.version().version == "v"
            client.close()


def test_an_id_that_is_no_text_is_refused_before_it_is_sent(client: Client) -> None:
    for call in (
        lambda: client.similar("\ud800"),
        lambda: client.candidates("\ud800"),
        lambda: client.item("\ud800"),
        lambda: client.popular("\ud800"),
        lambda: client.post_events([PostedEvent(user="u0", item="\ud800", event="view")]),
        lambda: client.change_items([ItemChange(item="\ud800", hidden=True)]),
    ):
        with pytest.raises(RequestError, match="is not text"):
            call()
    assert client.version()


def test_the_package_names_what_it_offers() -> None:
    assert {name for name in reranker.__all__ if getattr(reranker, name)} == {"Client", "Reranker", "open_reranker"}
    with pytest.raises(AttributeError):
        reranker.Server  # noqa: B018
