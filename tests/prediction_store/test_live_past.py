"""The live facts as they were: after each change that is remembered, what servers had then."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from live_changes import change, damage
from shop_store import MakeVersion

from prediction_store import durable, layout, live_changes
from prediction_store.columns import Categories, Texts
from prediction_store.live_environment import Tables
from prediction_store.live_items import LiveItems
from prediction_store.live_past import LivePast
from prediction_store.live_view import LiveView, LiveViews
from prediction_store.reader import Version
from schemas.live_items import FACTS

N_ITEMS = 12
COLUMNS = {"title": Texts(["", "Title 1", *[""] * 10]), "category": Categories(["", "shoes", *[""] * 10])}


@pytest.fixture
def version(root: Path, make_version: MakeVersion) -> Iterator[Version]:
    with Version.open(root, make_version("a", columns=COLUMNS, cut_over=True)) as version:
        yield version


def said_by(view: LiveView, version: Version) -> dict[str, object]:
    """All that an answer asks of a view."""
    everything = np.arange(N_ITEMS, dtype=np.uint32)
    texts = {name: view.column(version, name).texts(range(N_ITEMS)) for name in COLUMNS}  # type: ignore[union-attr]
    return {
        "shown": [view.eligible(everything, now).tolist() for now in (0.0, 7.0)],
        "price": np.nan_to_num(np.asarray(view.column(version, "price")), nan=-1.0).tolist(),
        "stock": np.asarray(view.column(version, "in_stock")).tolist(),
        "arrivals": dict(view.arrivals),
        **texts,
    }


def change_at_random(live: LiveItems, chance: random.Random, step: int) -> None:
    batch = []
    for _ in range(chance.choice([1, 1, 3, 30])):
        values = (chance.random() < 0.5, chance.random() < 0.5, 2.5 + step, 7.0, f"title {step}", "hats", "acme")
        facts = {
            fact: chance.choice([None, value])
            for fact, value in zip(FACTS, values, strict=True)
            if chance.random() < 0.4
        }
        batch.append(change(f"item-{chance.randrange(N_ITEMS + 3)}", **facts))
    live.set(batch, now=float(step))


def test_after_each_change_they_say_what_servers_read_then(live: LiveItems, version: Version) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    chance = random.Random(seed)
    views, past = LiveViews(live), LivePast(live, version)
    then = {0: said_by(LiveViews(live).view(version), version)}
    for step in range(60):
        change_at_random(live, chance, step)
        view = views.view(version)
        then[view.number] = said_by(view, version)
    numbers = sorted(then, reverse=True)
    for number in [*numbers, *chance.sample(numbers, len(numbers))]:  # going back, and to and fro
        found = past.after(number)
        assert found is not None and found.number == number
        assert said_by(found, version) == then[number], number


def test_what_is_too_long_ago_is_not_remembered(
    live: LiveItems, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_changes, "KEPT_CHANGES", 3)
    for price in range(6):
        live.set([change("item-0", price=float(price))], now=5.0)
    last, past = live.read().number, LivePast(live, version)
    found = {back: past.after(last - back) for back in range(6)}
    assert [back for back, view in found.items() if view is None] == [3, 4, 5]
    view = past.after(last - 2)
    assert view is not None and np.asarray(view.column(version, "price"))[0] == 3.0
    assert past.after(last + 1) is None


def test_of_a_batch_that_is_too_much_the_last_are_remembered(live: LiveItems, root: Path, version: Version) -> None:
    with LiveItems(root, map_bytes=1 << 16) as small:  # of which a quarter is 16 KiB
        small.set([change(f"item-{place:03}", title="x" * 100) for place in range(500)], now=5.0)
        last = small.read().number
        kept = [back for back in range(501) if small.read_back(last, last - back) is not None]
        assert kept == [*range(len(kept))] and 100 < len(kept) < 501
        (first, *_) = small.read().entries
        small.set([change("item-000", hidden=True)], now=6.0)
        assert small.read_back(small.read().number, last) == [first]


def test_they_take_a_quarter_of_the_room_and_leave_the_rest(root: Path) -> None:
    root.mkdir()
    pages: list[int] = []

    def count(tables: Tables) -> None:
        of_both = [tables.transaction.stat(table) for table in (tables.changes, tables.before)]
        pages.append(sum(of["leaf_pages"] + of["branch_pages"] + of["overflow_pages"] for of in of_both))

    with LiveItems(root, map_bytes=4 << 20) as live:
        for round_ in range(30):
            live.set([change(f"item-{place}", price=float(round_)) for place in range(1000)], now=5.0)
            live._environment.read(count)
        assert max(pages) == pages[-1] == (1 << 20) // 4096
        last = live.read().number
        assert live.read_back(last, last - 5000) is not None
        assert live.read_back(last, last - 29_000) is None


def test_numbers_of_another_environment_are_not_taken_for_its_own(
    live: LiveItems, root: Path, version: Version
) -> None:
    live.set([change("item-0", hidden=True)], now=5.0)
    before = live.read().number
    live.close()
    durable.remove_folder(layout.live_items_folder(root))
    with LiveItems(root) as other:
        for price in range(5):
            other.set([change("item-0", price=float(price))], now=6.0)
        assert LivePast(other, version).after(before) is None
        view = LivePast(other, version).after(0)
        assert view is not None and view.price is None, "before the first change of any nothing was set"


def test_changes_that_a_restored_copy_has_lost_are_not_taken_for_later_ones(
    live: LiveItems, root: Path, version: Version, tmp_path: Path
) -> None:
    live.set([change("item-0", price=1.0)], now=5.0)
    copied = live.read().number
    live.close()
    shutil.copytree(layout.live_items_folder(root), tmp_path / "copy")
    with LiveItems(root) as lost:
        lost.set([change("item-0", price=2.0)], now=6.0)
        of_lost = lost.read().number
    durable.remove_folder(layout.live_items_folder(root))
    shutil.copytree(tmp_path / "copy", layout.live_items_folder(root))
    with LiveItems(root) as restored:
        for price in (3.0, 4.0):
            restored.set([change("item-0", price=price)], now=7.0)
        past = LivePast(restored, version)
        assert past.after(of_lost) is None
        view = past.after(copied)
        assert view is not None and np.asarray(view.column(version, "price"))[0] == 1.0


def test_the_numbers_go_on_when_the_clock_is_set_back(live: LiveItems, version: Version) -> None:
    numbers = []
    for now in (9.0, 5.0, 9.0, 20.0):
        live.set([change("item-0", price=now), change("item-2", price=now)], now=now)
        numbers.append(live.read().number)
    assert numbers == [9_000_001, 9_000_003, 9_000_005, 20_000_001]


def test_changes_by_an_older_shortlist_cannot_be_taken_back(live: LiveItems, version: Version) -> None:
    live.set([change("item-0", price=1.0)], now=5.0)
    live.set([change("item-0", price=2.0)], now=5.0)
    number = live.read().number
    live._environment.write(lambda tables: tables.transaction.delete(number.to_bytes(8, "big"), db=tables.before))
    live.set([change("item-0", price=3.0)], now=5.0)
    past = LivePast(live, version)
    assert [past.after(number + by) is None for by in (1, 0, -1)] == [False, False, True]


def test_an_older_shortlists_facts_are_read_and_changed(live: LiveItems, root: Path, version: Version) -> None:
    live.set([change("item-0", price=1.0)], now=5.0)
    live._environment.write(lambda tables: tables.transaction.drop(tables.before))
    live.close()
    with LiveItems(root) as upgraded:
        number = upgraded.read().number
        assert LivePast(upgraded, version).after(number) is not None
        assert LivePast(upgraded, version).after(number - 1) is None
        assert upgraded.set([change("item-0", price=2.0)], now=6.0) == ["item-0"]
        view = LivePast(upgraded, version).after(number)
        assert view is not None and np.asarray(view.column(version, "price"))[0] == 1.0


def test_damaged_facts_that_were_replaced_are_left_and_the_others_taken_back(live: LiveItems, version: Version) -> None:
    live.set([change("item-0", price=1.0), change("item-2", price=1.0)], now=5.0)
    number = live.read().number
    damage(live, b"item-0")
    live.set([change("item-0", **dict.fromkeys(FACTS)), change("item-2", price=2.0)], now=6.0)
    view = LivePast(live, version).after(number)
    assert view is not None
    assert np.asarray(view.column(version, "price"))[[0, 2]].tolist() == [10.0, 1.0]
