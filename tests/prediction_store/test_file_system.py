"""A store on a network file system is refused, wherever it is written to or read from."""

from __future__ import annotations

from pathlib import Path

import pytest
from shop_store import MakeVersion, write_small_version

from prediction_store import file_system, history
from prediction_store.errors import NetworkFileSystemError
from prediction_store.reader import Version

TABLE = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:27 / /mnt rw - tmpfs tmpfs rw
31 30 0:50 / /mnt/share rw,relatime shared:9 master:3 - nfs4 server:/export rw,vers=4.2
32 31 0:51 / /mnt/share/local rw - xfs /dev/vdb rw
33 22 0:52 / /srv/two\\040words rw - fuse.sshfs me@there:/ rw
34 22 0:53 / /data rw - cifs //server/data rw
35 34 0:54 / /data rw - ext4 /dev/vdc rw
"""


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    table = tmp_path / "mountinfo"
    table.write_text(TABLE)
    monkeypatch.setattr(file_system, "MOUNTS", table)
    return table


@pytest.mark.parametrize(
    ("path", "kind", "place"),
    [
        ("/var/store", "ext4", "/"),
        ("/mnt/store", "tmpfs", "/mnt"),
        ("/mnt/share", "nfs4", "/mnt/share"),
        ("/mnt/share/deep/store", "nfs4", "/mnt/share"),
        ("/mnt/shared", "tmpfs", "/mnt"),
        ("/mnt/share/local/store", "xfs", "/mnt/share/local"),
        ("/srv/two words/store", "fuse.sshfs", "/srv/two words"),
        ("/data/store", "ext4", "/data"),
    ],
)
@pytest.mark.usefixtures("mounts")
def test_the_innermost_and_last_mount_counts(path: str, kind: str, place: str) -> None:
    assert file_system.kind_of(Path(path)) == (kind, place)


@pytest.mark.parametrize("path", ["/mnt/share/store", "/srv/two words"])
@pytest.mark.usefixtures("mounts")
def test_a_network_file_system_is_refused_with_its_name(path: str) -> None:
    with pytest.raises(NetworkFileSystemError, match="a network file system") as refused:
        file_system.refuse_network(Path(path))
    assert refused.value.exit_code == 2
    file_system.refuse_network(Path("/mnt/share/local"))


def test_without_a_mount_table_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_system, "MOUNTS", tmp_path / "none")
    file_system.refuse_network(tmp_path)


def test_this_machines_own_table_is_understood(tmp_path: Path) -> None:
    kind, place = file_system.kind_of(tmp_path)
    assert kind
    assert tmp_path.is_relative_to(place)


def test_nothing_is_built_served_or_decided_there(root: Path, make_version: MakeVersion, mounts: Path) -> None:
    name = make_version("a", cut_over=True)
    share = f"36 22 0:55 / {root} rw - nfs server:/export rw\n"
    local = mounts.read_text()
    mounts.write_text(local + share)
    for act in (
        lambda: write_small_version(root, inputs="b"),
        lambda: history.cutover(root, name, "ann@host", "", 5),
        lambda: history.rollback(root, "ann@host", "", 5),
        lambda: Version.open(root, name),
    ):
        with pytest.raises(NetworkFileSystemError):
            act()
    mounts.write_text(local)
