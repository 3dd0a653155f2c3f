"""What stands in a record: events as they were accepted, or one answer as it was given.

Arrays, not maps: a field may be added at the end of a struct, with a default, and nowhere else.
"""

from __future__ import annotations

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


Record = EventsRecord

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """The payload of a record."""
    return _ENCODER.encode(record)


def decode(payload: bytes) -> Record:
    """The record in a payload. Raises FormatError: it is whole, and yet not one of ours."""
    try:
        return _DECODER.decode(payload)
    except msgspec.MsgspecError as error:
        raise FormatError(f"a record of the serving log cannot be read: {error}") from error
