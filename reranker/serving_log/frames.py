"""Segments of the log in bytes, as `docs/log.md` describes them: names, the header, and a record's frame."""

from __future__ import annotations

import re
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

from schemas.errors import NewerFormatError

FORMAT: Final = 3
"""3: with the settings; 2: with what was trending. Both are read as well, and so is 1."""
MAGIC: Final = b"\x93SLOG\r\n\x1a"
"""The first byte is no text, and the line ends show a file that was carried as text."""
MAX_RECORD_BYTES: Final = 16 << 20
MAX_NUMBER: Final = 999_999
"""Of a segment in its series: a name has room for six digits."""
_NUMBER: Final = struct.Struct("<I")
_FRAME: Final = struct.Struct("<II")
HEADER_BYTES: Final = len(MAGIC) + 2 * _NUMBER.size
_NAME: Final = re.compile(r"(?P<started>\d{13})-(?P<series>[0-9a-f]{16})-(?P<number>\d{6})\.log")


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """The order of names is that of time."""

    started_ms: int
    """UTC epoch milliseconds, by the clock of the worker that began it."""
    series: str
    """16 hex digits, drawn by each worker process; its segments count up."""
    number: int

    def __str__(self) -> str:
        return f"{self.started_ms:013d}-{self.series}-{self.number:06d}.log"

    @classmethod
    def parse(cls, text: str) -> SegmentName | None:
        """The name in a text; None: it is none."""
        match = _NAME.fullmatch(text)
        return cls(int(match["started"]), match["series"], int(match["number"])) if match else None


class Tail(NamedTuple):
    """What a segment holds after its last whole record: a crash leaves that, or a writer that is still at work.

    All of it, where the header is not whole: what follows could be of any format.
    """

    path: Path
    begin: int
    """Where the whole records end."""
    bytes: int
    """Length of the rest."""
    reason: str


class Frame(NamedTuple):
    """One whole record, as it was written."""

    begin: int
    payload: bytes


def new_series() -> str:
    """A name for the segments of one process, unlike any other's."""
    return secrets.token_hex(8)


def header() -> bytes:
    """The first bytes of every segment."""
    begin = MAGIC + _NUMBER.pack(FORMAT)
    return begin + _NUMBER.pack(crc32(begin))


def frame(payload: bytes) -> bytes:
    """A record as it is appended: length, checksum of the length and the payload, payload."""
    length = _NUMBER.pack(len(payload))
    # The length is under the checksum, too: else a tail of zeros would be empty records.
    return length + _NUMBER.pack(crc32(payload, crc32(length))) + payload


def frames(path: Path, data: bytes) -> Iterator[Frame | Tail]:
    """The whole records of a segment in order; at last the torn tail, if there is one.

    Raises:
        NewerFormatError: a later Shortlist has written it.
    """
    torn = _check_header(path, data)
    if torn is not None:
        yield torn
        return
    place, size = HEADER_BYTES, len(data)
    while place < size:
        reason = ""
        if place + _FRAME.size > size:
            reason = "cut off in a record's head"
        else:
            length, checksum = _FRAME.unpack_from(data, place)
            begin = place + _FRAME.size
            if length > MAX_RECORD_BYTES:
                reason = f"a record of {length} bytes; at most {MAX_RECORD_BYTES} are written"
            elif begin + length > size:
                reason = "cut off in a record"
            elif crc32(data[begin : begin + length], crc32(data[place : place + _NUMBER.size])) != checksum:
                reason = "a record's checksum is wrong"
        if reason:
            yield Tail(path, place, size - place, reason)
            return
        yield Frame(place, data[begin : begin + length])
        place = begin + length


def _check_header(path: Path, data: bytes) -> Tail | None:
    found, wanted = data[:HEADER_BYTES], header()
    if len(found) < HEADER_BYTES and wanted.startswith(found):
        return Tail(path, 0, len(data), "cut off in the header")
    (checksum,) = _NUMBER.unpack(found[-_NUMBER.size :]) if len(found) == HEADER_BYTES else (None,)
    if not found.startswith(MAGIC) or checksum != crc32(found[: -_NUMBER.size]):
        # A power cut leaves the length of a file sooner than its bytes.
        return Tail(path, 0, len(data), "the header is damaged" if any(data) else "nothing but zeros")
    (number,) = _NUMBER.unpack(found[len(MAGIC) : len(MAGIC) + _NUMBER.size])
    if number > FORMAT:
        raise NewerFormatError(
            f"{path} has format {number} of the serving log; known are up to {FORMAT}",
            hint="read it with the Shortlist that wrote it",
        )
    return None
