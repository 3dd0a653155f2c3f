"""The page: well-formed, self-contained, and with the numbers of the report."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from small_world import END

from jobs import evaluate
from jobs.evaluation.page import page_of
from schemas.config import Config, Paths
from schemas.data_config import Split
from schemas.tables import TEST, TRAIN

DAY = "2026-03-02"


@pytest.fixture(scope="module")
def report(make_world: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A report, to which a version before is added that did as well as popularity."""
    folder = tmp_path_factory.mktemp("page")
    config = Config(paths=Paths(workspace=str(folder / "work"), store=str(folder / "store")))
    world = make_world(users=50, items=60, seed=8)
    world.write(config.paths.workspace)
    rng = np.random.default_rng(0)
    world.write_candidates(config.paths.workspace, {user: rng.permutation(60)[:40].tolist() for user in world.judged()})
    evaluate.run(config, DAY)
    found = msgspec.json.decode((folder / "work" / DAY / "report/report.json").read_bytes(), type=dict[str, Any])
    assert "previous" in found["left_out"]
    return found


def test_lists_that_show_nothing_have_a_page(make_world: Callable[..., Any], tmp_path: Path) -> None:
    config = Config(paths=Paths(workspace=str(tmp_path / "work"), store=str(tmp_path / "store")))
    world = make_world(users=5, items=10)
    world.write(config.paths.workspace)
    world.write_candidates(config.paths.workspace, {user: [] for user in world.judged()})
    page = Path(evaluate.run(config, DAY).details["page"]).read_text(encoding="utf-8")
    assert any(text.startswith("0% of 10 items") for text in texts(page))


def test_of_a_handful_of_users_the_page_has_no_intervals(make_world: Callable[..., Any], tmp_path: Path) -> None:
    """Five users who all agree do so by chance more often than an interval of 95 % says."""
    for users in (5, 6):
        config = Config(paths=Paths(workspace=str(tmp_path / f"{users}"), store=str(tmp_path / "store")))
        met = [(user, user % 2, 1.0, END - 500_000, False, TRAIN) for user in range(users)]
        wanted = [(user, 50 + user, 1.0, END - 500, False, TEST) for user in range(users)]
        world = make_world(users=users, items=60, events=[*met, *wanted])
        world.write(config.paths.workspace)
        world.write_candidates(config.paths.workspace, {user: [50 + user] for user in range(users)})
        report = evaluate.run(config, DAY)
        root = ElementTree.fromstring(Path(report.details["page"]).read_text(encoding="utf-8"))
        assert report.rows["users"] == users
        smalls = ["".join(small.itertext()) for small in root.iter("small")]
        is_ranged = [" – " in small for small in smalls]
        bands = [element for element in root.iter() if element.get("class") == "band"]
        coloured = [element for element in root.iter("span") if element.get("class") in ("better", "worse")]
        assert (any(is_ranged), bool(bands), bool(coloured)) == (users == 6, users == 6, users == 6)


@pytest.mark.parametrize(("users", "off_by"), [(4, "0.50"), (99, "0.10"), (100, "")])
def test_where_few_users_are_judged_the_line_and_the_page_say_so(
    make_world: Callable[..., Any], tmp_path: Path, users: int, off_by: str
) -> None:
    paths = Paths(workspace=str(tmp_path / "work"), store=str(tmp_path / "store"))
    wanted = [(user, user % 3, 1.0, END - 500, False, TEST) for user in range(users)]
    world = make_world(users=users, items=10, events=wanted)
    world.write(paths.workspace)
    world.write_candidates(paths.workspace, {user: [0] for user in range(users)})
    by_time = evaluate.run(Config(paths=paths), DAY)
    per_user = evaluate.run(Config(paths=paths, split=Split(strategy="per_user")), DAY)
    page = " ".join(texts(Path(by_time.details["page"]).read_text(encoding="utf-8")))
    assert ("They are few: by chance alone a recall may be off by 0" in page) == bool(off_by)
    told = [report.details.get("warning_users", "") for report in (by_time, per_user)]
    few = f"{users} users are judged: by chance alone a recall may be off by {off_by}; "
    settings = ("raise split.test_days", "lower split.test_per_user or split.validation_per_user")
    assert told == ([few + setting for setting in settings] if off_by else ["", ""])


def with_previous(report: dict[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(report)
    facts = {"version": "20260302T000000Z-0123abcd", "made_at": 1_772_400_000, "users_without_list": 1234}
    found["previous"] = found["popularity"] | facts
    for segments in found["segments"].values():
        for segment in segments:
            segment["previous"] = segment["popularity"]
    del found["left_out"]["previous"]
    return found


def texts(page: str) -> list[str]:
    return [" ".join(element.itertext()) for element in ElementTree.fromstring(page).iter()]


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(report: dict[str, Any]) -> None:
    for found in (report, with_previous(report)):
        page = page_of(found, DAY)
        elements = list(ElementTree.fromstring(page).iter())
        assert not {"script", "link", "img", "iframe"} & {element.tag for element in elements}
        assert not {"src", "href"} & {name for element in elements for name in element.attrib}
        assert "http" not in page
        assert "url(" not in page


def test_the_page_has_the_headline_with_intervals_and_differences(report: dict[str, Any]) -> None:
    page = page_of(with_previous(report), DAY)
    rows = [text for text in texts(page) if text.startswith("recall@20 ")]
    assert rows, "the table of the headline has such a row"
    for found in (report, report["popularity"], report["content"]):
        low, high = found["intervals"]["recall"]["20"]
        assert f"{found['recall']['20']:.3f} {low:.3f} – {high:.3f}" in rows[0].replace("  ", " ")
    assert f"{report['content']['difference']['recall']['20']:+.3f}" in rows[0]


def test_what_is_left_out_is_said_with_its_reason(report: dict[str, Any]) -> None:
    found = copy.deepcopy(report)
    found["left_out"] = {"content": "no <words> & all", "previous": "none"}
    assert any("Left out: content only, because no <words> & all." in text for text in texts(page_of(found, DAY)))


def test_the_version_before_is_named_and_its_lack_of_lists_told(report: dict[str, Any]) -> None:
    page = page_of(with_previous(report), DAY)
    assert "20260302T000000Z-0123abcd" in page
    assert "1,234 of the users had no list" in page
    assert "of the users had no list" not in page_of(report, DAY)


def test_it_is_told_how_many_users_had_no_list(report: dict[str, Any]) -> None:
    told = "1,234 of the users were unknown before the judged part"
    assert told in page_of(report | {"users_without_list": 1234}, DAY)
    assert "were unknown before" not in page_of(report, DAY)


def test_each_segment_has_a_row_for_each_ranking(report: dict[str, Any]) -> None:
    root = ElementTree.fromstring(page_of(with_previous(report), DAY))
    cells = [cell.text for cell in root.iter("td")]
    found = [segment["users"] > 0 for of in report["segments"].values() for segment in of]
    segments = sum(found)
    assert cells.count("nobody") == len(found) - segments
    for name in ("this run", "popularity", "content only", "version before"):
        assert cells.count(name) == segments
