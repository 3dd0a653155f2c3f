"""The version that was served before: which one may be compared with, and its lists in today's items."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.datasets import Dataset
from jobs.evaluation.held_out import HeldOut
from jobs.evaluation.judged import RECALL_AT, Judged, judge
from prediction_store import layout
from prediction_store.errors import DamagedHistoryError, DamagedVersionError, MissingVersionError, NewerFormatError
from prediction_store.history import read_record
from prediction_store.manifest import read_identity
from prediction_store.reader import Version
from schemas.history import HistoryRecord

BATCH_USERS = 512


def find_previous(root: Path, before: int, known: str) -> HistoryRecord | None:
    """The newest record of the history whose version knows nothing from `before` on; None: there is none left.

    So it is the same one before and after the day's own version becomes current, for that one knows the test part.

    Args:
        before: UTC epoch seconds, the start of the test part.
        known: digest of a manifest that was found fair once: taken at its word, though the version may be gone.
    """
    for number in reversed(layout.history_numbers(root)):
        try:
            record = read_record(root, number)
            if record.manifest_sha256 == known:
                return record
            manifest, sha256 = read_identity(root, record.version)
        except (DamagedHistoryError, DamagedVersionError, MissingVersionError, NewerFormatError):
            continue
        if sha256 == record.manifest_sha256 and manifest.made_at <= before:
            return record
    return None


def judge_previous(
    root: Path, record: HistoryRecord, prepared: Dataset, held_out: HeldOut, users: np.ndarray
) -> tuple[Judged, dict[str, Any]]:
    """The version that a record names, judged by these users (int[n], ascending), and which one it is.

    Raises:
        StoreError: it cannot be read, or is on this host in part only.
    """
    with Version.open(root, record.version, manifest_sha256=record.manifest_sha256) as version:
        lists = PreviousLists(version, prepared, held_out.dense_of)
        judged = judge(lists.batches(users), held_out)
        made_at = version.manifest.made_at
        return judged, {"version": version.name, "made_at": made_at, "users_without_list": lists.users_without}


class PreviousLists:
    """A version's lists as today's users would have got them. `users_without` counts as the lists pass by."""

    def __init__(self, version: Version, prepared: Dataset, dense_of: np.ndarray) -> None:
        self._version = version
        self._prepared = prepared
        self._now = _dense_today(version, prepared, dense_of)
        self._popular = self._today(version.popular().items)
        self.users_without = 0
        """Users that the version has no list for: they would have got its popular items, and are judged on those."""

    def batches(self, users: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """See `judged.Batches`; `users` is int[n], ascending. An item that is gone today leaves its place empty."""
        for numbers, ids in _ids(self._prepared, users):
            lists = np.full((len(numbers), max(RECALL_AT)), -1, dtype=np.int64)
            for row, user in enumerate(ids):
                found = self._version.read(user)
                if found is None or not len(found.items):
                    self.users_without += 1
                    items = self._popular
                else:
                    items = self._today(found.items)
                lists[row, : len(items)] = items[: lists.shape[1]]
            yield numbers, lists

    def _today(self, items: np.ndarray) -> np.ndarray:
        """int64: these items of the version as dense indexes of today, -1 for those that are gone."""
        return self._now[items.astype(np.int64)]


def _dense_today(version: Version, prepared: Dataset, dense_of: np.ndarray) -> np.ndarray:
    """int64[items of the version]: today's dense index of each; -1: it is no longer in the catalogue."""
    items = prepared.arrow("items").to_table(["item_index", "item_id"])
    now = dict(zip(items["item_id"].to_pylist(), dense_of[items["item_index"].to_numpy()].tolist(), strict=True))
    then = version.item_ids(np.arange(version.n_items))
    return np.fromiter((now.get(item, -1) for item in then), dtype=np.int64, count=len(then))


def _ids(prepared: Dataset, users: np.ndarray) -> Iterator[tuple[np.ndarray, list[str]]]:
    """(user_index, user_id) of these users, some at a time."""
    columns = ["user_index", "user_id"]
    for batch in prepared.arrow("users").to_batches(columns=columns, batch_size=BATCH_USERS):
        numbers = batch.column("user_index").to_numpy()
        is_one = np.isin(numbers, users)
        if is_one.any():
            yield numbers[is_one], batch.column("user_id").filter(pa.array(is_one)).to_pylist()
