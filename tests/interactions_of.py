"""A dataset `prepared` of hand-made interactions, as `shortlist prepare` would leave it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from jobs import datasets
from schemas import tables

Row = tuple[str, str, int, str | None]
"""User, item, time, session."""


def write_prepared(workspace: Path, day: str, rows: Sequence[Row], weights: Sequence[float] | None = None) -> Path:
    """Its folder. Every interaction is a view, consumed, of the training split, and weighs 1 unless `weights` are."""
    users, items = (sorted({row[place] for row in rows}) for place in (0, 1))
    with datasets.step(workspace, day, "prepared") as draft:
        columns = {
            "user_index": [users.index(user) for user, _, _, _ in rows],
            "item_index": [items.index(item) for _, item, _, _ in rows],
            "event": ["view"] * len(rows),
            "weight": weights or [1.0] * len(rows),
            "time": [time for _, _, time, _ in rows],
            "session_id": [session for _, _, _, session in rows],
            "device": [None] * len(rows),
            "consumed": [True] * len(rows),
            "split": [tables.TRAIN] * len(rows),
        }
        blank = [""] * len(items)
        catalogue = {"item_index": range(len(items)), "item_id": items, "title": blank, "category": blank}
        catalogue |= {"brand": blank, "price": [None] * len(items), "released": [None] * len(items)}
        catalogue |= {"in_stock": [True] * len(items), "interactions": [1] * len(items)}
        people = {"user_index": range(len(users)), "user_id": users, "segment": [""] * len(users)}
        people |= {"features": [[] for _ in users], "interactions": [1] * len(users), "has_row": [False] * len(users)}
        for name, values, schema in (
            ("interactions", columns, tables.INTERACTIONS),
            ("items", catalogue, tables.ITEMS),
            ("users", people, tables.USERS),
        ):
            (draft.path / name).mkdir()
            table = pa.table({key: list(value) for key, value in values.items()}, schema=schema)
            pa.parquet.write_table(table, draft.path / name / "part-00000.parquet")
            draft.rows[name] = len(table)
    return datasets.open_dataset(workspace, day, "prepared").path
