"""Live facts about items: all or nothing, durable, and seen by every process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import lmdb
import pytest
from live_changes import HOME, change, run
from shop_store import MakeVersion

import shortlist
from prediction_store import layout
from prediction_store.check import check
from prediction_store.errors import LiveItemsError, NewerFormatError
from prediction_store.live_items import LiveItems
from prediction_store.retention import retire
from schemas.live_items import ItemFacts

READ = """
import sys
from pathlib import Path
from prediction_store.live_items import LiveItems
with LiveItems(Path(sys.argv[1])) as live:
    print(live.get("a").price)
"""


def test_what_was_set_is_there_for_another_process(live: LiveItems, root: Path) -> None:
    assert live.set([change("a", price=9.5)], now=5.0) == ["a"]
    done = run(READ, str(root))
    assert done.stdout == "9.5\n", done.stderr


def test_a_change_sets_some_facts_clears_some_and_leaves_the_others(live: LiveItems) -> None:
    live.set([change("ä", in_stock=False, hidden=True, price=2.0)], now=5.0)
    live.set([change("ä", hidden=None, price=3.0)], now=6.0)
    assert live.get("ä") == ItemFacts(changed_at=6.0, in_stock=False, price=3.0)
    live.set([change("ä", in_stock=None, price=None)], now=7.0)
    assert live.get("ä") is None


def test_of_two_changes_of_one_item_in_a_batch_the_later_one_is_applied_last(live: LiveItems) -> None:
    assert live.set([change("a", price=1.0, hidden=True), change("a", price=2.0)], now=5.0) == ["a"]
    assert live.get("a") == ItemFacts(changed_at=5.0, price=2.0, hidden=True)


def test_what_is_as_it_was_does_not_count_as_changed(live: LiveItems) -> None:
    live.set([change("a", price=1.0)], now=5.0)
    before = live.state()
    assert live.set([change("a", price=1.0), change("b", price=None)], now=6.0) == []
    assert live.get("a") == ItemFacts(changed_at=5.0, price=1.0)
    assert live.state() == before


def test_a_batch_with_an_impossible_id_changes_nothing(live: LiveItems) -> None:
    live.set([change("a", price=1.0)], now=5.0)
    for item in ("", "ü" * 256, "\ud800"):
        with pytest.raises(LiveItemsError):
            live.set([change("a", price=2.0), change(item, price=2.0)], now=6.0)
        assert live.get(item) is None
    assert live.get("a") == ItemFacts(changed_at=5.0, price=1.0)
    live.set([change("ü" * 255 + "x", price=2.0)], now=6.0)


def test_nothing_is_made_by_reading(root: Path) -> None:
    with LiveItems(root) as live:
        assert live.state() is None
        assert live.read().entries == []
        assert live.get("a") is None
    assert not root.exists()


def test_a_store_that_is_not_there_is_not_made_by_writing(root: Path) -> None:
    with LiveItems(root) as live, pytest.raises(LiveItemsError, match="there is no store"):
        live.set([change("a", hidden=True)], now=5.0)
    assert not root.exists()


def test_two_in_one_process_share_what_is_open(live: LiveItems, root: Path) -> None:
    with LiveItems(root) as other:
        live.set([change("a", price=1.0)], now=5.0)
        other.set([change("a", hidden=True)], now=6.0)
        assert live.get("a") == other.get("a") == ItemFacts(changed_at=6.0, price=1.0, hidden=True)
    assert live.get("a") is not None


def test_a_later_format_is_neither_read_nor_written(live: LiveItems, root: Path) -> None:
    live.set([change("a", price=1.0)], now=5.0)
    live.close()
    environment = lmdb.open(str(layout.live_items_folder(root)), max_dbs=2)
    with environment, environment.begin(write=True) as transaction:
        transaction.put(b"format", b"2")
    with LiveItems(root) as again:
        with pytest.raises(NewerFormatError):
            again.read()
        with pytest.raises(NewerFormatError):
            again.get("a")
        with pytest.raises(NewerFormatError):
            again.set([change("a", price=1.0)], now=5.0)


def test_threads_and_processes_that_write_at_once_lose_nothing(live: LiveItems, root: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom prediction_store.live_items import LiveItems\n"
        "from schemas.live_items import ItemChange\n"
        "with LiveItems(Path(sys.argv[1])) as live:\n"
        "    for n in range(20): live.set([ItemChange(item=f'{sys.argv[2]}-{n}', price=1.0)], now=1.0)\n"
    )
    others = [subprocess.Popen([sys.executable, "-c", code, str(root), name], cwd=HOME) for name in ("p", "q")]

    def write(name: str) -> None:
        for place in range(20):
            live.set([change(f"{name}-{place}", price=1.0)], now=1.0)

    threads = [threading.Thread(target=write, args=(name,)) for name in ("t", "u")]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        live.read()
    for thread in threads:
        thread.join()
    assert [other.wait() for other in others] == [0, 0]
    assert {key.decode() for key, _ in live.read().entries} == {
        f"{name}-{place}" for name in "pqtu" for place in range(20)
    }


def test_a_reader_goes_on_when_others_need_more_room_than_it_has_mapped(live: LiveItems, root: Path) -> None:
    live.set([change("a", price=1.0)], now=5.0)
    code = (
        "import sys\nfrom pathlib import Path\nfrom prediction_store.live_items import LiveItems\n"
        "with LiveItems(Path(sys.argv[1]), map_bytes=1 << 20) as live:\n"
        "    print(live.get('a').price, flush=True)\n"
        "    sys.stdin.readline()\n"
        "    print(len(live.read().entries), flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(root)], cwd=HOME, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdin is not None and reader.stdout is not None
        assert reader.stdout.readline() == "1.0\n"
        live.set([change(f"{'x' * 400}{place}", price=1.0) for place in range(9_999)], now=6.0)
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == "10000\n"


def test_a_child_of_a_fork_reads_and_writes(live: LiveItems) -> None:
    live.set([change("a", price=1.0)], now=5.0)
    child = os.fork()
    if child == 0:
        try:
            live.set([change("b", price=2.0)], now=6.0)
            os._exit(0 if live.get("a") is not None else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert live.get("b") == ItemFacts(changed_at=6.0, price=2.0)


def test_check_and_retire_leave_live_facts_alone(live: LiveItems, root: Path, make_version: MakeVersion) -> None:
    names = [make_version(inputs, cut_over=True) for inputs in "abc"]
    live.set([change("item-0", hidden=True)], now=5.0)
    before = sorted(root.rglob("live/**/*"))
    report = retire(root, keep=2, grace_seconds=0, now=1e10)
    assert report.removed == names[:1]
    assert report.swept == []
    assert check(root).problems == []
    assert sorted(root.rglob("live/**/*")) == before
    assert live.get("item-0") is not None


def test_push_and_pull_leave_live_facts_where_they_are(
    live: LiveItems, root: Path, make_version: MakeVersion, tmp_path: Path
) -> None:
    name = make_version("a", cut_over=True)
    live.set([change("item-0", hidden=True)], now=5.0)
    (tmp_path / "remote").mkdir()
    remote = f"--set=store.remote=file://{tmp_path / 'remote'}"
    assert shortlist.run(["push", name, remote, f"--set=paths.store={root}"]) == 0
    other = tmp_path / "other"
    assert shortlist.run(["pull", name, remote, f"--set=paths.store={other}"]) == 0
    assert layout.version_names(other) == [name]
    assert not layout.live_items_folder(other).exists()
    assert not list((tmp_path / "remote").rglob("*live*"))
    assert live.get("item-0") is not None
