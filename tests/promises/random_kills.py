"""Promise 1 at any instant: a process that is killed by a timer while it publishes, rolls back, holds or retires.

The parent knows what may be there before it lets the child begin, so that no kill can spoil the judge. After each kill
it reads every byte, then runs the same command again, without any repair, and reads what is current again.
"""

from __future__ import annotations

import mmap
import random
import signal
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from prediction_store import history, holds, layout
from prediction_store.errors import FormatError, StoreError
from prediction_store.gate_report import has_passed
from prediction_store.retention import retire
from prediction_store.succession import held_by
from promises.outcome import Outcome
from promises.steps import in_child
from promises.tiny_store import (
    EXPIRES_AT,
    HOUR,
    MADE_AT,
    WHO,
    digest_of,
    leftovers,
    problems_of,
    publish,
    remove_store,
    wrong_lists,
)
from schemas.history import HistoryRecord

KILLS_PER_STORE = 25
"""So that neither the history grows long nor every byte of many versions has to be read each time."""
_SECONDS = struct.Struct("d")
LONG_SECONDS = 0.05
"""How long a command takes until it has been seen to take less or more."""

SWEPT_BY: dict[str, tuple[str, ...]] = {"publish": (layout.BUILDING,), "retire": (layout.BUILDING, layout.TRASH)}
"""What a command leaves nothing of, whoever has left it."""


class Task(NamedTuple):
    """A command that can be repeated, and the version that is current once it has run."""

    name: str
    run: Callable[[], object]
    current: str


class Driver:
    """Knows the store, chooses what is done next, and how long it usually takes."""

    def __init__(self, root: Path, dice: random.Random) -> None:
        self.root = root
        self._dice = dice
        self._made = 0
        self._seconds: dict[str, float] = {}
        self._clock = mmap.mmap(-1, _SECONDS.size)
        """Shared with the children, who write down how long they took."""
        for _ in range(2):
            publish(root, self._next_inputs(), self._now())

    def choose(self) -> Task:
        """A task that the store, as it is, allows."""
        record = history.current(self.root)
        choices = [self._publish, self._publish, self._cutover, self._roll_back, self._hold, self._retire, self._retire]
        while True:
            task = self._dice.choice(choices)(record)
            if task is not None:
                return task

    def delay(self, task: Task) -> float:
        """Seconds after which to kill it: anywhere in the time that it takes, and a little beyond."""
        return self._dice.uniform(1e-4, 1.1 * self._seconds.get(task.name, LONG_SECONDS))

    def run_under_a_timer(self, task: Task, delay: float) -> None:
        """For the child: run a task, unless the timer is faster."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which is: die at once, wherever you are
        started = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, delay)
        task.run()
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._clock[:] = _SECONDS.pack(time.monotonic() - started)

    def has_finished(self, task: Task) -> None:
        """Remember how long it took, the recent past more than the distant one."""
        (seconds,) = _SECONDS.unpack(self._clock)
        self._seconds[task.name] = 0.8 * self._seconds.get(task.name, seconds) + 0.2 * seconds

    def _next_inputs(self) -> str:
        self._made += 1
        return f"inputs {self._made}"

    def _now(self) -> float:
        return MADE_AT + self._made * HOUR

    def _publish(self, record: HistoryRecord) -> Task | None:
        if record.pinned:
            return None
        inputs, now = self._next_inputs(), self._now()
        shards = self._dice.choice([1, 1, 3])
        name = layout.version_name(now, digest_of(inputs))
        return Task("publish", partial(publish, self.root, inputs, now, shards=shards), name)

    def _cutover(self, record: HistoryRecord) -> Task | None:
        free = [
            name
            for name in layout.version_names(self.root)
            if name != record.version and held_by(record, name, "") is None and has_passed(self.root, name)
        ]
        if record.pinned or not free:
            return None
        name = self._dice.choice(free)
        return Task("cutover", partial(history.cutover, self.root, name, WHO, "", self._now()), name)

    def _roll_back(self, record: HistoryRecord) -> Task | None:
        target = history.rollback_target(self.root)
        if target is None:
            return None
        run = partial(history.rollback, self.root, WHO, "bad", self._now(), expect=record.number)
        return Task("rollback", run, target)

    def _hold(self, record: HistoryRecord) -> Task | None:
        others = [name for name in layout.version_names(self.root) if name != record.version]
        if record.pinned:
            return Task("unpin", partial(holds.unpin, self.root, WHO, "", self._now()), record.version)
        if record.quarantined:
            name = self._dice.choice(list(record.quarantined))
            return Task("release", partial(holds.release, self.root, name, WHO, "", self._now()), record.version)
        if others and self._dice.random() < 0.5:
            name = self._dice.choice(others)
            return Task("quarantine", partial(holds.quarantine, self.root, name, WHO, "", self._now()), record.version)
        return Task("pin", partial(holds.pin, self.root, WHO, "", self._now()), record.version)

    def _retire(self, record: HistoryRecord) -> Task | None:
        return Task(
            "retire", partial(retire, self.root, keep=2, grace_seconds=0, now=EXPIRES_AT - 1, who=WHO), record.version
        )


def run(seed: int, trials: int, folder: Path) -> Outcome:
    """Kill until that many processes have died in the middle of something."""
    outcome, dice = Outcome(), random.Random(seed)
    root = folder / "store"
    driver = None
    while outcome.tried < trials:
        if driver is None or outcome.tried % KILLS_PER_STORE == 0:
            remove_store(root)
            driver = Driver(root, dice)
        where = f"seed {seed}, kill {outcome.tried}"
        try:
            trial(driver, outcome, where)
        except (StoreError, FormatError) as error:
            outcome.violate(f"{where}: what is there cannot be read: {error}")
            driver = None
    return outcome


def trial(driver: Driver, outcome: Outcome, where: str) -> None:
    """One command, killed or not, looked at, and run again."""
    task, root = driver.choose(), driver.root
    old = history.current(root).version
    delay = driver.delay(task)
    code = in_child(partial(driver.run_under_a_timer, task, delay))
    where = f"{where}: {task.name} killed after {delay * 1000:.2f} ms"
    if code == -signal.SIGALRM:
        outcome.tried += 1
        outcome.count(f"killed in {task.name}")
    else:
        outcome.count("finished before the kill")
        driver.has_finished(task)
        if code != 0:
            outcome.violate(f"{where}: it ended with {code}")
    outcome.violate_each(problems_of(root, {old, task.current} if code else {task.current}), where)
    try:
        task.run()
    except Exception as error:
        outcome.violate(f"{where}: the same command again raised {error!r}")
    record = history.current(root)
    if record.version != task.current:
        outcome.violate(f"{where}: the same command again left {record.version} current; wanted {task.current}")
    outcome.violate_each(wrong_lists(root, record), f"{where}, and again")
    left = [entry for entry in leftovers(root) if entry.startswith(SWEPT_BY.get(task.name, ()))]
    outcome.violate_each((f"{entry} is left" for entry in left), where)
