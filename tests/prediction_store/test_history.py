"""Cutover and rollback: one winner, no flip-flop, nothing current by accident, safe to repeat."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from shop_store import MADE_AT, MakeVersion, go_live, judge

from prediction_store import history, layout
from prediction_store.errors import (
    ConcurrentPublishError,
    DamagedVersionError,
    GateRefusedError,
    MissingGateReportError,
    MissingVersionError,
    NoCurrentVersionError,
    NothingToRollBackToError,
    QuarantinedError,
)
from prediction_store.retention import retire
from schemas.errors import UsageError
from schemas.gate_config import AtLeast

WHO = "ann@host"
Observe = Callable[[Callable[[str, Path], None]], None]


def roll_back(root: Path, to: str | None = None) -> str:
    return history.rollback(root, WHO, "bad", 6, to=to).version


def test_a_store_without_a_record_has_no_current_version_however_many_there_are(
    root: Path, make_version: MakeVersion
) -> None:
    make_version("a")
    with pytest.raises(NoCurrentVersionError):
        history.current(root)
    with pytest.raises(NoCurrentVersionError):
        roll_back(root)


def test_the_newest_record_is_the_highest_number_whatever_else_lies_there(
    root: Path, make_version: MakeVersion
) -> None:
    assert layout.newest_history_number(root) == 0
    go_live(root, make_version("a"))
    go_live(root, make_version("b"))
    for name in (".tmp-99999999-x", "99999999.json.bak", "9.json", "notes.txt", "00000001.json~"):
        (layout.history_folder(root) / name).touch()
    assert layout.newest_history_number(root) == layout.history_numbers(root)[-1] == 2


def test_a_cutover_is_a_record_of_who_why_and_what(root: Path, make_version: MakeVersion) -> None:
    a, b = make_version("a"), make_version("b")
    go_live(root, a)
    record = go_live(root, b)
    assert record == history.current(root)
    assert (record.number, record.action, record.version, record.previous) == (2, "cutover", b, a)
    assert (record.who, record.why, record.at, record.forced) == (WHO, "tonight's run", 5, False)
    manifest = (layout.version_path(root, b) / layout.MANIFEST).read_bytes()
    assert record.manifest_sha256 == sha256(manifest).hexdigest()


def test_cutting_over_to_what_is_current_changes_nothing(root: Path, make_version: MakeVersion) -> None:
    a = make_version("a")
    first = go_live(root, a)
    assert history.cutover(root, a, "bob@host", "again", 9) == first
    assert layout.history_numbers(root) == [1]


def test_a_version_whose_gates_were_not_run_does_not_go_live(root: Path, make_version: MakeVersion) -> None:
    with pytest.raises(MissingGateReportError, match="no gate report"):
        history.cutover(root, make_version("a"), WHO, "", 5)
    assert history.current_or_none(root) is None


def test_a_version_that_was_refused_does_not_go_live(root: Path, make_version: MakeVersion) -> None:
    name = make_version("a")
    judge(root, name, items=AtLeast(fail=13))
    with pytest.raises(GateRefusedError, match="gate items: found 12, wanted at least 13, 1 too little") as refused:
        history.cutover(root, name, WHO, "", 5)
    assert refused.value.exit_code == 3
    assert layout.version_names(root) == [name]


@pytest.mark.leaves_damage
def test_a_report_about_other_bytes_does_not_count(root: Path, make_version: MakeVersion) -> None:
    a = make_version("a")
    judge(root, a)
    path = layout.gate_path(root, a)
    text = path.read_text()
    digest = text.split('"manifest_sha256": "')[1][:64]
    path.write_text(text.replace(digest, "0" * 64))
    with pytest.raises(MissingGateReportError, match="other bytes"):
        history.cutover(root, a, WHO, "", 5)


def test_force_needs_a_reason_and_is_recorded(root: Path, make_version: MakeVersion) -> None:
    name = make_version("a")
    with pytest.raises(UsageError, match="needs a reason"):
        history.cutover(root, name, WHO, " ", 5, force=True)
    record = history.cutover(root, name, WHO, "the gates are wrong", 5, force=True)
    assert (record.forced, record.why) == (True, "the gates are wrong")


def test_a_rollback_goes_to_what_was_served_before(root: Path, make_version: MakeVersion) -> None:
    a, b = make_version("a"), make_version("b")
    go_live(root, a)
    go_live(root, b)
    assert roll_back(root) == a
    record = history.current(root)
    assert (record.number, record.action, record.previous) == (3, "rollback", b)


def test_two_rollbacks_in_a_row_keep_going_back(root: Path, make_version: MakeVersion) -> None:
    a, b, c = (make_version(inputs) for inputs in "abc")
    for name in (a, b, c):
        go_live(root, name)
    assert [roll_back(root), roll_back(root)] == [b, a]
    with pytest.raises(NothingToRollBackToError):
        roll_back(root)


def test_a_rollback_quarantines_what_is_left(root: Path, make_version: MakeVersion) -> None:
    a, b = make_version("a"), make_version("b")
    go_live(root, a)
    go_live(root, b)
    roll_back(root)
    record = history.current(root)
    assert (record.subjects, list(record.quarantined), record.quarantined[b].number) == ([b], [b], 3)
    with pytest.raises(QuarantinedError, match="quarantined by history record 3"):
        go_live(root, b)
    with pytest.raises(QuarantinedError):
        history.cutover(root, b, WHO, "I insist", 7, force=True)
    with pytest.raises(QuarantinedError):
        roll_back(root, to=b)
    assert layout.history_numbers(root) == [1, 2, 3]


def test_a_later_run_over_the_same_inputs_does_not_bring_back_what_was_left(
    root: Path, make_version: MakeVersion
) -> None:
    a, bad = make_version("a"), make_version("bad")
    go_live(root, a)
    go_live(root, bad)
    roll_back(root)
    again = make_version("bad")
    assert again != bad
    with pytest.raises(QuarantinedError, match=f"has the same inputs as {bad}"):
        go_live(root, again)
    assert go_live(root, make_version("mended")).number == 4


def test_a_rollback_to_the_same_inputs_forbids_only_what_is_left(root: Path, make_version: MakeVersion) -> None:
    first, second = make_version("a"), make_version("a")
    go_live(root, first)
    go_live(root, second)
    assert roll_back(root) == first
    assert go_live(root, make_version("a")).number == 4


def test_a_rollback_after_a_rollback_does_not_return_to_the_bad_version(root: Path, make_version: MakeVersion) -> None:
    a, bad, c = (make_version(inputs) for inputs in "abc")
    go_live(root, a)
    go_live(root, bad)
    roll_back(root)
    go_live(root, c)
    assert roll_back(root) == a


def test_a_rollback_may_name_its_version(root: Path, make_version: MakeVersion) -> None:
    a, b, c = (make_version(inputs) for inputs in "abc")
    for name in (a, b, c):
        go_live(root, name)
    assert roll_back(root, to=a) == a
    assert roll_back(root, to=b) == b, "it was served, so it needs no new gate"
    assert roll_back(root, to=b) == b, "and repeating it changes nothing"
    assert layout.history_numbers(root) == [1, 2, 3, 4, 5]


def test_a_rollback_to_what_was_never_served_needs_its_gates(root: Path, make_version: MakeVersion) -> None:
    a, b = make_version("a"), make_version("b")
    go_live(root, a)
    with pytest.raises(MissingGateReportError):
        roll_back(root, to=b)


@pytest.mark.parametrize("to", ["20260101T000000Z-00000000", "20991231T235959Z-ffffffff"])
def test_a_rollback_to_what_is_not_there_changes_nothing(root: Path, make_version: MakeVersion, to: str) -> None:
    go_live(root, make_version("a"))
    with pytest.raises(MissingVersionError):
        roll_back(root, to=to)
    assert layout.history_numbers(root) == [1]


@pytest.mark.leaves_damage
def test_a_damaged_version_is_not_rolled_back_to(
    root: Path, make_version: MakeVersion, edit_sealed: Callable[..., None]
) -> None:
    a, b = make_version("a"), make_version("b")
    go_live(root, a)
    go_live(root, b)
    edit_sealed(layout.version_path(root, a) / layout.USER_VECTORS, lambda data: data[:-1] + b"\1")
    with pytest.raises(DamagedVersionError, match=r"users/vectors\.npy") as caught:
        roll_back(root)
    assert caught.value.hint.startswith("if it is current"), "it is not, and to roll back is what has just failed"
    assert history.current(root).version == b


@pytest.mark.leaves_damage
def test_a_damaged_version_does_not_go_live_even_by_force(
    root: Path, make_version: MakeVersion, edit_sealed: Callable[..., None]
) -> None:
    name = make_version("a")
    edit_sealed(layout.version_path(root, name) / layout.USER_VECTORS, lambda data: data[:-1] + b"\1")
    with pytest.raises(DamagedVersionError):
        history.cutover(root, name, WHO, "I insist", 5, force=True)


def test_who_expects_another_record_is_refused(root: Path, make_version: MakeVersion) -> None:
    a, b, c = (make_version(inputs) for inputs in "abc")
    go_live(root, a)
    go_live(root, b)
    judge(root, c)
    for decide in (
        lambda: history.cutover(root, c, WHO, "", 7, expect=1),
        lambda: history.rollback(root, WHO, "", 7, expect=1),
        lambda: history.rollback(root, WHO, "", 7, to=a, expect=3),
    ):
        with pytest.raises(ConcurrentPublishError, match=r"the newest history record is 2; \d was expected"):
            decide()
    assert history.cutover(root, c, WHO, "", 7, expect=2).number == 3


def test_repeating_a_rollback_that_expects_its_record_changes_nothing(root: Path, make_version: MakeVersion) -> None:
    """A plain rollback, repeated, would go back once more: that is what two tired people would do."""
    for inputs in "abc":
        go_live(root, make_version(inputs))
    first = history.rollback(root, WHO, "bad", 7, expect=3)
    assert history.rollback(root, "bob@host", "bad", 8, expect=3) == first
    assert layout.history_numbers(root) == [1, 2, 3, 4]


def test_a_plan_checks_everything_and_changes_nothing(root: Path, make_version: MakeVersion) -> None:
    a, b, c = (make_version(inputs) for inputs in "abc")
    go_live(root, a)
    go_live(root, b)
    planned = history.rollback(root, WHO, "bad", 7, apply=False)
    assert (planned.number, planned.version, planned.subjects) == (3, a, [b])
    with pytest.raises(MissingGateReportError):
        history.cutover(root, c, WHO, "", 7, apply=False)
    judge(root, c)
    assert history.cutover(root, c, WHO, "", 7, apply=False).version == c
    assert layout.history_numbers(root) == [1, 2]
    assert history.rollback(root, WHO, "bad", 7, expect=planned.number - 1) == planned


def test_an_unrelated_record_in_between_does_not_refuse_a_cutover(
    root: Path, make_version: MakeVersion, observe_steps: Observe
) -> None:
    a, b, c = (make_version(inputs) for inputs in "abc")
    go_live(root, a)
    judge(root, b)
    overtaken = False

    def overtake(step: str, path: Path) -> None:
        nonlocal overtaken
        if step == "link" and not overtaken:
            overtaken = True
            assert retire(root, keep=2, grace_seconds=0, now=MADE_AT + 10**9, who="bob@host").removed == [c]

    history.cutover(root, b, WHO, "", 7, apply=False)
    observe_steps(overtake)
    record = history.cutover(root, b, WHO, "", 7)
    assert (record.number, record.version) == (3, b)
    assert history.read_record(root, 2).action == "retire"
