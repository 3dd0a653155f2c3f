"""The journey of one request, from the stored list to the ranked answer, on one version."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from math import floor
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from prediction_store.errors import ShardNotHeldError
from prediction_store.ttl import state_of
from reranker import fallbacks, reasons
from reranker.arrays import Float32, Positions
from reranker.choice import caps_of, choose, is_plain, unchanged
from reranker.deadline import Haste
from reranker.eligibility import eligible, hidden_items
from reranker.familiar import Familiar, familiar_items
from reranker.fresh import Fresh
from reranker.ordering import as_they_are
from reranker.pool import Pool
from reranker.ranking import Ranker, Scoring
from reranker.rules import Effects, Rules
from reranker.session import read_session
from reranker.signal_inputs import HOUR_SECONDS, Circumstances, SignalInputs
from reranker.user_tower import UserNow
from schemas.config import Store
from schemas.errors import DamagedRecordError
from schemas.messages import AnsweredItem, RecommendAnswer, RecommendRequest
from schemas.record import Candidates
from schemas.serving_config import Serve

if TYPE_CHECKING:
    from prediction_store.live_view import LiveView
    from prediction_store.reader import Version

UNKNOWN_USER, EXPIRED_RECORD, DAMAGED_RECORD = "unknown_user", "expired_record", "damaged_record"
OTHER_HOST = "other_host"
"""The user's shard is on other hosts only: whoever sent the request here sent it to the wrong one."""
LIST_RAN_DRY = "list_ran_dry"
"""Nothing of the user's list may be shown."""
DEADLINE = "deadline"
"""There was no time to rank, whatever else there was."""

MOST = 1e9
"""Numbers beyond it, and what is no number, are told as they are."""


class Stored(NamedTuple):
    """What the store has for the user, and how old it is."""

    candidates: Candidates | None
    user_row: int | None
    """The user's row in the version; None: not known there."""
    reason: str | None
    """Why there are no candidates."""
    age_seconds: int
    is_stale: bool


class Shown(NamedTuple):
    """The numbers of the items that one rung gave to an answer, in the order of their rank."""

    scores: Float32
    base_scores: Float32
    signals: Float32
    """float32[n, signals]: the values of those that have a weight, see `Ranker.names`. NaN: not computed."""
    propensities: Float32
    added: Float32 | None
    """float32[n]: what rules and discounts have added to the score; None: there were none."""
    candidates: int
    """Number of items that the rung ranked."""


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
    shown: Mapping[str, int] = MappingProxyType({}),
    haste: Haste | None = None,
    note: Callable[[Shown], None] | None = None,
) -> RecommendAnswer:
    """The answer to a valid request.

    `fresh` are the version's new and trending items; `shown` says how often items were shown to the user without a
    click; `haste`, before each rung, whether there is no time to rank; `note` is told what each rung gives the answer.

    Requires: the version stays open until this returns.
    """
    moment = now if request.context.time is None else request.context.time
    stored = look_up(version, request.user, store, now)
    session = read_session(request.session, version, serve, moment)
    familiar = familiar_items(
        request.session, session, version, serve, user_row=stored.user_row, tower=ranker.tower, now=moment
    )
    hidden = hidden_items(request, version, familiar)
    wanted = serve.default_k if request.k is None else request.k
    segment = request.context.segment
    if segment is None and stored.user_row is not None:
        segment = version.segment_of(stored.user_row)

    counts = {index: times for item, times in shown.items() if (index := version.item_index(item)) is not None}
    rules, caps = rules.at(request.placement), caps_of(version, serve.order)
    user = UserNow(ranker.tower, stored.user_row, session)
    at = Circumstances(moment, request.context.device or "", counts, user)
    is_now = at.hour_number == now // HOUR_SECONDS

    haste = Haste() if haste is None else haste
    items: list[AnsweredItem] = []
    rungs: list[str] = []
    for rung, pool, is_hasty in fallbacks.ladder(
        version,
        stored.candidates,
        session,
        segment,
        user=user,
        serve=serve,
        fresh=fresh,
        haste=haste,
    ):
        given = SignalInputs(version, pool, session, at)
        scoring = None if is_hasty else Scoring(ranker, given, is_now=is_now)
        effects = rules.effects(partial(live.column, version), pool.items)
        extras = [] if is_hasty else [*_extras(pool, effects, familiar)]
        allowed = eligible(pool.items, hidden, live, now)
        if effects.is_allowed is not None:
            allowed &= effects.is_allowed
        pins = () if items else effects.pins
        k = wanted - len(items)
        order = unchanged(serve.order) if is_hasty else serve.order
        boosts = [added for _, added in extras]
        if scoring is not None and is_plain(order, pins):
            scores, best = scoring.best(allowed, k, boosts=boosts)
            propensities = as_they_are(best).propensities
        else:
            scores = pool.base_scores if scoring is None else scoring.scores(allowed, boosts=boosts)
            best, propensities = choose(
                given, scores, allowed, k, order, counts=caps, pins=pins, seed=request_id, is_first=not items
            )
        if best.size == 0:
            continue
        rungs.append(rung)
        if note is not None:
            signals = _not_computed(best, ranker) if scoring is None else scoring.values(best)
            added = sum((part[best] for _, part in extras), np.zeros(best.size, np.float32)) if extras else None
            note(Shown(scores[best], pool.base_scores[best], signals, propensities, added, pool.items.size))
        found = _shown(version, pool, scores, best, rung=rung, first_rank=len(items) + 1)
        if request.explain:
            source = reasons.source_name(rung, segment)
            found = _explained(found, given, None if is_hasty else ranker, extras, best, source=source)
        items += found
        if len(items) == wanted:
            break
        hidden = np.concatenate([hidden, pool.items[best]])

    return RecommendAnswer(
        items=items,
        version=version.name,
        age_seconds=stored.age_seconds,
        rung=rungs[0] if rungs else fallbacks.EMPTY,
        topped_up_from=rungs[1:],
        reason=_reason(stored, rungs, haste),
        stale=stored.is_stale,
        ignored_events=session.ignored,
        request_id=request_id,
    )


def look_up(version: Version, user: str, store: Store, now: float) -> Stored:
    """The user's stored candidates, or why there are none to use; a damaged or absent record is as good as none."""
    try:
        candidates, reason = version.read(user), UNKNOWN_USER
    except DamagedRecordError:
        candidates, reason = None, DAMAGED_RECORD
    except ShardNotHeldError:
        candidates, reason = None, OTHER_HOST
    manifest = version.manifest
    if candidates is not None:
        fresh = state_of(candidates.made_at, manifest.expires_at, now, store)
        if not fresh.is_expired or store.expired == "serve_stale":
            return Stored(candidates, candidates.user_row, None, fresh.age_seconds, fresh.is_expired)
        reason = EXPIRED_RECORD
    # What is nobody's own has no limit but the version's.
    fresh = state_of(manifest.made_at, manifest.expires_at, now, store)
    return Stored(
        None, candidates.user_row if candidates else None, reason, fresh.age_seconds, now >= manifest.expires_at
    )


def _reason(stored: Stored, rungs: Sequence[str], haste: Haste) -> str | None:
    if haste.since >= 0:
        return DEADLINE
    if stored.candidates is not None and (not rungs or rungs[0] != fallbacks.PERSONAL):
        return LIST_RAN_DRY
    return stored.reason


def _extras(pool: Pool, effects: Effects, familiar: Familiar) -> Iterator[tuple[str, Float32]]:
    """What is added to the scores of the signals, float32[n], by the name that explains it."""
    for name, added in effects.boosts:
        yield f"rule {name}", added
    for lowered in familiar.lowered:
        yield f"discount {lowered.how}", lowered.at(pool.items)


def _not_computed(best: Positions, ranker: Ranker) -> Float32:
    return np.full((best.size, len(ranker.names)), np.nan, np.float32)


def _shown(
    version: Version, pool: Pool, scores: Float32, best: Positions, *, rung: str, first_rank: int
) -> list[AnsweredItem]:
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
        for rank, (item, score, base, position) in enumerate(numbers, first_rank)
    ]


def _explained(
    shown: list[AnsweredItem],
    given: SignalInputs,
    ranker: Ranker | None,
    extras: Sequence[tuple[str, Float32]],
    best: Positions,
    *,
    source: str,
) -> list[AnsweredItem]:
    titles = given.version.column("title").texts(given.pool.items[best])
    if ranker is None:
        found = reasons.as_stored(given.pool, best, source)
    else:
        found = reasons.explain(given, ranker, extras, best, source)
    return [
        msgspec.structs.replace(
            item,
            title=title,
            sources=reason.sources,
            signals=reason.signals,
            contributions=reason.contributions,
            why=reason.sentence,
        )
        for item, title, reason in zip(shown, titles, found, strict=True)
    ]
