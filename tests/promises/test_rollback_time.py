"""Promise 5: a rollback takes moments and copies nothing. The moments are measured by the soak; no test is a race."""

from __future__ import annotations

from pathlib import Path

from prediction_store import history
from promises import rollback_time
from promises.steps import steps_of
from promises.tiny_store import HOUR, MADE_AT, WHO, publish


def test_a_rollback_by_command_reaches_every_worker_and_changes_no_file(folder: Path) -> None:
    outcome = rollback_time.run(1, 2, folder, workers=2)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried == 2


def test_a_rollback_writes_one_history_record_and_nothing_else(folder: Path) -> None:
    root = folder / "store"
    for number, inputs in enumerate("ab"):
        publish(root, inputs, MADE_AT + number * HOUR)
    before = rollback_time.inventory(root)
    taken = steps_of(lambda: history.rollback(root, WHO, "bad", MADE_AT))
    assert rollback_time.changes(before, rollback_time.inventory(root)) == []
    assert [step.what for step in taken] == [
        "sync folder", "create", "sync file", "link", "sync folder", "remove"
    ]  # fmt: skip
    assert {step.name for step in taken if step.what == "create"} == {
        step.name for step in taken if step.what == "remove"
    }
