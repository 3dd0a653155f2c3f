"""The journey of one request, from the stored list to the ranked answer, on one version."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import floor
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from reranker import fallbacks, reasons
from reranker.arrays import Float32, Indexes, Positions
from reranker.arrivals import ARRIVALS, Arrivals, arrivals_of
from reranker.choice import caps_of, choose, is_plain, unchanged
from reranker.deadline import Haste
from reranker.eligibility import eligible, hidden_items
from reranker.familiar import Familiar, familiar_items
from reranker.fresh import Fresh
from reranker.holdouts import NOBODY
from reranker.ordering import Caps, as_they_are
from reranker.pool import Pool
from reranker.ranking import Ranker, Scoring
from reranker.rules import Effects, Rules
from reranker.session import Session, read_session
from reranker.shown import Shown
from reranker.signal_inputs import HOUR_SECONDS, Circumstances, SignalInputs
from reranker.stored_list import StoredList, look_up
from reranker.trending_now import Trending
from reranker.user_tower import UserNow
from schemas.config import Store
from schemas.messages import AnsweredItem, RecommendAnswer, RecommendRequest
from schemas.rules import Order
from schemas.serving_config import Serve

if TYPE_CHECKING:
    from prediction_store.live_view import LiveView
    from prediction_store.reader import Version

LIST_RAN_DRY = "list_ran_dry"
"""Nothing of the user's list may be shown."""
HOLDOUT = "holdout"
"""The user is in a holdout."""
DEADLINE = "deadline"
"""There was no time to rank, whatever else there was."""

MOST = 1e9
"""Numbers beyond it, and what is no number, are told as they are."""


class _Asked(NamedTuple):
    """What is the same on every rung of one request."""

    version: Version
    ranker: Ranker
    session: Session
    at: Circumstances
    is_now: bool
    """The request is of this hour, by the server's clock."""
    rules: Rules
    arrivals: Arrivals
    familiar: Familiar
    live: LiveView
    order: Order
    caps: Caps
    """They count on from rung to rung."""
    now: float
    seed: str


class _Ranked(NamedTuple):
    """The candidates of one rung, and those of them that are shown."""

    given: SignalInputs
    scoring: Scoring | None
    """None: there was no time, and the pool keeps its own order."""
    extras: Sequence[tuple[str, Float32]]
    scores: Float32
    best: Positions
    propensities: Float32


def answer(
    version: Version,
    ranker: Ranker,
    request: RecommendRequest,
    serve: Serve,
    store: Store,
    *,
    live: LiveView,
    rules: Rules,
    fresh: Fresh | None,
    now: float,
    request_id: str,
    ignored: Mapping[str, int],
    haste: Haste,
    holdout: str,
    trending: Trending | None,
    note: Callable[[Shown], None] | None,
) -> RecommendAnswer:
    """The answer to a valid request.

    `fresh` are the version's new and trending items, `trending` what is so just now; `ignored` says how often items
    were shown to the user without a click; `haste`, before each rung, whether there is no time to rank; `holdout` is
    the user's, see `holdout_of`; `note` is told what the items are shown by, in the order of their ranks.

    Requires: the version stays open until this returns.
    """
    moment = now if request.context.time is None else request.context.time
    stored = look_up(version, request.user, store, now)
    session = read_session(request.session, version, serve, moment)
    familiar = familiar_items(
        request.session, session, version, serve, user_row=stored.user_row, tower=ranker.tower, now=moment
    )
    wanted = serve.default_k if request.k is None else request.k
    segment = request.context.segment
    if segment is None and stored.user_row is not None:
        segment = version.segment_of(stored.user_row)
    user = UserNow(ranker.tower, stored.user_row, session)

    at = _circumstances(version, request, ignored, moment, user=user, trending=trending)
    rules = rules.at(request.placement)
    to_show = trending if holdout == NOBODY else None
    arrivals = arrivals_of(
        version, request, rules, serve, trending=to_show, live=live, ignored=ignored, wanted=wanted, now=now
    )
    wanted -= len(arrivals.items)
    ranks = arrivals.left(wanted)
    asked = _Asked(
        version=version,
        ranker=ranker,
        session=session,
        at=at,
        is_now=at.hour_number == now // HOUR_SECONDS,
        rules=rules,
        arrivals=arrivals,
        familiar=familiar,
        live=live,
        order=arrivals.order_of(serve.order),
        caps=caps_of(version, serve.order),
        now=now,
        seed=request_id,
    )
    hidden = hidden_items(request, version, familiar)
    items: list[AnsweredItem] = []
    rungs: list[str] = []
    parts: list[Shown] = []
    candidates = None if holdout == fallbacks.POPULAR else stored.candidates
    if holdout != NOBODY:
        haste = Haste.as_before(0)
    ladder = fallbacks.ladder(
        version, candidates, session, segment, user=user, serve=serve, fresh=fresh, trending=trending, haste=haste
    )
    for rung, pool, is_hasty in ladder if wanted else ():
        ranked = _rank(asked, pool, hidden, wanted - len(items), is_hasty=is_hasty, is_first=not items)
        if ranked.best.size == 0:
            continue
        rungs.append(rung)
        if note is not None:
            parts.append(_numbers_of(ranked, ranker))
        found = _shown(version, pool, ranked, rung=rung, ranks=ranks[len(items) :])
        if request.explain:
            cause = "no time to rank" if holdout == NOBODY else "the user is in a holdout"
            source = reasons.source_name(rung, segment)
            found = _explained(found, ranked, ranker, source=source, cause=cause)
        items += found
        if len(items) == wanted:
            break
        hidden = np.concatenate([hidden, pool.items[ranked.best]])

    if arrivals.items:
        items = arrivals.among(items, explain=request.explain)
        parts = [Shown.with_arrivals(parts, arrivals, len(ranker.names))] if note is not None else parts
    if note is not None:
        for part in parts:
            note(part)
    otherwise = ARRIVALS if arrivals.items else fallbacks.EMPTY
    return RecommendAnswer(
        items=items,
        version=version.name,
        age_seconds=stored.age_seconds,
        rung=rungs[0] if rungs else otherwise,
        topped_up_from=rungs[1:],
        reason=HOLDOUT if holdout != NOBODY else _reason(stored, rungs, haste, wanted),
        stale=stored.is_stale,
        ignored_events=session.ignored,
        request_id=request_id,
    )


def _circumstances(
    version: Version,
    request: RecommendRequest,
    ignored: Mapping[str, int],
    moment: float,
    *,
    user: UserNow,
    trending: Trending | None,
) -> Circumstances:
    counts = {index: times for item, times in ignored.items() if (index := version.item_index(item)) is not None}
    return Circumstances(moment, request.context.device or "", counts, user, trending)


def _rank(asked: _Asked, pool: Pool, hidden: Indexes, k: int, *, is_hasty: bool, is_first: bool) -> _Ranked:
    """The best k items of a pool that may be shown; in the pool's own order where there is no time to rank."""
    given = SignalInputs(asked.version, pool, asked.session, asked.at)
    scoring = None if is_hasty else Scoring(asked.ranker, given, is_now=asked.is_now)
    effects = asked.rules.effects(partial(asked.live.column, asked.version), pool.items)
    extras = [] if is_hasty else [*_extras(pool, effects, asked.familiar)]
    boosts = [added for _, added in extras]
    allowed = eligible(pool.items, hidden, asked.live, asked.now)
    if effects.is_allowed is not None:
        allowed &= effects.is_allowed
    order = unchanged(asked.order) if is_hasty else asked.order
    pins = [(asked.arrivals.around(place), holds) for place, holds in effects.pins] if is_first else ()
    if scoring is not None and is_plain(order, pins):
        scores, best = scoring.best(allowed, k, boosts=boosts)
        return _Ranked(given, scoring, extras, scores, best, as_they_are(best).propensities)
    scores = pool.base_scores if scoring is None else scoring.scores(allowed, boosts=boosts)
    chosen = choose(given, scores, allowed, k, order, caps=asked.caps, pins=pins, seed=asked.seed, is_first=is_first)
    return _Ranked(given, scoring, extras, scores, chosen.positions, chosen.propensities)


def _reason(stored: StoredList, rungs: Sequence[str], haste: Haste, wanted: int) -> str | None:
    if haste.since >= 0:
        return DEADLINE
    if wanted and stored.candidates is not None and (not rungs or rungs[0] != fallbacks.PERSONAL):
        return LIST_RAN_DRY
    return stored.reason


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


def _explained(
    found: list[AnsweredItem], ranked: _Ranked, ranker: Ranker, *, source: str, cause: str
) -> list[AnsweredItem]:
    """The items with their reasons; where nothing was ranked, for this cause."""
    given, best = ranked.given, ranked.best
    titles = given.version.titles(given.pool.items[best])
    if ranked.scoring is None:
        why = reasons.as_stored(given.pool, best, source, cause)
    else:
        why = reasons.explain(given, ranker, ranked.extras, best, source)
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
