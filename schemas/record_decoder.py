"""The quick way to decode the records of a version: bit for bit what `decode_record` gives, in half the time.

A call of NumPy costs about what LMDB takes for a whole lookup, be it for one number or for a thousand. So the bytes are
copied into a page of the decoder's own, over which all views are ready, and every step but the last writes into memory
that is there already. A record that does not look as expected goes to `decode_record`, which says what is wrong.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from isal.isal_zlib import crc32  # the CRC-32 of zlib, of the same bytes, in a third of the time

from schemas.record import (
    CHECKED_FROM,
    HEADER_BYTES,
    MARKERS,
    MAX_CANDIDATES,
    WIDE,
    Candidates,
    decode_record,
    score_bits_for,
)

Decode = Callable[[bytes | memoryview, bytes], Candidates]
"""Takes a record and its key. For one thread at a time."""

# What differs from record to record: crc | made_at | user_row | offset | scale | payload's length. The bytes between
# them are the same in every record of a version: to compare them costs less than to read them.
_HEADER = struct.Struct(">3xI3xQxIxfxfxH")
assert _HEADER.size == HEADER_BYTES
_ARRAY9, _FORMAT, _U32, _U64, *_LAST_MARKERS = MARKERS.values()


class _Workspace(NamedTuple):
    """Views for records of one length. All lengths share the memory, and nothing in it outlives a call."""

    page: memoryview
    head: memoryview
    """Up to the checksum: three bytes that it does not cover."""
    split: memoryview
    """Index bits, score bits and the marker after them."""
    markers: memoryview
    """The four markers that are left; they are five bytes apart."""
    checked: memoryview
    words: npt.NDArray[np.uint32]
    steps: npt.NDArray[np.uint32]
    signed_steps: npt.NDArray[np.int32]
    """`steps` again: from signed integers the conversion is quicker."""
    scaled: npt.NDArray[np.float32]


def record_decoder(*, seed: int, index_bits: int) -> Decode:
    """A function like `decode_record` for the records of one version. Cost: 12 kB, and 1 kB per length of list met.

    It raises DamagedRecordError when, and with the words that, `decode_record` would.
    """
    # All that the function below uses is a local of this one: attributes would cost it another microsecond.
    score_bits = score_bits_for(index_bits)
    head_is, split_is = bytes([_ARRAY9, _FORMAT, _U32]), bytes([index_bits, score_bits, _U64])
    markers_are = bytes(_LAST_MARKERS)
    low_bits = np.array((1 << score_bits) - 1, np.uint32)
    shift = np.array(score_bits % WIDE, np.uint32)
    numbers = bytearray(8)
    factors = memoryview(numbers).cast("f")
    scale, offset = (np.frombuffer(numbers, np.float32, 1, at).reshape(()) for at in (0, 4))
    page = bytearray(HEADER_BYTES + 4 * MAX_CANDIDATES)
    steps_of_all, scaled_of_all = np.empty(MAX_CANDIDATES, np.uint32), np.empty(MAX_CANDIDATES, np.float32)
    workspaces: dict[int, _Workspace] = {}
    unpack, bitwise_and, multiply, add, right_shift = (
        _HEADER.unpack_from, np.bitwise_and, np.multiply, np.add, np.right_shift
    )  # fmt: skip

    def decode(data: bytes | memoryview, key: bytes) -> Candidates:
        workspace = workspaces.get(len(data))
        if workspace is None:
            if index_bits == WIDE or not _is_possible(len(data)):
                return decode_record(data, key, seed=seed, index_bits=index_bits)
            workspace = workspaces[len(data)] = _workspace(len(data), page, steps_of_all, scaled_of_all)
        copy, head, split, markers, checked, words, steps, signed_steps, scaled = workspace
        copy[:] = data
        crc, made_at, user_row, factors[1], factors[0], length = unpack(copy)
        if (
            crc != crc32(checked, crc32(key, seed))
            or head != head_is
            or split != split_is
            or markers != markers_are
            or length != len(data) - HEADER_BYTES
        ):
            return decode_record(data, key, seed=seed, index_bits=index_bits)
        bitwise_and(words, low_bits, steps)
        scaled[...] = signed_steps
        multiply(scaled, scale, scaled)
        return Candidates(right_shift(words, shift), add(scaled, offset), made_at, user_row)

    return decode


def _is_possible(size: int) -> bool:
    """True when a record of one word per candidate may have that many bytes."""
    return HEADER_BYTES <= size <= HEADER_BYTES + 4 * MAX_CANDIDATES and (size - HEADER_BYTES) % 4 == 0


def _workspace(
    size: int, page: bytearray, steps: npt.NDArray[np.uint32], scaled: npt.NDArray[np.float32]
) -> _Workspace:
    count = (size - HEADER_BYTES) // 4
    copy = memoryview(page)[:size]
    return _Workspace(
        page=copy,
        head=copy[:3],
        split=copy[CHECKED_FROM : CHECKED_FROM + 3],
        markers=copy[18:HEADER_BYTES:5],
        checked=copy[CHECKED_FROM:],
        words=np.ndarray(count, "<u4", page, HEADER_BYTES),
        steps=steps[:count],
        signed_steps=steps[:count].view(np.int32),
        scaled=scaled[:count],
    )
