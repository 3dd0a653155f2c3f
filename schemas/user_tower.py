"""What a version says of its user tower beside the arrays: tower/tower.json."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from schemas import documents

TOWER_FORMAT: Final = 1


class TowerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How the user tower pools a history and what it makes of the sum."""

    format: int = TOWER_FORMAT
    is_unit: bool
    """User vectors are brought to length 1."""
    history_length: Annotated[int, Meta(ge=1)]
    """Most recent interactions that count."""
    event_weights: dict[str, Annotated[float, Meta(ge=0.0)]]
    """What one event of each type weighed in training; another type says nothing."""


def encode_tower(facts: TowerFacts) -> bytes:
    """The bytes of tower.json; equal facts give equal bytes."""
    return documents.encode(facts)


def decode_tower(data: bytes) -> TowerFacts:
    """The facts in the bytes of tower.json.

    Raises:
        NewerFormatError: its format is higher than known here.
        FormatError: it is not about a tower.
    """
    return documents.decode(data, TowerFacts, "tower/tower.json", TOWER_FORMAT)
