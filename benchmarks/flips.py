"""What a cutover does to the lookups of a process that follows the store."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import server
from benchmarks.measure import Row, row
from benchmarks.page_cache import evict, warm
from benchmarks.versions import user_name
from prediction_store import layout
from prediction_store.reader import Store

POLL_SECONDS = 0.2
SECOND_NS = 1_000_000_000


class Lookups(NamedTuple):
    """Microseconds of each lookup, by when it began."""

    quiet: list[np.ndarray]
    """Second by second."""
    while_verified: np.ndarray
    """From the command's start to the flip: first the command, then the follower reads and hashes every file."""
    after: np.ndarray
    """In the second that begins with the first lookup of the new version."""


def measure_flips(root: Path, users: int, names: list[str], *, quiet_seconds: float) -> tuple[list[Row], float]:
    """Cut over to each version in turn while lookups go on; none of them has been read, or is in the page cache.

    The version served until then is: it is read once more before the quiet seconds.

    The rows, and the worst p99 in the second after a flip as a multiple of the p99 of a quiet second before it: of the
    one in the middle, so that a burst of noise before the flip does not flatter it. The store keeps two versions open,
    so that the second flip also closes one.
    """
    rows: list[Row] = []
    ratios = []
    store = Store(root)
    store.refresh()
    with _following(store):
        for number, name in enumerate(names, 1):
            for path in layout.files_of(layout.version_path(root, name)).values():
                evict(path)
            with store.acquire() as version:
                served = layout.version_path(root, version.name)
            for path in layout.files_of(served).values():
                warm(path)
            os.sync()
            found = _look_up_through_a_flip(store, root, name, users, quiet_seconds)
            quiet_p99 = float(np.median([np.percentile(second, 99) for second in found.quiet]))
            ratios.append(float(np.percentile(found.after, 99)) / quiet_p99)
            rows += [
                row(f"flip {number}: quiet", np.concatenate(found.quiet), p99_of_a_second_us=round(quiet_p99, 1)),
                row(f"flip {number}: while the version is verified", found.while_verified),
                row(f"flip {number}: the second after", found.after, p99_ratio=round(ratios[-1], 2)),
            ]
    store.close()
    return rows, max(ratios)


def _look_up_through_a_flip(store: Store, root: Path, name: str, users: int, quiet_seconds: float) -> Lookups:
    random = np.random.default_rng(5)
    lookups = cycle([user_name(user) for user in random.integers(0, users, 200_000).tolist()])
    clock = time.perf_counter_ns
    starts: list[int] = []
    taken: list[int] = []
    cutover: subprocess.Popen[bytes] | None = None
    begun_at = clock()
    commanded_at = begun_at + round(quiet_seconds * SECOND_NS)
    flipped_at: int | None = None
    for user in lookups:
        started = clock()
        with store.acquire() as version:
            found = version.read(user)
        ended = clock()
        starts.append(started)
        taken.append(ended - started)
        assert found is not None
        if cutover is None:
            if ended > commanded_at:
                cutover = server.start(root, "cutover", name, "--force", "--why", "benchmark")
        elif flipped_at is None:
            if version.name == name:
                flipped_at = started
            assert cutover.poll() in (None, 0), "the cutover failed"
        elif ended > flipped_at + SECOND_NS:
            cutover.wait()
            break
    assert flipped_at is not None
    began, micros = np.array(starts), np.array(taken) / 1000
    quiet_ends = np.searchsorted(began, np.arange(begun_at + SECOND_NS, commanded_at, SECOND_NS))
    return Lookups(
        quiet=[second for second in np.split(micros[began < commanded_at], quiet_ends) if len(second)],
        while_verified=micros[(began >= commanded_at) & (began < flipped_at)],
        after=micros[began >= flipped_at],
    )


@contextmanager
def _following(store: Store) -> Iterator[None]:
    """A thread that refreshes the store as a worker's does."""
    stopping = threading.Event()

    def follow() -> None:
        while not stopping.wait(POLL_SECONDS):
            store.refresh()

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        yield
    finally:
        stopping.set()
        follower.join()
