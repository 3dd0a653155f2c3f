"""An LMDB file opens also while another process makes it larger."""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
from pathlib import Path
from typing import Any

import lmdb
import pytest

from prediction_store import growing
from prediction_store.growing import open_growing

SMALL = 1 << 16


def _grow(path: str, started: multiprocessing.synchronize.Event, done: multiprocessing.synchronize.Event) -> None:
    bytes_ = SMALL
    environment = lmdb.open(path, subdir=False, map_size=bytes_, sync=False)
    number = 0
    while not done.is_set():
        try:
            with environment.begin(write=True) as transaction:
                transaction.put(b"%08d" % number, b"x" * 4000)
            number += 1
            started.set()
        except lmdb.MapFullError:
            bytes_ += SMALL
            environment.set_mapsize(bytes_)


def test_it_opens_however_often_while_another_process_makes_it_larger(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    spawn = multiprocessing.get_context("spawn")
    started, done = spawn.Event(), spawn.Event()
    other = spawn.Process(target=_grow, args=(path, started, done))
    other.start()
    try:
        assert started.wait(60)
        sizes = []
        for _ in range(300):
            with open_growing(path, max_readers=8, subdir=False, map_size=SMALL) as environment:
                sizes.append(environment.info()["last_pgno"])
    finally:
        done.set()
        other.join()
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1], "it did not grow"


def test_a_file_that_grew_between_its_two_looks_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "file")
    real, tries = lmdb.open, []

    def unlucky(*arguments: Any, **options: Any) -> lmdb.Environment:
        tries.append(arguments)
        if len(tries) < 3:
            raise lmdb.MapResizedError
        return real(*arguments, **options)

    monkeypatch.setattr(growing.lmdb, "open", unlucky)
    open_growing(path, max_readers=8, subdir=False).close()
    assert len(tries) == 3


def test_a_file_that_never_stops_growing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlucky(*arguments: Any, **options: Any) -> lmdb.Environment:
        raise lmdb.MapResizedError

    monkeypatch.setattr(growing.lmdb, "open", unlucky)
    with pytest.raises(lmdb.MapResizedError):
        open_growing(str(tmp_path / "file"), max_readers=8, subdir=False)


@pytest.mark.parametrize("max_readers", [1, 126, 1024])
def test_the_lock_file_has_the_size_that_lmdb_gives_it_and_no_holes(tmp_path: Path, max_readers: int) -> None:
    with lmdb.open(str(tmp_path / "theirs"), max_readers=max_readers):
        assert (tmp_path / "theirs" / "lock.mdb").stat().st_size == growing.lock_bytes(max_readers)
    (tmp_path / "ours").mkdir()
    with open_growing(str(tmp_path / "ours"), max_readers=max_readers):
        facts = (tmp_path / "ours" / "lock.mdb").stat()
    assert facts.st_size == growing.lock_bytes(max_readers)
    assert facts.st_blocks * 512 >= facts.st_size
