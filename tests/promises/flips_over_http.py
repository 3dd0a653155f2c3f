"""Promise 3: no answer mixes versions and no request fails, while cutover and rollback follow one another.

A real server with several workers. A version's items begin with a letter of its own, so that every answer shows where
it is from. A flip counts when every worker has taken it, which their log says.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving_shop import Shop
from shop_server import PATIENCE_SECONDS, Server

from promises.http_load import Askers, ask_steadily
from promises.outcome import Outcome

WORKERS = 4
KINDS = "abc"
"""Three versions: a worker keeps two open, so that some of the flips have to open one anew."""
REQUESTS_A_FLIP = 100
STEADY_PER_SECOND = 100.0
FLIPS_PER_SECOND = 2.0
WINDOW_REQUESTS = 500
"""While latency is measured."""
QUICK_POLL = "serve.poll_seconds=0.02"
"""So that many flips fit in an hour; latency is measured with the poll that everybody has."""


def run(seed: int, trials: int, folder: Path, *, workers: int = WORKERS) -> Outcome:
    """That many flips, with a hundred requests for each; `tried` counts the requests."""
    outcome = Outcome()
    with served(folder, QUICK_POLL, workers=workers) as (shop, server, kind_of):
        publisher = Publisher(shop, server, kind_of, random.Random(seed))
        askers = Askers(server.port, kind_of, processes=2, lines=8)
        try:
            while publisher.flips < trials or askers.answered < trials * REQUESTS_A_FLIP:
                publisher.flip()
        finally:
            askers.stop(outcome)
        died = [line for line in server.lines() if line["event"] == "worker died"]
        outcome.violate_each(map(str, died), "the server's log")
    outcome.tried = outcome.counts["requests"]
    outcome.counts |= {"flips": publisher.flips, "rollbacks": publisher.rollbacks}
    return outcome


def run_steady(seed: int, trials: int, folder: Path) -> Outcome:
    """That many requests at a constant rate without a flip, and as many with: what a flip costs those who wait."""
    outcome = Outcome()
    with served(folder) as (shop, server, kind_of):
        publisher = Publisher(shop, server, kind_of, random.Random(seed))
        _window(server, kind_of, None, outcome)  # warms up
        while outcome.tried < 2 * trials:
            for name in ("quiet", "flips"):
                stop = threading.Event()
                flipping = threading.Thread(target=publisher.flip_until, args=(stop,))
                if name == "flips":
                    flipping.start()
                _window(server, kind_of, name, outcome)
                stop.set()
                if name == "flips":
                    flipping.join()
    outcome.counts["flips while measured"] = publisher.flips
    return outcome


@contextmanager
def served(folder: Path, *overrides: str, workers: int = WORKERS) -> Iterator[tuple[Shop, Server, dict[str, str]]]:
    """A shop with a version of each kind, the server over it, and the kind of each version."""
    shop = Shop(folder / "store")
    kind_of = {shop.publish(kind, cutover=False): kind for kind in KINDS}
    shop.cut_over(next(iter(kind_of)))
    server = Server(shop.root, folder, workers, *overrides)
    try:
        Log(server).wait_for_workers(number=1)
        yield shop, server, kind_of
        server.stop()
    finally:
        server.end()


class Log:
    """What the workers say that they serve."""

    def __init__(self, server: Server) -> None:
        self._workers = server.n_workers
        self._path, self._place = server.log, 0
        self._serving: Counter[int] = Counter()
        """Workers that have taken each history record."""

    def wait_for_workers(self, number: int) -> float:
        """Return when every worker has taken a history record; the time at which that was seen."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._serving[number] < self._workers:
            assert time.monotonic() < deadline, f"record {number} was taken by {self._serving[number]} workers"
            self._read()
            time.sleep(0.001)
        return time.monotonic()

    def _read(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._place)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._place += len(line)
                if b'"event": "serving"' in line:
                    self._serving[int(json.loads(line)["number"])] += 1


class Publisher:
    """Cuts over and rolls back as fast as the workers follow."""

    def __init__(self, shop: Shop, server: Server, kind_of: dict[str, str], dice: random.Random) -> None:
        self._shop = shop
        self._log = Log(server)
        self._names = list(kind_of)
        self._dice = dice
        self.flips = 0
        self.rollbacks = 0

    def flip(self) -> None:
        """Make another version current, and return when every worker has taken it."""
        newest = self._shop.newest()
        if newest.before and self._dice.random() < 0.5:
            self._shop.roll_back()
            self._log.wait_for_workers(self._shop.newest().number)
            self._shop.release(newest.version)
            self.rollbacks += 1
        else:
            self._shop.cut_over(self._dice.choice([name for name in self._names if name != newest.version]))
            self._log.wait_for_workers(self._shop.newest().number)
        self.flips += 1

    def flip_until(self, stop: threading.Event) -> None:
        """Flip at a constant rate, if the workers follow it."""
        while not stop.is_set():
            due = time.monotonic() + 1 / FLIPS_PER_SECOND
            self.flip()
            stop.wait(max(0.0, due - time.monotonic()))


def _window(server: Server, kind_of: dict[str, str], name: str | None, outcome: Outcome) -> None:
    answers = ask_steadily(
        server.port, kind_of, requests=WINDOW_REQUESTS, per_second=STEADY_PER_SECOND, seed=outcome.tried
    )
    for seconds, problem in answers:
        if problem is not None:
            outcome.violate(problem)
        if name is not None:
            outcome.tried += 1
            outcome.spread(name, seconds)
