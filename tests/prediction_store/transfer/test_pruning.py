"""Retention in object storage: never what is current or next, whole or gone, and nothing that is being pushed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from shop_store import MADE_AT, MakeVersion

from prediction_store import history, layout
from prediction_store.errors import TransferStoppedError
from prediction_store.transfer.copies import find_copy, names_there, sizes_of
from prediction_store.transfer.flow import Flow
from prediction_store.transfer.outgoing import send
from prediction_store.transfer.pruning import ABANDONED_SECONDS, prune
from prediction_store.transfer.push import push
from prediction_store.transfer.remote import Remote
from prediction_store.transfer.shared import RemoteHistory

LONG_AFTER = MADE_AT + 10 * 365 * 86_400.0
Observe = Callable[[Callable[[str, Path], None]], None]


def pruned(folder: Remote, keep: int = 2, now: float = LONG_AFTER) -> list[str]:
    return prune(folder, keep=keep, grace_seconds=3600, now=now)


@pytest.fixture
def names(root: Path, make_version: MakeVersion, folder: Remote) -> list[str]:
    """Four versions in object storage, each current after the one before it."""
    names = [make_version(inputs, cut_over=True) for inputs in "abcd"]
    list(send(root, folder, names, flow=Flow(), parallel=4))
    return names


def test_the_oldest_go_whole(folder: Remote, names: list[str]) -> None:
    a, b, c, d = names
    assert pruned(folder, keep=3) == [a]
    assert sizes_of(folder, a) == {}
    assert list(names_there(folder)) == [d, c, b]
    assert pruned(folder, keep=3) == []


def test_the_current_one_and_the_one_to_go_back_to_stay_however_old(
    root: Path, folder: Remote, names: list[str]
) -> None:
    a, b, _, _ = names
    history.rollback(root, "ann@host", "", 9, to=b, shared=RemoteHistory(folder))
    assert set(pruned(folder)) == set(names) - {a, b}


def test_many_versions_of_a_day_leave_room_for_the_last_of_the_days_before(
    root: Path, make_version: MakeVersion, folder: Remote
) -> None:
    days = {"a": 0.0, "b": 0.9, "c": 1.0, "d": 1.4, "e": 1.6, "f": 1.8}
    made = [make_version(name, cut_over=True, made_at=MADE_AT + int(days[name] * 86_400)) for name in days]
    list(send(root, folder, made, flow=Flow(), parallel=4))
    a, b, c, d, e, f = made
    assert set(pruned(folder, keep=4)) == {b, d}
    assert set(names_there(folder)) == {a, c, e, f}


def test_a_young_version_stays(folder: Remote, names: list[str]) -> None:
    assert pruned(folder, now=layout.built_at(names[1]) + 3599) == [names[0]]


def test_without_a_shared_history_nothing_goes(root: Path, make_version: MakeVersion, folder: Remote) -> None:
    for inputs in "abc":
        push(root, folder, make_version(inputs), flow=Flow())
    assert pruned(folder) == []


def test_the_manifest_goes_first_so_that_an_interrupted_removal_leaves_no_half_version(
    folder: Remote, names: list[str], observe_steps: Observe
) -> None:
    def interrupt(step: str, path: Path) -> None:
        if step == "delete" and path.name != layout.MANIFEST:
            raise KeyboardInterrupt

    observe_steps(interrupt)
    with pytest.raises(KeyboardInterrupt):
        pruned(folder, keep=3)
    assert sizes_of(folder, names[0])
    assert find_copy(folder, names[0]) is None
    observe_steps(lambda step, path: None)
    now = folder.changed_at(layout.remote_file(names[0], "")) + ABANDONED_SECONDS
    assert pruned(folder, keep=3, now=now) == [names[0]]
    assert sizes_of(folder, names[0]) == {}


def test_what_is_being_pushed_stays_and_what_was_given_up_goes(
    root: Path, make_version: MakeVersion, folder: Remote, names: list[str], observe_steps: Observe
) -> None:
    """By the time at which something last arrived: the version itself may be old."""
    old = make_version("old", now=MADE_AT)

    def interrupt(step: str, path: Path) -> None:
        if step == "put" and path.name == layout.MANIFEST:
            raise TransferStoppedError("enough")

    observe_steps(interrupt)
    with pytest.raises(TransferStoppedError):
        push(root, folder, old, flow=Flow())
    observe_steps(lambda step, path: None)
    arrived = folder.changed_at(layout.remote_file(old, ""))
    assert pruned(folder, keep=9, now=arrived + ABANDONED_SECONDS - 1) == []
    assert pruned(folder, keep=9, now=arrived + ABANDONED_SECONDS) == [old]
    assert list(names_there(folder)) == names[::-1]


def test_objects_named_like_a_version_of_no_day_are_none(folder: Remote, names: list[str]) -> None:
    folder.put("versions/99999999T999999Z-00000000/manifest.json", b"")
    assert pruned(folder, keep=3) == [names[0]]


def test_a_version_that_becomes_current_meanwhile_stays(
    root: Path, folder: Remote, names: list[str], observe_steps: Observe
) -> None:
    def go_back_first(step: str, path: Path) -> None:
        if step == "delete":
            observe_steps(lambda step, path: None)
            history.rollback(root, "ann@host", "", 9, to=names[0], shared=RemoteHistory(folder))

    observe_steps(go_back_first)
    assert pruned(folder) == [names[1]]
    assert find_copy(folder, names[0]) is not None
    assert push(root, folder, names[0], flow=Flow()).files == 0, "and it is whole"
