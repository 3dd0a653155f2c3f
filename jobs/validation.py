"""The slice of held-out interactions that chooses the epoch, by candidate recall as the lists will be judged; and that
says how lists are put in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from jobs import metrics, order_fit
from jobs.known import LATE_ITEMS, Known
from jobs.shards import Shards
from jobs.towers import ItemTensors, TwoTowers, UserTensors
from schemas.tables import VALIDATION

BATCH = 256
"""Users scored against the whole catalogue at a time."""


class Lists(NamedTuple):
    """The best items of some users of the slice, and what they were found by."""

    first: int
    """Place in the slice of the first of them."""
    items: np.ndarray
    """int64[users, k]: item_index"""
    products: torch.Tensor
    """float32[users, all items]; -inf: not to be listed."""
    is_wanted: np.ndarray
    """bool[users, k]"""
    wanted: np.ndarray
    """int64[users]: wanted items, in the list or not."""


class ValidationSlice:
    """Up to `limit` users with validation interactions, known by their train interactions only."""

    def __init__(self, shards: Shards, *, history_length: int, limit: int, drop_consumed: bool) -> None:
        """Two passes over the shards; in memory stays what is needed of the chosen users.

        With `drop_consumed`, items consumed in the train split are neither listed nor wanted.
        """
        self._items, self._drop_consumed = shards.items, drop_consumed
        users = np.sort(np.concatenate([np.unique(self._sought(t)[0] // self._items) for t in shards.tables()]))
        # Evenly over all users: their numbers follow their ids, and ids often follow the time of joining.
        self.users = users[np.unique(np.linspace(0, len(users) - 1, min(limit, len(users))).astype(np.int64))]
        lengths = np.zeros(len(self.users), dtype=np.int64)
        parts = []
        for table in shards.tables() if len(self.users) else ():
            mine = table.filter(pa.array(np.isin(table.column("user_index").to_numpy(), self.users)))
            items, weights, known = shards.known(mine).last(self.users, history_length)
            lengths += known  # a user is known in one shard at most
            parts.append((*self._sought(mine), np.repeat(self.users, known), items, weights))
        empty = [np.zeros(0, kind) for kind in (np.int64, np.int64, np.int64, np.int64, np.float32)]
        wanted, dropped, of, items, weights = (np.concatenate(k) for k in zip(empty, *parts, strict=True))
        order = np.argsort(of, kind="stable")
        self._wanted, self._dropped = np.sort(wanted), np.sort(dropped)
        self._history = items[order], weights[order]
        self._starts = np.concatenate([[0], np.cumsum(lengths)])

    def recall(self, towers: TwoTowers, items: ItemTensors, users: UserTensors, k: int) -> float | None:
        """Mean recall in the first k of the catalogue; None when there are no users to ask."""
        return self._recall(self._lists_by(towers, items, users, k), k)

    def recall_of(self, users: torch.Tensor, items: torch.Tensor, k: int) -> float | None:
        """The same for vectors that are there: float[users, d] and float[items, d]."""
        return self._recall(self._lists(lambda _, part: users[part], items, k), k)

    def lists(self, towers: TwoTowers, items: ItemTensors, users: UserTensors, known: Known, k: int) -> order_fit.Slice:
        """What the order of lists is learned from; `known` by item_index.

        Of some users all that a list may be made of: the first k of the catalogue; behind them, in no order, what of
        `known.late` is not among those, and of what the user has met, of the latter no more than LATE_ITEMS.
        """
        every = -(-len(self.users) // order_fit.MOST_USERS)
        parts, of_user = [], np.zeros(self._items, np.float32)
        for some in self._lists_by(towers, items, users, k):
            rows = np.arange(0, len(some.items), every)
            of_users = self.users[some.first + rows]
            listed = np.full((len(rows), some.items.shape[1] + len(known.late) + LATE_ITEMS), -1)
            times = np.zeros(listed.shape, np.float32)
            for row, user in enumerate(of_users):
                met = slice(known.starts[user], known.ends[user])
                often = known.items[met][np.argsort(-known.times[met], kind="stable")[:LATE_ITEMS]]
                others = np.setdiff1d(np.concatenate([known.late, often]), some.items[rows[row]])
                mine = np.concatenate([some.items[rows[row]], others])
                of_user[known.items[met]] = known.times[met]
                listed[row, : len(mine)], times[row, : len(mine)] = mine, of_user[mine]
                of_user[known.items[met]] = 0.0
            places = torch.from_numpy(listed).to(some.products.device)
            products = some.products[torch.from_numpy(rows).to(places.device)].gather(1, places.clamp(min=0))
            is_wanted = metrics.mark_relevant(listed, *self._of(self._wanted, of_users), self._items)
            products = products.masked_fill(places < 0, -torch.inf)
            lists = products.cpu().numpy(), known.recent[listed], times, is_wanted, some.wanted[rows]
            parts.append(lists)
        return order_fit.Slice(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def _lists_by(self, towers: TwoTowers, items: ItemTensors, users: UserTensors, k: int) -> Iterator[Lists]:
        with torch.no_grad():
            vectors = towers.item(items)

            def of_users(first: int, part: torch.Tensor) -> torch.Tensor:
                history = (
                    torch.from_numpy(array).to(vectors.device) for array in self._histories(first, first + len(part))
                )
                return towers.user(users.take(part), towers.user.pool(vectors, *history))

            yield from self._lists(of_users, vectors, k)

    def _lists(
        self, of_users: Callable[[int, torch.Tensor], torch.Tensor], vectors: torch.Tensor, k: int
    ) -> Iterator[Lists]:
        """`of_users` is told the first place and the indexes of some users of the slice, and gives their vectors."""
        device = vectors.device
        for first in range(0, len(self.users), BATCH):
            part = self.users[first : first + BATCH]
            scores = of_users(first, torch.from_numpy(part).to(device)) @ vectors.T
            row, item = self._of(self._dropped, part)
            scores[torch.from_numpy(row).to(device), torch.from_numpy(item).to(device)] = -torch.inf
            lists = scores.topk(min(k, len(vectors))).indices.cpu().numpy()
            row, item = self._of(self._wanted, part)
            is_wanted = metrics.mark_relevant(lists, row, item, len(vectors))
            yield Lists(first, lists, scores, is_wanted, np.bincount(row, minlength=len(part)))

    @staticmethod
    def _recall(lists: Iterator[Lists], k: int) -> float | None:
        found = [metrics.recall_at(k, part.is_wanted, part.wanted) for part in lists]
        return float(np.concatenate(found).mean()) if found else None

    def _sought(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """(wanted, dropped) of a shard's users, ascending: user_index * items + item_index."""
        split = table.column("split").to_numpy()
        user, item = (table.column(name).to_numpy().astype(np.int64) for name in ("user_index", "item_index"))
        pairs = user * self._items + item
        consumed = table.column("consumed").to_numpy(zero_copy_only=False) & (split < VALIDATION)
        wanted = np.unique(pairs[(split == VALIDATION) & (table.column("weight").to_numpy() > 0)])
        dropped = np.unique(pairs[consumed]) if self._drop_consumed else wanted[:0]
        return np.setdiff1d(wanted, dropped, assume_unique=True), dropped

    def _histories(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(items, weights, lengths) of the slice's users `first` to `last`, end to end, oldest first."""
        here = slice(self._starts[first], self._starts[last])
        return self._history[0][here], self._history[1][here], np.diff(self._starts[first : last + 1])

    def _of(self, pairs: np.ndarray, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(row, item) of the pairs of some users; `users` is sorted, rows are places in it."""
        user, item = np.divmod(pairs, self._items)
        row = np.searchsorted(users, user).clip(max=len(users) - 1)
        mine = users[row] == user
        return row[mine], item[mine]
