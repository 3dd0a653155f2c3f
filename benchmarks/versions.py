"""Versions to measure on: any number of users, each with a thousand candidates, written the way `build` writes them."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prediction_store import durable, history, layout
from prediction_store.writer import Categories, Texts, VersionDraft, shard_of, write_shard
from reranker.signals import default_weights
from schemas.record import RankedItems
from schemas.record_encoder import Common, Lists, encode_records

DIMENSIONS, CANDIDATES, SHARDS, NEIGHBOURS = 64, 1_000, 4, 50
BATCH_USERS = 2_048
POOL_ROWS = 8 * BATCH_USERS
"""Different lists that there are; the users of a shard get one after the other. Their records differ all the same."""
RECORD_BYTES = 4_200


class Written(NamedTuple):
    """A version, and what it took to write it."""

    name: str
    shard_bytes: int
    version_bytes: int
    build_seconds: float
    """From arrays in memory to synced shards: encoding, LMDB, fsync of each shard and of their folder."""
    seal_seconds: float
    """Every record looked at again, every file hashed, the manifest, all syncs up to the final name."""


class ListPool(NamedTuple):
    """Lists in memory, as a join hands them over."""

    items: npt.NDArray[np.int32]  # [rows, CANDIDATES], each row without repetition
    scores: npt.NDArray[np.float32]  # [rows, CANDIDATES], falling


def user_name(user: int) -> str:
    return f"u{user:07}"


def item_name(item: int) -> str:
    return f"i{item:07}"


def list_pool(users: int, items: int, seed: int = 1) -> ListPool:
    random = np.random.default_rng(seed)
    rows = min(users, POOL_ROWS)
    chosen = [random.choice(items, CANDIDATES, replace=False) for _ in range(rows)]
    scores = random.random((rows, CANDIDATES), np.float32) * random.uniform(0.5, 5, (rows, 1)).astype(np.float32)
    return ListPool(np.array(chosen, np.int32), -np.sort(-scores, axis=1))


def write_version(root: Path, users: int, items: int, *, inputs: str = "bench", current: bool = True) -> Written:
    """Write and seal a version, with as many processes as there are cores; make it current, if asked."""
    random = np.random.default_rng(2)
    digest = hashlib.sha256(inputs.encode()).hexdigest()
    now = int(time.time())
    with VersionDraft.begin(root, digest, now) as draft:
        _write_all_but_shards(draft, users, items, now, random)
        work = _Work(
            list_pool(users, items),
            [_Members([], []) for _ in range(SHARDS)],
            [draft.shard_path(shard) for shard in range(SHARDS)],
            Common(made_at=now, seed=draft.seed, index_bits=draft.index_bits),
        )
        for user in range(users):
            key = user_name(user).encode()
            members = work.members[shard_of(key, SHARDS)]
            members.keys.append(key)
            members.rows.append(user)
        build_seconds = _write_shards(work)
        started = time.perf_counter()
        manifest = draft.seal(space_id="bench", shards=SHARDS, made_at=now, expires_at=now + 86_400)
        seal_seconds = time.perf_counter() - started
    shard_bytes = sum(manifest.files[layout.shard_file(shard)].bytes for shard in range(SHARDS))
    folder = layout.version_path(root, manifest.name)
    version_bytes = sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))
    if current:
        history.cutover(root, manifest.name, who="bench", why="benchmark", now=now, force=True)
    return Written(manifest.name, shard_bytes, version_bytes, build_seconds, seal_seconds)


class _Members(NamedTuple):
    """The users of a shard."""

    keys: list[bytes]
    rows: list[int]


class _Work(NamedTuple):
    """What the writing processes inherit."""

    pool: ListPool
    members: list[_Members]
    paths: list[Path]
    common: Common


_inherited: list[_Work] = []


def _write_shards(work: _Work) -> float:
    """Seconds that it takes to write every shard and to sync it, one task a shard, as Spark would have it."""
    _inherited[:] = [work]
    os.sync()  # what was written before is not for the shards to wait for
    started = time.perf_counter()
    try:
        with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("fork")) as processes:
            list(processes.map(_write_shard, range(len(work.paths))))
        durable.sync_folder(work.paths[0].parent)
    finally:
        _inherited.clear()
    return time.perf_counter() - started


def _write_shard(shard: int) -> None:
    (work,) = _inherited
    members = work.members[shard]
    write_shard(work.paths[shard], _records(work, members), expected_bytes=RECORD_BYTES * max(1, len(members.keys)))


def _records(work: _Work, members: _Members) -> Iterator[tuple[bytes, memoryview]]:
    pool = work.pool
    for start in range(0, len(members.keys), BATCH_USERS):
        keys = members.keys[start : start + BATCH_USERS]
        rows = np.array(members.rows[start : start + BATCH_USERS])
        first = start % len(pool.items)
        items, scores = (lists[first : first + len(keys)].reshape(-1) for lists in pool)
        lists = Lists(keys, rows, items, scores, offsets=np.arange(len(keys) + 1) * CANDIDATES)
        yield from zip(keys, encode_records(lists, work.common), strict=True)


def _write_all_but_shards(draft: VersionDraft, users: int, items: int, now: int, random: np.random.Generator) -> None:
    vectors = random.standard_normal((items, DIMENSIONS), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    columns = {
        "title": Texts([f"Item {item}" for item in range(items)]),
        "category": Categories([f"category {item % 40}" for item in range(items)]),
        "brand": Categories([f"brand {item % 200}" for item in range(items)]),
        "price": random.uniform(1, 100, items).astype(np.float32),
        "released": np.full(items, float(now)),
        "in_stock": np.ones(items, np.bool_),
        "popularity": random.random(items, np.float32),
    }
    draft.write_items(vectors, [item_name(item) for item in range(items)], columns)
    draft.write_user_vectors(random.standard_normal((users, DIMENSIONS), dtype=np.float32))
    first = np.arange(500, dtype=np.uint32)
    popular = {"": RankedItems(first, np.linspace(1, 0, 500, dtype=np.float32))}
    draft.write_lists(popular, popular)
    draft.write_user_facts(None, [""] * users)
    near = random.integers(0, items, (items, NEIGHBOURS), dtype=np.int32)
    draft.write_neighbours(near, np.tile(np.linspace(1, 0.5, NEIGHBOURS, dtype=np.float32), (items, 1)))
    draft.write_ranker(default_weights("bench"))
    draft.write_report(b'{"users": 0, "recall": {}, "ndcg": {}, "coverage": 0.0, "popularity": {}}')
