"""The re-ranker's weights, as `build` stores them in a version and the re-ranker reads them."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from schemas import documents

RANKER_FORMAT = 1
LOG, SESSIONS = "log", "sessions"
"""What weights can be learned from."""


class Spread(msgspec.Struct, frozen=True):
    """How the values of a signal are spread over bins."""

    bounds: list[float]
    """Ascending; a value equal to a bound is in the bin that the bound ends."""
    shares: list[float]
    """Of the values in each bin, one more than bounds."""

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.bounds) + 1 or sorted(self.bounds) != self.bounds:
            raise ValueError(f"{len(self.bounds)} bounds and {len(self.shares)} shares; wanted one more, and order")


class LearnedFrom(msgspec.Struct, frozen=True):
    """What the weights were learned from, so far as it can be compared with what is served."""

    source: str
    """log: lists as they were served; sessions: replayed ones."""
    lists: int
    """That the spreads are of."""
    spreads: dict[str, Spread]
    """Of each signal, over the items that were shown, or would have been."""


class ArrivalScore(msgspec.Struct, frozen=True):
    """What items that a version lacks score beside what the signals make of the others."""

    base: float
    of_count: float
    """For each unit of log(1 + how many users want it now); 0 or more: what more want never scores less."""
    of_age: float
    """For each unit of log(1 + hours since the first of them did)."""

    def __post_init__(self) -> None:
        if self.of_count < 0:
            raise ValueError(f"of_count is {self.of_count}; wanted 0 or more")


class RankerWeights(msgspec.Struct, frozen=True):
    """One weight per signal, in the order in which the signals are computed."""

    signals: list[str]
    weights: list[float]
    space_id: str
    """The embedding space whose vectors the weights were made for."""
    format: int = RANKER_FORMAT
    learned_from: LearnedFrom | UnsetType = UNSET
    """Absent: nothing was learned, or a Shortlist that did not keep this learned it."""
    arrivals: ArrivalScore | UnsetType = UNSET
    """Absent: that was not learned."""

    def __post_init__(self) -> None:
        if len(self.signals) != len(self.weights):
            raise ValueError(f"{len(self.signals)} signals and {len(self.weights)} weights; wanted as many of each")


def encode_weights(weights: RankerWeights) -> bytes:
    """The bytes of ranker/weights.json; equal weights give equal bytes."""
    return documents.encode(weights)


def decode_weights(data: bytes) -> RankerWeights:
    """The weights in the bytes of ranker/weights.json.

    Raises:
        NewerFormatError: they were written by a later Shortlist.
        FormatError: they are not weights.
    """
    return documents.decode(data, RankerWeights, "ranker/weights.json", RANKER_FORMAT)
