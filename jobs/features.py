"""What the towers read of items and users: vocabularies and normalisation, learned once and kept with the model.

Pure tables in, numpy arrays out. Row 0 of every vocabulary and of the id embeddings stands for "missing or unknown".
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa

from jobs.datasets import DAY_SECONDS

WORDS = re.compile(r"\w+")
TITLE_WORDS = 16
"""Words of a title that are read; the rest of a longer title is ignored."""

NUMBERS = 4
"""Columns of `ItemFeatures.numbers`: price, is the price missing, age, is the age missing."""


class Scale(msgspec.Struct, frozen=True):
    """Mean and standard deviation of a logarithm; what is missing becomes the mean."""

    mean: float = 0.0
    deviation: float = 1.0


class Sentences(msgspec.Struct, frozen=True):
    """Whose sentence vectors of the items' texts the item tower reads."""

    encoder: str
    dimensions: int


class Encoding(msgspec.Struct, frozen=True, kw_only=True):
    """How the columns of items and users become numbers. Part of model.json."""

    categories: list[str]
    brands: list[str]
    user_columns: list[list[str]]
    """Values of each user column."""
    price: Scale
    age: Scale
    """Of the age in days at `made_at`."""
    made_at: int
    """The instant at which items have their age, in epoch seconds."""
    title_buckets: int
    sentences: Sentences | None = None
    """Read beside the title's words; None where training read words only."""


@dataclass(frozen=True)
class ItemFeatures:
    """One row per item, in the order of the table it was made from."""

    ids: np.ndarray
    """int64[n]: row of the id embedding, item_index + 1; in a kept model the row of the same id, 0 for none."""
    categories: np.ndarray
    """int64[n]"""
    brands: np.ndarray
    """int64[n]"""
    numbers: np.ndarray
    """float32[n, NUMBERS]"""
    words: np.ndarray
    """int64[n, TITLE_WORDS]: 1 + hash bucket, padded with 0."""
    sentences: np.ndarray
    """float16[n, dimensions of the sentence vectors]; none of them where words are all that is read."""


@dataclass(frozen=True)
class UserFeatures:
    """One row per user, in the order of the table it was made from."""

    ids: np.ndarray
    """int64[n]: row of the id embedding, user_index + 1; in a kept model the row of the same id, 0 for none."""
    columns: np.ndarray
    """int64[n, user columns]"""


def learn_encoding(
    items: pa.Table, users: pa.Table, *, made_at: int, title_buckets: int, sentences: Sentences | None = None
) -> Encoding:
    """The encoding for these items and users, both tables as `prepare` writes them.

    Only what has interactions, by the tables' own column, enters a vocabulary: a value that training never meets has
    no embedding worth reading and is better unknown.
    """
    known = items.filter(_is_known(items))
    prices, ages = _log_prices(known), _log_ages(known, made_at)
    features = users.filter(_is_known(users)).column("features").to_pylist()
    return Encoding(
        categories=_vocabulary(known.column("category").to_pylist()),
        brands=_vocabulary(known.column("brand").to_pylist()),
        user_columns=[_vocabulary(values) for values in zip(*features, strict=True)],
        price=_scale(prices),
        age=_scale(ages),
        made_at=made_at,
        title_buckets=title_buckets,
        sentences=sentences,
    )


def item_features(
    items: pa.Table | pa.RecordBatch,
    encoding: Encoding,
    sentences: np.ndarray | None = None,
    rows: np.ndarray | None = None,
) -> ItemFeatures:
    """The numbers of a table of items.

    Args:
        sentences: the texts' vectors by item_index, where the encoding has any.
        rows: see `model.open_rows`.
    """
    assert (sentences is None) == (encoding.sentences is None)
    prices = _normalised(_log_prices(items), encoding.price)
    ages = _normalised(_log_ages(items, encoding.made_at), encoding.age)
    return ItemFeatures(
        ids=_id_rows(items, "item_index", rows),
        categories=_codes(items.column("category").to_pylist(), encoding.categories),
        brands=_codes(items.column("brand").to_pylist(), encoding.brands),
        numbers=np.column_stack([*prices, *ages]).astype(np.float32),
        words=_hashed_words(items.column("title").to_pylist(), encoding.title_buckets),
        sentences=np.zeros((len(items), 0), np.float16) if sentences is None else sentences[_indexes(items)],
    )


def user_features(users: pa.Table | pa.RecordBatch, encoding: Encoding, rows: np.ndarray | None = None) -> UserFeatures:
    """The numbers of a table of users; `rows`: see `model.open_rows`."""
    features = users.column("features").to_pylist()
    columns = [_codes([row[k] for row in features], values) for k, values in enumerate(encoding.user_columns)]
    shape = (len(features), len(columns))
    return UserFeatures(
        ids=_id_rows(users, "user_index", rows),
        columns=np.column_stack(columns) if columns else np.zeros(shape, dtype=np.int64),
    )


@functools.lru_cache(maxsize=262_144)
def _word_bucket(word: str, buckets: int) -> int:
    """The bucket of a title word, from 0: the same on every machine, unlike Python's own hash."""
    return zlib.crc32(word.encode("utf-8", "surrogatepass")) % buckets


def _is_known(table: pa.Table) -> np.ndarray:
    return table.column("interactions").to_numpy(zero_copy_only=False) > 0


def _id_rows(table: pa.Table | pa.RecordBatch, index: str, rows: np.ndarray | None) -> np.ndarray:
    indexes = table.column(index).to_numpy(zero_copy_only=False)
    return (indexes if rows is None else rows[indexes]).astype(np.int64) + 1


def _indexes(items: pa.Table | pa.RecordBatch) -> np.ndarray:
    return items.column("item_index").to_numpy(zero_copy_only=False)


def _vocabulary(values: Iterable[str]) -> list[str]:
    return sorted(set(values) - {""})


def _codes(values: Sequence[str], vocabulary: list[str]) -> np.ndarray:
    code = {value: row for row, value in enumerate(vocabulary, start=1)}
    return np.fromiter((code.get(value, 0) for value in values), dtype=np.int64, count=len(values))


def _log_prices(items: pa.Table | pa.RecordBatch) -> np.ndarray:
    prices = _floats(items, "price")
    return np.log1p(np.where(np.isfinite(prices) & (prices >= 0), prices, np.nan))


def _log_ages(items: pa.Table | pa.RecordBatch, made_at: int) -> np.ndarray:
    days = (made_at - _floats(items, "released")) / DAY_SECONDS
    return np.log1p(np.maximum(days, 0.0))


def _floats(items: pa.Table | pa.RecordBatch, name: str) -> np.ndarray:
    """float64[n], NaN where the column is null."""
    return np.asarray(items.column(name).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=float)


def _scale(logarithms: np.ndarray) -> Scale:
    present = logarithms[~np.isnan(logarithms)]
    if len(present) == 0:
        return Scale()
    return Scale(float(present.mean()), float(present.std()) or 1.0)


def _normalised(logarithms: np.ndarray, scale: Scale) -> tuple[np.ndarray, np.ndarray]:
    """(number, is it missing). Beyond five deviations a number says nothing more."""
    missing = np.isnan(logarithms)
    number = np.clip((logarithms - scale.mean) / scale.deviation, -5.0, 5.0)
    return np.where(missing, 0.0, number), missing.astype(float)


def _hashed_words(titles: Sequence[str], buckets: int) -> np.ndarray:
    rows = np.zeros((len(titles), TITLE_WORDS), dtype=np.int64)
    for row, title in zip(rows, titles, strict=True):
        words = WORDS.findall(title.casefold())[:TITLE_WORDS]
        row[: len(words)] = [1 + _word_bucket(word, buckets) for word in words]
    return rows
