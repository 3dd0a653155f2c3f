"""What stands in a record: events as they were accepted, one answer as it was given, or what answers are made by.

Arrays, not maps: a field may be added at the end of a struct, with a default, and nowhere else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from schemas.errors import FormatError


class LoggedEvent(msgspec.Struct, frozen=True, array_like=True):
    """One event, as the client sent it."""

    user: str
    item: str
    event: str
    time: float
    """UTC epoch seconds: the client's, or those of the server's clock where the client sent none."""
    request_id: str | None = None
    """The answer that it is about."""
    position: int | None = None
    """Place in that answer, from 1."""
    device: str | None = None


class EventsRecord(msgspec.Struct, frozen=True, array_like=True, tag="events"):
    """The events of one body: all are in the log, or none."""

    received: float
    """UTC epoch seconds by the server's clock."""
    events: list[LoggedEvent]


class ShownItems(msgspec.Struct, frozen=True, array_like=True):
    """The items of an answer in the order of their rank, column by column."""

    items: list[str]
    rungs: list[str]
    base_ranks: list[int]
    scores: bytes
    """float32[n], little-endian: not rounded as in the answer."""
    base_scores: bytes
    """float32[n], little-endian."""
    signals: list[str] = []
    """The signals that had a weight."""
    values: bytes = b""
    """float32[n, signals], little-endian: their values. NaN: not computed, for want of time."""
    propensities: bytes = b""
    """float32[n], little-endian: the chance that just this item stood here; 1 where chance had no say."""
    added: bytes = b""
    """float32[n], little-endian: what rules and discounts added to the score; empty: nothing to any."""


class AnswerRecord(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """One answer, and all that it takes to make it again from its version."""

    request_id: str
    user: str
    time: float
    """UTC epoch seconds by the server's clock, when it was asked."""
    version: str
    worker: int
    """Process id."""
    settings: str
    """Digest of the settings that an answer depends on, see `SettingsRecord`."""
    k: int
    session: list[tuple[str, str, float | None]]
    """Item, event type and time, as used: the stored session, then the request's own."""
    live: int
    """Number of the last change of the live facts about items; 0: there was none."""
    ignored: dict[str, int]
    """Times that items had been shown without a click, where the ranker has a weight for it."""
    exclude: list[str]
    device: str | None
    context_time: float | None
    segment: str | None
    shown: ShownItems
    rung: str
    topped_up_from: list[str]
    reason: str | None
    stale: bool
    age_seconds: int
    ignored_events: int
    placement: str = "home"
    hasty_since: int = -1
    """The rung, counted along those that were open from 0, from which on there was no time to rank; -1: there was."""
    holdout: str = ""
    """The holdout that the user was in, by the rung that answers there; empty: none."""
    trending: str = ""
    """The number of what was trending, see `TrendingRecord`; empty: nothing was."""


class TrendingRecord(msgspec.Struct, frozen=True, array_like=True, tag="trending"):
    """What was trending for some seconds, with the answers of one worker."""

    number: str
    """16 hex digits, drawn at random."""
    time: float
    """UTC epoch seconds by the server's clock."""
    items: list[str]
    """The most met first."""
    counts: bytes
    """float32[n], little-endian: what the signal was."""
    arrivals: list[str] = []
    """Items that the version lacks, the most met first."""
    arrived: bytes = b""
    """float32[m], little-endian: their counts."""
    since: bytes = b""
    """float64[m], little-endian: when each of them began to count, in epoch seconds. Empty in older logs."""


class SettingsRecord(msgspec.Struct, frozen=True, array_like=True, tag="settings"):
    """The settings that decide the answers of one worker. Each of its segments begins with them."""

    digest: str
    """As its answers name it."""
    settings: dict[str, dict[str, Any]]
    """By section and name, as a configuration file has them."""


Record = EventsRecord | AnswerRecord | TrendingRecord | SettingsRecord

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """The payload of a record."""
    return _ENCODER.encode(record)


def decode(payload: bytes, path: Path, begin: int) -> Record:
    """The record in a payload, which begins at a byte of a segment.

    Raises FormatError: it is whole, and yet not one of ours.
    """
    try:
        found: Record = _DECODER.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}, byte {begin}: a record of the serving log cannot be read: {error}") from error
    return found
