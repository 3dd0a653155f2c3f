"""The re-ranker in one process: give it a request, get an answer. HTTP and the terminal both go through it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prediction_store.errors import NoCurrentVersionError
from prediction_store.live_items import LiveItems
from prediction_store.live_view import LiveView, LiveViews
from prediction_store.reader import Store
from reranker import announced, browse
from reranker.answer import answer
from reranker.answered import record_of
from reranker.arrivals import may_be_shown
from reranker.choice import unfit_caps
from reranker.deadline import Haste, Pace, Timer, limit_ms
from reranker.deciding import settings_digest
from reranker.errors import NotReadyError, UnopenedVersionError
from reranker.fresh import Fresh
from reranker.holdouts import NOBODY, holdout_of
from reranker.last_minutes import stored_sessions, stored_trending
from reranker.log import logger
from reranker.ranking import Ranker
from reranker.requests import check_limits, check_limits_of_many, checked, decode_deadline
from reranker.rules import Rules
from reranker.serving_log.records import AnswerRecord
from reranker.sessions.stored import NOTHING, Stored, with_stored
from reranker.shown import Shown
from reranker.signal_inputs import Circumstances
from reranker.trending_now import Trending, TrendingNow
from reranker.user_tower import UserTower
from schemas.config import Config
from schemas.errors import ShortlistError
from schemas.messages import ListAnswer, RecommendAnswer, RecommendManyRequest, RecommendRequest

if TYPE_CHECKING:
    from prediction_store.current import Acquired
    from prediction_store.reader import Version
    from schemas.record import RankedItems

log = logger(__name__)
Clock = Callable[[], float]
"""UTC epoch seconds."""
IGNORED = "ignored"
"""The signal that reads how often items were shown."""
Known = Callable[[str], Stored]
"""What is stored of a user's last minutes."""


class Reranker:
    """Answers requests from the current version of a store; each answer comes from one version, whole.

    The store belongs to the caller, who refreshes and closes it. The live facts about items are its own: `close`.
    """

    def __init__(
        self,
        store: Store,
        config: Config,
        *,
        now: Clock = time.time,
        known_of: Known | None = None,
        timer: Timer = time.perf_counter,
    ) -> None:
        self.store = store
        self.live = LiveItems(Path(config.paths.store), map_bytes=config.store.live_items_mb << 20)
        self.views = LiveViews(self.live)
        self._reported: str | None = None
        self._config = config
        self._now = now
        self.timer = timer
        self._pace = Pace()
        self.known_of = known_of
        """Tells what is known of a user beside the request."""
        self.trending_now: TrendingNow | None = None
        """Tells what is; None: nobody counts."""
        self.on_answer: Callable[[AnswerRecord], None] | None = None
        """Hears of each answer."""
        self._settings = settings_digest(config)
        self._every_rule = Rules.of(config.serve.rules)

    def recommend(
        self, request: RecommendRequest, *, deadline_ms: int | None = None, arrived: float | None = None
    ) -> RecommendAnswer:
        """The answer to a request.

        Args:
            deadline_ms: after how many milliseconds the answer is too late, see `serve.deadline_ms`, which holds where
                it is shorter.
            arrived: when the request came, by `timer`; None: now.

        Raises:
            MalformedBodyError, InvalidFieldError: a server would refuse it, too.
            NotReadyError: there is no version.
        """
        return self.recommend_checked(checked(request), deadline_ms=_checked_ms(deadline_ms), arrived=arrived)

    def recommend_checked(
        self, request: RecommendRequest, *, deadline_ms: int | None = None, arrived: float | None = None
    ) -> RecommendAnswer:
        """As `recommend`. Requires: the request comes out of a decoder, as does the deadline."""
        began = self.timer()
        check_limits(request, self._config.serve)
        haste = self._haste(deadline_ms, began if arrived is None else arrived)
        current = self.current()
        known = NOTHING if self.known_of is None else self.known_of(request.user)
        request = with_stored(request, known.session, self._config.serve.max_session_events)
        holdout = holdout_of(request.user, self._config.serve.holdouts)
        now, noted = self._now(), list[Shown]()
        note = None if self.on_answer is None else noted.append
        with current as version:
            ranker = self.ranker_of(version)
            signals = ranker.names
            live = self.live_view(version)
            arrivals = live.arrivals if may_be_shown(self._config.serve, ranker.arrivals) else ()
            # Where nothing would come of the counts, finding their items costs some microseconds each.
            is_read = self._config.sessions.impressions and (IGNORED in signals or arrivals)
            ignored = known.ignored if is_read else {}
            trending = None if self.trending_now is None else self.trending_now.of(version, arrivals)
            found = self.answer_on(
                version, request, ignored, live,
                now=now, request_id=os.urandom(16).hex(), haste=haste, holdout=holdout, trending=trending, note=note,
            )  # fmt: skip
        if haste.since >= 0:
            self._pace.was_skipped()
        elif holdout == NOBODY:
            self._pace.took(self.timer() - began)
        if self.on_answer is not None:
            k = self._config.serve.default_k if request.k is None else request.k
            self.on_answer(
                record_of(
                    request,
                    ignored,
                    found,
                    noted,
                    signals=signals,
                    k=k,
                    now=now,
                    settings=self._settings,
                    live=live.number,
                    hasty_since=haste.since,
                    holdout=holdout,
                    trending="" if trending is None else trending.number,
                )
            )
        return found

    def recommend_many(
        self, requests: Sequence[RecommendRequest], *, deadline_ms: int | None = None
    ) -> list[RecommendAnswer]:
        """The answers in the order of the requests, perhaps from several versions; raises what `recommend` does.

        `deadline_ms` is the limit of all of them together.
        """
        arrived = self.timer()
        batch = checked(RecommendManyRequest(requests=[*requests])).requests
        check_limits_of_many(batch, self._config.serve)
        limit = _checked_ms(deadline_ms)
        return [self.recommend_checked(request, deadline_ms=limit, arrived=arrived) for request in batch]

    def similar(self, item: str, k: int | str | None = None) -> ListAnswer:
        """The items nearest to an item that may be shown; raises UnknownItemError, NotReadyError."""
        with self.current() as version:
            return browse.similar(version, self.live_view(version), self.rules_of(version), item, **self._how(k))

    def popular(self, segment: str = "", k: int | str | None = None) -> ListAnswer:
        """What is popular and may be shown, in a segment or with everybody; raises NotReadyError."""
        with self.current() as version:
            return self._shown("popular", version, version.popular(segment), k)

    def trending(self, segment: str = "", k: int | str | None = None) -> ListAnswer:
        """What is popular of late and may be shown, in a segment or with everybody; raises NotReadyError."""
        with self.current() as version:
            return self._shown("trending", version, version.trending(segment), k)

    def candidates(self, user: str, k: int | str | None = None) -> ListAnswer:
        """The user's list as it is stored; raises UnknownUserError, NotReadyError, DamagedRecordError."""
        with self.current() as version:
            return browse.stored(version, user, **self._how(k))

    def current(self) -> Acquired:
        """The version that is current, for a block; raises NotReadyError."""
        if not self.store.is_ready:
            raise _not_ready(self.store)
        return self.store.acquire()

    def answer_on(
        self,
        version: Version,
        request: RecommendRequest,
        ignored: Mapping[str, int],
        live: LiveView,
        *,
        now: float,
        request_id: str,
        haste: Haste,
        holdout: str,
        trending: Trending | None,
        note: Callable[[Shown], None] | None,
    ) -> RecommendAnswer:
        """The answer of one version to a request whose session is complete.

        `ignored` are the times that items were shown without a click; `haste` says when there is no time to rank,
        `holdout` which one the user is in, `trending` what is so just now.
        Requires: the version stays open.
        """
        return answer(
            version,
            self.ranker_of(version),
            request,
            self._config.serve,
            self._config.store,
            live=live,
            rules=self.rules_of(version),
            fresh=self.fresh_of(version),
            now=now,
            request_id=request_id,
            ignored=ignored,
            haste=haste,
            holdout=holdout,
            trending=trending,
            note=note,
        )

    def live_view(self, version: Version) -> LiveView:
        """The live facts about the version's items as they are now; what cannot be read is reported, once."""
        view = self.views.view(version)
        problem = self.views.last_error
        if problem is not None or self._reported is not None:
            message = None if problem is None else str(problem)
            if message != self._reported and message is not None:
                log.error("live facts about items not read", reason=message)
            self._reported = message
        return view

    def close(self) -> None:
        """Let go of the live facts. Requires: no request is running."""
        self.live.close()

    def prepare(self, version: Version) -> None:
        """Make ready what requests to a version need, in a thread, while they still go to another.

        Requires: the version stays open until this returns.
        """
        self.views.prepare(version)
        self.fresh_of(version)
        rules = self.rules_of(version)
        if rules.rules:
            rules.keep_in(self.live_view(version), version)
        if self.trending_now is not None:
            is_wanted = may_be_shown(self._config.serve, self.ranker_of(version).arrivals)
            self.trending_now.prepare(version, self.live_view(version).arrivals if is_wanted else ())
        self.ranker_of(version).forms(version, Circumstances(self._now()), is_now=True)

    def fresh_of(self, version: Version) -> Fresh | None:
        """The version's new and trending items, found once; None: there are none, or none are wanted."""
        if (self, "fresh") not in version.kept:
            is_wanted = self._config.serve.fresh_candidates and self.ranker_of(version).tower is not None
            version.kept[self, "fresh"] = Fresh.of(version) if is_wanted else None
        found: Fresh | None = version.kept[self, "fresh"]
        return found

    def rules_of(self, version: Version) -> Rules:
        """The rules that the version has the columns for; the others are reported, once, and caps likewise.

        So are those that no arrival passes.
        """
        rules: Rules | None = version.kept.get((self, "rules"))
        if rules is None:
            rules, problems = self._every_rule.fitting(version.column)
            for problem in problems:
                log.error("a rule does not hold", version=version.name, reason=problem)
            for problem in unfit_caps(version, self._config.serve.order):
                log.error("a cap does not hold", version=version.name, reason=problem)
            if self.trending_now is not None and may_be_shown(self._config.serve, self.ranker_of(version).arrivals):
                hint = "let it name what can be announced, or set serve.arrivals = []"
                for name, column in announced.impassable(rules):
                    log.warning("no arrival passes a rule", version=version.name, rule=name, column=column, hint=hint)
            version.kept[self, "rules"] = rules
        return rules

    def ranker_of(self, version: Version) -> Ranker:
        """The version's ranker, made once."""
        ranker: Ranker | None = version.kept.get("ranker")
        if ranker is None:
            ranker = Ranker.of(version.ranker, UserTower.of(version))
            if ranker.unknown:
                log.warning("unknown signals, default weights serve", version=version.name, signals=ranker.unknown)
            version.kept["ranker"] = ranker
        return ranker

    def _haste(self, asked_ms: float | None, arrived: float) -> Haste:
        limit = limit_ms(asked_ms, self._config.serve.deadline_ms)
        return Haste() if limit is None else Haste.until(arrived + limit / 1000.0, self.timer, self._pace)

    def _shown(self, placement: str, version: Version, ranked: RankedItems, k: int | str | None) -> ListAnswer:
        rules = self.rules_of(version).at(placement)
        return browse.shown(version, self.live_view(version), rules, ranked, **self._how(k))

    def _how(self, k: int | str | None) -> dict[str, Any]:
        return {"k": browse.read_k(k, self._config.serve), "settings": self._config.store, "now": self._now()}


@contextlib.contextmanager
def open_reranker(config: Config, *, now: Clock = time.time, follows_events: bool = True) -> Iterator[Reranker]:
    """A re-ranker on the version that is current now; it does not follow later ones unless its store is refreshed.

    It answers as a server of this configuration does: with the sessions and with what is trending, by the events that
    were posted to the servers. Without `follows_events` it knows of neither.

    Requires: the process has no other one open on the same embedded sessions, for they are opened once.
    """
    with contextlib.ExitStack() as opened:
        store = opened.enter_context(contextlib.closing(Store(Path(config.paths.store), now=now)))
        known_of = opened.enter_context(stored_sessions(config, now)) if follows_events else None
        reranker = opened.enter_context(contextlib.closing(Reranker(store, config, now=now, known_of=known_of)))
        reranker.trending_now = stored_trending(config, now) if follows_events else None
        store.prepare = reranker.prepare
        store.refresh()
        yield reranker


def _checked_ms(deadline_ms: int | None) -> int | None:
    """A limit as a header would have to say it; raises InvalidFieldError."""
    return decode_deadline(None if deadline_ms is None else str(deadline_ms))


def _not_ready(store: Store) -> NotReadyError:
    """Why a store has no version to answer from, and what to do about it."""
    problem = store.last_error
    if problem is None or isinstance(problem, NoCurrentVersionError):
        return NotReadyError("no version is current", hint="shortlist cutover VERSION")
    reason = problem.message if isinstance(problem, ShortlistError) else str(problem)
    return UnopenedVersionError(f"the current version cannot be opened: {reason}", hint="shortlist versions")
