"""Session state on a Redis server, shared by all hosts that name it. Needs the extra `redis`.

For each user two sorted sets, of events and of impressions. A member holds what makes an event the same, its own time
among it, and the score is when it counts: adding one twice leaves one, and the server forgets both by itself.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from reranker.errors import SessionsError
from reranker.serving_log.records import LoggedEvent
from reranker.sessions.stored import Happened, Limits, Shown, Stored, by_user
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

HAPPENED: Final = b"shortlist:1:session:"
SHOWN: Final = b"shortlist:1:shown:"
"""Before the user's id; the number is the format's."""
Entry = TypeVar("Entry", Happened, Shown)
_MEMBERS: Final[Mapping[type, msgspec.msgpack.Decoder[Any]]] = {
    Happened: msgspec.msgpack.Decoder(tuple[float, str, str]),
    Shown: msgspec.msgpack.Decoder(tuple[float, str]),
}


class RedisSessions:
    """The sets of one server. A call waits for `seconds` at most, for the connection and for each answer."""

    def __init__(self, url: str, limits: Limits, *, seconds: float) -> None:
        """Connects with the first call.

        Raises:
            ConfigError: the URL is none.
            SessionsError: the client is not installed.
        """
        try:
            import redis
        except ModuleNotFoundError as error:
            hint = "pip install 'shortlist-recommender[redis]'"
            raise SessionsError("sessions.backend is redis, and its client is not installed", hint=hint) from error
        self._limits = limits
        self._failures = (redis.RedisError, OSError)
        try:
            _ = urlsplit(url).port
        except ValueError as error:  # it quotes what it takes for the port, be it of the password
            hint = "in the password, write %2F for /, %23 for #, %3F for ?"
            raise ConfigError("sessions.redis_url: wanted redis://:PASSWORD@HOST:PORT/0", hint=hint) from error
        try:
            # No try again: the request would wait twice, and who calls goes on without.
            self._server: Redis = redis.Redis.from_url(
                url, socket_timeout=seconds, socket_connect_timeout=seconds, retry=None, retry_on_timeout=False
            )
            pool = self._server.connection_pool
            pool.connection_class(**pool.connection_kwargs)  # connects to nothing, but knows what a URL may ask for
        except (TypeError, ValueError, redis.RedisError) as error:
            raise ConfigError(f"sessions.redis_url: {error}") from error

    def add(self, events: Sequence[LoggedEvent], now: float) -> None:
        try:
            with self._server.pipeline(transaction=True) as pipeline:
                for user, (happened, shown) in by_user(events, now).items():
                    self._put(pipeline, HAPPENED + user.encode(), happened, self._limits.events, now)
                    self._put(pipeline, SHOWN + user.encode(), shown, self._limits.impressions, now)
                pipeline.execute()
        except self._failures as error:
            raise SessionsError(f"writing the session to Redis: {_reason(error)}") from error

    def of(self, user: str, now: float) -> Stored:
        (since, until), name = self._limits.span(now), user.encode()
        try:
            with self._server.pipeline(transaction=False) as pipeline:
                for key in (HAPPENED + name, SHOWN + name):
                    pipeline.zrangebyscore(key, f"({since!r}", until, withscores=True)
                happened, shown = pipeline.execute()
            return Stored.of(_decode(happened, Happened), _decode(shown, Shown), since, until)
        except self._failures as error:
            raise SessionsError(f"reading a session from Redis: {_reason(error)}") from error

    def close(self) -> None:
        self._server.close()

    def _put(
        self, pipeline: Pipeline, key: bytes, entries: Iterable[Happened] | Iterable[Shown], most: int, now: float
    ) -> None:
        members = {msgspec.msgpack.encode(entry[1:]): entry.time for entry in entries}
        if not members:
            return
        pipeline.zadd(key, members, nx=True)  # one that is there counts from when it came first
        since, until = self._limits.span(now)
        pipeline.zremrangebyscore(key, -math.inf, since)
        pipeline.zremrangebyscore(key, f"({until!r}", math.inf)
        pipeline.zremrangebyrank(key, 0, -most - 1)
        pipeline.expire(key, math.ceil(self._limits.ttl_seconds))


def _reason(error: Exception) -> str:
    """What the server said, without the command, in which redis-py names the user."""
    return str(error).rpartition("of pipeline caused error: ")[2]


def _decode(members: list[tuple[bytes, float]], kind: type[Entry]) -> list[Entry]:
    """The entries of a set; what another program has put among them is none."""
    entries = []
    for member, time in members:
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
            entries.append(kind(time, *_MEMBERS[kind].decode(member)))
    return entries
