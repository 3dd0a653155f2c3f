"""Check many records of a version at once: what `decode_record` refuses one by one, in a fraction of the time."""

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
    WIDE,
    score_bits_for,
)

MAX_RECORDS: Final = 64
"""Records that are checked together."""
_ROW_BYTES = HEADER_BYTES + 4 * MAX_CANDIDATES


class CheckedRecords(NamedTuple):
    """What stands in some records that are as they were written."""

    lengths: npt.NDArray[np.integer[Any]]
    """Candidates in each."""
    highest_user_row: int
    highest_item: int
    """0 when all lists are empty."""


class RecordChecker:
    """Checks the records of one version. For one thread at a time."""

    def __init__(self, *, seed: int, index_bits: int) -> None:
        self._seed = seed
        self._index_bits = index_bits
        self._rows = np.empty((MAX_RECORDS, _ROW_BYTES), np.uint8)

    def check(self, keys: Sequence[bytes], records: Sequence[bytes | memoryview]) -> CheckedRecords | None:
        """What stands in 1 to `MAX_RECORDS` records; None: look at them one by one, with `decode_record`.

        None whenever there is one that it would refuse, and for records of two arrays, which are not treated here.
        """
        count = len(records)
        sizes = np.fromiter(map(len, records), np.int64, count)
        if self._index_bits == WIDE or int(sizes.min()) < HEADER_BYTES or int(sizes.max()) > _ROW_BYTES:
            return None
        rows = self._rows[:count]
        rows[:] = 0
        flat = rows.reshape(-1).data
        checksums = np.empty(count, np.uint32)
        for row, (key, record) in enumerate(zip(keys, records, strict=True)):
            begin = row * _ROW_BYTES
            end = begin + len(record)
            flat[begin:end] = record
            checksums[row] = crc32(flat[begin + CHECKED_FROM : end], crc32(key, self._seed))
        header = rows[:, :HEADER_BYTES].view(HEADER)[:, 0]
        score_bits = score_bits_for(self._index_bits)
        payload_bytes = header["payload_bytes"].astype(np.int64)
        if not (
            bool((header["crc"] == checksums).all())
            and all(bool((header[field] == marker).all()) for field, marker in MARKERS.items())
            and bool((header["index_bits"] == self._index_bits).all())
            and bool((header["score_bits"] == score_bits).all())
            and bool((payload_bytes == sizes - HEADER_BYTES).all())
            and bool((payload_bytes % 4 == 0).all())
        ):
            return None
        words = rows[:, HEADER_BYTES:].view("<u4")  # [count, MAX_CANDIDATES]; zeros after the end of a list
        return CheckedRecords(payload_bytes // 4, int(header["user_row"].max()), int(words.max()) >> score_bits)
