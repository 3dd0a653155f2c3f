"""A version as this process has it open: once, however often it is asked for.

LMDB must not open a file twice in a process, and must not be carried across a fork. So there is one registry per
process; a forked child starts with an empty one and gives up its copies of the leases.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import lmdb

from prediction_store import contents, layout, locks
from prediction_store.arrays import map_array
from prediction_store.columns import ID, TextColumn, open_columns
from prediction_store.contexts import open_contexts
from prediction_store.errors import (
    DamagedRecordError,
    DamagedVersionError,
    ForeignVersionError,
    FormatError,
    NewerFormatError,
    ShardNotHeldError,
)
from prediction_store.file_system import refuse_network
from prediction_store.held import held_shards
from prediction_store.item_index import ItemIndex
from prediction_store.lists import decode_lists
from prediction_store.lookups import Lookups
from prediction_store.manifest import Sealed, take_lease, verify
from prediction_store.near_items import NEIGHBOURS, TOGETHER, open_near_items
from prediction_store.shards import open_shard
from prediction_store.user_facts import open_user_facts
from prediction_store.user_tower import open_user_tower
from schemas.ranker import decode_weights
from schemas.record import record_seed

_registry: dict[tuple[int, int], OpenedVersion] = {}
"""What is open in this process, by the manifest's device and inode: the same version under two paths is the same."""
_registry_lock = threading.Lock()


class OpenedVersion:
    """The open files of one version, shared by every `Version` of it in this process; closed when the last one is."""

    def __init__(self, sealed: Sealed, *, is_verified: bool) -> None:
        self.sealed = sealed
        self.manifest = sealed.manifest
        self.is_verified = is_verified
        self.holders = 0
        """How many `Version` objects share this. Guarded by the registry's lock."""
        self.is_inherited = False
        """True in a forked child: the files are the parent's, and closed here."""
        self.seed = record_seed(self.manifest.inputs_digest)
        self.shards: list[lmdb.Environment | None] = []
        """By number; None: on other hosts only."""
        self.index: ItemIndex | None = None
        try:
            self._open_files()
            self.lookups = Lookups(self.shards, seed=self.seed, index_bits=self.manifest.index_bits)
            self._check_canaries()
        except BaseException:
            self.close_files()
            raise

    def _open_files(self) -> None:
        path, counts, dimensions = self.sealed.path, self.manifest.counts, self.manifest.dimensions
        n_items, files = counts.items, self.manifest.files.keys()
        try:
            self.item_vectors = map_array(path / layout.ITEM_VECTORS, "<f4", (n_items, dimensions))
            self.user_vectors = map_array(path / layout.USER_VECTORS, "<f4", (counts.users, dimensions))
            self.columns = open_columns(path, self.manifest.columns, n_items)
            self.lists = decode_lists((path / layout.LISTS).read_bytes(), n_items)
            self.user_facts = open_user_facts(path, self.lists.segments, counts.users, n_items)
            self.neighbours = open_near_items(path, NEIGHBOURS, n_items)
            # These a version may be without.
            self.together = open_near_items(path, TOGETHER, n_items) if files & layout.OF_TOGETHER else None
            self.contexts = open_contexts(path, n_items) if files & layout.OF_CONTEXTS else None
            has_tower = files & layout.OF_TOWER
            self.user_tower = open_user_tower(path, counts.users, n_items, dimensions) if has_tower else None
            self.ranker = decode_weights((path / layout.RANKER).read_bytes())
        except (NewerFormatError, DamagedVersionError):
            raise
        except OSError as error:
            raise contents.unreadable(f"version {self.manifest.name}: {error}", error.errno) from error
        except (FormatError, UnicodeDecodeError) as error:
            raise DamagedVersionError(f"version {self.manifest.name}: {error}") from error
        if self.ranker.space_id != self.manifest.space_id:
            raise ForeignVersionError(
                f"version {self.manifest.name}: the ranker is of embedding space {self.ranker.space_id};"
                f" the vectors are of {self.manifest.space_id}"
            )
        ids = self.columns.get(ID)
        if not isinstance(ids, TextColumn):
            raise DamagedVersionError(f"version {self.manifest.name} has no column of item ids")
        self.item_ids = ids
        self.index = ItemIndex(path / layout.ITEM_INDEX)
        self.held = held_shards(path, self.manifest)
        for number in range(self.manifest.shards):
            is_here = number in self.held.numbers
            self.shards.append(open_shard(path / layout.shard_file(number)) if is_here else None)

    def _check_canaries(self) -> None:
        """Look up what must be there: hashes prove the bytes, this proves that they are read rightly."""
        name = self.manifest.name
        for user in self.manifest.canaries:
            try:
                found = self.lookups.read(user.encode("utf-8"))
            except ShardNotHeldError:
                continue
            except DamagedRecordError as error:
                raise DamagedVersionError(f"version {name}: {error.message}") from error
            if found is None:
                raise DamagedVersionError(f"version {name}: user {user[:64]!r} has no record, and should have one")
        for index in {0, self.manifest.counts.items - 1}:
            try:
                item = self.item_ids.texts([index])[0]
            except UnicodeDecodeError as error:
                raise DamagedVersionError(f"version {name}: the id of item {index}: {error}") from error
            if self.item_index(item.encode("utf-8")) != index:
                raise DamagedVersionError(f"version {name}: item {item[:64]!r} does not lead back to its index {index}")

    def shard(self, number: int) -> lmdb.Environment:
        """A shard by its number. Raises ShardNotHeldError when it is on other hosts only."""
        shard = self.shards[number]
        if shard is None:
            raise ShardNotHeldError(f"version {self.manifest.name}: shard {number} is on other hosts")
        return shard

    def item_index(self, key: bytes) -> int | None:
        """The dense index of an item's id; None: not in the catalogue."""
        return self.item_indexes([key])[0]

    def item_indexes(self, keys: Sequence[bytes]) -> list[int | None]:
        """As `item_index`, of many items in one look."""
        assert self.index is not None
        return self.index.find(keys)

    def close_files(self) -> None:
        """Close LMDB's files; that ends the transactions in them. Requires: nobody is reading.

        Arrays stay valid: each keeps its own mapping alive.
        """
        for shard in [*self.shards, self.index]:
            if shard is not None:
                shard.close()
        self.shards, self.index = [], None


def open_version(root: Path, name: str, *, verify_hashes: bool, manifest_sha256: str | None = None) -> OpenedVersion:
    """The version, opened and verified now or shared with who has it open; give it back with `release`.

    The read order: lease, manifest and its digest, machine, sizes, hashes, embedding space, canaries.
    """
    refuse_network(root)
    sealed = take_lease(root, name, manifest_sha256=manifest_sha256)
    keep_lease = False
    try:
        facts = os.fstat(sealed.lease)
        key = (facts.st_dev, facts.st_ino)
        with _registry_lock:
            shared = _registry.get(key)
            if shared is not None:
                shared.holders += 1
        if shared is not None:
            try:
                if verify_hashes and not shared.is_verified:
                    verify(sealed)
                    shared.is_verified = True
            except BaseException:
                release(shared)
                raise
            return shared
        verify(sealed, hashes=verify_hashes)
        with _registry_lock:  # verified outside: it takes long; opening is quick
            shared = _registry.get(key)
            if shared is None:
                shared = _registry[key] = OpenedVersion(sealed, is_verified=verify_hashes)
                keep_lease = True
            shared.holders += 1
        return shared
    finally:
        if not keep_lease:
            locks.unlock(sealed.lease)


def release(opened: OpenedVersion) -> None:
    """Give back one `open_version`; the last one closes the files and gives up the lease."""
    with _registry_lock:
        opened.holders -= 1
        if opened.holders or opened.is_inherited:
            return
        for key, other in list(_registry.items()):
            if other is opened:
                del _registry[key]
        opened.close_files()
        locks.unlock(opened.sealed.lease)


def _start_afresh_in_child() -> None:
    """After a fork, in the child: forget what the parent has open, without giving up the parent's leases."""
    global _registry_lock  # noqa: PLW0603 another thread of the parent may have held it
    _registry_lock = threading.Lock()
    for opened in _registry.values():
        opened.is_inherited = True
        opened.close_files()  # or LMDB would refuse to open them again in this process
        with contextlib.suppress(OSError):
            os.close(opened.sealed.lease)  # close only: an unlock would unlock for the parent, too
    _registry.clear()


os.register_at_fork(after_in_child=_start_afresh_in_child)
