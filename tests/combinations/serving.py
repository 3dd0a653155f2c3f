"""Answers from a world: made in this process, as a server makes them and as its log makes them again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from combinations.draws import Asked, Settings
from combinations.worlds import World, damage
from prediction_store.live_items import LiveItems
from prediction_store.reader import Store, Version
from reranker import eligibility, ranking, sources, standing, user_tower
from reranker.answered import record_of
from reranker.deadline import Haste
from reranker.deciding import settings_digest
from reranker.recommend import Reranker
from reranker.replay import differences, made_again
from reranker.serving_log.records import AnswerRecord
from reranker.shown import Shown
from reranker.trending_now import Trending
from schemas.live_items import ItemChange
from schemas.messages import RecommendAnswer

USE_THE_KERNEL = (eligibility, ranking, sources, standing, user_tower)


class Answered(NamedTuple):
    """An answer, and what the log has of it."""

    answer: RecommendAnswer
    record: AnswerRecord


class Serving:
    """A re-ranker on the version of a world."""

    def __init__(self, world: World, settings: Settings, version: Version, reranker: Reranker) -> None:
        self.world, self.settings = world, settings
        self._version, self._reranker = version, reranker

    def answer(self, asked: Asked) -> Answered:
        """The answer of `Reranker.answer_on`, and its record."""
        noted: list[Shown] = []
        reranker, version = self._reranker, self._version
        trending = None if asked.trending is None else Trending.of(version, asked.trending)
        haste, live = Haste.as_before(asked.since), reranker.live_view(version)
        answer = reranker.answer_on(
            version,
            asked.request,
            asked.ignored,
            live,
            now=asked.now,
            request_id=asked.request_id,
            haste=haste,
            holdout=asked.holdout,
            trending=trending,
            note=noted.append,
        )
        config = self.settings.config
        record = record_of(
            asked.request,
            asked.ignored,
            answer,
            noted,
            signals=reranker.ranker_of(version).names,
            k=config.serve.default_k if asked.request.k is None else asked.request.k,
            now=asked.now,
            settings=settings_digest(config),
            live=live.number,
            hasty_since=haste.since,
            holdout=asked.holdout,
            trending="" if trending is None else trending.number,
        )
        return Answered(answer, record)

    def weights(self) -> list[float]:
        """Of the signals in a record."""
        return self._reranker.ranker_of(self._version).weights

    def replayed(self, record: AnswerRecord, asked: Asked) -> list[str]:
        """How the answer that a log's bytes lead to differs from the one in them."""
        read = msgspec.msgpack.decode(msgspec.msgpack.encode(record), type=AnswerRecord)
        digest = settings_digest(self.settings.config)
        live = self._reranker.live_view(self._version)
        made = made_again(self._reranker, self._version, read, live, trending=asked.trending, settings=digest)
        return [*differences(read, made)]

    @contextlib.contextmanager
    def without_kernel(self) -> Iterator[None]:
        """All loops in numpy, for a block."""
        before = [module.is_compiled for module in USE_THE_KERNEL]
        with self.without_what_is_kept():
            try:
                for module in USE_THE_KERNEL:
                    module.is_compiled = False
                yield
            finally:
                for module, is_compiled in zip(USE_THE_KERNEL, before, strict=True):
                    module.is_compiled = is_compiled

    @contextlib.contextmanager
    def without_what_is_kept(self) -> Iterator[None]:
        """As if this were the first request, for a block."""
        kept, self._version.kept = self._version.kept, {}
        try:
            yield
        finally:
            self._version.kept = kept

    @contextlib.contextmanager
    def hidden(self, item: str) -> Iterator[None]:
        """The item is hidden within the day, for a block."""
        self._change(item, True)
        try:
            yield
        finally:
            self._change(item, self.world.live.get(item, {}).get("hidden"))

    def _change(self, item: str, hidden: bool | None) -> None:
        self._reranker.live.set([ItemChange(item=item, hidden=hidden)], now=1.0)


def set_live_facts(world: World) -> None:
    """Tell a store what has happened within the day."""
    with LiveItems(world.root) as live:
        live.set([ItemChange(item=item, **facts) for item, facts in world.live.items()], now=float(world.seed))


@contextlib.contextmanager
def opened(world: World) -> Iterator[Version]:
    """The version of a world."""
    with Version.open(world.root, world.version) as version:
        damage(world)
        yield version


@contextlib.contextmanager
def serving(world: World, settings: Settings, version: Version) -> Iterator[Serving]:
    """A re-ranker with some settings."""
    with (
        contextlib.closing(Store(world.root)) as store,
        contextlib.closing(Reranker(store, settings.config)) as reranker,
    ):
        yield Serving(world, settings, version, reranker)
