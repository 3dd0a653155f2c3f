"""The heads of requests, kept within `serve.max_head_bytes`: uvicorn has no limit for them under httptools.

A head that comes at once is measured when it is whole, one that comes in pieces with each of them, so that a connection
never holds more than the limit and what one read brings. Whoever goes beyond it is answered 431, and what is no HTTP
400; both in JSON, like all else.

Two things that are HTTP are refused, too. Trailers, which the parser gives out as headers: they come behind the body,
when it has been decided who asks and for what. And a request with a body that asks for another protocol: the parser
takes what follows its head for that protocol, and uvicorn, which stays with HTTP, for another request.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from schemas.messages import ErrorAnswer

LINE_BYTES = 4
"""Of a header beside its name and its value."""
NO_HTTP = "this is not an HTTP request, or has headers behind its body"
UPGRADE = "a request with a body cannot ask for another protocol: leave the header Upgrade out"


class HeadError(Exception):
    """Raised within the parser, which ends the connection for it."""


class _Ended(list[tuple[bytes, bytes]]):
    """In the place of the headers once a head has come: what is added then is a trailer."""

    def append(self, header: tuple[bytes, bytes]) -> None:
        raise HeadError


class LimitedHeads(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._max_head_bytes: int = app_state["service"].config.serve.max_head_bytes
        self._refused = app_state["service"].metrics.refused
        self._in_head = False
        self._pieces_bytes = 0
        """Of an unfinished head, without the piece in which it began."""
        self._problem = NO_HTTP
        self._is_too_large = False

    def data_received(self, data: bytes) -> None:
        was_in_head = self._in_head
        super().data_received(data)
        if was_in_head and self._in_head and not self.transport.is_closing():
            self._pieces_bytes += len(data)
            if self._pieces_bytes > self._max_head_bytes:
                self._is_too_large = True
                self.send_400_response("")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._pieces_bytes = True, 0

    def on_headers_complete(self) -> None:
        self.end_head()
        if self.parser.should_upgrade() and any(_says_body(*header) for header in self.headers):
            self._problem = UPGRADE
            raise HeadError
        super().on_headers_complete()
        self.headers = _Ended()

    def end_head(self) -> None:
        """Raise HeadError when the head that has come is longer than allowed."""
        self._in_head = False
        size = len(self.url)
        for name, value in self.headers:
            size += len(name) + len(value) + LINE_BYTES
        if size > self._max_head_bytes:
            self._is_too_large = True
            raise HeadError

    def send_400_response(self, msg: str) -> None:
        """Refuse and close; uvicorn calls this for what its parser does not take."""
        if self._is_too_large:
            status, name, message = 431, "head_too_large", f"the head is longer than {self._max_head_bytes} bytes"
        else:
            status, name, message = 400, "malformed_request", self._problem
        if self.cycle is None or self.cycle.response_complete:  # or the request under way is counted
            self._refused(status)
        body = msgspec.json.encode(ErrorAnswer(error=name, message=message))
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()


def _says_body(name: bytes, value: bytes) -> bool:
    return name == b"transfer-encoding" or (name == b"content-length" and int(value) > 0)
