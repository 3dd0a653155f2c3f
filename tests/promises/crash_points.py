"""Promise 1 at every durable step: the process dies there, the disk is full there, the disk breaks there.

Each command is run on a copy of the same store, once without a fault to know the old state and the new one, then once
for every step and fault. What must hold afterwards: the old state or the new one, every version whole; and the same
command again, without any repair, leads to the new state.
"""

from __future__ import annotations

import errno
import itertools
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from prediction_store import history, holds, layout
from prediction_store.errors import DiskError, FormatError, StoreError, UnknownOutcomeError
from prediction_store.gate_report import read_report
from prediction_store.retention import retire
from promises.outcome import Outcome
from promises.steps import announced_to, at_step, failing_syncs, from_step, killed_at, steps_of
from promises.tiny_store import (
    HOUR,
    MADE_AT,
    WHO,
    build,
    copy_store,
    judge,
    leftovers,
    problems_of,
    publish,
    remove_store,
    write_version,
    wrong_lists,
)
from schemas.history import HistoryRecord

KILL, EIO, ENOSPC, DEAD_DISK, FAILED_SYNC = "SIGKILL", "EIO", "ENOSPC", "EIO from here on", "EIO of a sync"
FAULTS = {KILL: 0, EIO: errno.EIO, ENOSPC: errno.ENOSPC, DEAD_DISK: errno.EIO, FAILED_SYNC: errno.EIO}
ALL = 1 << 30
"""Trials: as many as there are points."""
LATER = MADE_AT + 10**8
"""When no version is young any more, and none has expired."""


class Command(NamedTuple):
    """A command of the store, and the store on which it is interrupted."""

    name: str
    prepare: Callable[[Path], object]
    run: Callable[[Path], object]
    records_after: bool = False
    """True when the record is written after the deed: killed in between, the deed is done and not all written down."""


class State(NamedTuple):
    """All that may differ between the old state of a store and the new one."""

    record: HistoryRecord | None
    """The newest history record."""
    versions: frozenset[str]
    reports: frozenset[tuple[str, bool]]
    """Versions with a gate report, and whether they have passed."""


class Point(NamedTuple):
    """A fault at a step of a command."""

    command: Command
    step: int
    fault: str


def run(seed: int, trials: int, folder: Path, *, wanted: Callable[[Point], bool] = lambda point: True) -> Outcome:
    """Try faults at that many of the wanted points, or at all of them; in an order that the seed says."""
    outcome = Outcome()
    benches = {command.name: Bench(command, folder / command.name.replace(" ", "-")) for command in COMMANDS}
    points = [point for bench in benches.values() for point in bench.points() if wanted(point)]
    random.Random(seed).shuffle(points)
    for point in points[:trials]:
        benches[point.command.name].trial(point, outcome)
    outcome.counts["points"] = len(points)
    return outcome


class Bench:
    """A store in the state before a command, of which each trial gets a copy."""

    def __init__(self, command: Command, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.command = command
        self.before = folder / "before"
        self.copy = folder / "copy"
        command.prepare(self.before)
        self.old = state_of(self.before)
        self.steps = steps_of(partial(command.run, self._fresh()))
        self.new = state_of(self.copy)

    def points(self) -> Iterator[Point]:
        """Every fault at every step; a failed sync only where there is one."""
        for number, fault in itertools.product(range(len(self.steps)), FAULTS):
            if fault != FAILED_SYNC or self.steps[number].what.startswith("sync"):
                yield Point(self.command, number, fault)

    def trial(self, point: Point, outcome: Outcome) -> None:
        """Have the fault, look what is there, and run the command again."""
        outcome.tried += 1
        outcome.count(point.fault)
        where = f"{self.command.name}, {point.fault} before step {point.step} ({self.steps[point.step]})"
        root = self._fresh()
        try:
            outcome.violate_each(self._break(root, point, outcome), where)
            outcome.violate_each(self._between(root), where)
        except (StoreError, FormatError) as error:
            outcome.violate(f"{where}: what is there cannot be read: {error}")
            return
        try:
            self.command.run(root)
        except Exception as error:
            outcome.violate(f"{where}: the same command again raised {error!r}")
            return
        after = state_of(root)
        if after._replace(record=None) != self.new._replace(record=None) or not self._is_done(after.record):
            outcome.violate(f"{where}: the same command again led to {after}; wanted {self.new}")
        outcome.violate_each(wrong_lists(root, after.record) if after.record else [], f"{where}, and again")
        self._sweep(root, outcome, where)

    def _fresh(self) -> Path:
        remove_store(self.copy)
        if self.before.exists():
            copy_store(self.before, self.copy)
        return self.copy

    def _break(self, root: Path, point: Point, outcome: Outcome) -> list[str]:
        """Run the command with the fault; what it did that it should not have done."""
        command = partial(self.command.run, root)
        if point.fault == KILL:
            code = killed_at(point.step, command)
            return [] if code == -9 else [f"it ended with {code} and was not killed"]
        error = FAULTS[point.fault]
        if point.fault == FAILED_SYNC:
            number = sum(step.what.startswith("sync") for step in self.steps[: point.step])
            with failing_syncs(number, error) as synced:
                found = self._refused(root, command, point.step, outcome)
            return [*found, *(["a sync that had failed was tried again"] if synced[0] in synced[1:] else [])]

        def fail() -> None:
            raise OSError(error, "broken on purpose")

        with announced_to((from_step if point.fault == DEAD_DISK else at_step)(point.step, fail)):
            return self._refused(root, command, point.step, outcome)

    def _refused(self, root: Path, command: Callable[[], object], step: int, outcome: Outcome) -> list[str]:
        try:
            command()
        except DiskError:
            return [] if state_of(root).record == self.old.record else ["it failed, and decided nevertheless"]
        except UnknownOutcomeError:
            outcome.count("unknown outcomes")
            is_last = str(self.steps[step]) == "sync folder history"
            there = state_of(root).record
            return [] if is_last and there == self.new.record else [f"unknown, and record {there} is there"]
        except Exception as error:
            return [f"it raised {error!r}"]
        outcome.count("shrugged off")
        return [] if self._is_done(state_of(root).record) else ["it said nothing, and decided nothing"]

    def _between(self, root: Path) -> list[str]:
        """What is neither the old state nor the new one."""
        found, there = [], state_of(root)
        if there.record != self.old.record and not self._is_done(there.record):
            found.append("the newest record is neither the old nor the new one")
        if not self.old.versions & self.new.versions <= there.versions <= self.old.versions | self.new.versions:
            found.append(f"versions {sorted(there.versions)}")
        if not self.old.reports & self.new.reports <= there.reports <= self.old.reports | self.new.reports:
            found.append(f"gate reports {sorted(there.reports)}")
        return [*found, *(problems_of(root, self._current()) if there.record else [])]

    def _is_done(self, record: HistoryRecord | None) -> bool:
        """True when that is the newest record once the command has been carried out."""
        if record is None or self.new.record is None or not self.command.records_after:
            return record == self.new.record
        # What could not be removed is passed over: the next run removes it, and writes a record of its own.
        number = min(max(record.number, self.new.record.number), self.new.record.number + 1)
        deed = msgspec.structs.replace(self.new.record, subjects=record.subjects, number=number)
        return record in (deed, self.old.record) and set(record.subjects) <= set(self.new.record.subjects)

    def _current(self) -> set[str]:
        return {state.record.version for state in (self.old, self.new) if state.record is not None}

    def _sweep(self, root: Path, outcome: Outcome, where: str) -> None:
        """Retire, which needs nothing but itself to clean up what the dead have left."""
        retire(root, keep=100, grace_seconds=0, now=LATER)
        # A temporary file of this very hour may be somebody's.
        left = [entry for entry in leftovers(root) if not entry.startswith(layout.TEMPORARY)]
        outcome.violate_each((f"{entry} is left after retire" for entry in left), where)


def state_of(root: Path) -> State:
    """What may differ, as it is on disk."""
    names = layout.version_names(root)
    reports = [(name, read_report(root, name)) for name in names]
    return State(
        history.current_or_none(root),
        frozenset(names),
        frozenset((name, report.passed) for name, report in reports if report is not None),
    )


def _two(root: Path) -> None:
    publish(root, "a", MADE_AT)
    publish(root, "b", MADE_AT + HOUR)


def _two_and_a_draft_to_judge(root: Path) -> None:
    _two(root)
    write_version(root, "c", MADE_AT + 2 * HOUR)


def _two_and_one_judged(root: Path) -> None:
    _two_and_a_draft_to_judge(root)
    _judge(root)


def _judge(root: Path) -> None:
    judge(root, layout.version_names(root)[0])


def _two_and_a_pin(root: Path) -> None:
    _two(root)
    holds.pin(root, WHO, "a sale", LATER)


def _two_of_which_one_is_held(root: Path) -> None:
    _two(root)
    holds.quarantine(root, _oldest(root), WHO, "bad", LATER)


def _four(root: Path) -> None:
    for number, inputs in enumerate("abcd"):
        publish(root, inputs, MADE_AT + number * HOUR)


def _oldest(root: Path) -> str:
    return layout.version_names(root)[-1]


COMMANDS: list[Command] = [
    Command("first publish", lambda root: None, lambda root: publish(root, "a", MADE_AT)),
    Command("publish", lambda root: publish(root, "a", MADE_AT), lambda root: publish(root, "b", MADE_AT + HOUR)),
    Command("build of shards", _two, lambda root: build(root, "c", MADE_AT + 2 * HOUR, shards=3)),
    Command("gate", _two_and_a_draft_to_judge, _judge),
    Command("gate again", _two_and_one_judged, _judge),
    Command(
        "cutover",
        _two_and_one_judged,
        lambda root: history.cutover(root, layout.version_names(root)[0], WHO, "a run", LATER),
    ),
    Command("rollback", _two, lambda root: history.rollback(root, WHO, "bad", LATER, expect=2)),
    Command("rollback to", _four, lambda root: history.rollback(root, WHO, "bad", LATER, to=_oldest(root))),
    Command("pin", _two, lambda root: holds.pin(root, WHO, "a sale", LATER)),
    Command(
        "unpin",
        _two_and_a_pin,
        lambda root: holds.unpin(root, WHO, "", LATER),
    ),
    Command("quarantine", _two, lambda root: holds.quarantine(root, _oldest(root), WHO, "bad", LATER)),
    Command(
        "release",
        _two_of_which_one_is_held,
        lambda root: holds.release(root, _oldest(root), WHO, "good", LATER),
    ),
    Command(
        "retire",
        _four,
        lambda root: retire(root, keep=2, grace_seconds=0, now=LATER, who=WHO, why="old"),
        records_after=True,
    ),
]
"""Every command that changes a store. What comes later, a push or a pull, goes here."""
