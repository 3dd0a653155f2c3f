"""The file system that a store lies on: a network file system is refused.

There LMDB's maps may show pages of two states, `flock` may hold among the processes of one host only, and a rename that
was answered may not have happened.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from prediction_store.errors import NetworkFileSystemError

MOUNTS: Final = Path("/proc/self/mountinfo")
NETWORK: Final = frozenset(
    {
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "9p", "ceph", "lustre", "beegfs", "gpfs",
        "gfs2", "ocfs2", "orangefs", "pvfs2", "glusterfs", "davfs",
    }
)  # fmt: skip
"""Kinds of file system that more than one machine may write to."""
NETWORK_IN_USER_SPACE: Final = re.compile(
    r"fuse\.(sshfs|glusterfs|s3fs|gcsfuse|goofys|rclone|juicefs|mount-s3|ceph|moosefs|curlftpfs|davfs|cephfs|lizardfs)"
)


def refuse_network(path: Path) -> None:
    """Go on only if the path lies on a file system of this machine alone. It need not exist.

    Raises:
        NetworkFileSystemError: it does not.
    """
    kind, place = kind_of(path)
    if kind in NETWORK or NETWORK_IN_USER_SPACE.match(kind):
        raise NetworkFileSystemError(
            f"{path} lies on {place}, a network file system ({kind}); a store needs a disk of the machine itself",
            hint="set paths.store to a local disk; docs/several-hosts.md: each host has a copy of its own",
        )


def kind_of(path: Path) -> tuple[str, str]:
    """Kind of the file system that a path lies on, and where that is mounted; ("", "/") where nothing says so."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # no /proc: not the kernel this was written for
        return "", "/"
    wanted = f"{os.path.realpath(path)}/"
    found, place = "", "/"
    for line in lines:
        point, kind = _mount(line)
        # The innermost, and of several on one point the last: it is mounted over the others.
        if len(point) >= len(place) and wanted.startswith(point):
            found, place = kind, point
    return found, place.rstrip("/") or "/"


def _mount(line: str) -> tuple[str, str]:
    """Mount point, ending on /, and kind in one line of the table. Source: proc(5), /proc/pid/mountinfo."""
    before, _, after = line.partition(" - ")
    point = before.split(" ", 5)[4]
    if "\\" in point:
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point)
    return point if point == "/" else f"{point}/", after.split(" ", 1)[0]
