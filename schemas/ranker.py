"""The re-ranker's weights, as `build` stores them in a version and the re-ranker reads them."""

from __future__ import annotations

import msgspec

from schemas.errors import FormatError, NewerFormatError

RANKER_FORMAT = 1


class RankerWeights(msgspec.Struct, frozen=True):
    """One weight per signal, in the order in which the signals are computed."""

    signals: list[str]
    weights: list[float]
    space_id: str
    """The embedding space whose vectors the weights were made for."""
    format: int = RANKER_FORMAT

    def __post_init__(self) -> None:
        if len(self.signals) != len(self.weights):
            raise ValueError(f"{len(self.signals)} signals and {len(self.weights)} weights; wanted as many of each")


def encode_weights(weights: RankerWeights) -> bytes:
    """The bytes of ranker/weights.json; equal weights give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(weights, order="sorted"), indent=2) + b"\n"


def decode_weights(data: bytes) -> RankerWeights:
    """The weights in the bytes of ranker/weights.json.

    Raises:
        NewerFormatError: they were written by a later Shortlist.
        FormatError: they are not weights.
    """
    try:
        weights = msgspec.json.decode(data, type=RankerWeights)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise FormatError(f"ranker/weights.json: {error}") from error
    if weights.format > RANKER_FORMAT:
        raise NewerFormatError(f"ranker/weights.json has format {weights.format}; this Shortlist reads {RANKER_FORMAT}")
    return weights
