"""Judge the lists: what users did after the training data ended, against what they were offered, and popularity too.

Streams over the judged lists; what it keeps per user are a few numbers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset

from jobs import datasets, index, metrics
from jobs.datasets import Dataset
from jobs.errors import NothingToJudgeError
from jobs.progress import Report
from schemas.config import Config
from schemas.tables import TEST

RECALL_AT = (20, 100, 1000)
NDCG_AT = 20
COVERAGE_AT = 100
DAY_SECONDS = 86_400
ACTIVE_DAYS = 30
BATCH_USERS = 512


class Pairs(NamedTuple):
    """Distinct (user, item) pairs sorted by user; both int32[pairs], items as dense indexes."""

    user: np.ndarray
    item: np.ndarray


def run(config: Config, day: str) -> Report:
    """Write `evaluation`: report.json, the candidates' recall, NDCG and coverage beside those of the popularity order.

    And `active`: how many users did something in the last days of the data, and how many of them get a list. And
    `search`: how the candidates were found, so that a version says it too.

    A user is judged on the items of the test interactions, without those that the policy left out of the list because
    the user had consumed them before: nobody could have been offered these. With no test interactions at all, as on
    the first days of a shop, the report says 0 users and its measures are null; that judges nothing and is no error.

    Raises:
        NothingToJudgeError: there are test interactions, and not one list or not one item of them can be judged.
    """
    started = time.monotonic()
    prepared = datasets.open_dataset(config.paths.workspace, day, "prepared")
    candidates = datasets.open_dataset(config.paths.workspace, day, "candidates")
    with datasets.step(
        config.paths.workspace, day, "evaluation", inputs=[prepared, candidates], settings=[config.retrieve]
    ) as draft:
        if draft.complete is not None:
            return Report(step="evaluate", day=day, skipped=True, rows=draft.complete.rows)
        report = _judge(prepared, candidates, drop_consumed=config.retrieve.consumed == "drop")
        report["search"] = {name: candidates.extra(name) for name in sorted(candidates.manifest.extra)}
        report["active"] = _active(prepared, candidates, datasets.end_of(day))
        (draft.path / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        draft.rows["users"] = report["users"]
    recall = {"recall@100": report["recall"]["100"], "popularity@100": report["popularity"]["recall"]["100"]}
    return Report(step="evaluate", day=day, rows=draft.rows, seconds=time.monotonic() - started, details=recall)


def _judge(prepared: Dataset, candidates: Dataset, *, drop_consumed: bool) -> dict:
    dense_of = index.inverse(np.load(candidates.part("order.npy")))
    trained = _dense_counts(prepared, dense_of)
    is_test = pa.dataset.field("split") == TEST
    all_wanted = _pairs(prepared, is_test, dense_of)
    consumed = _pairs(prepared, ~is_test & pa.dataset.field("consumed"), dense_of, only=np.unique(all_wanted.user))
    if not drop_consumed:
        consumed = Pairs(consumed.user[:0], consumed.item[:0])
    wanted = _without(all_wanted, consumed, len(dense_of))
    popularity = _popularity_order(prepared, dense_of)
    ours, theirs = Judged(len(dense_of)), Judged(len(dense_of))
    for users, lists in _batches(candidates):
        target = _rows(wanted, users)
        excluded = _rows(consumed, users)
        has_wanted = np.bincount(target.user, minlength=len(users)) > 0
        for judged, offered in ((ours, lists), (theirs, _first_of(popularity, excluded, len(users)))):
            judged.add(users, offered, target, has_wanted)
    if len(all_wanted.user) and not ours.users:
        raise NothingToJudgeError(
            f"{len(all_wanted.user)} test interactions, and no list of their users that they could judge",
            hint="run again: shortlist retrieve; or hold out more: split.test_days",
        )
    times = pa.dataset.dataset(prepared.part("interactions"), format="parquet").to_table(["time"], filter=is_test)
    return {
        "users": sum(map(len, ours.users)),
        "interactions": len(wanted.user),
        "cold_items_share": round(float((trained[wanted.item] == 0).mean()), 6) if len(wanted.item) else None,
        "test_from": pa.compute.min(times["time"]).as_py(),
        **ours.measures(),
        "popularity": theirs.measures(),
    }


def _active(prepared: Dataset, candidates: Dataset, end: int) -> dict[str, int]:
    """Users with an interaction in the last `ACTIVE_DAYS` days before `end`, and those of them with a list."""
    is_active, has_list = (np.zeros(prepared.rows["users"], dtype=bool) for _ in range(2))
    since = pa.dataset.field("time") >= end - ACTIVE_DAYS * DAY_SECONDS
    interactions = pa.dataset.dataset(prepared.part("interactions"), format="parquet")
    for batch in interactions.to_batches(columns=["user_index"], filter=since):
        is_active[batch.column("user_index").to_numpy()] = True
    served = pa.dataset.dataset(candidates.part("users"), format="parquet")
    for batch in served.to_batches(columns=["user_index", "items"], batch_size=BATCH_USERS):
        is_filled = np.diff(batch.column("items").offsets.to_numpy()) > 0
        has_list[batch.column("user_index").to_numpy()[is_filled]] = True
    return {"days": ACTIVE_DAYS, "users": int(is_active.sum()), "covered": int((is_active & has_list).sum())}


class Judged:
    """Gathers one ranking's measures: a number per user and measure, added up in user order whatever came first."""

    def __init__(self, items: int) -> None:
        self.users: list[np.ndarray] = []
        self._values: list[np.ndarray] = []
        self._seen = np.zeros(items, dtype=bool)

    def add(self, users: np.ndarray, lists: np.ndarray, wanted: Pairs, has_wanted: np.ndarray) -> None:
        """Judge the `lists` of `users` (rows alike) that `has_wanted` marks; coverage counts every list."""
        metrics.mark_seen(self._seen, lists, COVERAGE_AT)
        if not has_wanted.any():
            return
        relevant = metrics.mark_relevant(lists, wanted.user, wanted.item, len(self._seen))[has_wanted]
        count = np.bincount(wanted.user, minlength=len(users))[has_wanted]
        measured = [metrics.recall_at(k, relevant, count) for k in RECALL_AT]
        measured.append(metrics.ndcg_at(NDCG_AT, relevant, count))
        self.users.append(users[has_wanted])
        self._values.append(np.stack(measured, axis=1))  # [users, measures]

    def measures(self) -> dict:
        """The means, as the report has them; null when nobody was judged."""
        means: list[float | None] = [None] * (len(RECALL_AT) + 1)
        if self.users:
            order = np.argsort(np.concatenate(self.users))
            means = [round(float(mean), 6) for mean in np.concatenate(self._values)[order].mean(axis=0)]
        return {
            "recall": {str(k): mean for k, mean in zip(RECALL_AT, means[:-1], strict=True)},
            "ndcg": {str(NDCG_AT): means[-1]},
            "coverage": round(metrics.coverage(self._seen), 6) if self.users else None,
        }


def _batches(candidates: Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(users int32[m], lists int32[m, width] of dense indexes, padded with -1), at most `BATCH_USERS` at a time."""
    source = pa.dataset.dataset(candidates.part("evaluation"), format="parquet")
    for batch in source.to_batches(columns=["user_index", "items"], batch_size=BATCH_USERS):
        items = batch.column("items")
        lengths = np.diff(items.offsets.to_numpy())
        lists = np.full((len(lengths), max(lengths, default=0)), -1, dtype=np.int64)
        lists[np.arange(lists.shape[1]) < lengths[:, None]] = items.flatten().to_numpy()
        yield batch.column("user_index").to_numpy(), lists


def _pairs(
    prepared: Dataset, rows: pa.dataset.Expression, dense_of: np.ndarray, only: np.ndarray | None = None
) -> Pairs:
    """The distinct (user, item) pairs of some interactions; `only` limits them to these users."""
    source = pa.dataset.dataset(prepared.part("interactions"), format="parquet")
    keys = [np.empty(0, dtype=np.int64)]
    for batch in source.to_batches(columns=["user_index", "item_index"], filter=rows):
        user = batch.column("user_index").to_numpy().astype(np.int64)
        key = user * len(dense_of) + dense_of[batch.column("item_index").to_numpy()]
        keys.append(np.unique(key if only is None else key[np.isin(user, only)]))
    distinct = np.unique(np.concatenate(keys))
    return Pairs(*(part.astype(np.int32) for part in np.divmod(distinct, max(len(dense_of), 1))))


def _without(pairs: Pairs, others: Pairs, items: int) -> Pairs:
    keys, unwanted = (part.user.astype(np.int64) * items + part.item for part in (pairs, others))
    keep = ~np.isin(keys, unwanted)
    return Pairs(pairs.user[keep], pairs.item[keep])


def _rows(pairs: Pairs, users: np.ndarray) -> Pairs:
    """The pairs of these users, with the row of `users` in place of the user."""
    start, stop = np.searchsorted(pairs.user, users, "left"), np.searchsorted(pairs.user, users, "right")
    lengths = stop - start
    row = np.repeat(np.arange(len(users)), lengths)
    place = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + np.repeat(start, lengths)
    return Pairs(row, pairs.item[place])


def _popularity_order(prepared: Dataset, dense_of: np.ndarray) -> np.ndarray:
    """Dense indexes by how many interactions the items had before the test part, most first; ties by item_index."""
    counts = np.zeros(len(dense_of), dtype=np.int64)  # [item_index]
    source = pa.dataset.dataset(prepared.part("interactions"), format="parquet")
    for batch in source.to_batches(columns=["item_index"], filter=pa.dataset.field("split") != TEST):
        counts += np.bincount(batch.column("item_index").to_numpy(), minlength=len(counts))
    return dense_of[np.argsort(-counts, kind="stable")]


def _dense_counts(prepared: Dataset, dense_of: np.ndarray) -> np.ndarray:
    """int64[dense]: interactions of the train part, by dense index."""
    items = pa.dataset.dataset(prepared.part("items"), format="parquet").to_table(["item_index", "interactions"])
    counts = np.zeros(len(dense_of), dtype=np.int64)
    counts[dense_of[items["item_index"].to_numpy()]] = items["interactions"].to_numpy()
    return counts


def _first_of(order: np.ndarray, excluded: Pairs, users: int) -> np.ndarray:
    """int[users, ≤ 1000]: for each row the first items of `order` that it does not exclude, padded with -1."""
    place_of = np.empty(len(order), dtype=np.int64)
    place_of[order] = np.arange(len(order))
    most = int(np.bincount(excluded.user, minlength=max(users, 1)).max())
    width = min(len(order), max(RECALL_AT) + most)
    is_left = np.ones((users, width), dtype=bool)
    place = place_of[excluded.item]
    is_left[excluded.user[place < width], place[place < width]] = False
    columns = np.argsort(~is_left, axis=1, kind="stable")[:, : max(RECALL_AT)]
    return np.where(np.take_along_axis(is_left, columns, axis=1), order[columns], -1)
