"""Small `prepared` and `embeddings` datasets, written straight to disk, for the steps that read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from jobs import candidate_files, datasets
from jobs.list_order import BY_PRODUCTS, Order
from schemas import tables

DAY = "2026-03-02"
END = datasets.end_of(DAY)


@dataclass
class World:
    """A few users and items with vectors; `write` makes the two datasets of `DAY` from it.

    `events` are (user, item, weight, time, consumed, split). Vectors are small whole numbers, so that dot products are
    exact in any arithmetic and ties are common. Every fifth user consumes nothing. The user tower is one of plain
    numbers that have nothing to do with the vectors.
    """

    users: int = 40
    items: int = 60
    dimensions: int = 8
    seed: int = 3
    segments: Sequence[str] = ("de", "fr", "")
    events: list[tuple[int, int, float, int, bool, int]] = field(default_factory=list)
    user_ids: list[str] = field(default_factory=list)
    item_ids: list[str] = field(default_factory=list)
    texts: list[tuple[str, str, str]] = field(default_factory=list)
    """Title, category and brand of each item; empty: such as there are in a shop of things."""
    without_row: set[int] = field(default_factory=set)
    """Users whom the table of users does not have."""
    order: Order = BY_PRODUCTS
    """What lists are put in order by."""
    item_vectors: np.ndarray = field(init=False)
    user_vectors: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.user_ids = self.user_ids or [f"user-{user:04d}" for user in range(self.users)]
        self.item_ids = self.item_ids or [f"item-{item:04d}" for item in range(self.items)]
        rng = np.random.default_rng(self.seed)
        self.item_vectors = rng.integers(-3, 4, (self.items, self.dimensions)).astype(np.float32)
        self.user_vectors = rng.integers(-3, 4, (self.users, self.dimensions)).astype(np.float32)
        if not self.events:
            for _ in range(12 * self.users if self.items else 0):
                user, item = rng.integers(self.users), rng.integers(self.items)
                age = int(rng.integers(1, 20 * 86_400))
                split = tables.TEST if age < 86_400 else tables.VALIDATION if age < 2 * 86_400 else tables.TRAIN
                weight = float(rng.choice([1.0, 3.0, 5.0]))
                self.events.append((int(user), int(item), weight, END - age, weight == 5.0 and user % 5 > 0, split))

    def user_id(self, user: int) -> str:
        return self.user_ids[user]

    def item_id(self, item: int) -> str:
        return self.item_ids[item] if item < len(self.item_ids) else f"item-{item:04d}"  # one that is gone

    def judged(self) -> list[int]:
        """Users with test interactions."""
        return sorted({event[0] for event in self.events if event[5] == tables.TEST})

    def consumed(self, user: int, *, before_test: bool = False) -> set[int]:
        return {
            item for who, item, _, _, consumed, split in self.events
            if who == user and consumed and not (before_test and split == tables.TEST)
        }  # fmt: skip

    def history(self, user: int, *, before_test: bool = False) -> list[tuple[int, float]]:
        """(item, weight) of the last eight interactions, oldest first."""
        mine = sorted(
            (when, item, weight) for who, item, weight, when, _, split in self.events
            if who == user and not (before_test and split == tables.TEST)
        )  # fmt: skip
        return [(item, weight) for _, item, weight in mine[-8:]]

    def times(self, user: int, *, before_test: bool = False) -> dict[int, float]:
        """Item to the logarithm of one and how often the user has met it, where a time halves every 90 days."""
        counting = [event for event in self.events if event[2] > 0 and not (before_test and event[5] == tables.TEST)]
        end = max(event[3] for event in counting)
        found: dict[int, float] = {}
        for who, item, _, when, _, _ in counting:
            if who == user:
                found[item] = found.get(item, 0.0) + 0.5 ** ((end - when) / (90 * 86_400))
        return {item: math.log1p(times) for item, times in found.items()}

    def bases(self) -> np.ndarray:
        return self.user_vectors + np.float32(0.5)

    def tower(self) -> dict[str, np.ndarray]:
        """What lies in the files of `embeddings/tower`."""
        d = self.dimensions
        matrix = np.arange(d * d, dtype=np.float32).reshape(d, d)
        return {"matrix": matrix, "stranger": matrix[0] / 2, "recency": np.array([1.0, 0.5], np.float32)}

    def write(self, workspace: Path | str, day: str = DAY) -> None:
        with datasets.step(workspace, day, "prepared", outside={"world": repr(self.events)}) as draft:
            user, item, weight, when, consumed, split = zip(*self.events, strict=True) if self.events else [()] * 6
            views, none = pa.array(["view"] * len(user)), pa.nulls(len(user), pa.string())
            columns = [user, item, views, weight, when, none, none, consumed, split]
            _write(draft.path / "interactions", columns, tables.INTERACTIONS, [who % 2 for who in user])
            counts = np.bincount([e[1] for e in self.events if e[5] == tables.TRAIN], minlength=self.items)
            n = range(self.items)
            texts = self.texts or [(f"Thing {i}", f"kind {i % 3}", f"brand {i % 2}" if i % 5 else "") for i in n]
            columns = [
                n,
                [self.item_id(i) for i in n],
                *([text[place] for text in texts] for place in range(3)),
                [None if i % 7 == 0 else float(i) for i in n],
                [None if i % 4 == 0 else END - 86_400 * i for i in n],
                [i % 10 != 0 for i in n],
                counts,
            ]
            _write(draft.path / "items", columns, tables.ITEMS)
            n = range(self.users)
            segments = [self.segments[i % len(self.segments)] for i in n]
            counts = np.bincount([e[0] for e in self.events if e[5] == tables.TRAIN], minlength=self.users)
            has_row = [i not in self.without_row for i in n]
            columns = [n, [self.user_id(i) for i in n], segments, [[s] for s in segments], counts, has_row]
            _write(draft.path / "users", columns, tables.USERS)
            draft.rows |= {"interactions": len(self.events), "items": self.items, "users": self.users}
        vectors = self.item_vectors.tobytes().hex() + self.user_vectors.tobytes().hex() + repr(self.order)
        with datasets.step(workspace, day, "embeddings", outside={"vectors": vectors}) as draft:
            _write(draft.path / "items", [range(self.items), list(self.item_vectors)], tables.ITEM_EMBEDDINGS)
            judged = self.judged()
            # Their history ends sooner, so their vectors differ from the served ones.
            for part, users, found in (
                ("users", list(range(self.users)), self.user_vectors),
                ("evaluation_users", judged, self.evaluation_vectors()),
            ):
                known = [self.history(user, before_test=part != "users") for user in users]
                history = ([[event[k] for event in events] for events in known] for k in (0, 1))
                columns = [users, list(found[users]), list(self.bases()[users]), *history]
                _write(draft.path / part, columns, tables.USER_STATES)
            draft.rows |= {"items": self.items, "users": self.users, "evaluation_users": len(judged)}
            (draft.path / "tower").mkdir()
            for name, array in self.tower().items():
                np.save(draft.path / "tower" / f"{name}.npy", array)
            draft.extra |= {"space_id": "0123456789abcdef", "is_unit": False, "history_length": 8}
            draft.extra["order"] = self.order

    def write_candidates(
        self, workspace: Path | str, lists: dict[int, list[int]], served: dict[int, list[int]] | None = None
    ) -> None:
        """Candidates as if retrieved: the lists to judge, those to publish. The dense order is theirs turned around."""
        with datasets.step(workspace, DAY, "candidates", outside={"lists": repr(lists)}) as draft:
            np.save(draft.path / "order.npy", np.arange(self.items, dtype=np.int32)[::-1])
            np.save(draft.path / "vectors.npy", self.item_vectors[::-1])
            for part, found in (("evaluation", lists), ("users", served or {})):
                rows = [
                    {"user_index": user, "items": [self.items - 1 - i for i in items], "scores": [0.0] * len(items)}
                    for user, items in found.items()
                ]
                (draft.path / part).mkdir()
                table = pa.Table.from_pylist(rows, schema=tables.CANDIDATES)
                with candidate_files.open_writer(draft.path / part / "part.arrow") as file:
                    file.write_table(table, 3)

    def evaluation_vectors(self) -> np.ndarray:
        return np.roll(self.user_vectors, 1, axis=1)


def _write(folder: Path, columns: Sequence[Any], schema: pa.Schema, files: Sequence[int] | None = None) -> None:
    """In two files, of the first rows and the others, or of those that `files` says: 0 or 1 for each row."""
    folder.mkdir()
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=schema)
    of_row = np.arange(len(table)) >= len(table) // 2 if files is None else np.array(files, dtype=bool)
    for number in (0, 1):
        pa.parquet.write_table(table.filter(pa.array(of_row == number)), folder / f"part-{number}.parquet")
