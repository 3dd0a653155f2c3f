"""The server: one socket, several worker processes, and a parent that only watches them.

The parent binds the address, starts the workers and replaces one that dies. It opens neither the store nor HTTP, so a
worker inherits nothing but the listening socket. A worker that loses its parent ends by itself.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec

from reranker.assignment import BACKLOG, STARTUP_FAILURE, Assignment
from reranker.counts import new_file
from reranker.errors import ServeError
from reranker.log import logger
from schemas.config import Config

DRAIN_SECONDS = 10
"""Requests in flight get this long to finish after SIGTERM."""
QUICK_DEATH_SECONDS = 5.0
"""A worker that dies younger than this is replaced ever more slowly, up to MAX_PAUSE_SECONDS."""
MAX_PAUSE_SECONDS = 5.0
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""A product of one request is too small to share, and the workers have taken the cores already."""
ANOTHER_HOST = "set serve.host to an address of this machine"
ANOTHER_PORT = "choose another serve.port; 0 takes any free one"
STOPS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
log = logger(__name__)


def serve(config: Config, announce: Callable[[str], None]) -> None:
    """Serve until one of STOPS arrives, then drain and return; raises ServeError when it cannot start.

    `announce` gets the URL once connections are accepted (they wait until the first worker is up).
    Requires: the main thread, since signals arrive there.
    """
    with _listen(config) as listener, _files_of_counts(config.serve.workers) as counts:
        # Blocked, not handled: `sigtimedwait` then takes them one at a time, and none can be lost in between.
        watched = _watched()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
        workers = Workers(config, listener, counts)
        host, port = listener.getsockname()[:2]
        if not config.serve.tokens_file and not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            log.warning("open to the network without tokens", host=host, hint="set serve.tokens_file")
        try:
            workers.start_all()
            announce(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
            workers.watch(watched)
        finally:
            # No new connection is queued for a process that is about to end.
            listener.close()
            workers.stop_all()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Workers:
    """The worker processes, and when each of them has to be started next."""

    def __init__(self, config: Config, listener: socket.socket, counts: list[int]) -> None:
        self._listener = listener
        self._assignment = partial(
            Assignment, config=config, log_key=secrets.token_bytes(16), drain_seconds=DRAIN_SECONDS, counts=counts
        )
        self._lent = [listener.fileno(), *counts]
        here = str(Path(__file__).parents[1])
        self._path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._running: dict[int, tuple[subprocess.Popen[bytes], float]] = {}  # by slot, with the time of the start
        self._due: dict[int, float] = dict.fromkeys(range(config.serve.workers), 0.0)
        self._quick_deaths = 0

    def start_all(self) -> None:
        """Start every worker that is due."""
        now = time.monotonic()
        for slot in [slot for slot, due in self._due.items() if due <= now]:
            del self._due[slot]
            self._running[slot] = (self._start(slot), now)

    def watch(self, watched: set[signal.Signals]) -> None:
        """Replace workers that die until one of STOPS arrives.

        One that cannot start is tried again like one that has died: the disk may be full, or the memory.

        Raises:
            ServeError: one cannot start, and none is there that has begun before it.
        """
        while True:
            pause = max(0.0, min(self._due.values()) - time.monotonic()) if self._due else 3600.0
            arrived = signal.sigtimedwait(watched, pause)
            if arrived is not None and arrived.si_signo != signal.SIGCHLD:
                log.info("stopping", signal=signal.Signals(arrived.si_signo).name)
                return
            self._reap()
            self.start_all()

    def stop_all(self) -> None:
        """Let every worker drain, and return when all have ended."""
        for process, _ in self._running.values():
            process.terminate()
        deadline = time.monotonic() + DRAIN_SECONDS + 5.0
        for process, _ in self._running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("worker did not drain", pid=process.pid)
                process.kill()
                process.wait()
            _close_input(process)
        self._running.clear()

    def _start(self, slot: int) -> subprocess.Popen[bytes]:
        # A fresh interpreter and not a fork: LMDB must be opened by the process that reads it.
        # -P: a folder that happens to be named like one of our packages must not be taken for it.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "reranker.worker", str(self._listener.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=self._lent,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": self._path},
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died already, and the watch will see it
            process.stdin.write(msgspec.json.encode(self._assignment(slot=slot)) + b"\n")
            process.stdin.flush()
        log.info("worker started", pid=process.pid)
        return process

    def _reap(self) -> None:
        now = time.monotonic()
        for slot, (process, started) in list(self._running.items()):
            code = process.poll()
            if code is None:
                continue
            del self._running[slot]
            _close_input(process)
            if code == STARTUP_FAILURE and not any(begun < started for _, begun in self._running.values()):
                raise ServeError("no worker can start; the log above says why")
            self._quick_deaths = self._quick_deaths + 1 if now - started < QUICK_DEATH_SECONDS else 0
            pause = min(MAX_PAUSE_SECONDS, 0.1 * 2 ** min(self._quick_deaths, 10)) if self._quick_deaths > 1 else 0.0
            self._due[slot] = now + pause
            what = "worker could not start" if code == STARTUP_FAILURE else "worker died"
            log.error(what, pid=process.pid, code=code, restart_seconds=pause)


def _watched() -> set[signal.Signals]:
    """What to wait for. Not a SIGHUP that `nohup` has had ignored: blocked, it would arrive all the same."""
    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    return (STOPS | {signal.SIGCHLD}) - ignored


def _close_input(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


@contextlib.contextmanager
def _files_of_counts(workers: int) -> Iterator[list[int]]:
    with contextlib.ExitStack() as stack:
        files: list[int] = []
        try:
            for _ in range(workers):
                files.append(new_file())
                stack.callback(os.close, files[-1])
        except OSError as error:
            raise ServeError(f"the counts of {workers} workers have no place: {error.strerror}") from error
        yield files


@contextlib.contextmanager
def _listen(config: Config) -> Iterator[socket.socket]:
    host, port = config.serve.host, config.serve.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # the latter of a name with a part that is empty or too long
        raise ServeError(f"cannot listen on {host}: {error}", hint=ANOTHER_HOST) from error
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as error:
            hint = ANOTHER_PORT if error.errno in (errno.EADDRINUSE, errno.EACCES) else ANOTHER_HOST
            raise ServeError(f"cannot listen on {host} port {port}: {error}", hint=hint) from error
        yield listener
