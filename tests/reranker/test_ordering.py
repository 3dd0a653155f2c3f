"""The order of an answer under constraints, each against what it says in so many words."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from reranker.caps import Cap, Caps
from reranker.ordering import order
from reranker.ranking import top

SCORES = np.array([0.9, 0.8, 0.8, 0.7, 0.1, 0.95], np.float32)
ALL = np.ones(6, np.bool_)
CODES = np.array([0, 0, 1, 0, -1, 0], np.int32)


def mask(*positions: int) -> np.ndarray:
    return np.isin(np.arange(6), positions)


def test_without_constraints_it_is_the_order_of_the_scores() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        scores = rng.integers(0, 20, 100).astype(np.float32)
        eligible = rng.random(100) < 0.7
        k = int(rng.integers(0, 120))
        assert order(scores, eligible, k).positions.tolist() == top(scores, eligible, k).tolist()


def test_a_cap_lets_the_next_of_another_kind_come_up() -> None:
    assert order(SCORES, ALL, 4, caps=Caps([Cap(CODES, 2)])).positions.tolist() == [5, 0, 2, 4]


def test_what_has_no_value_is_never_too_many() -> None:
    assert order(SCORES, ALL, 6, caps=Caps([Cap(np.full(6, -1, np.int32), 1)])).positions.size == 6


def test_caps_of_two_columns_hold_together() -> None:
    rng = np.random.default_rng(2)
    scores, one, other = rng.random(300).astype(np.float32), *rng.integers(-1, 6, (2, 300)).astype(np.int32)
    shown = order(scores, np.ones(300, bool), 40, caps=Caps([Cap(one, 4), Cap(other, 3)])).positions
    for codes, most in ((one, 4), (other, 3)):
        found = codes[shown]
        assert np.bincount(found[found >= 0]).max() <= most
    assert len(set(shown.tolist())) == shown.size


def test_what_stands_above_from_another_list_counts() -> None:
    caps = Caps([Cap(CODES, 2)])
    caps.add(1)
    items = np.array([5, 4, 3, 2, 1, 0], np.uint32)
    shown = order(np.arange(6, dtype=np.float32), ALL, 6, items=items, caps=caps).positions
    assert items[shown].tolist() == [0, 2, 4]


def test_the_best_of_a_pin_stands_where_it_was_pinned_and_once() -> None:
    assert order(SCORES, ALL, 4, pins=[(2, mask(3, 4))]).positions.tolist() == [5, 3, 0, 1]
    assert order(SCORES, ALL, 4, pins=[(1, mask(4)), (3, mask(4, 0))]).positions.tolist() == [4, 5, 0, 1]


def test_a_pin_of_nothing_that_may_be_shown_changes_nothing() -> None:
    assert order(SCORES, ~mask(4), 3, pins=[(1, mask(4))]).positions.tolist() == [5, 0, 1]
    assert order(SCORES, ALL, 2, pins=[(3, mask(4))]).positions.tolist() == [5, 0]


def test_a_pin_below_a_list_that_runs_dry_moves_up() -> None:
    assert order(SCORES, mask(4, 5), 6, pins=[(5, mask(4))]).positions.tolist() == [5, 4]


def test_a_pin_counts_for_the_caps_of_the_others() -> None:
    assert order(SCORES, ALL, 3, caps=Caps([Cap(CODES, 1)]), pins=[(3, mask(3))]).positions.tolist() == [2, 4, 3]


def test_diversity_brings_up_what_is_unlike_the_first() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [1, 1], [1, 0]], np.float32)
    assert order(SCORES, ALL, 3, diversity=0.0, vectors=vectors.__getitem__).positions.tolist() == [5, 0, 1]
    assert order(SCORES, ALL, 3, diversity=0.5, vectors=vectors.__getitem__).positions.tolist() == [5, 2, 0]


def test_constraints_together_are_what_a_slow_choice_makes() -> None:
    """At each place the most worthy of what the caps let through, beside all that stands above, the pin among it."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        scores, vectors, share = rng.random(60).astype(np.float32), rng.normal(size=(60, 4)).astype(np.float32), 0.3
        codes, most = rng.integers(-1, 6, 60).astype(np.int32), int(rng.choice([3, 60]))
        holds, place = np.arange(60) >= rng.integers(60), int(rng.integers(1, 16))
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        pin = max(np.flatnonzero(holds).tolist(), key=lambda item: scores[item])
        chosen: list[int] = []
        while len(chosen) < 15:
            if len(chosen) + 1 == place:
                chosen.append(pin)
                continue
            worth = {
                item: (1 - share) * scores[item]
                - share * max((float(unit[item] @ unit[other]) for other in chosen), default=0)
                for item in set(range(60)) - {pin, *chosen}
                if codes[item] < 0 or (codes[[*{pin, *chosen}]] == codes[item]).sum() < most
            }
            chosen.append(max(worth, key=lambda item: worth[item]))
        caps = Caps([Cap(codes, most)])
        found = order(
            scores, scores >= 0, 15, caps=caps, pins=[(place, holds)], diversity=share, vectors=vectors.__getitem__
        )
        assert found.positions.tolist() == chosen, seed


def test_chance_fills_a_place_with_each_of_the_next_equally_often_and_says_so() -> None:
    scores = -np.arange(30, dtype=np.float32)
    seen = np.zeros(30)
    for trial in range(4000):
        found = order(scores, np.ones(30, bool), 5, explore=[3], explore_among=10, seed=str(trial))
        assert found.positions[:2].tolist() == [0, 1]
        assert found.propensities.tolist() == [1.0, 1.0, pytest.approx(0.1), 1.0, 1.0]
        seen[found.positions[2]] += 1
    assert not seen[:2].any()
    assert not seen[12:].any()
    assert np.abs(seen[2:12] / 4000 - 0.1).max() < 0.03


def test_what_chance_puts_on_a_place_says_nothing_about_the_place() -> None:
    """Else what is seldom clicked far down would seem to be looked at less because it is worse: `jobs.logged_lists`."""
    scores = -np.arange(200, dtype=np.float32)
    ranks = np.zeros((2000, 2))
    for trial, row in enumerate(ranks):
        found = order(scores, np.ones(200, bool), 20, explore=[2, 16], explore_among=40, seed=str(trial))
        row[:] = found.positions[[1, 15]]
        assert np.delete(found.positions, [1, 15])[:14].tolist() == [*range(14)]
    assert np.abs(ranks.mean(axis=0) - 33.5).max() < 1.0


@pytest.mark.parametrize("diversity", [0.0, 0.3])
def test_many_places_left_to_chance_share_the_same_items_out(diversity: float) -> None:
    """Each of them is as likely at each place, and nothing else comes in for what the places above have taken."""
    rng, at_random, trials = np.random.default_rng(1), np.array([1, 2, 6, 7, 8]) - 1, 500
    scores, seen = -np.arange(40, dtype=np.float32) / 40, np.zeros((5, 40))
    vectors = rng.normal(size=(40, 3)).astype(np.float32)
    for trial in range(trials):
        found = order(
            scores, np.ones(40, bool), 10, diversity=diversity, vectors=vectors.__getitem__,
            explore=[1, 2, 6, 7, 8], explore_among=5, seed=str(trial),
        )  # fmt: skip
        assert found.propensities[at_random].tolist() == pytest.approx([0.2] * 5)
        seen[np.arange(5), found.positions[at_random]] += 1
        if not diversity:
            assert np.delete(found.positions, at_random).tolist() == [0, 1, 2, 8, 9]
    same = np.flatnonzero(seen.any(axis=0))
    assert len(same) == 5
    assert np.abs(seen[:, same] / trials - 0.2).max() < 0.08


@pytest.mark.parametrize("diversity", [0.0, 0.3])
def test_with_caps_the_odds_of_each_place_hold_too(diversity: float) -> None:
    """What is drawn above must not use up a cap, and so make others more probable than is said."""
    rng, places, trials = np.random.default_rng(2), [3, 4, 7], 2000
    codes, scores = rng.integers(0, 4, 30).astype(np.int32), -np.arange(30, dtype=np.float32) / 30
    vectors = rng.normal(size=(30, 3)).astype(np.float32)
    seen: list[Counter[int]] = [Counter() for _ in places]
    odds: set[float] = set()
    for trial in range(trials):
        found = order(
            scores, np.ones(30, bool), 9, caps=Caps([Cap(codes, 3)]), diversity=diversity, vectors=vectors.__getitem__,
            explore=places, explore_among=9, seed=str(trial),
        )  # fmt: skip
        assert Counter(codes[found.positions]).most_common(1)[0][1] <= 3
        for counts, place in zip(seen, places, strict=True):
            counts[int(found.positions[place - 1])] += 1
            odds.add(float(found.propensities[place - 1]))
    assert len(seen[0]) > len(places)
    assert [*odds] == pytest.approx([1 / len(seen[0])])
    for counts in seen:
        assert counts.keys() == seen[0].keys()
        assert all(abs(count / trials - 1 / len(counts)) < 0.05 for count in counts.values()), counts


def test_what_chance_has_not_drawn_is_no_longer_counted() -> None:
    caps = Caps([Cap(np.array([0, 0, 0, 1, 1], np.int32), 2)])
    found = order(-np.arange(5, dtype=np.float32), np.ones(5, bool), 4, caps=caps, explore=[1], explore_among=4)
    assert sorted(found.positions.tolist()) == [0, 1, 3, 4]
    assert not caps.allow(0)
    assert not caps.allow(3)


def test_chance_takes_what_the_caps_have_left() -> None:
    caps = Caps([Cap(np.array([0, 0, 0, 0, 1], np.int32), 1)])
    found = order(-np.arange(5, dtype=np.float32), np.ones(5, bool), 5, caps=caps, explore=[2, 4], explore_among=9)
    assert (found.positions.tolist(), found.propensities.tolist()) == ([0, 4], [1.0, 1.0])


def test_the_same_seed_draws_the_same() -> None:
    draws = [order(SCORES, ALL, 4, explore=[2, 4], explore_among=3, seed=seed).positions.tolist() for seed in "abab"]
    assert draws[:2] == draws[2:]


def test_any_constraints_show_each_item_once_and_only_what_may_be_shown() -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    rng = np.random.default_rng(seed)
    for trial in range(200):
        n = int(rng.integers(1, 80))
        eligible = rng.random(n) < 0.6
        found = order(
            rng.random(n).astype(np.float32),
            eligible,
            int(rng.integers(0, 30)),
            caps=Caps([Cap(rng.integers(-1, 4, n).astype(np.int32), int(rng.integers(1, 5)))]),
            pins=[(int(rng.integers(1, 12)), rng.random(n) < 0.2) for _ in range(2)],
            diversity=float(rng.choice([0.0, 0.4])),
            vectors=rng.normal(size=(n, 3)).astype(np.float32).__getitem__,
            explore=rng.integers(1, 15, 2).tolist(),
            explore_among=int(rng.integers(1, 6)),
            seed=str(trial),
        )
        assert eligible[found.positions].all()
        assert len(set(found.positions.tolist())) == found.positions.size == found.propensities.size
