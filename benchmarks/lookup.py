"""The online half: a stored list read and decoded against a bare lmdb.get, and a request against an echo.

    python -m benchmarks.lookup [--users 20000]

The peers run in the same run: `lmdb.get` of the same keys in the same files, and the same server's liveness answer.
"""

from __future__ import annotations

import argparse
import http.client
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import lmdb
import msgspec
import numpy as np

from benchmarks.measure import Row, finish, header, row, time_each
from prediction_store import history, layout
from prediction_store.durable import remove_folder
from prediction_store.reader import Version
from prediction_store.writer import Categories, Texts, VersionDraft, shard_of, write_shard
from reranker.recommend import open_reranker
from reranker.signals import default_weights
from schemas.config import Config, Paths
from schemas.messages import RecommendRequest, SessionEvent
from schemas.record import RankedItems, encode_record

ITEMS, DIMENSIONS, CANDIDATES, SHARDS = 5_000, 64, 1_000, 4
INPUTS = "0" * 64
SESSION = [SessionEvent(item=f"i{index:07}") for index in (7, 11, 13)]
NO_HEAD: dict[str, str] = {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--lookups", type=int, default=50_000)
    parser.add_argument("--requests", type=int, default=3_000)
    options = parser.parse_args()
    facts = header("lookup")
    root = Path(tempfile.mkdtemp(prefix="shortlist-bench-"))
    try:
        started = time.perf_counter()
        name = write_version(root, options.users)
        build_seconds = time.perf_counter() - started
        users = np.random.default_rng(2).integers(0, options.users, options.lookups + options.requests)
        names = [f"u{user:07}" for user in users]
        rows = [*store_rows(root, name, names[: options.lookups]), *rank_rows(root, names[options.lookups :])]
        rows += http_rows(root, names[options.lookups :])
        p50 = {str(found["name"]): float(found["p50_us"]) for found in rows}
        shards = sum(file.stat().st_size for file in (layout.version_path(root, name) / "candidates").iterdir())
        summary = {
            "bytes_per_user": round(shards / options.users, 1),
            "lookup_vs_get": round(p50["lookup: get, check, decode"] / p50["bare lmdb.get"], 2),
            "lookup_p50_us": p50["lookup: get, check, decode"],
            "rank_p50_us": p50["rank 1,000 candidates, session of 3"],
            "http_vs_echo": round(p50["HTTP recommend, session of 3"] / p50["HTTP echo, same server"], 2),
            "build_users_per_s": round(options.users / build_seconds),
        }
        finish(facts, rows, summary)
    finally:
        remove_folder(root)


def store_rows(root: Path, name: str, users: list[str]) -> list[Row]:
    """A stored list through the reader, and the peer: `lmdb.get` of the same keys in the same files."""
    with Version.open(root, name) as version:
        ours = row(
            "lookup: get, check, decode", time_each((partial(version.read, user) for user in users), warm_up=5_000)
        )
    shards = [
        lmdb.open(
            str(layout.version_path(root, name) / layout.shard_file(shard)), subdir=False, readonly=True, lock=False
        )
        for shard in range(SHARDS)
    ]
    transactions = [shard.begin() for shard in shards]
    keys = [user.encode() for user in users]
    calls = (partial(transactions[shard_of(key, SHARDS)].get, key) for key in keys)
    peer = row("bare lmdb.get", time_each(calls, warm_up=5_000))
    for shard in shards:
        shard.close()
    return [peer, ours]


def rank_rows(root: Path, users: list[str]) -> list[Row]:
    """The whole answer in process: look up, three session items, filter, score, top 20."""
    config = Config(paths=Paths(store=str(root)))
    with open_reranker(config) as reranker:
        requests = [RecommendRequest(user=user, session=SESSION) for user in users]
        calls = (partial(reranker.recommend, request) for request in requests)
        return [row("rank 1,000 candidates, session of 3", time_each(calls, warm_up=200))]


def http_rows(root: Path, users: list[str]) -> list[Row]:
    """Requests over one kept connection to one worker, and the peer: the same server's liveness answer."""
    body = [msgspec.json.encode(RecommendRequest(user=user, session=SESSION)) for user in users]
    head = {"content-type": "application/json"}
    with serving(root) as connection:
        echo = row(
            "HTTP echo, same server",
            time_each((partial(ask, connection, "GET", "/healthz") for _ in body), warm_up=200),
        )
        calls = (partial(ask, connection, "POST", "/v1/recommend", data, head) for data in body)
        ours = row("HTTP recommend, session of 3", time_each(calls, warm_up=200))
    return [echo, ours]


@contextmanager
def serving(root: Path) -> Iterator[http.client.HTTPConnection]:
    """A server with one worker on a free loopback port, ended by its own process id."""
    argv = [sys.executable, "-m", "shortlist", "serve", "--port", "0", "--workers", "1", "--set", f"paths.store={root}"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[2]
            connection = http.client.HTTPConnection(url.removeprefix("http://"))
            while ask(connection, "GET", "/readyz") != 200:
                time.sleep(0.1)
            yield connection
            connection.close()
        finally:
            server.terminate()


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    head: dict[str, str] = NO_HEAD,
) -> int:
    """The status of one request; the answer is read to its end."""
    connection.request(method, path, body, head)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def write_version(root: Path, users: int) -> str:
    """A version of random lists, current in the store at `root`; its name."""
    random = np.random.default_rng(1)
    with VersionDraft.begin(root, INPUTS, time.time()) as draft:
        vectors = random.standard_normal((ITEMS, DIMENSIONS), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        columns = {
            "title": Texts([f"Item {index}" for index in range(ITEMS)]),
            "category": Categories([f"category {index % 40}" for index in range(ITEMS)]),
            "brand": Categories([f"brand {index % 200}" for index in range(ITEMS)]),
            "price": random.uniform(1, 100, ITEMS).astype(np.float32),
            "released": np.full(ITEMS, time.time()),
            "in_stock": np.ones(ITEMS, np.bool_),
            "popularity": random.random(ITEMS, np.float32),
        }
        draft.write_items(vectors, [f"i{index:07}" for index in range(ITEMS)], columns)
        draft.write_user_vectors(random.standard_normal((users, DIMENSIONS), dtype=np.float32))
        first = np.arange(500, dtype=np.uint32)
        popular = {"": RankedItems(first, np.linspace(1, 0, 500, dtype=np.float32))}
        draft.write_lists(popular, popular)
        draft.write_user_facts(None, [""] * users)
        near = np.argpartition(-(vectors @ vectors.T), 50, axis=1)[:, :50].astype(np.int32)
        draft.write_neighbours(near, np.ones(near.shape, np.float32))
        draft.write_ranker(default_weights("bench"))
        draft.write_report(b'{"users": 0, "recall": {}, "ndcg": {}, "coverage": 0.0, "popularity": {}}')
        keys: list[list[tuple[bytes, int]]] = [[] for _ in range(SHARDS)]
        for user in range(users):
            key = b"u%07d" % user
            keys[shard_of(key, SHARDS)].append((key, user))
        for shard, members in enumerate(keys):
            write_shard(
                draft.shard_path(shard), records(members, draft, random), expected_bytes=5_000 * max(1, len(members))
            )
        now = int(time.time())
        draft.seal(space_id="bench", shards=SHARDS, made_at=now, expires_at=now + 86_400)
        name = draft.name
    history.cutover(root, name, who="bench", why="benchmark", now=now, force=True)
    return name


def records(
    members: list[tuple[bytes, int]], draft: VersionDraft, random: np.random.Generator
) -> Iterator[tuple[bytes, bytes]]:
    scores = np.linspace(1, 0, CANDIDATES, dtype=np.float32)
    for key, user in members:
        items = random.permutation(ITEMS)[:CANDIDATES]
        yield (
            key,
            encode_record(
                key,
                items,
                scores,
                made_at=int(time.time()),
                user_row=user,
                seed=draft.seed,
                index_bits=draft.index_bits,
            ),
        )


if __name__ == "__main__":
    main()
