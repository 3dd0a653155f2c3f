"""Promise 2: what was acknowledged survives a power cut, and every single sync is needed for that."""

from __future__ import annotations

import random
from pathlib import Path

from promises import power_cuts
from promises.disk_model import EMPTY, BytesChanged, Contents, Disk, NamesChanged, Synced, Tree

ROOT, FOLDER, FILE, OTHER = 1, 2, 3, 4


def test_no_power_cut_loses_what_was_acknowledged_and_each_sync_that_is_left_out_is_noticed(folder: Path) -> None:
    outcome = power_cuts.run(7, 2_000, folder)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried > 2_000
    assert outcome.counts["disks written and read"] > 10
    assert power_cuts.missed_sites(outcome) == set()
    noticed = [name for name in outcome.counts if name.startswith(power_cuts.NOTICED)]
    assert len(noticed) > 25


def states(disk: Disk, contents: Contents) -> set[tuple[tuple[str, bytes], ...]]:
    """Every disk that a power cut may leave, as its files."""

    def shown(tree: Tree) -> tuple[tuple[str, bytes], ...]:
        files = {path: number for path, number in tree.items() if number != EMPTY}
        return tuple(sorted((path, contents.bytes_of(number)) for path, number in files.items()))

    return {shown(tree) for tree in disk.states(10_000, random.Random(0))}


def disk_with(contents: Contents, *names: str) -> Disk:
    """A disk with a folder f that has these files, all safe, each holding its own name."""
    files = {FILE + number: contents.number(name.encode()) for number, name in enumerate(names)}
    return Disk(
        ROOT, {ROOT: {"f": FOLDER}, FOLDER: {name: FILE + at for at, name in enumerate(names)}}, files, contents
    )


def test_a_new_file_may_be_gone_or_a_wreck_until_it_and_its_folder_are_synced() -> None:
    contents = Contents()
    disk = disk_with(contents)
    disk.apply(NamesChanged(FOLDER, (("a", FILE),), ()))
    disk.apply(BytesChanged(FILE, contents.number(b"abcd")))
    found = states(disk, contents)
    assert {(), (("f/a", b""),), (("f/a", b"ab"),), (("f/a", bytes(4)),), (("f/a", b"abcd"),)} <= found
    disk.apply(Synced(FILE, "test"))
    assert states(disk, contents) == {(), (("f/a", b"abcd"),)}, "a file that was synced may still have no name"
    disk.apply(Synced(FOLDER, "test"))
    assert states(disk, contents) == {(("f/a", b"abcd"),)}


def test_a_rename_is_whole_and_safe_only_with_its_folder() -> None:
    contents = Contents()
    disk = disk_with(contents, "a")
    disk.apply(NamesChanged(FOLDER, (("a", None), ("b", FILE)), ()))
    assert states(disk, contents) == {(("f/a", b"a"),), (("f/b", b"a"),)}
    disk.apply(Synced(FOLDER, "test"))
    assert states(disk, contents) == {(("f/b", b"a"),)}


def test_removals_may_reach_the_disk_in_any_order() -> None:
    contents = Contents()
    disk = disk_with(contents, "a", "b")
    disk.apply(NamesChanged(FOLDER, (("a", None),), ()))
    disk.apply(NamesChanged(FOLDER, (("b", None),), ()))
    one, other = ("f/a", b"a"), ("f/b", b"b")
    assert states(disk, contents) == {(), (one,), (other,), (one, other)}


def test_an_empty_folder_shows() -> None:
    contents = Contents()
    disk = disk_with(contents, "a")
    disk.apply(NamesChanged(FOLDER, (("a", None),), ()))
    trees = list(disk.states(10, random.Random(0)))
    assert sorted(map(list, trees)) == [["f/"], ["f/a"]]


def test_a_folder_that_was_not_synced_takes_what_is_in_it_along() -> None:
    contents = Contents()
    disk = disk_with(contents)
    disk.apply(NamesChanged(FOLDER, (("new", OTHER),), (OTHER,)))
    disk.apply(NamesChanged(OTHER, (("a", FILE),), ()))
    disk.apply(BytesChanged(FILE, contents.number(b"x")))
    disk.apply(Synced(FILE, "test"))
    disk.apply(Synced(OTHER, "test"))
    assert states(disk, contents) == {(), (("f/new/a", b"x"),)}
