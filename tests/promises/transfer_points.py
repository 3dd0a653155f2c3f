"""Promise 1 between hosts: one dies, or is refused by the disk, at any durable step of a transfer or shared decision.

Object storage is a folder: there a push has durable steps of its own. What must hold after the fault: every version is
whole or absent, here and there; what was decided among the hosts can be pulled; each host serves the old version or the
new one. And the same again, without any repair, leads to the end.
"""

from __future__ import annotations

import errno
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from step_killer import StepKiller, act, before_step

from prediction_store import history, layout
from prediction_store.check import check
from prediction_store.errors import FormatError, StoreError, UnknownOutcomeError
from prediction_store.transfer.copies import find_copy, names_there, sizes_of
from prediction_store.transfer.remote import Remote
from prediction_store.transfer.shared import RemoteHistory
from promises.outcome import Outcome
from promises.steps import announced_to, steps_of
from promises.tiny_store import HOUR, MADE_AT, build, copy_store, judge, problems_of, publish, remove_store

KILL: Final = "SIGKILL"
FAULTS: Final = {KILL: 0, "EIO": errno.EIO, "ENOSPC": errno.ENOSPC}
HERE, THERE, REMOTE = "here", "there", "remote"
"""The host that builds, one that serves, and the folder that stands for object storage."""


class World(NamedTuple):
    """Two hosts and what lies between them."""

    folder: Path
    old: str
    new: str

    def store(self, place: str) -> Path:
        return self.folder / place

    @property
    def url(self) -> str:
        return (self.folder / REMOTE).as_uri()

    def do(self, action: str, place: str, name: str) -> None:
        act(action, self.store(place), self.url, name)


class Command(NamedTuple):
    """What one host does, and what the others have done before."""

    name: str
    place: str
    action: str
    prepare: Callable[[World], object]
    problems: Callable[[World], list[str]]
    """What is not as it must be once it has been done."""


class Point(NamedTuple):
    """A fault at a step of a command."""

    command: Command
    step: int
    fault: str


def run(seed: int, trials: int, folder: Path) -> Outcome:
    """Try faults at that many points, or at all of them; in an order that the seed says."""
    outcome = Outcome()
    with StepKiller() as killer:
        benches = {
            command.name: Bench(command, folder / command.name.replace(" ", "-"), killer) for command in COMMANDS
        }
        points = [point for bench in benches.values() for point in bench.points()]
        random.Random(seed).shuffle(points)
        for point in points[:trials]:
            benches[point.command.name].trial(point, outcome)
    outcome.counts["points"] = len(points)
    return outcome


class Bench:
    """A world in the state before a command, of which each trial gets a copy."""

    def __init__(self, command: Command, folder: Path, killer: StepKiller) -> None:
        self.command, self._killer = command, killer
        self._before, self._copy = folder / "before", folder / "copy"
        old = publish(self._before / HERE, "a", MADE_AT)
        new = build(self._before / HERE, "b", MADE_AT + HOUR)
        judge(self._before / HERE, new)
        self._names = old, new
        (self._before / THERE).mkdir()
        (self._before / REMOTE).mkdir()
        command.prepare(World(self._before, *self._names))
        self._steps = steps_of(lambda: self._run(self._fresh()))

    def points(self) -> Iterator[Point]:
        """Every fault at every step."""
        for number, fault in itertools.product(range(len(self._steps)), FAULTS):
            yield Point(self.command, number, fault)

    def trial(self, point: Point, outcome: Outcome) -> None:
        """Have the fault, look what is there, and run the command again."""
        outcome.tried += 1
        outcome.count(point.fault)
        world, where = self._fresh(), f"{self.command.name}, {point.fault} before step {point.step}"
        try:
            outcome.violate_each(self._break(world, point, outcome), where)
            outcome.violate_each(problems_between(world), where)
            self._run(world)
            outcome.violate_each([*problems_between(world), *self.command.problems(world)], f"{where}, and again")
        except (StoreError, FormatError) as error:
            outcome.violate(f"{where}: {error!r}")

    def _break(self, world: World, point: Point, outcome: Outcome) -> list[str]:
        command = self.command
        if point.fault == KILL:
            store = world.store(command.place)
            # Files travel side by side, so that one run may take a step less than another before it is done.
            if not self._killer.killed_at(point.step, command.action, store, world.url, world.new):
                outcome.count("ended before that step")
            return []

        def fail() -> None:
            raise OSError(FAULTS[point.fault], "broken on purpose")

        with announced_to(before_step(point.step, fail)):  # type: ignore[arg-type]
            try:
                self._run(world)
            except UnknownOutcomeError:
                outcome.count("unknown outcomes")
            except StoreError as refused:
                return [] if "broken on purpose" in str(refused) else [f"it raised {refused!r}"]
        return []

    def _run(self, world: World) -> None:
        world.do(self.command.action, self.command.place, world.new)

    def _fresh(self) -> World:
        remove_store(self._copy)
        copy_store(self._before, self._copy)
        return World(self._copy, *self._names)


def problems_between(world: World) -> list[str]:
    """What is neither old nor new, in either store or between them."""
    remote, found = Remote(world.url), []
    for name in names_there(remote):
        copy = find_copy(remote, name)
        if copy is not None:
            there = sizes_of(remote, name)
            wrong = [file for file, facts in copy.manifest.files.items() if there.get(file) != facts.bytes]
            found += [f"{name}/{file} is not whole in object storage" for file in wrong]
    newest = RemoteHistory(remote).newest()
    if newest is not None and find_copy(remote, newest.version) is None:
        found.append(f"{newest.version} was decided and cannot be pulled")
    for place in (HERE, THERE):
        store = world.store(place)
        if history.current_or_none(store) is None:
            found += [f"{place}: {problem.what}" for problem in check(store).problems]
        else:
            found += [f"{place}: {problem}" for problem in problems_of(store, {world.old, world.new})]
    return found


def _pushed(world: World) -> list[str]:
    remote = Remote(world.url)
    found = [] if find_copy(remote, world.new) is not None else [f"{world.new} is not in object storage"]
    return found if RemoteHistory(remote).newest_number() == 1 else [*found, "the hosts' history did not begin"]


def _pulled(world: World) -> list[str]:
    store = world.store(THERE)
    found = [] if world.new in layout.version_names(store) else [f"{world.new} is not there"]
    return [*found, *(f"{path.name} is left" for path in layout.leftovers(store, layout.PULLING))]


def _decided(world: World) -> list[str]:
    here = layout.history_path(world.store(HERE), 2)
    there = Remote(world.url).read(layout.remote_history(2))
    is_same = here.is_file() and there == here.read_bytes()
    found = [] if is_same else ["the host and the hosts have not the same record 2"]
    return [*found, *problems_of(world.store(HERE), {world.new})]


def _followed(world: World) -> list[str]:
    return problems_of(world.store(THERE), {world.new})


def _push_both(world: World) -> None:
    for name in (world.old, world.new):
        world.do("push", HERE, name)


def _decide(world: World) -> None:
    _push_both(world)
    world.do("follow", THERE, "")
    world.do("cutover", HERE, world.new)


def _decide_and_pull(world: World) -> None:
    _decide(world)
    world.do("pull", THERE, world.new)


COMMANDS: Final = [
    Command("push", HERE, "push", lambda world: world.do("push", HERE, world.old), _pushed),
    Command("first push", HERE, "push", lambda world: None, _pushed),
    Command("pull", THERE, "pull", _push_both, _pulled),
    Command("shared cutover", HERE, "cutover", _push_both, _decided),
    Command("follow", THERE, "follow", _decide, _followed),
    Command("flip", THERE, "follow", _decide_and_pull, _followed),
]
