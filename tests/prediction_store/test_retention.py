"""Retention: never what is current, next, young or in use; whole or gone; and what the dead have left."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from shop_store import MADE_AT, MakeVersion, judge

from prediction_store import history, layout, locks
from prediction_store.errors import DamagedHistoryError, DiskError, MissingVersionError
from prediction_store.listing import list_versions
from prediction_store.manifest import leased
from prediction_store.reader import Version
from prediction_store.retention import RetireReport, require_all_removed, retire

KINDS = (layout.BUILDING, layout.PULLING, layout.TRASH)
DAY = 86_400
LONG_AFTER = MADE_AT + 365 * DAY


def retired(root: Path, keep: int = 2, now: float = LONG_AFTER) -> RetireReport:
    return retire(root, keep=keep, grace_seconds=3600, now=now)


def test_the_oldest_go_and_the_newest_stay(root: Path, make_version: MakeVersion) -> None:
    a, b, c, d = (make_version(inputs, cut_over=True) for inputs in "abcd")
    report = retired(root, keep=3)
    assert report.removed == [a]
    assert report.kept == {d: "current", c: "rollback goes there", b: "among the newest"}
    assert layout.version_names(root) == [d, c, b]
    assert not layout.leftovers(root, layout.TRASH)


def test_the_current_one_and_the_one_to_go_back_to_stay_however_old(root: Path, make_version: MakeVersion) -> None:
    a, b = (make_version(inputs, cut_over=True) for inputs in "ab")
    c, d = (make_version(inputs) for inputs in "cd")
    report = retired(root)
    assert report.removed == [c, d]
    assert report.kept == {b: "current", a: "rollback goes there"}
    assert history.rollback(root, "ann@host", "", 5).version == a


def test_a_young_version_stays(root: Path, make_version: MakeVersion) -> None:
    a, b, c, d = (make_version(inputs, cut_over=True) for inputs in "abcd")
    now = layout.built_at(b) + 3599
    assert retired(root, now=now).removed == [a]
    assert layout.version_names(root) == [d, c, b]


def test_a_version_that_is_open_stays_until_it_is_closed(root: Path, make_version: MakeVersion) -> None:
    a, _, _ = (make_version(inputs, cut_over=True) for inputs in "abc")
    with Version.open(root, a):
        child = os.fork()  # which gives up what it has inherited, and no more than that
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        report = retired(root)
        assert (report.removed, report.kept[a]) == ([], "open in some process")
    assert retired(root).removed == [a]


def test_a_version_that_a_killed_process_had_open_can_go_at_once(root: Path, make_version: MakeVersion) -> None:
    a, _, _ = (make_version(inputs, cut_over=True) for inputs in "abc")
    is_open, opened = os.pipe()
    child = os.fork()
    if child == 0:
        Version.open(root, a)
        os.write(opened, b"!")
        signal.pause()
        os._exit(0)
    os.read(is_open, 1)
    assert retired(root).removed == []
    os.kill(child, 9)
    os.waitpid(child, 0)
    assert retired(root).removed == [a]
    os.close(is_open)
    os.close(opened)


def test_without_a_current_version_the_newest_stay(root: Path, make_version: MakeVersion) -> None:
    a, b, c = (make_version(inputs) for inputs in "abc")
    assert retired(root).removed == [a]
    assert layout.version_names(root) == [c, b]


@pytest.mark.leaves_damage
def test_nothing_goes_when_it_is_not_known_what_is_current(root: Path, make_version: MakeVersion) -> None:
    for inputs in "abc":
        make_version(inputs, cut_over=True)
    layout.history_path(root, 3).write_bytes(b"")
    with pytest.raises(DamagedHistoryError):
        retired(root)
    assert len(layout.version_names(root)) == 3


def test_a_version_that_becomes_current_meanwhile_stays(
    root: Path, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the decision and the removal someone goes back to it."""
    a, b, c = (make_version(inputs, cut_over=True) for inputs in "abc")
    real = locks.lock

    def go_back_first(path: Path, *, exclusive: bool) -> int | None:
        if exclusive and path.parent.name == a:
            monkeypatch.setattr(locks, "lock", real)
            history.rollback(root, "ann@host", "", 5, to=a)
        return real(path, exclusive=exclusive)

    monkeypatch.setattr(locks, "lock", go_back_first)
    report = retired(root)
    assert (report.removed, report.kept[a]) == ([], "current")
    assert set(layout.version_names(root)) == {a, b, c}


def test_a_version_on_its_way_out_cannot_be_opened(root: Path, make_version: MakeVersion) -> None:
    name = make_version("a")
    lock = locks.lock(layout.version_path(root, name) / layout.MANIFEST, exclusive=True)
    assert lock is not None
    with pytest.raises(MissingVersionError, match="being removed"), leased(root, name):
        pass
    locks.unlock(lock)


def test_an_interrupted_removal_is_finished_by_the_next(
    root: Path, make_version: MakeVersion, observe_steps: Callable[..., None]
) -> None:
    a, b, c = (make_version(inputs, cut_over=True) for inputs in "abc")

    def interrupt(step: str, path: Path) -> None:
        if step == "remove" and path.name.startswith(layout.TRASH):
            raise KeyboardInterrupt

    observe_steps(interrupt)
    with pytest.raises(KeyboardInterrupt):
        retired(root)
    assert layout.version_names(root) == [c, b], "whole or not there"
    assert len(layout.leftovers(root, layout.TRASH)) == 1
    observe_steps(lambda step, path: None)
    assert [name[:32] for name in retired(root).swept] == [f"{layout.TRASH}{a}"[:32]]
    assert not layout.leftovers(root, layout.TRASH)


def test_two_that_retire_at_once_do_not_stumble_over_one_another(
    root: Path, make_version: MakeVersion, observe_steps: Callable[..., None]
) -> None:
    """What one has renamed, the other takes for what a dead one has left."""
    a, _, _ = (make_version(inputs, cut_over=True) for inputs in "abc")
    swept: list[str] = []

    def overtake(step: str, path: Path) -> None:
        if step == "remove" and path.name.startswith(layout.TRASH):
            observe_steps(lambda step, path: None)
            swept.extend(retired(root).swept)

    observe_steps(overtake)
    assert retired(root).removed == [a]
    assert len(swept) == 1


def test_old_temporary_files_go_and_fresh_ones_stay(root: Path, make_version: MakeVersion) -> None:
    make_version("a", cut_over=True)
    old, fresh = (layout.history_folder(root) / f"{layout.TEMPORARY}{name}" for name in ("old", "fresh"))
    old.touch()
    fresh.touch()
    os.utime(old, (0, 0))
    assert retired(root).swept == [old.name]
    assert fresh.exists()


def test_validated_versions_stay_before_others_that_are_newer(root: Path, make_version: MakeVersion) -> None:
    a, b, c, d, e = (make_version(inputs) for inputs in "abcde")
    for name in (a, b, c):
        judge(root, name)
    for name in (a, b):
        history.cutover(root, name, "ann@host", "", 5)
    report = retired(root, keep=3)
    assert report.removed == [d, e]
    assert report.kept == {b: "current", a: "rollback goes there", c: "among the newest"}


def test_many_versions_of_a_day_leave_room_for_the_last_of_the_days_before(
    root: Path, make_version: MakeVersion
) -> None:
    """Of a day that is over they know all of it, up to midnight."""
    made = {"a": MADE_AT, "b": MADE_AT + DAY - 3600, "c": MADE_AT + DAY}
    made |= {name: MADE_AT + DAY + hours * 3600 for name, hours in (("d", 9), ("e", 12), ("f", 15), ("g", 18))}
    names = [make_version(name, cut_over=True, made_at=at) for name, at in made.items()]
    for name in names:
        judge(root, name)
    a, b, c, d, e, f, g = names
    report = retired(root, keep=4)
    assert report.removed == [b, d, e]
    assert report.kept == {g: "current", f: "rollback goes there"} | dict.fromkeys((c, a), "among the newest")


@pytest.mark.leaves_damage
def test_what_a_later_shortlist_has_written_stays(
    root: Path, make_version: MakeVersion, edit_sealed: Callable[[Path, Callable[[bytes], bytes]], None]
) -> None:
    later, _, _, _ = (make_version(inputs, cut_over=inputs != "a") for inputs in "abcd")
    manifest = layout.version_path(root, later) / layout.MANIFEST
    edit_sealed(manifest, lambda data: data.replace(b'"format": 1', b'"format": 9'))
    report = retired(root)
    assert report.kept[later] == "written by a later Shortlist"
    assert len(report.removed) == 1


def test_who_removed_what_stands_in_the_history(root: Path, make_version: MakeVersion) -> None:
    a, b, c, d = (make_version(inputs, cut_over=True) for inputs in "abcd")
    report = retire(root, keep=2, grace_seconds=0, now=LONG_AFTER, who="ann@host", why="room")
    record = history.current(root)
    assert (report.removed, report.problem) == ([a, b], "")
    assert (record.number, record.action, record.version, record.subjects) == (5, "retire", d, [a, b])
    assert (record.who, record.why, record.at) == ("ann@host", "room", LONG_AFTER)
    assert history.rollback_target(root) == c
    retire(root, keep=2, grace_seconds=0, now=LONG_AFTER, who="ann@host")
    assert layout.history_numbers(root)[-1] == 5, "nothing removed, nothing to say"


def test_on_a_full_disk_versions_go_although_the_history_cannot_say_so(
    root: Path, make_version: MakeVersion, observe_steps: Callable[..., None]
) -> None:
    """Removing is the way out of a full disk."""
    a, _, _ = (make_version(inputs, cut_over=True) for inputs in "abc")

    def is_full(step: str, path: Path) -> None:
        if step == "create":
            raise OSError(errno.ENOSPC, "broken on purpose")

    observe_steps(is_full)
    report = retire(root, keep=2, grace_seconds=0, now=LONG_AFTER, who="ann@host")
    assert report.removed == [a]
    assert "not written into the history" in report.problem


def test_a_store_that_is_not_there_has_nothing_to_retire(root: Path) -> None:
    assert retired(root) == RetireReport([], {}, [])


def is_stuck(stuck: str) -> Callable[[str, Path], None]:
    """Nothing whose name begins so can be removed, as if it were another user's."""

    def refuse(step: str, path: Path) -> None:
        if step == "remove" and path.name.startswith(stuck):
            raise PermissionError(errno.EPERM, "Operation not permitted")

    return refuse


@pytest.mark.parametrize("stuck", [f"{kind}20260101T000000Z-aaaaaaaa" for kind in KINDS])
def test_a_leftover_that_cannot_be_removed_is_told_and_stops_nothing(
    root: Path, make_version: MakeVersion, observe_steps: Callable[..., None], stuck: str
) -> None:
    a, b, _, _ = (make_version(inputs, cut_over=True) for inputs in "abcd")
    (layout.versions_folder(root) / stuck).mkdir()
    (layout.versions_folder(root) / f"{layout.TRASH}z").mkdir()
    observe_steps(is_stuck(stuck))
    report = retire(root, keep=2, grace_seconds=0, now=LONG_AFTER, who="ann@host")
    assert (report.removed, report.swept) == ([a, b], [f"{layout.TRASH}z"])
    assert list(report.failed) == [stuck]
    assert "Operation not permitted" in report.failed[stuck]
    assert history.current(root).subjects == [a, b]
    with pytest.raises(DiskError, match="1 could not be removed"):
        require_all_removed(report)


def test_a_version_whose_files_cannot_be_removed_is_written_down_and_the_others_go_on(
    root: Path, make_version: MakeVersion, observe_steps: Callable[..., None]
) -> None:
    a, b, _, _ = (make_version(inputs, cut_over=True) for inputs in "abcd")
    observe_steps(is_stuck(f"{layout.TRASH}{a}"))
    report = retire(root, keep=2, grace_seconds=0, now=LONG_AFTER, who="ann@host")
    assert report.removed == history.current(root).subjects == [a, b]
    left = [path.name for path in layout.leftovers(root, layout.TRASH)]
    assert list(report.failed) == left
    assert len(left) == 1
    assert list(retired(root).failed) == left, "told again"
    observe_steps(lambda step, path: None)
    assert (retired(root).swept, retired(root).failed) == (left, {})


@pytest.mark.leaves_damage
def test_an_entry_that_is_no_version_stays_and_stops_nothing(root: Path, make_version: MakeVersion) -> None:
    odd, b, _, _ = (make_version(inputs, cut_over=True) for inputs in "abcd")
    folder = layout.version_path(root, odd)
    folder.chmod(0o755)
    (folder / layout.MANIFEST).rename(folder / "moved")
    (folder / layout.MANIFEST).symlink_to("moved")
    file = layout.versions_folder(root) / "20200101T000000Z-aaaaaaaa"
    file.touch()
    report = retired(root)
    assert report.removed == [b]
    assert set(report.failed) == {odd, file.name}
    assert {name: report.kept[name] for name in report.failed} == report.failed
    assert file.exists()


@pytest.mark.parametrize("name", ["20260230T000000Z-00000000", "99999999T999999Z-00000000"])
def test_a_folder_named_like_a_version_of_no_day_is_none(root: Path, make_version: MakeVersion, name: str) -> None:
    a = make_version("a", cut_over=True)
    (layout.versions_folder(root) / name).mkdir()
    assert [row.version for row in list_versions(root, LONG_AFTER)] == [a]
    assert list(retired(root).kept) == [a]


def test_a_version_that_is_a_link_goes_and_what_it_leads_to_stays(
    root: Path, make_version: MakeVersion, tmp_path: Path
) -> None:
    a, _, _ = (make_version(inputs, cut_over=True) for inputs in "abc")
    elsewhere = tmp_path / "elsewhere"
    layout.version_path(root, a).rename(elsewhere)
    layout.version_path(root, a).symlink_to(elsewhere)
    mode = elsewhere.stat().st_mode
    (layout.versions_folder(root) / f"{layout.TRASH}link").symlink_to(elsewhere)
    report = retired(root)
    assert (report.removed, report.swept, report.failed) == ([a], [f"{layout.TRASH}link"], {})
    assert not layout.leftovers(root, layout.TRASH)
    assert elsewhere.stat().st_mode == mode
    assert (elsewhere / layout.MANIFEST).exists()


def test_a_version_that_another_removes_meanwhile_is_the_others(
    root: Path, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, _, _ = (make_version(inputs, cut_over=True) for inputs in "abcd")
    real = locks.lock

    def overtake(path: Path, *, exclusive: bool) -> int | None:
        if exclusive and path.parent.name == a:
            monkeypatch.setattr(locks, "lock", real)
            assert retire(root, keep=3, grace_seconds=0, now=LONG_AFTER).removed == [a]
        return real(path, exclusive=exclusive)

    monkeypatch.setattr(locks, "lock", overtake)
    report = retired(root)
    assert (report.removed, report.failed, a in report.kept) == ([b], {}, False)
