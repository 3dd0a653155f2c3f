"""Who needs a new list: the items and users of today against those that an earlier version's lists were made from.

A list follows from the user's vector, from what the user has consumed, and from the items' vectors. Who has the same
vector, bit for bit, and has consumed the same items, has the same list still, unless it holds an item that is gone or
has another vector, or unless such an item, or a new one, now belongs into it: `carried` sees to that.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset

from jobs import datasets, vectors
from jobs.datasets import Dataset
from jobs.errors import DatasetDamagedError, MissingDatasetError
from jobs.kept_model import ids_of, row_of
from jobs.vectors import USER_VECTORS
from prediction_store import layout
from prediction_store.errors import FormatError, StoreError
from prediction_store.manifest import read_manifest
from prediction_store.records import current_or_none
from prediction_store.succession import way_back
from schemas.config import Config, deciding


class Earlier(NamedTuple):
    """The datasets that a version's lists come from."""

    candidates: Dataset
    prepared: Dataset
    embeddings: Dataset


class Unchanged(NamedTuple):
    """What is as it was then. -1 stands for what is gone, or is no longer the same."""

    candidates: Dataset
    """The lists of then."""
    item_of: np.ndarray
    """int32[items then]: today's item_index of each item_index of then."""
    fresh: np.ndarray
    """int32, ascending: the item_index of today's items that were not there, or have another vector now."""
    user_of: np.ndarray
    """int32[users then]: today's user_index of each user_index of then."""

    @property
    def has_all_items(self) -> bool:
        """True when the catalogue has the same items with the same vectors, and so the same index."""
        return not len(self.fresh) and bool((self.item_of >= 0).all())


def find_earlier(config: Config, embeddings: Dataset) -> tuple[Earlier | None, str]:
    """The datasets behind the current version; None, and why its lists cannot be carried over.

    Where they are gone, those behind the nearest version that `rollback` may go to: a second run of a day finds the
    first one's written over, and those of the night before still there.
    """
    root, first = Path(config.paths.store), ""
    try:
        record = current_or_none(root)
        if record is None:
            return None, "no version is current"
        names = [record.version, *way_back(record, layout.version_names(root))]
    except (StoreError, FormatError) as error:
        return None, f"the current version cannot be read: {error}"
    for name in names:
        earlier, why = _behind(config, name, embeddings)
        if earlier is not None:
            return earlier, ""
        first = first or why
    return None, first


def compare(
    earlier: Earlier, prepared: Dataset, embeddings: Dataset, item_vectors: np.ndarray, folder: Path, *, consumed: bool
) -> Unchanged:
    """Hold today's items and users against those of then.

    On the driver: two numbers per user, one per pair of a user and an item consumed, and the vectors of the items,
    each for both days.

    Args:
        item_vectors: float32[items, d], today's.
        folder: receives USER_VECTORS, float32[users, d] of today, which may be more than memory holds.
        consumed: whether items that were consumed are left out of the lists.
    """
    by_id, user_of = (row_of(ids_of(earlier.prepared, noun), ids_of(prepared, noun)) for noun in ("item", "user"))
    then = vectors.gather(earlier.embeddings.part("items"), "item", len(by_id))
    item_of = np.where(_is_same(then, item_vectors, by_id), by_id, -1)
    now = vectors.gather(embeddings.part("users"), "user", prepared.rows["users"], file=folder / USER_VECTORS)
    for indexes, then in _vectors(earlier.embeddings.part("users"), now.shape[1]):
        user_of[indexes] = np.where(_is_same(then, now, user_of[indexes]), user_of[indexes], -1)
    if consumed:
        before = _consumed(earlier.prepared, user_of, by_id, len(item_vectors))
        today = _consumed(prepared, np.arange(prepared.rows["users"]), np.arange(len(item_vectors)), len(item_vectors))
        others = np.setxor1d(before, today, assume_unique=True) // (len(item_vectors) + 1)
        user_of[np.isin(user_of, others)] = -1
    fresh = np.setdiff1d(np.arange(len(item_vectors), dtype=np.int32), item_of)
    return Unchanged(earlier.candidates, item_of, fresh, user_of)


def _behind(config: Config, name: str, embeddings: Dataset) -> tuple[Earlier | None, str]:
    """The datasets behind a version; None, and why its lists cannot be carried over."""
    try:
        inputs = read_manifest(Path(config.paths.store), name).inputs
    except (StoreError, FormatError) as error:
        return None, f"the current version cannot be read: {error}"
    candidates = _find(config.paths.workspace, "candidates", inputs.get("candidates", ""))
    if candidates is None:
        return None, f"the lists of {name} are no longer in the workspace"
    made_from = candidates.manifest.inputs
    found = [_find(config.paths.workspace, noun, made_from[noun]) for noun in ("prepared", "embeddings")]
    if found[0] is None or found[1] is None:
        return None, f"what the lists of {name} were made from is no longer in the workspace"
    if found[1].extra("space_id") != embeddings.extra("space_id"):
        return None, "the towers have been trained since: see train.keep_days"
    wanted = datasets.fingerprint(candidates.manifest.day, "candidates", made_from, [deciding(config.retrieve)])
    if wanted != candidates.fingerprint:
        return None, f"the lists of {name} were made with other settings"
    return Earlier(candidates, found[0], found[1]), ""


def _find(workspace: str, name: str, fingerprint: str) -> Dataset | None:
    """The dataset with this fingerprint, of whatever day."""
    for folder in sorted(Path(workspace).iterdir(), reverse=True):
        if not datasets.DAY.fullmatch(folder.name):
            continue
        try:
            found = datasets.open_dataset(workspace, folder.name, name)
        except (MissingDatasetError, DatasetDamagedError):
            continue
        if found.fingerprint == fingerprint:
            return found
    return None


def _is_same(then: np.ndarray, now: np.ndarray, row: np.ndarray) -> np.ndarray:
    """bool[n]: which of float32[n, d] `then` are, bit for bit, the rows `row` of `now`; never for row -1."""
    found = row >= 0
    if then.shape[1] != now.shape[1]:
        return np.zeros_like(found)
    found[found] = (then[found].view(np.uint32) == now[row[found]].view(np.uint32)).all(axis=1)
    return found


def _vectors(folder: Path, dimensions: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(user_index, vectors) of a part of `embeddings`, some at a time."""
    for batch in pa.dataset.dataset(folder, format="parquet").to_batches(columns=["user_index", "vector"]):
        if batch.num_rows:
            yield batch.column("user_index").to_numpy(), vectors.matrix(batch.column("vector"), dimensions)


def _consumed(prepared: Dataset, user_of: np.ndarray, item_of: np.ndarray, items: int) -> np.ndarray:
    """int64, ascending: user * (items + 1) + item of what was consumed, each once; users that map to -1 are left out.

    An item that maps to -1 counts as item `items`: who has consumed it then has consumed something else now.
    """
    parts, is_consumed = [np.empty(0, dtype=np.int64)], pa.dataset.field("consumed")
    for batch in prepared.arrow("interactions").to_batches(columns=["user_index", "item_index"], filter=is_consumed):
        user, item = user_of[batch.column("user_index").to_numpy()], item_of[batch.column("item_index").to_numpy()]
        keys = user.astype(np.int64) * (items + 1) + np.where(item < 0, items, item)
        parts.append(np.unique(keys[user >= 0]))
    return np.unique(np.concatenate(parts))
