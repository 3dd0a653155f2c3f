"""The dashboard asks only for metrics and labels that a server has, and its panels do not overlap.

The documents, from which alarms are copied, name only metrics that it has, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgi_client import AsgiClient
from serving_shop import Shop

from reranker.app import create_app

ROOT = Path(__file__).parents[2]
BOARD = json.loads((ROOT / "docker/grafana/shortlist.json").read_text(encoding="utf-8"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DAGS = {name for file in (ROOT / "dags").glob("*.py") for name in re.findall(r'"(shortlist_\w+)"', file.read_text())}
"""The DAGs and what they write."""
PROMETHEUS_ADDS = {"instance", "le"}
FUNCTIONS = {
    "sum",
    "rate",
    "max",
    "min",
    "increase",
    "changes",
    "histogram_quantile",
    "by",
    "label_values",
    "or",
    "vector",
}


def queries() -> Iterator[str]:
    for panel in BOARD["panels"]:
        assert panel["targets"], panel["title"]
        yield from (target["expr"] for target in panel["targets"])
    yield from (entry["expr"] for entry in BOARD["annotations"]["list"])
    for variable in BOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Labels by metric, of a server that has had something to count."""
    shop = Shop(tmp_path_factory.mktemp("grafana") / "store")
    shop.publish("a")
    with AsgiClient(create_app(shop.config())) as client:
        client.post("/v1/recommend", {"user": "nobody", "k": 39, "session": [{"item": "a01"}]})
        page = client.get("/metrics").body.decode()
        page = client.get("/metrics").body.decode()
    found: dict[str, set[str]] = {name: set() for name in re.findall(r"^# TYPE (\w+)", page, re.MULTILINE)}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? ", page, re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r"(\w+)=", labels))
    return found


@pytest.mark.parametrize("query", list(queries()))
def test_a_query_asks_for_what_a_server_counts(query: str, known: dict[str, set[str]]) -> None:
    names = re.findall(r"\bshortlist_\w+", query)
    assert names
    for name in names:
        assert name in known
    labels = set(re.findall(r"(\w+)(?:=~|!~|!=|=)\"", query))
    labels |= {label for group in re.findall(r"by \(([^)]*)\)", query) for label in re.split(r",\s*", group)}
    assert labels - PROMETHEUS_ADDS <= known[names[0]]
    bare = re.sub(r"\"[^\"]*\"|\{[^}]*\}|\[[^\]]*\]|by \([^)]*\)", "", query)
    assert set(re.findall(r"[a-z_]\w+", bare)) - set(names) - FUNCTIONS - known[names[0]] - PROMETHEUS_ADDS == set()


def test_a_page_names_only_metrics_that_a_server_has(known: dict[str, set[str]]) -> None:
    named = {name for page in PAGES for name in re.findall(r"\bshortlist_\w+", page.read_text(encoding="utf-8"))}
    assert "shortlist_ready" in named
    assert named - known.keys() - DAGS == set()


def test_what_an_operator_looks_for_is_there() -> None:
    text = " ".join(queries())
    for metric in (
        "requests_total", "request_seconds_bucket", "answers_total", "version_age_seconds", "live_hidden_items",
        "live_out_of_stock_items", "events_total", "log_dropped_answers_total", 'status="503"', 'status=~"5.."',
    ):  # fmt: skip
        assert metric in text


def test_everything_that_a_server_counts_is_on_it(known: dict[str, set[str]]) -> None:
    asked = {name for query in queries() for name in re.findall(r"\bshortlist_\w+", query)}
    series = {name for name in known if not name.endswith(("_bucket", "_sum", "_count"))}
    assert {name for name in series if not any(name in other for other in asked)} == set()


def test_the_version_is_green_until_a_usual_night_has_replaced_it() -> None:
    (panel,) = [panel for panel in BOARD["panels"] if panel["title"] == "Age of the version"]
    (minute, hour) = re.findall(r'CronDataIntervalTimetable\("(\d+) (\d+) ', (ROOT / "dags/nightly.py").read_text())[0]
    the_next_begins = 24 * 3600 + int(hour) * 3600 + int(minute) * 60  # a version counts from the end of its day
    assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1]["value"] >= the_next_begins + 2 * 3600


def test_a_fixed_range_holds_several_samples_also_at_one_a_minute_as_prometheus_has_it_by_default() -> None:
    ranges = [int(minutes) for query in queries() for minutes in re.findall(r"\[(\d+)m\]", query)]
    assert ranges and min(ranges) >= 4


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place: dict[str, Any] = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        mine = {(x + place["x"], y + place["y"]) for x in range(place["w"]) for y in range(place["h"])}
        assert not mine & taken, panel["title"]
        taken |= mine
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
