"""Two factorisations of the same pairs as one: laid end to end, then projected back to the dimensions that are served.

What one ranks well at the top and the other far down, the sum of their scores ranks well at both. The projection is
the best approximation of that sum by so many dimensions: a teacher of twice the size, distilled in closed form.

Source: Eckart, Young 1936, The approximation of one matrix by another of lower rank.
"""

from __future__ import annotations

import math

import numpy as np

NEGLIGIBLE = 1e-10
"""Directions with this share of the strongest one's variance are noise of the arithmetic."""


def balanced(users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The factors, float32[users, k] and float32[items, k], scaled so that their scores have a standard deviation of 1.

    Both sides get the same mean squared length.
    """
    second = np.sum(_gram(users) * _gram(items)) / (len(users) * len(items))
    mean = users.mean(axis=0, dtype=np.float64) @ items.mean(axis=0, dtype=np.float64)
    spread = math.sqrt(max(second - mean**2, 0.0)) or 1.0
    lengths = [
        math.sqrt(np.einsum("nk,nk->", side, side, dtype=np.float64) / len(side)) or 1.0 for side in (users, items)
    ]
    share = math.sqrt(lengths[1] / lengths[0])
    scale = spread**-0.5
    return users * np.float32(scale * share), items * np.float32(scale / share)


def blend(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], *, share: float, dimensions: int
) -> tuple[np.ndarray, np.ndarray]:
    """(float32[users, d], float32[items, d]) whose scores are nearest to first's + share · second's, both `balanced`.

    d = dimensions, or less where the sum has fewer.
    """
    first, second = balanced(*first), balanced(*second)
    users = np.hstack([first[0], second[0] * np.float32(share)])
    items = np.hstack([first[1], second[1]])
    to_users, of_users = _whitening(users)
    to_items, of_items = _whitening(items)
    # users = Q_u of_users, items = Q_v of_items with orthonormal columns in Q: the scores are Q_u (…) Q_vᵀ.
    left, strengths, right = np.linalg.svd(of_users @ of_items.T)
    d = min(dimensions, len(strengths))
    root = np.sqrt(strengths[:d])
    return (
        users @ (to_users @ left[:, :d] * root).astype(np.float32),
        items @ (to_items @ right[:d].T * root).astype(np.float32),
    )


def flattened(users: np.ndarray, items: np.ndarray, share: float) -> np.ndarray:
    """The items, float32[items, k], without a share of what the mean user thinks of them: with 1 there is nothing left.

    The popularity of an item is what all users agree on; what tells users apart stays as it is.
    """
    mean = users.mean(axis=0, dtype=np.float64)
    liked = items @ mean
    return (items - np.outer(share * (liked - liked.mean()), mean / max(mean @ mean, 1e-30))).astype(np.float32)


def _whitening(side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(float64[k, r], float64[r, k]): side @ the first has orthonormal columns, and times the second is side again."""
    variances, axes = np.linalg.eigh(_gram(side))
    real = variances > NEGLIGIBLE * max(variances.max(), 0.0)
    roots = np.sqrt(variances[real])
    return axes[:, real] / roots, (axes[:, real] * roots).T


def _gram(side: np.ndarray) -> np.ndarray:
    """float64[k, k]"""
    wide = side.astype(np.float64)
    return wide.T @ wide
