"""The days of the workspace that were last run long ago: removed, so that nights do not fill the disk.

Nothing that serves reads them, and a day that is gone can be run again.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

from jobs.datasets import DAY, DAY_SECONDS
from jobs.errors import DatasetBusyError, JobError
from jobs.lock import lock


def remove_old_days(workspace: Path, *, keep_days: int, but: str, now: float) -> int:
    """Remove the folders of days in which no dataset was made for `keep_days` days; returns how many.

    A folder is renamed before it is emptied, so that no half of a day is left under its name. One in which a step is
    running stays, and so does one without a step's lock file: it is not ours.

    Args:
        keep_days: 0: nothing is removed.
        but: a day that stays, however old.

    Raises:
        JobError: some could not be removed; the others are gone.
    """
    if keep_days == 0:
        return 0
    try:
        folders = sorted(workspace.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise JobError(f"the workspace cannot be read: {workspace}: {error.strerror}") from error
    removed, failed = 0, dict[Path, str]()
    for folder in folders:
        try:
            removed += _remove(folder, but=but, since=now - keep_days * DAY_SECONDS)
        except OSError as error:
            failed[folder] = error.strerror or str(error)
    if failed:
        folder, reason = next(iter(failed.items()))
        raise JobError(
            f"{len(failed)} old days of the workspace could not be removed, the first is {folder}: {reason}",
            hint="remove them by hand; paths.workspace_days says which days are old",
        )
    return removed


def _remove(folder: Path, *, but: str, since: float) -> bool:
    """Remove the folder of an old day, or what is left of one that was renamed already; whether a day went.

    Args:
        since: epoch seconds; a day in which a dataset was made from then on is not old.
    """
    day = folder.name.removeprefix(".").removesuffix(".old")
    if not DAY.fullmatch(day) or folder.name not in (day, _aside(day)):
        return False
    is_day = folder.name == day
    if is_day and (day == but or folder.stat().st_mtime >= since or not _put_aside(folder)):
        return False
    shutil.rmtree(folder.with_name(_aside(day)))
    return is_day


def _aside(day: str) -> str:
    return f".{day}.old"


def _put_aside(folder: Path) -> bool:
    """Rename the folder of a day, unless a step of it is running; whether that was done."""
    locks = sorted(folder.glob(".*.lock"))
    with ExitStack() as held:
        try:
            for path in locks:
                held.enter_context(lock(path, folder.name))
        except DatasetBusyError:
            return False
        if locks:
            folder.rename(folder.with_name(_aside(folder.name)))
    return bool(locks)
