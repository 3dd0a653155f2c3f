"""The heads of requests, kept within `serve.max_head_bytes`: uvicorn has no limit for them under httptools.

A head that comes at once is measured when it is whole, one that comes in pieces with each of them, so that a connection
never holds more than the limit and what one read brings. Whoever goes beyond it is answered 431, and what is no HTTP
400; both in JSON, like all else.

Trailers, which are HTTP, are refused, too: the parser gives them out as headers, and they come behind the body, when it
has been decided who asks and for what.

A request may ask for another protocol, as the first of Java's `HttpClient` does, and a server may pass over that
(RFC 9110, section 7.8). The parser cannot: it ends with the head. So another one is given the same head without that.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from schemas.messages import ErrorAnswer

LINE_BYTES = 4
"""Of a header beside its name and its value."""
BLANKS = b" \t"
"""Around a value they are none of it (RFC 9110, section 5.5); the parser takes only those before it."""
NO_HTTP = "this is not an HTTP request, or has headers behind its body"


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
        self._is_too_large = False

    def data_received(self, data: bytes) -> None:
        was_in_head, left = self._in_head, data
        while left:
            left = self._parse(left)
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
        if not self._asks_for_another_protocol:
            super().on_headers_complete()
            self.headers = _Ended()

    def on_message_complete(self) -> None:
        if not self._asks_for_another_protocol:
            super().on_message_complete()

    def end_head(self) -> None:
        """Take the blanks behind the values; raise HeadError when the head that has come is longer than allowed."""
        self._in_head = False
        size = len(self.url)
        for place, (name, value) in enumerate(self.headers):
            size += len(name) + len(value) + LINE_BYTES
            if (bare := value.rstrip(BLANKS)) is not value:  # where there are none, it is the same object
                self.headers[place] = name, bare
        if size > self._max_head_bytes:
            self._is_too_large = True
            raise HeadError

    def send_400_response(self, msg: str) -> None:
        """Refuse and close; uvicorn calls this for what its parser does not take."""
        if self._is_too_large:
            status, name, message = 431, "head_too_large", f"the head is longer than {self._max_head_bytes} bytes"
        else:
            status, name, message = 400, "malformed_request", NO_HTTP
        if self.cycle is None or self.cycle.response_complete:  # or the request under way is counted
            self._refused(status)
        body = msgspec.json.encode(ErrorAnswer(error=name, message=message))
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()

    def _parse(self, data: bytes) -> bytes:
        """As uvicorn's `data_received`; gives back what is to be parsed once more."""
        try:
            self.parser.feed_data(data)
        except HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("")
        except HttpParserUpgrade as asked:
            if self._asks_for_another_protocol:
                (end_of_head,) = asked.args
                return self._head_without_upgrade() + data[end_of_head:]
        return b""

    def _head_without_upgrade(self) -> bytes:
        """The head that has come, for the parser that begins with it."""
        before, self.parser = self.parser, HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        lines = [b"%b %b HTTP/%b" % (before.get_method(), self.url, before.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    @property
    def _asks_for_another_protocol(self) -> bool:
        """By the header Upgrade: a CONNECT does by its method, and is answered as any other."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
