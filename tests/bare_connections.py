"""Connections to a server: on bare sockets, or in this process without one."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from asgi_client import AsgiClient
from shop_server import PATIENCE_SECONDS
from uvicorn.server import ServerState

from reranker.connections import Connection

BODY = b'{"user": "u0", "k": 3, "session": [{"item": "a01"}]}'


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
