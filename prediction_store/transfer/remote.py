"""Object storage that several hosts share, laid out like a store. The only room that knows obstore.

Objects appear whole or not at all, and `create` lets exactly one of all who try for a key have it. What a service
promises, a folder (file://…) has to be made to keep: there every object is synced, and so is its folder.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from prediction_store import durable
from prediction_store.errors import RemoteError
from schemas.errors import ConfigError

if TYPE_CHECKING:
    from obstore.store import ObjectStore, RetryConfig

    from prediction_store.transfer.flow import Flow

SCHEMES: Final = ("file", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")
PART_BYTES: Final = 8 << 20
"""Of a multipart upload; an object in 10,000 parts, the most there may be, is then 80 GB."""
PARTS_AT_ONCE: Final = 2
"""Of one file; several files travel at the same time."""
RETRY: Final[RetryConfig] = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=5), "base": 2},
}
MAX_WORDS: Final = 240
NO_BUCKET: Final = ("NoSuchBucket", "ContainerNotFound")
"""What S3 and GCS, and Azure, answer where not even the bucket is there."""

_ANSWER = re.compile(r"<Code>([^<]+)</Code>(?:.*?<Message>([^<\n]+))?", re.DOTALL)
"""Why a service refuses, in its own words."""
_TIMING = re.compile(r" in [0-9.]+[nµm]?s(, after .* retry_timeout: [0-9]+s)?")


class Remote:
    """One prefix of object storage. May be used from any thread, and not across a fork."""

    def __init__(self, url: str, *, make: bool = False) -> None:
        """Open, without asking it anything yet.

        Args:
            url: file:///…, s3://bucket/prefix, …; credentials and endpoint are taken from the environment.
            make: make the folder of a file:// URL, if it is not there.

        Raises:
            ConfigError: the URL means no object storage.
            RemoteError: the folder is not there.
        """
        self.url = url
        parts = urlsplit(url)
        is_cut = bool(parts.query or parts.fragment)  # what follows on ? or # would be no part of the place
        if parts.scheme not in SCHEMES or is_cut or (parts.scheme == "file" and not _is_folder(parts)):
            raise ConfigError(
                f"store.remote = {url!r}: wanted file:///FOLDER, s3://BUCKET/PREFIX, gs://… or az://…",
                hint="shortlist config",
            )
        self._folder = Path(unquote(parts.path)) if parts.scheme == "file" else None
        if self._folder is not None and make:
            durable.make_folder(self._folder)
        with _translated("opening", url):
            # obstore's overloads know one service each.
            options: dict[str, Any] = {} if self._folder is not None else {"retry_config": RETRY}
            self._store: ObjectStore = from_url(url, **options)

    def sizes(self, prefix: str) -> dict[str, int]:
        """Every object under a prefix that ends at a slash, with its size in bytes, by key."""
        found: dict[str, int] = {}
        with _translated("listing", prefix):
            for chunk in obstore.list(self._store, prefix, chunk_size=1000):
                found |= {meta["path"]: meta["size"] for meta in chunk}
        return found

    def changed_at(self, prefix: str) -> float:
        """When an object under a prefix was last written, UTC epoch seconds; 0: there is none."""
        found = 0.0
        with _translated("listing", prefix):
            for chunk in obstore.list(self._store, prefix, chunk_size=1000):
                found = max([found, *(meta["last_modified"].timestamp() for meta in chunk)])
        return found

    def read(self, key: str) -> bytes | None:
        """A small object; None: it is not there. Raises RemoteError."""
        with _translated("reading", key):
            try:
                return bytes(obstore.get(self._store, key).bytes())
            except FileNotFoundError as error:
                if any(word in str(error) for word in NO_BUCKET):
                    raise
                return None

    def read_piece(self, key: str, start: int, length: int) -> bytes:
        """Some bytes of an object, fewer if it ends there. Raises RemoteError, also when it does not reach so far."""
        with _translated("reading", key):
            return bytes(obstore.get_range(self._store, key, start=start, length=length))

    def put(self, key: str, data: bytes) -> None:
        """Write a small object, in the place of an older one."""
        with _translated("writing", key):
            durable.before("put", Path(key))
            obstore.put(self._store, key, data, use_multipart=False)

    def put_file(self, key: str, path: Path, flow: Flow) -> None:
        """Write a file as an object, in the place of an older one."""
        with path.open("rb") as file, _translated("writing", key):
            durable.before("put", Path(key))
            told: Any = _Told(file, flow)  # it reads and seeks: no more is asked of a file
            try:
                obstore.put(self._store, key, told, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)
            except OSError:
                flow.check()  # an exception in `read` comes out as an OSError
                raise

    def create(self, key: str, data: bytes) -> bool:
        """Write a small object, if there is none: of all who try, exactly one gets True. Raises RemoteError.

        False may also be the answer to a second try of one's own, when the answer to the first was lost.
        """
        with _translated("creating", key):
            durable.before("put new", Path(key))
            try:
                obstore.put(self._store, key, data, mode="create")
            except AlreadyExistsError:
                return False
            return True

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, those that are there."""
        for key in keys:
            with _translated("removing", key), contextlib.suppress(FileNotFoundError):
                durable.before("delete", Path(key))
                obstore.delete(self._store, key)

    def settle(self, keys: Iterable[str]) -> None:
        """Make objects that have been written survive a power cut: what a service has done before it answers."""
        if self._folder is None:
            return
        folders: dict[Path, None] = {}
        for key in keys:
            path = self._folder / key
            durable.sync_file(path)
            folders |= dict.fromkeys(folder for folder in path.parents if folder.is_relative_to(self._folder))
        for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
            durable.sync_folder(folder)


def _is_folder(parts: SplitResult) -> bool:
    """True when a file URL means a folder of this machine below its root."""
    return parts.netloc in ("", "localhost") and parts.path.startswith("/") and parts.path.strip("/") != ""


class _Told:
    """A file whose reading is told to a flow."""

    def __init__(self, file: IO[bytes], flow: Flow) -> None:
        self._file, self._flow = file, flow

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._flow.passed(len(data))
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


@contextlib.contextmanager
def _translated(doing: str, what: str) -> Iterator[None]:
    """Turn obstore's errors, and the file system's under file://, into one of ours."""
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        raise RemoteError(
            f"{doing} {what} in object storage: {_words(error) or type(error).__name__}",
            hint="see store.remote, and the credentials and endpoint in the environment",
        ) from error


def _words(error: Exception) -> str:
    """What is wrong, in one line; the same for the same error, so without the time that it took."""
    text = str(error).split("\n\nDebug source")[0]
    answer = _ANSWER.search(text)
    words = ": ".join(filter(None, answer.groups())) if answer else _TIMING.sub("", text)
    return " ".join(words.split())[:MAX_WORDS]
