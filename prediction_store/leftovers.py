"""What a killed process leaves behind, and its removal. A living process holds a lock on what it works on."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Final, NamedTuple

from prediction_store import durable, layout, locks
from prediction_store.errors import DiskError

TEMPORARY_SECONDS: Final = 3600
"""A temporary file this old belongs to nobody: it lives for as long as one sync takes."""


class Swept(NamedTuple):
    """What a sweep came to. What cannot be removed is passed over: it may be another user's."""

    removed: list[str]
    """Names."""
    failed: dict[str, str]
    """What could not be removed, and why."""


def sweep_drafts(root: Path) -> Swept:
    """Remove the drafts of builds that are no more."""
    return _sweep(layout.leftovers(root, layout.BUILDING), _remove_folder)


def sweep_all(root: Path, *, awaited: Collection[str] = ()) -> Swept:
    """Remove drafts, what interrupted pulls have brought and removals have left, and old temporary files.

    Args:
        awaited: versions whose pull will be gone on with; what it has brought stays.
    """
    prefixes = (layout.BUILDING, layout.PULLING, layout.TRASH)
    spared = [layout.pulling_path(root, name) for name in awaited]
    found = [path for prefix in prefixes for path in layout.leftovers(root, prefix) if path not in spared]
    folders = _sweep(found, _remove_folder)
    places = (layout.history_folder(root), layout.gates_folder(root))
    files = _sweep([path for folder in places for path in old_temporary_files(folder)], _remove_file)
    return Swept([*folders.removed, *files.removed], folders.failed | files.failed)


def old_temporary_files(folder: Path) -> list[Path]:
    """What killed processes have begun in a folder and not given its name. Raises DiskError."""
    return [
        folder / entry
        for entry in layout.entries(folder)
        # The file's own clock and the kernel's are the same, so no `now` of the caller's comes into it.
        if entry.startswith(layout.TEMPORARY) and _age_seconds(folder / entry) > TEMPORARY_SECONDS
    ]


def _sweep(paths: Iterable[Path], is_gone: Callable[[Path], bool]) -> Swept:
    swept = Swept([], {})
    for path in paths:
        try:
            if is_gone(path):
                swept.removed.append(path.name)
        except DiskError as error:
            swept.failed[path.name] = error.message
    return swept


def _remove_file(path: Path) -> bool:
    durable.remove_file(path)
    return True


def _remove_folder(path: Path) -> bool:
    """Remove a folder, or a link in its place; False: a living process works on it."""
    if path.is_symlink():  # nobody can hold a lock on it
        durable.remove_folder(path)
        return True
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
