"""A model is kept for some nights: the same ids get the same vectors, what is new is unknown, and it ends in time."""

from __future__ import annotations

import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
from blocks_shop import DAY, small_config, write_prepared

from jobs import datasets, embed, kept_model, model, splits, train
from jobs.encoder import Encoder
from jobs.features import item_features, user_features
from jobs.journey import with_model_kept
from jobs.task import Reading
from jobs.towers import ItemTensors, UserTensors
from schemas.config import Config
from schemas.data_config import Data, Split, Users
from schemas.tables import TEST

NEW_ITEM, NEW_USER = 30, 55
"""Where an item and a user that the model has not met stand among the others."""


def later(days: int) -> str:
    return str(date.fromisoformat(DAY) + timedelta(days=days))


def shop(folder: Path, **settings: Any) -> Config:
    config = small_config(folder, **{"max_epochs": 1, "keep_days": 2} | settings)
    write_prepared(config)
    return config


def write_next(config: Config, day: str, *, hours: int = 24) -> None:
    """The prepared dataset of another day: the same, with one item and one user more, before some of the others.

    And two of the items cost more and are of another category.

    Args:
        hours: how much of the day has passed.
    """
    before = datasets.open_dataset(config.paths.workspace, DAY, "prepared")
    tables = {
        name: pa.dataset.dataset(before.part(name), format="parquet").to_table()
        for name in ("interactions", "items", "users")
    }
    for name, index, new in (("items", "item_index", NEW_ITEM), ("users", "user_index", NEW_USER)):
        rows = sorted(tables[name].to_pylist(), key=lambda row: row[index])
        noun = index.removesuffix("_index")
        if noun == "item":
            for row in rows[3:5]:
                row |= {"price": 99.0 + (row["price"] or 0.0), "category": rows[-1]["category"]}
        rows.insert(new, rows[new - 1] | {f"{noun}_id": rows[new - 1][f"{noun}_id"] + "x", "interactions": 0})
        tables[name] = pa.Table.from_pylist(
            [row | {index: number} for number, row in enumerate(rows)], schema=tables[name].schema
        )
        own = tables["interactions"][index].to_numpy()
        place = tables["interactions"].schema.get_field_index(index)
        tables["interactions"] = tables["interactions"].set_column(
            place, tables["interactions"].schema.field(place), pa.array(own + (own >= new), pa.int32())
        )
    with datasets.step(config.paths.workspace, day, "prepared", outside={"of": f"{day} {hours}"}) as draft:
        draft.extra["made_at"] = datasets.end_of(day) - (24 - hours) * 3600
        for name, table in tables.items():
            (draft.path / name).mkdir()
            pa.parquet.write_table(table, draft.path / name / "part-0.parquet")
            draft.rows[name] = len(table)


def made(config: Config, day: str) -> datasets.Dataset:
    return datasets.open_dataset(config.paths.workspace, day, "model")


def by_id(config: Config, day: str, noun: str) -> dict[str, np.ndarray]:
    """The vectors of a day's items or users."""
    prepared, embeddings = (
        datasets.open_dataset(config.paths.workspace, day, name) for name in ("prepared", "embeddings")
    )
    ids = kept_model.ids_of(prepared, noun).to_pylist()
    rows = pa.dataset.dataset(embeddings.part(f"{noun}s"), format="parquet").to_table().to_pylist()
    assert len(rows) == len(ids)
    return {ids[row[f"{noun}_index"]]: np.array(row["vector"], np.float32) for row in rows}


@pytest.fixture(scope="module")
def kept(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Two days, the second with a kept model, and their embeddings."""
    config = shop(tmp_path_factory.mktemp("kept"))
    train.run(config, DAY)
    embed.run(config, DAY, spark)
    write_next(config, later(1))
    report = train.run(config, later(1))
    assert report.details == {"kept_from": DAY, "unknown_items": 1, "unknown_users": 1}
    report = embed.run(config, later(1), spark)
    assert (report.rows["items"], report.rows["users"]) == (85, 125)
    return config


@pytest.mark.parametrize("noun", ["item", "user"])
def test_the_same_ids_have_the_same_vectors(kept: Config, noun: str) -> None:
    before, now = by_id(kept, DAY, noun), by_id(kept, later(1), noun)
    assert len(now) == len(before) + 1
    assert all(np.array_equal(now[name], vector) for name, vector in before.items())
    assert len({vector.tobytes() for vector in before.values()}) > 100 - 30 * (noun == "item")


def test_what_is_new_is_known_by_content_and_history_alone(kept: Config) -> None:
    prepared = datasets.open_dataset(kept.paths.workspace, later(1), "prepared")
    towers, card = model.load(made(kept, later(1)).path)
    encoding = card.architecture.encoding
    item, user = (
        pa.dataset.dataset(prepared.part(f"{noun}s"), format="parquet").to_table().slice(row, 1)
        for noun, row in (("item", NEW_ITEM), ("user", NEW_USER))
    )
    unknown = np.full(200, -1, dtype=np.int32)
    own_item = towers.item(ItemTensors.of(item_features(item, encoding, rows=unknown))).detach().numpy()[0]
    nothing = towers.item.id.weight.new_zeros((1, card.architecture.dimensions))
    own_user = towers.user(UserTensors.of(user_features(user, encoding, rows=unknown)), nothing).detach().numpy()[0]
    items, users = (by_id(kept, later(1), noun) for noun in ("item", "user"))
    np.testing.assert_allclose(items[item["item_id"][0].as_py()], own_item, atol=1e-6)
    np.testing.assert_allclose(users[user["user_id"][0].as_py()], own_user, atol=1e-6)


def test_a_kept_model_is_of_the_same_space(kept: Config) -> None:
    assert made(kept, DAY).extra("space_id") == made(kept, later(1)).extra("space_id")
    for name in (model.WEIGHTS, model.CARD):
        assert made(kept, DAY).part(name).read_bytes() == made(kept, later(1)).part(name).read_bytes()


def test_it_is_kept_for_the_days_that_were_asked_for_and_needs_yesterday_only(tmp_path: Path) -> None:
    config = shop(tmp_path)
    trained = train.run(config, DAY)
    assert trained.details["not_kept"] == "no model of the last 2 days is in the workspace"
    for day in (1, 2, 3):
        write_next(config, later(day))
    assert train.run(config, later(1)).details["kept_from"] == DAY
    shutil.rmtree(made(config, DAY).path)
    assert train.run(config, later(2)).details["kept_from"] == DAY
    ended = train.run(config, later(3))
    assert ended.details["not_kept"] == f"the model of {DAY} is older than train.keep_days = 2"
    assert made(config, later(3)).extra("trained_on") == later(3)
    assert not made(config, later(3)).part(model.ROWS["item"]).exists()
    # A finished day stays what it is: kept, though nothing is left to keep it from; trained, though there is.
    shutil.rmtree(made(config, later(1)).path)
    for day in (2, 3):
        assert train.run(config, later(day)).skipped


def test_without_the_setting_every_day_is_trained_and_switching_it_on_trains_nothing_again(tmp_path: Path) -> None:
    config = shop(tmp_path, keep_days=0)
    write_next(config, later(1))
    for day in (DAY, later(1)):
        assert "not_kept" not in train.run(config, day).details
    assert made(config, DAY).extra("space_id") != made(config, later(1)).extra("space_id")
    keeping = msgspec.structs.replace(config, train=msgspec.structs.replace(config.train, keep_days=5))
    for day in (DAY, later(1)):
        assert train.run(keeping, day).skipped


def test_a_day_that_is_not_over_keeps_what_its_first_hours_have_trained(tmp_path: Path) -> None:
    config, today = shop(tmp_path), later(5)
    write_next(config, today, hours=12)
    trained = train.run(config, today)
    assert trained.details["not_kept"] == "no model of the last 2 days is in the workspace"
    assert train.run(config, today).skipped
    write_next(config, today, hours=15)
    assert train.run(config, today).details["kept_from"] == today
    assert train.run(config, today).skipped
    write_next(config, today, hours=18)
    assert train.run(config, today).details["kept_from"] == today
    write_next(config, today)
    assert train.run(config, today).details["not_kept"] == "the day has a model of its own"


def test_a_day_that_is_not_over_takes_what_was_trained_last(tmp_path: Path) -> None:
    """The night of the day before may end when the day has run already, with the model before."""
    config, today = shop(tmp_path), later(2)
    train.run(config, DAY)
    write_next(config, later(1))
    write_next(config, today, hours=1)
    assert train.run(config, today).details["kept_from"] == DAY
    nightly = msgspec.structs.replace(config, train=msgspec.structs.replace(config.train, keep_days=0))
    assert "kept_from" not in train.run(nightly, later(1)).details
    assert train.run(config, today).details["kept_from"] == later(1)
    assert train.run(config, today).skipped
    write_next(config, later(1), hours=23)  # mended, and the night run again
    train.run(nightly, later(1))
    assert train.run(config, today).details["kept_from"] == later(1)
    assert made(config, today).extra("trained") == made(config, later(1)).fingerprint


def test_today_trains_nothing_while_the_last_nights_have_left_a_model(tmp_path: Path) -> None:
    config = shop(tmp_path, keep_days=0)
    train.run(config, DAY)
    for days, kept_from in ((1, DAY), (2, DAY), (3, None)):
        write_next(config, later(days), hours=12)
        said = train.run(with_model_kept(config), later(days)).details
        assert said.get("kept_from") == kept_from


def test_a_bad_export_that_is_let_through_ends_no_model(tmp_path: Path) -> None:
    config, reading = shop(tmp_path), Reading("drop", "time")
    more = msgspec.structs.replace(config, data=msgspec.structs.replace(config.data, max_rejected_share=0.5))
    assert kept_model.settings_digest(config, reading, "") == kept_model.settings_digest(more, reading, "")


@pytest.mark.parametrize("section", ["train", "data", "split"])
def test_other_settings_train_a_model_of_their_own(tmp_path: Path, section: str) -> None:
    config = shop(tmp_path)
    train.run(config, DAY)
    write_next(config, later(1))
    other: Any = {
        "train": msgspec.structs.replace(config.train, learning_rate=0.02),
        "data": Data(users=Users(columns=["age_group"])),
        "split": Split(test_days=2),
    }[section]
    said = train.run(msgspec.structs.replace(config, **{section: other}), later(1)).details
    assert said["not_kept"] == f"the model of {DAY} was trained with other settings"


def test_a_kept_model_reads_the_sentences_of_new_items(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def letters(texts: list[str]) -> np.ndarray:
        return np.array([[text.lower().count(chr(97 + k)) for k in range(26)] for text in texts], dtype=np.float16)

    monkeypatch.setattr(train, "find_encoder", lambda: Encoder("letters", 26, letters))
    config = shop(tmp_path, text="sentences")
    train.run(config, DAY)
    write_next(config, later(1))
    assert train.run(config, later(1)).details["kept_from"] == DAY
    found = {}
    for day in (DAY, later(1)):
        folder = made(config, day).path
        prepared = datasets.open_dataset(config.paths.workspace, day, "prepared")
        batches = iter(pa.dataset.dataset(prepared.part("items"), format="parquet").to_table().to_batches())
        rows = [row for batch in embed.embed_items(batches, str(folder), day) for row in batch.to_pylist()]
        ids = kept_model.ids_of(prepared, "item").to_pylist()
        found[day] = {ids[row["item_index"]]: row["vector"] for row in rows}
    assert len(found[later(1)]) == len(found[DAY]) + 1
    assert {name: found[later(1)][name] for name in found[DAY]} == found[DAY]


def test_nothing_that_a_later_day_is_judged_by_was_learned(spark: Any) -> None:
    """A model keeps what it learned before its own test part; no later day's test part holds any of that."""
    end, rng = datasets.end_of(DAY), np.random.default_rng(6)
    columns = (rng.integers(0, 12, 400), rng.integers(0, 9, 400), rng.integers(end - 8 * 86_400, end + 3 * 86_400, 400))
    rows = [(*map(int, row), "view", "", "") for row in zip(*columns, strict=True)]
    everything = spark.createDataFrame(
        rows, "user_index int, item_index int, time bigint, event string, session_id string, device string"
    ).distinct()
    learned: set[tuple[int, ...]] = set()
    for day in range(4):
        made_at = end + day * 86_400
        # What arrives late, too: every third interaction is known a day after it happened.
        late = f"time < {made_at} and (item_index % 3 > 0 or time < {made_at - 86_400})"
        found = splits.split(everything.where(late), Split(), made_at).collect()
        judged = {tuple(row)[:3] for row in found if row["split"] == TEST}
        assert judged
        assert not learned & judged
        learned = learned or {tuple(row)[:3] for row in found} - judged


def test_where_each_users_last_interactions_judge_no_model_is_kept(tmp_path: Path) -> None:
    config = msgspec.structs.replace(shop(tmp_path), split=Split(strategy="per_user"))
    train.run(config, DAY)
    write_next(config, later(1))
    said = train.run(config, later(1)).details["not_kept"]
    assert said == "with split.strategy = per_user it may have learned what is judged"
