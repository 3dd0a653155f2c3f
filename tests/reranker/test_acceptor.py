"""Taking connections: left to others while there are others, and never for ever."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

import pytest

from reranker import acceptor
from reranker.acceptor import Acceptor

PATIENCE_SECONDS = 60.0


class Greeter(asyncio.Protocol):
    """Greets whoever is connected."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        transport.close()


class Failing(socket.socket):
    """A socket on which the first tries to accept fail."""

    errors: list[int]

    def accept(self) -> tuple[socket.socket, object]:
        if self.errors:
            raise OSError(self.errors.pop(), "told by the test")
        return super().accept()


def greeted(listener: socket.socket, is_ahead: Callable[[int], bool], clients: int = 3) -> list[bytes]:
    """What so many clients are told by an acceptor at a socket."""

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        try:
            return await reader.read()
        finally:
            writer.close()

    async def run() -> list[bytes]:
        taking = Acceptor(listener, Greeter, is_ahead)
        try:
            return await asyncio.wait_for(asyncio.gather(*(ask() for _ in range(clients))), PATIENCE_SECONDS)
        finally:
            taking.close()
            await taking.wait_closed()

    return asyncio.run(run())


def test_who_is_not_ahead_takes_what_comes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert greeted(listener, lambda uncounted: False) == [b"hello"] * 3


def test_who_is_ahead_takes_what_is_left_waiting_and_not_before() -> None:
    looks = 0

    def is_ahead(uncounted: int) -> bool:
        nonlocal looks
        looks += 1
        return True

    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert greeted(listener, is_ahead) == [b"hello"] * 3
    assert looks >= acceptor.LOOKS


def test_the_others_having_caught_up_it_goes_on_at_once() -> None:
    told = iter([True, True, True])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert greeted(listener, lambda uncounted: next(told, False)) == [b"hello"] * 3


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENOBUFS, errno.EAGAIN, errno.ECONNABORTED])
def test_what_cannot_be_taken_now_is_taken_later(error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "PAUSE_SECONDS", 0.01)
    with Failing() as listener:
        listener.errors = [error, error]
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert greeted(listener, lambda uncounted: False) == [b"hello"] * 3
        assert not listener.errors
