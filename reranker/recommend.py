"""The re-ranker in one process: give it a request, get an answer. HTTP and the terminal both go through it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from prediction_store.errors import NoCurrentVersionError
from prediction_store.live_items import LiveItems
from prediction_store.live_view import LiveView, LiveViews
from prediction_store.reader import Store
from reranker.answer import answer
from reranker.errors import NotReadyError
from reranker.log import logger
from reranker.ranking import Ranker
from reranker.requests import check_limits
from reranker.user_tower import UserTower
from schemas.config import Config
from schemas.errors import ShortlistError
from schemas.messages import RecommendAnswer, RecommendRequest

if TYPE_CHECKING:
    from prediction_store.reader import Version

log = logger(__name__)
Clock = Callable[[], float]
"""UTC epoch seconds."""


class Reranker:
    """Answers requests from the current version of a store; each answer comes from one version, whole.

    The store belongs to the caller, who refreshes and closes it. The live facts about items are its own: `close`.
    """

    def __init__(self, store: Store, config: Config, *, now: Clock = time.time) -> None:
        self.store = store
        self.live = LiveItems(Path(config.paths.store), map_bytes=config.store.live_items_mb << 20)
        self.views = LiveViews(self.live)
        self._reported: str | None = None
        self._config = config
        self._now = now
        self._rankers: dict[str, Ranker] = {}

    def recommend(self, request: RecommendRequest) -> RecommendAnswer:
        """The answer to a request; raises InvalidFieldError beyond the limits, NotReadyError without a version."""
        check_limits(request, self._config.serve)
        if not self.store.is_ready:
            raise not_ready(self.store)
        with self.store.acquire() as version:
            return answer(
                version,
                self.ranker_of(version),
                request,
                self._config.serve,
                self._config.store,
                live=self.live_view(version),
                now=self._now(),
                request_id=os.urandom(16).hex(),
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

    def ranker_of(self, version: Version) -> Ranker:
        """The version's ranker, made once."""
        ranker = self._rankers.get(version.name)
        if ranker is None:
            ranker = Ranker.of(version.ranker, UserTower.of(version))
            if ranker.unknown:
                log.warning("unknown signals, default weights serve", version=version.name, signals=ranker.unknown)
            # The last few: requests may still run on the version before a cutover.
            self._rankers = {**dict(list(self._rankers.items())[-3:]), version.name: ranker}
        return ranker


@contextlib.contextmanager
def open_reranker(config: Config, *, now: Clock = time.time) -> Iterator[Reranker]:
    """A re-ranker on the version that is current now; it does not follow later ones unless its store is refreshed."""
    store = Store(Path(config.paths.store), now=now)
    reranker = Reranker(store, config, now=now)
    try:
        store.refresh()
        yield reranker
    finally:
        reranker.close()
        store.close()


def not_ready(store: Store) -> NotReadyError:
    """Why a store has no version to answer from, and what to do about it."""
    problem = store.last_error
    if problem is None or isinstance(problem, NoCurrentVersionError):
        return NotReadyError("no version is current", hint="shortlist cutover VERSION")
    reason = problem.message if isinstance(problem, ShortlistError) else str(problem)
    return NotReadyError(f"the current version cannot be opened: {reason}", hint="shortlist versions")
