"""Promise 9: descriptors, maps and memory are flat, however often a process flips.

`run`: a store in this process follows while threads read. `run_server`: a worker of a real server does, under load.
"""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from pathlib import Path

from serving_shop import Shop
from shop_server import Server

from prediction_store import history, holds, layout
from prediction_store.reader import Store
from prediction_store.retention import retire
from promises.flips_over_http import KINDS, QUICK_POLL, Log
from promises.http_load import Askers
from promises.outcome import Outcome
from promises.tiny_store import HOUR, MADE_AT, WHO, publish, remove_store, wrong_answers

VERSIONS = 4
"""That retention leaves."""
NEW_SHARE = 0.2
"""Of the flips: to a version that was built for it, while another one goes. A version that stays open would show."""
THREADS = 2
WARM_UP_SHARE = 0.2
"""Of the flips; what grows after them is a leak."""
SAMPLES = 20
"""Measurements of each run, evenly spread."""
FLIPS_OF_A_STORE = 1000
"""Then it begins anew with a short history; the process stays the same."""
MAY_DIFFER = {"descriptors": 6, "maps": 40, "megabytes": 8}
"""A version more or less is open at the moment of a measurement: its descriptors and maps."""


class Use(dict[str, float]):
    """What a process has of the kernel."""

    @classmethod
    def of(cls, pid: int | str = "self") -> Use:
        process = Path(f"/proc/{pid}")
        pages = int((process / "statm").read_text().split()[1])
        return cls(
            descriptors=len(os.listdir(process / "fd")),  # noqa: PTH208 a Path for each would be seen as a leak
            maps=(process / "maps").read_text().count("\n"),
            megabytes=pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        )


class Gauge:
    """Measures a process from time to time, and says what has grown."""

    def __init__(self, flips: int) -> None:
        self._every = max(1, flips // SAMPLES)
        self._warm = flips * WARM_UP_SHARE
        self._found: list[tuple[int, Use]] = []

    def look(self, flips: int, pid: int | str = "self") -> None:
        if flips % self._every == 0:
            self._found.append((flips, Use.of(pid)))

    def judge(self, outcome: Outcome, who: str) -> None:
        """Compare the middle of the first half after the warm-up with that of the second half."""
        warm = [(flips, use) for flips, use in self._found if flips >= self._warm]
        if len(warm) < 4:
            return
        half = len(warm) // 2
        flips = warm[-1][0] - warm[0][0]
        for what in warm[0][1]:
            early, late = (_median([use[what] for _, use in part]) for part in (warm[:half], warm[-half:]))
            growth = (late - early) / (flips / 2) * 1000
            outcome.raise_to(f"{who}: {what} more after 1,000 flips", round(growth, 3))
            outcome.raise_to(f"{who}: {what}, most", max(use[what] for _, use in warm))
            if late - early > MAY_DIFFER.get(what, float("inf")):
                outcome.violate(f"{who}: {what} grew from {early} to {late} in {flips} flips")


def run(seed: int, trials: int, folder: Path) -> Outcome:
    """Flip that many times, in one process, among versions that come and go, with threads that read."""
    outcome, dice = Outcome(), random.Random(seed)
    gauge = Gauge(trials)
    root = folder / "store"
    while outcome.tried < trials:
        remove_store(root)
        _flip_a_store(root, min(FLIPS_OF_A_STORE, trials - outcome.tried), dice, gauge, outcome)
    gauge.judge(outcome, "store")
    return outcome


def _flip_a_store(root: Path, flips: int, dice: random.Random, gauge: Gauge, outcome: Outcome) -> None:
    for number in range(VERSIONS):
        publish(root, f"inputs {number}", MADE_AT + number * HOUR)
    store = Store(root)
    store.refresh()
    stop = threading.Event()
    wrong: list[str] = []
    threads = [threading.Thread(target=_read, args=(store, stop, wrong)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        for number in range(VERSIONS, VERSIONS + flips):
            _flip(root, f"inputs {number}", MADE_AT + number * HOUR, dice)
            if not store.refresh():
                outcome.violate(f"a flip was not followed: {store.last_error!r}")
            outcome.tried += 1
            if outcome.tried % 100 == 0:
                gc.collect()
            gauge.look(outcome.tried)
        if len(layout.version_names(root)) > VERSIONS + 2:  # two that the store has open
            outcome.violate(f"{len(layout.version_names(root))} versions could not be removed")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        store.close()
    outcome.violate_each(wrong, "a reader")


def _flip(root: Path, inputs: str, now: float, dice: random.Random) -> None:
    """Make another version current: a new one, one that is there, or the one before."""
    newest = history.current(root)
    what = dice.random()
    if what < NEW_SHARE:
        publish(root, inputs, now)
        retire(root, keep=VERSIONS, grace_seconds=0, now=now)
    elif what < 0.6 and history.rollback_target(root) is not None:
        history.rollback(root, WHO, "bad", now)
        holds.release(root, newest.version, WHO, "", now)
    else:
        others = [name for name in layout.version_names(root) if name != newest.version]
        history.cutover(root, dice.choice(others), WHO, "", now)


def _read(store: Store, stop: threading.Event, wrong: list[str]) -> None:
    while not stop.is_set():
        with store.acquire() as version:
            wrong += wrong_answers(version)
        stop.wait(0.001)


def run_server(seed: int, trials: int, folder: Path) -> Outcome:
    """Flip that many times before a server with one worker, which is asked all the time."""
    outcome, dice = Outcome(), random.Random(seed)
    shop = Shop(folder / "store")
    for kind in KINDS:
        shop.publish(kind)
    server = Server(shop.root, folder, 1, QUICK_POLL)
    gauge = Gauge(trials)
    try:
        log = Log(server)
        log.wait_for_workers(shop.newest().number)
        (worker,) = server.workers()
        askers = Askers(server.port, {}, processes=1, lines=4)
        try:
            for flips in range(1, trials + 1):
                if dice.random() < NEW_SHARE:
                    shop.publish(dice.choice(KINDS))
                    retire(shop.root, keep=VERSIONS, grace_seconds=0, now=time.time() + trials)
                else:
                    names = layout.version_names(shop.root)
                    shop.cut_over(dice.choice([name for name in names if name != shop.current()]))
                log.wait_for_workers(shop.newest().number)
                outcome.tried += 1
                gauge.look(flips, worker)
        finally:
            askers.stop(outcome)
        gauge.judge(outcome, "worker")
        server.stop()
    finally:
        server.end()
    return outcome


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
