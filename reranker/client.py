"""A client of the server: the same calls, answers and errors as `Reranker` in one's own process.

with Client("http://127.0.0.1:8080") as client:
    answer = client.recommend(RecommendRequest(user="u1", session=[SessionEvent(item="i7")]))
"""

from __future__ import annotations

import http.client
import urllib.parse
from collections.abc import Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Self, TypeVar

import msgspec

from reranker.deadline import HEADER
from reranker.errors import STATUS, NoAnswerError, RequestError
from reranker.requests import checked
from schemas.errors import ShortlistError
from schemas.live_items import ItemChange, ItemChanges, ItemChangesAnswer, ItemNow
from schemas.messages import (
    ErrorAnswer,
    EventsAnswer,
    EventsRequest,
    ListAnswer,
    PostedEvent,
    RecommendAnswer,
    RecommendManyAnswer,
    RecommendManyRequest,
    RecommendRequest,
    VersionAnswer,
)

A = TypeVar("A")


class Client:
    """One connection to a server, kept open. Not for several threads at once: each has its own."""

    def __init__(self, url: str, *, timeout_seconds: float = 5.0, token: str = "") -> None:
        """`url`: http://HOST:PORT or https://HOST; `token` for a server that wants one.

        Nothing is connected before the first call.
        """
        try:
            self._connection, self._prefix = _connection_to(url, timeout_seconds)
        except (ValueError, http.client.InvalidURL) as error:
            hint = "for example http://127.0.0.1:8080"
            raise RequestError(f"{url!r} is not the URL of a server", hint=hint) from error
        if not _is_plain(token):
            raise RequestError("the token has characters that no token has")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens it again."""
        self._connection.close()

    def recommend(self, request: RecommendRequest, *, deadline_ms: int | None = None) -> RecommendAnswer:
        """The answer to a request. Raises what `Reranker.recommend` does, and NoAnswerError."""
        return self._post("/v1/recommend", request, RecommendAnswer, _limit(deadline_ms))

    def recommend_many(
        self, requests: Sequence[RecommendRequest], *, deadline_ms: int | None = None
    ) -> list[RecommendAnswer]:
        """The answers in the order of the requests."""
        message = RecommendManyRequest(requests=[*requests])
        return self._post("/v1/recommend/batch", message, RecommendManyAnswer, _limit(deadline_ms)).answers

    def similar(self, item: str, k: int | None = None) -> ListAnswer:
        """The items nearest to an item. Raises UnknownItemError."""
        return self._get(f"/v1/similar/{_quoted(item)}", ListAnswer, k=k)

    def popular(self, segment: str = "", k: int | None = None) -> ListAnswer:
        """What is popular, in a segment or with everybody."""
        return self._get("/v1/popular", ListAnswer, segment=segment, k=k)

    def trending(self, segment: str = "", k: int | None = None) -> ListAnswer:
        """What is popular of late, in a segment or with everybody."""
        return self._get("/v1/trending", ListAnswer, segment=segment, k=k)

    def candidates(self, user: str, k: int | None = None) -> ListAnswer:
        """The user's list as it is stored. Raises UnknownUserError."""
        return self._get(f"/v1/users/{_quoted(user)}/candidates", ListAnswer, k=k)

    def post_events(self, events: Sequence[PostedEvent]) -> int:
        """Say what users did; how many events are on disk now. Sending the same again is safe."""
        return self._post("/v1/events", EventsRequest(events=[*events]), EventsAnswer).accepted

    def change_items(self, changes: Sequence[ItemChange]) -> ItemChangesAnswer:
        """Change facts about items within the day."""
        return self._post("/v1/items", ItemChanges(items=[*changes]), ItemChangesAnswer)

    def item(self, item: str) -> ItemNow:
        """The facts about an item as they are now. Raises UnknownItemError."""
        return self._get(f"/v1/items/{_quoted(item)}", ItemNow)

    def version(self) -> VersionAnswer:
        """The version that is served."""
        return self._get("/v1/version", VersionAnswer)

    def _post(
        self, path: str, message: msgspec.Struct, answer: type[A], headers: Mapping[str, str] = MappingProxyType({})
    ) -> A:
        body = msgspec.json.encode(checked(message))
        return self._call("POST", path, body, answer, {"Content-Type": "application/json", **headers})

    def _get(self, path: str, answer: type[A], **query: str | int | None) -> A:
        given = [f"{name}={_quoted(str(value))}" for name, value in query.items() if value not in (None, "")]
        return self._call("GET", f"{path}?{'&'.join(given)}" if given else path, None, answer)

    def _call(
        self,
        method: str,
        path: str,
        body: bytes | None,
        answer: type[A],
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> A:
        headers = {**self._headers, **headers}
        for attempt in (1, 2):
            is_fresh = self._connection.sock is None
            try:
                self._connection.request(method, self._prefix + path, body, headers)
                response = self._connection.getresponse()
                data = response.read()
                break
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()  # or it would wait for the rest of the answer, and take no call any more
                # The server may close what has been idle: that is found out by the next call, which is made again.
                was_closed = isinstance(error, (ConnectionError, http.client.BadStatusLine))
                if not was_closed or attempt == 2 or is_fresh:
                    raise NoAnswerError(f"{method} {path}: {str(error) or type(error).__name__}") from error
        try:
            if response.status == 200:
                return msgspec.json.decode(data, type=answer)
            raise _error(msgspec.json.decode(data, type=ErrorAnswer))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise NoAnswerError(f"{method} {path}: status {response.status}, and no answer of ours") from error


def _connection_to(url: str, timeout_seconds: float) -> tuple[http.client.HTTPConnection, str]:
    """The connection to a server, and what comes before its paths; raises ValueError or InvalidURL."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or not _is_plain(parts.path):
        raise ValueError(url)
    host.encode("idna")  # as the resolver will
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(host, parts.port, timeout=timeout_seconds), parts.path.rstrip("/")


def _is_plain(text: str) -> bool:
    """It can stand in the head of a request as it is."""
    return text.isascii() and text.isprintable() and " " not in text


def _error(answer: ErrorAnswer) -> ShortlistError:
    """What the server raised."""
    for kind, _, name in STATUS:
        if name == answer.error:
            return kind(answer.message, field=answer.field) if issubclass(kind, RequestError) else kind(answer.message)
    return NoAnswerError(f"{answer.error}: {answer.message}")


def _limit(deadline_ms: int | None) -> dict[str, str]:
    return {} if deadline_ms is None else {HEADER: str(deadline_ms)}


def _quoted(text: str) -> str:
    try:
        return urllib.parse.quote(text, safe="")
    except UnicodeEncodeError as error:
        raise RequestError(f"{text[:64]!r} is not text that UTF-8 can hold") from error
