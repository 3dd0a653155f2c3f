"""The baseline that knows items by their words only: what is like a user's history, by title, category and brand.

It needs no training, and says what the towers add to the content that they read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jobs import index
from jobs.datasets import Dataset
from jobs.evaluation.held_out import IS_TEST, HeldOut, rows_of
from jobs.evaluation.judged import RECALL_AT
from jobs.features import WORDS

MAX_USERS = 5000
MAX_SCORED = 2_000_000_000
"""Users × words of all items: with a large catalogue fewer users are judged, so that it stays a matter of seconds."""
MAX_CELLS = 1 << 22
SEED = 1
ITEM_GRID, PROFILE_GRID = 2.0**16, 2.0**20
"""Weights are rounded to these, so that their products are added without rounding, in whatever order."""


class Vectors(NamedTuple):
    """TF-IDF of the items in order of popularity, of length 1: item i has the entries offsets[i]:offsets[i + 1]."""

    offsets: np.ndarray  # int64[items + 1]
    terms: np.ndarray  # int64
    weights: np.ndarray  # float64
    n_terms: int


def read_vectors(prepared: Dataset, held_out: HeldOut) -> Vectors | None:
    """The items' vectors; None when no word tells any two items apart.

    A term is a title's word, a category or a brand; its weight in an item is count · ln(items / items that have it).

    Source: Salton and Buckley, "Term-weighting approaches in automatic text retrieval", 1988: tf, idf, cosine.
    """
    table = prepared.arrow("items").to_table(["item_index", "title", "category", "brand"]).sort_by("item_index")
    texts = [table[name].to_pylist() for name in ("title", "category", "brand")]
    number: dict[tuple[str, str], int] = {}
    lengths: list[int] = []
    terms: list[int] = []
    counts: list[int] = []
    by_popularity = index.inverse(held_out.dense_of)[held_out.popular]  # item_index
    for item in by_popularity.tolist():
        title, category, brand = (column[item] for column in texts)
        found = [("word", word) for word in WORDS.findall(title.casefold())]
        found += [pair for pair in (("category", category), ("brand", brand)) if pair[1]]
        own = Counter(number.setdefault(pair, len(number)) for pair in found)
        lengths.append(len(own))
        terms += own.keys()
        counts += own.values()
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    term = np.array(terms, dtype=np.int64)
    idf = np.log(len(table) / np.bincount(term, minlength=1))[term] if len(term) else np.empty(0)
    weights = np.array(counts, dtype=np.float64) * idf
    row = np.repeat(np.arange(len(table)), np.diff(offsets))
    norms = np.sqrt(np.bincount(row, weights**2, minlength=len(table)))[row]
    weights = np.rint(np.divide(weights, norms, out=np.zeros_like(weights), where=norms > 0) * ITEM_GRID) / ITEM_GRID
    return Vectors(offsets, term, weights, len(number)) if weights.any() else None


def sample_users(users: np.ndarray, vectors: Vectors) -> np.ndarray:
    """Some of the users, ascending, the same at every run; all of them when they are few."""
    size = min(len(users), MAX_USERS, max(1, MAX_SCORED // len(vectors.terms)))
    return np.sort(np.random.default_rng(SEED).choice(users, size, replace=False))


def content_lists(
    prepared: Dataset, held_out: HeldOut, vectors: Vectors, users: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The items most like what each user had done before the test part, without what was consumed.

    A profile is the mean of the vectors of the items in the history, weighted by the weights of the events. Items that
    are equally like it, and those that have no word in common with it, follow in order of popularity: so a user
    without a history gets the popularity order.

    Args:
        users: int[n], ascending.
    """
    place_of = index.inverse(held_out.popular)
    history = _history(prepared, users, place_of[held_out.dense_of])
    size = int(np.clip(MAX_CELLS // max(vectors.n_terms, len(place_of)), 1, 256))
    for start in range(0, len(users), size):
        part = users[start : start + size]
        scores = _scores(vectors, _profiles(vectors, history, start, len(part)))  # [users, items by popularity]
        excluded = rows_of(held_out.consumed, part)
        scores[excluded.user, place_of[excluded.item]] = -np.inf
        at, best = _best_columns(scores, max(RECALL_AT))
        yield part, np.where(best > -np.inf, held_out.popular[at], -1)


class _History(NamedTuple):
    """Events of the users, sorted by user."""

    user: np.ndarray  # row of `users`
    item: np.ndarray  # place in the popularity order
    weight: np.ndarray


def _history(prepared: Dataset, users: np.ndarray, place_of: np.ndarray) -> _History:
    """`place_of` is int[item_index]."""
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    columns = ["user_index", "item_index", "weight"]
    for batch in prepared.arrow("interactions").to_batches(columns=columns, filter=~IS_TEST):
        user, item, weight = (column.to_numpy() for column in batch.columns)
        is_one = np.isin(user, users) & (weight > 0)
        parts.append((np.searchsorted(users, user[is_one]), place_of[item[is_one]], weight[is_one].astype(float)))
    user, item, weight = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((weight, item, user))  # whatever the files and the batches were
    return _History(user[order], item[order], weight[order])


def _profiles(vectors: Vectors, history: _History, start: int, users: int) -> np.ndarray:
    """float64[terms, users]: the mean vectors of the history of users start:start + users; 0 for no history."""
    own = slice(*np.searchsorted(history.user, [start, start + users]))
    user, item, weight = history.user[own] - start, history.item[own], history.weight[own]
    lengths = np.diff(vectors.offsets)[item]
    event = np.repeat(np.arange(len(item)), lengths)
    entry = np.arange(len(event)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + vectors.offsets[item][event]
    sums = np.bincount(
        vectors.terms[entry] * users + user[event],
        vectors.weights[entry] * weight[event],
        minlength=vectors.n_terms * users,
    ).reshape(vectors.n_terms, users)
    total = np.bincount(user, weight, minlength=users)
    return np.rint(sums / np.where(total > 0, total, 1.0) * PROFILE_GRID) / PROFILE_GRID


def _scores(vectors: Vectors, profiles: np.ndarray) -> np.ndarray:
    """float32[users, items]: the dot products. The first entries of all items, then the second ones, …: no sparse
    product of numpy's own is nearly as fast."""
    lengths = np.diff(vectors.offsets)
    longest_first = np.argsort(-lengths, kind="stable")
    sums = np.zeros((len(lengths), profiles.shape[1]))  # [items, users]
    for place in range(lengths.max(initial=0)):
        entry = vectors.offsets[longest_first[: np.count_nonzero(lengths > place)]] + place
        sums[: len(entry)] += profiles[vectors.terms[entry]] * vectors.weights[entry, None]
    scores = np.empty(sums.shape[::-1], dtype=np.float32)
    scores[:, longest_first] = sums.T
    return scores


def _best_columns(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(int32[m, k'], float32[m, k']): column and value of each row's k largest, equal values by column.

    One unsigned key holds both, so that a partial sort settles ties as well: the value's bits, turned so that larger
    values come first, above the column.
    """
    k = min(k, scores.shape[1])
    bits = (scores + np.float32(0)).view(np.uint32)  # the addition turns -0 into 0
    keys = np.where(bits >> 31, bits, ~bits & np.uint32(0x7FFFFFFF)).astype(np.uint64)
    keys <<= np.uint64(32)
    keys |= np.arange(scores.shape[1], dtype=np.uint64)
    if 0 < k < scores.shape[1]:
        keys.partition(k - 1, axis=1)
    best = np.sort(keys[:, :k], axis=1)
    high = (best >> np.uint64(32)).astype(np.uint32)
    values = np.where(high >> 31, high, ~high & np.uint32(0x7FFFFFFF)).view(np.float32)
    return best.astype(np.uint32).astype(np.int32), values
