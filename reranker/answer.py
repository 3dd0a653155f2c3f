"""The journey of one request, from the stored list to the ranked answer, on one version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from reranker import fallbacks
from reranker.arrivals import ARRIVALS, arrivals_of
from reranker.choice import caps_of
from reranker.deadline import Haste
from reranker.eligibility import hidden_items
from reranker.familiar import familiar_items
from reranker.filling import Asked, fill
from reranker.fresh import Fresh
from reranker.holdouts import NOBODY
from reranker.ranking import Ranker
from reranker.rules import Rules
from reranker.session import read_session
from reranker.shown import Shown
from reranker.signal_inputs import HOUR_SECONDS, Circumstances
from reranker.stored_list import StoredList, look_up
from reranker.trending_now import Trending
from reranker.user_tower import UserNow
from schemas.config import Store
from schemas.messages import RecommendAnswer, RecommendRequest
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
    caps = caps_of(version, live, serve.order)
    arriving = arrivals_of(
        version, request, rules, serve,
        trending=to_show, live=live, ignored=ignored, wanted=wanted, now=now, score=ranker.arrivals, caps=caps,
    )  # fmt: skip
    asked = Asked(
        version=version,
        ranker=ranker,
        session=session,
        at=at,
        is_now=at.hour_number == now // HOUR_SECONDS,
        rules=rules,
        arriving=arriving,
        familiar=familiar,
        live=live,
        order=serve.order,
        caps=caps,
        now=now,
        seed=request_id,
        explain=request.explain,
        segment=segment,
        holdout=holdout,
    )
    candidates = None if holdout == fallbacks.POPULAR else stored.candidates
    if holdout != NOBODY:
        haste = Haste.as_before(0)
    ladder = fallbacks.ladder(
        version, candidates, session, segment, user=user, serve=serve, fresh=fresh, trending=trending, haste=haste
    )
    filled = fill(asked, ladder, hidden_items(request, version, familiar), wanted, is_noted=note is not None)
    if note is not None:
        for part in filled.parts:
            note(part)
    rungs, is_only_arrivals = filled.rungs, len(filled.arrivals.places) == wanted
    otherwise = ARRIVALS if filled.arrivals.places else fallbacks.EMPTY
    return RecommendAnswer(
        items=filled.items,
        version=version.name,
        age_seconds=stored.age_seconds,
        rung=rungs[0] if rungs else otherwise,
        topped_up_from=rungs[1:],
        reason=HOLDOUT if holdout != NOBODY else _reason(stored, rungs, haste, is_only_arrivals=is_only_arrivals),
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


def _reason(stored: StoredList, rungs: Sequence[str], haste: Haste, *, is_only_arrivals: bool) -> str | None:
    if haste.since >= 0:
        return DEADLINE
    if not is_only_arrivals and stored.candidates is not None and (not rungs or rungs[0] != fallbacks.PERSONAL):
        return LIST_RAN_DRY
    return stored.reason
