"""Matrix factorisation by weighted least squares: every pair counts, those that met count a hundred times as much.

Its long lists are the best of any factorisation here; its short ones are not (see `factors` and `refine`). Users are
solved with the items held fixed, then items with the users held fixed, each by a few steps of conjugate gradients from
where they stood. The matrix comes in blocks and is never in memory as a whole: a step for the items is one pass.

Source: Hu, Koren, Volinsky 2008, Collaborative filtering for implicit feedback datasets; Takács, Pilászy, Tikk 2011,
Applications of the conjugate gradient method for implicit feedback collaborative filtering.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numba
import numpy as np

from jobs.factors import Blocks

WEIGHT, PENALTY = 100.0, 300.0
"""Of a pair that met, against 1 of one that did not; of the squared lengths."""
GRADIENT_STEPS = 3
START = np.float32(0.01)
NEGLIGIBLE = 1e-10


class Rows(NamedTuple):
    """Who met whom, seen from one side: row k is `rows[k]`, met `columns[starts[k]:starts[k + 1]]`."""

    rows: np.ndarray
    starts: np.ndarray
    columns: np.ndarray


def alternate(
    blocks: Blocks,
    *,
    shape: tuple[int, int],
    dimensions: int,
    rounds: int,
    seed: int,
    advance: Callable[[], None] = lambda: None,
) -> tuple[np.ndarray, np.ndarray]:
    """(float32[users, d], float32[items, d]), from small random numbers.

    From the factors of `factors.factorise` four rounds fit as well as ten from here. But then both factorisations say
    the same, and blended and refined they list worse than two that do not.

    Args:
        blocks: see `factors.Blocks`.
        shape: (users, items) there are.
        rounds: times that both sides are solved.
        advance: called after each.
    """
    rng = np.random.default_rng(seed)
    users, items = (START * rng.random((n, dimensions), dtype=np.float32) for n in shape)
    for _ in range(rounds):
        gram = _gram(items)
        for met in _seen(blocks, len(items), by_item=False):
            mine = users[met.rows]
            _solve(mine, gram, functools.partial(_products, met, items))
            users[met.rows] = mine
        gram = _gram(users)
        _solve(items, gram, functools.partial(_products_by_item, blocks, users, len(items)))
        advance()
    return users, items


def _seen(blocks: Blocks, items: int, *, by_item: bool) -> Iterator[Rows]:
    for pairs in blocks():
        user, item = np.divmod(pairs, items)
        rows, columns = (item, user) if by_item else (user, item)
        if by_item:
            order = np.argsort(rows, kind="stable")
            rows, columns = rows[order], columns[order]
        found, starts = np.unique(rows, return_index=True)
        yield Rows(found, np.append(starts, len(rows)), columns)


Products = Callable[[np.ndarray | None], np.ndarray]
"""Of float32[n, d] x: for each row the sum of y (y·x) over those it met, y their factors; of None: the sum of y."""


def _solve(x: np.ndarray, gram: np.ndarray, products: Products) -> None:
    """Improve in place, a row each, the solutions x of (gram + (WEIGHT - 1) Σ y yᵀ + PENALTY) x = WEIGHT Σ y."""

    def apply(vectors: np.ndarray) -> np.ndarray:
        found: np.ndarray = vectors @ gram + np.float32(WEIGHT - 1) * products(vectors)
        return found + np.float32(PENALTY) * vectors

    residual = np.float32(WEIGHT) * products(None) - apply(x)
    direction = residual.copy()
    strength = _dots(residual, residual)
    enough = NEGLIGIBLE * strength
    for _ in range(GRADIENT_STEPS):
        applied = apply(direction)
        length = np.where(strength > enough, strength / np.maximum(_dots(direction, applied), 1e-30), 0)
        x += length * direction
        residual -= length * applied
        after = _dots(residual, residual)
        direction = residual + np.where(strength > enough, after / np.maximum(strength, 1e-30), 0) * direction
        strength = after


def _products(met: Rows, table: np.ndarray, x: np.ndarray | None) -> np.ndarray:
    found = np.zeros((len(met.rows), table.shape[1]), dtype=np.float32)
    if x is None:
        _add_sums(met.starts, met.columns, table, found)
    else:
        _add_products(met.starts, met.columns, table, x, found)
    return found


def _products_by_item(blocks: Blocks, users: np.ndarray, items: int, x: np.ndarray | None) -> np.ndarray:
    found = np.zeros((items, users.shape[1]), dtype=np.float32)
    for met in _seen(blocks, items, by_item=True):
        found[met.rows] += _products(met, users, None if x is None else x[met.rows])
    return found


def _gram(table: np.ndarray) -> np.ndarray:
    return table.T @ table


def _dots(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float32[n, 1]"""
    found: np.ndarray = np.einsum("nd,nd->n", left, right)[:, None]
    return found


@numba.njit(parallel=True, fastmath=True)
def _add_products(starts, columns, table, x, found):  # type: ignore[no-untyped-def]
    """Compiled: found[k] += Σ y (y·x[k]) over the factors y of those that row k met."""
    dimensions = table.shape[1]
    for row in numba.prange(len(starts) - 1):
        for place in range(starts[row], starts[row + 1]):
            y = table[columns[place]]
            product = np.float32(0)
            for k in range(dimensions):
                product += y[k] * x[row, k]
            for k in range(dimensions):
                found[row, k] += product * y[k]


@numba.njit(parallel=True, fastmath=True)
def _add_sums(starts, columns, table, found):  # type: ignore[no-untyped-def]
    """Compiled: found[k] += Σ y."""
    dimensions = table.shape[1]
    for row in numba.prange(len(starts) - 1):
        for place in range(starts[row], starts[row + 1]):
            for k in range(dimensions):
                found[row, k] += table[columns[place], k]
