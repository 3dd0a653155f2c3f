"""The order of lists, learned from lists whose order is known."""

from __future__ import annotations

import numpy as np
import pytest

from jobs import order_fit
from jobs.list_order import BY_PRODUCTS, Order
from jobs.order_fit import Slice, learn_order

USERS, PLACES = 400, 60


def slice_of(
    *, product: float, recent: float, own: float, again: float, seed: int = 0, level: float = -5.0, users: int = USERS
) -> Slice:
    """Lists whose items are wanted with the chance that these weights give."""
    rng = np.random.default_rng(seed)
    products = -np.sort(-rng.normal(size=(users, PLACES)).astype(np.float32) * 0.2, axis=1)
    of_late = rng.exponential(1.0, (users, PLACES)).astype(np.float32)
    times = np.log1p(rng.choice(5, (users, PLACES), p=[0.7, 0.12, 0.08, 0.06, 0.04])).astype(np.float32)
    odds = level + product * products + recent * of_late + (times > 0) * own + again * times
    is_wanted = rng.random(odds.shape) < 1 / (1 + np.exp(-odds))
    return Slice(products, of_late, times, is_wanted, np.maximum(is_wanted.sum(axis=1), 1))


def test_what_the_chance_follows_from_is_found_in_the_unit_of_the_products() -> None:
    found = learn_order(slice_of(product=5.0, recent=1.0, own=1.5, again=1.0, users=4000))
    assert (found.recent, found.own, found.again) == pytest.approx((0.2, 0.3, 0.2), abs=0.05)


def test_a_list_that_ended_says_nothing_of_what_is_not_in_it() -> None:
    lists = slice_of(product=5.0, recent=1.0, own=1.5, again=1.0)
    width = ((0, 0), (0, 40))
    longer = Slice(
        np.pad(lists.products, width, constant_values=-np.inf),
        *(np.pad(part, width) for part in (lists.recent, lists.times, lists.is_wanted)),
        lists.wanted,
    )
    assert order_fit.fit(longer, with_recent=True) == order_fit.fit(lists, with_recent=True)


def test_where_the_products_say_all_they_stay_alone_or_as_good_as_alone() -> None:
    found = learn_order(slice_of(product=15.0, recent=0.0, own=0.0, again=0.0))
    assert max(abs(found.recent), abs(found.own), abs(found.again)) < 0.03


def test_what_does_not_rank_other_users_better_is_not_taken() -> None:
    first = slice_of(product=10.0, recent=0.0, own=4.0, again=0.0)
    other = slice_of(product=10.0, recent=0.0, own=-4.0, again=0.0, seed=1)
    even = np.arange(USERS) % 2 == 0
    torn = Slice(*(np.where(even.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in zip(first, other, strict=True)))
    assert order_fit.fit(torn, with_recent=True) != BY_PRODUCTS
    assert learn_order(torn) == BY_PRODUCTS


def test_from_too_little_nothing_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    lists = slice_of(product=5.0, recent=1.0, own=1.5, again=1.0)
    monkeypatch.setattr(order_fit, "FEWEST_WANTED", int(lists.is_wanted.sum()) + 1)
    assert learn_order(lists) == BY_PRODUCTS
    monkeypatch.setattr(order_fit, "FEWEST_WANTED", int(lists.is_wanted.sum()))
    assert learn_order(lists) != BY_PRODUCTS


def test_what_is_on_top_counts_more_than_what_is_likely_far_down() -> None:
    """Half of the places follow other weights, but stand so low that no order brings them up."""
    upper = slice_of(product=5.0, recent=1.0, own=1.5, again=1.0, users=800)
    lower = slice_of(product=5.0, recent=-2.0, own=-3.0, again=0.0, level=-1.0, users=800, seed=1)
    both = [np.concatenate(pair, axis=1) for pair in zip(upper[:4], (lower.products - 5.0, *lower[1:4]), strict=True)]
    lists = Slice(*both, upper.wanted + lower.wanted)
    likeliest, found = order_fit.fit(lists, with_recent=True), learn_order(lists)
    assert order_fit._ndcg(lists, found) > order_fit._ndcg(lists, likeliest)
    assert (found.own, found.again) != (likeliest.own, likeliest.again)


def test_climbing_ends_where_no_step_ranks_better() -> None:
    lists = slice_of(product=5.0, recent=1.0, own=1.5, again=1.0)
    found = order_fit.climb(lists, Order(recent=3.0, own=0.01, again=0.01))
    assert order_fit._ndcg(lists, found) > 1.05 * order_fit._ndcg(lists, Order(recent=3.0, own=0.01, again=0.01))
    assert order_fit.climb(lists, found) == found
    assert order_fit.climb(lists, BY_PRODUCTS) == BY_PRODUCTS, "what is nothing stays nothing"


def test_ranks_are_those_of_a_stable_sort() -> None:
    rng = np.random.default_rng(5)
    scores = rng.integers(0, 9, (50, 40)).astype(np.float32)
    scores[:, 30:] = -np.inf
    is_wanted = (rng.random(scores.shape) < 0.2) & np.isfinite(scores)
    places = np.argsort(-scores, axis=1, kind="stable")
    expected = np.take_along_axis(is_wanted, places, axis=1)
    for k in (1, 7, 40):
        np.testing.assert_array_equal(order_fit._is_first(scores, is_wanted, k), expected[:, :k])


def test_nothing_is_learned_that_one_half_of_the_users_cannot_judge() -> None:
    lists = slice_of(product=5.0, recent=1.0, own=1.5, again=1.0)
    assert learn_order(lists) != BY_PRODUCTS
    assert learn_order(lists.of(slice(0, 1))._replace(is_wanted=np.ones((1, PLACES), bool))) == BY_PRODUCTS
    lists.is_wanted[1::2] = False
    assert learn_order(lists) == BY_PRODUCTS


def test_items_are_not_lowered_for_having_been_met_of_late() -> None:
    found = learn_order(slice_of(product=5.0, recent=-1.0, own=2.0, again=0.0, level=-3.0))
    assert (found.recent, found.own > 0.2) == (0.0, True)


def test_what_is_of_late_can_be_left_out() -> None:
    lists = slice_of(product=5.0, recent=1.0, own=2.0, again=0.0)
    assert learn_order(lists, with_recent=False).recent == 0.0
    assert learn_order(lists).recent > 0.1


@pytest.mark.parametrize("product", [0.0, -5.0], ids=["nothing", "the opposite"])
def test_products_that_say_nothing_only_decide_between_equals(product: float) -> None:
    lists = slice_of(product=product, recent=1.0, own=2.0, again=0.5, level=-6.0)
    found = learn_order(lists)
    rest = found.recent * lists.recent + found.of_times(lists.times)
    is_apart = np.abs(np.diff(rest, axis=1)) > np.ptp(lists.products)
    assert is_apart.mean() > 0.7, "most neighbours stand as the rest wants, whatever their products"
    assert (found.own / found.recent, found.again / found.recent) == pytest.approx((2.0, 0.5), abs=0.3)


def test_products_that_say_nothing_leave_items_where_they_are_that_were_met_of_late() -> None:
    found = learn_order(slice_of(product=-5.0, recent=-1.0, own=2.0, again=0.0, level=-3.0))
    assert (found.recent, found.own > 0) == (0.0, True)


def test_what_is_rare_is_not_believed_at_once() -> None:
    lists = slice_of(product=5.0, recent=0.0, own=0.0, again=0.0)
    times = np.zeros_like(lists.times)
    times[0, 0] = lists.is_wanted[0, 0] = True
    assert 0.1 < order_fit.fit(lists._replace(times=times), with_recent=True).own < 0.3


def test_what_is_certain_comes_before_everything_else() -> None:
    lists = slice_of(product=5.0, recent=0.0, own=0.0, again=0.0)
    found = learn_order(lists._replace(is_wanted=lists.is_wanted | (lists.times > 0)))
    fewest = lists.times[lists.times > 0].min()
    assert 2 * np.abs(lists.products).max() < found.of_times(fewest) < np.inf


def test_what_is_of_late_alone_is_enough() -> None:
    lists = slice_of(product=5.0, recent=1.0, own=0.0, again=0.0)
    assert learn_order(lists._replace(times=np.zeros_like(lists.times))).recent == pytest.approx(0.2, abs=0.05)
