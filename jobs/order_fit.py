"""How lists are put in order, learned: from the validation slice, of which the towers know nothing yet.

Each list of the slice is one that the products have found. A logistic regression over all its places says how the
chance that its user met the item in the validation days follows from the product, from the item's interactions of late,
and from how often the user had met it before (see `known`). The weights, divided by that of the product, are the
`Order`.

It is taken where it ranks better than the products alone do, each half of the users ranked by what the other half
teaches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jobs import metrics
from jobs.list_order import BY_PRODUCTS, Order

MOST_USERS, LENGTH = 1000, 500
"""Lists that are learned from, and places of each: some 10 MB while it lasts."""
BLOCK_USERS = 64
"""Lists looked at at a time."""
FEWEST_WANTED = 100
"""With fewer wanted items in all lists together, nothing is learned."""
JUDGED_AT = 100
LEAST_OF_PRODUCTS = 0.05
"""What a standard deviation of the products adds to the logarithm of the odds, at least: an order is in their unit."""
PENALTY = 1.0
"""Of half the squared weights, in interactions: what is rare is not believed at once."""
ROUNDS = 50
ENOUGH = 1e-6
"""Nats that a further round must gain."""


class Slice(NamedTuple):
    """Lists of the users of a validation slice: [users, places] each, by product."""

    products: np.ndarray
    """float32; -inf where a list has ended."""
    recent: np.ndarray
    """float32, see `Known.recent`."""
    times: np.ndarray
    """float32, see `Known.times`; 0: the user has not met the item."""
    is_wanted: np.ndarray
    """bool: the user met the item in the validation days."""
    wanted: np.ndarray
    """int64[users]: how many such items there are, in the list or not."""

    def of(self, rows: np.ndarray | slice) -> Slice:
        """The lists of some users."""
        return Slice(*(part[rows] for part in self))


def learn_order(lists: Slice, *, with_recent: bool = True) -> Order:
    """The order that ranks such lists best; by products where none does better, or where there is too little to say.

    Args:
        with_recent: let interactions of late count.
    """
    first, second = lists.of(slice(0, None, 2)), lists.of(slice(1, None, 2))
    if lists.is_wanted.sum() < FEWEST_WANTED or not (first.is_wanted.any() and second.is_wanted.any()):
        return BY_PRODUCTS
    gain = 0.0
    for half, other in ((first, second), (second, first)):
        gain += _ndcg(other, fit(half, with_recent=with_recent)) - _ndcg(other, BY_PRODUCTS)
    return fit(lists, with_recent=with_recent) if gain > 0 else BY_PRODUCTS


def fit(lists: Slice, *, with_recent: bool) -> Order:
    """The most likely order. Where products say nothing, or the opposite, they decide between equals."""
    is_there = np.isfinite(lists.products)
    unit = float(lists.products[is_there].std()) or 1.0
    _, product, own, again, *recent = _logistic(lists, unit, with_recent=with_recent)
    if product < LEAST_OF_PRODUCTS:
        product = LEAST_OF_PRODUCTS
        alike = lists._replace(products=np.where(is_there, np.float32(0.0), lists.products))
        _, _, own, again, *recent = _logistic(alike, unit, with_recent=with_recent)
    if recent and recent[0] < 0:
        # Nothing is the worse for having been met of late: it is that old items are wanted less than new ones.
        return fit(lists, with_recent=False)

    def in_products(weight: float) -> float:
        return round(float(weight / product * unit), 6)

    return Order(recent=in_products(sum(recent)), own=in_products(own), again=in_products(again))


def _logistic(lists: Slice, unit: float, *, with_recent: bool) -> np.ndarray:
    """float64[columns of `_blocks`]: the weights of a logistic regression, the first one's without a penalty.

    By Newton's method, each step halved until it leads down.
    """
    penalty = np.full(4 + with_recent, PENALTY)
    penalty[0] = 0.0
    n, n_wanted = np.isfinite(lists.products).sum(), lists.is_wanted.sum()
    weights = np.zeros(len(penalty))
    weights[0] = np.log(n_wanted / max(n - n_wanted, 1))

    def at(weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """What is minimised; its slope, and how that bends."""
        loss, slope, bend = penalty @ weights**2 / 2, penalty * weights, np.diag(penalty + 1e-9)
        for values, is_wanted in _blocks(lists, unit, with_recent=with_recent):
            odds = values @ weights
            chance = 1.0 / (1.0 + np.exp(-odds))
            loss += np.logaddexp(0.0, odds).sum() - odds[is_wanted].sum()
            slope += values.T @ (chance - is_wanted)
            bend += (values * (chance * (1 - chance))[:, None]).T @ values
        return float(loss), slope, bend

    loss, slope, bend = at(weights)
    for _ in range(ROUNDS):
        step = np.linalg.solve(bend, slope)
        while (found := at(weights - step))[0] > loss and np.abs(step).max() > ENOUGH:
            step /= 2
        gain = loss - found[0]
        if gain < ENOUGH:
            break
        weights, (loss, slope, bend) = weights - step, found
    return weights


def _blocks(lists: Slice, unit: float, *, with_recent: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(float64[places, 4 or 5], bool[places]) of some lists at a time: one, the product in units, whether it is met,
    how often, and how much of late; and whether it is wanted."""
    for start in range(0, len(lists.wanted), BLOCK_USERS):
        part = lists.of(slice(start, start + BLOCK_USERS))
        is_there = np.isfinite(part.products)
        products, recent, times = (values[is_there] for values in part[:3])
        columns = [np.ones(len(products)), products / unit, times > 0, times]
        yield np.stack([*columns, *([recent] if with_recent else [])], axis=1), part.is_wanted[is_there]


def _ndcg(lists: Slice, order: Order) -> float:
    """The sum over the users."""
    total = 0.0
    for start in range(0, len(lists.wanted), BLOCK_USERS):
        part = lists.of(slice(start, start + BLOCK_USERS))
        scores = part.products + np.float32(order.recent) * part.recent + order.of_times(part.times)
        places = np.argsort(-scores, axis=1, kind="stable")
        total += metrics.ndcg_at(JUDGED_AT, np.take_along_axis(part.is_wanted, places, axis=1), part.wanted).sum()
    return total
