"""Which shards of a version a host holds: the document held.json inside the version, and the words 0-15/64."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from schemas import documents
from schemas.documents import Count, VersionName
from schemas.errors import UsageError

HELD_FORMAT: Final = 1
SHARDS_PATTERN: Final = r"^([0-9]{1,4}-[0-9]{1,4}/[0-9]{1,4})?\Z"
"""Shards FIRST to LAST of ALL; empty: all of them."""

_WORDS = re.compile(r"([0-9]{1,4})-([0-9]{1,4})/([0-9]{1,4})\Z")


class ShardRange(msgspec.Struct, frozen=True):
    """Consecutive shards of all that a version has."""

    first: Count
    last: Count
    of: Annotated[int, Meta(ge=1, le=9999)]

    def __post_init__(self) -> None:
        if not self.first <= self.last < self.of:
            raise ValueError(f"{self} are no shards; wanted FIRST-LAST/ALL with FIRST <= LAST < ALL")

    def __str__(self) -> str:
        return f"{self.first}-{self.last}/{self.of}"

    @property
    def numbers(self) -> range:
        """The shards' numbers."""
        return range(self.first, self.last + 1)


class HeldShards(msgspec.Struct, frozen=True, kw_only=True):
    """Beside the manifest of a version that is here in part: the shards that are."""

    format: int = HELD_FORMAT
    version: VersionName
    shards: ShardRange


def parse_shards(words: str) -> ShardRange | None:
    """The shards that words like 0-15/64 mean; None for "": all of them.

    Raises:
        UsageError: they mean nothing.
    """
    if not words:
        return None
    match = _WORDS.match(words)
    if match is None:
        raise UsageError(f"shards {words!r}; wanted FIRST-LAST/ALL, like 0-15/64")
    try:
        return ShardRange(*map(int, match.groups()))
    except ValueError as error:
        raise UsageError(str(error)) from error


def encode_held(held: HeldShards) -> bytes:
    """The bytes of held.json."""
    return documents.encode(held)


def decode_held(data: bytes) -> HeldShards:
    """What the bytes of held.json say.

    Raises:
        NewerFormatError: its format is higher than known here.
        FormatError: it is no such document.
    """
    return documents.decode(data, HeldShards, "held.json", HELD_FORMAT)
