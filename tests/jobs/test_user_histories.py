"""The histories of users, gathered from however many files."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from jobs import user_histories
from jobs.errors import DatasetDamagedError
from schemas import tables

ITEMS = 80


def write_states(folder: Path, rows: list[dict[str, Any]], rows_per_file: int) -> Path:
    folder.mkdir()
    for start in range(0, len(rows), rows_per_file):
        table = pa.Table.from_pylist(rows[start : start + rows_per_file], tables.USER_STATES)
        pa.parquet.write_table(table, folder / f"part-{start:03d}.parquet")
    return folder


def states(histories: dict[int, list[int]]) -> list[dict[str, Any]]:
    return [
        {"user_index": user, "vector": [1.0], "base": [1.0], "history_items": items,
         "history_weights": [1.0 + item for item in items]}
        for user, items in histories.items()
    ]  # fmt: skip


def test_however_the_users_lie_in_files_the_histories_are_the_same(tmp_path: Path) -> None:
    order = np.array([2, 0, 1, 3])
    rows = states({0: [3, 0], 1: [], 2: [1, 1, 2], 3: [0], 4: []})
    wanted = [[3, 1], [], [2, 2, 0], [1], []]
    for number, (turn, rows_per_file) in enumerate([(1, 5), (1, 2), (-1, 1), (-1, 3)]):
        folder = write_states(tmp_path / str(number), rows[::turn], rows_per_file)
        offsets, items, weights = user_histories.gather(folder, 5, order, tmp_path / f"{number}-found")
        assert (offsets.dtype, items.dtype, weights.dtype) == (np.int64, np.uint32, np.float32)
        assert [items[a:b].tolist() for a, b in pairwise(offsets)] == wanted
        np.testing.assert_array_equal(weights, 1.0 + order[items])


@pytest.mark.parametrize(
    ("histories", "message"),
    [
        ([{0: [1]}], "1 of 2 users have no history"),
        ([{0: [1], 1: [1]}, {0: [1]}], "users twice"),
        ([{0: [1], 2: [1]}], "or beyond 2"),
        ([{0: [1], 1: [ITEMS]}], f"items 1 to {ITEMS}"),
    ],
)
def test_histories_that_are_not_of_every_user_are_refused(
    tmp_path: Path, histories: list[dict[int, list[int]]], message: str
) -> None:
    rows = [row for users in histories for row in states(users)]
    folder = write_states(tmp_path / "users", rows, 9)
    with pytest.raises(DatasetDamagedError, match=message) as refused:
        user_histories.gather(folder, 2, np.arange(ITEMS), tmp_path / "found")
    assert refused.value.hint == f"remove {tmp_path} and run again: shortlist embed"


def test_nobody_with_a_history_is_no_error(tmp_path: Path) -> None:
    folder = write_states(tmp_path / "users", states({0: [], 1: []}), 2)
    offsets, items, weights = user_histories.gather(folder, 2, np.arange(ITEMS), tmp_path / "found")
    assert (offsets.tolist(), len(items), len(weights)) == ([0, 0, 0], 0, 0)
