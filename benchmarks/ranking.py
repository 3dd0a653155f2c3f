"""What an answer costs in process: look-up, session, signals, score, order and the twenty items, without HTTP.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.ranking [--requests 5000]

50,000 items of 64 dimensions, every signal with a weight, every request of another user with another session. Then the
same without the kernel, in numpy; the stages of an answer; what it costs with fewer and more candidates and with a
shorter and a longer session; and under rules, caps, diversity and chance.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import threadpoolctl

from benchmarks.measure import Row, finish, header, row, time_each
from benchmarks.ranked_shop import DEVICES, Shop, write_shop
from benchmarks.versions import item_name, user_name
from prediction_store.durable import remove_folder
from reranker import answer, eligibility, filling, ranking, recommend, sources, standing, user_tower
from reranker.recommend import Reranker, open_reranker
from schemas.config import Config, Paths
from schemas.messages import Context, RecommendRequest, SessionEvent
from schemas.rules import Order, Rule
from schemas.serving_config import Serve

CANDIDATES, SESSION = 1_000, 10
FEWER = (100, 300, 1_000, 2_000)
"""Candidates of a request: stored ones up to 1,000, beyond it neighbours of the session's items."""
SESSIONS = (0, 1, 3, 10, 30, 100, 200)
WARM_UP = 300
EVENTS = ("view", "view", "view", "cart", "purchase")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5_000)
    options = parser.parse_args()
    facts = header("ranking")
    root = Path(tempfile.mkdtemp(prefix="shortlist-bench-"))
    rows: list[Row] = []
    try:
        summary = measure_ranking(root / "whole", options.requests, rows)
        rows += in_numpy(root / "whole", options.requests // 5)
        rows += stages(root / "whole", options.requests)
        rows += curves(root, options.requests // 5)
        rows += constrained(root / "whole", options.requests // 5)
    finally:
        remove_folder(root)
    finish(facts, rows, summary)


def measure_ranking(root: Path, requests: int, rows: list[Row]) -> dict[str, float | None]:
    """`rank_p50_us` and `rank_p99_us` of whole answers in process; the store is written at `root`."""
    shop = write_shop(root)
    with _reranker(root) as reranker:
        found = row("answer: 1,000 candidates, session of 10", _micros(reranker, ask(shop, requests, SESSION)))
    rows.append(found)
    return {"rank_p50_us": float(found["p50_us"]), "rank_p99_us": float(found["p99_us"])}


def ask(shop: Shop, count: int, events: int, *, seed: int = 11) -> list[RecommendRequest]:
    """Requests of users in no order, each with a session of its own: half of the items near each other."""
    random = np.random.default_rng(seed)
    now = time.time()
    found = []
    for user in random.integers(0, shop.users, count + WARM_UP).tolist():
        near = random.integers(0, shop.items - 200) + random.integers(0, 200, events)
        items = np.where(random.random(events) < 0.5, near, random.integers(0, shop.items, events)).tolist()
        kinds = random.choice(EVENTS, events).tolist()
        session = [
            SessionEvent(item=item_name(item), event=kind, time=now - 60.0 * (events - place))
            for place, (item, kind) in enumerate(zip(items, kinds, strict=True))
        ]
        device = DEVICES[user % len(DEVICES)]
        found.append(RecommendRequest(user=user_name(user), k=20, session=session, context=Context(device=device)))
    return found


def in_numpy(root: Path, requests: int) -> list[Row]:
    """The same by the definitions, as where there was no compiler."""
    shop = Shop(root, 4_000, 50_000)
    modules = (eligibility, ranking, sources, standing, user_tower)
    before = ranking.is_compiled
    with _reranker(root) as reranker:
        for module in modules:
            module.is_compiled = False
        found = row("  the same in numpy", _micros(reranker, ask(shop, requests, SESSION)))
        for module in modules:
            module.is_compiled = before
    return [found]


def stages(root: Path, requests: int) -> list[Row]:
    """Each function of the journey by itself, timed inside whole answers."""
    shop = Shop(root, 4_000, 50_000)
    with _reranker(root) as reranker:
        taken: dict[str, list[float]] = {}
        with _watched(taken):
            for request in ask(shop, requests, SESSION, seed=12):
                reranker.recommend(request)
    return [row(f"  of it: {name}", np.array(micros[WARM_UP:])) for name, micros in taken.items() if micros]


def curves(root: Path, requests: int) -> list[Row]:
    """What an answer costs against the candidates and, at 1,000 stored ones, against the session."""
    rows = []
    whole = Shop(root / "whole", 4_000, 50_000)
    for candidates in FEWER:
        is_shorter = candidates < CANDIDATES
        shop = write_shop(root / str(candidates), 500, candidates=candidates) if is_shorter else whole
        # Fifty neighbours of one item: beyond a thousand it takes a longer session to find so many.
        length = SESSION if candidates <= CANDIDATES else 50
        with _reranker(shop.root, neighbour_candidates=max(0, candidates - CANDIDATES)) as reranker:
            asked = ask(shop, requests, length)
            rows.append(row(f"{candidates:,} candidates, session of {length}", _micros(reranker, asked)))
    for events in SESSIONS:
        with _reranker(whole.root) as reranker:
            rows.append(row(f"1,000 stored, session of {events}", _micros(reranker, ask(whole, requests, events))))
    return rows


def constrained(root: Path, requests: int) -> list[Row]:
    """What an answer costs under what a shop may want of its order, one by one and all together."""
    shop = Shop(root, 4_000, 50_000)
    asked = ask(shop, requests, SESSION)
    rows = []
    for name, serve in CONSTRAINTS.items():
        with _reranker(root, **serve) as reranker:
            rows.append(row(f"under {name}", _micros(reranker, asked)))
    return rows


def _micros(reranker: Reranker, requests: list[RecommendRequest]) -> np.ndarray:
    return time_each((partial(reranker.recommend, request) for request in requests), warm_up=WARM_UP)


CAPS = {"category": 3, "brand": 2}
RULES = [
    Rule(name="dear", where="price > 60", action="exclude"),
    Rule(name="new", where="category in ['category 1', 'category 2'] or title == 'Item 7'", action="boost", weight=0.1),
]
CONSTRAINTS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "two rules": {"rules": RULES},
    "a cap on one column": {"order": Order(caps={"category": 3})},
    "caps on two columns": {"order": Order(caps=CAPS)},
    "diversity": {"order": Order(diversity=0.3)},
    "chance at two places": {"order": Order(explore_positions=[3, 8])},
    "all of it": {"rules": RULES, "order": Order(caps=CAPS, diversity=0.3, explore_positions=[3, 8])},
}

STAGES = [
    (recommend, "checked"),
    (recommend, "check_limits"),
    (recommend.Reranker, "live_view"),
    (answer, "look_up"),
    (answer, "read_session"),
    (answer, "hidden_items"),
    (sources, "personal"),
    (filling, "Scoring"),
    (filling, "eligible"),
    (filling.Scoring, "best"),
    (filling.Scoring, "values"),
    (filling, "_shown"),
]


@contextmanager
def _watched(taken: dict[str, list[float]]) -> Iterator[None]:
    """What each stage takes is appended under its name, in microseconds."""
    before = [(place, name, getattr(place, name)) for place, name in STAGES]
    for place, name, function in before:
        setattr(place, name, _timed(function, taken.setdefault(name, [])))
    try:
        yield
    finally:
        for place, name, function in before:
            setattr(place, name, function)


def _timed(function: Callable[..., Any], taken: list[float]) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.perf_counter_ns()
        found = function(*arguments, **named)
        taken.append((time.perf_counter_ns() - started) / 1000)
        return found

    return timed


@contextmanager
def _reranker(root: Path, **serve: Any) -> Iterator[Reranker]:
    config = Config(paths=Paths(store=str(root)), serve=Serve(**serve))
    # As `shortlist serve` has it.
    with threadpoolctl.threadpool_limits(1, "blas"), open_reranker(config, follows_events=False) as reranker:
        yield reranker


if __name__ == "__main__":
    main()
