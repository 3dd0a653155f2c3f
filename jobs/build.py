"""A sealed version in the store, from the day's datasets; `shard_writing` has Spark write the shards."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

from jobs import datasets, known, train_ranker, user_histories, user_states, vectors
from jobs.datasets import Dataset
from jobs.errors import DatasetDamagedError, MissingDatasetError
from jobs.list_order import Order
from jobs.progress import Report
from jobs.shard_writing import write_shards
from prediction_store.columns import RECENT, NewColumn
from prediction_store.contexts import Contexts
from prediction_store.ttl import expires_at
from prediction_store.user_facts import Consumed
from prediction_store.user_tower import StoredTower
from prediction_store.writer import Categories, Texts, VersionDraft, find_by_inputs
from schemas import config as settings
from schemas.config import Config
from schemas.manifest import MANIFEST_FORMAT, RECORD_FORMAT
from schemas.ranker import RankerWeights, decode_weights, encode_weights
from schemas.record import RankedItems
from schemas.serving_config import Serve

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

INPUTS = ("prepared", "embeddings", "candidates", "lists", "evaluation", "ranker")


def run(config: Config, day: str, spark: SparkSession, now: float) -> Report:
    """Build the version of a day and seal it; write `version`, a dataset that only names it.

    Nothing is built when the store has a sealed version of the same inputs: that one is the version of the day.

    Args:
        now: the time of the build. It stands in the version's name and manifest; the contents do not depend on it.
    """
    started = time.monotonic()
    inputs = {name: datasets.open_dataset(config.paths.workspace, day, name) for name in INPUTS}
    weights = decode_weights(inputs["ranker"].part(train_ranker.WEIGHTS).read_bytes())
    weights = msgspec.structs.replace(weights, space_id=str(inputs["embeddings"].extra("space_id")))
    digest = inputs_digest(config, inputs, weights)
    root = Path(config.paths.store)
    found = find_by_inputs(root, digest)
    if found is None and _is_named(config, day, digest):  # retired since
        shutil.rmtree(Path(config.paths.workspace) / day / "version", ignore_errors=True)
    with datasets.step(
        config.paths.workspace, day, "version", inputs=list(inputs.values()), outside={"digest": digest}
    ) as named:
        if found is not None:
            named.extra["version"] = found
            return Report(step="build", day=day, skipped=True, details={"version": found})
        with VersionDraft.begin(root, digest, now) as draft:
            met, drops = named.path / known.FOLDER, config.retrieve.consumed == "drop"
            order = np.load(inputs["candidates"].part("order.npy"))
            of_users = known.write_known(inputs["prepared"], order, met, drop_consumed=drops)
            _write_catalogue(draft, inputs, weights, of_users.recent)
            _write_users(draft, config, inputs, spark, named.path)
            _write_tower(draft, config, inputs, named.path)
            made_at = datasets.known_until(inputs["prepared"])
            records = write_shards(draft, config, inputs, spark, made_at=made_at, known=met, scratch=named.path)
            shutil.rmtree(met)
            (named.path / vectors.USER_VECTORS).unlink()
            manifest = draft.seal(
                space_id=weights.space_id,
                made_at=made_at,
                expires_at=expires_at(made_at, config.store),
                shards=config.store.shards,
                inputs={name: dataset.fingerprint for name, dataset in inputs.items()},
                config_digest=config_digest(config),
            )
        named.extra["version"] = manifest.name
        named.rows["users"] = records
    seconds = time.monotonic() - started
    return Report(step="build", day=day, rows=named.rows, seconds=seconds, details={"version": manifest.name})


def inputs_digest(config: Config, inputs: Mapping[str, Dataset], weights: RankerWeights) -> str:
    """64 hexadecimal digits over all that the version's contents come from, the settings of this step among it."""
    parts = {name: dataset.fingerprint for name, dataset in inputs.items()}
    facts = [parts, config.store.shards, config.store.version_ttl_hours, MANIFEST_FORMAT, RECORD_FORMAT]
    facts += [datasets.REVISION["version"], encode_weights(weights).decode()]
    facts += [config.data.interactions.event_weights]
    return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()


def config_digest(config: Config) -> str:
    """The digest of the settings that say what is computed, not of where and on how many cores."""
    return settings.digest(
        msgspec.structs.replace(
            settings.without_paths(config),
            retrieve=settings.deciding(config.retrieve),
            serve=Serve(),
            spark=settings.Spark(),
        )
    )


def _is_named(config: Config, day: str, digest: str) -> bool:
    """True when the day's version is of the inputs of this digest; else another run may be about to cut it over."""
    try:
        return datasets.open_dataset(config.paths.workspace, day, "version").manifest.inputs["digest"] == digest
    except (DatasetDamagedError, MissingDatasetError):
        return False


def _write_catalogue(
    draft: VersionDraft, inputs: Mapping[str, Dataset], weights: RankerWeights, recent: np.ndarray
) -> None:
    """Everything that is not per user, in dense order."""
    order = np.load(inputs["candidates"].part("order.npy"))
    items = inputs["prepared"].arrow("items").to_table().sort_by("item_index")
    item_vectors = vectors.gather(inputs["embeddings"].part("items"), "item", len(items))
    dense = items.take(order)
    made = inputs["lists"]
    columns = _columns(dense) | {"popularity": _popularity(inputs["prepared"], len(order))[order]}
    of_late = np.float32(inputs["embeddings"].extra("order", Order).recent)
    columns |= {"trend": np.load(made.part("trend.npy")), RECENT: of_late * recent}
    draft.write_items(item_vectors[order], dense["item_id"].to_pylist(), columns)
    lists = pa.parquet.read_table(made.part("lists.parquet")).to_pylist()
    ranked: dict[str, dict[str, RankedItems]] = {"popular": {}, "trending": {}}
    for row in lists:
        ranked[row["kind"]][row["segment"]] = RankedItems(
            np.array(row["items"], dtype=np.uint32), np.array(row["scores"], dtype=np.float32)
        )
    draft.write_lists(ranked["popular"], ranked["trending"])
    draft.write_neighbours(*(_mapped(made, name) for name in ("neighbours.npy", "neighbour_scores.npy")))
    draft.write_together(*(_mapped(made, name) for name in ("together.npy", "together_scores.npy")))
    draft.write_contexts(Contexts(made.extra("contexts", list[tuple[str, str]]), _mapped(made, "context.npy")))
    draft.write_ranker(weights)
    draft.write_report(inputs["evaluation"].part("report.json").read_bytes())


def _mapped(dataset: Dataset, name: str) -> np.ndarray:
    return np.load(dataset.part(name), mmap_mode="r")


def _columns(items: pa.Table) -> dict[str, NewColumn]:
    """The columns of a version; what a rule or a signal reads of an item."""
    return {
        "title": Texts(items["title"].to_pylist()),
        "category": Categories(items["category"].to_pylist()),
        "brand": Categories(items["brand"].to_pylist()),
        "price": items["price"].to_numpy().astype(np.float32),  # null becomes NaN
        "released": items["released"].cast(pa.float64()).to_numpy(),
        "in_stock": items["in_stock"].to_numpy(),
    }


def _popularity(prepared: Dataset, items: int) -> np.ndarray:
    """float32[items] by item_index: interactions as a share of the most popular item's; held out or not, for it is
    served, as the popular lists are."""
    counts = np.zeros(items, dtype=np.int64)
    says_something = pa.dataset.field("weight") > 0
    for batch in prepared.arrow("interactions").to_batches(columns=["item_index"], filter=says_something):
        counts += np.bincount(batch.column("item_index").to_numpy(), minlength=items)
    return (counts / max(1, counts.max())).astype(np.float32)


def _write_users(
    draft: VersionDraft, config: Config, inputs: Mapping[str, Dataset], spark: SparkSession, scratch: Path
) -> None:
    """The user vectors, through a file, which stays: they may be more than memory holds, and the shards need them.

    Then segments and consumed items.
    """
    users = inputs["prepared"].rows["users"]
    path = scratch / vectors.USER_VECTORS
    draft.write_user_vectors(vectors.gather(inputs["embeddings"].part("users"), "user", users, file=path))
    segments = inputs["prepared"].arrow("users").to_table(["user_index", "segment"]).sort_by("user_index")
    consumed = _consumed(inputs, spark, users) if config.retrieve.consumed == "drop" else None
    draft.write_user_facts(consumed, segments["segment"].to_pylist())


def _write_tower(draft: VersionDraft, config: Config, inputs: Mapping[str, Dataset], scratch: Path) -> None:
    """What makes user vectors anew, bases and histories through files like the vectors."""
    embeddings, path, users = inputs["embeddings"], scratch / "bases.npy", inputs["prepared"].rows["users"]
    bases = vectors.gather(embeddings.part("users"), "user", users, column="base", file=path)
    order, folder = np.load(inputs["candidates"].part("order.npy")), scratch / "histories"
    histories = user_histories.gather(embeddings.part("users"), users, order, folder)
    tower = user_states.load_tower(
        embeddings.part(user_states.PART),
        is_unit=bool(embeddings.extra("is_unit")),
        history_length=embeddings.extra("history_length", int),
        event_weights=config.data.interactions.event_weights,
    )
    draft.write_user_tower(StoredTower(tower, bases, histories))
    path.unlink()
    shutil.rmtree(folder)


def _consumed(inputs: Mapping[str, Dataset], spark: SparkSession, users: int) -> Consumed:
    """What each user has consumed, in dense indexes: eight bytes a pair, and only the distinct pairs, on the driver."""
    order = np.load(inputs["candidates"].part("order.npy"))
    numbers = pa.table({"item_index": pa.array(order, pa.int32()), "dense": np.arange(len(order), dtype=np.int32)})
    pairs = (
        inputs["prepared"]
        .read(spark, "interactions")
        .where("consumed")
        .select("user_index", "item_index")
        .distinct()
        .join(spark.createDataFrame(numbers), "item_index")
        .select("user_index", "dense")
        .toArrow()
        .sort_by([("user_index", "ascending"), ("dense", "ascending")])
    )
    counts = np.bincount(pairs["user_index"].to_numpy(), minlength=users)
    return Consumed(np.concatenate([[0], np.cumsum(counts)]), pairs["dense"].to_numpy().astype(np.uint32))
