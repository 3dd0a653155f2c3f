"""What weights were learned from is kept with them, so that what is served by them can be held against it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import serving_shop
from asgi_client import AsgiClient
from serving_shop import MADE_AT, N_ITEMS, TASTES, Shop

from jobs.learned_from import of_log, of_sessions
from jobs.moments import Moments, Stage, Visit
from jobs.ranking_fit import Lists
from prediction_store.reader import Version
from reranker.app import create_app
from reranker.serving_log.reading import read_log
from reranker.serving_log.records import AnswerRecord
from reranker.signals import SIGNALS
from reranker.stability import LOOK, drift
from schemas.messages import SessionEvent
from schemas.ranker import RankerWeights
from schemas.serving_config import Serve

NAMES = [signal.name for signal in SIGNALS]
WEIGHTS = RankerWeights(NAMES, [0.1 + 0.01 * place for place in range(len(NAMES))], "space")
MOMENTS = 240


def sessions(seed: int) -> Iterator[list[Visit]]:
    """Pairs of items, some minutes apart, of the users that have lists."""
    rng = np.random.default_rng(seed)
    for number in range(MOMENTS):
        user = list(TASTES)[number % len(TASTES)]
        items = rng.choice(N_ITEMS, 2, replace=False)
        times = (MADE_AT + number, MADE_AT + number + 200.0)
        yield [
            Visit(user, SessionEvent(item=f"a{item:02}", event="view", time=at))
            for item, at in zip(items, times, strict=True)
        ]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr(serving_shop, "default_weights", lambda space_id: WEIGHTS)
    made = Shop(tmp_path / "store")
    made.publish("a")
    return made


def served(shop: Shop, *, seed: int) -> list[AnswerRecord]:
    """The log after such requests over HTTP, as `of_sessions` replays them but for their devices."""
    with AsgiClient(create_app(shop.config())) as client:
        for number, (before, after) in enumerate(sessions(seed)):
            context = {"time": after.event.time, "device": ["phone", "desktop"][number % 2]}
            session = [{"item": before.event.item, "event": "view", "time": before.event.time}]
            client.post("/v1/recommend", {"user": before.user, "session": session, "context": context})
    records = list(read_log(shop.root / "events", pytest.fail))
    return [record for record in records if isinstance(record, AnswerRecord)]


def test_what_is_served_in_such_sessions_is_spread_likewise(shop: Shop) -> None:
    with Version.open(shop.root, shop.current()) as version:
        seen = of_sessions(Stage.of(version), Moments([*sessions(1)], most_events=1), WEIGHTS, Serve())
    # No session had a device, nor tells what was shown in vain, or what others do.
    silent = {"on_device", "ignored", "trending_now"}
    assert (seen.source, seen.lists, {*NAMES} - {*seen.spreads}) == ("sessions", MOMENTS, silent)
    found = drift("v", seen, served(shop, seed=2))
    assert (found.answers, found.indexes.keys()) == (MOMENTS, seen.spreads.keys())
    assert found.above(LOOK) == []


def test_of_served_lists_all_that_is_there_counts() -> None:
    signals = np.zeros((2, 3, len(NAMES)), np.float32)
    signals[0, :, 0] = 1.0
    signals[1, 2, 0] = 9.0
    seen = of_log(Lists(signals, np.array([[True] * 3, [True, True, False]]), np.ones(2, np.float32)))
    assert (seen.source, seen.lists) == ("log", 2)
    assert [share for share in seen.spreads["base_score"].shares if share] == [0.4, 0.6]
    assert msgspec.json.decode(msgspec.json.encode(seen), type=type(seen)) == seen
