"""What a version says of itself: manifest.json, with the size and digest of every other file."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta, field

from schemas import documents
from schemas.documents import Count, Digest, VersionName
from schemas.errors import NewerFormatError

MANIFEST_FORMAT: Final = 1
RECORD_FORMAT: Final = 1
"""Format of the users' records, which `schemas.record` encodes and decodes."""


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


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of manifest.json; equal manifests give equal bytes."""
    return documents.encode(manifest)


def decode_manifest(data: bytes) -> Manifest:
    """The manifest in the bytes of manifest.json.

    Raises:
        NewerFormatError: its format, or that of its records, is higher than known here.
        FormatError: it is not a manifest.
    """
    manifest = documents.decode(data, Manifest, "manifest.json", MANIFEST_FORMAT)
    if manifest.record_format > RECORD_FORMAT:
        raise NewerFormatError(
            f"version {manifest.name} has records of format {manifest.record_format};"
            f" this Shortlist reads up to {RECORD_FORMAT}",
            hint="upgrade this host, or roll back",
        )
    return manifest
