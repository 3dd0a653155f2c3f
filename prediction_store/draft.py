"""A version in the making: a folder aside, which `seal` turns into a version in one rename."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Mapping, Sequence
from importlib.metadata import version as library_version
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from prediction_store import durable, layout, locks
from prediction_store.arrays import AnyArray, map_array, write_array
from prediction_store.columns import ID, NewColumn, Texts, write_columns
from prediction_store.contexts import Contexts, write_contexts
from prediction_store.errors import BuildError, DiskError
from prediction_store.file_system import refuse_network
from prediction_store.item_index import write_item_index
from prediction_store.leftovers import sweep_drafts
from prediction_store.lists import encode_lists, segment_names
from prediction_store.manifest import this_environment
from prediction_store.near_items import NEIGHBOURS, TOGETHER, write_near_items
from prediction_store.read_back import read_back
from prediction_store.survey import Wanted
from prediction_store.user_facts import Consumed, nothing_consumed, write_user_facts
from prediction_store.user_tower import StoredTower, write_user_tower
from schemas.manifest import RECORD_FORMAT, Counts, Manifest, encode_manifest
from schemas.ranker import RankerWeights, encode_weights
from schemas.record import RankedItems, index_bits_for, record_seed

MAX_CANARIES: Final = 16
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class VersionDraft:
    """A version that is being built; nobody can see it before `seal`.

    As a context manager it removes itself when the block ends without `seal`. While it lives it holds a lock on its
    folder; the folder of a build that was killed has none and is swept by the next one.
    """

    def __init__(self, root: Path, name: str, path: Path, *, inputs_digest: str, built_at: int, lock: int) -> None:
        self.root = root
        self.name = name
        self.path = path
        """Folder of the draft. Shards go to `shard_path(n)`."""
        self.inputs_digest = inputs_digest
        self.seed = record_seed(inputs_digest)
        """The `seed` to call `encode_record` with."""
        self._built_at = built_at
        self._lock: int | None = lock
        self._columns: dict[str, str] = {}
        self._n_items: int | None = None
        self._dimensions: int | None = None
        self._n_users: int | None = None
        self._segments: list[str] | None = None
        self._optional: set[str] = set()
        """Files written that a version may be without."""
        self._space_id = ""

    @classmethod
    def begin(cls, root: Path, inputs_digest: str, now: float) -> VersionDraft:
        """Make an empty draft, and sweep what killed builds have left behind.

        Args:
            inputs_digest: 64 hexadecimal digits over everything the version is computed from.
            now: the time of the build. Stands in the name; the contents do not depend on it.
        """
        if not _DIGEST.match(inputs_digest):
            raise BuildError(f"inputs digest {inputs_digest!r}: wanted 64 hexadecimal digits")
        refuse_network(root)
        for folder in (layout.versions_folder(root), layout.history_folder(root), layout.gates_folder(root)):
            durable.make_folder(folder, for_all=True)
        sweep_drafts(root)
        built_at = int(now)
        while layout.version_path(root, layout.version_name(built_at, inputs_digest)).exists():
            built_at += 1
        name = layout.version_name(built_at, inputs_digest)
        while True:
            path = layout.building_path(root, name, secrets.token_hex(4))
            durable.make_new_folder(path)
            lock = locks.lock(path, exclusive=True)
            if lock is not None:  # None: swept between the two steps
                break
        draft = cls(root, name, path, inputs_digest=inputs_digest, built_at=built_at, lock=lock)
        try:
            for folder_name in layout.FOLDERS:
                durable.make_new_folder(path / folder_name)
        except BaseException:
            draft.abandon()
            raise
        return draft

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    @property
    def index_bits(self) -> int:
        """The `index_bits` to call `encode_record` with. Requires: `write_items` has run."""
        return index_bits_for(self._of_items()[0])

    def shard_path(self, number: int) -> Path:
        """Final path of a shard: the `final` of `commit_shard`, or the path of `write_shard`."""
        return self.path / layout.shard_file(number)

    def check_room(self, expected_bytes: int) -> None:
        """Refuse now, not when the disk is full: a fifth more than expected must be free.

        Raises:
            DiskError: there is too little room.
        """
        durable.require_room(self.path, round(expected_bytes * 1.2))

    def write_items(
        self, vectors: AnyArray, ids: Sequence[str], columns: Mapping[str, NewColumn] | None = None
    ) -> None:
        """Write the catalogue in dense order.

        Args:
            vectors: float32[n_items, d].
            ids: the item's id of each row; 1 to 511 bytes in UTF-8, each once.
            columns: one value per item: `Texts`, `Categories` or a NumPy array. The column `id` is added.

        Raises:
            BuildError: anything has the wrong length, type or value.
        """
        if vectors.ndim != 2 or vectors.dtype != np.float32 or len(ids) != len(vectors) or len(ids) == 0:
            raise BuildError(
                f"item vectors {vectors.shape} of {vectors.dtype} and {len(ids)} ids; wanted float32[n, d] and n ids"
            )
        write_item_index(self.path, ids)
        write_array(self.path / layout.ITEM_VECTORS, vectors)
        self._columns = write_columns(self.path, {ID: Texts(ids), **(columns or {})}, len(ids))
        self._n_items, self._dimensions = len(ids), vectors.shape[1]

    def write_user_vectors(self, vectors: AnyArray) -> None:
        """Write float32[n_users, d], an array or a mapped file; the row is the `user_row` of the records."""
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            raise BuildError(f"user vectors {vectors.shape} of {vectors.dtype}; wanted float32[n_users, d]")
        write_array(self.path / layout.USER_VECTORS, vectors)
        self._n_users = len(vectors)

    def write_lists(self, popular: Mapping[str, RankedItems], trending: Mapping[str, RankedItems]) -> None:
        """Write the lists of each segment, best first; "" is everybody's. Requires: `write_items` has run."""
        self._put(layout.LISTS, encode_lists(popular, trending, self._of_items()[0]))
        self._segments = segment_names(popular)

    def write_user_facts(self, consumed: Consumed | None, segments: Sequence[str]) -> None:
        """Write what is known of each user apart from the list.

        Args:
            consumed: by user row; None: nothing, or nothing that must stay hidden.
            segments: one per user; a segment without lists of its own counts as everybody's.

        Requires: `write_user_vectors` and `write_lists` have run.
        """
        n_users = self._of_users()
        if self._segments is None:
            raise BuildError("the lists have to be written first")
        if len(segments) != n_users:
            raise BuildError(f"segments of {len(segments)} users; there are vectors of {n_users}")
        known = nothing_consumed(n_users) if consumed is None else consumed
        write_user_facts(self.path, known, segments, self._segments, self._of_items()[0])

    def write_user_tower(self, stored: StoredTower) -> None:
        """Write what makes user vectors anew in a request; a version may be without it.

        Requires: `write_items` and `write_user_vectors` have run.
        """
        n_items, dimensions = self._of_items()
        write_user_tower(self.path, stored, self._of_users(), n_items, dimensions)
        self._optional |= set(layout.OF_TOWER)

    def write_neighbours(self, items: npt.NDArray[np.int32], scores: npt.NDArray[np.float32]) -> None:
        """Write the nearest items of each item, best first: int32[n_items, k] padded with -1, float32[n_items, k].

        Requires: `write_items` has run.
        """
        write_near_items(self.path, NEIGHBOURS, items, scores, self._of_items()[0])

    def write_together(self, items: npt.NDArray[np.int32], scores: npt.NDArray[np.float32]) -> None:
        """Write the items most met in one session with each item, as `write_neighbours`; a version may be without."""
        write_near_items(self.path, TOGETHER, items, scores, self._of_items()[0])
        self._optional |= set(layout.OF_TOGETHER)

    def write_contexts(self, contexts: Contexts) -> None:
        """Write each item's affinity to hours, weekdays and devices; a version may be without.

        Requires: `write_items` has run.
        """
        write_contexts(self.path, contexts, self._of_items()[0])
        self._optional |= set(layout.OF_CONTEXTS)

    def write_ranker(self, weights: RankerWeights) -> None:
        """Write the re-ranker's weights."""
        self._put(layout.RANKER, encode_weights(weights))
        self._space_id = weights.space_id

    def write_report(self, report: bytes) -> None:
        """Write the evaluation's report.json, as it is."""
        self._put(layout.REPORT, report)

    def seal(
        self,
        *,
        space_id: str,
        made_at: int,
        expires_at: int,
        shards: int,
        inputs: Mapping[str, str] | None = None,
        config_digest: str = "",
    ) -> Manifest:
        """Read everything back, write the manifest, and make the draft a version that can be seen.

        Args:
            space_id: the embedding space of all vectors; the ranker's must be the same.
            made_at: the run's logical time; expires_at: see `ttl.expires_at`. UTC epoch seconds.
            shards: how many there must be.

        Raises:
            BuildError: something is missing, too much, or does not fit the rest; the draft can be looked at.
            DamagedVersionError: what was written cannot be read back.
            DiskError: the file system refuses.
        """
        self._check_complete(space_id, shards)
        (n_items, dimensions), n_users = self._of_items(), self._of_users()
        survey, files = read_back(self.path, Wanted(shards, self.seed, self.index_bits, n_items, n_users))
        manifest = Manifest(
            record_format=RECORD_FORMAT,
            name=self.name,
            inputs_digest=self.inputs_digest,
            inputs=dict(sorted((inputs or {}).items())),
            config_digest=config_digest,
            space_id=space_id,
            made_at=made_at,
            built_at=self._built_at,
            expires_at=expires_at,
            index_bits=self.index_bits,
            shards=shards,
            dimensions=dimensions,
            counts=Counts(
                users=n_users,
                items=n_items,
                records=survey.records,
                lists=survey.lists,
                list_items=survey.list_items,
            ),
            columns=self._columns,
            canaries=_canaries(survey.first_keys),
            environment=this_environment({name: library_version(name) for name in ("lmdb", "msgpack", "numpy")}),
            files=files,
        )
        self._put(layout.MANIFEST, encode_manifest(manifest))
        folders = [*layout.FOLDERS[::-1], *([layout.TOWER] if layout.TOWER_FACTS in self._optional else [])]
        durable.seal(self.path, folders, layout.version_path(self.root, self.name))
        self._release()
        return manifest

    def abandon(self) -> None:
        """Remove the draft, unless it has been sealed."""
        if self._lock is not None:
            if self.path.exists():
                with contextlib.suppress(DiskError):  # the next build sweeps it; why this one failed matters more
                    durable.remove_folder(self.path)
            self._release()

    def _release(self) -> None:
        if self._lock is not None:
            locks.unlock(self._lock)
            self._lock = None

    def _put(self, file: str, data: bytes) -> None:
        with durable.create(self.path / file) as opened:
            opened.write(data)

    def _of_items(self) -> tuple[int, int]:
        """Number of items and dimensions."""
        if self._n_items is None or self._dimensions is None:
            raise BuildError("the items have to be written first")
        return self._n_items, self._dimensions

    def _of_users(self) -> int:
        """Rows of the user vectors."""
        if self._n_users is None:
            raise BuildError("the user vectors have to be written first")
        return self._n_users

    def _check_complete(self, space_id: str, shards: int) -> None:
        for path in (self.path / layout.CANDIDATES).glob(f"{layout.ATTEMPT}*"):
            durable.remove_file(path)  # of a task that was killed, or lost the race
        wanted = {layout.ITEM_VECTORS, layout.ITEM_INDEX, layout.USER_VECTORS, layout.CONSUMED_OFFSETS,
                  layout.CONSUMED_ITEMS, layout.SEGMENTS, layout.LISTS, layout.NEIGHBOURS, layout.NEIGHBOUR_SCORES,
                  layout.RANKER, layout.REPORT}  # fmt: skip
        wanted |= self._optional | {layout.shard_file(number) for number in range(shards)}
        there = {file for file in layout.files_of(self.path) if not file.startswith(f"{layout.COLUMNS}/")}
        if there != wanted:
            raise BuildError(
                f"version {self.name}: missing {sorted(wanted - there)[:5]}, unexpected {sorted(there - wanted)[:5]}"
            )
        if self._space_id != space_id:
            raise BuildError(f"the ranker is of embedding space {self._space_id!r}; the vectors are of {space_id!r}")
        dimensions = self._of_items()[1]
        if map_array(self.path / layout.USER_VECTORS, "<f4", (None, None)).shape[1] != dimensions:
            raise BuildError(f"the user vectors have not the {dimensions} dimensions of the item vectors")


def _canaries(first_keys: list[bytes]) -> list[str]:
    step = max(1, len(first_keys) // MAX_CANARIES)
    return [key.decode("utf-8") for key in first_keys[::step]][:MAX_CANARIES]
