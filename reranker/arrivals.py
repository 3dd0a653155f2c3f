"""Arrivals: items that came after the version was made, at places of an answer that all others go around.

No list holds them and no signal knows them, for a version has neither their vectors nor their columns. What is known is
that the shop has them, by the live facts, and how many users have done something with them in the last hours. Those
most wanted now stand at the positions that `serve.arrivals` keeps for them; or where their scores put them, which go by
these counts and were learned beside the weights of the signals (`jobs/arrival_score.py`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
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
from schemas.ranker import ArrivalScore
from schemas.rules import Order
from schemas.serving_config import Serve

if TYPE_CHECKING:
    from prediction_store.live_view import LiveView
    from prediction_store.reader import Version

ARRIVALS = "arrivals"
"""The rung of such items."""
LEARNED = "learned"
"""`serve.arrivals`: their scores say where they stand."""
CONSIDERED = 50
"""Of those most wanted, where scores decide."""
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
    scores: Float32 = NO_NUMBERS
    """float32[n]: the counts where places are kept."""
    is_scored: bool = False
    """Their scores are what put them there."""

    def placed(self, best: Callable[[], Float32] | None) -> Arrivals:
        """As `Competing.placed`: they have their places."""
        return self

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
        numbers = zip(self.items, self.scores.tolist(), self.counts.tolist(), self.ranks, strict=True)
        for place, (item, score, count, rank) in zip(self.places, numbers, strict=True):
            made = AnsweredItem(
                item=item,
                rank=place,
                score=round(score, 6),
                base_score=round(count, 6),
                base_rank=rank + 1,
                rung=ARRIVALS,
            )
            if explain:
                parts = {ARRIVALS: made.score} if self.is_scored else {}
                made = msgspec.structs.replace(
                    made, title="", sources=[ARRIVALS], signals={}, contributions=parts, why=WHY
                )
            found.insert(place - 1, made)
        ranked = enumerate(found, 1)
        return [item if item.rank == rank else msgspec.structs.replace(item, rank=rank) for rank, item in ranked]


NONE = Arrivals()


class Competing(NamedTuple):
    """Arrivals that stand where their scores put them."""

    items: Sequence[str]
    counts: Float32
    worth: Float32
    """float32[n]: the counts as they score: what was shown in vain counts for less."""
    hours: Float32
    """float32[n]: since the first user wanted them."""
    ranks: Sequence[int]
    others: Collection[int]
    """The positions that are not for them."""
    wanted: int
    """Length of the answer."""
    scores: Float32 = NO_NUMBERS
    """float32[n]: highest first, see `by`."""

    def by(self, score: ArrivalScore) -> Competing:
        """With their scores, highest first; of equal ones what more users want."""
        scores = scores_of(self.worth, self.hours, score)
        order = np.argsort(-scores, kind="stable")
        items, ranks = ([values[place] for place in order.tolist()] for values in (self.items, self.ranks))
        counts, worth, hours, scores = (values[order] for values in (self.counts, self.worth, self.hours, scores))
        return Competing(items, counts, worth, hours, ranks, self.others, self.wanted, scores)

    def placed(self, best: Callable[[], Float32] | None) -> Arrivals:
        """Each before the first of the others that scores less.

        Args:
            best: float32[m], the scores of the best of all others, highest first, as many as are wanted; None: nobody
                had the time to score them, and there are no arrivals.
        """
        if best is None:
            return NONE
        places: list[int] = []
        for number, better in enumerate(np.searchsorted(-best(), -self.scores, side="right").tolist()):
            place = max(better + number + 1, places[-1] + 1 if places else 1)
            while place in self.others:
                place += 1
            if place > self.wanted:
                break
            places.append(place)
        found = slice(len(places))
        return Arrivals(places, self.items[found], self.counts[found], self.ranks[found], self.scores[found], True)


def scores_of(counts: Float32, hours: Float32, score: ArrivalScore) -> Float32:
    """float32[n]: what arrivals score, by how many users want them and for how long some have."""
    found = score.base + score.of_count * np.log1p(counts) + score.of_age * np.log1p(hours)
    scores: Float32 = found.astype(np.float32)
    return scores


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
    score: ArrivalScore | None,
) -> Arrivals | Competing:
    """The arrivals of an answer of `wanted` items.

    What the request excludes, or the session has where that is not to be shown again, is none of them, nor what the
    rules leave out. What was shown in vain counts half as much for each time. A pin keeps its position.

    Args:
        ignored: times that items were shown without a click.
        rules: of the placement.
        score: where `serve.arrivals` is "learned", what was; None: nothing was, and there are no arrivals.
    """
    is_learned = serve.arrivals == LEARNED
    if trending is None or not trending.arrivals or (is_learned and score is None):
        return NONE
    pinned = {rule.position for rule, _ in rules.rules if rule.action == "pin"}
    places = sorted({place for place in serve.kept_for_arrivals if place <= wanted} - pinned)
    most = CONSIDERED if is_learned else len(places)
    known = {*request.exclude, *_known(request, serve)}
    facts = ((rank, live.arrivals.get(item)) for rank, item in enumerate(trending.arrivals) if item not in known)
    is_there = ((rank, found) for rank, found in facts if found is not None and _is_there(found, now))
    there = dict(is_there if rules.rules or ignored else islice(is_there, most))
    ranks = [*there]
    if rules.rules and ranks:
        columns = _columns_of(version, {trending.arrivals[rank]: found for rank, found in there.items()})
        is_allowed = rules.effects(columns, np.arange(len(ranks), dtype=np.uint32)).is_allowed
        ranks = ranks if is_allowed is None else np.array(ranks)[is_allowed].tolist()
    worth = trending.arrived
    if ignored:
        worth = worth * np.array([0.5 ** ignored.get(item, 0) for item in trending.arrivals], np.float32)
        ranks.sort(key=lambda rank: -worth[rank])
    ranks = ranks[:most]
    if not ranks:
        return NONE
    items, counts = [trending.arrivals[rank] for rank in ranks], trending.arrived[ranks]
    if score is None or not is_learned:
        return Arrivals(places[: len(ranks)], items, counts, ranks, counts)
    others = pinned.union(serve.order.explore_positions)
    hours = (np.maximum(now - trending.since[ranks], 0.0) / 3600.0).astype(np.float32)
    return Competing(items, counts, worth[ranks], hours, ranks, others, wanted).by(score)


def _known(request: RecommendRequest, serve: Serve) -> set[str]:
    """The session's items that are not to be shown as if they were new: lowered is as good as hidden here."""
    bought = {event.item for event in request.session if event.event in serve.bought_events}
    seen = {event.item for event in request.session} - bought
    return (seen if serve.seen.policy != "allow" else set()) | (bought if serve.bought.policy != "allow" else set())


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
