"""Teach the factors of a matrix factorisation to rank: the cosine of a user with what the user met against the rest.

A factorisation approximates numbers; a list needs an order. A few dozen epochs of a softmax over cosines from its
factors raise the recall of short lists by a tenth and keep that of long ones, in minutes; from random numbers the same
loss takes hours. A step takes some users with everything they met. So a user is scored against the negatives once, not
once for every item met, and counts alike however much they met.

Source: Wu et al. 2023, BSL: understanding and improving softmax loss for recommendation (the loss and its two
temperatures, the mean over a user's positives, dropout of the user); Kingma, Ba 2014, Adam, here for the touched rows
only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from jobs.factors import Blocks

BATCH_USERS = 512
STEPS, FEWEST_USERS = 64, 8
"""Of an epoch where there are too few users for as many steps of `BATCH_USERS`; and the fewest users of a step."""
NEGATIVES = 16_384
"""Items drawn for a batch; a catalogue that is not larger is taken whole. On Yelp2018 (38,000 items) four times as many
as 4,096 raise recall@20 by 1.4 % for 2.5 times the time; all of them by 2 % for seven times."""
TEMPERATURE = 0.11
"""Divides the cosines."""
NEGATIVES_SHARE = 1.1
"""Weight of the negatives against the positives: the ratio of the two temperatures of the loss."""
USER_RATE = 8.0
"""Learning rate of users as a multiple: a user is in one step of an epoch, an item in most."""
BETAS, EPSILON = (0.9, 0.999), 1e-8
LEARNING_RATE = 1e-3
"""For rows of length 1."""
DROPOUT = 0.1
"""Share of a user's numbers that are hidden in a step."""


class Factors(NamedTuple):
    """float32[users, d] and float32[items, d]; the score of a pair is the dot product."""

    users: torch.Tensor
    items: torch.Tensor

    def copy(self) -> Factors:
        return Factors(self.users.clone(), self.items.clone())

    def to(self, device: torch.device | str) -> Factors:
        """There; these themselves where they are there already."""
        return Factors(self.users.to(device), self.items.to(device))


class Refinement:
    """A training of factors, an epoch at a time; in place where they lie on its device already."""

    def __init__(
        self,
        factors: Factors,
        *,
        epochs: int,
        seed: int,
        drawn: np.ndarray,
        offsets: torch.Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """The factors are brought to length 1 at once. The learning rate falls to 0 over `epochs`.

        Random numbers are drawn on the host, so that every device is taught the same.

        Args:
            drawn: int64[n], the items that negatives are drawn from: those that anybody met.
            offsets: float32[items], added to the scores of negatives, see `losses.popularity_offsets`.
        """
        self._device = torch.device(device)
        self._rows = factors.to(self._device)
        for side in self._rows:
            side.copy_(functional.normalize(side, dim=1))
        self._drawn = drawn
        self._offsets = (torch.zeros(len(factors.items)) if offsets is None else offsets).to(self._device)
        self._epochs, self._seed = epochs, seed
        self._users, self._items = _RowAdam(self._rows.users), _RowAdam(self._rows.items)

    def factors(self) -> Factors:
        """As they are now, on the device; the dot product of a pair is its cosine divided by the temperature."""
        length = TEMPERATURE**-0.5
        return Factors(*(functional.normalize(side, dim=1) * length for side in self._rows))

    def run_epoch(self, epoch: int, blocks: Blocks, *, advance: Callable[[int], None]) -> float:
        """Every user who met anything once; the mean loss. `epoch` counts from 0.

        Args:
            blocks: see `factors.Blocks`; where there are several, users are shuffled within each.
            advance: told the pairs of each step.
        """
        rng = np.random.default_rng([self._seed, epoch])
        total, seen = 0.0, 0
        n_users, n_items = (len(side) for side in self._rows)
        for pairs in blocks():
            for batch in _batches(pairs, n_items, rng):
                left = 1.0 - (epoch + seen / n_users) / self._epochs
                total += self._step(batch, rng, LEARNING_RATE * left) * len(batch.users)
                seen += len(batch.users)
                advance(len(batch.items))
        return total / seen

    def _step(self, batch: _Batch, rng: np.random.Generator, rate: float) -> float:
        rows, of_drawn, of_met = (part.to(self._device) for part in _touched(batch.items, self._drawn, rng))
        of_users, starts = batch.users.to(self._device), batch.starts.to(self._device)
        users = self._rows.users.index_select(0, of_users).requires_grad_()
        items = self._rows.items.index_select(0, rows).requires_grad_()
        keep = torch.from_numpy(rng.random(users.shape, dtype=np.float32) >= DROPOUT).to(self._device)
        user = functional.normalize(users * keep, dim=1) / TEMPERATURE
        item = functional.normalize(items, dim=1)
        liked = functional.embedding_bag(of_met, item, starts, mode="mean")  # [users, d]
        scores = user @ functional.embedding(of_drawn, item).T + self._offsets[rows[of_drawn]]  # [users, drawn]
        others = torch.logsumexp(scores, dim=1) - math.log(len(of_drawn))  # [users]
        loss = (NEGATIVES_SHARE * others - (user * liked).sum(dim=1)).mean()
        loss.backward()
        self._users.step(of_users, users, rate * USER_RATE)
        self._items.step(rows, items, rate)
        return float(loss.detach())


class _Batch(NamedTuple):
    """Some users with all they met, one user after the other."""

    users: torch.Tensor  # int64[b]
    starts: torch.Tensor  # int64[b], where each user's begin in `items`
    items: np.ndarray  # int64[pairs]


def _batches(pairs: np.ndarray, n_items: int, rng: np.random.Generator) -> Iterator[_Batch]:
    """The users of a block in random order."""
    users, items = np.divmod(pairs, n_items)
    found, starts, counts = np.unique(users, return_index=True, return_counts=True)
    order = rng.permutation(len(found))
    size = min(BATCH_USERS, max(FEWEST_USERS, len(found) // STEPS))
    for first in range(0, len(order), size):
        part = order[first : first + size]
        begins = np.cumsum(counts[part]) - counts[part]
        places = np.arange(counts[part].sum()) + np.repeat(starts[part] - begins, counts[part])
        yield _Batch(torch.from_numpy(found[part]), torch.from_numpy(begins), items[places])


def _touched(
    met: np.ndarray, catalogue: np.ndarray, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(items of a step int64[n], places of the drawn among them, places of those met)."""
    is_small = len(catalogue) <= NEGATIVES
    drawn = catalogue if is_small else catalogue[rng.integers(0, len(catalogue), NEGATIVES)]
    rows, inverse = np.unique(np.concatenate([drawn, met]), return_inverse=True)
    places = torch.from_numpy(inverse.reshape(-1))
    return torch.from_numpy(rows), places[: len(drawn)], places[len(drawn) :]


class _RowAdam:
    """Adam that keeps its moments per row and changes the rows of a step only."""

    def __init__(self, table: torch.Tensor) -> None:
        self._table = table
        self._first, self._second = torch.zeros_like(table), torch.zeros_like(table)
        self._steps = torch.zeros(len(table), 1, device=table.device)

    def step(self, rows: torch.Tensor, values: torch.Tensor, rate: float) -> None:
        """Move the `rows` of the table from `values` against the gradient that `values` has gathered."""
        gradient = values.grad
        assert gradient is not None
        steps = self._steps.index_select(0, rows) + 1
        first = torch.lerp(gradient, self._first.index_select(0, rows), BETAS[0])
        second = torch.lerp(gradient.square(), self._second.index_select(0, rows), BETAS[1])
        scale = (second / (1 - BETAS[1] ** steps)).sqrt_().add_(EPSILON)
        moved = values.detach() - rate * (first / (1 - BETAS[0] ** steps)) / scale
        for table, new in ((self._steps, steps), (self._first, first), (self._second, second), (self._table, moved)):
            table.index_copy_(0, rows, new)
