"""A publisher that dies, or is refused by the disk, at any of its durable steps: old or new, never between.

Repeating the same commands then needs no repair.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from shop_store import MADE_AT, judge, write_small_version

from prediction_store import durable, history, holds, layout
from prediction_store.check import check
from prediction_store.errors import DiskError, UnknownOutcomeError
from prediction_store.reader import Version
from prediction_store.retention import retire
from prediction_store.writer import find_by_inputs

HOUR = 3600


def publish(root: Path, inputs: str, now: float) -> str:
    """Build, gate and cutover, skipping a build that is there: what the nightly journey does."""
    name = find_by_inputs(root, sha256(inputs.encode()).hexdigest())
    if name is None:
        name = write_small_version(root, inputs=inputs, now=now, shards=1, columns={}, n_items=3)
    judge(root, name, candidates=3, now=now)
    history.cutover(root, name, "test@localhost", "", now)
    return name


def steps_of(action: Callable[[], object]) -> list[str]:
    """The durable steps that an action takes, in order."""
    taken: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "before", lambda step, path: taken.append(f"{step} {path.name}"))
        action()
    return taken


def before_step(number: int, do: Callable[[], None]) -> Callable[[str, Path], None]:
    left = number

    def count_down(step: str, path: Path) -> None:
        nonlocal left
        if left == 0:
            do()
        left -= 1

    return count_down


def killed_at(number: int, action: Callable[[], object]) -> bool:
    """Run an action in a child that is killed before one of its steps; whether it came that far."""
    child = os.fork()
    if child == 0:
        durable.before = before_step(number, lambda: os.kill(os.getpid(), signal.SIGKILL))
        try:
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def assert_sound(root: Path, allowed: set[str]) -> None:
    assert check(root).problems == []
    record = history.current(root)
    assert record.version in allowed
    with Version.open(root, record.version, manifest_sha256=record.manifest_sha256) as version:
        assert version.read("ann") is not None


def test_the_order_of_publishing(root: Path) -> None:
    """What FORMAT.md says under "Writing"; leaving out any of the syncs loses something in a power cut."""
    publish(root, "first", MADE_AT)
    taken = steps_of(lambda: publish(root, "second", MADE_AT + HOUR))
    name = layout.version_names(root)[0]
    manifest = taken.index("create manifest.json")
    created = [step.removeprefix("create ") for step in taken[:manifest] if step.startswith("create ")]
    assert created, "files come before the manifest"
    for file in [*created, "shard-0000.mdb", "index.mdb"]:
        assert f"sync file {file}" in taken[:manifest]
    folders = [Path(folder).name for folder in reversed(layout.FOLDERS)]
    tail = [step for step in taken[manifest:] if not step.startswith("make ")]
    draft = next(step for step in tail if step.startswith(f"sync folder {layout.BUILDING}{name}"))
    gates = next(step for step in tail if step.startswith("create .tmp-") and name in step).removeprefix("create ")
    entry = next(step for step in tail if step.startswith("create .tmp-00000002")).removeprefix("create ")
    assert tail == [
        "create manifest.json", "sync file manifest.json",
        *(f"sync folder {folder}" for folder in folders), draft,
        f"rename {name}", "sync folder versions",
        f"create {gates}", f"sync file {gates}", f"rename {name}.json", "sync folder gates",
        "sync folder versions", f"create {entry}", f"sync file {entry}", "link 00000002.json", "sync folder history",
        f"remove {entry}",
    ]  # fmt: skip


def test_a_publisher_killed_at_any_step_leaves_old_or_new(root: Path) -> None:
    old = publish(root, "first", MADE_AT)
    number = 0
    while True:
        now = MADE_AT + HOUR * (number + 1)
        inputs = f"inputs {number}"
        died = killed_at(number, lambda: publish(root, inputs, now))  # noqa: B023 it runs here and now
        assert_sound(root, {old, *layout.version_names(root)[:1]})
        if not died:
            break
        old = publish(root, inputs, now)
        assert_sound(root, {old})
        retire(root, keep=2, grace_seconds=0, now=now)
        assert not layout.leftovers(root, layout.BUILDING)
        number += 1
    assert number > 50, "the last step was never reached"


def test_a_full_disk_at_any_step_leaves_old_or_new(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fired = False

    def fail() -> None:
        nonlocal fired
        fired = True
        raise OSError(errno.ENOSPC, "broken on purpose")

    old = publish(root, "first", MADE_AT)
    number = unknown = 0
    while True:
        now, inputs, fired = MADE_AT + HOUR * (number + 1), f"inputs {number}", False
        with monkeypatch.context() as patch:
            patch.setattr(durable, "before", before_step(number, fail))
            try:
                publish(root, inputs, now)
            except DiskError:
                assert history.current(root).version == old
            except UnknownOutcomeError:
                unknown += 1
        assert_sound(root, {old, *layout.version_names(root)[:1]})
        if not fired:
            break
        old = publish(root, inputs, now)
        assert_sound(root, {old})
        retire(root, keep=2, grace_seconds=0, now=now)
        number += 1
    assert number > 50, "the last step was never reached"
    assert unknown == 1, "only the very last sync is in doubt"


def test_a_rollback_killed_at_any_step_leaves_old_or_new(root: Path) -> None:
    a, b = publish(root, "a", MADE_AT), publish(root, "b", MADE_AT + HOUR)
    number = 0
    while killed_at(number, lambda: history.rollback(root, "test@localhost", "", 5)):
        assert_sound(root, {a, b})
        history.rollback(root, "test@localhost", "", 6, to=a)
        history.rollback(root, "test@localhost", "", 7, to=a)
        assert_sound(root, {a})
        holds.release(root, b, "test@localhost", "", 8)
        publish(root, "b", MADE_AT + HOUR)
        number += 1
    assert number > 4
    assert_sound(root, {a})


def test_retention_killed_at_any_step_leaves_whole_versions(root: Path) -> None:
    number = 0
    while True:
        names = [publish(root, f"{number} {part}", MADE_AT + HOUR * (3 * number + part)) for part in range(3)]
        died = killed_at(number, lambda: retire(root, keep=2, grace_seconds=0, now=MADE_AT + 10**9))
        assert_sound(root, {names[-1]})
        if not died:
            break
        retire(root, keep=2, grace_seconds=0, now=MADE_AT + 10**9)
        assert layout.version_names(root) == [names[2], names[1]]
        assert not layout.leftovers(root, layout.TRASH)
        number += 1
    assert number > 2
