"""Turn every item and every user into a vector with the trained towers, in Spark over Arrow batches."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import torch

from jobs import datasets, kept_model, model, user_states, vectors
from jobs.datasets import Dataset
from jobs.features import item_features, user_features
from jobs.progress import Report
from jobs.towers import ItemTensors, TwoTowers, UserTensors
from schemas.config import Config
from schemas.tables import ITEM_EMBEDDINGS, TEST, USER_STATES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ITEM_SCHEMA = "item_index int, vector array<float>"
USER_SCHEMA = (
    "user_index int, vector array<float>, base array<float>, history_items array<int>, history_weights array<float>"
)


def run(config: Config, day: str, spark: SparkSession) -> Report:
    """Write `embeddings`: items, users with all they did, and evaluation users as they were before the test split.

    Beside each user's vector stands what it is made from, so that it can be made anew from a longer history.

    Raises:
        BadVectorsError: a vector is NaN or infinite.
    """
    started = time.monotonic()
    prepared = datasets.open_dataset(config.paths.workspace, day, "prepared")
    trained = datasets.open_dataset(config.paths.workspace, day, "model")
    with datasets.step(config.paths.workspace, day, "embeddings", inputs=[prepared, trained]) as draft:
        if draft.is_complete:
            return Report(step="embed", day=day, skipped=True, rows=draft.rows)
        towers, card = model.load(trained.path)
        shape = card.architecture
        # Paths stay the same from run to run and workers live on: the token keeps them from using an old model.
        token = f"{trained.fingerprint}-{prepared.fingerprint}"
        items = draft.path / "items"
        _write_items(spark, prepared, trained, items, token)
        draft.rows["items"] = len(vectors.gather(items, "item", model.count_items(trained.path, shape)))
        embed = functools.partial(embed_users, model_folder=str(trained.path), items_folder=str(items), token=token)
        for part, users in _user_parts(spark, prepared, shape.history_length):
            users.mapInArrow(embed, USER_SCHEMA).write.parquet(str(draft.path / part))
            draft.rows[part] = _checked_users(draft.path / part)
        user_states.save_tower(draft.path / user_states.PART, towers.double())
        draft.extra |= {"space_id": card.space_id, "dimensions": shape.dimensions}
        draft.extra |= {"is_unit": shape.similarity == "cosine", "history_length": shape.history_length}
        draft.extra["order"] = card.order
    return Report(step="embed", day=day, rows=draft.rows, seconds=time.monotonic() - started)


def embed_items(batches: Iterator[pa.RecordBatch], model_folder: str, token: str) -> Iterator[pa.RecordBatch]:
    """Rows of `prepared/items` to rows of `embeddings/items`."""
    towers = load_towers(model_folder, token)
    sentences = model.open_sentences(Path(model_folder), towers.architecture)
    rows, trained = model.open_rows(Path(model_folder), "item"), kept_model.open_trained(Path(model_folder))
    for batch in batches:
        seen = batch if rows is None or trained is None else kept_model.as_trained(batch, rows, trained)
        with torch.no_grad():
            found = towers.item(ItemTensors.of(item_features(seen, towers.architecture.encoding, sentences, rows)))
        index = batch.column("item_index").cast(pa.int32())
        yield pa.RecordBatch.from_arrays([index, _lists(found)], schema=ITEM_EMBEDDINGS)


def embed_users(
    batches: Iterator[pa.RecordBatch], model_folder: str, items_folder: str, token: str
) -> Iterator[pa.RecordBatch]:
    """Rows of `prepared/users` with a column `history` to rows of `embeddings/users`.

    `history` is a list of (time, item_index, weight), oldest first, already cut to the model's history length; null
    for none.
    """
    towers = load_towers(model_folder, token)
    rows = model.open_rows(Path(model_folder), "user")
    catalogue = model.count_items(Path(model_folder), towers.architecture)
    item_vectors = load_item_vectors(items_folder, catalogue, token)
    for batch in batches:
        users = UserTensors.of(user_features(batch, towers.architecture.encoding, rows))
        histories = batch.column("history")
        events = histories.flatten()
        lengths = pa.compute.fill_null(pa.compute.list_value_length(histories), 0).to_numpy(zero_copy_only=False)
        items, weights = (events.field(name).to_numpy(zero_copy_only=False) for name in ("item_index", "weight"))
        with torch.no_grad():
            pooled = towers.user.pool(
                item_vectors,
                torch.from_numpy(items.astype(np.int64)),
                torch.from_numpy(weights.astype(np.float64)),
                torch.from_numpy(lengths.astype(np.int64)),
            )
            found, bases = towers.user(users, pooled), towers.user.base(users)
        index = batch.column("user_index").cast(pa.int32())
        ends = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        history = (pa.ListArray.from_arrays(ends, pa.array(values)) for values in (items, weights))
        yield pa.RecordBatch.from_arrays([index, _lists(found), _lists(bases), *history], schema=USER_STATES)


@functools.lru_cache(maxsize=1)
def load_towers(folder: str, token: str) -> TwoTowers:
    """The towers, once per Python worker and token.

    In double precision: how a sum is ordered depends on the rows that share a batch, and the difference, some 1e-16,
    is gone when the vector is rounded to float32. So a vector does not depend on the partitioning. Spark itself keeps
    torch in a worker to `spark.task.cpus` threads.
    """
    towers, _ = model.load(Path(folder))
    return towers.double()


@functools.lru_cache(maxsize=1)
def load_item_vectors(folder: str, items: int, token: str) -> torch.Tensor:
    """float64[items, d], once per Python worker and token."""
    return torch.from_numpy(vectors.gather(Path(folder), "item", items)).double()


def _write_items(spark: SparkSession, prepared: Dataset, trained: Dataset, folder: Path, token: str) -> None:
    embed = functools.partial(embed_items, model_folder=str(trained.path), token=token)
    rows = prepared.read(spark, "items")
    rows.mapInArrow(embed, ITEM_SCHEMA).write.parquet(str(folder))


def _user_parts(spark: SparkSession, prepared: Dataset, length: int) -> Iterator[tuple[str, DataFrame]]:
    """The users to embed with their histories, by the name of their part."""
    from pyspark.sql import functions as F

    users = prepared.read(spark, "users").select("user_index", "features", "interactions")
    interactions = prepared.read(spark, "interactions").filter("weight > 0")
    judged = interactions.filter(F.col("split") == TEST).select("user_index").distinct()
    before = interactions.filter(F.col("split") < TEST)
    yield "users", _with_history(users, interactions, length)
    yield "evaluation_users", _with_history(users.join(judged, "user_index", "left_semi"), before, length)


def _with_history(users: DataFrame, interactions: DataFrame, length: int) -> DataFrame:
    """Each user with the last `length` interactions, oldest first. Ties in time are ordered as in training."""
    from pyspark.sql import functions as F

    newest_first = F.sort_array(F.collect_list(F.struct("time", "item_index", "weight")), asc=False)
    history = F.reverse(F.slice(newest_first, 1, length)).alias("history")
    histories = interactions.groupBy("user_index").agg(history)
    # Sorted, so that the same data makes the same batches whatever order the shuffle delivers.
    return users.join(histories, "user_index", "left").sortWithinPartitions("user_index")


def _lists(found: torch.Tensor) -> pa.ListArray:
    """Rows of numbers as lists of float32."""
    values = found.to(torch.float32).numpy()
    offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1)))


def _checked_users(folder: Path) -> int:
    """The number of rows. Raises BadVectorsError when a vector holds NaN or infinity."""
    rows = 0
    for batch in pa.dataset.dataset(folder, format="parquet").to_batches(columns=["user_index", "vector"]):
        if batch.num_rows:
            found = vectors.matrix(batch.column("vector"), len(batch.column("vector")[0]))
            vectors.refuse_bad(found, batch.column("user_index").to_numpy(), "user")
            rows += batch.num_rows
    return rows
