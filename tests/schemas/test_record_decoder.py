"""The quick decoder against the obvious one: the same bits out, the same words when a record is damaged."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.errors import DamagedRecordError
from schemas.record import (
    CHECKED_FROM,
    HEADER_BYTES,
    MAX_CANDIDATES,
    MAX_SCORE,
    WIDE,
    Candidates,
    decode_record,
    encode_record,
)
from schemas.record_decoder import record_decoder

SEED = 77
SPLITS = [20, 24, WIDE]
DECODERS = {bits: record_decoder(seed=SEED, index_bits=bits) for bits in SPLITS}
"""One for all examples: what a record leaves behind in a decoder must not show in the next one."""


def outcome(decode: Callable[[], Candidates]) -> Any:
    """Everything that came out, bit for bit, or the words of the error."""
    try:
        found = decode()
    except DamagedRecordError as error:
        return error.message
    arrays = [(array.dtype.str, array.tobytes(), array.flags.writeable) for array in (found.items, found.scores)]
    return arrays, found.made_at, found.user_row


def both(data: bytes, key: bytes, bits: int) -> tuple[Any, Any]:
    slow = outcome(lambda: decode_record(data, key, seed=SEED, index_bits=bits))
    quick = outcome(lambda: DECODERS[bits](memoryview(data), key))
    assert outcome(lambda: DECODERS[bits](data, key)) == quick
    return quick, slow


@st.composite
def records(draw: st.DrawFn) -> tuple[bytes, bytes, int]:
    bits = draw(st.sampled_from(SPLITS))
    count = draw(st.one_of(st.integers(0, 12), st.sampled_from([MAX_CANDIDATES - 1, MAX_CANDIDATES])))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    items = random.permutation(1 << 20)[:count] if count > 12 else random.integers(0, 1 << bits, count)
    spread = draw(st.sampled_from([0.0, 1e-44, 1e-3, 1.0, MAX_SCORE]))
    scores = random.uniform(-1, 1, count) * spread + draw(st.sampled_from([0.0, 0.5, -3.25]))
    key = draw(st.binary(min_size=1, max_size=40))
    row, made_at = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 2**64 - 1))
    items = np.unique(items)
    scores = np.clip(scores[: items.size], -MAX_SCORE, MAX_SCORE)
    data = encode_record(key, items, scores, made_at=made_at, user_row=row, seed=SEED, index_bits=bits)
    return key, data, bits


@given(records())
def test_what_comes_out_is_the_same_to_the_bit(record: tuple[bytes, bytes, int]) -> None:
    key, data, bits = record
    quick, slow = both(data, key, bits)
    assert quick == slow
    assert not isinstance(quick, str)


@given(records(), st.data())
def test_a_damaged_record_is_refused_in_the_same_words(record: tuple[bytes, bytes, int], data: st.DataObject) -> None:
    key, whole, bits = record
    kind = data.draw(st.sampled_from(["flip", "cut", "grow", "other key", "other split"]))
    damaged = bytearray(whole)
    if kind == "flip":
        damaged[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del damaged[data.draw(st.integers(0, len(whole) - 1)) :]
    elif kind == "grow":
        damaged += bytes(data.draw(st.integers(1, 9)))
    elif kind == "other key":
        key += b"x"
    else:
        bits = data.draw(st.sampled_from([other for other in SPLITS if other != bits]))
    quick, slow = both(bytes(damaged), key, bits)
    assert quick == slow
    assert isinstance(quick, str)


@given(st.binary(max_size=200), st.sampled_from(SPLITS))
@example(bytes(HEADER_BYTES), 20)
def test_any_other_bytes_are_refused_in_the_same_words(data: bytes, bits: int) -> None:
    quick, slow = both(data, b"ann", bits)
    assert quick == slow
    assert isinstance(quick, str)


@given(st.integers(0, HEADER_BYTES - 1), st.integers(0, 255), st.sampled_from(SPLITS))
def test_a_wrong_header_under_a_right_checksum_is_treated_alike(place: int, value: int, bits: int) -> None:
    """No disk makes one, but another writer may."""
    record = bytearray(
        encode_record(b"ann", [5, 2, 7], [1.0, 0.75, 0.5], made_at=7, user_row=3, seed=SEED, index_bits=bits)
    )
    record[place] = value
    if not 3 <= place < CHECKED_FROM:
        struct.pack_into(">I", record, 3, crc32(record[CHECKED_FROM:], crc32(b"ann", SEED)))
    with np.errstate(all="ignore"):  # a scale that no writer would choose
        quick, slow = both(bytes(record), b"ann", bits)
    assert quick == slow


@pytest.mark.parametrize("bits", SPLITS)
def test_every_single_bit_of_a_record_is_guarded(bits: int) -> None:
    record = encode_record(b"ann", [5, 2, 7], [1.0, 0.75, 0.5], made_at=7, user_row=3, seed=SEED, index_bits=bits)
    for place in range(len(record) * 8):
        flipped = bytearray(record)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(DamagedRecordError):
            DECODERS[bits](bytes(flipped), b"ann")


@pytest.mark.parametrize("bits", SPLITS)
def test_what_was_given_out_is_left_alone_by_the_next_record(bits: int) -> None:
    decode = record_decoder(seed=SEED, index_bits=bits)
    lists = {b"ann": [5, 2], b"bob": [9, 4]}
    found = {
        key: decode(encode_record(key, items, [1.0, 0.5], made_at=7, user_row=3, seed=SEED, index_bits=bits), key)
        for key, items in lists.items()
    }
    assert {key: one.items.tolist() for key, one in found.items()} == lists
    assert {key: one.scores.tolist() for key, one in found.items()} == {key: [1.0, 0.5] for key in lists}
