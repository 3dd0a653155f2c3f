"""A shop of forty items in four clusters, small enough to know every answer by heart.

Items of publish kind "a" are a00 … a39; those of kind "b" are b00 … b39, so that an answer shows which version it is
from. Item 10c+m is the m-th of cluster c: its vector points along axis c and, with m, a little along the next.
"""

from __future__ import annotations

import mmap
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prediction_store.columns import Categories, Texts
from prediction_store.contexts import Contexts
from prediction_store.history import current, cutover, rollback
from prediction_store.holds import release
from prediction_store.layout import shard_file, version_path
from prediction_store.ttl import expires_at
from prediction_store.user_facts import Consumed
from prediction_store.user_tower import Histories, StoredTower, Tower
from prediction_store.writer import VersionDraft, shard_of, write_shard
from reranker.signals import default_weights
from schemas.config import Config
from schemas.config_file import load_config
from schemas.history import HistoryRecord
from schemas.ranker import RankerWeights
from schemas.record import RankedItems, encode_record
from schemas.user_tower import TowerFacts

CLUSTERS, MEMBERS = 4, 10
N_ITEMS = CLUSTERS * MEMBERS
LIST_LENGTH = 20
SHARDS = 2
OUT_OF_STOCK = 5
NEIGHBOURS = 5
MADE_AT = int(time.time()) - 3600
"""An hour ago: servers read the real clock."""
TASTES = {"u0": (1.0, 0.6, 0.3, 0.1), "u1": (0.7, 0.2, 0.1, 0.9), "ü2": (0.1, 0.2, 1.0, 0.4)}
CONSUMED = {"u0": (), "u1": (0, 1, 32, 33, 34), "ü2": (20,)}
SEGMENTS = {"u1": "DE"}


def item_vectors() -> npt.NDArray[np.float32]:
    vectors = np.zeros((N_ITEMS, CLUSTERS), np.float32)
    for item in range(N_ITEMS):
        cluster, member = divmod(item, MEMBERS)
        vectors[item, cluster] = 1.0
        vectors[item, (cluster + 1) % CLUSTERS] = member / 100
    return vectors


class Shop:
    """A store and what is known of its contents."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.vectors = item_vectors()
        self.users = list(TASTES)
        self.kind = "a"
        self.recent: npt.NDArray[np.float32] | None = None
        """What the order of lists adds to items met of late; None: the column is not there."""
        self._now = time.time()

    @property
    def items(self) -> list[str]:
        return [f"{self.kind}{item:02}" for item in range(N_ITEMS)]

    def config(self, *overrides: str) -> Config:
        return load_config(None, [f"paths.store={self.root}", *overrides], environ={})

    def scores_of(self, user: str) -> npt.NDArray[np.float32]:
        scores: npt.NDArray[np.float32] = self.vectors @ np.array(TASTES[user], np.float32)
        return scores

    def score(self, user: str, item: str) -> float:
        return float(self.scores_of(user)[self.items.index(item)])

    def indexes_of(self, user: str) -> list[int]:
        scores = self.scores_of(user)
        kept = [item for item in range(N_ITEMS) if item not in CONSUMED[user]]
        return sorted(kept, key=lambda item: -scores[item])[:LIST_LENGTH]

    def list_of(self, user: str) -> list[str]:
        return [self.items[item] for item in self.indexes_of(user)]

    def consumed_by(self, user: str) -> list[str]:
        return [self.items[item] for item in CONSUMED[user]]

    def in_stock(self, item: str) -> bool:
        return item != self.items[OUT_OF_STOCK]

    def popular(self, segment: str) -> list[str]:
        """Everybody's popular list is the catalogue backwards; that of DE is the items 20, 22, 24, 26, 28."""
        return [self.items[item] for item in _popular(segment)]

    def publish(self, kind: str, *, cutover: bool = True, ranker: RankerWeights | None = None) -> str:
        """Write a version whose items are of this kind, and its ranker untrained unless there are weights; its name."""
        self._now += 1.0
        digest = f"{ord(kind):064x}"
        with VersionDraft.begin(self.root, digest, self._now) as draft:
            ids = [f"{kind}{item:02}" for item in range(N_ITEMS)]
            self._write_items(draft, ids)
            self._write_records(draft)
            popular = {segment: _ranked(_popular(segment)) for segment in ("", "DE")}
            draft.write_lists(popular, {"": _ranked([0, 1]), "DE": _ranked([7, 2, OUT_OF_STOCK])})
            held = [np.array(sorted(CONSUMED[user]), np.uint32) for user in self.users]
            consumed = Consumed(np.cumsum([0, *map(len, held)], dtype=np.int64), np.concatenate(held))
            draft.write_user_facts(consumed, [SEGMENTS.get(user, "") for user in self.users])
            draft.write_neighbours(*self._neighbours())
            draft.write_together(*_together())
            draft.write_contexts(_contexts())
            draft.write_user_tower(self._tower())
            draft.write_ranker(ranker or default_weights("space"))
            draft.write_report(b"{}")
            draft.seal(space_id="space", made_at=MADE_AT, expires_at=expires_at(MADE_AT, Config().store), shards=SHARDS)
        if cutover:
            self.cut_over(draft.name)
            self.kind = kind
        return draft.name

    def cut_over(self, name: str) -> None:
        cutover(self.root, name, "test", "a test", time.time(), force=True)

    def roll_back(self) -> None:
        rollback(self.root, "test", "a test", time.time())

    def release(self, name: str) -> None:
        release(self.root, name, "test", "a test", time.time())

    def newest(self) -> HistoryRecord:
        return current(self.root)

    def current(self) -> str:
        return self.newest().version

    def damage(self, user: str) -> None:
        """Flip a bit in the user's record, in the file that readers have mapped."""
        shard = version_path(self.root, self.current()) / shard_file(shard_of(user.encode(), SHARDS))
        shard.chmod(0o644)
        with shard.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            draft_record = self._record(user, seed=_seed(self.kind))
            place = mapped.find(draft_record)
            assert place > 0
            mapped[place + len(draft_record) - 1] ^= 1

    def _write_items(self, draft: VersionDraft, ids: list[str]) -> None:
        numbers = np.arange(N_ITEMS)
        released = np.where(numbers % 5 == 0, np.nan, 1_790_000_000.0 + numbers * 86_400.0)
        draft.write_items(
            self.vectors,
            ids,
            {
                "title": Texts(f"Title of {item}" for item in ids),
                "category": Categories(
                    "" if item % 7 == 6 else f"category {item // MEMBERS}" for item in range(N_ITEMS)
                ),
                "brand": Categories("" if item % 4 == 3 else f"brand {item % 3}" for item in range(N_ITEMS)),
                "price": (1.0 + numbers).astype(np.float64),
                "released": released,
                "in_stock": numbers != OUT_OF_STOCK,
                "trend": (numbers % 6 / 5).astype(np.float32),
                "popularity": ((numbers + 1) / N_ITEMS).astype(np.float32),
            }
            | ({} if self.recent is None else {"recent": self.recent}),
        )

    def _write_records(self, draft: VersionDraft) -> None:
        draft.write_user_vectors(np.array(list(TASTES.values()), np.float32))
        for number in range(SHARDS):
            records = [
                (user.encode(), self._record(user, seed=draft.seed))
                for user in sorted(TASTES, key=str.encode)
                if shard_of(user.encode(), SHARDS) == number
            ]
            write_shard(draft.shard_path(number), records, expected_bytes=10_000)

    def _record(self, user: str, *, seed: int) -> bytes:
        items = self.indexes_of(user)
        return encode_record(
            user.encode(),
            items,
            self.scores_of(user)[items],
            made_at=MADE_AT,
            user_row=self.users.index(user),
            seed=seed,
            index_bits=20,
        )

    def _neighbours(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        unit = self.vectors / np.linalg.norm(self.vectors, axis=1, keepdims=True)
        cosines = unit @ unit.T
        np.fill_diagonal(cosines, -2.0)
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :NEIGHBOURS].astype(np.int32)
        return nearest, np.take_along_axis(cosines, nearest, axis=1)

    def _tower(self) -> StoredTower:
        """Halves what was pooled and turns it by one cluster; each user's history is the first three of the list."""
        matrix = 0.5 * np.roll(np.eye(CLUSTERS, dtype=np.float32), 1, axis=0)
        weights = {"view": 1.0, "cart": 2.0, "dismiss": 0.0}
        facts = TowerFacts(is_unit=False, history_length=8, event_weights=weights)
        tower = Tower(facts, matrix, np.full(CLUSTERS, 0.25, np.float32), np.ones(4, np.float32))
        items = np.concatenate([np.array(self.indexes_of(user)[:3], np.uint32) for user in self.users])
        histories = Histories(np.arange(len(self.users) + 1) * 3, items, np.ones(len(items), np.float32))
        return StoredTower(tower, np.array(list(TASTES.values()), np.float32), histories)


def _together() -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """An item is met with the one ten on, and half as often with the one three on."""
    numbers = np.arange(N_ITEMS, dtype=np.int32)
    items = np.stack([(numbers + 10) % N_ITEMS, (numbers + 3) % N_ITEMS], axis=1)
    return items, np.tile(np.array([0.5, 0.25], np.float32), (N_ITEMS, 1))


def _contexts() -> Contexts:
    names = [*(("hour", str(hour)) for hour in range(24)), *(("weekday", str(day)) for day in range(7))]
    names.append(("device", "phone"))
    rows = np.arange(len(names))[:, None] + np.arange(N_ITEMS)
    return Contexts(names, (rows % 9 / 4 - 1).astype(np.float32))


def _seed(kind: str) -> int:
    from schemas.record import record_seed

    return record_seed(f"{ord(kind):064x}")


def _popular(segment: str) -> list[int]:
    return [20, 22, 24, 26, 28] if segment else list(range(N_ITEMS - 1, -1, -1))


def _ranked(items: list[int]) -> RankedItems:
    scores = np.linspace(1.0, 0.1, len(items), dtype=np.float32)
    return RankedItems(np.array(items, np.uint32), scores)
