"""The smallest store that is a real one: versions of a few kilobytes, each with lists of its own that are known."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import shop_store
from shop_store import MADE_AT, REPORT, SPACE

from prediction_store import durable, history, layout
from prediction_store.check import check
from prediction_store.errors import FormatError, StoreError
from prediction_store.reader import Version
from prediction_store.user_facts import Consumed
from prediction_store.writer import VersionDraft, find_by_inputs, shard_of, write_shard
from schemas.history import HistoryRecord
from schemas.ranker import RankerWeights
from schemas.record import RankedItems, encode_record

HOUR: Final = 3600
EXPIRES_AT: Final = MADE_AT + 10**9
ITEMS: Final = 16
USERS: Final = ("ann", "bob", "cy")
WHO: Final = "test@localhost"
MEMORY: Final = Path("/dev/shm")
"""A file system in memory: what is tested here is the order of things, not how fast a disk is."""


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A new folder in memory, or on the disk where there is none; gone afterwards, sealed versions and all."""
    there = MEMORY.is_dir() and os.access(MEMORY, os.W_OK)
    folder = Path(tempfile.mkdtemp(prefix="shortlist-promises-", dir=MEMORY if there else None))
    try:
        yield folder
    finally:
        durable.remove_folder(folder)


def digest_of(inputs: str) -> str:
    """The inputs' digest of the version that is made from `inputs`."""
    return sha256(inputs.encode()).hexdigest()


def lists_of(inputs: str) -> dict[str, list[int]]:
    """Every user's list in the version that is made from `inputs`: other inputs, other lists."""
    dice = random.Random(inputs)
    return {user: dice.sample(range(ITEMS), ITEMS) for user in USERS}


def write_version(
    root: Path, inputs: str, now: float, *, shards: int = 1, lists: Mapping[str, Sequence[int]] | None = None,
    n_items: int = ITEMS,
) -> str:  # fmt: skip
    """Build and seal the version that is made from `inputs`; its name. By default it has `lists_of(inputs)`."""
    lists = lists_of(inputs) if lists is None else lists
    with VersionDraft.begin(root, digest_of(inputs), now) as draft:
        fill(draft, len(lists), n_items)
        for number, records in enumerate(records_of(draft, lists, shards)):
            size = sum(len(key) + len(value) for key, value in records)
            write_shard(draft.shard_path(number), records, expected_bytes=size)
        seal(draft, inputs, shards)
        return draft.name


def fill(draft: VersionDraft, n_users: int = len(USERS), n_items: int = ITEMS) -> None:
    """Write everything that a version must have beside its records, and nothing else."""
    draft.write_items(np.ones((n_items, 2), np.float32), [f"item-{item}" for item in range(n_items)])
    draft.write_user_vectors(np.ones((n_users, 2), np.float32))
    everything = RankedItems(np.arange(n_items, dtype=np.uint32), np.linspace(1, 0, n_items, dtype=np.float32))
    draft.write_lists({"": everything}, {"": everything})
    draft.write_user_facts(Consumed(np.zeros(n_users + 1, np.int64), np.empty(0, np.uint32)), [""] * n_users)
    draft.write_neighbours(np.zeros((n_items, 1), np.int32), np.zeros((n_items, 1), np.float32))
    draft.write_ranker(RankerWeights(["base_score"], [1.0], SPACE))
    draft.write_report(msgspec.json.encode(REPORT))


def seal(draft: VersionDraft, inputs: str, shards: int) -> None:
    """Make a draft that is filled a version."""
    draft.seal(space_id=SPACE, made_at=MADE_AT, expires_at=EXPIRES_AT, shards=shards, inputs={"test": inputs})


def records_of(draft: VersionDraft, lists: Mapping[str, Sequence[int]], shards: int) -> list[list[tuple[bytes, bytes]]]:
    """The records of each shard, sorted by key."""
    found: list[list[tuple[bytes, bytes]]] = [[] for _ in range(shards)]
    for row, (user, items) in enumerate(lists.items()):
        key, scores = user.encode(), np.linspace(1, 0, len(items))
        value = encode_record(
            key, items, scores, made_at=MADE_AT, user_row=row, seed=draft.seed, index_bits=draft.index_bits
        )
        found[shard_of(key, shards)].append((key, value))
    return [sorted(records) for records in found]


def build(root: Path, inputs: str, now: float, *, shards: int = 1) -> str:
    """Write the version that is made from `inputs`, unless it is there: what `shortlist build` does. Its name."""
    return find_by_inputs(root, digest_of(inputs)) or write_version(root, inputs, now, shards=shards)


def judge(root: Path, name: str) -> None:
    """Run a version's gates."""
    shop_store.judge(root, name, candidates=ITEMS, now=MADE_AT)


def publish(root: Path, inputs: str, now: float, *, shards: int = 1) -> str:
    """Build, gate and cutover: what the nightly journey does. The version's name."""
    name = build(root, inputs, now, shards=shards)
    judge(root, name)
    history.cutover(root, name, WHO, "a run", now)
    return name


def problems_of(root: Path, allowed: set[str]) -> list[str]:
    """What is wrong with a store whose current version must be one of the allowed ones; []: nothing."""
    found = [f"{problem.where}: {problem.what}" for problem in check(root).problems]
    try:
        record = history.current(root)
        if record.version not in allowed:
            found.append(f"{record.version} is current; wanted one of {sorted(allowed)}")
        with Version.open(root, record.version, verify=False, manifest_sha256=record.manifest_sha256) as version:
            found += wrong_answers(version)  # every byte has just been verified
    except (StoreError, FormatError) as error:
        found.append(f"what is current cannot be read: {error}")
    return found


def wrong_lists(root: Path, record: HistoryRecord) -> list[str]:
    """What the version that a record names answers otherwise than it was built to."""
    with Version.open(root, record.version, manifest_sha256=record.manifest_sha256) as version:
        return wrong_answers(version)


def wrong_answers(version: Version) -> list[str]:
    """The users whose list is not the one that an open version was built with."""
    wanted = lists_of(version.manifest.inputs["test"])
    read = {user: version.read(user) for user in USERS}
    return [
        f"{version.name} answers {user} with {None if found is None else found.items.tolist()}; wanted {wanted[user]}"
        for user, found in read.items()
        if found is None or found.items.tolist() != wanted[user]
    ]


def copy_store(source: Path, target: Path) -> None:
    """A copy of a store that shares its files, which nobody changes in place."""
    shutil.copytree(source, target, copy_function=os.link)
    # A folder may not be moved by whoever may not write into it, which a copy of a sealed version is not about.


def remove_store(root: Path) -> None:
    """Remove a store, sealed versions and all."""
    if root.exists():
        durable.remove_folder(root)


def leftovers(root: Path) -> list[str]:
    """Drafts, half-removed versions and temporary files that lie in a store."""
    folders = (layout.versions_folder(root), layout.history_folder(root), layout.gates_folder(root))
    return sorted(entry for folder in folders for entry in layout.entries(folder) if entry.startswith("."))
