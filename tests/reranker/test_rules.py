"""Rules of a configuration: what they say of candidates, and what is said of a rule that is none."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from serving_shop import N_ITEMS, Shop

from prediction_store.live_view import LiveView
from prediction_store.reader import Version
from reranker import rules
from reranker.announced import effects_on
from reranker.errors import ConditionError
from reranker.rules import Effects, Rules
from schemas.live_items import ItemFacts
from schemas.rules import Rule

ALL = np.arange(N_ITEMS, dtype=np.uint32)


@pytest.fixture(scope="module")
def version(stocked_shop: Shop) -> Iterator[Version]:
    with Version.open(stocked_shop.root, stocked_shop.current()) as opened:
        yield opened


def effects(version: Version, *rules: Rule, placement: str = "home") -> Effects:
    return Rules.of(rules).at(placement).effects(version.column, ALL)


def test_no_rules_allow_everything_and_move_nothing(version: Version) -> None:
    found = effects(version)
    assert found.is_allowed is None
    assert found.boosts == ()
    assert found.pins == ()


def test_what_is_found_out_beforehand_is_what_is_found_out_in_the_request(
    version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Rules.of(
        [
            Rule(name="cheap", where="price < 30", action="include"),
            Rule(name="boots", where="category == 'boots'", action="boost", weight=0.5),
            Rule(name="odd", where="not price > 7", action="pin", position=3),
            Rule(name="again", where="price < 30", action="exclude", placements=["basket"]),
        ]
    )
    items = np.array([39, 3, 7, 7, 30, 29], np.uint32)
    monkeypatch.setattr(rules, "KEPT_BYTES", 2 * version.n_items + 1)
    live = LiveView(version)
    wanted.keep_in(live, version)
    assert [live.kept(condition.text) is not None for _, condition in wanted.rules] == [True, True, False, True]
    for placement in ("home", "basket"):
        one, other = (
            wanted.at(placement).effects(version.column, items, kept=kept) for kept in (live.kept, lambda text: None)
        )
        assert one.is_allowed is not None and other.is_allowed is not None
        assert one.is_allowed.tolist() == other.is_allowed.tolist()
        assert [(name, added.tolist()) for name, added in one.boosts] == [
            (name, added.tolist()) for name, added in other.boosts
        ]
        assert [(place, holds.tolist()) for place, holds in one.pins] == [
            (place, holds.tolist()) for place, holds in other.pins
        ]


def test_includes_add_up_and_an_exclude_takes_away_from_them(version: Version) -> None:
    found = effects(
        version,
        Rule(name="cheap", where="price < 4", action="include"),
        Rule(name="dear", where="price > 38", action="include"),
        Rule(name="not the first", where="price == 1", action="exclude"),
    )
    assert np.flatnonzero(found.is_allowed).tolist() == [1, 2, 38, 39]


def test_each_boost_says_what_it_adds_to_whom(version: Version) -> None:
    found = effects(
        version,
        Rule(name="one", where="price <= 2", action="boost", weight=0.5),
        Rule(name="two", where="price == 2", action="boost", weight=-2.0),
    )
    assert [(name, added[:3].tolist()) for name, added in found.boosts] == [
        ("one", [0.5, 0.5, 0.0]),
        ("two", [0.0, -2.0, 0.0]),
    ]
    assert all(added.dtype == np.float32 for _, added in found.boosts)


def test_pins_come_by_position(version: Version) -> None:
    found = effects(
        version,
        Rule(name="third", where="price < 3", action="pin", position=3),
        Rule(name="first", where="price > 39", action="pin", position=1),
    )
    assert [(place, np.flatnonzero(holds).tolist()) for place, holds in found.pins] == [(1, [39]), (3, [0, 1])]


def test_a_rule_holds_for_its_placements_only(version: Version) -> None:
    rule = Rule(name="basket", where="price < 4", action="exclude", placements=["basket", "similar"])
    assert effects(version, rule, placement="home").is_allowed is None
    assert not effects(version, rule, placement="basket").is_allowed[:3].any()


def test_a_rule_that_cannot_be_read_is_refused_with_its_name_and_the_place() -> None:
    with pytest.raises(ConditionError, match=r"rule 'odd'.*character 9: wanted a text"):
        Rules.of([Rule(name="odd", where="price < cost", action="exclude")])


def test_rules_that_a_version_has_no_columns_for_are_left_out_and_named(version: Version) -> None:
    rules = Rules.of(
        [
            Rule(name="good", where="price < 4", action="exclude"),
            Rule(name="unknown column", where="colour == 'red'", action="exclude"),
            Rule(name="text for a number", where="price == 'red'", action="exclude"),
        ]
    )
    kept, problems = rules.fitting(version.column)
    assert [rule.name for rule, _ in kept.rules] == ["good"]
    assert [problem.split(":")[0] for problem in problems] == ["rule 'unknown column'", "rule 'text for a number'"]


def test_what_was_announced_is_judged_in_whatever_order_it_came(version: Version) -> None:
    categories = ["shoes", "hats", "", "\U0001f45f", "bags", "\uffff", "shoes"]
    facts = [ItemFacts(changed_at=0.0, category=category) for category in categories]
    for wanted in categories:
        rule = Rule(name="only", where=f"category == {wanted!r}", action="include")
        found = effects_on(version, [f"new-{place}" for place in range(len(facts))], facts, Rules.of([rule]))
        assert found.is_allowed is not None
        assert found.is_allowed.tolist() == [category == wanted != "" for category in categories]
