"""Training examples: interactions in the order they happened, each with the history as it was before.

A batch is cut into windows. A window is a run of interactions of one user, the targets, with the interactions before
it, so that one look-up of a history serves all targets of the window.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import torch

from jobs.datasets import DAY_SECONDS

TARGETS = 8
"""Targets of one window at most."""
MOST_HALVINGS = 100
"""Of what an example counts: it stays above 0, or a batch of old ones would have no mean."""

Cut = Literal["day", "event"]
"""Where the history of an example ends. `day`: at the midnight before it, because lists are made at night and judged by
the days after (split by time). `event`: right before it, because users are judged by their very next interactions
(split per user).
"""


@dataclass(frozen=True)
class Histories:
    """Interactions ordered by user, then time, then item. User u has the positions starts[u] to starts[u + 1], which is
    none where the interactions are those of some users only."""

    items: np.ndarray
    """int64[n]: item_index"""
    weights: np.ndarray
    """float32[n]: event weights"""
    times: np.ndarray
    """int64[n]"""
    starts: np.ndarray
    """int64[users + 1]"""

    def last(self, users: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(items, weights, lengths) of the last `length` interactions of each user, end to end, oldest first."""
        stops = self.starts[users + 1]
        lengths = np.minimum(stops - self.starts[users], length)
        offsets = np.cumsum(lengths) - lengths
        positions = np.arange(lengths.sum()) + np.repeat(stops - lengths - offsets, lengths)
        return self.items[positions], self.weights[positions], lengths


def histories(interactions: pa.Table, users: int) -> Histories:
    """The interactions of a table, as prepared, that are to be known; interactions of weight 0 say nothing."""
    user, item, weight, when = (
        interactions.column(name).to_numpy() for name in ("user_index", "item_index", "weight", "time")
    )
    keys = weight, item, when, user
    if not _are_sorted(keys):
        order = np.lexsort(keys)
        weight, item, when, user = (key[order] for key in keys)
    if not (says_something := weight > 0).all():
        weight, item, when, user = (key[says_something] for key in (weight, item, when, user))
    starts = np.searchsorted(user, np.arange(users + 1, dtype=user.dtype))
    return Histories(item.astype(np.int64), weight, when, starts.astype(np.int64))


def _are_sorted(keys: tuple[np.ndarray, ...]) -> bool:
    """True when the rows of `keys`, the last one the first to be compared, are in order already, as a file's are."""
    is_sorted = np.ones(max(len(keys[0]) - 1, 0), dtype=bool)
    for key in keys:
        is_sorted = (key[:-1] < key[1:]) | ((key[:-1] == key[1:]) & is_sorted)
    return bool(is_sorted.all())


@dataclass(frozen=True)
class Batch:
    """Some windows as tensors. P = history length + TARGETS positions a window, E examples in all."""

    items: torch.Tensor
    """int64[windows, P]: item_index; 0 where there is none"""
    weights: torch.Tensor
    """float32[windows, P]: event weight; 0 where there is none"""
    distances: torch.Tensor
    """int64[TARGETS, P]: of each position from the end of each target's history, 1 the nearest; 0: not in it"""
    is_known: torch.Tensor
    """bool[windows, TARGETS, P]: the position is in the history of the target and is another item than it"""
    is_example: torch.Tensor
    """bool[windows, TARGETS]; E of them are True"""
    users: torch.Tensor
    """int64[E]: user_index"""
    targets: torch.Tensor
    """int64[E]: item_index"""
    importance: torch.Tensor
    """float32[E]: how much an example counts; 1 for the newest"""


class Windows:
    """All windows of the train split. An example is the first meeting of a user with an item."""

    def __init__(
        self,
        known: Histories,
        *,
        history_length: int,
        cut: Cut,
        newest: int,
        half_life_days: float = math.inf,
    ) -> None:
        """With a half-life, an example that is so much older than `newest` counts half.

        Args:
            newest: time of the newest interaction of all shards, in epoch seconds.
        """
        age_days = (newest - known.times) / DAY_SECONDS
        with np.errstate(over="ignore"):
            halvings = np.minimum(age_days / half_life_days, MOST_HALVINGS)
        self._importance = np.exp2(-halvings).astype(np.float32)
        self._known, self._length = known, history_length
        users = np.repeat(np.arange(len(known.starts) - 1), np.diff(known.starts))
        self._is_first = _is_first_meeting(users, known.items)
        begins = np.zeros(len(users), dtype=bool)
        begins[known.starts[:-1][np.diff(known.starts) > 0]] = True
        if cut == "day" and len(users):
            begins[1:] |= np.diff(known.times // DAY_SECONDS) != 0
        self._distances = _distances(history_length, cut)
        bounds = np.append(np.flatnonzero(begins), len(users))
        runs = np.diff(bounds)
        windows = -(-runs // TARGETS)  # per run, rounded up
        first = np.repeat(bounds[:-1], windows)
        part = np.arange(windows.sum()) - np.repeat(np.cumsum(windows) - windows, windows)
        start = first + part * TARGETS
        stop = np.minimum(start + TARGETS, np.repeat(bounds[1:], windows))
        examples = np.concatenate([[0], np.cumsum(self._is_first)])
        useful = examples[stop] > examples[start]
        self._start, self._stop, self._users = start[useful], stop[useful], users[start[useful]]
        self._base = first[useful] if cut == "day" else self._start
        self._examples = (examples[stop] - examples[start])[useful]
        self.examples = int(self._is_first.sum())

    def __len__(self) -> int:
        return len(self._start)

    def batches(self, rng: np.random.Generator, *, batch_size: int, limit: int) -> Iterator[Batch]:
        """The windows in random order, in batches of about `batch_size` examples, until `limit` examples are over.

        With `limit` 0, all of them.
        """
        wanted = min(limit, self.examples) if limit else self.examples
        order = rng.permutation(len(self))
        total = np.cumsum(self._examples[order])
        order = order[: np.searchsorted(total, wanted) + 1]
        for part in np.array_split(order, max(1, -(-wanted // batch_size))):
            if len(part):
                yield self._batch(part)

    def _batch(self, windows: np.ndarray) -> Batch:
        known, length = self._known, self._length
        start, base = self._start[windows], self._base[windows]
        before = base[:, None] + np.arange(-length, 0)
        targets = start[:, None] + np.arange(TARGETS)
        is_target = targets < self._stop[windows][:, None]
        positions = np.concatenate([before, targets], axis=1)  # [windows, P]
        is_there = np.concatenate([before >= known.starts[self._users[windows]][:, None], is_target], axis=1)
        positions = np.where(is_there, positions, 0)
        items = np.where(is_there, known.items[positions], 0)
        # The target itself never speaks for itself, also where the user met it before.
        is_known = (items[:, None, :] != items[:, length:, None]) & is_there[:, None, :] & (self._distances > 0)
        is_example = is_target & self._is_first[positions[:, length:]]
        rows, columns = np.nonzero(is_example)
        return Batch(
            items=torch.from_numpy(items),
            weights=torch.from_numpy(np.where(is_there, known.weights[positions], np.float32(0.0))),
            distances=torch.from_numpy(self._distances),
            is_known=torch.from_numpy(is_known),
            is_example=torch.from_numpy(is_example),
            users=torch.from_numpy(self._users[windows][rows]),
            targets=torch.from_numpy(items[rows, length + columns]),
            importance=torch.from_numpy(self._importance[positions[rows, length + columns]]),
        )


def _distances(length: int, cut: Cut) -> np.ndarray:
    """int64[TARGETS, P]: the same for all windows, since each has its targets in the same place."""
    ends = np.full(TARGETS, length) if cut == "day" else length + np.arange(TARGETS)
    distances = ends[:, None] - np.arange(length + TARGETS)
    return np.where((distances >= 1) & (distances <= length), distances, 0)


def _is_first_meeting(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """bool[n]: no earlier position has the same user and item."""
    first = np.zeros(len(users), dtype=bool)
    if len(users):
        first[np.unique(users.astype(np.int64) * (int(items.max()) + 1) + items, return_index=True)[1]] = True
    return first
