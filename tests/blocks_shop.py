"""A small prepared dataset with a structure that can be known: users of a block take items of that block."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from jobs import datasets
from schemas import tables
from schemas.config import Config, Paths, Retrieve, Spark, Train
from schemas.data_config import Split

DAY = "2026-03-10"
END = datasets.end_of(DAY)
BLOCKS = 4
USERS, ITEMS = 120, 80
COLD_ITEMS, COLD_USERS = BLOCKS, BLOCKS
"""The last items and users have no train interactions; the k-th of them belongs to block k."""


def small_config(root: Path, **train: object) -> Config:
    """Two threads of nothing: one thread, small towers, a few epochs."""
    settings = {
        "dimensions": 16,
        "max_epochs": 3,
        "patience": 9,
        "batch_size": 64,
        "negatives": 40,
        "learning_rate": 0.01,
        "history_length": 8,
        "title_buckets": 64,
        "recall_at": ITEMS // BLOCKS + 1,  # a block and its cold item
        "threads": 1,
        "device": "cpu",
    } | train
    return Config(
        paths=Paths(workspace=str(root / "work"), store=str(root / "store")),
        train=Train(**settings),
        retrieve=Retrieve(consumed="keep"),
        split=Split(strategy="time"),
        spark=Spark(shuffle_partitions=2),
    )


def block_of(index: np.ndarray | int, regular: int) -> np.ndarray | int:
    """Block of an item or user: round robin for the regular ones, one each for the cold ones."""
    return np.where(np.asarray(index) < regular, np.asarray(index) % BLOCKS, np.asarray(index) - regular)


def write_prepared(
    config: Config,
    *,
    noise: bool = False,
    seed: int = 5,
    test_seed: int | None = None,
    files: int = 2,
    popular: int = 1,
    habits: bool = False,
    titles: Sequence[str] | None = None,
) -> None:
    """Ten days of interactions: eight train, one validates, one tests. With `noise`, blocks mean nothing.

    With `popular`, the first half of the items is met so many times as often as the other half. With `habits`, every
    second interaction of a user is with one item, always the same. With `test_seed`, other
    items in the test split. With `titles`, of all items, nothing else tells the blocks. All interactions of a user lie
    in one of so many `files`.
    """
    rng = np.random.default_rng(seed)
    users, items = [], []
    for user in range(USERS):
        for _ in range(14):
            block = rng.integers(BLOCKS) if noise else user % BLOCKS
            users.append(user)
            place = int(rng.integers(ITEMS // BLOCKS))
            if popular > 1:
                place = place % (ITEMS // BLOCKS // 2) + (ITEMS // BLOCKS // 2) * (rng.random() * (popular + 1) < 1)
            items.append(place * BLOCKS + int(block))
        if habits:
            items[-14::2] = [items[-14]] * 7
    ages = rng.integers(1, 10 * 86_400, len(users))
    splits = np.where(ages < 86_400, tables.TEST, np.where(ages < 2 * 86_400, tables.VALIDATION, tables.TRAIN))
    # Cold users have done something on the last day, cold items nothing at all.
    for block in range(COLD_USERS):
        for k in range(6):
            users.append(USERS + block)
            items.append(BLOCKS * k + block)
            ages = np.append(ages, 1_000 - k)
            splits = np.append(splits, tables.TEST)
    if test_seed is not None:
        tested = np.flatnonzero(splits == tables.TEST)
        for row, item in zip(tested, np.random.default_rng(test_seed).integers(0, ITEMS, len(tested)), strict=True):
            items[row] = int(item)
    n = len(users)
    blank = [""] * n
    with datasets.step(
        config.paths.workspace,
        DAY,
        "prepared",
        outside={"seed": f"{seed} {noise} {test_seed} {files} {popular} {habits} {titles}"},
    ) as draft:
        weights = rng.choice([1.0, 5.0], n)
        columns = [users, items, ["view"] * n, weights, END - ages, blank, blank, weights == 5.0, splits]
        _write(draft.path / "interactions", columns, tables.INTERACTIONS, file=np.array(users) % files)
        trained = splits == tables.TRAIN
        total = ITEMS + COLD_ITEMS
        blocks = block_of(np.arange(total), ITEMS)
        columns = [
            range(total),
            [f"item-{k:03d}" for k in range(total)],
            titles or [f"Word{b} thing {k % 7}" for k, b in enumerate(blocks)],
            [f"kind {b}" if titles is None else "" for b in blocks],
            [""] * total,
            [float(b + 1) if titles is None else None for b in blocks],
            [None] * total,
            [True] * total,
            np.bincount(np.array(items)[trained], minlength=total),
        ]
        _write(draft.path / "items", columns, tables.ITEMS)
        total = USERS + COLD_USERS
        features = [[["de", "fr"][k % 2]] for k in range(total)]
        counts = np.bincount(np.array(users)[trained], minlength=total)
        ids, has_row = [f"user-{k:03d}" for k in range(total)], [True] * total
        columns = [range(total), ids, [""] * total, features, counts, has_row]
        _write(draft.path / "users", columns, tables.USERS)
        draft.rows |= {"interactions": n, "items": ITEMS + COLD_ITEMS, "users": USERS + COLD_USERS}


def _write(folder: Path, columns: list, schema: pa.Schema, file: np.ndarray | None = None) -> None:
    """Write a table in the files that `file` says for each row; else in two, the first row not in the first one."""
    folder.mkdir()
    arrays = [pa.array(list(column), field.type) for column, field in zip(columns, schema, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=schema)
    if file is None:
        file = (np.arange(len(table)) < len(table) // 3).astype(int)
    for number in range(file.max() + 1):
        pa.parquet.write_table(table.filter(pa.array(file == number)), folder / f"part-{number:05d}.parquet")
