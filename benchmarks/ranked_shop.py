"""A shop to rank in: vectors in clusters, the items of one side by side as `retrieve` has them, all that signals read.

Every signal has a weight, and lists are the true best of each user, so that the order is for the signals to decide.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.versions import DIMENSIONS, NEIGHBOURS, SHARDS, item_name, user_name
from prediction_store import history
from prediction_store.contexts import Contexts
from prediction_store.user_facts import Consumed
from prediction_store.user_tower import Histories, StoredTower, Tower
from prediction_store.writer import Categories, Texts, VersionDraft, shard_of, write_shard
from reranker.signals import SIGNALS
from schemas.ranker import RankerWeights
from schemas.record import RankedItems
from schemas.record_encoder import Common, Lists, encode_records
from schemas.user_tower import TowerFacts

MEMBERS = 250
"""Items in a cluster."""
HISTORY = 50
"""Interactions kept of a user; half as many items are consumed."""
DEVICES = ("phone", "desktop", "tablet")
DAY = 86_400.0


class Shop(NamedTuple):
    """A store with one version, and who may ask for what."""

    root: Path
    users: int
    items: int


def write_shop(root: Path, users: int = 4_000, items: int = 50_000, candidates: int = 1_000) -> Shop:
    """Write a version and make it current. `candidates` is the length of the lists, at most 1,000."""
    random = np.random.default_rng(7)
    now = int(time.time())
    vectors = _clustered(random, items)
    tastes = _unit(vectors[random.integers(0, items, users)] + vectors[random.integers(0, items, users)])
    digest = hashlib.sha256(f"{users} {items} {candidates}".encode()).hexdigest()
    with VersionDraft.begin(root, digest, now) as draft:
        _write_items(draft, random, vectors, now)
        draft.write_user_vectors(tastes)
        _write_lists(draft, vectors, tastes, candidates, now)
        _write_of_users(draft, random, vectors, tastes)
        near = _near_items(vectors)
        draft.write_neighbours(*near)
        draft.write_together(random.permuted(near[0], axis=1), near[1])
        names = [("hour", str(hour)) for hour in range(24)] + [("weekday", str(day)) for day in range(7)]
        names += [("device", device) for device in DEVICES]
        draft.write_contexts(Contexts(names, random.uniform(-1, 1, (len(names), items)).astype(np.float32)))
        weights = random.uniform(0.2, 1.0, len(SIGNALS)).tolist()
        draft.write_ranker(RankerWeights([signal.name for signal in SIGNALS], weights, "bench"))
        draft.write_report(b'{"users": 0, "recall": {}, "ndcg": {}, "coverage": 0.0, "popularity": {}}')
        manifest = draft.seal(space_id="bench", shards=SHARDS, made_at=now, expires_at=now + 86_400)
    history.cutover(root, manifest.name, who="bench", why="benchmark", now=now, force=True)
    return Shop(root, users, items)


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def _clustered(random: np.random.Generator, items: int) -> npt.NDArray[np.float32]:
    centres = random.standard_normal((items // MEMBERS + 1, DIMENSIONS), np.float32)
    noise = random.standard_normal((items, DIMENSIONS), np.float32)
    return _unit(np.repeat(centres, MEMBERS, axis=0)[:items] + noise)


def _write_items(draft: VersionDraft, random: np.random.Generator, vectors: npt.NDArray[np.float32], now: int) -> None:
    items = len(vectors)
    missing = random.random(items) < 0.05
    columns = {
        "title": Texts([f"Item {item}" for item in range(items)]),
        "category": Categories([f"category {item // MEMBERS % 40}" for item in range(items)]),
        "brand": Categories([f"brand {brand}" for brand in random.integers(0, 400, items)]),
        "price": np.where(missing, np.nan, random.lognormal(3, 1, items)),
        "released": np.where(missing, np.nan, now - random.uniform(0, 400, items) * DAY),
        "in_stock": random.random(items) < 0.95,
        "popularity": random.random(items, np.float32),
        "trend": random.random(items, np.float32),
    }
    draft.write_items(vectors, [item_name(item) for item in range(items)], columns)
    popular = RankedItems(random.permutation(items)[:500].astype(np.uint32), np.linspace(1, 0, 500, dtype=np.float32))
    draft.write_lists({"": popular}, {"": popular})


def _write_lists(
    draft: VersionDraft,
    vectors: npt.NDArray[np.float32],
    tastes: npt.NDArray[np.float32],
    candidates: int,
    now: int,
) -> None:
    users = len(tastes)
    common = Common(made_at=now, seed=draft.seed, index_bits=draft.index_bits)
    chosen = np.empty((users, candidates), np.int32)
    scores = np.empty((users, candidates), np.float32)
    for start in range(0, users, 500):
        products = tastes[start : start + 500] @ vectors.T
        best = np.argpartition(-products, candidates, axis=1)[:, :candidates]
        of_best = np.take_along_axis(products, best, axis=1)
        order = np.argsort(-of_best, axis=1)
        chosen[start : start + 500] = np.take_along_axis(best, order, axis=1)
        scores[start : start + 500] = np.take_along_axis(of_best, order, axis=1)
    keys = [user_name(user).encode() for user in range(users)]
    for shard in range(SHARDS):
        rows = np.array([user for user in range(users) if shard_of(keys[user], SHARDS) == shard])
        of_shard = [keys[user] for user in rows]
        offsets = np.arange(len(rows) + 1) * candidates
        lists = Lists(of_shard, rows, chosen[rows].reshape(-1), scores[rows].reshape(-1), offsets=offsets)
        records = zip(of_shard, encode_records(lists, common), strict=True)
        write_shard(draft.shard_path(shard), records, expected_bytes=5_000 * len(rows))


def _write_of_users(
    draft: VersionDraft,
    random: np.random.Generator,
    vectors: npt.NDArray[np.float32],
    tastes: npt.NDArray[np.float32],
) -> None:
    users, items = len(tastes), len(vectors)
    consumed = np.sort(random.integers(0, items // 25, (users, HISTORY // 2)) * 25 + np.arange(HISTORY // 2), axis=1)
    offsets = np.arange(users + 1) * (HISTORY // 2)
    draft.write_user_facts(Consumed(offsets, consumed.reshape(-1).astype(np.uint32)), [""] * users)
    facts = TowerFacts(is_unit=True, history_length=HISTORY, event_weights={"view": 1.0, "cart": 3.0, "purchase": 5.0})
    matrix = (random.standard_normal((DIMENSIONS, DIMENSIONS)) / DIMENSIONS**0.5).astype(np.float32)
    tower = Tower(facts, matrix, vectors[0].copy(), np.linspace(1, 0.5, 6, dtype=np.float32))
    histories = Histories(
        np.arange(users + 1) * HISTORY,
        random.integers(0, items, users * HISTORY).astype(np.uint32),
        random.choice(np.array([1.0, 3.0, 5.0], np.float32), users * HISTORY),
    )
    draft.write_user_tower(StoredTower(tower, tastes, histories))


def _near_items(vectors: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The nearest of the same cluster, which is where they are."""
    near, scores = [], []
    for start in range(0, len(vectors), MEMBERS):
        of_cluster = vectors[start : start + MEMBERS]
        cosines = of_cluster @ of_cluster.T
        np.fill_diagonal(cosines, -2.0)
        best = np.argsort(-cosines, axis=1)[:, :NEIGHBOURS]
        near.append(best.astype(np.int32) + start)
        scores.append(np.take_along_axis(cosines, best, axis=1))
    return np.concatenate(near), np.concatenate(scores)
