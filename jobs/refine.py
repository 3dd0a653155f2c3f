"""Teach the factors of a matrix factorisation to rank: softmax over sampled items, all that a user met at once.

A factorisation approximates numbers; a list needs an order. A few epochs of softmax from its factors raise the recall
of short lists and keep that of long ones, in a fraction of the time that the same loss takes from random numbers. A
step takes some users with everything they met. So a user is scored against the negatives once, not once for every item
met, and counts alike however much they met.

Source: Liang et al. 2018, Variational autoencoders for collaborative filtering (multinomial likelihood of a user's
items); Wu et al. 2023, BSL (the mean over a user's positives); Kingma, Ba 2014, Adam, here for the touched rows only.
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
NEGATIVES = 4096
"""Items drawn for a batch; a catalogue that is not larger is taken whole."""
USER_RATE = 10.0
"""Learning rate of users as a multiple: a user is in one step of an epoch, an item in most."""
BETAS, EPSILON = (0.9, 0.99), 1e-8
LENGTH_PENALTY = 0.03
LEARNING_RATE = 2e-3
DROPOUT = 0.5
"""Share of a user's numbers that are hidden in a step."""


class Factors(NamedTuple):
    """float32[users, d] and float32[items, d]; the score of a pair is the dot product."""

    users: torch.Tensor
    items: torch.Tensor


class Refinement:
    """A training of factors in place, an epoch at a time."""

    def __init__(self, factors: Factors, *, epochs: int, seed: int, offsets: torch.Tensor | None = None) -> None:
        """The learning rate falls to 0 over `epochs`.

        Args:
            offsets: float32[items], added to the scores in training, see `losses.popularity_offsets`.
        """
        self.factors = factors
        self._offsets = torch.zeros(len(factors.items)) if offsets is None else offsets
        self._epochs, self._seed = epochs, seed
        self._users, self._items = _RowAdam(factors.users), _RowAdam(factors.items)

    def run_epoch(self, epoch: int, blocks: Blocks, *, advance: Callable[[int], None]) -> float:
        """Every user once; the mean loss. `epoch` counts from 0.

        Args:
            blocks: see `factors.Blocks`; where there are several, users are shuffled within each.
            advance: told the pairs of each step.
        """
        rng = np.random.default_rng([self._seed, epoch])
        total = met_users = 0.0
        n_users, n_items = len(self.factors.users), len(self.factors.items)
        seen = 0
        for pairs in blocks():
            for batch in _batches(pairs, n_items, rng):
                left = 1.0 - (epoch + seen / n_users) / self._epochs
                loss = self._step(batch, rng, LEARNING_RATE * left)
                seen += len(batch.users)
                total, met_users = total + loss * len(batch.users), met_users + len(batch.users)
                advance(len(batch.items))
        return total / max(met_users, 1)

    def _step(self, batch: _Batch, rng: np.random.Generator, rate: float) -> float:
        n_items = len(self.factors.items)
        rows, of_drawn, of_met = _touched(batch.items, n_items, rng)
        users = self.factors.users[batch.users].requires_grad_()
        items = self.factors.items[rows].requires_grad_()
        keep = torch.from_numpy(rng.random(users.shape, dtype=np.float32) >= DROPOUT)
        hidden = users * keep / (1.0 - DROPOUT)
        offsets = self._offsets[rows]
        drawn = items if of_drawn is None else functional.embedding(of_drawn, items)
        met = functional.embedding(of_met, items)
        positive = (hidden[batch.rows] * met).sum(dim=1) + offsets[of_met]  # [pairs]
        scores = hidden @ drawn.T + (offsets if of_drawn is None else offsets[of_drawn])  # [users, drawn]
        others = torch.logsumexp(scores, dim=1) + math.log(n_items / len(drawn))  # [users]
        losses = functional.softplus(others[batch.rows] - positive)
        share = 1.0 / batch.counts[batch.rows]
        loss = (losses * share).sum() / len(batch.users)
        lengths = users.square().sum(dim=1).mean() + (met.square().sum(dim=1) * share).sum() / len(batch.users)
        (loss + LENGTH_PENALTY * lengths).backward()
        self._users.step(batch.users, users, rate * USER_RATE)
        self._items.step(rows, items, rate)
        return float(loss.detach())


class _Batch(NamedTuple):
    """Some users with all they met."""

    users: torch.Tensor  # int64[b]
    counts: torch.Tensor  # float32[b]
    rows: torch.Tensor  # int64[pairs], places in `users`
    items: np.ndarray  # int64[pairs]


def _batches(pairs: np.ndarray, n_items: int, rng: np.random.Generator) -> Iterator[_Batch]:
    """The users of a block in random order."""
    users, items = np.divmod(pairs, n_items)
    found, starts, counts = np.unique(users, return_index=True, return_counts=True)
    order = rng.permutation(len(found))
    for first in range(0, len(order), BATCH_USERS):
        part = order[first : first + BATCH_USERS]
        lengths = counts[part]
        rows = np.repeat(np.arange(len(part)), lengths)
        places = np.arange(len(rows)) + np.repeat(starts[part] - (np.cumsum(lengths) - lengths), lengths)
        yield _Batch(
            torch.from_numpy(found[part]),
            torch.from_numpy(lengths.astype(np.float32)),
            torch.from_numpy(rows),
            items[places],
        )


def _touched(
    met: np.ndarray, n_items: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """(items of a step int64[n], places of the drawn among them or None for all, places of those met)."""
    if n_items <= NEGATIVES:
        return torch.arange(n_items), None, torch.from_numpy(met)
    drawn = rng.integers(0, n_items, NEGATIVES)
    rows, places = np.unique(np.concatenate([drawn, met]), return_inverse=True)
    places = places.reshape(-1)
    return torch.from_numpy(rows), torch.from_numpy(places[:NEGATIVES]), torch.from_numpy(places[NEGATIVES:])


class _RowAdam:
    """Adam that keeps its moments per row and changes the rows of a step only."""

    def __init__(self, table: torch.Tensor) -> None:
        self._table = table
        self._first, self._second = torch.zeros_like(table), torch.zeros_like(table)
        self._steps = torch.zeros(len(table), 1)

    def step(self, rows: torch.Tensor, values: torch.Tensor, rate: float) -> None:
        """Move the `rows` of the table from `values` against the gradient that `values` has gathered."""
        gradient = values.grad
        assert gradient is not None
        steps = self._steps[rows] + 1
        first = torch.lerp(gradient, self._first[rows], BETAS[0])
        second = torch.lerp(gradient.square(), self._second[rows], BETAS[1])
        self._steps[rows], self._first[rows], self._second[rows] = steps, first, second
        scale = (second / (1 - BETAS[1] ** steps)).sqrt_().add_(EPSILON)
        self._table[rows] = values.detach() - rate * (first / (1 - BETAS[0] ** steps)) / scale
