"""The users to search for, as the tasks find them, against a loop over the tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest

from jobs.errors import BadVectorsError
from jobs.queries import open_queries, write_queries
from schemas import tables

USERS, ITEMS, DIMENSIONS = 90, 30, 4
EVERYTHING = pa.dataset.scalar(True)


def write_embeddings(folder: Path, users: np.ndarray, found: np.ndarray) -> None:
    folder.mkdir()
    table = pa.table({"user_index": users, "vector": list(found)}, schema=tables.USER_EMBEDDINGS)
    for number, start in enumerate(range(0, len(users), 40)):
        pa.parquet.write_table(table.slice(start, 40), folder / f"part-{number}.parquet", row_group_size=7)


@pytest.fixture
def shop(tmp_path: Path) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int, bool, int]]]:
    """(user_index as the files have it, their vectors, interactions); some users did nothing, some are not embedded."""
    rng = np.random.default_rng(5)
    users = rng.permutation(USERS)[:70].astype(np.int32)
    found = rng.standard_normal((len(users), DIMENSIONS)).astype(np.float32)
    write_embeddings(tmp_path / "users", users, found)
    pairs = [
        (
            int(rng.integers(USERS + 9) // 2 * 2),
            int(rng.integers(ITEMS)),
            bool(rng.random() < 0.7),
            int(rng.integers(3)),
        )
        for _ in range(600)
    ]
    user, item, consumed, split = (np.array(column) for column in zip(*pairs, strict=True))
    table = pa.table(
        {
            "user_index": pa.array(user, pa.int32()),
            "item_index": pa.array(item, pa.int32()),
            "consumed": consumed,
            "split": pa.array(split, pa.int8()),
        }
    )
    (tmp_path / "interactions").mkdir()
    for number, start in enumerate(range(0, len(table), 250)):
        pa.parquet.write_table(
            table.slice(start, 250), tmp_path / "interactions" / f"part-{number}.parquet", row_group_size=17
        )
    return users, found, pairs


@pytest.mark.parametrize(
    "is_wanted", [None, lambda user: user % 3 == 0, lambda user: user < 0], ids=["all", "some", "none"]
)
@pytest.mark.parametrize("before_test", [True, False])
def test_each_user_has_the_vector_and_the_consumed_items_of_the_tables(
    *, tmp_path: Path, shop: tuple, is_wanted: object, before_test: bool
) -> None:
    users, found, pairs = shop
    known = pa.dataset.field("split") < tables.TEST if before_test else EVERYTHING
    mask = None if is_wanted is None else np.array([is_wanted(user) for user in range(USERS)])  # type: ignore[operator]
    folder = tmp_path / "queries"
    folder.mkdir()
    n = write_queries(
        folder, tmp_path / "users", tmp_path / "interactions", known=known, dimensions=DIMENSIONS, wanted=mask
    )
    asked = [user for user in users if mask is None or mask[user]]
    assert n == len(asked)
    vector_of = dict(zip(users.tolist(), found, strict=True))
    consumed = {
        user: sorted(
            i for who, i, is_consumed, split in pairs if who == user and is_consumed and (split < 2 or not before_test)
        )
        for user in asked
    }
    dense_of = np.arange(ITEMS, dtype=np.int32)[::-1]
    stored = open_queries(folder)
    seen = []
    for start in range(0, n, 16):
        own, queries = stored.take(start, min(start + 16, n), dense_of)
        for row, user in enumerate(own.tolist()):
            seen.append(user)
            np.testing.assert_array_equal(queries.vectors[row], vector_of[user])
            items = queries.excluded.values[queries.excluded.offsets[row] : queries.excluded.offsets[row + 1]]
            assert sorted(ITEMS - 1 - items) == consumed[user]
    assert seen == [int(user) for user in asked]


def test_nothing_is_left_out_where_consumed_items_may_be_found_again(tmp_path: Path, shop: tuple) -> None:
    folder = tmp_path / "queries"
    folder.mkdir()
    n = write_queries(folder, tmp_path / "users", None, known=EVERYTHING, dimensions=DIMENSIONS)
    _, queries = open_queries(folder).take(0, n, np.arange(ITEMS, dtype=np.int32))
    assert n == len(shop[0])
    assert len(queries.excluded.values) == 0


def test_bad_vectors_are_counted_and_the_first_is_named(tmp_path: Path, shop: tuple) -> None:
    users, found, _ = shop
    found[[9, 50, 60], 1] = np.nan, np.inf, -np.inf
    write_embeddings(tmp_path / "bad", users, found)
    folder = tmp_path / "queries"
    folder.mkdir()
    with pytest.raises(BadVectorsError, match=f"3 user .* user_index {min(users[[9, 50, 60]])} "):
        write_queries(folder, tmp_path / "bad", None, known=EVERYTHING, dimensions=DIMENSIONS)
