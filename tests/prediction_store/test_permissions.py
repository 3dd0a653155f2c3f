"""Publisher and server are two users, and the server's mount may be read-only: it reads, and can decide nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_changes import change, run
from mounts import can_mount, read_only
from shop_store import MakeVersion, judge

from prediction_store import durable, history, layout
from prediction_store.live_items import LiveItems
from schemas.live_items import ItemFacts

READ = """
import sys
from prediction_store.reader import Store
store = Store(sys.argv[1])
assert store.refresh(), store.last_error
with store.acquire() as version:
    print(version.name, version.read("ann").items.size)
store.close()
"""


def as_other_user(code: str, begin: str) -> str:
    """The code, with another user as whom it goes on from `begin`."""
    # Only root may enter the folders above: the child becomes another user when it is there.
    become = "import os\nos.chdir(sys.argv[1])\nos.setuid(65534)\nsys.argv[1] = '.'\n"
    return code.replace(begin, become + begin, 1)


@pytest.mark.skipif(not can_mount(), reason="no mount namespaces for this user")
def test_a_server_on_a_read_only_mount_reads_and_decides_nothing(root: Path, make_version: MakeVersion) -> None:
    a, b = (make_version(inputs, cut_over=True) for inputs in "ab")
    found = read_only(root, "-c", READ, str(root))
    assert found.stdout.split() == [b, "12"], found.stderr
    refused = read_only(root, "shortlist.py", "rollback", "--set", f"paths.store={root}")
    assert refused.returncode == 1
    assert "Read-only file system" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert layout.history_numbers(root) == [1, 2]
    assert history.rollback(root, "ann@host", "", 5).version == a


READ_LIVE = """
import sys
from pathlib import Path
from prediction_store.live_items import LiveItems
from schemas.live_items import ItemChange
with LiveItems(Path(sys.argv[1])) as live:
    print(live.get("item-0").hidden, live.state() is not None, len(live.read().entries))
    live.set([ItemChange(item="item-0", hidden=False)], now=6.0)
"""


@pytest.mark.skipif(not can_mount(), reason="no mount namespaces for this user")
def test_a_server_on_a_read_only_mount_reads_live_facts_and_changes_none(root: Path) -> None:
    root.mkdir()
    with LiveItems(root) as live:
        live.set([change("item-0", hidden=True)], now=5.0)
    found = read_only(root, "-c", READ_LIVE, str(root))
    assert found.stdout.split() == ["True", "True", "1"], found.stderr
    assert "LiveItemsError: writing" in found.stderr
    with LiveItems(root) as live:
        assert live.get("item-0") == ItemFacts(changed_at=5.0, hidden=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_server_that_may_only_read_the_folder_reads_live_facts_while_they_change(root: Path) -> None:
    root.mkdir()
    with LiveItems(root) as live:
        live.set([change("item-0", hidden=True)], now=5.0)
        found = run(as_other_user(READ_LIVE, "with LiveItems"), str(root))
        assert found.stdout.split() == ["True", "True", "1"], found.stderr
        assert "LiveItemsError: writing" in found.stderr
        live.set([change("item-0", hidden=None)], now=7.0)
        assert live.get("item-0") is None


@pytest.fixture
def careful_umask() -> Iterator[None]:
    """What is made meanwhile is its maker's alone, unless it is made for others."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("careful_umask")
def test_what_servers_read_may_be_read_by_every_user_whatever_the_umask(root: Path, make_version: MakeVersion) -> None:
    root.mkdir()
    a, b = (make_version(inputs, cut_over=True) for inputs in "ab")
    for name in (a, b):
        judge(root, name)
    assert history.rollback(root, "ann@host", "", 5).version == a
    with LiveItems(root) as live:
        live.set([change("item-0", hidden=True)], now=5.0)
    closed = [
        f"{path.relative_to(root.parent)} {stat.S_IMODE(path.stat().st_mode):o}"
        for path in root.rglob("*")
        if path.stat().st_mode & (0o055 if path.is_dir() else 0o044) != (0o055 if path.is_dir() else 0o044)
        and path.name != "lock.mdb"  # who may not write to it reads without it
    ]
    assert closed == []
    assert stat.S_IMODE(root.stat().st_mode) == 0o700, "who may enter the store is for its owner to say"


@pytest.mark.usefixtures("careful_umask")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_server_of_another_user_follows_a_rollback_whatever_the_umask(root: Path, make_version: MakeVersion) -> None:
    root.mkdir()
    root.chmod(0o755)
    a, _ = (make_version(inputs, cut_over=True) for inputs in "ab")
    history.rollback(root, "ann@host", "", 5)
    with LiveItems(root) as live:
        live.set([change("item-0", hidden=True)], now=5.0)
    assert run(as_other_user(READ, "store = Store"), str(root)).stdout.split() == [a, "12"]
    assert run(as_other_user(READ_LIVE, "with LiveItems"), str(root)).stdout.split() == ["True", "True", "1"]


@pytest.mark.usefixtures("careful_umask")
def test_logs_and_documents_of_users_heed_the_umask(tmp_path: Path) -> None:
    durable.make_last_folder(tmp_path / "events")
    durable.Appended(tmp_path / "events" / "log", b"head").close()
    durable.replace_document(tmp_path / "keys" / "tokens", b"")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"events": 0o700, "log": 0o600, "keys": 0o700, "tokens": 0o600}


@pytest.mark.usefixtures("careful_umask")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_document_that_takes_the_place_of_another_is_of_the_same_owner_and_mode(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.touch()
    os.chown(tokens, 4321, 1234)
    tokens.chmod(0o640)  # its readers are a server's group
    durable.replace_document(tokens, b"new")
    facts = tokens.stat()
    assert (facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)) == (4321, 1234, 0o640)
    assert tokens.read_bytes() == b"new"
