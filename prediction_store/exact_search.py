"""How many of the best items the stored lists hold, by searching the whole catalogue with the version's own vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from prediction_store.columns import RECENT
from prediction_store.sample import Sampled
from prediction_store.version import Version
from schemas.record import index_bits_for, score_bits_for

MAX_USERS: Final = 2000
MAX_PRODUCTS: Final = 1 << 30
"""Dot products in all: a thousand users of a million items, or fewer users of more. Some 20 s on two busy cores."""
MAX_CELLS: Final = 1 << 21
"""Scores computed at a time."""
MAX_ROWS: Final = 1 << 15
MAX_KEPT: Final = 1 << 21
"""Scores kept of what has been searched so far, before all but the best are forgotten."""
TOLERANCE: Final = 1e-5
"""Of the product of both vectors' lengths: float32 sums, and the grid of 21 bits on which `retrieve` computes."""

Floats = npt.NDArray[np.float32]


class ExactRecall(NamedTuple):
    """What an exact search says of stored lists."""

    found: int
    """Items in the lists that are among the best."""
    wanted: int
    """Items in the lists: as many best ones could be there."""
    users: int


def exact_recall(version: Version, sample: Sequence[Sampled]) -> ExactRecall:
    """Search exactly for the best items of the sampled users, what they have consumed left out, and count those found.

    A list of n items is compared with the best n by product; whether it is too short is for other gates. A stored item
    counts when its product reaches that of the n-th best but for rounding, so that ties are no loss. In the place of
    one of the best another item may stand that is better by what is added to its product, for interactions of late or
    for the user's own: such a one is not missed whose product, and what is known to be added to it, are no more than
    the list's lowest score.

    Cost: at most `MAX_PRODUCTS` dot products, as products of matrices; some 200 MB of memory for any catalogue.
    """
    most = max(1, min(MAX_USERS, MAX_PRODUCTS // max(1, version.n_items)))
    chosen = [sampled for sampled in sample if len(sampled.candidates.items)][:most]
    if not chosen:
        return ExactRecall(0, 0, 0)
    search = _Search(version, chosen)
    for start in range(0, version.n_items, search.block_rows):
        search.look_at(start, version.item_vectors[start : start + search.block_rows])
    return ExactRecall(search.count_found(), int(search.lengths.sum()), len(chosen))


class _Search:
    """The users' vectors, and the best scores seen so far."""

    def __init__(self, version: Version, chosen: Sequence[Sampled]) -> None:
        rows = [sampled.candidates.user_row for sampled in chosen]
        self.users = np.stack([version.user_vector(row) for row in rows])  # [m, d]
        self.lengths = np.array([len(sampled.candidates.items) for sampled in chosen])
        self.block_rows = max(1, min(MAX_ROWS, MAX_CELLS // len(chosen)))
        consumed = [version.consumed(row) for row in rows]
        owner = np.repeat(np.arange(len(chosen)), [len(items) for items in consumed])
        items = np.concatenate(consumed)
        order = np.argsort(items, kind="stable")
        self._consumed, self._owner = items[order].astype(np.int64), owner[order]
        self._scores: list[Floats] = []  # of each user's stored items that may be there at all
        self._recent = version.numbers(RECENT)
        self._has_place: list[npt.NDArray[np.bool_]] = []  # of the same: they are above the list's last one
        self._last = np.full(len(chosen), -np.inf, np.float32)
        steps = (1 << score_bits_for(index_bits_for(version.n_items))) - 1
        self._slack = np.empty(len(chosen), np.float32)
        for place, sampled in enumerate(chosen):
            vectors = version.item_vectors[sampled.candidates.items]  # [n, d]
            longest = float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors).max()))
            self._slack[place] = TOLERANCE * longest * float(np.linalg.norm(self.users[place]))
            allowed = ~np.isin(sampled.candidates.items, consumed[place])
            self._scores.append((vectors @ self.users[place])[allowed])
            if self._recent is not None and allowed.all():
                stored = sampled.candidates.scores
                self._last[place] = stored.min() + np.ptp(stored) / steps  # they are off by half of one
            added = 0.0 if self._recent is None else self._recent[sampled.candidates.items][allowed]
            self._has_place.append(self._scores[-1] + added > self._last[place])
        # Nothing below a list's last item can be among the best: few other scores have to be kept.
        lowest = np.array([scores.min() if len(scores) else -np.inf for scores in self._scores], np.float32)
        self._floor = lowest - self._slack
        self._kept: list[tuple[npt.NDArray[np.intp], Floats, npt.NDArray[np.bool_]]] = []
        self._n_kept = 0

    def look_at(self, start: int, vectors: Floats) -> None:
        """Keep what may be among the best of the items from `start` on."""
        scores = self.users @ vectors.T  # [m, rows]
        first, last = np.searchsorted(self._consumed, (start, start + len(vectors)))
        scores[self._owner[first:last], self._consumed[first:last] - start] = -np.inf
        owner, rows = np.nonzero(scores > self._floor[:, None])
        values = scores[owner, rows]
        added = 0.0 if self._recent is None else self._recent[start : start + len(vectors)][rows]
        self._kept.append((owner, values, values + added > self._last[owner] + 2 * self._slack[owner]))
        self._n_kept += len(self._kept[-1][1])
        if self._n_kept > MAX_KEPT:
            self._forget()

    def count_found(self) -> int:
        """How many of the best ones, as many as the list is long, are there or have no place there."""
        self._forget()
        owner, _, has_place = self._kept[0]
        wanted = self.lengths if self._recent is None else np.bincount(owner[has_place], minlength=len(self.lengths))
        found = [
            int((is_above & (scores >= self._floor[place] - self._slack[place])).sum())
            for place, (scores, is_above) in enumerate(zip(self._scores, self._has_place, strict=True))
        ]
        return int((self.lengths - np.maximum(wanted - found, 0)).sum())

    def _forget(self) -> None:
        """Keep each user's best, as many as the list is long, and raise the floor to the last of them."""
        owner, values, has_place = (np.concatenate(part) for part in zip(*self._kept, strict=True))
        order = np.lexsort((-values, owner))
        owner, values, has_place = owner[order], values[order], has_place[order]
        begins = np.searchsorted(owner, np.arange(len(self.lengths)))
        rank = np.arange(len(owner)) - begins[owner]
        is_last = rank == self.lengths[owner] - 1
        self._floor[owner[is_last]] = values[is_last]
        is_best = rank < self.lengths[owner]
        self._kept = [(owner[is_best], values[is_best], has_place[is_best])]
        self._n_kept = len(values[is_best])
