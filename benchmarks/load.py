"""A client that costs less than the server it loads: kept connections, requests made before, one process, one core.

Closed loop: every connection asks again as soon as it is answered; that finds the most that a server can do. Open loop:
requests are due at random times (a Poisson process), whether earlier ones are answered or not, and a request's latency
counts from the instant it was due. So a stalled server is charged for everyone who would have come meanwhile.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

Samples = np.ndarray
"""float64[n]: seconds."""
PATIENCE_SECONDS = 30.0


@dataclass
class Outcome:
    """What a load came to."""

    seconds: float = 0.0
    """From the first request that counts to the last answer that does."""
    statuses: Counter[str] = field(default_factory=Counter)
    """Answers by status; `closed`: connections that the server ended without an answer."""
    latencies: dict[str, Samples] = field(default_factory=dict)
    """By status, in the order of the answers."""

    def per_second(self, status: str = "200") -> float:
        return self.statuses[status] / self.seconds

    def percentile_ms(self, share: float, status: str = "200") -> float:
        return float(np.percentile(self.latencies[status], share)) * 1000


class Line:
    """One kept connection."""

    __slots__ = ("due", "fd", "part", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = self.socket.fileno()
        self.part = b""
        self.due = 0.0
        """When its request was due; 0: it has none."""

    def answer(self) -> str:
        """Status of the answer that has arrived; empty: not all of it yet; `closed`: none will come."""
        try:
            part = self.socket.recv(1 << 18)
        except ConnectionError:
            return "closed"
        if not part:
            return "closed"
        whole = self.part + part if self.part else part
        head = whole.find(b"\r\n\r\n")
        if head > 0:
            at = whole.find(b"content-length: ", 0, head) + 16
            if len(whole) - head - 4 >= int(whole[at : whole.index(b"\r", at)]):
                self.part = b""
                return whole[9:12].decode()
        self.part = whole
        return ""


def pin(cores: set[int]) -> None:
    """Keep this process on some cores, and its garbage collector out of the way."""
    os.sched_setaffinity(0, cores)
    gc.disable()


def closed_loop(port: int, requests: Sequence[bytes], *, connections: int, seconds: float, warm_up: float) -> Outcome:
    """Ask as fast as answers come, from so many connections."""
    lines = {line.fd: line for line in (Line(port) for _ in range(connections))}
    waiting = select.epoll()
    clock, number = time.perf_counter, 0
    for line in lines.values():
        waiting.register(line.fd, select.EPOLLIN)
    for line in lines.values():
        line.due = clock()
        line.socket.sendall(requests[number % len(requests)])
        number += 1
    begin = clock() + warm_up
    end = begin + seconds
    taken: dict[str, list[float]] = {}
    now = clock()
    while now < end:
        for fd, _ in waiting.poll(1.0):
            line = lines[fd]
            status = line.answer()
            if not status:
                continue
            now = clock()
            if now >= begin:
                taken.setdefault(status, []).append(now - line.due)
            if status == "closed":
                waiting.unregister(fd)
                line.socket.close()
                line = Line(port)
                lines[line.fd] = line
                waiting.register(line.fd, select.EPOLLIN)
            line.due = clock()
            line.socket.sendall(requests[number % len(requests)])
            number += 1
        now = clock()
    for line in lines.values():
        line.socket.close()
    return _outcome(taken, seconds)


def open_loop(
    port: int, requests: Sequence[bytes], *, per_second: float, seconds: float, warm_up: float, connections: int,
    seed: int = 1,
) -> Outcome:  # fmt: skip
    """Ask at random times; requests that find every connection in use wait, and their waiting counts."""
    count = int(per_second * (warm_up + seconds))
    gaps = np.random.default_rng(seed).exponential(1 / per_second, count)
    clock = time.perf_counter
    lines = [Line(port) for _ in range(connections)]
    by_fd = {line.fd: line for line in lines}
    waiting = select.epoll()
    for line in lines:
        waiting.register(line.fd, select.EPOLLIN)
    idle = deque(lines)
    start = clock() + 0.01
    dues = (start + np.cumsum(gaps)).tolist()
    begin = start + warm_up
    sent = answered = 0
    last = dues[-1]
    taken: dict[str, list[float]] = {}
    while answered < count:
        now = clock()
        while sent < count and idle and dues[sent] <= now:
            line = idle.popleft()
            line.due = dues[sent]
            # What cannot be sent shows as closed when it is read.
            with contextlib.suppress(ConnectionError):
                line.socket.sendall(requests[sent % len(requests)])
            sent += 1
            if not sent & 7:
                break  # answers are looked at meanwhile
        pause = dues[sent] - clock() if sent < count and idle else 1.0
        # Sleeping costs a wake-up of some tens of µs: whoever is nearly due, spins.
        for fd, _ in waiting.poll(pause - 0.0005 if pause > 0.001 else 0.0, 64):
            line = by_fd[fd]
            status = line.answer()
            if not status:
                continue
            if line.due:
                answered += 1
                if line.due >= begin:
                    taken.setdefault(status, []).append(clock() - line.due)
            else:
                idle.remove(line)  # closed without having been asked anything
            if status == "closed":
                waiting.unregister(fd)
                line.socket.close()
                line = Line(port)
                by_fd[line.fd] = line
                waiting.register(line.fd, select.EPOLLIN)
            line.due = 0.0
            idle.append(line)
        if clock() > last + PATIENCE_SECONDS:
            taken["unanswered"] = [PATIENCE_SECONDS] * (count - answered)
            break
    for line in lines:
        line.socket.close()
    return _outcome(taken, last - begin)


def _outcome(taken: dict[str, list[float]], seconds: float) -> Outcome:
    return Outcome(
        seconds=seconds,
        statuses=Counter({status: len(times) for status, times in taken.items()}),
        latencies={status: np.array(times) for status, times in taken.items()},
    )
