"""Lookups of a version that is not in the page cache: pages read for each, and how long the disk takes."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from benchmarks.measure import Row, row
from benchmarks.page_cache import evict, resident_pages
from benchmarks.versions import SHARDS, user_name
from prediction_store import layout
from prediction_store.opened import OpenedVersion, open_version
from prediction_store.version import Version
from prediction_store.writer import shard_of

COLD = "ours, cold: one page from disk"


def measure_cold(root: Path, name: str, users: int, lookups: int) -> tuple[list[Row], float | None]:
    """Lookups of different users, once the tree's inner pages are in memory; the row, and pages read per lookup.

    Below one where LMDB's first read of a file has brought in a few records that stand at its beginning. None: the file
    system keeps its pages in memory. Requires: no process has the version open.
    """
    files = [layout.version_path(root, name) / layout.shard_file(shard) for shard in range(SHARDS)]
    for file in files:
        evict(file)
    if left := sum(map(resident_pages, files)):
        print(f"{COLD:<44} not measured: {left} pages would not leave the page cache")
        return [], None
    opened = open_version(root, name, verify_hashes=False)
    version = Version(opened)
    try:
        _warm_tree(opened, users)
        canaries = set(version.manifest.canaries)
        chosen = np.random.default_rng(4).choice(users, min(users, lookups) // 2, replace=False).tolist()
        names = [found for user in chosen if (found := user_name(user)) not in canaries]
        before = sum(map(resident_pages, files))
        taken = []
        for user in names:
            started = time.perf_counter_ns()
            found = version.read(user)
            taken.append((time.perf_counter_ns() - started) / 1000)
            assert found is not None
        pages = (sum(map(resident_pages, files)) - before) / len(names)
    finally:
        version.close()
    return [row(COLD, np.array(taken), pages_per_lookup=round(pages, 3))], pages


def _warm_tree(opened: OpenedVersion, users: int) -> None:
    """Read every branch and leaf and no record: ask for keys that are not there, each after one that is."""
    gets = [shard.begin().get for shard in opened.shards]
    for user in range(users):
        key = user_name(user).encode()
        assert gets[shard_of(key, len(gets))](key + b"\0") is None
