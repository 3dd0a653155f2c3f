"""What the servers of a configuration know of the last minutes, for who answers beside them, in another process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from reranker.decayed_counts import DecayedCounts
from reranker.sessions.embedded import EmbeddedSessions, file_name
from reranker.sessions.guarded import GuardedSessions
from reranker.sessions.redis_server import RedisSessions
from reranker.sessions.stored import NOTHING, Limits, Sessions, Stored
from reranker.trending_now import TrendingNow
from schemas.config import Config, sessions_folder


@contextlib.contextmanager
def stored_sessions(config: Config, now: Callable[[], float]) -> Iterator[Callable[[str], Stored]]:
    """The sessions that servers of this configuration keep, for reading: nothing as long as there are none."""
    sessions: GuardedSessions | None = None

    def known_of(user: str) -> Stored:
        nonlocal sessions
        if sessions is None and _may_be_there(config):
            sessions = GuardedSessions(opener(config), lambda: None)
        return NOTHING if sessions is None else sessions.of(user, now())

    try:
        yield known_of
    finally:
        if sessions is not None:
            sessions.close()


def stored_trending(config: Config, now: Callable[[], float]) -> TrendingNow | None:
    """What is trending by the counts of this configuration's servers; None: they keep none."""
    return TrendingNow(DecayedCounts(Path(sessions_folder(config.paths))), now) if config.sessions.enabled else None


def opener(config: Config) -> Callable[[], Sessions]:
    """Opens the session state that the configuration names; raises SessionsError, or ConfigError."""
    settings, limits = config.sessions, Limits.of(config)
    if settings.backend == "redis":
        return partial(RedisSessions, settings.redis_url, limits, seconds=settings.redis_seconds)
    folder = Path(sessions_folder(config.paths))
    return partial(EmbeddedSessions, folder, limits, max_bytes=settings.max_mb << 20)


def _may_be_there(config: Config) -> bool:
    if not config.sessions.enabled:
        return False
    if config.sessions.backend == "redis":
        return True
    folder = Path(sessions_folder(config.paths))
    try:
        return (folder / file_name(folder)).is_file()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:  # who opens it hears why
        return True
