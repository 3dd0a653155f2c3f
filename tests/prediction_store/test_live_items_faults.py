"""Live facts survive what goes wrong: killed processes, full disks, files that are cut off, bits that flip."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import live_changes
import pytest
from live_changes import HOME, PAIR, change, run
from mounts import can_mount, on_small_disk

from prediction_store import layout, live_environment
from prediction_store.errors import LiveItemsError
from prediction_store.live_environment import Tables
from prediction_store.live_items import LiveItems
from schemas.live_items import FACTS, ItemFacts

WRITER = Path(live_changes.__file__)


def test_a_writer_that_is_killed_leaves_whole_batches_and_all_that_it_acknowledged(root: Path) -> None:
    root.mkdir()
    chance = random.Random(7)
    for _ in range(8):
        with subprocess.Popen(
            [sys.executable, WRITER, root],
            cwd=HOME,
            env={**os.environ, "PYTHONPATH": f"{HOME}"},
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None
            acknowledged = [writer.stdout.readline() for _ in range(chance.randrange(1, 12))]
            # At some instant of a later batch.
            threading.Event().wait(chance.random() * 0.01)
            writer.kill()
            acknowledged += writer.stdout.readlines()
        with LiveItems(root) as live:
            facts = [live.get(item) for item in PAIR]
            assert facts[0] is not None
            assert facts[0] == facts[1]
            assert facts[0].price >= float(acknowledged[-1])  # type: ignore[operator]
            assert len(live.read().entries) == 202


def test_the_first_change_makes_the_file_and_its_name_durable_before_it_is_written(
    live: LiveItems, root: Path, observe_steps: Callable[[Callable[[str, Path], None]], None]
) -> None:
    steps: list[tuple[str, Path]] = []
    observe_steps(lambda step, path: steps.append((step, path)))
    live.set([change("a", price=1.0)], now=5.0)
    file = layout.live_items_file(root)
    assert steps[-3:] == [("sync file", file), ("sync folder", file.parent), ("write live items", file)]


def test_a_reader_that_was_killed_does_not_let_the_file_grow(live: LiveItems, root: Path) -> None:
    live.set([change("a", price=0.0)], now=5.0)
    code = (
        "import sys, os, signal\nfrom pathlib import Path\nfrom prediction_store.live_environment import share\n"
        "share(Path(sys.argv[1]), 1 << 30).read(lambda tables: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    assert run(code, str(root)).returncode == -9
    for place in range(300):
        live.set([change("a", price=float(place + 1))], now=6.0)
    assert layout.live_items_file(root).stat().st_size < 200_000


def test_without_room_nothing_changes_and_the_error_says_what_to_do(root: Path) -> None:
    root.mkdir()
    with LiveItems(root, map_bytes=200_000) as live:
        live.set([change("a", price=1.0)], now=5.0)
        with pytest.raises(LiveItemsError, match="no room") as caught:
            live.set([change("a", price=2.0), *(change(f"{place}", price=2.0) for place in range(9_999))], now=6.0)
        assert "store.live_items_mb" in caught.value.hint
        assert [entry[0] for entry in live.read().entries] == [b"a"]
        live.set([change("a", price=3.0)], now=7.0)
        assert live.get("a") == ItemFacts(changed_at=7.0, price=3.0)


def test_a_larger_limit_is_the_way_out_where_there_is_no_room_even_to_clear(root: Path) -> None:
    root.mkdir()
    nothing = dict.fromkeys(FACTS)
    items: list[str] = []
    with LiveItems(root, map_bytes=200_000) as live:
        with pytest.raises(LiveItemsError, match="no room"):
            while True:
                live.set([change(f"{len(items)}", price=1.0)], now=5.0)
                items.append(f"{len(items)}")
        with pytest.raises(LiveItemsError, match="no room") as caught:
            for item in items:
                live.set([change(item, **nothing)], now=6.0)
        assert caught.value.hint.startswith("raise store.live_items_mb")
    with LiveItems(root, map_bytes=400_000) as live:
        for half in (items[::2], items[1::2]):  # LMDB uses pages again that the last change but one has left
            live.set([change(item, **nothing) for item in half], now=7.0)
        assert live.read().entries == []
    with LiveItems(root, map_bytes=200_000) as live:
        assert live.set([change("a", price=1.0)], now=8.0) == ["a"]


def test_on_a_full_disk_nothing_changes_and_writing_goes_on_when_there_is_space(live: LiveItems, root: Path) -> None:
    live.set([change("a", price=1.0)], now=5.0)
    code = (
        "import sys, resource, signal\nfrom pathlib import Path\n"
        "from prediction_store.live_items import LiveItems\n"
        "from prediction_store.errors import LiveItemsError\nfrom schemas.live_items import ItemChange\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "with LiveItems(Path(sys.argv[1])) as live:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))\n"
        "    try: live.set([ItemChange(item=f'b-{n}', price=2.0) for n in range(9_999)], now=6.0)\n"
        "    except LiveItemsError as error: print(error)\n"
        "    print(len(live.read().entries))\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "    print(live.set([ItemChange(item='a', price=3.0)], now=7.0))\n"
    )
    done = run(code, str(root))
    error, *rest = done.stdout.splitlines()
    assert "live/items: mdb_txn_commit" in error, done.stderr
    assert rest == ["1", "['a']"], done.stderr
    assert live.get("a") == ItemFacts(changed_at=7.0, price=3.0)


WITHOUT_ROOM = """
from prediction_store.errors import LiveItemsError
from prediction_store.live_items import LiveItems
from schemas.live_items import ItemChange

def hide(item):
    with LiveItems(root) as live:
        try: return live.set([ItemChange(item=item, hidden=True)], now=6.0)
        except LiveItemsError as error: return error.message.split(": ")[-1]

root = Path(sys.argv[1])
folder = root / "live" / "items"
folder.mkdir(parents=True)
"""


@pytest.mark.skipif(not can_mount(), reason="no mount namespaces for this user")
def test_on_a_full_disk_the_first_change_fails_and_is_made_when_there_is_space(tmp_path: Path) -> None:
    code = "ballast = fill(root)\nprint(hide('a'))\nballast.unlink()\nprint(hide('a'))"
    done = on_small_disk(tmp_path, WITHOUT_ROOM + code)
    assert done.stdout.splitlines() == ["No space left on device", "['a']"], (done.returncode, done.stderr)


@pytest.mark.skipif(not can_mount(), reason="no mount namespaces for this user")
@pytest.mark.parametrize(
    "left", ["lock.unlink()", "os.truncate(lock, 0)", "os.truncate(lock, 0), os.truncate(lock, 65_664)"]
)
def test_on_a_full_disk_a_copy_without_locks_is_read_and_changed_when_there_is_space(tmp_path: Path, left: str) -> None:
    code = (
        f"import os\nhide('a')\nlock = folder / 'lock.mdb'\n{left}\nballast = fill(root)\n"
        "with LiveItems(root) as live:\n"
        "    print(live.get('a').hidden, live.state() is not None, len(live.read().entries))\n"
        "print(hide('b'))\nballast.unlink()\nprint(hide('b'))\n"
        "with LiveItems(root) as live: print(len(live.read().entries))\n"
    )
    done = on_small_disk(tmp_path, WITHOUT_ROOM + code)
    wanted = ["True True 1", "No space left on device", "['b']", "2"]
    assert done.stdout.splitlines() == wanted, (done.returncode, done.stderr)


@pytest.mark.parametrize("length", [0, 1, 100, 4096, 8191, 8192, 12_288])
def test_a_file_that_was_cut_off_is_an_error_and_no_crash(live: LiveItems, root: Path, length: int) -> None:
    live.set([change(f"{place}", price=1.0) for place in range(2_000)], now=5.0)
    live.close()
    os.truncate(layout.live_items_file(root), length)
    code = (
        "import sys\nfrom pathlib import Path\nfrom prediction_store.live_items import LiveItems\n"
        "from prediction_store.errors import LiveItemsError\nfrom schemas.live_items import ItemChange\n"
        "with LiveItems(Path(sys.argv[1])) as live:\n"
        "    for act in (live.read, lambda: live.set([ItemChange(item='a', price=2.0)], now=6.0)):\n"
        "        try: print('done', act())\n"
        "        except LiveItemsError as error: print('error', error)\n"
    )
    done = run(code, str(root))
    assert done.returncode == 0, done.stderr
    words = [line.split()[0] for line in done.stdout.splitlines()]
    assert words == (["done", "done"] if length == 0 else ["error", "error"]), done.stdout


def test_first_pages_that_are_overwritten_are_an_error_open_or_not(live: LiveItems, root: Path) -> None:
    live.set([change(f"{place}", price=1.0) for place in range(200)], now=5.0)
    live.read()
    with layout.live_items_file(root).open("r+b") as opened:
        opened.write(random.Random(1).randbytes(8192))
    for _ in range(2):
        with pytest.raises(LiveItemsError, match="restore live/items from a copy"):
            live.read()
        with pytest.raises(LiveItemsError, match="restore live/items from a copy"):
            live.set([change("a", price=2.0)], now=6.0)


def test_what_is_no_file_is_an_error_and_nobody_waits_for_it(live: LiveItems, root: Path) -> None:
    layout.live_items_folder(root).mkdir(parents=True)
    os.mkfifo(layout.live_items_file(root))
    acts = (live.state, live.read, lambda: live.get("a"), lambda: live.set([change("a", hidden=True)], now=5.0))
    for act in acts:
        with pytest.raises(LiveItemsError, match=r"data\.mdb is no file"):
            act()


def test_a_file_that_ends_before_its_last_unused_page_is_read_and_written(
    live: LiveItems, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.set([change("a", price=1.0)], now=5.0)
    true = live_environment._bytes_of
    monkeypatch.setattr(live_environment, "_bytes_of", lambda environment: true(environment) + 4096)
    live.set([change("b", price=1.0)], now=6.0)
    assert len(live.read().entries) == 2


def test_a_folder_that_is_removed_under_a_writer_is_no_crash_and_made_again(live: LiveItems, root: Path) -> None:
    live.set([change("a", price=1.0)], now=5.0)

    def remove(tables: Tables) -> None:
        for file in layout.live_items_folder(root).iterdir():
            file.unlink()
        layout.live_items_folder(root).rmdir()
        assert live.get("a") is None
        tables.transaction.put(b"b", b"", db=tables.facts)

    live._environment.write(remove)
    assert live.read().entries == []
    live.set([change("c", price=1.0)], now=6.0)
    assert [key for key, _ in live.read().entries] == [b"c"]
