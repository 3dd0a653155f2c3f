"""Arrivals: items that came after the version was made, at the places of an answer that are kept for them.

No list holds them and no signal knows them, for a version has neither their vectors nor their columns. What is known is
that the shop has them, by the live facts, and how many users have done something with them in the last hours. So they
do not compete by score: those most wanted now stand at `serve.arrivals`, and all else goes around them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from prediction_store.columns import ID
from prediction_store.reader import CategoryColumn, TextColumn
from reranker.arrays import NO_NUMBERS, Float32
from reranker.conditions import Column, Columns
from reranker.rules import Rules
from reranker.trending_now import Trending
from schemas.live_items import ItemFacts
from schemas.messages import AnsweredItem, RecommendRequest
from schemas.rules import Order
from schemas.serving_config import Serve

if TYPE_CHECKING:
    from prediction_store.live_view import LiveView
    from prediction_store.reader import Version

ARRIVALS = "arrivals"
"""The rung of such items."""
WHY = "new since the lists were made, and what many want just now"


class Arrivals(NamedTuple):
    """What has arrived, most wanted first, and where it stands."""

    places: Sequence[int] = ()
    """From 1, ascending: one for each item."""
    items: Sequence[str] = ()
    counts: Float32 = NO_NUMBERS
    """float32[n]: how many users, the earlier for less."""
    ranks: Sequence[int] = ()
    """Their places, from 0, among all arrivals that are wanted now."""

    def around(self, position: int) -> int:
        """Where what is to stand at a position of the answer stands among all others."""
        return position - bisect_left(self.places, position)

    def order_of(self, wanted: Order) -> Order:
        """The constraints on all others."""
        if not self.places or not wanted.explore_positions:
            return wanted
        positions = [self.around(position) for position in wanted.explore_positions]
        return msgspec.structs.replace(wanted, explore_positions=positions)

    def left(self, wanted: int) -> Sequence[int]:
        """The ranks of so many others, where nothing is missing."""
        if not self.places:
            return range(1, wanted + 1)
        return [rank for rank in range(1, wanted + len(self.places) + 1) if rank not in self.places]

    def among(self, others: list[AnsweredItem], *, explain: bool) -> list[AnsweredItem]:
        """The answer: the others in their order, and these at their places, or at the end of what is shorter."""
        found = [*others]
        for place, item, count, rank in zip(self.places, self.items, self.counts.tolist(), self.ranks, strict=True):
            score = round(count, 6)
            made = AnsweredItem(item=item, rank=place, score=score, base_score=score, base_rank=rank + 1, rung=ARRIVALS)
            if explain:
                made = msgspec.structs.replace(
                    made, title="", sources=[ARRIVALS], signals={}, contributions={}, why=WHY
                )
            found.insert(place - 1, made)
        ranked = enumerate(found, 1)
        return [item if item.rank == rank else msgspec.structs.replace(item, rank=rank) for rank, item in ranked]


NONE = Arrivals()


def arrivals_of(
    version: Version,
    request: RecommendRequest,
    rules: Rules,
    serve: Serve,
    *,
    trending: Trending | None,
    live: LiveView,
    ignored: Mapping[str, int],
    wanted: int,
    now: float,
) -> Arrivals:
    """The arrivals of an answer of `wanted` items.

    What the request excludes, or the session has where that is not to be shown again, is none of them, nor what the
    rules leave out. What was shown in vain counts half as much for each time. A pin keeps its position.

    Args:
        ignored: times that items were shown without a click.
        rules: of the placement.
    """
    if trending is None or not trending.arrivals:
        return NONE
    pinned = {rule.position for rule, _ in rules.rules if rule.action == "pin"}
    places = [place for place in sorted({*serve.arrivals}) if place <= wanted and place not in pinned]
    known = {*request.exclude, *_known(request, serve)}
    facts = ((rank, live.arrivals.get(item)) for rank, item in enumerate(trending.arrivals) if item not in known)
    is_there = ((rank, found) for rank, found in facts if found is not None and _is_there(found, now))
    there = dict(is_there if rules.rules or ignored else islice(is_there, len(places)))
    ranks = [*there]
    if rules.rules and ranks:
        columns = _columns_of(version, {trending.arrivals[rank]: found for rank, found in there.items()})
        is_allowed = rules.effects(columns, np.arange(len(ranks), dtype=np.uint32)).is_allowed
        ranks = ranks if is_allowed is None else np.array(ranks)[is_allowed].tolist()
    if ignored:
        ranks.sort(key=lambda rank: -trending.arrived[rank] * 0.5 ** ignored.get(trending.arrivals[rank], 0))
    ranks = ranks[: len(places)]
    items = [trending.arrivals[rank] for rank in ranks]
    return Arrivals(places[: len(ranks)], items, trending.arrived[ranks], ranks) if ranks else NONE


def _known(request: RecommendRequest, serve: Serve) -> set[str]:
    """The session's items that are not to be shown as if they were new: lowered is as good as hidden here."""
    policies = {True: serve.bought.policy, False: serve.seen.policy}
    return {e.item for e in request.session if policies[e.event in serve.bought_events] != "allow"}


def _is_there(facts: ItemFacts, now: float) -> bool:
    return facts.available_until is msgspec.UNSET or facts.available_until > now


def _columns_of(version: Version, items: Mapping[str, ItemFacts]) -> Columns:
    """What is known of the items, in the form of the version's columns: most of it is missing."""

    def column(name: str) -> Column:
        if name == "in_stock":
            return np.ones(len(items), np.bool_)
        if name == "price":
            prices = [np.nan if facts.price is msgspec.UNSET else facts.price for facts in items.values()]
            return np.array(prices)
        found = version.column(name)
        if isinstance(found, CategoryColumn):
            return CategoryColumn(np.full(len(items), -1, np.int32), found.values)
        if isinstance(found, TextColumn):
            texts = [item.encode() if name == ID else b"" for item in items]
            return TextColumn(b"".join(texts), np.cumsum([0, *map(len, texts)]))
        return np.full(len(items), np.nan)

    return column
