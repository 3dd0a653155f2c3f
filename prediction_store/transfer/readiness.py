"""The versions that a following host has ready: here, verified, warm, and leased so that nothing retires them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final, NamedTuple

from prediction_store import layout, locks
from prediction_store.errors import DamagedVersionError, TransferStoppedError
from prediction_store.held import held_shards, is_whole
from prediction_store.manifest import Sealed, files_here, take_lease, verify
from prediction_store.retention import discard
from prediction_store.terminal import size
from prediction_store.transfer.configured import BYTES_PER_MB
from prediction_store.transfer.copies import find_copy
from prediction_store.transfer.flow import Flow
from prediction_store.transfer.pull import pull
from prediction_store.transfer.remote import Remote
from prediction_store.transfer.stop import Stop
from schemas.config import Transfer
from schemas.errors import ShortlistError
from schemas.held import ShardRange

FIRST_PAUSE_SECONDS: Final = 1.0
MAX_PAUSE_SECONDS: Final = 60.0
"""Between two tries to get one version ready."""
WARM_SHARE: Final = 0.6
"""A version larger than this share of the available memory is not read through: it would push out what is served."""


class _Trouble(NamedTuple):
    error: ShortlistError
    tries: int
    again_at: float


class Readiness:
    """What is ready on this host. Used by one thread.

    Args:
        shards: of users, to pull; None: all of them.
        say: told each event worth a line of the log.
        before_pull: told the name of each version that is about to be pulled.
        is_wanted: asked, now and then and by any thread, whether a pull that is under way is still the thing to do.
    """

    def __init__(
        self, root: Path, remote: Remote, *, transfer: Transfer, shards: ShardRange | None,
        say: Callable[[str], None], before_pull: Callable[[str], None], is_wanted: Callable[[], bool],
        stopping: Stop, monotonic: Callable[[], float],
    ) -> None:  # fmt: skip
        self._root, self._remote, self._transfer, self._shards = root, remote, transfer, shards
        self._say, self._before_pull, self._is_wanted, self._stopping = say, before_pull, is_wanted, stopping
        self._monotonic = monotonic
        self._ready: dict[str, Sealed] = {}
        self._troubles: dict[str, _Trouble] = {}

    def versions(self) -> dict[str, str]:
        """The versions that are ready, with the digests of their manifests."""
        return {name: sealed.sha256 for name, sealed in sorted(self._ready.items())}

    def has(self, name: str) -> bool:
        """True when the version is here, ready or not yet verified."""
        return name in self._ready or layout.version_path(self._root, name).is_dir()

    def awaited(self) -> list[str]:
        """The versions that could not be got ready so far, and will be tried again."""
        return list(self._troubles)

    def prepare(self, name: str, manifest_sha256: str | None) -> None:
        """Have a version ready. Raises what went wrong, at once again until the next try is due."""
        ready = self._ready.get(name)
        if ready is not None and manifest_sha256 in (None, ready.sha256):
            return
        trouble = self._troubles.get(name)
        if trouble is not None and self._monotonic() < trouble.again_at:
            raise trouble.error
        try:
            self._ready[name] = self._acquire(name, manifest_sha256)
        except TransferStoppedError:
            raise
        except ShortlistError as error:
            tries = trouble.tries + 1 if trouble is not None else 0
            pause = min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(tries, 10))
            self._troubles[name] = _Trouble(error, tries, self._monotonic() + pause)
            raise
        self._troubles.pop(name, None)

    def keep_only(self, names: Collection[str]) -> None:
        """Let go of every other version: `retire` may have it."""
        for name in [name for name in self._ready if name not in names]:
            locks.unlock(self._ready.pop(name).lease)
        self._troubles = {name: trouble for name, trouble in self._troubles.items() if name in names}

    def shards(self) -> str:
        """The shards that the newest version that is ready has here; "": all of them, or none is ready."""
        if not self._ready:
            return ""
        newest = self._ready[max(self._ready)]
        held = held_shards(newest.path, newest.manifest)
        return "" if is_whole(held) else str(held)

    def _acquire(self, name: str, manifest_sha256: str | None) -> Sealed:
        if not layout.version_path(self._root, name).is_dir():
            return self._pull(name, manifest_sha256)
        try:
            return self._verified(name, manifest_sha256)
        except DamagedVersionError as error:
            if find_copy(self._remote, name) is None or discard(self._root, name) is not None:
                raise
            self._say(f"pulling {name} anew: {error.message}")
            return self._pull(name, manifest_sha256)

    def _verified(self, name: str, manifest_sha256: str | None) -> Sealed:
        sealed = take_lease(self._root, name, manifest_sha256=manifest_sha256)
        try:
            verify(sealed, hashes=_is_warmable(sealed))  # reading every byte also warms the page cache
        except BaseException:
            locks.unlock(sealed.lease)
            raise
        return sealed

    def _pull(self, name: str, manifest_sha256: str | None) -> Sealed:
        self._before_pull(name)
        rate = self._transfer.max_mb_per_second * BYTES_PER_MB
        flow = Flow(rate, stopping=self._stopping, is_wanted=self._is_wanted)
        report = pull(
            self._root, self._remote, name, flow=flow, parallel=self._transfer.parallel,
            manifest_sha256=manifest_sha256, shards=self._shards,
        )  # fmt: skip
        self._say(f"pulled {name}: {report.files} files, {size(report.bytes)} in {report.seconds:.1f} s")
        return take_lease(self._root, name, manifest_sha256=manifest_sha256)  # it was hashed as it arrived


def _is_warmable(sealed: Sealed) -> bool:
    """True when reading the whole version would not push everything else out of memory."""
    needed = sum(facts.bytes for facts in files_here(sealed.path, sealed.manifest).values())
    available = _available_bytes()
    return available is None or needed <= WARM_SHARE * available


def _available_bytes() -> int | None:
    """What the kernel would give without swapping; None: it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
