"""Promise 2: what was acknowledged survives a power cut, and no power cut leaves anything torn.

Real commands are watched (`traces`), and the disks that a power cut may leave at each moment of them are made up
(`disk_model`) and judged (`disk_judge`). Then each sync is left out in turn: the judge has to notice. And of the disks
that were made up some are written down, and the real reader has to judge them like the model does.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from prediction_store import history, holds
from promises.disk_judge import Judge, problems_on_disk
from promises.disk_model import EMPTY, Contents, Disk, Synced, Tree
from promises.outcome import Outcome
from promises.tiny_store import EXPIRES_AT, WHO, problems_of, publish, remove_store
from promises.traces import Acknowledged
from promises.watched_commands import SCENARIOS, Scenario, record

EVERY_MOMENT = 64
"""Disks that are made up at each moment at least, or all that there are."""
WRITTEN_OF_DISKS = 1000
"""One of so many disks is written down for the real reader."""
WRITTEN_OF_MUTANTS = 10
"""The same, where a sync was left out and that was noticed."""
NOTICED, MISSED = "left out and noticed: ", "left out and missed: "
"""What the counts of an outcome say of each place in the code that syncs."""


class Moment(NamedTuple):
    """A place between two events, at which the power may go."""

    place: int
    disk: Disk
    acknowledged: Acknowledged


def run(seed: int, trials: int, folder: Path) -> Outcome:
    """Judge about that many disks, in equal parts from the traces of every scenario; leave out each of their syncs.

    `tried` counts the disks that differ from one another; disks of other seeds differ always.
    """
    outcome, dice = Outcome(), random.Random(seed)
    for scenario in SCENARIOS:
        bench = Bench(scenario, folder / scenario.name, seed, outcome=outcome, dice=dice)
        bench.judge_moments(trials // len(SCENARIOS))
        for place in bench.trace.syncs:
            bench.leave_out(place)
    return outcome


def missed_sites(outcome: Outcome) -> set[str]:
    """Places in the code whose sync could be left out, in every scenario, and nobody would notice."""
    missed = {name.removeprefix(MISSED) for name in outcome.counts if name.startswith(MISSED)}
    return {site for site in missed if NOTICED + site not in outcome.counts}


class Bench:
    """The trace of one scenario, and what is found out about it."""

    def __init__(self, scenario: Scenario, folder: Path, seed: int, *, outcome: Outcome, dice: random.Random) -> None:
        contents = Contents()
        self.name = scenario.name
        self.trace = record(scenario, folder, contents, seed)
        self.judge = Judge(contents)
        self._outcome = outcome
        self._dice = dice
        self._written = folder / "written"

    def moments(self, left_out: int | None = None) -> Iterator[Moment]:
        """Before each sync and each acknowledgement, and at the end; with a sync left out or not.

        A power cut before a change leaves nothing that one after it could not leave, too: the change may be lost.
        """
        disk, acknowledged = self.trace.disk(self.judge.contents), self.trace.acknowledged
        for place, event in enumerate(self.trace.events):
            if isinstance(event, Synced | Acknowledged):
                yield Moment(place, disk.copy(), acknowledged)
            if isinstance(event, Acknowledged):
                acknowledged = event
            elif place != left_out:
                disk.apply(event)
        yield Moment(len(self.trace.events), disk, acknowledged)

    def judge_moments(self, trials: int) -> None:
        """Judge every disk at the moments with little freedom, and samples at the others."""
        moments = list(self.moments())
        free = sum(moment.disk.freedom > EVERY_MOMENT for moment in moments)
        limit = max(EVERY_MOMENT, trials // max(1, free))
        seen: set[int] = set()
        for moment in moments:
            where = f"{self.name}, power cut before event {moment.place} of {len(self.trace.events)}"
            for tree in moment.disk.states(limit, self._dice):
                problems = self.judge.problems(tree, moment.acknowledged)
                self._outcome.violate_each(problems, where)
                self._outcome.count("disks judged")
                seen.add(hash(frozenset(tree.items())))
                if self._dice.randrange(WRITTEN_OF_DISKS) == 0:
                    self._compare(tree, moment, problems, where)
        self._outcome.tried += len(seen)

    def leave_out(self, place: int) -> None:
        """Leave out a sync, and count whether it is noticed: whether a power cut may then break a promise."""
        event = self.trace.events[place]
        assert isinstance(event, Synced)
        moments = [moment for moment in self.moments(place) if moment.place > place]
        for moment in reversed(moments):  # what was acknowledged last is easiest to lose
            for tree in moment.disk.states(EVERY_MOMENT, self._dice):
                problems = self.judge.problems(tree, moment.acknowledged)
                if problems:
                    self._outcome.count(NOTICED + event.site)
                    if self._dice.randrange(WRITTEN_OF_MUTANTS) == 0:
                        self._compare(tree, moment, problems, f"{self.name}, without event {place}")
                    return
        self._outcome.count(MISSED + event.site)

    def _compare(self, tree: Tree, moment: Moment, judged: list[str], where: str) -> None:
        """Write a disk down, and let the real reader judge it; then publish on it."""
        root = self._write(tree)
        try:
            self._compare_written(root, moment, judged, where)
        finally:
            remove_store(self._written)

    def _compare_written(self, root: Path, moment: Moment, judged: list[str], where: str) -> None:
        real = problems_on_disk(root, moment.acknowledged)
        self._outcome.count("disks written and read")
        if bool(real) != bool(judged):
            self._outcome.violate(f"{where}: the model judges {judged}; the reader {real}")
        if judged:
            return
        if (newest := history.current_or_none(root)) is not None and newest.pinned:
            holds.unpin(root, WHO, "after the power cut", EXPIRES_AT - 1)
        try:
            name = publish(root, "after the power cut", EXPIRES_AT - 1)
        except Exception as error:
            self._outcome.violate(f"{where}: the next publish raised {error!r}")
        else:
            self._outcome.violate_each(problems_of(root, {name}), f"{where}, and the next publish")

    def _write(self, tree: Tree) -> Path:
        self._written.mkdir()
        for path, content in tree.items():
            place = self._written / path
            (place if content == EMPTY else place.parent).mkdir(parents=True, exist_ok=True)
            if content != EMPTY:
                place.write_bytes(self.judge.contents.bytes_of(content))
        return self._written / "store"
