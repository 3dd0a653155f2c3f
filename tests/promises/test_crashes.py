"""Promise 1: a crash at any instant leaves the old version or the new one, and the next run needs no repair."""

from __future__ import annotations

from pathlib import Path

import pytest

from prediction_store import layout
from promises import crash_points, random_kills, system_calls, transfer_points
from promises.crash_points import DEAD_DISK, EIO, ENOSPC, FAILED_SYNC, KILL, Point
from promises.steps import steps_of
from promises.tiny_store import HOUR, MADE_AT, publish

SEED = 20261125
LEFT_TO_THE_SOAK = {"first publish", "build of shards", "gate again", "rollback to", "unpin", "release"}
"""Commands whose steps are those of another one."""


def is_for_a_test(point: Point) -> bool:
    """Every step of every kind of command: killed, each sync failing; at every third, one of three errors in turn."""
    error = (EIO, ENOSPC, DEAD_DISK)[point.step // 3 % 3]
    is_tried = point.fault in (KILL, FAILED_SYNC) or (point.step % 3 == 0 and point.fault == error)
    return point.command.name not in LEFT_TO_THE_SOAK and is_tried


def test_a_fault_at_any_durable_step_leaves_old_or_new_and_needs_no_repair(folder: Path) -> None:
    outcome = crash_points.run(SEED, crash_points.ALL, folder, wanted=is_for_a_test)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried == outcome.counts["points"] > 170, "the last step was never reached"
    assert outcome.counts[KILL] > 90
    assert outcome.counts[FAILED_SYNC] > 40
    assert min(outcome.counts[error] for error in (EIO, ENOSPC, DEAD_DISK)) > 5
    # Of a publish: the last sync of its history record, as an error and as a failing fsync.
    assert outcome.counts["unknown outcomes"] > 0


def test_a_fault_at_a_step_between_hosts_leaves_old_or_new_and_needs_no_repair(folder: Path) -> None:
    """A host's files take the same steps one after the other: some of them all. The soak tries every one."""
    outcome = transfer_points.run(SEED, 60, folder)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried == 60 < outcome.counts["points"]
    assert {KILL, EIO, ENOSPC} <= outcome.counts.keys()


def test_a_kill_at_any_instant_leaves_old_or_new_and_needs_no_repair(folder: Path) -> None:
    outcome = random_kills.run(SEED, 15, folder)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried == 15


@pytest.mark.skipif(not system_calls.is_possible(), reason="no strace here, or no right to trace")
def test_a_fault_at_a_system_call_leaves_old_or_new_and_needs_no_repair(folder: Path) -> None:
    """LMDB announces none of its steps. Some faults of hundreds; the soak tries them all."""
    outcome = system_calls.run(SEED, 12, folder)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried == 12


def test_the_order_of_publishing(folder: Path) -> None:
    """What FORMAT.md says under "Writing"; `test_power_cuts` shows what leaving out any of the syncs loses."""
    root = folder / "store"
    publish(root, "first", MADE_AT)
    taken = [str(step) for step in steps_of(lambda: publish(root, "second", MADE_AT + HOUR))]
    name = layout.version_names(root)[0]
    manifest = taken.index("create manifest.json")
    created = [step.removeprefix("create ") for step in taken[:manifest] if step.startswith("create ")]
    assert created, "files come before the manifest"
    for file in [*created, "shard-0000.mdb", "index.mdb"]:
        assert f"sync file {file}" in taken[:manifest]
    folders = [Path(path).name for path in reversed(layout.FOLDERS)]
    tail = [step for step in taken[manifest:] if not step.startswith("make ")]
    draft = next(step for step in tail if step.startswith(f"sync folder {layout.BUILDING}{name}"))
    gates = next(step for step in tail if step.startswith("create .tmp-") and name in step).removeprefix("create ")
    entry = next(step for step in tail if step.startswith("create .tmp-00000002")).removeprefix("create ")
    assert tail == [
        "create manifest.json", "sync file manifest.json",
        *(f"sync folder {path}" for path in folders), draft,
        f"rename {name}", "sync folder versions",
        f"create {gates}", f"sync file {gates}", f"rename {name}.json", "sync folder gates",
        "sync folder versions", f"create {entry}", f"sync file {entry}", "link 00000002.json", "sync folder history",
        f"remove {entry}",
    ]  # fmt: skip
