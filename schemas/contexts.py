"""The contexts in which a version knows how often its items are met: items/context.json."""

from __future__ import annotations

from typing import Final

import msgspec

from schemas import documents

CONTEXTS_FORMAT: Final = 1


class ContextNames(msgspec.Struct, frozen=True, kw_only=True):
    """What each row of items/context.npy is about."""

    format: int = CONTEXTS_FORMAT
    contexts: list[tuple[str, str]]
    """(kind, value), each once: ("hour", "0") to ("hour", "23"), UTC; ("weekday", "0") to ("weekday", "6"), Monday
    first; ("device", "mobile"), …"""


def encode_contexts(names: ContextNames) -> bytes:
    """The bytes of context.json; equal names give equal bytes."""
    return documents.encode(names)


def decode_contexts(data: bytes) -> ContextNames:
    """The names in the bytes of context.json.

    Raises:
        NewerFormatError: its format is higher than known here.
        FormatError: it does not name contexts.
    """
    return documents.decode(data, ContextNames, "items/context.json", CONTEXTS_FORMAT)
