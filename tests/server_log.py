"""The log as a server writes it, for a while: how to log belongs to the process, and other tests share it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import structlog

from reranker import log


@contextmanager
def logged_as_by_a_server(stream: TextIO | None = None) -> Iterator[None]:
    """Log as a server does, to a stream or standard error, and then as before."""
    root = logging.getLogger()
    handlers, level, kept = root.handlers[:], root.level, structlog.get_config()
    log.configure(stream)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.configure(**kept)
