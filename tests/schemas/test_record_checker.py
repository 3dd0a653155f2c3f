"""Checking many records at once, against decoding them one by one."""

from __future__ import annotations

import struct
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import DamagedRecordError
from schemas.record import CHECKED_FROM, HEADER_BYTES, MAX_CANDIDATES, WIDE, decode_record, encode_record
from schemas.record_checker import MAX_RECORDS, RecordChecker

SEED = 77
SPLITS = [20, 24]
CHECKERS = {bits: RecordChecker(seed=SEED, index_bits=bits) for bits in [*SPLITS, WIDE]}
"""One for all examples: what a batch leaves behind in a checker must not show in the next one."""


def decoded(keys: list[bytes], records: list[bytes], bits: int) -> tuple[list[int], int, int] | None:
    """The obvious way: lengths, highest user row and highest item; None when one is damaged."""
    try:
        found = [decode_record(data, key, seed=SEED, index_bits=bits) for key, data in zip(keys, records, strict=True)]
    except DamagedRecordError:
        return None
    items = [0, *(int(item) for one in found for item in one.items)]
    return [one.items.size for one in found], max(one.user_row for one in found), max(items)


def checked(keys: list[bytes], records: list[bytes], bits: int) -> tuple[list[int], int, int] | None:
    found = CHECKERS[bits].check(keys, [memoryview(record) for record in records])
    return found and (found.lengths.tolist(), found.highest_user_row, found.highest_item)


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[bytes], list[bytes], int]:
    bits = draw(st.sampled_from(SPLITS))
    lengths = draw(st.lists(st.one_of(st.integers(0, 5), st.just(MAX_CANDIDATES)), min_size=1, max_size=MAX_RECORDS))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    keys = [b"u%d" % number for number in range(len(lengths))]
    items = [np.unique(random.integers(0, 1 << bits, length)) for length in lengths]
    rows = random.integers(0, 2**32, len(lengths)).tolist()
    records = [
        encode_record(key, of_user, of_user * 0.5, made_at=5, user_row=row, seed=SEED, index_bits=bits)
        for key, of_user, row in zip(keys, items, rows, strict=True)
    ]
    return keys, records, bits


@given(batches())
def test_what_is_found_is_what_decoding_finds(batch: tuple[list[bytes], list[bytes], int]) -> None:
    found = checked(*batch)
    assert found == decoded(*batch)
    assert found is not None


@given(batches(), st.data())
def test_one_damaged_record_is_noticed_among_many(
    batch: tuple[list[bytes], list[bytes], int], data: st.DataObject
) -> None:
    keys, records, bits = batch
    which = data.draw(st.integers(0, len(records) - 1))
    record = bytearray(records[which])
    kind = data.draw(st.sampled_from(["flip", "cut", "grow", "other key"]))
    if kind == "flip":
        record[data.draw(st.integers(0, len(record) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "cut":
        del record[data.draw(st.integers(0, len(record) - 1)) :]
    elif kind == "grow":
        record += bytes(data.draw(st.integers(1, 9)))
    else:
        keys[which] += b"x"
    records[which] = bytes(record)
    assert checked(keys, records, bits) is None
    assert decoded(keys, records, bits) is None


@given(st.integers(0, HEADER_BYTES - 1), st.integers(0, 255), st.sampled_from(SPLITS))
def test_a_wrong_header_under_a_right_checksum_is_treated_alike(place: int, value: int, bits: int) -> None:
    record = bytearray(
        encode_record(b"ann", [5, 2, 7], [1.0, 0.75, 0.5], made_at=7, user_row=3, seed=SEED, index_bits=bits)
    )
    record[place] = value
    if not 3 <= place < CHECKED_FROM:
        struct.pack_into(">I", record, 3, crc32(record[CHECKED_FROM:], crc32(b"ann", SEED)))
    with np.errstate(all="ignore"):  # a scale that no writer would choose
        assert checked([b"ann"], [bytes(record)], bits) == decoded([b"ann"], [bytes(record)], bits)


@pytest.mark.parametrize("bits", SPLITS)
def test_every_single_bit_of_a_record_is_guarded(bits: int) -> None:
    record = encode_record(b"ann", [5, 2, 7], [1.0, 0.75, 0.5], made_at=7, user_row=3, seed=SEED, index_bits=bits)
    for place in range(len(record) * 8):
        flipped = bytearray(record)
        flipped[place // 8] ^= 1 << place % 8
        assert checked([b"ann"], [bytes(flipped)], bits) is None


def test_records_of_two_arrays_are_left_to_the_decoder() -> None:
    record = encode_record(b"ann", [5], [1.0], made_at=7, user_row=3, seed=SEED, index_bits=WIDE)
    assert checked([b"ann"], [record], WIDE) is None
