"""The simulated shop: same bytes, any day alone, constant memory, and behaviour that a recommender can learn."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from jobs import simulate
from jobs.errors import SourceError
from jobs.shop import CHUNK, Shop
from jobs.visits import SESSIONS_AT_A_TIME, Shelves, Visits, visits
from schemas.config import Config
from schemas.data_config import Simulate
from schemas.errors import UsageError

SMALL = {"users": 300, "items": 400, "days": 3, "events_per_day": 2000, "seed": 5}


def a_config(output: Path, **settings: object) -> Config:
    return Config(simulate=Simulate(**{**SMALL, "output": str(output), **settings}))  # type: ignore[arg-type]


def digests(output: Path) -> dict[str, str]:
    files = sorted(output.rglob("*.parquet"))
    return {str(file.relative_to(output)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def table(output: Path, name: str, day: str) -> dict[str, list]:
    return pq.read_table(output / name / f"date={day}", partitioning=None).to_pydict()


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        simulate.run(a_config(tmp_path / name, seed=seed))
    first, second, other = (digests(tmp_path / name) for name in "abc")
    assert len(first) == 9
    assert first == second
    assert not set(first.values()) & set(other.values())


def test_a_day_does_not_depend_on_the_days_before_it(tmp_path: Path) -> None:
    simulate.run(a_config(tmp_path / "whole"))
    for date in ("2026-01-01", "2026-01-02"):  # these pass for written, and are empty
        (tmp_path / "alone" / "interactions" / f"date={date}").mkdir(parents=True)
    report = simulate.run(a_config(tmp_path / "alone"))
    alone, whole = digests(tmp_path / "alone"), digests(tmp_path / "whole")
    assert report.rows["days"] == 1
    assert alone == {name: digest for name, digest in whole.items() if "2026-01-03" in name}
    assert len(alone) == 3


def test_a_day_beyond_the_configured_range_is_made_with_all_before_it(tmp_path: Path) -> None:
    report = simulate.run(a_config(tmp_path), "2026-01-05")
    assert (report.day, report.rows["days"]) == ("2026-01-05", 5)


def test_a_day_that_is_there_is_kept_and_an_unfinished_one_is_made_again(tmp_path: Path) -> None:
    simulate.run(a_config(tmp_path))
    before = digests(tmp_path)
    assert simulate.run(a_config(tmp_path)).skipped
    # As a kill leaves it: a draft, and two of three tables renamed.
    (tmp_path / "interactions" / "date=2026-01-02").rename(tmp_path / ".date=2026-01-02.draft")
    report = simulate.run(a_config(tmp_path))
    assert report.rows["days"] == 1
    assert not report.skipped
    assert digests(tmp_path) == before
    assert not list(tmp_path.glob(".*.draft"))


def test_two_shops_in_one_folder_are_refused(tmp_path: Path) -> None:
    simulate.run(a_config(tmp_path))
    with pytest.raises(SourceError, match="other \\[simulate\\] settings"):
        simulate.run(a_config(tmp_path, seed=6))
    simulate.run(a_config(tmp_path, days=4))  # more days of the same shop are welcome


def test_a_day_before_the_opening_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="opens on 2026-01-01"):
        simulate.run(a_config(tmp_path), "2025-12-31")


def test_users_and_items_arrive_every_day_and_never_leave(tmp_path: Path) -> None:
    simulate.run(a_config(tmp_path, new_users_share=0.01, new_items_share=0.02))
    days = ["2026-01-01", "2026-01-02", "2026-01-03"]
    users = [table(tmp_path, "users", day) for day in days]
    items = [table(tmp_path, "items", day) for day in days]
    assert [len(day["user_id"]) for day in users] == [300, 303, 306]
    assert [len(day["item_id"]) for day in items] == [400, 408, 416]
    assert users[2]["user_id"][:303] == users[1]["user_id"]
    assert users[2]["joined"][303:] == [datetime.date(2026, 1, 3)] * 3
    assert items[2]["released"][400:408] == [datetime.date(2026, 1, 2)] * 8
    for name in ("title", "category", "brand", "released"):
        assert items[2][name][:408] == items[1][name]
    assert all(date < datetime.date(2026, 1, 1) for date in items[0]["released"])


def test_the_arrival_day_is_the_inverse_of_the_number_of_arrivals() -> None:
    shop = Shop(Simulate(users=997, items=1013, new_users_share=0.0137, new_items_share=0.0071))
    for day in range(60):
        released = shop.catalogue(day).released
        assert (released <= day).all()
        assert (released == day).sum() == (shop.n_items(day) - shop.n_items(day - 1) if day else 0)
        joined = np.concatenate([people.joined for people in shop.people(day)])
        assert (joined == day).sum() == (shop.n_users(day) - shop.n_users(day - 1) if day else 0)


def test_titles_are_made_from_the_words_of_their_category(tmp_path: Path) -> None:
    simulate.run(a_config(tmp_path), "2026-01-01")
    items = table(tmp_path, "items", "2026-01-01")
    nouns: dict[str, set[str]] = {}
    for title, category in zip(items["title"], items["category"], strict=True):
        nouns.setdefault(category, set()).add(title.split()[-1])
    assert len(nouns) == 4
    for category, words in nouns.items():
        others = set().union(*(found for name, found in nouns.items() if name != category))
        assert len(words) <= 5
        assert not words & others
    assert all(title.startswith(brand) for title, brand in zip(items["title"], items["brand"], strict=True))
    assert min(items["price"]) > 0


def test_events_lie_within_their_day_and_sessions_have_one_user_and_device(tmp_path: Path) -> None:
    simulate.run(a_config(tmp_path), "2026-01-02")
    rows = pq.read_table(tmp_path / "interactions" / "date=2026-01-02", partitioning=None).to_pandas()
    midnight = int(datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC).timestamp())
    assert rows.timestamp.between(midnight, midnight + 86_399).all()
    assert (rows.groupby("session_id")[["user_id", "device"]].nunique() == 1).all(axis=None)
    assert set(rows.event) == {"view", "cart", "purchase"}
    items = table(tmp_path, "items", "2026-01-02")
    in_stock = {item for item, stock in zip(items["item_id"], items["stock"], strict=True) if stock > 0}
    assert 0 < len(in_stock) < len(items["item_id"])
    assert set(rows.item_id) <= in_stock
    views = rows[rows.event == "view"].groupby(["session_id", "item_id"]).timestamp.min()
    buys = rows[rows.event == "purchase"].groupby(["session_id", "item_id"]).timestamp.max()
    assert (buys >= views.reindex(buys.index)).all()


def test_the_number_of_events_a_day_is_about_the_one_asked_for() -> None:
    shop = Shop(Simulate(users=5000, items=500, events_per_day=40_000))
    found = [sum(len(block) for block in blocks(shop, day)) for day in range(7)]
    assert np.mean(found) == pytest.approx(40_000, rel=0.05)


def test_events_come_in_blocks_of_bounded_size_however_many_there_are() -> None:
    settings = {"users": CHUNK + 10, "items": 50}
    few = list(blocks(Shop(Simulate(events_per_day=10_000, **settings)), 0))
    assert len(few) == 2
    shop = Shop(Simulate(events_per_day=600_000, **settings))
    many = [(len(block), len(np.unique(block.session))) for block in blocks(shop, 0)]
    assert len(many) > 3
    assert max(sessions for _, sessions in many) <= SESSIONS_AT_A_TIME
    assert max(events for events, _ in many) < 8 * SESSIONS_AT_A_TIME


def test_large_days_are_cut_into_parts_and_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "ROWS_PER_GROUP", 512)
    monkeypatch.setattr(simulate, "ROWS_PER_PART", 1024)
    report = simulate.run(a_config(tmp_path), "2026-01-01")
    files = sorted((tmp_path / "interactions").rglob("*.parquet"))
    groups = [pq.ParquetFile(file).metadata for file in files]
    assert len(files) == -(-report.rows["interactions"] // 1024)
    assert {meta.num_rows for meta in groups[:-1]} == {1024}
    assert {meta.num_row_groups for meta in groups[:-1]} == {2}
    assert ds.dataset(files).count_rows() == report.rows["interactions"]


def test_popularity_has_a_long_tail_and_nobody_keeps_buying_the_same() -> None:
    shop = Shop(Simulate(users=3000, items=2000, events_per_day=15_000))
    found = [block for day in range(20) for block in blocks(shop, day)]
    user, item, event = (
        np.concatenate([getattr(block, name) for block in found]) for name in ("user", "item", "event")
    )
    counts = np.sort(np.bincount(item))[::-1]
    assert 0.45 < counts[: len(counts) // 5].sum() / counts.sum() < 0.8
    bought = event == 2
    pairs = user[bought] * 10**6 + item[bought]
    assert len(pairs) > 2000
    assert len(np.unique(pairs)) > 0.98 * len(pairs)


def test_the_session_tells_more_about_the_next_item_than_the_user_and_the_user_more_than_the_shop() -> None:
    shop = Shop(Simulate(users=3000, items=2000, events_per_day=15_000))
    day = 10
    catalogue, niche_of = shop.catalogue(day), shop.catalogue(day).niche
    people = list(shop.people(day))
    taste = np.concatenate([p.taste(day) for p in people])
    favourite = np.concatenate([p.interests for p in people])[np.arange(len(taste)), taste.argmax(axis=1)]
    found = list(blocks(shop, day))
    user, item, event, session = (
        np.concatenate([getattr(block, name) for block in found]) for name in ("user", "item", "event", "session")
    )
    views = event == 0
    user, niche, session = user[views], niche_of[item[views]], session[views]
    follows = (session[1:] == session[:-1]) & (user[1:] == user[:-1])
    by_session = (niche[1:] == niche[:-1])[follows].mean()
    by_user = (niche == favourite[user]).mean()
    shares = np.bincount(niche_of, weights=catalogue.appeal) / catalogue.appeal.sum()
    assert by_session > 0.8
    assert by_session > 1.5 * by_user
    assert by_user > 4 * shares.max()


def test_an_oracle_that_knows_tastes_finds_several_times_what_popularity_finds() -> None:
    shop = Shop(Simulate(users=3000, items=2000, events_per_day=15_000))
    day = 10
    catalogue = shop.catalogue(day)
    popular = np.zeros(len(catalogue))
    for earlier in range(day):
        for block in blocks(shop, earlier):
            popular += np.bincount(block.item, minlength=len(catalogue))
    weight = np.zeros((shop.n_users(day), shop.n_niches))
    for people in shop.people(day):
        np.add.at(weight, (people.first + np.arange(len(people))[:, None], people.interests), people.taste(day))
    appeal = np.bincount(catalogue.niche, weights=catalogue.appeal, minlength=shop.n_niches)
    within = catalogue.appeal / appeal[catalogue.niche]
    tomorrow = list(blocks(shop, day))
    pairs = np.unique(np.concatenate([np.stack([block.user, block.item], axis=1) for block in tomorrow]), axis=0)
    users = np.unique(pairs[:, 0])[:500]
    recall = {"oracle": 0.0, "popularity": 0.0}
    for user in users:
        truth = pairs[pairs[:, 0] == user, 1]
        for name, score in (("oracle", weight[user, catalogue.niche] * within), ("popularity", popular)):
            recall[name] += np.isin(truth, np.argsort(-score)[:20]).mean() / len(users)
    assert recall["popularity"] > 0.02
    assert recall["oracle"] > 4 * recall["popularity"]


def test_tastes_drift() -> None:
    (people,) = Shop(Simulate(users=1000, items=500)).people(0)
    first, later = people.taste(0).argmax(axis=1), people.taste(45).argmax(axis=1)
    assert 0.2 < (first != later).mean() < 0.8


def blocks(shop: Shop, day: int) -> Iterator[Visits]:
    shelves = Shelves(shop, day, shop.catalogue(day))
    for people in shop.people(day):
        yield from visits(shelves, people)
