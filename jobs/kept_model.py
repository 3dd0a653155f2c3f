"""A model kept for another day: the weights as they were trained, and today's items and users found in them by id.

`prepare` numbers ids in byte order, so that one new id moves the number of all behind it. Every `model` dataset knows
the ids of its rows; a kept one says for each item and user of its day which row is theirs. It has all that the next
day needs to keep it on, whether or not the day of the training is still in the workspace.

No held-out interaction is learned: a training ends before the test part of its own day, which begins before that of
any later day. Where each user's last interactions judge this does not hold: those who had too few for a test part are
trained on whole, and what they did last may judge them when they have done more. So no model is kept there.
"""

from __future__ import annotations

import shutil
from datetime import date, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from jobs import datasets, model
from jobs.datasets import Dataset, Draft
from jobs.errors import DatasetDamagedError, MissingDatasetError
from jobs.task import Reading
from schemas.config import Config, without_paths
from schemas.data_config import Data
from schemas.train_config import Train

IDS = {"item": "items.parquet", "user": "user_ids.parquet"}
"""The id of each row of the model, in order; of items also what the item tower reads of them."""

READ = ("title", "category", "brand", "price", "released")
"""The columns of an item that `features.item_features` reads."""

CARRIED = ("space_id", "best_epoch", "recall", "trained", "trained_on", "settings")
"""Facts of a model that stay true when it is kept."""


def deciding(config: Train) -> Train:
    """The settings that decide what is learned, without how long it is kept."""
    return msgspec.structs.replace(config, keep_days=0)


def settings_digest(config: Config, reading: Reading, encoder: str) -> str:
    """Digest of all but the day's data that a model was made with; only a model with the same one may be kept."""
    # How much may be malformed says whether there is a night, not what is learned in it.
    data = msgspec.structs.replace(without_paths(config).data, max_rejected_share=Data().max_rejected_share)
    sections = [deciding(config.train), reading, data, config.split]
    inputs = {"encoder": encoder, "prepared": str(datasets.REVISION["prepared"])}
    return datasets.fingerprint("", "model", inputs, sections)


def find(config: Config, day: str, settings: str, prepared: Dataset) -> tuple[Dataset | None, str]:
    """The newest model that may stand for one of `day`; None, and why there is none, if one is wanted.

    A model of the day itself comes first, so that a finished day stays what it is: kept, or trained. A day that is not
    over takes what was trained last, also what was trained on its own first hours; the model itself and not a copy that
    a day has kept, for it may have been trained anew.

    Args:
        prepared: what the day knows.
    """
    is_over = datasets.known_until(prepared) == datasets.end_of(day)
    keep_days = config.train.keep_days
    if keep_days and config.split.strategy == "per_user":
        return None, "with split.strategy = per_user it may have learned what is judged"
    newest: Dataset | None = None
    why = f"no model of the last {keep_days} days is in the workspace" if keep_days else ""
    today = date.fromisoformat(day)
    for back in range(keep_days + 1 if keep_days else 0):
        try:
            found = datasets.open_dataset(config.paths.workspace, str(today - timedelta(days=back)), "model")
        except (MissingDatasetError, DatasetDamagedError):
            continue
        if any(name not in found.manifest.extra for name in CARRIED):
            continue  # of an earlier release
        trained_on = str(found.extra("trained_on"))
        if trained_on == day and (is_over or _is_trained_on(found, prepared)):
            return None, "the day has a model of its own"
        if found.extra("settings") != settings:
            why = f"the model of {trained_on} was trained with other settings"
        elif (today - date.fromisoformat(trained_on)).days > keep_days:
            why = f"the model of {trained_on} is older than train.keep_days = {keep_days}"
        elif is_over:
            return found, ""
        elif newest is None or trained_on >= str(newest.extra("trained_on")):
            newest = found
    return newest, "" if newest else why


def _is_trained_on(found: Dataset, prepared: Dataset) -> bool:
    """True for a model that was trained, not kept, on just this data."""
    return "kept" not in found.manifest.inputs and found.manifest.inputs["prepared"] == prepared.fingerprint


def keep(kept: Dataset, prepared: Dataset, draft: Draft) -> dict[str, object]:
    """Write a model into the draft of another day; what is to be said of it."""
    for name in (model.WEIGHTS, model.CARD, *IDS.values()):
        shutil.copyfile(kept.part(name), draft.path / name)
    details: dict[str, object] = {"kept_from": kept.extra("trained_on")}
    for noun, file in IDS.items():
        known = pa.parquet.read_table(kept.part(file))[f"{noun}_id"].combine_chunks()
        rows = row_of(ids_of(prepared, noun), known)
        np.save(draft.path / model.ROWS[noun], rows)
        details[f"unknown_{noun}s"] = int((rows < 0).sum())
    draft.rows |= kept.rows
    draft.extra |= {name: kept.extra(name) for name in CARRIED}
    return details


def write_ids(prepared: Dataset, folder: Path) -> None:
    """Write the id of each row of a model that is trained on `prepared`, and what its items are like."""
    for noun, columns in (("item", READ), ("user", ())):
        index, names = f"{noun}_index", [f"{noun}_id", *columns]
        table = prepared.arrow(f"{noun}s").to_table([index, *names]).sort_by(index).select(names)
        pa.parquet.write_table(table, folder / IDS[noun])


def open_trained(folder: Path) -> pa.Table | None:
    """What the items of a kept model were like when it was trained, by row; None for a model of its own day."""
    if model.open_rows(folder, "item") is None:
        return None
    return pa.parquet.read_table(folder / IDS["item"], columns=list(READ))


def as_trained(items: pa.RecordBatch, rows: np.ndarray, trained: pa.Table) -> pa.Table:
    """Rows of `prepared/items`, those that the model knows as they were when it was trained.

    Else a new price would move the item's vector, and with it the list of everybody who has the item.

    Args:
        rows: see `model.open_rows`.
    """
    row = rows[items.column("item_index").to_numpy()]
    is_known, place = pa.array(row >= 0), pa.array(np.maximum(row, 0))
    table = pa.table(items)
    for name in READ:
        then = trained[name].take(place)
        number = table.schema.get_field_index(name)
        table = table.set_column(number, name, pa.compute.if_else(is_known, then, table[name]))
    return table


def row_of(ids: pa.Array, known: pa.Array) -> np.ndarray:
    """int32[len(ids)]: the place of each id among the known ones, -1 for none."""
    return pa.compute.fill_null(pa.compute.index_in(ids, value_set=known), -1).to_numpy().astype(np.int32)


def ids_of(prepared: Dataset, noun: str) -> pa.Array:
    """The ids of all items or users, by index."""
    table = prepared.arrow(f"{noun}s").to_table([f"{noun}_index", f"{noun}_id"]).sort_by(f"{noun}_index")
    return table[f"{noun}_id"].cast(pa.large_string()).combine_chunks()
