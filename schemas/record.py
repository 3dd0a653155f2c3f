"""One user's stored value: the candidates, best first.

A thousand take at most 4,080 bytes, which is one overflow page of LMDB: 4,096 bytes, 16 of them its header. (In a
catalogue of more than 16,777,216 items they take two.) `prediction_store/FORMAT.md` describes every byte.

A record is valid msgpack, an array of nine elements whose types are always the widest, so that every field has a fixed
place and decoding needs no parser. The checksum covers the inputs of the version, the user's id and everything after
the checksum: a record that is read under another id, or copied from another version, is as damaged as one with a
flipped bit.
"""

from __future__ import annotations

import struct
from typing import Final
from zlib import crc32

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.errors import DamagedRecordError
from schemas.manifest import RECORD_FORMAT

MAX_CANDIDATES: Final = 1000
MAX_KEY_BYTES: Final = 511
"""Longest user id in UTF-8: LMDB's longest key."""
WIDE: Final = 32
"""Index bits of a record that keeps indexes and scores in two arrays."""
MAX_SCORE: Final = 1e37
"""Scores beyond this would overflow float32 on the way back."""

# array(9) | format | crc u32 | index bits | score bits | made_at u64 | user_row u32 | offset f32 | scale f32 | bin16
_HEADER = struct.Struct(">BB BI B B BQ BI Bf Bf BH")
HEADER_BYTES: Final = _HEADER.size
CHECKED_FROM: Final = 7
"""The checksum covers the record from here to its end."""
_WORD: Final = np.dtype("<u4")
_ARRAY9, _U32, _U64, _F32, _BIN16 = 0x99, 0xCE, 0xCF, 0xCA, 0xC5
HEADER: Final = np.dtype(
    [("array9", "u1"), ("format", "u1"), ("crc_is", "u1"), ("crc", ">u4"), ("index_bits", "u1"), ("score_bits", "u1"),
     ("made_at_is", "u1"), ("made_at", ">u8"), ("user_row_is", "u1"), ("user_row", ">u4"), ("offset_is", "u1"),
     ("offset", ">f4"), ("scale_is", "u1"), ("scale", ">f4"), ("payload_is", "u1"), ("payload_bytes", ">u2")]
)  # fmt: skip
"""The header for NumPy, to read or write those of many records at once."""
MARKERS: Final = {
    "array9": _ARRAY9, "format": RECORD_FORMAT, "crc_is": _U32, "made_at_is": _U64, "user_row_is": _U32,
    "offset_is": _F32, "scale_is": _F32, "payload_is": _BIN16,
}  # fmt: skip
"""The fields of a header that are the same in every record."""
_MARKERS = tuple(MARKERS.values())
assert HEADER.itemsize == HEADER_BYTES


class Candidates(msgspec.Struct, frozen=True, eq=False):
    """One user's candidates, best first. The arrays are copies and stay valid for ever."""

    items: npt.NDArray[np.uint32]
    """uint32[n]: dense item indexes."""
    scores: npt.NDArray[np.float32]
    """float32[n]: base scores, off by at most half a quantisation step."""
    made_at: int
    """The run's logical time, UTC epoch seconds."""
    user_row: int
    """The user's row in the user vectors."""


class RankedItems(msgspec.Struct, frozen=True, eq=False):
    """A ranked list that is nobody's own: popular, trending or neighbouring items, best first."""

    items: npt.NDArray[np.uint32]
    scores: npt.NDArray[np.float32]


def index_bits_for(n_items: int) -> int:
    """How many of a word's 32 bits the item index takes: 20, 24, or `WIDE` for two arrays."""
    if n_items <= 1 << 20:
        return 20
    return 24 if n_items <= 1 << 24 else WIDE


def score_bits_for(index_bits: int) -> int:
    """How many bits are left for the score.

    Raises:
        ValueError: `index_bits` is none of 20, 24 and `WIDE`.
    """
    if index_bits not in (20, 24, WIDE):
        raise ValueError(f"index bits {index_bits}: wanted 20, 24 or {WIDE}")
    return WIDE if index_bits == WIDE else 32 - index_bits


def record_seed(inputs_digest: str) -> int:
    """What the checksums of a version's records start from; equal for equal inputs."""
    return crc32(inputs_digest.encode("ascii"))


def is_key(key: bytes) -> bool:
    """True when the bytes can be the key of a record."""
    return 1 <= len(key) <= MAX_KEY_BYTES


def encode_record(
    key: bytes,
    items: npt.ArrayLike,
    scores: npt.ArrayLike,
    *,
    made_at: int,
    user_row: int,
    seed: int,
    index_bits: int,
) -> bytes:
    """The stored bytes of one user's candidates.

    Args:
        key: the user's id in UTF-8.
        items: dense item indexes, best first, without repetition.
        scores: one finite base score per item; rounded to the steps between the lowest and the highest.
        seed: `record_seed` of the version.

    Raises:
        ValueError: an argument cannot be stored.
    """
    score_bits = score_bits_for(index_bits)
    indexes = np.asarray(items)
    values = np.asarray(scores, dtype=np.float64)
    _check(key, indexes, values, index_bits)
    if index_bits == WIDE:
        offset, scale = np.float32(0), np.float32(1)
        payload = indexes.astype("<u4").tobytes() + values.astype("<f4").tobytes()
    else:
        steps = (1 << score_bits) - 1
        low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
        # The addition makes 0 of -0: which of the two a minimum is depends on how it is computed.
        offset = np.float32(low) + np.float32(0)
        scale = np.float32((float(high) - float(offset)) / steps + 0.0)
        if scale > 0:
            quantised = np.clip(np.rint((values - float(offset)) / float(scale)), 0, steps).astype(np.uint32)
        else:
            quantised = np.zeros(indexes.shape, np.uint32)
        payload = ((indexes.astype(np.uint32) << np.uint32(score_bits)) | quantised).astype("<u4").tobytes()
    fields = [_ARRAY9, RECORD_FORMAT, _U32, 0, index_bits, score_bits, _U64, made_at, _U32, user_row]
    tail = [_F32, float(offset), _F32, float(scale), _BIN16, len(payload)]
    body = _HEADER.pack(*fields, *tail)[CHECKED_FROM:] + payload
    fields[3] = crc32(body, crc32(key, seed))
    return _HEADER.pack(*fields, *tail) + payload


def decode_record(data: bytes | memoryview, key: bytes, *, seed: int, index_bits: int) -> Candidates:
    """The candidates of one user; the arrays do not point into `data`.

    Raises:
        DamagedRecordError: anything is not as it was written, for this user, in this version. A record of another
            format counts as damaged: the manifest names the format, so that a reader never gets this far.
    """
    size = len(data)
    if size < HEADER_BYTES:
        raise DamagedRecordError(f"a record of {size} bytes is shorter than its header of {HEADER_BYTES}")
    (array, number, crc_is, crc, bits, score_bits, time_is, made_at, row_is, user_row, offset_is, offset, scale_is,
     scale, bin_is, length) = _HEADER.unpack_from(data)  # fmt: skip
    if crc32(memoryview(data)[CHECKED_FROM:], crc32(key, seed)) != crc:
        raise DamagedRecordError(f"the record of {_shown(key)} does not match its checksum")
    if (array, number, crc_is, time_is, row_is, offset_is, scale_is, bin_is) != _MARKERS:
        raise DamagedRecordError(f"the record of {_shown(key)} has a wrong layout or format number {number}")
    if (bits, score_bits) != (index_bits, score_bits_for(index_bits)):
        raise DamagedRecordError(
            f"the record of {_shown(key)} has {bits} index bits and {score_bits} score bits;"
            f" wanted {index_bits} and {score_bits_for(index_bits)}"
        )
    if length != size - HEADER_BYTES or length % (8 if bits == WIDE else 4):
        raise DamagedRecordError(
            f"the record of {_shown(key)} has {length} payload bytes; wanted {size - HEADER_BYTES}, in whole candidates"
        )
    if bits == WIDE:
        count = length // 8
        items = np.frombuffer(data, _WORD, count, HEADER_BYTES).astype(np.uint32)
        scores = np.frombuffer(data, "<f4", count, HEADER_BYTES + 4 * count).astype(np.float32)
        return Candidates(items, scores, made_at, user_row)
    words = np.frombuffer(data, _WORD, length // 4, HEADER_BYTES)
    scores = (words & ((1 << score_bits) - 1)).astype(np.float32)
    scores *= scale
    scores += offset
    return Candidates(words >> score_bits, scores, made_at, user_row)


def _check(key: bytes, indexes: npt.NDArray[np.generic], values: npt.NDArray[np.float64], index_bits: int) -> None:
    if not is_key(key):
        raise ValueError(f"a key of {len(key)} bytes; wanted 1 to {MAX_KEY_BYTES}")
    if indexes.ndim != 1 or indexes.shape != values.shape or indexes.size > MAX_CANDIDATES:
        raise ValueError(
            f"{indexes.shape} items, {values.shape} scores; wanted as many of each, at most {MAX_CANDIDATES}"
        )
    if indexes.size == 0:
        return
    if not np.issubdtype(indexes.dtype, np.integer):
        raise ValueError(f"item indexes of type {indexes.dtype}; wanted whole numbers")
    ordered = np.sort(indexes)
    if int(ordered[0]) < 0 or int(ordered[-1]) >= 1 << index_bits:
        raise ValueError(f"item indexes {ordered[0]} to {ordered[-1]}; wanted 0 to {(1 << index_bits) - 1}")
    if bool((ordered[1:] == ordered[:-1]).any()):
        raise ValueError(f"an item stands twice in the list of {_shown(key)}")
    if not bool((np.abs(values) <= MAX_SCORE).all()):  # False for NaN too
        raise ValueError(f"a score of {_shown(key)} is not a finite number")


def _shown(key: bytes) -> str:
    return repr(key.decode("utf-8", "backslashreplace")[:64])
