"""What a killed process leaves behind, and its removal. A living process holds a lock on what it works on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from prediction_store import durable, layout, locks

TEMPORARY_SECONDS: Final = 3600
"""A temporary file this old belongs to nobody: it lives for as long as one sync takes."""


def sweep_drafts(root: Path) -> list[str]:
    """Remove the drafts of builds that are no more; their names."""
    return [path.name for path in layout.leftovers(root, layout.BUILDING) if _removed(path)]


def sweep_pulls(root: Path) -> list[str]:
    """Remove what interrupted pulls have brought so far; the names of the folders."""
    return [path.name for path in layout.leftovers(root, layout.PULLING) if _removed(path)]


def sweep_trash(root: Path) -> list[str]:
    """Go on with removals that were interrupted; the names of what they were removing."""
    return [path.name for path in layout.leftovers(root, layout.TRASH) if _removed(path)]


def sweep_temporary(root: Path) -> list[str]:
    """Remove old temporary files beside history records and gate reports; their names."""
    swept = []
    for folder in (layout.history_folder(root), layout.gates_folder(root)):
        for entry in layout.entries(folder):
            path = folder / entry
            # The file's own clock and the kernel's are the same, so no `now` of the caller's comes into it.
            if entry.startswith(layout.TEMPORARY) and _age_seconds(path) > TEMPORARY_SECONDS:
                durable.remove_file(path)
                swept.append(entry)
    return swept


def _removed(path: Path) -> bool:
    lock = locks.lock(path, exclusive=True)
    if lock is None:
        return False
    try:
        durable.remove_folder(path)
    finally:
        locks.unlock(lock)
    return True


def _age_seconds(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0
