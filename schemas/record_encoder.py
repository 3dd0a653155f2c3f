"""Encode the lists of many users at once: byte for byte what `encode_record` makes of each, in a fraction of the time.

Lists of one length are encoded together, a hundred or so at a time: more would not stay in the processor's cache.
A block with a list that cannot be stored goes to `encode_record`, which says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from isal.isal_zlib import crc32

from schemas.record import (
    CHECKED_FROM,
    HEADER,
    HEADER_BYTES,
    MARKERS,
    MAX_CANDIDATES,
    MAX_SCORE,
    WIDE,
    encode_record,
    is_key,
    score_bits_for,
)

BLOCK_ROWS: Final = 128
AnyArray = npt.NDArray[Any]


class Lists(NamedTuple):
    """The lists of some users, one after the other."""

    keys: Sequence[bytes]
    """The users' ids in UTF-8."""
    user_rows: AnyArray
    items: AnyArray
    """Dense indexes of all lists, each best first: list i is items[offsets[i]:offsets[i + 1]]."""
    scores: AnyArray
    """One for each of `items`."""
    offsets: AnyArray
    """One more than there are lists."""


class Common(NamedTuple):
    """What all records of a version have in common; see `encode_record`."""

    made_at: int
    seed: int
    index_bits: int


def encode_records(lists: Lists, common: Common) -> list[memoryview]:
    """The stored bytes of each list, in their order. They share memory: keep all or none.

    Raises:
        ValueError, struct.error: a list cannot be stored; as `encode_record` does for it.
    """
    if lists.items.shape != lists.scores.shape:
        raise ValueError(f"{lists.items.shape} items, {lists.scores.shape} scores; wanted as many of each")
    lengths = np.diff(lists.offsets)
    records: list[memoryview] = [memoryview(b"")] * len(lengths)
    for length in np.unique(lengths).tolist():
        of_length = np.flatnonzero(lengths == length)
        for start in range(0, len(of_length), BLOCK_ROWS):
            rows = of_length[start : start + BLOCK_ROWS]
            for row, record in zip(rows.tolist(), _encode_block(_block(lists, rows, length), common), strict=True):
                records[row] = record
    return records


class _Block(NamedTuple):
    """Lists of one length."""

    keys: list[bytes]
    user_rows: AnyArray  # [rows]
    items: AnyArray  # [rows, length]
    scores: AnyArray  # [rows, length]


def _block(lists: Lists, rows: AnyArray, length: int) -> _Block:
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows):  # neighbours, as nearly always
        part: slice | AnyArray = slice(lists.offsets[first], lists.offsets[last + 1])
    else:
        part = (lists.offsets[rows][:, None] + np.arange(length)).reshape(-1)
    return _Block(
        [lists.keys[row] for row in rows.tolist()],
        lists.user_rows[rows],
        lists.items[part].reshape(len(rows), length),
        lists.scores[part].reshape(len(rows), length),
    )


def _encode_block(block: _Block, common: Common) -> list[memoryview]:
    rows, length = block.items.shape
    lowest, highest = (
        (block.scores.min(axis=1), block.scores.max(axis=1)) if length else (np.zeros(rows), np.zeros(rows))
    )
    if not _is_storable(block, lowest, highest, common):
        return [
            memoryview(encode_record(key, items, scores, user_row=int(row), **common._asdict()))
            for key, row, items, scores in zip(*block, strict=True)
        ]
    score_bits = score_bits_for(common.index_bits)
    size = HEADER_BYTES + (8 if common.index_bits == WIDE else 4) * length
    pages = np.empty((rows, size), np.uint8)
    payload = pages[:, HEADER_BYTES:].view("<u4")
    if common.index_bits == WIDE:
        offset, scale = np.zeros(rows, np.float32), np.ones(rows, np.float32)
        payload[:, :length] = block.items
        payload[:, length:].view("<f4")[:] = block.scores
    else:
        offset, scale, steps = _quantised(block.scores, lowest, highest, (1 << score_bits) - 1)
        words = block.items.astype(np.uint32)
        words <<= np.uint32(score_bits)
        np.bitwise_or(words, steps, payload)
    header = pages[:, :HEADER_BYTES].view(HEADER)[:, 0]
    header[:] = _header(common, size)
    header["user_row"], header["offset"], header["scale"] = block.user_rows, offset, scale
    flat = pages.reshape(-1).data
    records = [flat[begin : begin + size] for begin in range(0, rows * size, size)]
    header["crc"] = [
        crc32(record[CHECKED_FROM:], crc32(key, common.seed)) for key, record in zip(block.keys, records, strict=True)
    ]
    return records


def _header(common: Common, size: int) -> npt.NDArray[np.void]:
    """The header of every record of that size, but for what is each user's own."""
    header = np.zeros((), HEADER)
    for field, marker in MARKERS.items():
        header[field] = marker
    header["index_bits"], header["score_bits"] = common.index_bits, score_bits_for(common.index_bits)
    header["made_at"], header["payload_bytes"] = common.made_at, size - HEADER_BYTES
    return header


def _quantised(
    scores: AnyArray, lowest: AnyArray, highest: AnyArray, steps: int
) -> tuple[AnyArray, AnyArray, AnyArray]:
    """float32[rows] offsets and scales, and uint32[rows, length] of steps, in the arithmetic of `encode_record`."""
    offset = lowest.astype(np.float32) + np.float32(0)  # see `encode_record`: 0, and never -0
    scale = ((highest.astype(np.float64) - offset) / steps + 0.0).astype(np.float32)
    is_flat = ~(scale > 0)
    shares = np.subtract(scores, offset.astype(np.float64)[:, None])  # float64[rows, length]
    shares /= np.where(is_flat, 1, scale).astype(np.float64)[:, None]
    np.rint(shares, shares)
    if is_flat.any():
        shares[is_flat] = 0
    quantised = shares.astype(np.int32)  # half the memory of the shares, and quicker to make than unsigned ones
    np.clip(quantised, 0, steps, quantised)
    return offset, scale, quantised.view(np.uint32)


def _is_storable(block: _Block, lowest: AnyArray, highest: AnyArray, common: Common) -> bool:
    """True when `encode_record` would refuse none of the lists. Lowest and highest are of the scores of each."""
    items = block.items
    if items.shape[1] > MAX_CANDIDATES or not all(map(is_key, block.keys)):
        return False
    if not 0 <= common.made_at < 1 << 64 or not 0 <= int(block.user_rows.min()) <= int(block.user_rows.max()) < 1 << 32:
        return False
    if items.size == 0:
        return True
    is_finite = float(lowest.min()) >= -MAX_SCORE and float(highest.max()) <= MAX_SCORE  # False for NaN too
    if not is_finite or not np.issubdtype(items.dtype, np.integer):
        return False
    ordered = np.sort(items, axis=1)
    is_in_range = int(ordered[:, 0].min()) >= 0 and int(ordered[:, -1].max()) < 1 << common.index_bits
    return is_in_range and not bool((ordered[:, 1:] == ordered[:, :-1]).any())
