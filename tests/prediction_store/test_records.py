"""The history on disk: one number for one of all who try, nothing half-written, and what cannot be read is an error."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from shop_store import MakeVersion, go_live, judge

from prediction_store import history, layout
from prediction_store.errors import (
    ConcurrentPublishError,
    DamagedHistoryError,
    DiskError,
    UnknownOutcomeError,
)
from schemas.errors import RefusedError

WHO = "ann@host"


Observe = Callable[[Callable[[str, Path], None]], None]


def test_of_two_publishers_one_wins_and_the_other_is_refused(
    root: Path, make_version: MakeVersion, observe_steps: Observe
) -> None:
    a, b, c = (make_version(inputs) for inputs in "abc")
    go_live(root, a)
    for name in (b, c):
        judge(root, name)
    overtaken = False

    def overtake(step: str, path: Path) -> None:
        nonlocal overtaken
        if step == "link" and not overtaken:
            overtaken = True
            history.cutover(root, c, "bob@host", "", 7)

    observe_steps(overtake)
    with pytest.raises(ConcurrentPublishError) as refused:
        history.cutover(root, b, WHO, "", 7)
    assert isinstance(refused.value, RefusedError)
    assert history.current(root).version == c
    assert layout.history_numbers(root) == [1, 2]
    assert history.cutover(root, b, WHO, "", 8).number == 3, "deciding again works"


def fail_at(step: str, name: str, error: int) -> Callable[[str, Path], None]:
    def fail(at: str, path: Path) -> None:
        if at == step and path.name.startswith(name):
            raise OSError(error, "broken on purpose")

    return fail


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_failing_last_sync_is_an_unknown_outcome_and_repeating_is_safe(
    root: Path, make_version: MakeVersion, observe_steps: Observe, error: int
) -> None:
    a, b = make_version("a"), make_version("b")
    go_live(root, a)
    judge(root, b)
    observe_steps(fail_at("sync folder", "history", error))
    with pytest.raises(UnknownOutcomeError) as unknown:
        history.cutover(root, b, WHO, "", 7)
    assert unknown.value.exit_code == 4
    synced: list[str] = []
    observe_steps(lambda step, path: synced.append(f"{step} {path.name}"))
    assert history.cutover(root, b, WHO, "", 8).at == 7, "it finds its own record"
    assert "sync folder history" in synced, "and makes sure of it"


@pytest.mark.parametrize(
    ("step", "name"),
    [("create", ".tmp-"), ("sync file", ".tmp-"), ("link", "00000002"), ("sync folder", "versions")],
)
def test_any_other_failing_step_changes_nothing(
    root: Path, make_version: MakeVersion, observe_steps: Observe, step: str, name: str
) -> None:
    a, b = make_version("a"), make_version("b")
    go_live(root, a)
    judge(root, b)
    observe_steps(fail_at(step, name, errno.ENOSPC))
    with pytest.raises(DiskError, match="broken on purpose"):
        history.cutover(root, b, WHO, "", 7)
    assert history.current(root).version == a
    assert [entry.name for entry in layout.history_folder(root).iterdir()] == ["00000001.json"]
    observe_steps(lambda step, path: None)
    assert history.cutover(root, b, WHO, "", 8).number == 2


@pytest.mark.parametrize("error", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_file_system_without_hard_links_is_named_as_what_is_wrong(
    root: Path, make_version: MakeVersion, observe_steps: Observe, error: int
) -> None:
    a = make_version("a")
    judge(root, a)
    observe_steps(fail_at("link", "00000001", error))
    with pytest.raises(DiskError) as refused:
        history.cutover(root, a, WHO, "", 7)
    assert "hard links" in refused.value.hint


@pytest.mark.leaves_damage
@pytest.mark.parametrize("data", [b"", b"{}", b"\0" * 100, b'{"crc32":1,"record":{}}'])
def test_a_damaged_newest_record_is_an_error_and_never_the_one_before(
    root: Path, make_version: MakeVersion, data: bytes
) -> None:
    a, b = make_version("a"), make_version("b")
    go_live(root, a)
    go_live(root, b)
    layout.history_path(root, 2).write_bytes(data)
    with pytest.raises(DamagedHistoryError):
        history.current(root)
    with pytest.raises(DamagedHistoryError):
        history.rollback(root, WHO, "bad", 6)
    assert history.rollback(root, WHO, "bad", 6, to=a).version == a, "a named version is the way out"
    assert history.current(root).number == 3


@pytest.mark.leaves_damage
def test_force_is_a_way_out_of_a_damaged_history(root: Path, make_version: MakeVersion) -> None:
    a = make_version("a")
    go_live(root, a)
    layout.history_path(root, 1).write_bytes(b"")
    with pytest.raises(DamagedHistoryError):
        history.cutover(root, a, WHO, "", 5)
    assert history.cutover(root, a, WHO, "the history is damaged", 5, force=True).number == 2


@pytest.mark.leaves_damage
@pytest.mark.parametrize("kind", ["folder", "link", "huge", "fifo"])
def test_a_record_that_is_no_file_is_damaged(root: Path, make_version: MakeVersion, tmp_path: Path, kind: str) -> None:
    import os

    go_live(root, make_version("a"))
    path = layout.history_path(root, 2)
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(layout.history_path(root, 1))
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.touch()
        os.truncate(path, 1 << 40)
    with pytest.raises(DamagedHistoryError):
        history.current(root)


@pytest.mark.leaves_damage
def test_a_record_under_another_number_is_damaged(root: Path, make_version: MakeVersion) -> None:
    go_live(root, make_version("a"))
    layout.history_path(root, 1).rename(layout.history_path(root, 7))
    with pytest.raises(DamagedHistoryError, match="it says it is record 1"):
        history.current(root)


@pytest.mark.leaves_damage
def test_beyond_the_last_number_nothing_is_decided(root: Path, make_version: MakeVersion) -> None:
    a, _ = (make_version(inputs, cut_over=True) for inputs in "ab")
    layout.history_path(root, 99_999_999).touch()
    with pytest.raises(DamagedHistoryError, match=r"99999999\.json has the last number"):
        history.rollback(root, "ann@host", "", 5, to=a)
    assert sorted(layout.entries(layout.history_folder(root))) == ["00000001.json", "00000002.json", "99999999.json"]
