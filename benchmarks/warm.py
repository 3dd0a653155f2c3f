"""Lookups of a version in the page cache: against a bare `lmdb.get`, and against other stores with the same lists."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import msgspec
import numpy as np

from benchmarks import peers
from benchmarks.measure import Row, row, time_in_turns
from benchmarks.page_cache import warm
from benchmarks.peers import MissingPeerError, Peer, Records
from benchmarks.versions import item_name, user_name
from prediction_store.opened import OpenedVersion, open_version
from prediction_store.version import Version
from prediction_store.writer import shard_of
from schemas.record_decoder import Decode, record_decoder

OURS, BARE = "ours: get, check, decode", "bare lmdb.get"
OURS_FIRST, BARE_FIRST = "ours, pages not yet mapped", "bare lmdb.get, pages not yet mapped"
REDIS_JSON, REDIS_PACKED, SQLITE, ROCKSDB = "redis, JSON", "redis, packed", "sqlite, packed", "rocksdb, packed"
MAX_JSON_USERS = 100_000
"""33 kB a user: a million would take more memory than the machine has."""
PEER_LOOKUPS = {REDIS_JSON: 3_000, REDIS_PACKED: 20_000, SQLITE: 20_000, ROCKSDB: 20_000}


def measure_warm(root: Path, name: str, users: int, lookups: int) -> tuple[list[Row], dict[str, float | None]]:
    """Lookups of random users; the rows, and how many times as fast ours is as each peer (None: not measured).

    Against the bare get it is how many times as long ours takes.
    """
    chosen = np.random.default_rng(3).integers(0, users, 2 * lookups).tolist()
    names, other_names = [user_name(user) for user in chosen[:lookups]], [user_name(user) for user in chosen[lookups:]]
    opened = open_version(root, name, verify_hashes=False)
    version = Version(opened)
    try:
        for shard in opened.shards:
            warm(Path(shard.path()))
        rows, ratios = _against_bare_gets(opened, version, names, other_names)
        decode = record_decoder(seed=opened.seed, index_bits=opened.manifest.index_bits)
        for peer, fill in _peers(opened, decode, users):
            found, ratio = _against_peer(version, peer, fill, names)
            rows += found
            ratios[peer] = ratio
        return rows, ratios
    finally:
        version.close()


def _against_bare_gets(
    opened: OpenedVersion, version: Version, names: list[str], other_names: list[str]
) -> tuple[list[Row], dict[str, float | None]]:
    gets = [shard.begin().get for shard in opened.shards]

    def bare(of_names: list[str]) -> list[tuple[Callable[[bytes], object], bytes]]:
        keys = [user.encode() for user in of_names]
        return [(gets[shard_of(key, len(gets))], key) for key in keys]

    first = time_in_turns({BARE_FIRST: bare(other_names), OURS_FIRST: [(version.read, user) for user in names]})
    contestants = {BARE: bare(names), OURS: [(version.read, user) for user in names]}
    assert all(call(argument) is not None for calls in contestants.values() for call, argument in calls)
    warm = time_in_turns(contestants)
    rows = [row(name, micros) for name, micros in {**first, **warm}.items()]
    p50 = {found["name"]: float(found["p50_us"]) for found in rows}
    return rows, {BARE: p50[OURS] / p50[BARE], BARE_FIRST: p50[OURS_FIRST] / p50[BARE_FIRST]}


Fill = Callable[[Path], AbstractContextManager[Peer]]


def _peers(opened: OpenedVersion, decode: Decode, users: int) -> Iterator[tuple[str, Fill]]:
    if users <= MAX_JSON_USERS:
        yield REDIS_JSON, lambda folder: peers.redis(folder, _as_json(opened, decode), peers.json_of)
    else:
        print(f"{REDIS_JSON:<44} not measured: {users:,} users would take {33_000 * users / 1e9:.0f} GB")
    yield REDIS_PACKED, lambda folder: peers.redis(folder, _records(opened), decode)
    yield SQLITE, lambda folder: peers.sqlite(folder, _records(opened), decode)
    yield ROCKSDB, lambda folder: peers.rocksdb(folder, _records(opened), decode)


def _against_peer(version: Version, name: str, fill: Fill, names: list[str]) -> tuple[list[Row], float | None]:
    """Ours and a peer by turns; how many times as many lookups ours makes in the same time."""
    names = names[: PEER_LOOKUPS[name]]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shortlist-bench-")))
        try:
            peer = stack.enter_context(fill(folder))
        except MissingPeerError as missing:
            print(f"{name:<44} not measured: {missing}")
            return [], None
        calls = [(peer.read, user.encode()) for user in names]
        assert all(call(argument) is not None for call, argument in calls)
        taken = time_in_turns({name: calls, OURS: [(version.read, user) for user in names]})
    bytes_per_user = round(peer.bytes / version.manifest.counts.records)
    rows = [
        row(name, taken[name], bytes_per_user=bytes_per_user),
        row(f"  ours, beside {name}", taken[OURS]),
    ]
    return rows, float(taken[name].mean() / taken[OURS].mean())


def _records(opened: OpenedVersion) -> Records:
    """Every record of the version, as it stands there."""
    for shard in opened.shards:
        with shard.begin() as transaction:
            yield from transaction.cursor()


def _as_json(opened: OpenedVersion, decode: Decode) -> Records:
    """Every list as people store it: pairs of item id and score."""
    ids = [item_name(item) for item in range(opened.manifest.counts.items)]
    for key, record in _records(opened):
        found = decode(record, key)
        pairs = zip([ids[item] for item in found.items.tolist()], found.scores.tolist(), strict=True)
        yield key, msgspec.json.encode(list(pairs))
