"""Matrix factorisation in a second or two: where the id embeddings start.

A truncated singular value decomposition of the matrix of who met what, each entry divided by powers of its user's and
its item's count, so that neither busy users nor bestsellers fill the first directions.

Source: Halko, Martinsson, Tropp 2011, Finding structure with randomness (algorithm 4.4, randomised subspace iteration).
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

USER_POWER, ITEM_POWER = 0.5, 0.4
OVERSAMPLING = 16
ITERATIONS = 2


def factorise(
    users: np.ndarray, items: np.ndarray, *, shape: tuple[int, int], dimensions: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(float32[users, k], float32[items, k]), k = dimensions or less: their product approximates the matrix.

    Args:
        users, items: int64[n], the pairs that met; repetitions count once.
        shape: (users, items) there are.
    """
    n_users, n_items = shape
    pairs = np.unique(users.astype(np.int64) * n_items + items)
    users, items = np.divmod(pairs, n_items)
    user_counts = np.maximum(np.bincount(users, minlength=n_users), 1).astype(np.float64)
    item_counts = np.maximum(np.bincount(items, minlength=n_items), 1).astype(np.float64)
    values = (user_counts[users] ** -USER_POWER * item_counts[items] ** -ITEM_POWER).astype(np.float32)
    by_user = _Sparse(users, items, values, n_users)
    by_item = _Sparse(items, users, values, n_items)

    width = min(dimensions + OVERSAMPLING, n_users, n_items)
    probe = torch.from_numpy(np.random.default_rng(seed).standard_normal((n_items, width)).astype(np.float32))
    basis = torch.linalg.qr(by_user @ probe).Q  # [n_users, width]
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(by_item @ basis).Q
        basis = torch.linalg.qr(by_user @ basis).Q
    left, strengths, right = torch.linalg.svd(by_item @ basis, full_matrices=False)
    k = min(dimensions, width)
    item_factors = left[:, :k] * strengths[:k] * torch.from_numpy(np.sqrt(item_counts)).float()[:, None]
    return (basis @ right.T)[:, :k].numpy(), item_factors.numpy()


class _Sparse:
    """A sparse matrix that can be multiplied by a dense one, with sums in one fixed order.

    torch's own sparse layouts warn that they are a beta at every use.
    """

    def __init__(self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray, n_rows: int) -> None:
        order = np.argsort(rows, kind="stable")
        self._columns = torch.from_numpy(columns[order])
        self._values = torch.from_numpy(values[order])
        self._starts = torch.from_numpy(np.searchsorted(rows[order], np.arange(n_rows)))

    def __matmul__(self, dense: torch.Tensor) -> torch.Tensor:
        return functional.embedding_bag(self._columns, dense, self._starts, mode="sum", per_sample_weights=self._values)
