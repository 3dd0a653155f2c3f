"""Every step that changes the disk or has to survive a power cut: the only caller of fsync, rename, link and the like.

A call to `before` announces each step, so that a test can kill the process, fill the disk or break a sync right there.
An error of the file system becomes a DiskError here, and a failed sync is never tried again: the kernel reports a lost
page once and then calls it clean.

What is made has the modes that the umask leaves. `for_all` says that every user may read it all the same: what servers
read may be made by another user than theirs. What is known of users is not for all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from prediction_store import layout
from prediction_store.errors import DiskError

BUFFER_BYTES = 1 << 20
LINKING = "linking"


def before(step: str, path: Path) -> None:
    """Called before each durable step with its name and path. Does nothing: tests put something else in its place."""


@contextlib.contextmanager
def translated(doing: str, path: Path) -> Iterator[None]:
    """Turn an error of the file system into one of the store that says what was being done."""
    try:
        yield
    except OSError as error:
        hint = "free some space and run it again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        if doing == LINKING and error.errno in (errno.EPERM, errno.EOPNOTSUPP):
            hint = "a store needs a file system that has hard links, as ext4 and XFS have"
        raise DiskError(f"{doing} {path}: {error.strerror or error}", hint=hint) from error


@contextlib.contextmanager
def create(path: Path, *, for_all: bool = False) -> Iterator[BinaryIO]:
    """A new file, open for writing; on a clean exit it is synced and closed, on an error it is gone.

    Raises:
        DiskError: it exists already, or the file system refuses.
    """
    with translated("writing", path):
        before("create", path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            with os.fdopen(descriptor, "wb", buffering=BUFFER_BYTES) as file:
                if for_all:
                    os.fchmod(descriptor, 0o644)
                yield file
                file.flush()
                before("sync file", path)
                os.fsync(descriptor)
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink()
            raise


@contextlib.contextmanager
def extend(path: Path) -> Iterator[BinaryIO]:
    """A file, new or begun earlier, open for writing at its end; synced on a clean exit.

    On an error it keeps what was written so far: whoever continues it has to read it first.
    """
    with translated("writing", path):
        before("extend", path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o644)
        with os.fdopen(descriptor, "ab", buffering=BUFFER_BYTES) as file:
            yield file
            file.flush()
            before("sync file", path)
            os.fsync(descriptor)


def make_file(path: Path) -> None:
    """Make an empty file that every user may read, if nothing is there. Not synced. Raises DiskError."""
    with translated("making", path), contextlib.suppress(FileExistsError):
        before("make file", path)
        with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as descriptor:
            os.fchmod(descriptor, 0o644)


def allocate(path: Path, size: int) -> None:
    """Make sure that a file is there with at least `size` bytes reserved on the disk, so that a map may write to it.

    What is in it stays. Raises DiskError.
    """
    with translated("writing", path):
        before("allocate", path)
        with _opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
            os.posix_fallocate(descriptor, 0, size)


class Appended:
    """A new file that is appended to while it is open; it survives a power cut up to the last `sync`.

    One thread at a time. After an error the file is cut back to what was whole, and takes nothing more.
    """

    def __init__(self, path: Path, head: bytes) -> None:
        """Create the file with its first bytes, durably; on an error it is gone. Raises DiskError."""
        self.path = path
        self.size = len(head)
        with create(path) as file:
            file.write(head)
        try:
            sync_folder(path.parent)
            with translated("opening", path):
                before("extend", path)
                self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        self.is_broken = False

    def append(self, data: bytes) -> None:
        """Add bytes, all or none. Raises DiskError."""
        with self._breaking("writing"):
            before("append", self.path)
            left = memoryview(data)
            while left:
                left = left[os.write(self._descriptor, left) :]
        self.size += len(data)

    def sync(self) -> None:
        """Return when all that was added survives a power cut, and can be read by the file's name. Raises DiskError."""
        with self._breaking("syncing"):
            before("sync file", self.path)
            os.fdatasync(self._descriptor)
            if not os.path.samestat(os.lstat(self.path), os.fstat(self._descriptor)):  # restored from a copy
                raise FileNotFoundError(errno.ENOENT, "another file has its name")

    def close(self) -> None:
        """Close without a sync."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    @contextlib.contextmanager
    def _breaking(self, doing: str) -> Iterator[None]:
        if self.is_broken:
            raise DiskError(f"{doing} {self.path}: an earlier write or sync failed")
        with translated(doing, self.path):
            try:
                yield
            except OSError:
                self.is_broken = True
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self.size)
                raise


def sync_file(path: Path) -> None:
    """Make the bytes of a file that something else has written and closed survive a power cut."""
    with translated("syncing", path):
        before("sync file", path)
        with _opened(path, os.O_RDONLY | os.O_NOFOLLOW) as descriptor:
            os.fsync(descriptor)


def start_writing(path: Path, begin: int) -> int:
    """Have the kernel begin to bring a file to disk from `begin` on, while more is added to it; the size by now.

    Only a hint: it waits for nothing, makes nothing durable and takes no error away from a later sync. Linux begins to
    write dirty pages that it is told will not be needed, and keeps them (mm/fadvise.c, looked up for 6.18).
    """
    with translated("writing", path), _opened(path, os.O_RDONLY | os.O_NOFOLLOW) as descriptor:
        size = os.fstat(descriptor).st_size
        os.posix_fadvise(descriptor, begin, size - begin, os.POSIX_FADV_DONTNEED)
        return size


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    with translated("syncing", path):
        before("sync folder", path)
        with _opened(path, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
            os.fsync(descriptor)


def make_folder(path: Path, *, for_all: bool = False) -> None:
    """Make a folder and its parents, if they are not there; those that are made survive a power cut.

    Args:
        for_all: the folder itself; its parents are as the umask has them.
    """
    with translated("making", path):
        if path.is_dir():
            return
    make_folder(path.parent)
    with translated("making", path):
        before("make folder", path)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o755)
            if for_all:
                path.chmod(0o755)
    sync_folder(path.parent)


def make_last_folder(path: Path) -> None:
    """Make a folder, if it is not there, but never its parents: a path that is wrong must not become one that is right.

    Raises:
        DiskError: the parent is not there, or the file system refuses.
    """
    with translated("making", path):
        has_parent = path.parent.is_dir()
    if not has_parent:
        raise DiskError(f"making {path}: {path.parent} is not there")
    make_folder(path)


def make_new_folder(path: Path) -> None:
    """Make a folder that must not be there yet. Not synced: for drafts, which a power cut may take."""
    with translated("making", path):
        before("make folder", path)
        path.mkdir(mode=0o755)


def rename(source: Path, target: Path) -> None:
    """Give a file or folder its final name in the same folder; a file there is replaced, a folder with files is not."""
    with translated("renaming", source):
        before("rename", target)
        source.rename(target)


def link_new(source: Path, target: Path) -> bool:
    """Give a file a second name, if the name is free: of all who try, exactly one gets True."""
    with translated(LINKING, target):
        before("link", target)
        try:
            os.link(source, target, follow_symlinks=False)
        except FileExistsError:
            return False
        return True


def remove_file(path: Path) -> None:
    """Remove a file, if it is there."""
    with translated("removing", path):
        before("remove", path)
        path.unlink(missing_ok=True)


def remove_folder(path: Path) -> None:
    """Remove a folder and all that is in it, sealed or not, or a link to one. Somebody else may be removing it, too."""
    with translated("removing", path):
        before("remove", path)
        if path.is_symlink():
            path.unlink(missing_ok=True)
        while path.exists():
            with contextlib.suppress(FileNotFoundError):
                for folder, _, _ in os.walk(path):
                    Path(folder).chmod(0o755)
                shutil.rmtree(path)


def seal_modes(path: Path) -> None:
    """Files 0444, folders 0555: nothing writes into a sealed version by accident."""
    with translated("sealing", path):
        for folder, _, files in os.walk(path):
            for file in files:
                (Path(folder) / file).chmod(0o444)
            Path(folder).chmod(0o555)


def open_modes(path: Path) -> None:
    """Folders 0755 again, in a draft that was about to be sealed when its maker was killed."""
    with translated("opening", path):
        for folder, _, _ in os.walk(path):
            Path(folder).chmod(0o755)


def seal(draft: Path, folders: Sequence[str], target: Path) -> None:
    """Make a draft visible and durable: the last steps of a version, whether it was built or pulled.

    Requires: every file of the draft is synced; `folders` are all folders in it, children before their parents.
    """
    seal_modes(draft)
    for folder in folders:
        sync_folder(draft / folder)
    sync_folder(draft)
    rename(draft, target)
    sync_folder(target.parent)


def require_room(folder: Path, needed_bytes: int) -> None:
    """Refuse now, not when the disk is full. Raises DiskError."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise DiskError(
            f"{free} bytes are free under {folder}; wanted {needed_bytes}",
            hint="shortlist retire, or free some space",
        )


def replace_document(path: Path, data: bytes, *, for_all: bool = False) -> None:
    """Write a small file in the place of an older one, whose owner and mode it keeps, durably and in one step."""
    make_folder(path.parent, for_all=for_all)
    temporary = layout.temporary_path(path, secrets.token_hex(4))
    with create(temporary, for_all=for_all) as file:
        if not for_all:
            _take_after(path, file.fileno())
        file.write(data)
    try:
        rename(temporary, path)
    except DiskError:  # a folder is in the way, say
        with contextlib.suppress(DiskError):
            remove_file(temporary)
        raise
    sync_folder(path.parent)


def _take_after(path: Path, descriptor: int) -> None:
    """Give a new file the owner and mode of the one at a path, where there is one and this user may."""
    with contextlib.suppress(OSError):  # in a container the owner may be nobody that it knows
        facts = path.lstat()
        if stat.S_ISREG(facts.st_mode):
            os.fchown(descriptor, facts.st_uid, facts.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(facts.st_mode))


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """The descriptor of a file or folder for the length of a block."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
