"""Promise 6: retention never removes what a live process uses, needs no clock for that, and never fails a publish.

Random schedules of everything that a store goes through are run against a dictionary that keeps account (`ledger`):
builds, cutovers, rollbacks, holds and removals, readers in this process and in others that are killed, damage, a clock
that jumps, and commands that are killed or meet a full or broken disk at a random step and are run again.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from prediction_store import durable, history, holds, layout
from prediction_store.check import check
from prediction_store.reader import Store, Version
from prediction_store.retention import retire
from promises.ledger import Ledger
from promises.outcome import Outcome
from promises.steps import announced_to, at_step, from_step, killed_at
from promises.tiny_store import HOUR, MADE_AT, WHO, build, copy_store, judge, publish, wrong_answers
from schemas.errors import ShortlistError

STEPS = 18
"""Things that happen in one schedule, at most."""
LAST_STEP = 60
"""No command but a publish takes more durable steps."""
INPUTS = st.sampled_from("abcdefgh")
FAULTS = ("kill", "full", "full from here on", "broken")
GRACE_SECONDS = HOUR
BEGUN_WITH = "abcde"
"""Most schedules begin with these published, one after the other; the others with nothing."""
BEGIN = MADE_AT + 100 * 24 * HOUR


def run(seed: int, trials: int, folder: Path) -> Outcome:
    """Run that many random schedules."""
    outcome = Outcome()
    template = folder / "begun"
    for number, inputs in enumerate(BEGUN_WITH):
        publish(template, inputs, BEGIN + number * HOUR)
    machine: type[Schedule] = type("Schedule", (Schedule,), {"folder": folder, "outcome": outcome})
    machine._hypothesis_internal_use_seed = seed
    chosen = settings(
        max_examples=trials, stateful_step_count=STEPS, deadline=None, database=None,
        phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    try:
        run_state_machine_as_test(machine, settings=chosen)
    except Exception as error:
        outcome.violate(f"seed {seed}: {error!r}\n" + "\n".join(getattr(error, "__notes__", [])))
    return outcome


class Schedule(RuleBasedStateMachine):
    """One schedule: a store, the account of it, and those who read."""

    folder: ClassVar[Path]
    outcome: ClassVar[Outcome]

    def __init__(self) -> None:
        super().__init__()
        self.root = self.folder / "store"
        self.ledger = Ledger()
        self.now = BEGIN
        self.readers: list[Version] = []
        self.foreign: dict[int, str] = {}
        """Processes that have a version open, by process id."""
        self.wounds: dict[str, tuple[Path, bytes]] = {}
        """Of each damaged version, the file and what was in it."""
        self.refused: set[int] = set()
        """History records whose version was damaged when the server looked."""
        self.store = Store(self.root, now=lambda: self.now)

    @initialize(is_empty=st.sampled_from([False, False, False, True]))
    def begin(self, is_empty: bool) -> None:
        self.outcome.tried += 1
        if not is_empty:
            copy_store(self.folder / "begun", self.root)
            for inputs in BEGUN_WITH:
                self._publish(inputs)
                self.now += HOUR
            self.now += HOUR

    # What is done to the store

    @rule(inputs=INPUTS)
    def publish(self, inputs: str) -> None:
        name = self.ledger.name_of(inputs, self.now)
        self._compare(partial(publish, self.root, inputs, self.now), partial(self._publish, inputs))
        assert name in layout.version_names(self.root)

    @rule(inputs=INPUTS)
    def build(self, inputs: str) -> None:
        name = build(self.root, inputs, self.now)
        assert name == self.ledger.build(inputs, self.now)
        self._compare(partial(judge, self.root, name), partial(self.ledger.judge, name))

    @precondition(lambda self: self.ledger.versions)
    @rule(data=st.data())
    def cut_over(self, data: st.DataObject) -> None:
        name = self._a_version(data)
        run_it = partial(history.cutover, self.root, name, WHO, "", self.now)
        self._compare(run_it, partial(self.ledger.cut_over, name))

    @rule()
    def roll_back(self) -> None:
        self._compare(partial(history.rollback, self.root, WHO, "bad", self.now), self.ledger.roll_back)

    @rule(is_pinned=st.booleans())
    def pin(self, is_pinned: bool) -> None:
        do = holds.pin if is_pinned else holds.unpin
        self._compare(partial(do, self.root, WHO, "", self.now), partial(self.ledger.pin, is_pinned=is_pinned))

    @precondition(lambda self: self.ledger.versions)
    @rule(data=st.data())
    def quarantine(self, data: st.DataObject) -> None:
        name = self._a_version(data)
        run_it = partial(holds.quarantine, self.root, name, WHO, "bad", self.now)
        self._compare(run_it, partial(self.ledger.quarantine, name))

    @precondition(lambda self: self.ledger.quarantined)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.ledger.quarantined)))
        run_it = partial(holds.release, self.root, name, WHO, "good", self.now)
        self._compare(run_it, partial(self.ledger.release, name))

    @rule(keep=st.sampled_from([2, 2, 3, 4]))
    def retire(self, keep: int) -> None:
        in_use = self._in_use()
        report = retire(self.root, keep=keep, grace_seconds=GRACE_SECONDS, now=self.now, who=WHO)
        gone = self.ledger.retire(keep, GRACE_SECONDS, self.now, in_use)
        assert set(report.removed) == gone, f"removed {report.removed}; wanted {sorted(gone)}"
        assert not report.problem
        self.outcome.count("versions removed", len(gone))
        self.outcome.count(
            "versions kept because they are open", list(report.kept.values()).count("open in some process")
        )
        assert not layout.leftovers(self.root, layout.TRASH)
        assert not layout.leftovers(self.root, layout.BUILDING)
        self._forget_wounds()

    # What goes wrong

    @rule(inputs=INPUTS, step=st.integers(0, LAST_STEP), fault=st.sampled_from(FAULTS))
    def publish_with_a_fault(self, inputs: str, step: int, fault: str) -> None:
        self._break(partial(publish, self.root, inputs, self.now), step, fault)
        self.publish(inputs)

    @precondition(lambda self: self.ledger.way_back)
    @rule(step=st.integers(0, 6), fault=st.sampled_from(FAULTS))
    def roll_back_with_a_fault(self, step: int, fault: str) -> None:
        expect = history.current(self.root).number
        command = partial(history.rollback, self.root, WHO, "bad", self.now, expect=expect)
        self._break(command, step, fault)
        self._compare(command, self.ledger.roll_back)

    @rule(keep=st.integers(2, 4), step=st.integers(0, 12), fault=st.sampled_from(FAULTS))
    def retire_with_a_fault(self, keep: int, step: int, fault: str) -> None:
        """Whatever happens to it: what is served, used or gone back to is there, and what went, went whole."""
        in_use, before = self._in_use(), dict(self.ledger.versions)
        command = partial(retire, self.root, keep=keep, grace_seconds=GRACE_SECONDS, now=self.now, who=WHO)
        self._break(command, step, fault)
        gone = before.keys() - set(layout.version_names(self.root))
        self.outcome.count("versions removed", len(gone))
        may_go = self.ledger.retire(keep, GRACE_SECONDS, self.now, in_use)
        assert gone <= may_go, f"removed {sorted(gone)}; wanted some of {sorted(may_go)}"
        for name in may_go - gone:
            self.ledger.versions[name] = before[name]
            if name in self.wounds:
                self.ledger.damaged.add(name)
        self._forget_wounds()

    @precondition(lambda self: set(self.ledger.versions) - self._in_use() - set(self.wounds))
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        """A bit of a version that nobody has open is another."""
        name = data.draw(st.sampled_from(sorted(set(self.ledger.versions) - self._in_use() - set(self.wounds))))
        file = data.draw(st.sampled_from([layout.USER_VECTORS, layout.shard_file(0)]))
        path = layout.version_path(self.root, name) / file
        whole = path.read_bytes()
        self.wounds[name] = (path, whole)
        _overwrite(path, whole[:-1] + bytes([whole[-1] ^ 1]))
        self.ledger.damaged.add(name)

    @precondition(lambda self: self.wounds)
    @rule(data=st.data())
    def mend(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.wounds)))
        path, whole = self.wounds.pop(name)
        _overwrite(path, whole)
        self.ledger.damaged.discard(name)

    @rule(hours=st.sampled_from([-240, -5, 3, 240]))
    def let_the_clock_jump(self, hours: int) -> None:
        self.now += hours * HOUR + 1

    # Who reads

    @precondition(lambda self: set(self.ledger.versions) - self.ledger.damaged and len(self.readers) < 3)
    @rule(data=st.data())
    def open_a_reader(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(set(self.ledger.versions) - self.ledger.damaged)))
        self.readers.append(Version.open(self.root, name))

    @precondition(lambda self: set(self.ledger.versions) - self.ledger.damaged and len(self.readers) < 3)
    @rule()
    def open_the_oldest(self) -> None:
        """What retention would like to remove first."""
        self.readers.append(Version.open(self.root, min(set(self.ledger.versions) - self.ledger.damaged)))

    @precondition(lambda self: self.readers)
    @rule()
    def close_a_reader(self) -> None:
        self.readers.pop(0).close()

    @precondition(lambda self: set(self.ledger.versions) - self.ledger.damaged and not self.foreign)
    @rule(data=st.data())
    def start_a_reading_process(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(set(self.ledger.versions) - self.ledger.damaged)))
        self.foreign[_open_and_wait(self.root, name)] = name

    @precondition(lambda self: self.foreign)
    @rule()
    def kill_a_reading_process(self) -> None:
        pid, _ = self.foreign.popitem()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    @rule()
    def look_as_a_server_does(self) -> None:
        """A server follows, unless what is current is damaged; what it served before it keeps open."""
        self.store.refresh()
        record = history.current_or_none(self.root)
        if record is not None and record.version in self.ledger.damaged:
            self.refused.add(record.number)  # tried again once mended, but a schedule may outrun the kernel's clock
        if self.store.is_ready:
            with self.store.acquire() as version:
                assert wrong_answers(version) == []
                assert version.name == self.ledger.current or (record and record.number in self.refused)
        else:
            assert record is None or record.number in self.refused

    # What must hold at all times

    @invariant()
    def it_is_as_the_ledger_says(self) -> None:
        record = history.current_or_none(self.root)
        assert (record.version if record else None) == self.ledger.current
        assert set(layout.version_names(self.root)) == set(self.ledger.versions)
        assert history.rollback_target(self.root) == next(iter(self.ledger.way_back), None)
        if record is not None:
            assert bool(record.pinned) == self.ledger.pinned
            assert set(record.quarantined) == set(self.ledger.quarantined)

    @invariant()
    def readers_go_on_reading(self) -> None:
        for version in self.readers:
            assert wrong_answers(version) == []
        for name in self._in_use():
            assert name in self.ledger.versions, f"{name} is in use and gone"

    def teardown(self) -> None:
        """Close everything; the checker finds the planted damage and nothing else."""
        for version in self.readers:
            version.close()
        self.store.close()
        while self.foreign:
            self.kill_a_reading_process()
        if self.root.exists():
            damaged = {problem.where for problem in check(self.root).problems}
            durable.remove_folder(self.root)
            assert damaged == set(self.wounds), f"the checker finds {damaged}; wanted {set(self.wounds)}"

    def _publish(self, inputs: str) -> None:
        name = self.ledger.build(inputs, self.now)
        self.ledger.judge(name)
        self.ledger.cut_over(name)

    def _compare(self, command: Callable[[], object], account: Callable[[], object]) -> None:
        """Run a command and keep account of it: both refuse, for the same reason, or neither does."""
        refused, wanted = _refusal(command), _refusal(account)
        self.outcome.count(f"refused: {refused.__name__}" if refused is not None else "decisions")
        assert refused is wanted, f"it ended with {refused}; wanted {wanted}"

    def _break(self, command: Callable[[], object], step: int, fault: str) -> None:
        """Run a command with a fault at a step, if it comes that far."""
        self.outcome.count(fault)
        if fault == "kill":
            killed_at(step, partial(_refusal, command))
            return

        def fail() -> None:
            raise OSError(errno.EIO if fault == "broken" else errno.ENOSPC, "broken on purpose")

        with announced_to((from_step if fault == "full from here on" else at_step)(step, fail)):
            _refusal(command)

    def _in_use(self) -> set[str]:
        """Versions that some process has open."""
        served = [held.version.name for held in (self.store._current, self.store._previous) if held is not None]
        return {*served, *(version.name for version in self.readers), *self.foreign.values()}

    def _a_version(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.ledger.versions)))

    def _forget_wounds(self) -> None:
        self.wounds = {name: wound for name, wound in self.wounds.items() if name in self.ledger.versions}


def _refusal(command: Callable[[], object]) -> type[ShortlistError] | None:
    try:
        command()
    except ShortlistError as error:
        return type(error)
    return None


def _overwrite(path: Path, data: bytes) -> None:
    """Other bytes in a sealed file, and not in the copies of the store that share it."""
    path.parent.chmod(0o755)
    path.unlink()
    path.write_bytes(data)


def _open_and_wait(root: Path, name: str) -> int:
    """Start a process that has a version open until it is killed; its id."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            Version.open(root, name)
            os.write(writing, b"!")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    is_open = os.read(reading, 1) == b"!"
    os.close(reading)
    assert is_open, f"a process could not open {name}"
    return child
