"""What a training reads, in memory: `prepared` without its test split, as tensors, windows and a validation slice."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import torch

from jobs.datasets import Dataset
from jobs.errors import NothingToTrainError
from jobs.examples import Cut, Histories, Windows, histories
from jobs.features import item_features, learn_encoding, user_features
from jobs.sentences import Texts
from jobs.towers import Architecture, ItemTensors, UserTensors
from jobs.validation import ValidationSlice
from schemas.config import Train
from schemas.tables import TRAIN, VALIDATION

Tensors = TypeVar("Tensors", ItemTensors, UserTensors)


class Reading(msgspec.Struct, frozen=True):
    """What of other sections changes the model: part of the dataset's fingerprint."""

    consumed: str
    strategy: str


@dataclass(frozen=True)
class Task:
    """All that a training reads, in memory and on its device."""

    architecture: Architecture
    items: ItemTensors
    users: UserTensors
    known: Histories
    windows: Windows
    validation: ValidationSlice


def read_task(
    prepared: Dataset,
    config: Train,
    reading: Reading,
    *,
    made_at: int,
    device: torch.device,
    learn_validation: bool = False,
    texts: Texts | None = None,
) -> Task:
    """Read `prepared` and turn it into what the loop needs; the test split is never read.

    With `learn_validation` the validation split is trained on, and no slice is left to choose an epoch by.
    With `texts` the item tower reads their sentence vectors, too.

    Raises:
        NothingToTrainError: the train split is empty.
    """
    columns = ["user_index", "item_index", "weight", "time", "consumed", "split"]
    source = pa.dataset.dataset(prepared.part("interactions"), format="parquet")
    interactions = source.to_table(columns=columns, filter=pa.dataset.field("split") <= VALIDATION)
    items = read_sorted(prepared.part("items"), "item_index")
    users = read_sorted(prepared.part("users"), "user_index")
    if learn_validation:
        place = interactions.schema.get_field_index("split")
        split = pa.array(np.full(len(interactions), TRAIN), interactions.schema.field(place).type)
        interactions = interactions.set_column(place, "split", split)
    known = histories(interactions.filter(pa.compute.field("split") == TRAIN), len(users))
    users = _with_counts(users, np.diff(known.starts))
    items = _with_counts(items, np.bincount(known.items, minlength=len(items)))
    # Judged by the days to come: histories end at midnight, and the newest days say most. Judged by each user's next
    # interactions, whenever they were: neither holds.
    cut: Cut = "day" if reading.strategy == "time" else "event"
    half_life = config.example_half_life_days if reading.strategy == "time" else math.inf
    windows = Windows(known, history_length=config.history_length, cut=cut, half_life_days=half_life)
    if not windows.examples:
        raise NothingToTrainError(
            f"no interaction of the train split to learn from ({len(interactions)} before the test split)",
            hint="hold out fewer days with split.validation_days and split.test_days, or bring more data",
        )
    sentences, read = (None, None) if texts is None else (texts.vectors, texts.said())
    encoding = learn_encoding(items, users, made_at=made_at, title_buckets=config.title_buckets, sentences=read)
    return Task(
        architecture=Architecture(
            items=len(items),
            users=len(users),
            dimensions=config.dimensions,
            history_length=config.history_length,
            encoding=encoding,
        ),
        items=_hide_unmet(ItemTensors.of(item_features(items, encoding, sentences), device), items),
        users=_hide_unmet(UserTensors.of(user_features(users, encoding), device), users),
        known=known,
        windows=windows,
        validation=ValidationSlice(
            interactions,
            known,
            items=len(items),
            limit=config.validation_users,
            drop_consumed=reading.consumed == "drop",
        ),
    )


def _hide_unmet(tensors: Tensors, table: pa.Table) -> Tensors:
    """The tensors with the unknown's id for rows without interactions: as negatives they would learn an id of noise."""
    met = torch.from_numpy(table.column("interactions").to_numpy() > 0).to(tensors.ids.device)
    return dataclasses.replace(tensors, ids=torch.where(met, tensors.ids, 0))


def _with_counts(table: pa.Table, counts: np.ndarray) -> pa.Table:
    """The table with the interactions that this training meets, in place of those of the train split."""
    place = table.schema.get_field_index("interactions")
    return table.set_column(place, "interactions", pa.array(counts, pa.int64()))


def read_sorted(folder: Path, index: str) -> pa.Table:
    """The table in `folder`, row k being the one with index k."""
    return pa.dataset.dataset(folder, format="parquet").to_table().sort_by(index)


def unmet(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """(bool[users], bool[items]): True for those that the training does not meet."""
    return (task.users.ids == 0).cpu().numpy(), (task.items.ids == 0).cpu().numpy()
