"""Why an item is where it is: its signals, what each contributed, and one plain sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reranker import fallbacks
from reranker.arrays import Float32, Positions
from reranker.fresh import NEW, TRENDING
from reranker.pool import Pool
from reranker.ranking import Ranker
from reranker.signal_inputs import SignalInputs
from reranker.signals import SIGNALS, TOGETHER_ITEMS
from reranker.sources import TRENDING_NOW

if TYPE_CHECKING:
    from prediction_store.reader import Version

WORDS = {NEW: "new", TRENDING: "trending", TRENDING_NOW: "what many want just now"}
"""What a source other than the list is called in a sentence."""
NOTABLE = 0.05
"""A contribution smaller than this explains nothing."""


@dataclass(frozen=True, slots=True)
class Reason:
    """The explanation of one item."""

    sources: list[str]
    signals: dict[str, float]
    contributions: dict[str, float]
    sentence: str


def explain(
    given: SignalInputs, ranker: Ranker, extras: Sequence[tuple[str, Float32]], positions: Positions, source: str
) -> list[Reason]:
    """One reason for each of the positions in the pool; `source` is what the pool's list is called.

    `extras` are what is added to each score beside the signals, by name.
    """
    values = {signal.name: signal.values(given)[positions] for signal in SIGNALS}
    weights = {signal.name: weight for signal, weight in ranker.terms}
    reasons = []
    for row, (position, found_by) in enumerate(zip(positions.tolist(), given.pool.sources_of(positions), strict=True)):
        signals = {name: rounded(float(column[row])) for name, column in values.items()}
        contributions = {name: rounded(float(values[name][row]) * weight) for name, weight in weights.items()}
        for name, added in extras:
            if added[position]:  # rules may share a name
                contributions[name] = rounded(contributions.get(name, 0.0) + float(added[position]))
        sentence = _sentence(given, contributions, position, source=source, found_by=found_by)
        reasons.append(Reason(found_by, signals, contributions, sentence))
    return reasons


def as_stored(pool: Pool, positions: Positions, source: str, cause: str) -> list[Reason]:
    """One reason for each of the positions in a pool that nobody has ranked, for a cause."""
    return [
        Reason(sources, {}, {}, f"number {position + 1} of {source}; {cause}")
        for sources, position in zip(pool.sources_of(positions), positions.tolist(), strict=True)
    ]


def source_name(rung: str, segment: str | None) -> str:
    """What the list behind a rung is called in a sentence."""
    names = {
        fallbacks.PERSONAL: "your list",
        fallbacks.STORED_ORDER: "your list",
        fallbacks.SESSION: "what goes with this session",
        fallbacks.SEGMENT: f"what is popular in {segment}",
    }
    return names.get(rung, "what is popular")


def rounded(number: float) -> float:
    """A part of an explanation, with six decimals; never -0.0, which a negative weight makes of nothing."""
    return round(number, 6) + 0.0


def _sentence(
    given: SignalInputs, parts: dict[str, float], position: int, *, source: str, found_by: Sequence[str]
) -> str:
    listed = position < given.pool.listed
    fresh = [WORDS[name] for name in found_by if name in WORDS]
    added = f"{' and '.join(fresh)}, not on {source}" if fresh else f"not on {source}"
    base = f"number {position + 1} of {source}" if listed else added
    telling = [signal.name for signal in SIGNALS if signal.of_session or signal.name == "met_before"]
    strongest = max(telling, key=lambda name: parts.get(name, 0.0))
    if parts.get(strongest, 0.0) < NOTABLE:
        return base
    return f"{_because(given, strongest, position)}; {base}"


def _because(given: SignalInputs, strongest: str, position: int) -> str:
    if strongest == "met_before":
        return "because you looked at it before"
    if strongest in ("session_category", "session_brand"):
        column = strongest.removeprefix("session_")
        values = given.version.categories(column)
        assert values is not None, "the signal says something of it"
        return f"same {column} as in this session, {values.texts([given.pool.items[position]])[0]}"
    if strongest == "session_price":
        return "priced like what you looked at"
    cause = int(given.session.items[_cause(given, strongest, position)])
    return f"because you looked at {_title_of(given.version, cause)}"


def _cause(given: SignalInputs, strongest: str, position: int) -> int:
    """The place in the session of the item to which a candidate owes most of a signal."""
    if strongest in ("session_last", "together_last"):
        return 0
    weights, together = given.session.weights, given.version.every_together
    if strongest == "together_session" and together is not None:
        visited = given.session.items[:TOGETHER_ITEMS]
        met = np.where(together.items[visited] == given.pool.items[position], together.scores[visited], 0.0)
        return int((met.sum(axis=1) * weights[:TOGETHER_ITEMS]).argmax())
    if strongest == "session_nearest":  # as `Nearest` has it
        weights = np.minimum(weights, np.float32(1.0))
    return int((given.cosines[position] * weights).argmax())


def _title_of(version: Version, index: int) -> str:
    """An item's title, or its id where it has none."""
    return version.titles([index])[0] or version.item_ids([index])[0]
