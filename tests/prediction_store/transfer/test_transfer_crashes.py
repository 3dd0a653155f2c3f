"""A host that dies, or is refused by the disk, at any durable step of a transfer or of a shared decision.

It leaves the old version or the new one, and the same again needs no repair.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from shop_store import MakeVersion, judge
from step_killer import StepKiller, act, before_step

from prediction_store import durable, history, layout
from prediction_store.check import check
from prediction_store.errors import StoreError
from prediction_store.reader import Version
from prediction_store.transfer.copies import find_copy, names_there, sizes_of
from prediction_store.transfer.remote import Remote
from prediction_store.transfer.shared import RemoteHistory
from schemas.errors import UnknownOutcomeError


@pytest.fixture(scope="module")
def killer() -> Iterator[StepKiller]:
    with StepKiller() as started:
        yield started


@pytest.fixture
def versions(root: Path, make_version: MakeVersion) -> tuple[str, str]:
    """Two versions whose gates have passed; the first one is current, here and among nobody else yet."""
    names = make_version("a", shards=1, n_items=3), make_version("b", shards=1, n_items=3)
    for name in names:
        judge(root, name, candidates=3)
    history.cutover(root, names[0], "ann@host", "first", 2)
    return names


def url_of(tmp_path: Path, number: int) -> str:
    return (tmp_path / f"remote-{number}").as_uri()


def assert_complete_or_absent(url: str) -> None:
    """Object storage has each version whole, or says that it has not."""
    remote = Remote(url, make=True)
    for name in names_there(remote):
        copy = find_copy(remote, name)
        if copy is not None:
            there = sizes_of(remote, name)
            assert {file: facts.bytes for file, facts in copy.manifest.files.items()}.items() <= there.items()
    newest = RemoteHistory(remote).newest()
    assert newest is None or find_copy(remote, newest.version) is not None, "what is decided can be pulled"


def assert_sound(root: Path, allowed: set[str | None]) -> None:
    """The store serves one of these, and nothing in it is damaged."""
    assert check(root).problems == []
    record = history.current_or_none(root)
    assert (record.version if record else None) in allowed
    if record is not None:
        with Version.open(root, record.version, manifest_sha256=record.manifest_sha256) as version:
            assert version.read("ann") is not None


def steps_of(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> list[int]:
    """Numbers of the steps to die at: the first few, the last few, and some of those between.

    Between them each file takes the same steps as the file before it.
    """
    taken = 0

    def count(step: str, path: Path) -> None:
        nonlocal taken
        taken += 1

    with monkeypatch.context() as patch:
        patch.setattr(durable, "before", count)
        do()
    assert taken > 6, "nothing was done"
    return [number for number in range(taken) if number < 4 or number % 7 == 0 or number >= taken - 24]


def test_a_push_killed_at_any_step_is_finished_by_the_next(
    root: Path, tmp_path: Path, versions: tuple[str, str], killer: StepKiller, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, b = versions
    for number in steps_of(monkeypatch, lambda: act("push", root, url_of(tmp_path, -1), b)):
        url = url_of(tmp_path, number)
        assert killer.killed_at(number, "push", root, url, b)
        assert_complete_or_absent(url)
        act("push", root, url, b)
        assert find_copy(Remote(url), b) is not None
        assert RemoteHistory(Remote(url)).newest_number() == 1
        assert_complete_or_absent(url)


def test_a_pull_killed_at_any_step_is_finished_by_the_next(
    root: Path, tmp_path: Path, versions: tuple[str, str], killer: StepKiller, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = versions
    url = url_of(tmp_path, 0)
    act("push", root, url, a)
    for number in steps_of(monkeypatch, lambda: act("pull", tmp_path / "counted", url, a)):
        there = tmp_path / f"there-{number}"
        assert killer.killed_at(number, "pull", there, url, a)
        assert layout.version_names(there) in ([], [a])
        assert check(there).problems == []
        act("pull", there, url, a)
        assert layout.version_names(there) == [a]
        assert layout.leftovers(there, layout.PULLING) == []
        assert check(there).problems == []


def test_a_shared_decision_killed_at_any_step_is_made_once(
    root: Path, tmp_path: Path, versions: tuple[str, str], killer: StepKiller, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = versions
    counted = url_of(tmp_path, 0)
    for name in versions:
        act("push", root, counted, name)
    undecided = copy_of(root, tmp_path / "undecided")
    remote = copy_of(tmp_path / "remote-0", tmp_path / "remote-undecided")
    for number in steps_of(monkeypatch, lambda: act("cutover", root, counted, b)):
        here = copy_of(undecided, tmp_path / f"here-{number}")
        url = copy_of(remote, tmp_path / f"decided-{number}").as_uri()
        assert killer.killed_at(number, "cutover", here, url, b)
        assert_sound(here, {a, b})
        act("cutover", here, url, b)
        assert_sound(here, {b})
        assert layout.history_numbers(here) == [1, 2]
        assert Remote(url).read(layout.remote_history(2)) == layout.history_path(here, 2).read_bytes()


def test_a_following_host_killed_at_any_step_serves_old_or_new(
    root: Path, tmp_path: Path, versions: tuple[str, str], killer: StepKiller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its first version to the second, which is here already: the steps of a pull are those of the test above."""
    a, b = versions
    url = url_of(tmp_path, 0)
    for name in versions:
        act("push", root, url, name)
    before = tmp_path / "before"
    act("follow", before, url, a)
    act("pull", before, url, b)
    act("cutover", root, url, b)
    counted = copy_of(before, tmp_path / "counted")
    for number in steps_of(monkeypatch, lambda: act("follow", counted, url, "")):
        there = copy_of(before, tmp_path / f"there-{number}")
        assert killer.killed_at(number, "follow", there, url, "")
        assert_sound(there, {a, b})
        act("follow", there, url, "")
        assert_sound(there, {b})


def copy_of(store: Path, target: Path) -> Path:
    """The same files under new names: nothing that is there is ever written into."""
    shutil.copytree(store, target, copy_function=lambda source, new: Path(new).hardlink_to(source))
    return target


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_refuses_any_step_leaves_old_or_new(
    root: Path, tmp_path: Path, versions: tuple[str, str], monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """Every third step of all that is done from the build to the last host, beginning with another one each time."""
    a, b = versions
    unknown = 0

    def refused_at(number: int, action: str, store: Path, url: str) -> bool:
        nonlocal unknown
        fired = False

        def fail() -> None:
            nonlocal fired
            fired = True
            raise OSError(error, "broken on purpose")

        with monkeypatch.context() as patch:
            patch.setattr(durable, "before", before_step(number, fail))
            try:
                act(action, store, url, b)
            except UnknownOutcomeError:
                unknown += 1
            except StoreError as refused:
                assert "broken on purpose" in str(refused)
        return fired

    url = url_of(tmp_path, 0)
    act("push", root, url, a)
    there = tmp_path / "there"
    act("follow", there, url, "")
    for action, store in (("push", root), ("cutover", root), ("follow", there)):
        number = 1 if error == errno.EIO else 0
        while refused_at(number, action, store, url):
            assert_complete_or_absent(url)
            assert_sound(root, {a, b})
            assert_sound(there, {a, b})
            number += 3
        act(action, store, url, b)
    assert_sound(root, {b})
    assert_sound(there, {b})
    assert RemoteHistory(Remote(url)).newest_number() == 2
