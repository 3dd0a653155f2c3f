"""A folder mounted in another way, in a namespace of its own: read-only, or a small disk that can be filled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import shortlist

HOME = Path(shortlist.__file__).parent
SMALL_DISK = 'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"'
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
FILL = """
import sys
from pathlib import Path

def fill(folder):
    ballast = Path(folder) / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)) == 4096:
                pass
        except OSError:
            return ballast
"""
"""The beginning of code for a small disk: `fill` leaves no byte on it; what it returns gives them back when removed."""


def can_mount() -> bool:
    probe = ["unshare", "--map-root-user", "--mount", "true"]
    try:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def read_only(root: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the folder mounted read-only."""
    return _run(READ_ONLY, root, *argv)


def on_small_disk(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code with an empty disk of a megabyte in the folder's place; it is gone afterwards."""
    return _run(SMALL_DISK, folder, "-c", FILL + code, str(folder))


def _run(mount: str, folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(folder), sys.executable, *argv]
    return subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
