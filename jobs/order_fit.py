"""How lists are put in order, learned: from the validation slice, of which the towers know nothing yet.

Each list of the slice holds all that it may be made of (see `list_order`). A logistic regression over all its places
says how the chance that its user met the item in the validation days follows from the product, from the item's
interactions of late, and from how often the user had met it before (see `known`). The weights, divided by that of the
product, are the likeliest `Order`. It does as well by the many places far down as by the few on top, which count; so a
second one is found from it, by steps that each rank the lists better.

Taken is what ranks best, the products alone among it, each half of the users ranked by what the other half teaches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np

from jobs import metrics
from jobs.compiled import strict
from jobs.list_order import BY_PRODUCTS, Order

MOST_USERS, LENGTH = 1000, 500
"""Lists that are learned from, and places of each by product; with what joins them, some 20 MB while it lasts."""
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
FACTORS = (0.5, 0.7, 1.4, 2.0)
STEP_GAIN = 5e-4
"""By which share a step must raise the NDCG of the lists."""


class Slice(NamedTuple):
    """Lists of the users of a validation slice: [users, places] each; first by product, then what may join them."""

    products: np.ndarray
    """float32; -inf where there is no item."""
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
    ndcg = np.zeros(3)
    for half, other in ((first, second), (second, first)):
        likeliest = fit(half, with_recent=with_recent)
        ndcg += [_ndcg(other, order) for order in (BY_PRODUCTS, likeliest, climb(half, likeliest))]
    best = int(np.argmax(ndcg))
    if best == 0:
        return BY_PRODUCTS
    likeliest = fit(lists, with_recent=with_recent)
    return likeliest if best == 1 else climb(lists, likeliest)


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


def climb(lists: Slice, order: Order) -> Order:
    """The order with one number after the other multiplied as long as the lists rank better for it."""
    ndcg, is_better = _ndcg(lists, order), True
    while is_better:
        is_better = False
        for name in Order.__struct_fields__:
            numbers = (round(factor * getattr(order, name), 6) for factor in FACTORS)
            steps = [msgspec.structs.replace(order, **{name: number}) for number in numbers]
            found = [_ndcg(lists, step) for step in steps]
            if max(found) > ndcg * (1 + STEP_GAIN):
                order, ndcg, is_better = steps[int(np.argmax(found))], max(found), True
    return order


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
        is_first = _is_first(scores, part.is_wanted, JUDGED_AT)
        total += metrics.ndcg_at(JUDGED_AT, is_first, part.wanted).sum()
    return total


@strict
def _is_first(scores, is_wanted, k):  # type: ignore[no-untyped-def]
    """bool[users, k]: whether the places of the k highest scores are wanted; of equal ones the first is the higher.

    By counting, for each wanted place, those above it: there are few of them, and no need to sort.
    """
    found = np.zeros((len(scores), k), dtype=np.bool_)
    for user in range(len(scores)):
        for wanted in np.flatnonzero(is_wanted[user]):
            score, rank = scores[user, wanted], 0
            for place in range(wanted):
                rank += scores[user, place] >= score
            for place in range(wanted + 1, scores.shape[1]):
                rank += scores[user, place] > score
            if rank < k:
                found[user, rank] = True
    return found
