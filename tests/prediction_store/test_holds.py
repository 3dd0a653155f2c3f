"""The pin holds what is served, the quarantine keeps a version from it: records both, and safe to repeat."""

from __future__ import annotations

from pathlib import Path

import pytest
from shop_store import MakeVersion

from prediction_store import history, holds, layout
from prediction_store.check import check
from prediction_store.errors import (
    DiskError,
    MissingVersionError,
    NoCurrentVersionError,
    PinnedError,
    QuarantinedError,
    ServedVersionError,
)
from prediction_store.listing import list_versions
from schemas.errors import RefusedError, UsageError
from schemas.history import HistoryRecord

WHO = "ann@host"


def go_live(root: Path, name: str) -> HistoryRecord:
    return history.cutover(root, name, WHO, "a test", 5, force=True)


def test_while_pinned_every_cutover_is_refused(root: Path, make_version: MakeVersion) -> None:
    a, b = make_version("a"), make_version("b")
    go_live(root, a)
    record = holds.pin(root, WHO, "the sale", 7)
    assert (record.number, record.action, record.version, record.pinned) == (2, "pin", a, 2)
    assert (record.who, record.why, record.at) == (WHO, "the sale", 7)
    with pytest.raises(PinnedError, match=f"version {a} is pinned by history record 2") as refused:
        go_live(root, b)
    assert isinstance(refused.value, RefusedError)
    assert go_live(root, a) == record, "what is current stays current"
    assert holds.unpin(root, WHO, "it is over", 8).pinned == 0
    assert go_live(root, b).version == b


def test_a_rollback_goes_on_while_pinned_and_the_pin_outlives_it(root: Path, make_version: MakeVersion) -> None:
    a, b, c = (make_version(inputs) for inputs in "abc")
    go_live(root, a)
    go_live(root, b)
    holds.pin(root, WHO, "", 6)
    assert history.rollback(root, WHO, "bad", 7).version == a
    with pytest.raises(PinnedError):
        go_live(root, c)


def test_pinning_and_unpinning_twice_change_nothing(root: Path, make_version: MakeVersion) -> None:
    go_live(root, make_version("a"))
    assert holds.unpin(root, WHO, "", 6).number == 1
    first = holds.pin(root, WHO, "the sale", 7)
    assert holds.pin(root, "bob@host", "mine", 8) == first
    assert holds.unpin(root, WHO, "", 9).number == holds.unpin(root, WHO, "", 10).number == 3


def test_a_quarantined_version_is_not_served_until_it_is_released(root: Path, make_version: MakeVersion) -> None:
    a, b = make_version("a"), make_version("b")
    go_live(root, a)
    record = holds.quarantine(root, b, WHO, "half the shop is missing", 6)
    assert (record.number, record.version, record.subjects, record.why) == (2, a, [b], "half the shop is missing")
    assert holds.quarantine(root, b, WHO, "again", 7) == record
    with pytest.raises(QuarantinedError, match="quarantined by history record 2"):
        go_live(root, b)
    freed = holds.release(root, b, WHO, "it was the feed", 8)
    assert (freed.number, freed.version, freed.subjects, freed.quarantined) == (3, a, [b], {})
    assert holds.release(root, b, WHO, "again", 9) == freed
    assert go_live(root, b).version == b


def test_what_is_served_cannot_be_quarantined(root: Path, make_version: MakeVersion) -> None:
    a = make_version("a")
    go_live(root, a)
    with pytest.raises(ServedVersionError, match="is current") as refused:
        holds.quarantine(root, a, WHO, "", 6)
    assert "rollback" in refused.value.hint
    assert layout.history_numbers(root) == [1]


def test_a_quarantined_version_is_no_way_back(root: Path, make_version: MakeVersion) -> None:
    a, b, c = (make_version(inputs) for inputs in "abc")
    for name in (a, b, c):
        go_live(root, name)
    holds.quarantine(root, b, WHO, "", 6)
    assert history.rollback_target(root) == a
    assert history.rollback(root, WHO, "", 7).version == a


def test_the_way_back_goes_past_a_version_of_the_inputs_of_a_quarantined_one(
    root: Path, make_version: MakeVersion
) -> None:
    a, b, c, b_again = (make_version(inputs) for inputs in "abcb")
    for name in (a, b, c, b_again):
        go_live(root, name)
    assert history.rollback(root, WHO, "bad prices", 6).version == c
    rows = {row.version: row for row in list_versions(root, 7)}
    assert [name for name, row in rows.items() if row.is_rollback_target] == [a]
    assert rows[b].state == "quarantined"
    assert history.rollback_target(root) == a
    assert history.rollback(root, WHO, "bad, too", 7).version == a


def test_the_name_must_be_that_of_a_version(root: Path, make_version: MakeVersion) -> None:
    go_live(root, make_version("a"))
    with pytest.raises(UsageError):
        holds.quarantine(root, "../..", WHO, "", 6)
    with pytest.raises(MissingVersionError):
        holds.quarantine(root, "20260101T000000Z-00000000", WHO, "", 6)


def test_without_a_current_version_there_is_nothing_to_hold(root: Path, make_version: MakeVersion) -> None:
    name = make_version("a")
    for decide in (
        lambda: holds.pin(root, WHO, "", 6),
        lambda: holds.unpin(root, WHO, "", 6),
        lambda: holds.quarantine(root, name, WHO, "", 6),
    ):
        with pytest.raises(NoCurrentVersionError):
            decide()


@pytest.mark.leaves_damage
def test_a_damaged_version_can_be_quarantined_and_rolled_back_from(root: Path, make_version: MakeVersion) -> None:
    a, b, c = (make_version(inputs) for inputs in "abc")
    go_live(root, a)
    go_live(root, b)
    for name in (b, c):
        manifest = layout.version_path(root, name) / layout.MANIFEST
        manifest.chmod(0o644)
        manifest.write_bytes(b"")
    assert history.rollback(root, WHO, "", 7).version == a
    assert list(holds.quarantine(root, c, WHO, "", 8).quarantined) == [b, c]


@pytest.mark.leaves_damage
def test_damage_in_the_newest_record_does_not_make_a_quarantine_forgotten(
    root: Path, make_version: MakeVersion
) -> None:
    a, b, c = (make_version(inputs) for inputs in "abc")
    go_live(root, a)
    go_live(root, b)
    history.rollback(root, WHO, "", 7)
    go_live(root, c)
    layout.history_path(root, 4).write_bytes(b"")
    with pytest.raises(QuarantinedError):
        history.cutover(root, b, WHO, "the history is damaged", 8, force=True)
    record = history.rollback(root, WHO, "the history is damaged", 8, to=a)
    assert (record.number, list(record.quarantined)) == (5, [b])


@pytest.mark.leaves_damage
def test_damage_in_an_old_record_keeps_nobody_from_deciding(root: Path, make_version: MakeVersion) -> None:
    """The newest record carries all that matters."""
    names = [make_version(inputs) for inputs in "abc"]
    for name in names:
        go_live(root, name)
    holds.pin(root, WHO, "", 6)
    for number in (1, 2, 3):
        layout.history_path(root, number).write_bytes(b"")
    assert history.rollback(root, WHO, "", 7).version == names[1]
    assert history.rollback(root, WHO, "", 8).version == names[0]
    assert holds.unpin(root, WHO, "", 9).number == 7
    assert len(check(root).problems) == 3


def test_a_quarantine_where_the_versions_cannot_be_read_says_so(tmp_path: Path) -> None:
    root = tmp_path / "another store"  # which is not checked after the test
    root.mkdir()
    (root / "versions").symlink_to("versions")
    with pytest.raises(DiskError, match="Too many levels of symbolic links"):
        holds.quarantine(root, "20260101T010000Z-ca978112", "ann", "bad", 5.0)
