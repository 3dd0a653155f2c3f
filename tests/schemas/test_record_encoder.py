"""Encoding many lists at once, against encoding them one by one."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.record import MAX_CANDIDATES, MAX_SCORE, WIDE, encode_record
from schemas.record_encoder import BLOCK_ROWS, Common, Lists, encode_records

SPLITS = [20, 24, WIDE]


def outcome(encode: Callable[[], Sequence[bytes | memoryview]]) -> Any:
    """The bytes of all records, or the error and its words."""
    try:
        return [bytes(record) for record in encode()]
    except (ValueError, struct.error) as error:
        return type(error), str(error)


def one_by_one(lists: Lists, common: Common) -> list[bytes]:
    return [
        encode_record(key, lists.items[begin:end], lists.scores[begin:end], user_row=int(row), **common._asdict())
        for key, row, begin, end in zip(lists.keys, lists.user_rows, lists.offsets[:-1], lists.offsets[1:], strict=True)
    ]


def both(lists: Lists, common: Common) -> tuple[Any, Any]:
    return outcome(lambda: encode_records(lists, common)), outcome(lambda: one_by_one(lists, common))


@st.composite
def batches(draw: st.DrawFn) -> tuple[Lists, Common]:
    bits = draw(st.sampled_from(SPLITS))
    lengths = draw(
        st.one_of(
            st.lists(st.integers(0, 9), min_size=1, max_size=40),
            st.builds(lambda length, n: [length] * n, st.integers(0, 5), st.integers(1, 3 * BLOCK_ROWS)),
            st.just([MAX_CANDIDATES, 0, MAX_CANDIDATES]),
        )
    )
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from([np.int32, np.int64, np.uint32]))
    highest = (1 << min(bits, 31)) - 1
    items = [np.unique(random.integers(0, highest, length, endpoint=True)) for length in lengths]
    offsets = np.cumsum([0, *map(len, items)])
    spread = draw(st.sampled_from([0.0, 1e-44, 1e-3, 1.0, MAX_SCORE]))
    scores = (random.random(offsets[-1]) - 0.5) * spread + draw(st.sampled_from([0.0, 0.1, -3.25]))
    scores = np.clip(scores, -0.9 * MAX_SCORE, 0.9 * MAX_SCORE).astype(draw(st.sampled_from([np.float32, np.float64])))
    if draw(st.booleans()):
        scores[:] = scores[:1]  # every list is flat
    keys = [b"u%d" % number for number in range(len(lengths))]
    rows = random.integers(0, 2**32, len(lengths))
    common = Common(made_at=draw(st.integers(0, 2**64 - 1)), seed=draw(st.integers(0, 2**32 - 1)), index_bits=bits)
    return Lists(keys, rows, np.concatenate(items).astype(kind), scores, offsets), common


@given(batches())
def test_every_record_is_what_it_would_be_alone(batch: tuple[Lists, Common]) -> None:
    together, alone = both(*batch)
    assert together == alone
    assert isinstance(together, list)


@pytest.mark.parametrize("scores", [[0.0, -0.0], [-0.0, 0.0], [3e-45, -0.0, 0.0], [3e-45, 0.0, -0.0]])
def test_a_lowest_score_of_minus_zero_is_zero(scores: list[float]) -> None:
    n = len(scores)
    lists = Lists([b"ann", b"bob"], np.arange(2), np.arange(2 * n), np.array(2 * scores), np.array([0, n, 2 * n]))
    together, alone = both(lists, COMMON)
    assert together == alone
    as_zero = lists._replace(scores=np.abs(lists.scores))
    assert together == both(as_zero, COMMON)[0]


FINE = Lists(
    keys=[b"ann", b"bob", b"cy"],
    user_rows=np.array([0, 1, 2]),
    items=np.array([5, 2, 9, 4, 7, 1]),
    scores=np.array([1.0, 0.5, 0.25, 0.0, 3.0, 2.0]),
    offsets=np.array([0, 2, 4, 6]),
)
COMMON = Common(made_at=7, seed=3, index_bits=20)


@pytest.mark.parametrize(
    "wrong",
    [
        {"keys": [b"ann", b"", b"cy"]},
        {"keys": [b"ann", b"x" * 512, b"cy"]},
        {"user_rows": np.array([0, -1, 2])},
        {"user_rows": np.array([0, 1, 2**32])},
        {"items": np.array([5, 2, 9, 9, 7, 1])},
        {"items": np.array([5, 2, 9, -4, 7, 1])},
        {"items": np.array([5, 2, 9, 1 << 20, 7, 1])},
        {"items": np.array([5.0, 2, 9, 4, 7, 1])},
        {"scores": np.array([1.0, 0.5, np.nan, 0.0, 3.0, 2.0])},
        {"scores": np.array([1.0, 0.5, np.inf, 0.0, 3.0, 2.0])},
        {"scores": np.array([1.0, 0.5, -2 * MAX_SCORE, 0.0, 3.0, 2.0])},
    ],
)
def test_what_cannot_be_stored_is_refused_in_the_same_words(wrong: dict[str, Any]) -> None:
    together, alone = both(FINE._replace(**wrong), COMMON)
    assert together == alone
    assert isinstance(together, tuple)


@pytest.mark.parametrize("made_at", [-1, 2**64])
def test_a_time_that_has_no_place_is_refused_in_the_same_words(made_at: int) -> None:
    together, alone = both(FINE, COMMON._replace(made_at=made_at))
    assert together == alone
    assert isinstance(together, tuple)


def test_a_list_that_is_too_long_is_refused_in_the_same_words() -> None:
    length = MAX_CANDIDATES + 1
    lists = Lists([b"ann"], np.array([0]), np.arange(length), np.zeros(length), np.array([0, length]))
    together, alone = both(lists, COMMON)
    assert together == alone
    assert isinstance(together, tuple)


def test_every_item_needs_a_score() -> None:
    with pytest.raises(ValueError, match=r"\(6,\) items, \(5,\) scores"):
        encode_records(FINE._replace(scores=FINE.scores[:5]), COMMON)


def test_no_lists_are_no_records() -> None:
    nothing = np.empty(0, np.int64)
    assert encode_records(Lists([], nothing, nothing, np.empty(0), np.zeros(1, np.int64)), COMMON) == []


def test_lists_of_part_of_an_array_are_encoded_alike() -> None:
    """As Arrow hands over a slice of a table: the first offset is not 0."""
    later = FINE._replace(keys=FINE.keys[1:], user_rows=FINE.user_rows[1:], offsets=FINE.offsets[1:])
    assert outcome(lambda: encode_records(later, COMMON)) == outcome(lambda: encode_records(FINE, COMMON))[1:]
