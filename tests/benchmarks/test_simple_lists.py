"""The lists that need no model, against a slow loop."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from small_world import DAY, World

from benchmarks import simple_lists
from jobs import datasets
from schemas import tables
from schemas.config import Config, Paths, Retrieve


@pytest.mark.parametrize("policy", ["drop", "keep"])
def test_they_are_those_of_a_loop_over_what_was_before(tmp_path: Path, policy: str) -> None:
    world = World(users=12, items=30)
    world.write(tmp_path)
    config = Config(paths=Paths(workspace=str(tmp_path)), retrieve=Retrieve(consumed=policy))
    before = [event for event in world.events if event[5] != tables.TEST]
    since = min(event[3] for event in world.events if event[5] == tables.TEST) - 7 * 86_400
    own = {user: Counter(event[1] for event in before if event[0] == user) for user in range(12)}
    found = {
        name: made for name, made, _ in simple_lists.lists(config, datasets.open_dataset(tmp_path, DAY, "prepared"))
    }
    always = Counter(event[1] for event in before)
    for name, known in (
        ("popularity", always),
        (simple_lists.WEEK, Counter(event[1] for event in before if event[3] >= since)),
    ):
        popular = sorted(range(30), key=lambda item: (-known[item], -always[item], item))
        for rule, of_user in ((name, {}), (f"own items, then {name}", own)):
            lists = {
                int(u): row[row >= 0].tolist() for some, rows in found[rule] for u, row in zip(some, rows, strict=True)
            }
            assert lists.keys() <= set(world.judged())
            assert lists
            for user, items in lists.items():
                mine = of_user.get(user, Counter())
                gone = world.consumed(user, before_test=True) if policy == "drop" else set()
                order = sorted(popular, key=lambda item: -mine[item])
                assert items == [item for item in order if item not in gone]
