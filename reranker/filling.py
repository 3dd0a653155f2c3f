"""The items of an answer: from one rung after the other until there are enough, and arrivals among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from math import floor
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from reranker import reasons
from reranker.arrays import NO_NUMBERS, Float32, Indexes, Mask, Positions
from reranker.arrivals import Arrivals, Competing
from reranker.caps import Caps
from reranker.choice import choose, is_plain, unchanged
from reranker.eligibility import eligible
from reranker.familiar import Familiar
from reranker.holdouts import NOBODY
from reranker.ordering import as_they_are
from reranker.pool import Pool
from reranker.ranking import Ranker, Scoring, top
from reranker.rules import Effects, Rules
from reranker.session import Session
from reranker.shown import Shown
from reranker.signal_inputs import Circumstances, SignalInputs
from schemas.messages import AnsweredItem
from schemas.rules import Order

if TYPE_CHECKING:
    from prediction_store.live_view import LiveView
    from prediction_store.reader import Version

MOST = 1e9
"""Numbers beyond it, and what is no number, are told as they are."""


class Asked(NamedTuple):
    """What is the same on every rung of one request."""

    version: Version
    ranker: Ranker
    session: Session
    at: Circumstances
    is_now: bool
    """The request is of this hour, by the server's clock."""
    rules: Rules
    arriving: Arrivals | Competing
    familiar: Familiar
    live: LiveView
    order: Order
    caps: Caps
    """They count on from rung to rung."""
    now: float
    seed: str
    explain: bool
    segment: str | None
    holdout: str


class Filled(NamedTuple):
    """The items of an answer."""

    items: list[AnsweredItem]
    rungs: list[str]
    """That gave some of them, but for arrivals."""
    parts: list[Shown]
    """Empty where nobody wants to know."""
    arrivals: Arrivals


def fill(
    asked: Asked, ladder: Iterable[tuple[str, Pool, bool]], hidden: Indexes, wanted: int, *, is_noted: bool
) -> Filled:
    """So many items, from as many rungs as it takes, with the arrivals at their places."""
    version, ranker = asked.version, asked.ranker
    items: list[AnsweredItem] = []
    rungs: list[str] = []
    parts: list[Shown] = []
    arrivals: Arrivals | None = None
    for rung, pool, is_hasty in ladder:
        ranked = _rank(asked, pool, hidden, wanted - len(items), arrivals, is_hasty=is_hasty)
        is_full = len(ranked.arrivals.places) == wanted and bool(ranked.allowed.any())
        if arrivals is None and (ranked.best.size or is_full):
            arrivals = ranked.arrivals
            wanted -= len(arrivals.places)
            ranks = arrivals.left(wanted)
        if ranked.best.size:
            rungs.append(rung)
            if is_noted:
                parts.append(_numbers_of(ranked, ranker))
            found = _shown(version, pool, ranked, rung=rung, ranks=ranks[len(items) :])
            items += _explained(found, ranked, asked, rung) if asked.explain else found
        if len(items) == wanted:
            break
        hidden = np.concatenate([hidden, pool.items[ranked.best]])
    if arrivals is None:  # there is nothing else
        arrivals = asked.arriving.placed(lambda: NO_NUMBERS)
    if arrivals.places:
        items = arrivals.among(items, explain=asked.explain)
        parts = [Shown.with_arrivals(parts, arrivals, len(ranker.names))] if is_noted else parts
    return Filled(items, rungs, parts, arrivals)


class _Ranked(NamedTuple):
    """The candidates of one rung, and those of them that are shown."""

    given: SignalInputs
    scoring: Scoring | None
    """None: there was no time, and the pool keeps its own order."""
    allowed: Mask
    extras: Sequence[tuple[str, Float32]]
    scores: Float32
    best: Positions
    propensities: Float32
    arrivals: Arrivals
    """Of the whole answer."""


def _rank(asked: Asked, pool: Pool, hidden: Indexes, k: int, arrivals: Arrivals | None, *, is_hasty: bool) -> _Ranked:
    """The best k items of a pool that may be shown; in the pool's own order where there is no time to rank.

    `arrivals` have their places in the answer; None: it begins with this pool, and k counts them, too.
    """
    given = SignalInputs(asked.version, pool, asked.session, asked.at)
    scoring = None if is_hasty else Scoring(asked.ranker, given, is_now=asked.is_now)
    effects = asked.rules.effects(partial(asked.live.column, asked.version), pool.items, kept=asked.live.kept)
    extras = [] if is_hasty else [*_extras(pool, effects, asked.familiar)]
    boosts = [added for _, added in extras]
    allowed = eligible(pool.items, hidden, asked.live, asked.now)
    if effects.is_allowed is not None:
        allowed &= effects.is_allowed
    is_first = arrivals is None
    pins = effects.pins if is_first else ()
    if scoring is not None and is_plain(asked.order, pins):
        scores, best = scoring.best(allowed, k, boosts=boosts)
        if arrivals is None:
            arrivals = asked.arriving.placed(lambda: scores[best])
            best = best[: k - len(arrivals.places)]
        return _Ranked(given, scoring, allowed, extras, scores, best, as_they_are(best).propensities, arrivals)
    scores = pool.base_scores if scoring is None else scoring.scores(allowed, boosts=boosts)
    if arrivals is None:
        arrivals = asked.arriving.placed(None if is_hasty else lambda: scores[_best(asked, pool, scores, allowed, k)])
        k -= len(arrivals.places)
        asked.caps.begin_with(arrivals.shown.facts)
    order = arrivals.order_of(asked.order)
    chosen = choose(
        given, scores, allowed, k, unchanged(order) if is_hasty else order,
        caps=asked.caps, pins=[(arrivals.around(place), holds) for place, holds in pins],
        seed=asked.seed, is_first=is_first,
    )  # fmt: skip
    return _Ranked(given, scoring, allowed, extras, scores, chosen.positions, chosen.propensities, arrivals)


def _best(asked: Asked, pool: Pool, scores: Float32, allowed: Mask, k: int) -> Positions:
    """What arrivals compete with: the best, as far as the caps let them where nothing else is shown."""
    if not asked.order.caps:
        return top(scores, allowed, k)
    caps, best = asked.caps.anew(), top(scores, allowed, scores.size)
    return best[caps.add_first(pool.items[best].tolist(), k)]


def _extras(pool: Pool, effects: Effects, familiar: Familiar) -> Iterator[tuple[str, Float32]]:
    """What is added to the scores of the signals, float32[n], by the name that explains it."""
    for name, added in effects.boosts:
        yield f"rule {name}", added
    for lowered in familiar.lowered:
        yield f"discount {lowered.how}", lowered.at(pool.items)


def _numbers_of(ranked: _Ranked, ranker: Ranker) -> Shown:
    best, scoring, pool = ranked.best, ranked.scoring, ranked.given.pool
    not_computed = np.full((best.size, len(ranker.names)), np.nan, np.float32)
    added = sum((part[best] for _, part in ranked.extras), np.zeros(best.size, np.float32)) if ranked.extras else None
    return Shown(
        ranked.scores[best],
        pool.base_scores[best],
        not_computed if scoring is None else scoring.values(best),
        ranked.propensities,
        added,
        pool.items.size,
    )


def _shown(version: Version, pool: Pool, ranked: _Ranked, *, rung: str, ranks: Sequence[int]) -> list[AnsweredItem]:
    scores, best = ranked.scores, ranked.best
    ids = version.item_ids(pool.items[best])
    numbers = zip(ids, scores[best].tolist(), pool.base_scores[best].tolist(), best.tolist(), strict=True)
    # Six digits are finer than float32, and shorter to send; `round` takes five times as long.
    return [
        AnsweredItem(
            item=item,
            rank=rank,
            score=floor(score * 1e6 + 0.5) / 1e6 if -MOST < score < MOST else score,
            base_score=floor(base * 1e6 + 0.5) / 1e6 if -MOST < base < MOST else base,
            base_rank=position + 1,
            rung=rung,
        )
        for rank, (item, score, base, position) in zip(ranks, numbers, strict=False)
    ]


def _explained(found: list[AnsweredItem], ranked: _Ranked, asked: Asked, rung: str) -> list[AnsweredItem]:
    """The items with their reasons."""
    given, best = ranked.given, ranked.best
    titles = given.version.titles(given.pool.items[best])
    source = reasons.source_name(rung, asked.segment)
    if ranked.scoring is None:
        cause = "no time to rank" if asked.holdout == NOBODY else "the user is in a holdout"
        why = reasons.as_stored(given.pool, best, source, cause)
    else:
        why = reasons.explain(given, asked.ranker, ranked.extras, best, source)
    return [
        msgspec.structs.replace(
            item,
            title=title,
            sources=reason.sources,
            signals=reason.signals,
            contributions=reason.contributions,
            why=reason.sentence,
        )
        for item, title, reason in zip(found, titles, why, strict=True)
    ]
