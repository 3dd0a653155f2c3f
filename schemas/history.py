"""One decision about what is served: the document history/NNNNNNNN.json.

The record with the highest number names the current version and carries all that the next decision depends on: what was
served before, the pin, the quarantine. So an older record may be damaged, or not have arrived on this host, and nothing
that matters is lost.
"""

from __future__ import annotations

from typing import Annotated, Final
from zlib import crc32

import msgspec
from msgspec import Meta, field

from schemas import documents
from schemas.documents import Count, Digest, VersionName
from schemas.errors import FormatError

HISTORY_FORMAT: Final = 2
"""2: a record carries `since`, `before`, `pinned` and `quarantined`. Records of format 1 are read as far as they go."""

CUTOVER: Final = "cutover"
ROLLBACK: Final = "rollback"
PIN: Final = "pin"
UNPIN: Final = "unpin"
QUARANTINE: Final = "quarantine"
RELEASE: Final = "release"
RETIRE: Final = "retire"


class Quarantine(msgspec.Struct, frozen=True):
    """Why a version must not be served: the record that says who and for what reason."""

    number: Annotated[int, Meta(ge=1)]
    """Of the history record that put it there."""
    inputs_digest: str
    """Of the version, for another one of the same inputs has the same lists; "": its manifest could not be read."""


class HistoryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One decision. The record with the highest number names the current version, whatever its action."""

    format: int = HISTORY_FORMAT
    number: Annotated[int, Meta(ge=1)]
    action: str
    """One of the words above; another one, of a later Shortlist, still names the version to serve."""
    version: VersionName
    """The version to serve from this record on."""
    manifest_sha256: Digest
    previous: str = ""
    """The version that was current before; empty for the first record."""
    who: str
    why: str = ""
    at: Count
    forced: bool = False
    """The gates had not passed and `why` says why it went live nevertheless."""
    subjects: list[VersionName] = field(default_factory=list)
    """The other versions that the action is about: those quarantined, released or retired."""
    since: Count = 0
    """Number of the record that made `version` current; 0: not known."""
    before: list[VersionName] = field(default_factory=list)
    """Versions that `rollback` may go to, nearest first."""
    pinned: Count = 0
    """Number of the record that pinned what is served: no cutover while it is there; 0: none."""
    quarantined: dict[VersionName, Quarantine] = field(default_factory=dict)
    """Versions that must not be served until they are released."""

    @property
    def identity(self) -> tuple[str, str]:
        """The version to serve, down to the byte: its name and the digest of its manifest."""
        return self.version, self.manifest_sha256


class _Sealed(msgspec.Struct, frozen=True):
    """A history record with a checksum over its exact bytes, so that unknown fields are covered too."""

    crc32: int
    record: msgspec.Raw


def encode_history_record(record: HistoryRecord) -> bytes:
    """The bytes of history/NNNNNNNN.json."""
    body = msgspec.json.encode(record)
    return msgspec.json.encode(_Sealed(crc32(body), msgspec.Raw(body))) + b"\n"


def decode_history_record(data: bytes) -> HistoryRecord:
    """The record in the bytes of history/NNNNNNNN.json.

    Raises:
        NewerFormatError: its format is higher than known here.
        FormatError: its checksum does not match, or it is not a history record.
    """
    try:
        sealed = msgspec.json.decode(data, type=_Sealed)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FormatError(f"history record: {error}") from error
    body = bytes(sealed.record)
    if crc32(body) != sealed.crc32:
        raise FormatError("history record: it does not match its checksum")
    record = documents.decode(body, HistoryRecord, "history record", HISTORY_FORMAT)
    if record.format == 1 and record.action != ROLLBACK and record.previous not in ("", record.version):
        # It carries nothing yet: the version it replaced is the one to go back to.
        return msgspec.structs.replace(record, before=[record.previous])
    return record
