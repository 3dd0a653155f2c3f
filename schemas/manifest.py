"""What a version says of itself, and the two small documents beside it: history record, gate report.

All are JSON. Fields this Shortlist does not know are ignored, and so are unknown words in fields such as `action`:
a later Shortlist may write them and an older one keeps serving. What may not be ignored raises the format number, and
a higher number than the one known here is refused.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeVar
from zlib import crc32

import msgspec
from msgspec import Meta, field

from schemas.errors import FormatError, NewerFormatError

MANIFEST_FORMAT: Final = 1
RECORD_FORMAT: Final = 1
"""Format of the users' records, which `schemas.record` encodes and decodes."""
HISTORY_FORMAT: Final = 1
GATE_FORMAT: Final = 1

VERSION_NAME: Final = r"^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}\Z"
"""UTC build time and the head of the inputs' digest. `\\Z`: `$` would let a line feed follow."""

Count = Annotated[int, Meta(ge=0)]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
VersionName = Annotated[str, Meta(pattern=VERSION_NAME)]


class FileFacts(msgspec.Struct, frozen=True):
    """Size and SHA-256 of one file of a version."""

    bytes: Count
    sha256: Digest


class Environment(msgspec.Struct, frozen=True):
    """What the bytes of a version depend on; a reader refuses a version of another one."""

    page_bytes: int
    byte_order: str
    word_bits: int
    lmdb_format: int
    """1: written by LMDB 0.9. 3: written by LMDB 1.0, which the store does not use."""
    libraries: dict[str, str] = field(default_factory=dict)
    """Versions of the libraries that wrote it. For people: they are not compared."""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How much is in a version."""

    users: Count
    """Rows of the user vectors."""
    items: Count
    """Rows of the item vectors: the catalogue."""
    records: Count
    """Users that have a record."""
    lists: Count
    """Users whose list is not empty."""
    list_items: Count
    """Candidates in all lists together."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a version, down to the digest of every file. Written last; its digest stands in the history."""

    format: int = MANIFEST_FORMAT
    record_format: int
    name: VersionName
    inputs_digest: Digest
    """Digest of everything the version was computed from; the checksums of the records start from it."""
    inputs: dict[str, str] = field(default_factory=dict)
    """Name of each input dataset, and its fingerprint."""
    parents: list[str] = field(default_factory=list)
    """Versions that went into this one. A full build has none."""
    config_digest: str = ""
    space_id: Annotated[str, Meta(min_length=1)]
    """The embedding space of every vector and weight of the version."""
    made_at: Count
    """The run's logical time, UTC epoch seconds."""
    built_at: Count
    expires_at: Count
    index_bits: int
    """How a record's words are split: see `schemas.record`."""
    shards: Annotated[int, Meta(ge=1, le=9999)]
    dimensions: Annotated[int, Meta(ge=1)]
    counts: Counts
    columns: dict[str, str]
    """Kind of each item column: text, category or number."""
    canaries: list[str] = field(default_factory=list)
    """Users that are certainly there: a reader looks them up before it serves the version."""
    environment: Environment
    files: dict[str, FileFacts]
    """Every file of the version but this one, by its path inside the version."""


class HistoryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One cutover or rollback. The record with the highest number names the current version, whatever its action."""

    format: int = HISTORY_FORMAT
    number: Annotated[int, Meta(ge=1)]
    action: str
    """cutover or rollback; another word, of a later Shortlist, still names the version to serve."""
    version: VersionName
    manifest_sha256: Digest
    previous: str = ""
    """The version that was current before; empty for the first record."""
    who: str
    why: str = ""
    at: Count
    forced: bool = False
    """The gates had not passed and `why` says why it went live nevertheless."""


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """What one gate found."""

    name: str
    passed: bool
    found: float | None
    """None: there was nothing to measure, or nothing to compare with; the note says which."""
    wanted: float
    """The least that passes."""
    note: str = ""


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the gates found about one version, judged against the version that was current then."""

    format: int = GATE_FORMAT
    version: VersionName
    manifest_sha256: Digest
    against: str = ""
    """The version it was compared with; empty when none was current."""
    at: Count
    passed: bool
    gates: list[Gate]


class _Sealed(msgspec.Struct, frozen=True):
    """A history record with a checksum over its exact bytes, so that unknown fields are covered too."""

    crc32: int
    record: msgspec.Raw


class _FormatOnly(msgspec.Struct, frozen=True):
    format: int


Document = TypeVar("Document", Manifest, HistoryRecord, GateReport)


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of manifest.json; equal manifests give equal bytes."""
    return _pretty(manifest)


def decode_manifest(data: bytes) -> Manifest:
    """The manifest in the bytes of manifest.json.

    Raises:
        NewerFormatError: its format, or that of its records, is higher than known here.
        FormatError: it is not a manifest.
    """
    manifest = _decode(data, Manifest, "manifest.json", MANIFEST_FORMAT)
    if manifest.record_format > RECORD_FORMAT:
        raise NewerFormatError(
            f"version {manifest.name} has records of format {manifest.record_format};"
            f" this Shortlist reads up to {RECORD_FORMAT}",
            hint="upgrade this host, or roll back",
        )
    return manifest


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
    return _decode(body, HistoryRecord, "history record", HISTORY_FORMAT)


def encode_gate_report(report: GateReport) -> bytes:
    """The bytes of gates/NAME.json."""
    return _pretty(report)


def decode_gate_report(data: bytes) -> GateReport:
    """The report in the bytes of gates/NAME.json.

    Raises:
        NewerFormatError: its format is higher than known here.
        FormatError: it is not a gate report.
    """
    return _decode(data, GateReport, "gate report", GATE_FORMAT)


def _pretty(document: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=2) + b"\n"


def _decode(data: bytes, kind: type[Document], what: str, newest: int) -> Document:
    """Look at the format number first: a newer document need not fit the struct."""
    try:
        number = msgspec.json.decode(data, type=_FormatOnly).format
        if number > newest:
            raise NewerFormatError(
                f"{what} has format {number}; this Shortlist reads up to {newest}",
                hint="upgrade this host, or roll back",
            )
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FormatError(f"{what}: {error}") from error
