"""One worker process: `python -m reranker.worker FD`, with its assignment as a JSON line on stdin.

Stdin stays open as long as the parent lives: its end tells the worker to drain and go.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

import msgspec

from reranker.assignment import Assignment


def main(fd: int) -> None:
    """Serve on an inherited socket until SIGTERM."""
    # The parent blocks these for itself, and a mask is inherited.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})
    import uvicorn

    from reranker import log
    from reranker.app import create_app
    from reranker.compiled import is_compiled

    assignment = msgspec.json.decode(sys.stdin.buffer.readline(), type=Assignment)
    log.configure()
    if not is_compiled:
        hint = "install gcc and Python's headers, then Shortlist again"
        log.logger(__name__).warning("no compiled loops: numpy serves, some times slower", hint=hint)
    threading.Thread(target=_follow_parent, name="follow-parent", daemon=True).start()
    settings = uvicorn.Config(
        create_app(assignment.config, log_key=assignment.log_key),
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=assignment.drain_seconds,
    )
    with socket.socket(fileno=fd) as listener:
        uvicorn.Server(settings).run(sockets=[listener])


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
