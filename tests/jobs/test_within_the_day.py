"""A day that is run while it goes on: each time a version that knows more, by the model of the night before."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import jobs.spark
from jobs import datasets, journey
from prediction_store import history
from prediction_store.check import check
from prediction_store.manifest import read_manifest
from prediction_store.reader import Version
from schemas.config import Config
from schemas.config_file import load_config

YESTERDAY, TODAY = "2026-03-09", "2026-03-10"
MIDNIGHT, HOUR = datasets.end_of(YESTERDAY), 3600
CONFIG = """
[data.interactions]
path = "events.csv"
[data.items]
path = ""
[data.users]
path = ""
columns = []
segment = ""
[train]
dimensions = 8
max_epochs = 1
[retrieve]
candidates = 20
[store]
shards = 2
[gates]
recall_ratio = { warn = "off", fail = "off" }
ndcg_ratio = { warn = "off", fail = "off" }
"""


class Site:
    """A site whose users read of their own kind; what has happened by a moment is in its table."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "shortlist.toml").write_text(CONFIG)
        dice = random.Random(7)
        times = [MIDNIGHT - 6 * 24 * HOUR + dice.randrange(7 * 24 * HOUR) for _ in range(3000)]
        self.events = []
        for time in sorted(times):
            user = dice.randrange(60)
            self.events.append((f"u{user:02}", f"i{user % 4 + 4 * dice.randrange(10):02}", "view", time))

    @property
    def config(self) -> Config:
        return load_config(self.folder / "shortlist.toml", environ={})

    @property
    def root(self) -> Path:
        return Path(self.config.paths.store)

    def run(self, day: str, now: int, config: Config | None = None) -> dict[str, Any]:
        """Run a day at a moment, with what has happened by then; step to what its line says."""
        with (self.folder / "events.csv").open("w", newline="") as file:
            known = [event for event in self.events if event[-1] < now]
            csv.writer(file).writerows([("user_id", "item_id", "event", "timestamp"), *sorted(known)])
        reports = journey.run(config or self.config, day, now=lambda: float(now))
        return {report.step: report.details | {"skipped": report.skipped} for report in reports}


@pytest.fixture
def site(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site with last night's version, made at a quarter past three."""

    @contextmanager
    def session(*_: object) -> Iterator[Any]:
        yield spark

    monkeypatch.setattr(jobs.spark, "session", session)
    found = Site(tmp_path)
    found.run(YESTERDAY, MIDNIGHT + 3 * HOUR)
    yield found
    assert check(found.root).problems == []


def test_each_run_of_a_day_serves_what_is_known_by_then_and_the_night_the_whole_day(site: Site) -> None:
    config = journey.with_model_kept(site.config)
    last_night = history.current(site.root).version
    found = site.run(TODAY, MIDNIGHT + 12 * HOUR, config)
    assert found["train"]["kept_from"] == YESTERDAY
    noon = found["cutover"]["version"]
    assert history.current(site.root).version == noon != last_night
    newest = max(time for *_, time in site.events if time < MIDNIGHT + 12 * HOUR)
    assert read_manifest(site.root, noon).made_at == newest + 1

    for user in range(0, 60, 2):  # an article that half of all have read
        site.events.append((f"u{user:02}", "new", "view", MIDNIGHT + 14 * HOUR + user))
    found = site.run(TODAY, MIDNIGHT + 15 * HOUR, config)
    assert (found["train"]["kept_from"], found["train"]["unknown_items"]) == (YESTERDAY, 1)
    with Version.open(site.root, history.current(site.root).version) as version:
        new = version.item_index("new")
        assert new in version.trending().items.tolist()
        record = version.read("u01")
        assert record is not None
        assert new in record.items.tolist()

    again = site.run(TODAY, MIDNIGHT + 15 * HOUR, config)
    assert {step for step, told in again.items() if not told["skipped"]} == {"gate", "retire"}

    night = site.run(TODAY, MIDNIGHT + 27 * HOUR)
    assert "kept_from" not in night["train"]
    current = history.current(site.root).version
    assert (night["cutover"]["version"], read_manifest(site.root, current).made_at) == (current, MIDNIGHT + 24 * HOUR)
