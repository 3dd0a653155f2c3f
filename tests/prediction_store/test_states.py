"""The state of a version follows from what is on disk, and each row of the table says what can be known of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from shop_store import DAY, MADE_AT, MakeVersion, judge

from prediction_store import history, holds, layout
from prediction_store.listing import VersionRow, list_history, list_versions
from prediction_store.retention import retire
from prediction_store.writer import VersionDraft

WHO = "ann@host"
NOW = MADE_AT + 6 * 3600
Edit = Callable[[Path, Callable[[bytes], bytes]], None]


def states(root: Path, now: float = NOW) -> dict[str, str]:
    return {row.version: row.state for row in list_versions(root, now)}


def validate(root: Path, name: str, **gates: dict[str, object]) -> None:
    judge(root, name, **gates)


def test_a_version_goes_through_its_states(root: Path, make_version: MakeVersion) -> None:
    a, b = make_version("a"), make_version("b")
    assert states(root) == {a: "built", b: "built"}
    validate(root, a)
    validate(root, b)
    assert states(root) == {a: "validated", b: "validated"}
    history.cutover(root, a, WHO, "", 5)
    history.cutover(root, b, WHO, "", 6)
    assert states(root) == {a: "backup", b: "current"}
    history.rollback(root, WHO, "bad", 7)
    assert states(root) == {a: "current", b: "quarantined"}
    again = make_version("b")
    assert states(root)[again] == "quarantined", "another one of the same inputs"
    holds.release(root, b, WHO, "", 8)
    assert states(root) == {a: "current", b: "validated", again: "built"}


def test_what_is_expired_says_so_unless_it_is_needed(root: Path, make_version: MakeVersion) -> None:
    a, b, c = (make_version(inputs) for inputs in "abc")
    for name in (a, b):
        history.cutover(root, name, WHO, "a test", 5, force=True)
    limit = MADE_AT + 7 * DAY
    assert states(root, limit - 1) == {a: "backup", b: "current", c: "built"}
    assert states(root, limit) == {a: "backup", b: "current", c: "expired"}


def test_a_draft_is_building_and_says_when_its_maker_is_dead(root: Path, make_version: MakeVersion) -> None:
    a = make_version("a")
    with VersionDraft.begin(root, "0" * 64, NOW) as draft:
        rows = {row.version: row for row in list_versions(root, NOW)}
        assert (rows[draft.name].state, rows[draft.name].problem, rows[a].state) == ("building", "", "built")
        draft._release()
        assert "retire sweeps it" in list_versions(root, NOW)[0].problem
    retire(root, keep=2, grace_seconds=0, now=NOW)
    assert list(states(root)) == [a]


@pytest.mark.leaves_damage
def test_damage_that_can_be_seen_at_a_glance_is_a_state(
    root: Path, make_version: MakeVersion, edit_sealed: Edit
) -> None:
    a, b, c, later = (make_version(inputs) for inputs in "abcd")
    history.cutover(root, a, WHO, "a test", 5, force=True)
    edit_sealed(layout.version_path(root, a) / layout.MANIFEST, lambda _: b"")
    edit_sealed(layout.version_path(root, b) / layout.USER_VECTORS, lambda data: data[:-1])
    manifest = layout.version_path(root, later) / layout.MANIFEST
    edit_sealed(manifest, lambda data: data.replace(b'"format": 1', b'"format": 9'))
    assert states(root) == {a: "damaged", b: "damaged", c: "built", later: "unknown"}
    rows = {row.version: row for row in list_versions(root, NOW)}
    assert (rows[a].is_current, rows[a].users) == (True, None)
    assert "users/vectors.npy has" in rows[b].problem
    assert "this Shortlist reads up to 1" in rows[later].problem


def test_a_row_says_who_made_the_version_current_the_last_time(root: Path, make_version: MakeVersion) -> None:
    a, b = make_version("a"), make_version("b")
    history.cutover(root, a, WHO, "the first", 5, force=True)
    history.cutover(root, b, "bob@host", "the second", 6, force=True)
    holds.pin(root, "eve@host", "", 7)

    def of(name: str) -> VersionRow:
        return next(row for row in list_versions(root, NOW) if row.version == name)

    assert (of(a).made_current_by, of(a).made_current_at, of(a).made_current_why) == (WHO, 5, "the first")
    assert of(b).made_current_by == "bob@host"
    assert (of(b).age_seconds, of(b).users, of(b).gates) == (NOW - MADE_AT, 3, "not run")
    assert [of(name).is_rollback_target for name in (a, b)] == [True, False]
    history.rollback(root, "dan@host", "", 8)
    assert of(a).made_current_by == "dan@host"


@pytest.mark.leaves_damage
def test_a_record_that_cannot_be_read_is_a_row_of_the_history(root: Path, make_version: MakeVersion) -> None:
    for inputs in "abc":
        make_version(inputs, cut_over=True)
    layout.history_path(root, 2).write_bytes(b"{}")
    rows = list_history(root)
    assert [row.number for row in rows] == [3, 2, 1]
    assert [row.record is None for row in rows] == [False, True, False]
    assert "00000002.json" in rows[1].problem


def test_gates_that_were_run_on_other_bytes_were_not_run(root: Path, make_version: MakeVersion) -> None:
    a, b = make_version("a"), make_version("b")
    validate(root, a)
    text = layout.gate_path(root, a).read_text()
    layout.gate_path(root, b).write_text(text.replace(a, b))
    assert states(root) == {a: "validated", b: "built"}
    layout.gate_path(root, b).unlink()
