"""One worker process: `python -m reranker.worker FD`, with its assignment as a JSON line on stdin.

Stdin stays open as long as the parent lives: its end tells the worker to drain and go.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
import threading
from functools import partial

import msgspec

from reranker.assignment import Assignment


def main(fd: int) -> None:
    """Serve on an inherited socket until SIGTERM."""
    # The parent blocks these for itself, and a mask is inherited.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
    import uvicorn

    from reranker import log
    from reranker.acceptor import Acceptor
    from reranker.app import create_app
    from reranker.compiled import is_compiled
    from reranker.connections import Connection
    from reranker.counts import Counts

    assignment = msgspec.json.decode(sys.stdin.buffer.readline(), type=Assignment)
    log.configure()
    if not is_compiled:
        hint = "install Shortlist again, where gcc and Python's headers are"
        log.logger(__name__).warning("no compiled loops: numpy serves, some times slower", hint=hint)
    # Every connection is an open file.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    threading.Thread(target=_follow_parent, name="follow-parent", daemon=True).start()
    counts = Counts(assignment.counts, assignment.slot)
    settings = uvicorn.Config(
        create_app(assignment.config, log_key=assignment.log_key, counts=counts),
        http=Connection,
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=assignment.drain_seconds,
    )

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup([])
            given = {"config": self.config, "server_state": self.server_state, "app_state": self.lifespan.state}
            acceptor = Acceptor(listener, partial(Connection, **given), counts.is_ahead)
            self.servers.append(acceptor)  # type: ignore[arg-type] # which uvicorn closes as it does its own
            # What has been imported and opened stays: a full collection that walks it stops a worker for 20 ms, and
            # one that walks ten thousand connections for 100. What requests leave is found by the small collections,
            # of half a millisecond, and almost all of it needs none.
            gc.collect()
            gc.freeze()
            gc.set_threshold(5_000, 1_000, 1_000)

    with socket.socket(fileno=fd) as listener:
        Server(settings).run(sockets=[listener])


def _follow_parent() -> None:
    # Not sys.stdin: the lock of its buffer, held here for ever, would abort the interpreter when it shuts down.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)
