"""The interactions of `prepared`, read a few files at a time.

A file holds all there is of its users, so that it says all about them by itself. Files that fit into the memory a
training may take are one shard: small data is one shard, which is read once and kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
import torch

from jobs.ahead import ahead
from jobs.datasets import Dataset
from jobs.errors import DatasetDamagedError
from jobs.examples import Histories, histories
from jobs.team import Team
from schemas.tables import INTERACTIONS, TRAIN, VALIDATION

COLUMNS = ["user_index", "item_index", "weight", "time", "consumed", "split"]
SCHEMA = pa.schema([INTERACTIONS.field(name) for name in COLUMNS])

BYTES_KEPT, BYTES_STREAMED = 250, 500
"""Of an interaction, measured as growth of the process: where all are in memory, and where a shard is trained on while
the next one is sorted and cut into windows."""

BATCH_ROWS = 65_536


class Shards:
    """The interactions of the splits before the test split; shard k is `read(k)`."""

    def __init__(
        self,
        prepared: Dataset,
        *,
        memory_mb: int,
        learn_validation: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        """With `learn_validation` the validation split counts as train.

        Args:
            memory_mb: megabytes that training on one shard while reading the next may take; a file is never cut.
            share: (k, n), the k-th of n equal shares of the users.
        """
        self.users, self.items = (prepared.arrow(part).count_rows() for part in ("users", "items"))
        self._learn_validation = learn_validation
        number, shares = share
        files = sorted(prepared.arrow("interactions").files)
        # With few files for each share, every share reads them all and keeps its own users.
        self._by_user = share if len(files) < 4 * shares else (0, 1)
        if self._by_user == (0, 1):
            files = files[number::shares]
        rows = [pa.parquet.read_metadata(file).num_rows // self._by_user[1] for file in files]
        memory = memory_mb * 1_000_000
        self._shards = [files] if sum(rows) * BYTES_KEPT <= memory else _packed(files, rows, memory // BYTES_STREAMED)
        self._only: pa.Table | None = None

    def __len__(self) -> int:
        return len(self._shards)

    def read(self, shard: int) -> pa.Table:
        """All interactions of the shard's users, as `SCHEMA`."""
        if self._only is not None:
            return self._only
        batches = [batch for file in self._shards[shard] for batch in self._batches(file)]
        table = pa.Table.from_batches(batches, SCHEMA).combine_chunks()
        if len(self) == 1:
            self._only = table
        return table

    def tables(self) -> Iterator[pa.Table]:
        """Every shard in turn, the next one read while one is in use."""
        return ahead(map(self.read, range(len(self))))

    def known(self, table: pa.Table) -> Histories:
        """What of a shard may be known: its train split."""
        return histories(table.filter(pa.compute.field("split") == TRAIN), self.users)

    def _batches(self, file: str) -> Iterator[pa.RecordBatch]:
        with pa.parquet.ParquetFile(file) as reader:
            for batch in reader.iter_batches(BATCH_ROWS, columns=COLUMNS):
                kept = batch.column("split").to_numpy() <= VALIDATION
                number, shares = self._by_user
                if shares > 1:
                    kept &= batch.column("user_index").to_numpy() % shares == number
                columns = [batch.column(name).filter(pa.array(kept)) for name in COLUMNS]
                if self._learn_validation:
                    columns[-1] = pa.array(np.full(len(columns[-1]), TRAIN), pa.int8())
                yield pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


@dataclass(frozen=True)
class Counts:
    """What one pass over all shards finds out."""

    users: np.ndarray
    """int64[users]: interactions of each to learn from"""
    items: np.ndarray
    """int64[items]: the same of each item"""
    takers: np.ndarray
    """int64[items]: users who met the item"""
    examples: np.ndarray
    """int64[shards]: first meetings of a user and an item, in each shard that this process reads"""
    all_examples: int
    """The same of the whole team."""
    newest: int
    """Time of the newest interaction to learn from; 0 when there is none."""
    rows: int
    """Interactions before the test split."""


def count(shards: Shards, team: Team) -> Counts:
    """Count in one pass over the shards, each process of the team over its own; the sums are everybody's.

    Raises:
        DatasetDamagedError: a user's interactions lie in two shards.
    """
    users, items, takers = (np.zeros(n, dtype=np.int64) for n in (shards.users, shards.items, shards.items))
    examples, newest, rows = [], 0, 0
    for table in shards.tables():
        known = shards.known(table)
        lengths = np.diff(known.starts)
        torn = np.flatnonzero((lengths > 0) & (users > 0))
        if len(torn):
            raise DatasetDamagedError(
                f"the interactions of user_index {torn[0]} lie in several files of `prepared`",
                hint="remove the dataset `prepared` and run again: shortlist prepare",
            )
        users += lengths
        items += np.bincount(known.items, minlength=shards.items)
        met = distinct_pairs(known, shards.items)
        takers += np.bincount(met % shards.items, minlength=shards.items)
        examples.append(len(met))
        newest, rows = max(newest, int(known.times.max(initial=0))), rows + len(table)
    for counts in (users, items, takers):
        team.total(torch.from_numpy(counts))
    totals = team.total(torch.tensor([sum(examples), rows])).tolist()
    [newest] = team.largest([newest])
    return Counts(users, items, takers, np.array(examples, dtype=np.int64), totals[0], newest, totals[1])


def distinct_pairs(known: Histories, items: int) -> np.ndarray:
    """int64[pairs], ascending: user_index * items + item_index of all who met."""
    pairs = np.repeat(np.arange(len(known.starts) - 1) * items, np.diff(known.starts)) + known.items
    pairs.sort()  # and not np.unique, whose hash table takes four times as long
    return pairs[np.diff(pairs, prepend=-1) > 0]


def _packed(files: list[str], rows: list[int], limit: int) -> list[list[str]]:
    """The files in their order, as many together as have `limit` rows; at least one."""
    packed: list[list[str]] = [[]]
    room = limit
    for file, n in zip(files, rows, strict=True):
        if packed[-1] and n > room:
            packed.append([])
            room = limit
        packed[-1].append(file)
        room -= n
    return packed
