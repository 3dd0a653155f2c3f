"""Publisher and server are two users, and the server's mount may be read-only: it reads, and can decide nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from live_changes import change, run
from mounts import can_mount, read_only
from shop_store import MakeVersion

from prediction_store import history, layout
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
        # Only root may enter the folders above: the child becomes another user when it is there.
        other_user = "import os\nos.chdir(sys.argv[1])\nos.setuid(65534)\nsys.argv[1] = '.'\nwith LiveItems"
        found = run(READ_LIVE.replace("with LiveItems", other_user), str(root))
        assert found.stdout.split() == ["True", "True", "1"], found.stderr
        assert "LiveItemsError: writing" in found.stderr
        live.set([change("item-0", hidden=None)], now=7.0)
        assert live.get("item-0") is None
