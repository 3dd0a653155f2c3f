"""The online half: a stored list read and decoded against a bare lmdb.get, and a request against an echo.

    python -m benchmarks.lookup [--users 20000]

The peers run in the same run: `lmdb.get` of the same keys in the same files, and the same server's liveness answer.
What an answer costs without HTTP is in `benchmarks.ranking`.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path

import lmdb
import msgspec
import numpy as np

from benchmarks.measure import Row, finish, header, row, time_each
from benchmarks.server import ask, serving
from benchmarks.versions import SHARDS, item_name, user_name, write_version
from prediction_store import layout
from prediction_store.durable import remove_folder
from prediction_store.reader import Version
from prediction_store.writer import shard_of
from schemas.messages import RecommendRequest, SessionEvent

ITEMS = 5_000
SESSION = [SessionEvent(item=item_name(item)) for item in (7, 11, 13)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--lookups", type=int, default=50_000)
    parser.add_argument("--requests", type=int, default=3_000)
    options = parser.parse_args()
    facts = header("lookup")
    root = Path(tempfile.mkdtemp(prefix="shortlist-bench-"))
    try:
        written = write_version(root, options.users, ITEMS)
        name = written.name
        users = np.random.default_rng(2).integers(0, options.users, options.lookups + options.requests)
        names = [user_name(user) for user in users.tolist()]
        rows = [*store_rows(root, name, names[: options.lookups]), *http_rows(root, names[options.lookups :])]
        p50 = {str(found["name"]): float(found["p50_us"]) for found in rows}
        summary = {
            "bytes_per_user": round(written.shard_bytes / options.users, 1),
            "lookup_vs_get": round(p50["lookup: get, check, decode"] / p50["bare lmdb.get"], 2),
            "lookup_p50_us": p50["lookup: get, check, decode"],
            "http_vs_echo": round(p50["HTTP recommend, session of 3"] / p50["HTTP echo, same server"], 2),
            "build_users_per_s": round(options.users / (written.build_seconds + written.seal_seconds)),
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


def http_rows(root: Path, users: list[str]) -> list[Row]:
    """Requests over one kept connection to one worker, and the peer: the same server's liveness answer."""
    body = [msgspec.json.encode(RecommendRequest(user=user, session=SESSION)) for user in users]
    head = {"content-type": "application/json"}
    with serving(root, workers=1) as (connection,):
        echo = row(
            "HTTP echo, same server",
            time_each((partial(ask, connection, "GET", "/healthz") for _ in body), warm_up=200),
        )
        calls = (partial(ask, connection, "POST", "/v1/recommend", data, head) for data in body)
        ours = row("HTTP recommend, session of 3", time_each(calls, warm_up=200))
    return [echo, ours]


if __name__ == "__main__":
    main()
