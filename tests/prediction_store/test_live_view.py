"""Live facts as arrays: what a slow look at each item finds, kept up to date, and harmless when they are damaged."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from live_changes import change, damage
from shop_store import MakeVersion

from prediction_store import durable, layout, live_changes, live_items
from prediction_store.columns import Categories, CategoryColumn, Texts
from prediction_store.errors import LiveItemsError, StoreError
from prediction_store.live_items import LiveItems
from prediction_store.live_view import LiveView, LiveViews, Test
from prediction_store.reader import Version
from schemas.live_items import FACTS, ItemFacts

N_ITEMS = 12
EVERYTHING = np.arange(N_ITEMS, dtype=np.uint32)
"""Of the versions that `make_version` writes: the last is out of stock, item i costs 10 + i, item 1 has no price."""


@pytest.fixture
def version(root: Path, make_version: MakeVersion) -> Iterator[Version]:
    with Version.open(root, make_version("a", cut_over=True)) as version:
        yield version


def test_without_live_facts_it_says_what_the_version_says(live: LiveItems, version: Version) -> None:
    view = LiveViews(live).view(version)
    everything = np.arange(N_ITEMS, dtype=np.uint32)
    assert view.eligible(everything, 0.0).tolist() == [*[True] * 11, False]
    for name in ("price", "in_stock", "popularity"):
        assert np.array_equal(view.column(version, name), version.column(name), equal_nan=True)
    assert (view.n_hidden, view.n_out_of_stock) == (0, 0)


def test_an_item_is_available_until_the_second_that_is_set(live: LiveItems, version: Version) -> None:
    live.set([change("item-0", available_until=100.0)], now=5.0)
    view = LiveViews(live).view(version)
    first = np.array([0], np.uint32)
    assert [bool(view.eligible(first, now)[0]) for now in (99.9, 100.0, 100.1)] == [True, False, False]


def test_a_test_is_kept_also_when_another_file_takes_the_place(live: LiveItems, root: Path, version: Version) -> None:
    views = LiveViews(live)
    views.view(version).keep(version, "cheap", lambda columns, items: np.asarray(columns("price"))[items] < 9.0)
    live.set([change("item-2", price=1.0)], now=5.0)
    kept = views.view(version).kept("cheap")
    assert kept is not None and np.flatnonzero(kept).tolist() == [2]
    durable.remove_folder(layout.live_items_folder(root))
    live.set([change("item-3", price=1.0)], now=6.0)
    kept = views.view(version).kept("cheap")
    assert kept is not None and np.flatnonzero(kept).tolist() == [3]
    assert views.view(version).kept("dear") is None


def test_items_that_the_version_lacks_are_kept_for_a_later_one(
    live: LiveItems, version: Version, root: Path, make_version: MakeVersion
) -> None:
    views = LiveViews(live)
    live.set([change("item-12", hidden=True)], now=5.0)
    assert views.view(version).n_hidden == 0
    with Version.open(root, make_version("b", n_items=13)) as later:
        assert views.view(later).hidden.tolist() == [*[False] * 12, True]
        assert views.view(version).n_hidden == 0


def test_what_an_item_is_they_say_where_the_version_does_not(
    live: LiveItems, root: Path, make_version: MakeVersion
) -> None:
    columns = {
        "title": Texts(["", "Title 1", *[""] * 10]),
        "category": Categories(["", "shoes", "bags", *[""] * 9]),
        "brand": None,
    }
    views = LiveViews(live)
    with Version.open(root, make_version("a", columns=columns)) as version:

        def texts(name: str) -> list[str]:
            found: list[str] = views.view(version).column(version, name).texts([2, 0, 1])  # type: ignore[union-attr]
            return found

        for item in range(3):
            live.set([change(f"item-{item}", title="Hat", category="hats", brand="acme")], now=5.0)
        assert (texts("title"), texts("category")) == (["Hat", "Hat", "Title 1"], ["bags", "hats", "shoes"])
        column = views.view(version).column(version, "category")
        assert isinstance(column, CategoryColumn)
        assert (column.values, column.codes[:4].tolist()) == (["bags", "hats", "shoes"], [1, 2, 0, -1])
        with pytest.raises(StoreError, match="no column 'brand'"):
            views.view(version).column(version, "brand")
        live.set([change("item-0", category="shoes"), change("item-2", title=None)], now=6.0)
        assert (texts("title"), texts("category")) == (["", "Hat", "Title 1"], ["bags", "shoes", "shoes"])
        live.set([change("item-0", **dict.fromkeys(FACTS))], now=7.0)
        assert (texts("title"), texts("category")) == (["", "", "Title 1"], ["bags", "", "shoes"])


def test_who_is_too_far_behind_for_single_changes_reads_everything(
    live: LiveItems, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_changes, "KEPT_CHANGES", 3)
    views = LiveViews(live)
    numbers = [0]
    for facts in ({"price": 1.0}, {"hidden": True}, {"price": 2.0}, {"price": 3.0}, {"price": 4.0}):
        live.set([change("item-2" if "hidden" in facts else "item-3", **facts)], now=5.0)
        if len(numbers) == 1:
            views.view(version)
        numbers.append(live.read().number)
    assert [live.read(since).is_whole for since in numbers] == [True, True, True, False, False, False]
    assert live.read(numbers[-1] + 1).is_whole
    assert not views.view(version).shown[2]


def test_a_view_that_was_prepared_in_pieces_is_the_one_that_is_read_at_once(
    live: LiveItems, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.set([change(f"item-{place}", hidden=place % 3 == 0, price=1.0) for place in range(20)], now=5.0)
    monkeypatch.setattr(live_items, "SOME", 4)
    pieces = 0
    read_some = live.read_some

    def change_meanwhile(after: bytes) -> live_items.Reading:
        nonlocal pieces
        pieces += 1
        reading = read_some(after)
        live.set([change("item-0", price=float(pieces)), change("item-9", hidden=None)], now=6.0)
        return reading

    monkeypatch.setattr(live, "read_some", change_meanwhile)
    prepared, asked = LiveViews(live), LiveViews(live)
    prepared.prepare(version)
    assert pieces == 6
    taken: list[bool] = []
    read = live.read
    monkeypatch.setattr(live, "read", lambda since=None: (taken.append(since is None), read(since))[1])
    found = prepared.view(version)
    assert taken == [False], "only what has changed meanwhile is read"
    wanted = asked.view(version)
    for array in ("shown", "hidden", "in_stock", "price"):
        assert np.array_equal(getattr(found, array), getattr(wanted, array), equal_nan=True), array
    assert (found.price[0], found.hidden[9]) == (6.0, False)  # type: ignore[index]


def test_preparing_counts_a_damaged_item_and_leaves_a_bad_file_to_the_requests(
    live: LiveItems, root: Path, version: Version
) -> None:
    live.set([change("item-0", hidden=True), change("item-2", hidden=True)], now=5.0)
    damage(live, b"item-0")
    views = LiveViews(live)
    views.prepare(version)
    assert views.view(version).shown[[0, 2]].tolist() == [True, False]
    assert (views.failures, "item-0" in str(views.last_error)) == (1, True)
    live.close()
    layout.live_items_file(root).write_bytes(b"rubbish" * 10_000)
    with LiveItems(root) as again:
        views = LiveViews(again)
        views.prepare(version)
        assert views.view(version).shown[0]
        assert views.failures == 1


def test_only_what_has_changed_is_read_again(
    live: LiveItems, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.set([change(f"item-{place}", price=1.0) for place in range(10)], now=5.0)
    views = LiveViews(live)
    views.view(version)
    taken: list[int] = []
    put = LiveView.put
    monkeypatch.setattr(LiveView, "put", lambda self, version, entries: taken.append(len(entries)))
    live.set([change("item-3", price=2.0)], now=6.0)
    live.set([change("item-3", price=3.0), change("item-4", price=2.0)], now=7.0)
    views.view(version)
    views.view(version)
    assert taken == [2]
    monkeypatch.setattr(LiveView, "put", put)


def test_changes_at_random_end_like_a_dictionary(
    live: LiveItems, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_changes, "KEPT_CHANGES", 40)
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    known: dict[str, dict[str, object]] = {}
    names = [f"item-{place}" for place in range(N_ITEMS + 3)]
    views, seldom = LiveViews(live), LiveViews(live)
    tests: dict[str, Test] = {
        "cheap": lambda columns, items: np.asarray(columns("price"))[items] < 9.0,
        "there": lambda columns, items: np.asarray(columns("in_stock"))[items] != 0,
    }
    for each in (views, seldom):
        for name, test in tests.items():
            each.view(version).keep(version, name, test)
    for step in range(150):
        batch = []
        for _ in range(chance.choice([1, 1, 3, 60])):
            name = chance.choice(names)
            values = (chance.random() < 0.5, chance.random() < 0.5, 2.5, 7.0, "a title", "hats", "acme")
            facts = {
                fact: chance.choice([None, value])
                for fact, value in zip(FACTS, values, strict=True)
                if chance.random() < 0.4
            }
            batch.append(change(name, **facts))
            mine = known.setdefault(name, {})
            mine.update(facts)
            known[name] = {fact: value for fact, value in mine.items() if value is not None}
        live.set(batch, now=float(step))
        for each in [views, seldom] if chance.random() < 0.1 else [views]:
            view = each.view(version)
            check_view(view, version, known)
            for name, test in tests.items():
                kept = view.kept(name)
                assert kept is not None
                assert kept.tolist() == test(partial(view.column, version), EVERYTHING).tolist(), name
    stored = {key.decode(): facts for key, facts in live.read().entries}
    assert stored.keys() == {name for name, facts in known.items() if facts}
    for name, facts in stored.items():
        assert isinstance(facts, ItemFacts)
        assert {fact: getattr(facts, fact) for fact in FACTS if fact in known[name]} == known[name]


def test_a_damaged_value_is_one_items_trouble_and_clearing_it_mends_it(
    live: LiveItems, root: Path, version: Version
) -> None:
    views = LiveViews(live)
    live.set([change("item-0", hidden=True), change("item-2", hidden=True)], now=5.0)
    assert not views.view(version).shown[[0, 2]].any()
    damage(live, b"item-0")
    live.set([change("item-3", hidden=True)], now=6.0)
    assert views.view(version).shown.tolist() == [False, True, False, False, *[True] * 7, False]
    assert (views.failures, views.last_error) == (0, None), "what was not read again is what was known last"
    fresh = LiveViews(live)
    assert fresh.view(version).shown.tolist() == [True, True, False, False, *[True] * 7, False]
    assert fresh.failures == 1
    assert "item-0" in str(fresh.last_error)
    fresh.view(version)
    assert fresh.failures == 1, "nothing was read again"
    with pytest.raises(LiveItemsError, match="'item-0' are damaged"):
        live.get("item-0")
    with pytest.raises(LiveItemsError, match="'item-0' are damaged"):
        live.set([change("item-3", hidden=None), change("item-0", price=1.0)], now=7.0)
    assert live.get("item-3") is not None
    live.set([change("item-0", **dict.fromkeys(FACTS))], now=8.0)
    assert live.get("item-0") is None
    fresh.view(version)
    assert fresh.last_error is None


def test_a_value_that_becomes_damaged_leaves_what_was_known_of_the_item(live: LiveItems, version: Version) -> None:
    views = LiveViews(live)
    live.set([change("item-0", hidden=True)], now=5.0)
    views.view(version)
    live.set([change("item-0", price=2.0)], now=6.0)
    damage(live, b"item-0")
    assert not views.view(version).shown[0]
    assert views.failures == 1


def test_when_the_file_goes_bad_a_view_keeps_what_it_knew_and_says_why(
    live: LiveItems, root: Path, version: Version
) -> None:
    views = LiveViews(live)
    live.set([change("item-0", hidden=True)], now=5.0)
    assert not views.view(version).shown[0]
    file = layout.live_items_file(root)
    aside = file.with_name("aside")
    aside.write_bytes(b"rubbish" * 10_000)
    aside.rename(file)
    for failures in (1, 2):
        assert not views.view(version).shown[0]
        assert views.failures == failures
        assert "data.mdb" in str(views.last_error) or "live/items" in str(views.last_error)
    assert LiveViews(live).view(version).shown[0], "the version alone"


def test_a_folder_that_was_removed_and_made_again_is_read_anew(live: LiveItems, root: Path, version: Version) -> None:
    views = LiveViews(live)
    live.set([change("item-0", hidden=True)], now=5.0)
    assert not views.view(version).shown[0]
    for file in layout.live_items_folder(root).iterdir():
        file.unlink()
    layout.live_items_folder(root).rmdir()
    assert views.view(version).shown[0]
    live.set([change("item-2", hidden=True)], now=6.0)
    assert views.view(version).shown[[0, 2]].tolist() == [True, False]
    assert views.failures == 0


def test_another_file_in_its_place_is_read_anew(live: LiveItems, root: Path, version: Version, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with LiveItems(tmp_path / "other") as other:
        other.set([change("item-2", hidden=True)], now=5.0)
    views = LiveViews(live)
    live.set([change("item-0", hidden=True)], now=5.0)
    views.view(version)
    layout.live_items_file(tmp_path / "other").rename(layout.live_items_file(root))
    assert views.view(version).shown[[0, 2]].tolist() == [True, False]


def check_view(view: LiveView, version: Version, known: dict[str, dict[str, object]]) -> None:
    """Compare a view with what a slow, obvious look at each item finds."""
    everything = np.arange(N_ITEMS, dtype=np.uint32)
    prices, stock = np.asarray(view.column(version, "price")), np.asarray(view.column(version, "in_stock"))
    for now in (0.0, 7.0):
        shown = view.eligible(everything, now)
        for place in range(N_ITEMS):
            facts = known.get(f"item-{place}", {})
            in_stock = facts.get("in_stock", place != N_ITEMS - 1)
            over = facts.get("available_until", 1e10) <= now  # type: ignore[operator]
            assert shown[place] == (in_stock and not facts.get("hidden", False) and not over), place
            assert stock[place] == in_stock
            price = facts.get("price", float("nan") if place == 1 else 10.0 + place)
            assert prices[place] == price or (np.isnan(prices[place]) and np.isnan(price))
    mine = [known.get(f"item-{place}", {}) for place in range(N_ITEMS)]
    assert view.n_hidden == sum(facts.get("hidden") is True for facts in mine)
    assert view.n_out_of_stock == sum(facts.get("in_stock") is False for facts in mine)
