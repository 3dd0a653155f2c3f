"""The stored record: what goes in comes out, nothing else does, and every byte is where FORMAT.md says."""

from __future__ import annotations

import re
import struct
from hashlib import sha256
from pathlib import Path
from zlib import crc32

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import DamagedRecordError
from schemas.record import (
    HEADER_BYTES,
    MAX_SCORE,
    WIDE,
    decode_record,
    encode_record,
    index_bits_for,
    is_key,
    record_seed,
    score_bits_for,
)

SEED = record_seed(sha256(b"inputs").hexdigest())
SPLITS = [20, 24, WIDE]
FORMAT = Path(__file__).parents[2] / "prediction_store/FORMAT.md"

finite = st.floats(-1e6, 1e6, width=32)
any_score = st.floats(-MAX_SCORE, MAX_SCORE)


@st.composite
def lists(draw: st.DrawFn, scores: st.SearchStrategy[float] = finite) -> tuple[int, list[int], list[float]]:
    bits = draw(st.sampled_from(SPLITS))
    items = draw(st.lists(st.integers(0, (1 << bits) - 1), max_size=60, unique=True))
    return bits, items, draw(st.lists(scores, min_size=len(items), max_size=len(items)))


def encoded(bits: int, items: list[int], scores: list[float], key: bytes = b"ann") -> bytes:
    return encode_record(key, items, scores, made_at=7, user_row=3, seed=SEED, index_bits=bits)


@given(lists(), st.binary(min_size=1, max_size=511), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_what_goes_in_comes_out(
    given_list: tuple[int, list[int], list[float]], key: bytes, made_at: int, row: int
) -> None:
    bits, items, scores = given_list
    data = encode_record(key, items, scores, made_at=made_at, user_row=row, seed=SEED, index_bits=bits)
    found = decode_record(data, key, seed=SEED, index_bits=bits)
    assert found.items.tolist() == items
    assert (found.made_at, found.user_row) == (made_at, row)
    assert (found.items.dtype, found.scores.dtype) == (np.uint32, np.float32)
    if not items:
        return
    step = 0.0 if bits == WIDE else (max(scores) - min(scores)) / ((1 << score_bits_for(bits)) - 1)
    rounding = 1e-6 * max(map(abs, scores)) + 1e-30  # float32
    assert np.abs(found.scores.astype(float) - scores).max() <= 0.51 * step + rounding


@given(lists(any_score))
def test_scores_come_out_finite_however_large(given_list: tuple[int, list[int], list[float]]) -> None:
    bits, items, scores = given_list
    assert np.isfinite(decode_record(encoded(bits, items, scores), b"ann", seed=SEED, index_bits=bits).scores).all()


@given(lists(), st.data())
def test_a_flipped_bit_is_never_a_wrong_list(
    given_list: tuple[int, list[int], list[float]], data: st.DataObject
) -> None:
    bits, items, scores = given_list
    record = bytearray(encoded(bits, items, scores))
    record[data.draw(st.integers(0, len(record) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(DamagedRecordError):
        decode_record(bytes(record), b"ann", seed=SEED, index_bits=bits)


@given(st.binary(max_size=200))
def test_any_other_bytes_are_damage_and_nothing_worse(data: bytes) -> None:
    with pytest.raises(DamagedRecordError):
        decode_record(data, b"ann", seed=SEED, index_bits=20)


@pytest.mark.parametrize("bits", SPLITS)
def test_every_single_bit_of_a_record_is_guarded(bits: int) -> None:
    record = encoded(bits, [5, 2, 7], [1.0, 0.75, 0.5])
    for place in range(len(record) * 8):
        flipped = bytearray(record)
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(DamagedRecordError):
            decode_record(bytes(flipped), b"ann", seed=SEED, index_bits=bits)


@pytest.mark.parametrize("cut", [0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 4, HEADER_BYTES + 11])
def test_a_truncated_record_is_damaged(cut: int) -> None:
    with pytest.raises(DamagedRecordError):
        decode_record(encoded(20, [5, 2, 7], [1.0, 0.75, 0.5])[:cut], b"ann", seed=SEED, index_bits=20)


def test_another_users_record_is_damaged() -> None:
    with pytest.raises(DamagedRecordError, match="'bob'"):
        decode_record(encoded(20, [5], [1.0]), b"bob", seed=SEED, index_bits=20)


def test_a_record_of_other_inputs_is_damaged() -> None:
    with pytest.raises(DamagedRecordError):
        decode_record(encoded(20, [5], [1.0]), b"ann", seed=record_seed("other"), index_bits=20)


def test_a_record_of_another_split_is_damaged() -> None:
    with pytest.raises(DamagedRecordError, match="20 index bits"):
        decode_record(encoded(20, [5], [1.0]), b"ann", seed=SEED, index_bits=24)


@pytest.mark.parametrize("score_bits", [0, 11, 13, 31, 33, 255])
def test_other_score_bits_are_damage_even_under_a_right_checksum(score_bits: int) -> None:
    record = bytearray(encoded(20, [5], [1.0]))
    record[8] = score_bits
    struct.pack_into(">I", record, 3, crc32(record[7:], crc32(b"ann", SEED)))
    with pytest.raises(DamagedRecordError, match=f"20 index bits and {score_bits} score bits"):
        decode_record(bytes(record), b"ann", seed=SEED, index_bits=20)


@pytest.mark.parametrize("bits", [20, 24])
def test_a_thousand_candidates_fit_on_one_page(bits: int) -> None:
    data = encoded(bits, list(range(1000)), np.linspace(1, 0, 1000).tolist())
    assert len(data) <= 4096 - 16


def test_a_thousand_wide_candidates_fit_on_two_pages() -> None:
    data = encoded(WIDE, list(range(1000)), np.linspace(1, 0, 1000).tolist())
    assert len(data) <= 2 * 4096 - 16


@pytest.mark.parametrize(
    ("items", "bits"),
    [(1, 20), (1 << 20, 20), ((1 << 20) + 1, 24), (1 << 24, 24), ((1 << 24) + 1, WIDE)],
)
def test_the_split_follows_from_the_size_of_the_catalogue(items: int, bits: int) -> None:
    assert index_bits_for(items) == bits


@pytest.mark.parametrize("bits", SPLITS)
def test_the_last_index_of_each_split_comes_back(bits: int) -> None:
    last = (1 << bits) - 1
    found = decode_record(encoded(bits, [last, 0], [1.0, -1.0]), b"ann", seed=SEED, index_bits=bits)
    assert found.items.tolist() == [last, 0]


def test_the_arrays_do_not_point_into_the_record() -> None:
    for bits in SPLITS:
        data = bytearray(encoded(bits, [5, 2], [1.0, 0.5]))
        found = decode_record(memoryview(data), b"ann", seed=SEED, index_bits=bits)
        data[:] = bytes(len(data))
        assert found.items.tolist() == [5, 2]
        assert found.scores.tolist() == [1.0, 0.5]


def test_equal_lists_give_equal_bytes() -> None:
    assert encoded(20, [5, 2], [1.0, 0.5]) == encode_record(
        b"ann", np.array([5, 2], np.int32), np.array([1.0, 0.5], np.float32), made_at=7, user_row=3, seed=SEED,
        index_bits=20,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("key", "items", "scores", "message"),
    [
        (b"", [1], [1.0], "key of 0 bytes"),
        (b"x" * 512, [1], [1.0], "key of 512 bytes"),
        (b"ann", [1, 2], [1.0], "as many of each"),
        (b"ann", [1, 1], [1.0, 0.5], "stands twice"),
        (b"ann", [-1], [1.0], "item indexes -1"),
        (b"ann", [1 << 20], [1.0], "wanted 0 to 1048575"),
        (b"ann", [1.5], [1.0], "whole numbers"),
        (b"ann", [1], [float("nan")], "not a finite number"),
        (b"ann", [1], [float("inf")], "not a finite number"),
        (b"ann", list(range(1001)), [0.0] * 1001, "at most 1000"),
    ],
)
def test_what_cannot_be_stored_is_refused(key: bytes, items: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode_record(key, items, scores, made_at=1, user_row=0, seed=SEED, index_bits=20)


def test_only_ids_of_1_to_511_bytes_are_keys() -> None:
    assert [is_key(b"x" * length) for length in (0, 1, 511, 512)] == [False, True, True, False]


def test_a_record_is_valid_msgpack() -> None:
    fields = msgpack.unpackb(encoded(20, [5, 2, 7], [1.0, 0.75, 0.5]))
    assert fields[0] == 1
    assert fields[2:6] == [20, 12, 7, 3]
    assert (fields[6], len(fields[8])) == (0.5, 12)


def test_the_worked_example_of_the_format_is_true() -> None:
    example = FORMAT.read_text(encoding="utf-8").split("**Worked example.**")[1].split("### Columns")[0]
    lines = [line[4:40] for line in example.splitlines() if re.match(r"    [0-9a-f]{2} ", line)]
    documented = bytes.fromhex("".join(lines))
    digest = re.findall(r"[0-9a-f]{64}", example.replace("\n", ""))[0]
    assert documented == encode_record(
        b"ann", [5, 2, 7], [1.0, 0.75, 0.5], made_at=1767225600, user_row=3, seed=record_seed(digest), index_bits=20
    )
