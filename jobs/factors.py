"""Matrix factorisation in a few passes over the interactions: where the id embeddings start.

A truncated singular value decomposition of the matrix of who met what, each entry divided by powers of its user's and
its item's count, so that neither busy users nor bestsellers fill the first directions. The matrix comes in blocks, each
with all that some users met, and is never in memory as a whole.

Source: Halko, Martinsson, Tropp 2011, Finding structure with randomness (algorithm 4.4, randomised subspace iteration,
its two multiplications in one pass; the users' basis is made orthogonal by its Gram matrix instead of a QR).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch.nn import functional

from jobs.team import ALONE, Team

USER_POWER, ITEM_POWER = 0.5, 0.4
OVERSAMPLING = 16
ITERATIONS = 2
NEGLIGIBLE = 1e-12
"""Directions with this share of the strongest one's variance are noise of the arithmetic."""

Blocks = Callable[[], Iterable[np.ndarray]]
"""Begins a pass. A block is int64[pairs], user * items + item in ascending order, each pair once, users whole."""


def factorise(
    blocks: Blocks, item_counts: np.ndarray, *, users: int, dimensions: int, seed: int, team: Team = ALONE
) -> tuple[np.ndarray, np.ndarray]:
    """(float32[users, k], float32[items, k]), k = dimensions or less: their product approximates the matrix.

    Args:
        item_counts: int64[items], users who met each item.
        team: each process has other users in its blocks; all have the same result.
    """
    items = len(item_counts)
    popularity = np.maximum(item_counts, 1).astype(np.float64)
    item_values = popularity**-ITEM_POWER
    width = min(dimensions + OVERSAMPLING, users, items)
    probe = torch.from_numpy(np.random.default_rng(seed).standard_normal((items, width)).astype(np.float32))
    for _ in range(ITERATIONS):
        back = torch.zeros(items, width)
        for pairs in blocks():
            block = _Block(pairs, item_values)
            block.add_back(block.forth(probe), back)
        probe = torch.linalg.qr(team.total(back)).Q
    of_users, back, gram = torch.zeros(users, width), torch.zeros(items, width), torch.zeros(width, width).double()
    for pairs in blocks():
        block = _Block(pairs, item_values)
        forth = block.forth(probe)
        of_users[block.users] = forth
        gram += forth.double().T @ forth.double()
        block.add_back(forth, back)
    for part in (of_users, gram, back):
        team.total(part)
    variances, axes = torch.linalg.eigh(gram)
    real = variances > NEGLIGIBLE * variances.max()
    orthogonal = axes[:, real] * variances[real] ** -0.5  # of_users @ orthogonal has orthonormal columns
    left, strengths, right = torch.linalg.svd(back @ orthogonal.float(), full_matrices=False)
    k = min(dimensions, len(strengths))
    item_factors = left[:, :k] * strengths[:k] * torch.from_numpy(np.sqrt(popularity)).float()[:, None]
    return (of_users @ (orthogonal.float() @ right.T[:, :k])).numpy(), item_factors.numpy()


class _Block:
    """Some rows of the sparse matrix, multiplied with sums in one fixed order.

    torch's own sparse layouts warn that they are a beta at every use.
    """

    def __init__(self, pairs: np.ndarray, item_values: np.ndarray) -> None:
        users, items = np.divmod(pairs, len(item_values))
        found, starts, counts = np.unique(users, return_index=True, return_counts=True)
        self.users = torch.from_numpy(found)
        self._starts = torch.from_numpy(starts)
        self._rows = np.repeat(np.arange(len(found)), counts)
        self._items = items
        self._values = (np.repeat(counts.astype(np.float64) ** -USER_POWER, counts) * item_values[items]).astype(
            np.float32
        )

    def forth(self, dense: torch.Tensor) -> torch.Tensor:
        """float32[users of the block, w], from `dense` [items, w]."""
        return _sums(self._items, dense, self._starts, self._values)

    def add_back(self, dense: torch.Tensor, total: torch.Tensor) -> None:
        """Add to `total` [items, w] the product of the transposed block and `dense` [users of the block, w]."""
        order = np.argsort(self._items, kind="stable")
        found, starts = np.unique(self._items[order], return_index=True)
        total[torch.from_numpy(found)] += _sums(self._rows[order], dense, torch.from_numpy(starts), self._values[order])


def _sums(rows: np.ndarray, dense: torch.Tensor, starts: torch.Tensor, values: np.ndarray) -> torch.Tensor:
    return functional.embedding_bag(
        torch.from_numpy(rows), dense, starts, mode="sum", per_sample_weights=torch.from_numpy(values)
    )
