"""Clients that cost the server's cores as little as can be: raw sockets that are kept, requests that are made before.

`Askers` ask as fast as they are answered. `ask_steadily` asks at fixed times, whether the last answer is there or not,
so that no slow answer keeps a later request from being counted as slow, too.
"""

from __future__ import annotations

import json
import mmap
import multiprocessing
import random
import re
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection

from promises.outcome import Outcome

PATIENCE_SECONDS = 60.0
USERS = ("u0", "u1", "ü2", "nobody")
_VERSION = re.compile(rb'"version":"([^"]+)"')
_ITEM = re.compile(rb'"item":"(.)')
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
_COUNTS = struct.Struct("qq")


class LineCutError(Exception):
    """Raised when the server closes a connection instead of answering."""


class Line:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._arrived = b""

    def answer(self) -> tuple[bytes, bytes] | None:
        """Status and body of an answer, once all of it has come; None: not yet. Reads once."""
        part = self.socket.recv(1 << 16)
        if not part:
            raise LineCutError("the server closed the connection")
        self._arrived += part
        head, found, body = self._arrived.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if not found or length is None or len(body) < int(length[1]):
            return None
        self._arrived = b""
        return head[9:12], body


def requests_for(kinds: list[str], seed: int) -> list[bytes]:
    """Some hundred different requests; a session may name items of any kind of version."""
    dice = random.Random(seed)
    return [_request(dice, kinds or ["a"]) for _ in range(300)]


def wrong_with(answer: tuple[bytes, bytes], kind_of: Mapping[str, str]) -> str | None:
    """What is wrong with an answer: it failed, or has items of another version than it says; None: nothing.

    With no kinds given, any kind will do, as long as all items are of the same one.
    """
    status, body = answer
    version = _VERSION.search(body)
    if status != b"200" or version is None:
        return f"answer {status.decode()}: {body[:200]!r}"
    items = set(_ITEM.findall(body))
    wanted = kind_of.get(version[1].decode()) if kind_of else next(iter(items), b"").decode()
    if wanted is None or items != {wanted.encode()}:
        return f"an answer of version {version[1].decode()}, {wanted}, has items of {sorted(items)}"
    return None


class Askers:
    """Processes that ask without a pause until they are stopped, and judge every answer."""

    def __init__(self, port: int, kind_of: Mapping[str, str], *, processes: int, lines: int) -> None:
        self._counts = [mmap.mmap(-1, _COUNTS.size) for _ in range(processes)]
        self._stop = mmap.mmap(-1, 1)
        self._found: list[tuple[multiprocessing.Process, Connection]] = []
        context = multiprocessing.get_context("fork")
        for number, counts in enumerate(self._counts):
            mine, theirs = context.Pipe(duplex=False)
            asked = requests_for(sorted(set(kind_of.values())), number)
            process = context.Process(
                target=self._ask, args=(port, kind_of, asked, lines, counts), kwargs={"pipe": theirs}
            )
            process.start()
            theirs.close()
            self._found.append((process, mine))  # type: ignore[arg-type]

    @property
    def answered(self) -> int:
        """Requests that have been answered so far."""
        return sum(int(_COUNTS.unpack(counts)[0]) for counts in self._counts)

    def stop(self, outcome: Outcome) -> None:
        """Let them finish, and put what they found into an outcome."""
        self._stop[0] = 1
        for process, pipe in self._found:
            try:
                problems, number = pipe.recv()
                outcome.violate_each(problems, "a request")
                outcome.violations += number - len(problems)
            except EOFError:
                outcome.violate("a client died")
            process.join()
            pipe.close()
        outcome.count("requests", self.answered)

    def _ask(
        self, port: int, kind_of: Mapping[str, str], asked: list[bytes], lines: int, counts: mmap.mmap, *,
        pipe: Connection,
    ) -> None:  # fmt: skip
        problems: list[str] = []
        answered = wrong = 0
        kept = [Line(port) for _ in range(lines)]
        while not self._stop[0]:
            for number, line in enumerate(kept):
                line.socket.sendall(asked[(answered + number) % len(asked)])
            for line in kept:
                try:
                    while (answer := line.answer()) is None:
                        pass
                    problem = wrong_with(answer, kind_of)
                except (OSError, LineCutError) as error:
                    problem = f"no answer: {error!r}"
                    kept[kept.index(line)] = Line(port)
                answered += 1
                if problem is not None:
                    wrong += 1
                    problems = [*problems, problem][:5]
            counts[:] = _COUNTS.pack(answered, wrong)
        pipe.send((problems, wrong))


def ask_steadily(
    port: int, kind_of: Mapping[str, str], *, requests: int, per_second: float, seed: int
) -> Iterator[tuple[float, str | None]]:
    """Ask at fixed times; for each answer the seconds since its request was due, and what is wrong with it."""
    asked = requests_for(sorted(set(kind_of.values())), seed)
    begin, sent = time.perf_counter(), 0
    idle: deque[Line] = deque()
    with selectors.DefaultSelector() as waiting:
        due: dict[int, float] = {}
        while sent < requests or due:
            now = time.perf_counter()
            while sent < requests and begin + sent / per_second <= now:
                line = idle.popleft() if idle else _new_line(port, waiting)
                due[line.socket.fileno()] = begin + sent / per_second
                line.socket.sendall(asked[sent % len(asked)])
                sent += 1
            pause = begin + sent / per_second - time.perf_counter() if sent < requests else PATIENCE_SECONDS
            for key, _ in waiting.select(max(0.0, pause)):
                answer = key.data.answer()
                if answer is not None:
                    yield time.perf_counter() - due.pop(key.fd), wrong_with(answer, kind_of)
                    idle.append(key.data)
        for key in list(waiting.get_map().values()):
            key.data.socket.close()


def _new_line(port: int, waiting: selectors.BaseSelector) -> Line:
    line = Line(port)
    waiting.register(line.socket, selectors.EVENT_READ, line)
    return line


def _request(dice: random.Random, kinds: list[str]) -> bytes:
    session = [{"item": f"{dice.choice(kinds)}{dice.randrange(40):02}"} for _ in range(dice.randrange(4))]
    fields = {"user": dice.choice(USERS), "k": dice.choice([1, 5, 20]), "session": session}
    body = json.dumps(fields).encode()
    head = f"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body
