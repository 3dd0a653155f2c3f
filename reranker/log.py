"""The log: on stderr, a server's as JSON lines, user ids as keyed hashes, never a body."""

from __future__ import annotations

import hashlib
import logging
import logging.config
import sys
from typing import TextIO

import structlog

LEVEL = logging.INFO

if not structlog.is_configured():  # it would print among the answers, on standard output
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


def configure(stream: TextIO | None = None) -> None:
    """Send our own lines and those of the libraries to one stream, one JSON object a line."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(LEVEL),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow=())],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVEL)


def logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """The logger of one module."""
    found: structlog.typing.FilteringBoundLogger = structlog.get_logger(name)
    return found


def hash_user(user: str, key: bytes) -> str:
    """16 hex digits that stand for a user in the log.

    Keyed, so that a list of ids cannot be hashed to find out who is who; the key lives as long as the server.
    """
    return hashlib.blake2b(user.encode(), key=key, digest_size=8).hexdigest()
