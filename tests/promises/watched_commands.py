"""The commands whose every change of the disk is watched for the crash model, and what they do to a store."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from prediction_store import history, holds, layout
from prediction_store.retention import retire
from prediction_store.writer import VersionDraft, attempt_at, commit_shard, write_shard
from promises.disk_model import Contents
from promises.tiny_store import (
    EXPIRES_AT,
    HOUR,
    MADE_AT,
    WHO,
    build,
    digest_of,
    fill,
    judge,
    lists_of,
    publish,
    records_of,
    seal,
)
from promises.traces import Recorder, Trace


class Scenario(NamedTuple):
    """Commands that are watched, and the store on which they are run."""

    name: str
    published: str
    """Versions that are published before, by a letter each."""
    act: Callable[[Actor], object]


def record(scenario: Scenario, base: Path, contents: Contents, seed: int) -> Trace:
    """Run a scenario for real, and what it did to the disk; other seeds give other versions."""
    actor = Actor(base, seed)
    for letter in scenario.published:
        publish(actor.root, actor.inputs(letter), actor.now(letter), shards=actor.shards)
    actor.recorder = Recorder(actor.root.parent, contents)
    scenario.act(actor)
    return actor.recorder.trace


class Actor:
    """Carries out commands on a store while they are watched, one after the other.

    A version is named by the letter it is made from.
    """

    recorder: Recorder

    def __init__(self, base: Path, seed: int) -> None:
        self.root = base / "parent" / "store"
        self.root.parent.mkdir(parents=True)
        self.shards = 1 + seed % 3
        self._seed = seed
        self._notes = base / "notes"

    def inputs(self, letter: str) -> str:
        return f"{letter} of seed {self._seed}"

    def now(self, letter: str) -> float:
        return MADE_AT + ord(letter) * HOUR

    def name(self, letter: str) -> str:
        return layout.version_name(self.now(letter), digest_of(self.inputs(letter)))

    def publish(self, letter: str) -> Actor:
        """Build, gate and cutover, each of them acknowledged."""
        return self.build(letter).gate(letter).cut_over(letter)

    def build(self, letter: str) -> Actor:
        """A build that is skipped, because the version is there, makes nothing safer than it was: cutover does."""
        command = partial(build, self.root, self.inputs(letter), self.now(letter), shards=self.shards)
        self.recorder.run(command, is_about_versions=self.name(letter) not in layout.version_names(self.root))
        return self

    def build_killed(self, letter: str, step: str, name: str) -> Actor:
        """A build that dies before that step."""
        command = partial(build, self.root, self.inputs(letter), self.now(letter), shards=self.shards)
        self.recorder.run_killed(command, step, name, self._notes)
        return self

    def build_by_attempts(self, letter: str) -> Actor:
        """Each shard by two tasks that do the same, as Spark may run them."""
        self.recorder.run(partial(self._build_by_attempts, letter))
        return self

    def gate(self, letter: str) -> Actor:
        self.recorder.run(partial(judge, self.root, self.name(letter)), is_about_versions=False)
        return self

    def cut_over(self, letter: str) -> Actor:
        self.recorder.run(partial(history.cutover, self.root, self.name(letter), WHO, "a run", MADE_AT))
        return self

    def cut_over_killed(self, letter: str, step: str, name: str) -> Actor:
        command = partial(history.cutover, self.root, self.name(letter), WHO, "a run", MADE_AT)
        self.recorder.run_killed(command, step, name, self._notes)
        return self

    def roll_back(self, expect: int) -> Actor:
        self.recorder.run(partial(history.rollback, self.root, WHO, "bad", MADE_AT, expect=expect))
        return self

    def roll_back_killed(self, expect: int, step: str, name: str) -> Actor:
        command = partial(history.rollback, self.root, WHO, "bad", MADE_AT, expect=expect)
        self.recorder.run_killed(command, step, name, self._notes)
        return self

    def hold(self, letter: str) -> Actor:
        """Pin and unpin what is current; quarantine and release another version."""
        name = self.name(letter)
        self.recorder.run(partial(holds.pin, self.root, WHO, "a sale", MADE_AT))
        self.recorder.run(partial(holds.unpin, self.root, WHO, "it is over", MADE_AT))
        self.recorder.run(partial(holds.quarantine, self.root, name, WHO, "bad", MADE_AT))
        self.recorder.run(partial(holds.release, self.root, name, WHO, "good", MADE_AT))
        return self

    def retire(self) -> Actor:
        self.recorder.run(self._retire)
        return self

    def retire_while_publishing(self, letter: str) -> Actor:
        """Somebody retires just before the history record of a publish gets its name."""
        self.build(letter).gate(letter)
        is_due = True

        def retire_once(step: str, path: Path) -> None:
            nonlocal is_due
            if is_due and step == "link":
                is_due = False
                self._retire()

        command = partial(history.cutover, self.root, self.name(letter), WHO, "a run", MADE_AT)
        self.recorder.run(command, before=retire_once)
        return self

    def _retire(self) -> None:
        retire(self.root, keep=2, grace_seconds=0, now=EXPIRES_AT - 1, who=WHO)

    def _build_by_attempts(self, letter: str) -> None:
        inputs = self.inputs(letter)
        with VersionDraft.begin(self.root, digest_of(inputs), self.now(letter)) as draft:
            fill(draft)
            for number, records in enumerate(records_of(draft, lists_of(inputs), self.shards)):
                final = draft.shard_path(number)
                attempts = [write_shard(attempt_at(final), records, expected_bytes=1 << 10).path for _ in range(2)]
                for attempt in attempts:
                    commit_shard(attempt, final)
            seal(draft, inputs, self.shards)


SCENARIOS: list[Scenario] = [
    Scenario("first publish", "", lambda actor: actor.publish("b")),
    Scenario("second publish", "a", lambda actor: actor.publish("b")),
    Scenario("shards by attempts", "a", lambda actor: actor.build_by_attempts("b").gate("b").cut_over("b")),
    Scenario("gates run twice", "ab", lambda actor: actor.build("c").gate("c").gate("c")),
    Scenario("rollback", "abc", lambda actor: actor.roll_back(3).roll_back(4)),
    Scenario("holds", "ab", lambda actor: actor.hold("a")),
    Scenario("retire", "abcd", lambda actor: actor.retire()),
    Scenario("retire while publishing", "abc", lambda actor: actor.retire_while_publishing("d")),
    Scenario(
        "build killed, and publish",
        "a",
        lambda actor: actor.build_killed("b", "write shard", "index").publish("b"),
    ),
    Scenario(
        "build killed before its last sync, and publish",
        "a",
        lambda actor: actor.build_killed("b", "sync folder", "versions").publish("b"),
    ),
    Scenario(
        "cutover killed before its last sync, and again",
        "a",
        lambda actor: actor.build("b").gate("b").cut_over_killed("b", "sync folder", "history").cut_over("b"),
    ),
    Scenario(
        "rollback killed before its last sync, and again",
        "ab",
        lambda actor: actor.roll_back_killed(2, "sync folder", "history").roll_back(2),
    ),
]
"""What is watched. What comes later, a push or a pull, goes here, with a method of `Actor`."""
