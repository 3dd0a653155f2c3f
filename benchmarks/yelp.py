"""The Yelp2018 split of the LightGCN paper as a `prepared` dataset, and the protocol of its published tables."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch

from jobs import datasets, model, task
from jobs.features import item_features, user_features
from jobs.shards import Shards
from jobs.towers import ItemTensors, UserTensors
from schemas import tables
from schemas.config import Config

DAY = "2026-01-31"
VALIDATION_SHARE = 0.1
"""Of the training pairs; the epochs are chosen on them, never on the test part."""
DAYS = 28
BATCH = 512


class Pairs(NamedTuple):
    """int64 each, aligned."""

    users: np.ndarray
    items: np.ndarray


class Yelp(NamedTuple):
    """The split as published: users and items numbered from 0."""

    train: Pairs
    test: Pairs
    users: int
    items: int


def read(folder: Path) -> Yelp:
    """The two files of the split."""
    train, test = (_pairs(folder / f"{name}.parquet") for name in ("train", "test"))
    return Yelp(
        train,
        test,
        1 + int(max(train.users.max(), test.users.max())),
        1 + int(max(train.items.max(), test.items.max())),
    )


def write_prepared(data: Yelp, config: Config, *, seed: int = 7) -> None:
    """Write `prepared`. The set has no times, so each pair gets a random one: histories have no order to learn from."""
    rng = np.random.default_rng(seed)
    train, test = data.train, data.test
    chosen = rng.random(len(train.users)) < VALIDATION_SHARE
    split = np.concatenate([np.where(chosen, tables.VALIDATION, tables.TRAIN), np.full(len(test.users), tables.TEST)])
    users, items = (np.concatenate([getattr(train, side), getattr(test, side)]) for side in ("users", "items"))
    times = datasets.end_of(DAY) - rng.integers(1, DAYS * 86_400, len(users))
    known = train.users[~chosen], train.items[~chosen]
    with datasets.step(config.paths.workspace, DAY, "prepared") as draft:
        if draft.is_complete:
            return
        order = np.lexsort((items, times, users))
        blank = [""] * len(users)
        interactions = pa.table(
            {
                "user_index": pa.array(users[order], pa.int32()),
                "item_index": pa.array(items[order], pa.int32()),
                "event": blank,
                "weight": np.ones(len(users), np.float32),
                "time": times[order],
                "session_id": blank,
                "device": blank,
                "consumed": np.ones(len(users), bool),
                "split": pa.array(split[order], pa.int8()),
            },
            schema=tables.INTERACTIONS,
        )
        _write(draft, "interactions", interactions)
        _write(draft, "items", _items(data.items, np.bincount(known[1], minlength=data.items)))
        _write(draft, "users", _users(data.users, np.bincount(known[0], minlength=data.users)))


def measure(data: Yelp, users: np.ndarray, items: np.ndarray) -> dict[str, float]:
    """Recall@20, NDCG@20 and recall@1000 of float32[users, d] and float32[items, d], as LightGCN's tables have them.

    Full ranking without the items of the training part; recall is the share of all test items of a user.

    Source: He et al. 2020, LightGCN, section 4.1.
    """
    trained, tested = _by_user(data.train, data.users), _by_user(data.test, data.users)
    judged = np.flatnonzero(np.diff(tested[0]))
    gains = 1.0 / np.log2(np.arange(2, 22))
    ideal = np.cumsum(gains)

    def judge(part: np.ndarray) -> np.ndarray:
        scores = users[part] @ items.T
        relevant = np.zeros(scores.shape, dtype=bool)
        for row, user in enumerate(part):
            scores[row, trained[1][trained[0][user] : trained[0][user + 1]]] = -np.inf
            relevant[row, tested[1][tested[0][user] : tested[0][user + 1]]] = True
        best = np.argpartition(-scores, 1000, axis=1)[:, :1000]
        order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
        hits = np.take_along_axis(relevant, np.take_along_axis(best, order, axis=1), axis=1)
        wanted = np.diff(tested[0])[part]
        ndcg = hits[:, :20] @ gains / ideal[np.minimum(wanted, 20) - 1]
        return np.stack([hits[:, :20].sum(axis=1) / wanted, ndcg, hits.sum(axis=1) / wanted], axis=1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(judge, np.split(judged, range(BATCH, len(judged), BATCH))))
    means = np.concatenate(found).mean(axis=0)
    return dict(zip(("recall20", "ndcg20", "recall1000"), (round(float(mean), 5) for mean in means), strict=True))


def _pairs(file: Path) -> Pairs:
    table = pa.parquet.read_table(file, columns=["user_id", "item_id"])
    return Pairs(*(table[name].cast(pa.int64()).to_numpy() for name in ("user_id", "item_id")))


def _by_user(pairs: Pairs, users: int) -> tuple[np.ndarray, np.ndarray]:
    """(starts int64[users + 1], items in user order)."""
    order = np.argsort(pairs.users, kind="stable")
    return np.searchsorted(pairs.users[order], np.arange(users + 1)), pairs.items[order]


def _write(draft: datasets.Draft, part: str, table: pa.Table) -> None:
    draft.path.joinpath(part).mkdir()
    pa.parquet.write_table(table, draft.path / part / "part-00000.parquet")
    draft.rows[part] = len(table)


def _items(items: int, counts: np.ndarray) -> pa.Table:
    blank = [""] * items
    columns = {"item_index": np.arange(items, dtype=np.int32), "item_id": [str(n) for n in range(items)]}
    columns |= {"title": blank, "category": blank, "brand": blank, "price": pa.nulls(items, pa.float32())}
    columns |= {"released": pa.nulls(items, pa.int64()), "in_stock": np.ones(items, bool), "interactions": counts}
    return pa.table(columns, schema=tables.ITEMS)


def _users(users: int, counts: np.ndarray) -> pa.Table:
    columns = {"user_index": np.arange(users, dtype=np.int32), "user_id": [str(n) for n in range(users)]}
    columns |= {"segment": [""] * users, "features": [[] for _ in range(users)], "interactions": counts}
    columns |= {"has_row": np.zeros(users, bool)}
    return pa.table(columns, schema=tables.USERS)


def embedded(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """(float32[users, d], float32[items, d]) by the trained model, histories up to the test part; without Spark."""
    prepared, trained = (datasets.open_dataset(config.paths.workspace, DAY, name) for name in ("prepared", "model"))
    towers, card = model.load(trained.path)
    shape = card.architecture
    shards = Shards(prepared, memory_mb=config.train.memory_mb, learn_validation=True)
    items, users = (task.read_sorted(prepared.part(f"{noun}s"), f"{noun}_index") for noun in ("item", "user"))
    every = UserTensors.of(user_features(users, shape.encoding))
    found = torch.zeros(shape.users, shape.dimensions)
    with torch.no_grad():
        vectors = towers.item(ItemTensors.of(item_features(items, shape.encoding)))
        for table in shards.tables():
            known = shards.known(table)
            for part in np.split(np.arange(shape.users), range(BATCH, shape.users, BATCH)):
                history = (torch.from_numpy(array) for array in known.last(part, shape.history_length))
                users_of_part = every.take(torch.from_numpy(part))
                found[part] = towers.user(users_of_part, towers.user.pool(vectors, *history))
    return found.numpy(), vectors.numpy()
