"""Promise 8: time to live is exact, decided at each reading, under a clock that jumps.

The store computes with floating-point numbers; here the same is computed with fractions, from the hours as they are
written in the configuration. `run` asks the store, `run_answers` the re-ranker.
"""

from __future__ import annotations

import random
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Literal

from serving_shop import MADE_AT, Shop

from prediction_store.reader import Store
from prediction_store.ttl import Freshness, expires_at, freshness_of
from promises.outcome import Outcome
from reranker.recommend import Reranker
from schemas import config as settings
from schemas.config import Config
from schemas.messages import RecommendRequest

USERS = ("u0", "u1", "ü2")
NEAR = (-1.0, -0.5, -1e-6, 0.0, 1e-6, 0.5, 1.0)
"""Seconds from the limit."""


def run(seed: int, trials: int, folder: Path) -> Outcome:
    """Ask that many times whether a record is fresh, mostly close to a limit."""
    outcome, dice = Outcome(), random.Random(seed)
    while outcome.tried < trials:
        made_at = dice.randrange(1_500_000_000, 2_500_000_000)
        store = settings.Store(record_ttl_hours=some_hours(dice), version_ttl_hours=some_hours(dice))
        until = expires_at(made_at, store)
        if until != made_at + round(seconds_of(store.version_ttl_hours)):
            outcome.violate(f"made at {made_at}, {store.version_ttl_hours} hours: the version expires at {until}")
        for _ in range(20):
            now = some_time(made_at, store, dice)
            found, wanted = freshness_of(made_at, until, now, store), exact_freshness(made_at, until, now, store)
            outcome.tried += 1
            if found != wanted:
                outcome.violate(f"seed {seed}: made at {made_at}, now {now!r}, {store}: {found}; wanted {wanted}")
    return outcome


def run_answers(seed: int, trials: int, folder: Path) -> Outcome:
    """Ask the re-ranker that many times, with a clock that jumps from limit to limit."""
    outcome, dice = Outcome(), random.Random(seed)
    shop = Shop(folder / "store")
    shop.publish("a")
    clock = [0.0]
    follower = Store(shop.root, now=lambda: clock[0])
    follower.refresh()
    with follower.acquire() as version:
        until = version.manifest.expires_at
    while outcome.tried < trials:
        policy: Literal["serve_stale", "fallback"] = dice.choice(("serve_stale", "fallback"))
        # Shorter than the version's own limit, which was set when it was built.
        store = settings.Store(record_ttl_hours=round(dice.uniform(0.01, 100), 2), expired=policy)
        reranker = Reranker(follower, Config(store=store), now=lambda: clock[0])
        for _ in range(20):
            clock[0] = some_time(MADE_AT, store, dice)
            user = dice.choice(USERS)
            answer = reranker.recommend(RecommendRequest(user=user, k=1))
            wanted = exact_freshness(MADE_AT, until, clock[0], store)
            outcome.tried += 1
            is_stale = answer.stale if policy == "serve_stale" else answer.reason == "expired_record"
            if (is_stale, answer.age_seconds) != (wanted.is_expired, wanted.age_seconds):
                outcome.violate(f"seed {seed}: made at {MADE_AT}, now {clock[0]!r}, {store}: {answer}")
    follower.close()
    return outcome


def seconds_of(hours: float) -> Fraction:
    """The seconds that somebody means who writes these hours into the configuration."""
    return Fraction(repr(hours)) * 3600


def exact_freshness(made_at: int, until: int, now: float, store: settings.Store) -> Freshness:
    """What `freshness_of` must say, computed without rounding anything."""
    age = Fraction(now) - made_at
    is_expired = age >= seconds_of(store.record_ttl_hours) or Fraction(now) >= until
    return Freshness(max(0, floor(age)), is_expired, age < 0)


def some_hours(dice: random.Random) -> float:
    """Hours as people write them: a few digits."""
    return max(0.01, round(dice.uniform(0, dice.choice((1, 48, 1000))), dice.randint(0, 4)))


def some_time(made_at: int, store: settings.Store, dice: random.Random) -> float:
    """A time before or after a limit, or anywhere."""
    limits = [Fraction(made_at), made_at + seconds_of(store.record_ttl_hours), Fraction(expires_at(made_at, store))]
    if dice.random() < 0.8:
        return float(dice.choice(limits)) + dice.choice(NEAR)
    return made_at + dice.uniform(-1e6, 1e7)
