"""One connection of a client, with a short way for the request that most of them bring.

uvicorn's protocol (uvicorn/protocols/http/httptools_impl.py) makes a task, a scope and messages of every request, and
Starlette a route, a request and a response of those: twice the cost of a bare echo. So a plain `POST /v1/recommend` is
answered here, by the same parser and the same function as any other, once its last byte has come. Plain is what any
client sends: HTTP/1.1, declared as JSON and as long as it is, not compressed, not behind another request that is not
answered yet. All else goes uvicorn's way.

Deadlines and the number of connections are kept by `reranker.connection_limits`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from reranker.connection_limits import Connections
from reranker.heads import LimitedHeads
from reranker.waiting import Waiting

PATH = b"/v1/recommend"
_FIRST_LINE = b"POST %b HTTP/1.1\r\n" % PATH
Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case."""
_LENGTH = b"content-length"
_NOT_PLAIN = {b"content-encoding", b"transfer-encoding"}


class Sent(NamedTuple):
    """An answer on its way out."""

    status: int
    head: bytes
    """Lines of headers, each with its end."""
    body: bytes
    is_last: bool = False
    """The connection is closed after it, and a header says so."""


@dataclass(frozen=True, slots=True)
class Door:
    """What the connections need from the application."""

    is_open: bool
    """False: no request takes the short way, because middleware such as traces has to see every request."""
    answer: Callable[[Headers, bytes, float], Sent]
    """The answer to a recommendation asked for with these headers and this body; its head came at that reading of
    `time.perf_counter`. Never raises."""
    observe: Callable[[int, float], None]
    """Is told status and seconds of each such request."""
    overloaded: Sent
    """To a request that would wait too long, and to a connection too many."""
    too_slow: Sent
    """To whoever has not sent a whole request in time."""
    waiting: Waiting
    connections: Connections
    framing: Framing
    max_body_bytes: int


class _NobodyWaits:
    def set(self) -> None:
        """uvicorn wakes the task of a request so; there is none."""


class Asked:
    """A plain request, from its head to its answer. To uvicorn it is the cycle of its connection."""

    __slots__ = ("arrived", "body", "connection", "disconnected", "headers", "keep_alive", "response_complete")
    message_event = _NobodyWaits()

    def __init__(self, connection: Connection, headers: Headers, *, keep_alive: bool) -> None:
        self.connection = connection
        self.headers = headers
        self.body = b""
        self.keep_alive = keep_alive
        """Set to False by uvicorn when the server drains."""
        self.disconnected = False
        self.response_complete = False
        self.arrived = time.perf_counter()

    def answer(self) -> None:
        """Make the answer and send it."""
        if not self.disconnected:
            self.send(self.connection.door.answer(self.headers, self.body, self.arrived))

    def send(self, sent: Sent) -> None:
        self.connection.door.observe(sent.status, time.perf_counter() - self.arrived)
        self.response_complete = True
        self.connection.send(sent, keep_alive=self.keep_alive)
        self.connection.on_response_complete()


class Connection(LimitedHeads):
    """One connection."""

    def __init__(
        self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.door: Door = app_state["door"]
        self._connections = self.door.connections
        self._asked: Asked | None = None
        """A plain request whose body is on its way."""
        self._is_amid = False
        """The first byte of a message has come, and the last one has not."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connections.remove(self)
        self.cycle = self._asked = None  # they name each other: memory is free at once, and not when it is collected

    def data_received(self, data: bytes) -> None:
        if self.door.waiting.is_full and self._shed(data):
            return
        super().data_received(data)
        if self._is_arriving:
            self._connections.arriving.setdefault(self, time.perf_counter())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_amid = True
        self._connections.idle.pop(self, None)  # not with any byte: line ends may come before a message, and for ever

    def on_headers_complete(self) -> None:
        if self._is_plain():
            self.end_head()
            self.cycle: Any = Asked(self, self.headers, keep_alive=self.parser.should_keep_alive())
            self._asked = self.cycle
        else:
            self._connections.arriving.pop(self, None)
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._asked is None:
            super().on_body(body)
        else:
            self._asked.body += body

    def on_message_complete(self) -> None:
        self._is_amid = False
        self._connections.arriving.pop(self, None)
        asked, self._asked = self._asked, None
        if asked is None:
            super().on_message_complete()
        elif self.door.waiting.is_full:
            asked.send(self.door.overloaded)
        else:
            self.door.waiting.put(asked.answer)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._connections.begin(self)  # not reading is as bad as not sending

    def resume_writing(self) -> None:
        super().resume_writing()
        self._connections.arriving.pop(self, None)
        if self._is_arriving:  # the next request has begun meanwhile
            self._connections.begin(self)

    def on_response_complete(self) -> None:
        """As uvicorn's, but without a timer for each connection."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._limit_closing()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._is_amid:  # the next request has begun, or this one was answered before its body had come
            self._connections.arriving.setdefault(self, time.perf_counter())
        else:
            self._connections.idle[self] = time.perf_counter()

    def send(self, sent: Sent, *, keep_alive: bool) -> None:
        """Write an answer, head and body at once."""
        parts = [STATUS_LINE[sent.status], sent.head]
        for name, value in self.server_state.default_headers:
            parts += (name, b": ", value, b"\r\n")
        parts += (b"\r\n" if keep_alive or sent.is_last else b"connection: close\r\n\r\n", sent.body)
        self.transport.write(b"".join(parts))
        if sent.is_last or not keep_alive:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        super().send_400_response(msg)
        self._limit_closing()

    def refuse(self, sent: Sent) -> None:
        """Answer and close, whatever was under way; without an answer if the client does not read."""
        if self.flow.write_paused or self.transport.is_closing():
            self.transport.abort()
            return
        if self._asked is not None:
            self.door.observe(sent.status, time.perf_counter() - self._asked.arrived)
        self.send(sent, keep_alive=False)
        self._limit_closing()

    def _limit_closing(self) -> None:
        """A transport that closes waits until the client has read all, and if that never does, for ever."""
        if self.transport.get_write_buffer_size():
            self._connections.begin(self)

    def _shed(self, data: bytes) -> bool:
        """Turn a plain request away without reading more of it than where it ends; False: it is not one, or not whole.

        A third of what the way to `on_message_complete` costs, and under the load at which it counts there are two of
        these for each answer.
        """
        if self._is_amid or self._is_busy or self.flow.write_paused or not data.startswith(_FIRST_LINE):
            return False
        if not self.door.is_open or not self.door.framing.holds_one(data):
            return False
        self._connections.idle.pop(self, None)
        self.door.observe(self.door.overloaded.status, 0.0)
        self.send(self.door.overloaded, keep_alive=True)
        self.on_response_complete()
        return True

    @property
    def _is_busy(self) -> bool:
        """A request has not been answered yet."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _is_arriving(self) -> bool:
        """A message has begun, and nothing else has a deadline for its end: a body on uvicorn's way has one there."""
        return self._is_amid and (self._asked is not None or not self._is_busy)

    def _is_plain(self) -> bool:
        """The request whose head has come can be answered on the short way."""
        parser = self.parser
        if (
            not self.door.is_open
            or self.url != PATH
            or parser.get_method() != b"POST"
            or parser.get_http_version() != "1.1"
        ):
            return False
        if self.expect_100_continue or parser.should_upgrade() or self._is_busy or self.flow.write_paused:
            return False
        length, declared = -1, 0
        for name, value in self.headers:
            if name == _LENGTH:
                length = int(value)
            elif name == b"content-type":
                if value != b"application/json":
                    return False
                declared += 1
            elif name in _NOT_PLAIN:
                return False
        return declared == 1 and 0 <= length <= self.door.max_body_bytes


class Framing:
    """Where a request ends, by the parser of the connections, for data that begins with a request."""

    def __init__(self) -> None:
        self._parser = HttpRequestParser(self)
        self._begun = self._kept = 0

    def holds_one(self, data: bytes) -> bool:
        """The data is one whole request, after which the connection stays open."""
        self._begun = self._kept = 0
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._parser = HttpRequestParser(self)
            return False
        if self._begun == self._kept == 1:
            return True
        self._parser = HttpRequestParser(self)  # it is amid a request
        return False

    def on_message_begin(self) -> None:
        self._begun += 1

    def on_message_complete(self) -> None:
        self._kept += self._parser.should_keep_alive()
