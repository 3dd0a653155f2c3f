"""The slice of held-out interactions that chooses the epoch: candidate recall, as the lists will be judged."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from jobs import metrics
from jobs.examples import Histories
from jobs.towers import ItemTensors, TwoTowers, UserTensors
from schemas.tables import VALIDATION

BATCH = 1024
"""Users scored against the whole catalogue at a time."""


class ValidationSlice:
    """Up to `limit` users with validation interactions, known by their train interactions only."""

    def __init__(
        self, interactions: pa.Table, known: Histories, *, items: int, limit: int, drop_consumed: bool
    ) -> None:
        """With `drop_consumed`, items consumed in the train split are neither listed nor wanted."""
        split = interactions.column("split").to_numpy()
        user, item = (interactions.column(name).to_numpy().astype(np.int64) for name in ("user_index", "item_index"))
        consumed = interactions.column("consumed").to_numpy(zero_copy_only=False) & (split < VALIDATION)
        self._known = known
        self._items = items
        wanted = np.unique(user[split == VALIDATION] * self._items + item[split == VALIDATION])
        self._dropped = np.unique(user[consumed] * self._items + item[consumed]) if drop_consumed else wanted[:0]
        wanted = np.setdiff1d(wanted, self._dropped, assume_unique=True)
        users = np.unique(wanted // self._items) if len(wanted) else wanted
        # Evenly over all users: their numbers follow their ids, and ids often follow the time of joining.
        self.users = users[np.unique(np.linspace(0, len(users) - 1, min(limit, len(users))).astype(np.int64))]
        self._wanted = wanted

    def recall(self, towers: TwoTowers, items: ItemTensors, users: UserTensors, k: int) -> float | None:
        """Mean recall in the first k of the catalogue; None when there are no users to ask."""
        if not len(self.users):
            return None
        length = towers.architecture.history_length
        device = items.ids.device
        found = []
        with torch.no_grad():
            vectors = towers.item(items)
            for part in np.split(self.users, range(BATCH, len(self.users), BATCH)):
                history = (torch.from_numpy(array).to(device) for array in self._known.last(part, length))
                pooled = towers.user.pool(vectors, *history)
                scores = towers.user(users.take(torch.from_numpy(part).to(device)), pooled) @ vectors.T
                row, item = self._of(self._dropped, part)
                scores[torch.from_numpy(row).to(device), torch.from_numpy(item).to(device)] = -torch.inf
                lists = scores.topk(min(k, len(vectors))).indices.cpu().numpy()
                row, item = self._of(self._wanted, part)
                relevant = metrics.mark_relevant(lists, row, item, len(vectors))
                found.append(metrics.recall_at(k, relevant, np.bincount(row, minlength=len(part))))
        return float(np.concatenate(found).mean())

    def _of(self, pairs: np.ndarray, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(row, item) of the pairs of some users; `users` is sorted, rows are places in it."""
        user, item = np.divmod(pairs, self._items)
        row = np.searchsorted(users, user).clip(max=len(users) - 1)
        mine = users[row] == user
        return row[mine], item[mine]
