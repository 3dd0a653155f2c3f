"""What a training reads: `prepared` without its test split, as tensors, epochs of examples and a validation slice."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset
import torch

from jobs.datasets import Dataset
from jobs.epochs import Cutter, Epochs
from jobs.errors import NothingToTrainError
from jobs.examples import Cut, Windows
from jobs.features import item_features, learn_encoding, user_features
from jobs.losses import popularity_offsets
from jobs.sentences import Texts
from jobs.shards import Counts, Shards, count, distinct_pairs
from jobs.team import ALONE, Team
from jobs.towers import Architecture, ItemTensors, UserTensors
from jobs.validation import ValidationSlice
from schemas.train_config import Train

Tensors = TypeVar("Tensors", ItemTensors, UserTensors)


class Reading(msgspec.Struct, frozen=True):
    """The settings of other sections that change the model; part of the dataset's fingerprint."""

    consumed: str
    strategy: str


@dataclass(frozen=True)
class Task:
    """All that a training reads. What is known of each item and user is in memory, interactions a shard at a time."""

    architecture: Architecture
    items: ItemTensors
    users: UserTensors
    shards: Shards
    everybody: Shards
    """The interactions of all users; the same as `shards` where nobody shares the work."""
    counts: Counts
    epochs: Epochs
    offsets: torch.Tensor | None
    """float32[items]: what is added to the scores in training, see `losses.popularity_offsets`; None for nothing."""
    validation: ValidationSlice | None
    """The first process's, perhaps without users; None: nobody else validates."""

    @property
    def pairs(self) -> int:
        """Pairs of a user and an item that met."""
        return int(self.counts.takers.sum())

    def met_by_all(self) -> Iterator[np.ndarray]:
        """As `met`, of the whole team's users."""
        return _met(self.everybody)

    def met(self) -> Iterator[np.ndarray]:
        """Who met what: int64[pairs] of each shard in turn, ascending user_index * items + item_index."""
        return _met(self.shards)


def read_task(
    prepared: Dataset,
    config: Train,
    reading: Reading,
    *,
    made_at: int,
    device: torch.device,
    learn_validation: bool = False,
    team: Team = ALONE,
    texts: Texts | None = None,
) -> Task:
    """Read `prepared` and turn it into what the loop needs; the test split is never read.

    With `learn_validation` the validation split is trained on, and the validation slice has no users. Each process of a
    team has the interactions of its share of the users. With `texts` the item tower reads their sentence vectors.

    Raises:
        NothingToTrainError: the train split is empty.
        DatasetDamagedError: a user's interactions lie in several files and do not fit into memory together.
    """
    every = functools.partial(Shards, prepared, memory_mb=config.memory_mb, learn_validation=learn_validation)
    shards = every(share=(team.rank, team.size))
    everybody = shards if team.size == 1 else every()
    counts = count(shards, team)
    if not counts.all_examples:
        raise NothingToTrainError(
            f"no interaction of the train split to learn from ({counts.rows} before the test split)",
            hint="hold out fewer days with split.validation_days and split.test_days, bring more data, or let more "
            "events weigh more than 0 in data.interactions.event_weights",
        )
    items = _with_counts(read_sorted(prepared.part("items"), "item_index"), counts.items)
    users = _with_counts(read_sorted(prepared.part("users"), "user_index", without="user_id"), counts.users)
    sentences, read = (None, None) if texts is None else (texts.vectors, texts.said())
    encoding = learn_encoding(items, users, made_at=made_at, title_buckets=config.title_buckets, sentences=read)
    offsets = validation = None
    if config.popularity_debias:
        offsets = popularity_offsets(counts.takers, config.popularity_debias).to(device)
    if team.rank == 0:
        validation = ValidationSlice(
            everybody,
            history_length=config.history_length,
            limit=config.validation_users,
            drop_consumed=reading.consumed == "drop",
        )
    return Task(
        architecture=Architecture(
            items=len(items),
            users=len(users),
            dimensions=config.dimensions,
            similarity=config.similarity,
            history_length=config.history_length,
            encoding=encoding,
        ),
        items=_hide_unmet(ItemTensors.of(item_features(items, encoding, sentences), device), items),
        users=_hide_unmet(UserTensors.of(user_features(users, encoding), device), users),
        shards=shards,
        everybody=everybody,
        counts=counts,
        epochs=Epochs(
            shards,
            counts,
            _cutter(config, reading, counts.newest),
            batch_size=-(-config.batch_size // team.size),
            limit=config.examples_per_epoch,
        ),
        offsets=offsets,
        validation=validation,
    )


def _cutter(config: Train, reading: Reading, newest: int) -> Cutter:
    """What cuts the interactions of a shard into examples.

    Judged by the days to come: histories end at midnight, and the newest days say most. Judged by each user's next
    interactions, whenever they were: neither holds.
    """
    cut: Cut = "day" if reading.strategy == "time" else "event"
    half_life = config.example_half_life_days if reading.strategy == "time" else math.inf
    return functools.partial(
        Windows, history_length=config.history_length, cut=cut, newest=newest, half_life_days=half_life
    )


def _met(shards: Shards) -> Iterator[np.ndarray]:
    return (distinct_pairs(shards.known(table), shards.items) for table in shards.tables())


def _hide_unmet(tensors: Tensors, table: pa.Table) -> Tensors:
    """The tensors with the unknown's id for rows without interactions: as negatives they would learn an id of noise."""
    met = torch.from_numpy(table.column("interactions").to_numpy() > 0).to(tensors.ids.device)
    return dataclasses.replace(tensors, ids=torch.where(met, tensors.ids, 0))


def _with_counts(table: pa.Table, counts: np.ndarray) -> pa.Table:
    """The table with the interactions that this training meets, in place of those of the train split."""
    place = table.schema.get_field_index("interactions")
    return table.set_column(place, "interactions", pa.array(counts, pa.int64()))


def read_sorted(folder: Path, index: str, *, without: str = "") -> pa.Table:
    """The table in `folder`, row k being the one with index k; a column that is not needed can be left on disk."""
    found = pa.dataset.dataset(folder, format="parquet")
    return found.to_table(columns=[name for name in found.schema.names if name != without]).sort_by(index)


def unmet(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """(bool[users], bool[items]): True for those that the training does not meet."""
    return (task.users.ids == 0).cpu().numpy(), (task.items.ids == 0).cpu().numpy()
