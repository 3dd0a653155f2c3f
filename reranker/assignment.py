"""What the parent of the workers and a worker agree on."""

from __future__ import annotations

import msgspec

from schemas.config import Config

STARTUP_FAILURE = 3
"""Exit code of a worker whose application could not start: uvicorn's."""

BACKLOG = 512
"""Connections that may wait to be accepted."""


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker gets from its parent."""

    config: Config
    log_key: bytes
    """The same for every worker, so that one user has one hash in the log."""
    drain_seconds: int
    counts: list[int]
    """Descriptors of the files in which the workers count."""
    slot: int
    """Which of the workers it is, and so which of these files is its own."""
