"""The difference between two versions: what the report says, what the verb prints, and that the page stands alone."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from shop_store import MADE_AT, MakeVersion

import shortlist
from prediction_store.diff import DiffReport, diff
from prediction_store.diff_page import page_of
from prediction_store.diff_text import lines
from prediction_store.writer import Texts

Verb = Callable[..., tuple[int, str, str]]
NASTY = '<b>"it\'s" & \x00\x1b</b>'


@pytest.fixture
def verb(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verb:
    """Run a verb through the front door: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> tuple[int, str, str]:
        code = shortlist.run([*argv, "--set", f"paths.store={root}"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def pair(make_version: MakeVersion) -> tuple[str, str]:
    """Two versions of four items. ann's list is turned around, bob's has one new item; cy is gone and dan has come."""
    world = {"n_items": 5, "popular": {"": range(5), "DE": [1]}, "segments": {"ann": "DE"}}
    a = make_version("a", lists={"ann": [0, 1, 2, 3], "bob": [0, 1], "cy": [0]}, **world)
    lists = {"ann": [3, 2, 1, 0], "bob": [0, 4], "dan": [0]}
    # In the second version items are numbered the other way round, and the last one is another one.
    ids = ["new", *(f"item-{number}" for number in (3, 2, 1, 0))]
    mirrored = {user: [4 - item for item in items] for user, items in lists.items()}
    b = make_version("b", lists=mirrored, item_ids=ids, made_at=MADE_AT + 86_400, **world)
    return a, b


def test_the_report_says_what_changed(root: Path, pair: tuple[str, str]) -> None:
    report = diff(root, *pair)
    assert (report.a.version, report.b.version, report.inputs_changed) == (*pair, ["test"])
    assert (report.b.made_at - report.a.made_at, report.a.users, report.b.list_items) == (86_400, 3, 7)
    assert (report.users_both, report.users_only_a, report.users_only_b) == (2, 1, 1)
    assert report.overlap is not None
    assert report.overlap.mean == pytest.approx((1 + 0.5) / 2)
    assert (sum(report.overlap.histogram), report.overlap.histogram[10], report.overlap.histogram[-1]) == (2, 1, 1)
    assert [(of.segment, of.users, of.overlap) for of in report.segments] == [("", 1, 0.5), ("DE", 1, 1.0)]
    assert [(item.item, item.a, item.b) for item in report.gained] == [("new", 0, 1)]
    assert [(item.item, item.title, item.a, item.b) for item in report.lost] == [("item-1", "Title 1", 2, 1)]
    assert (report.scores.is_same_space, len(report.scores.a), report.scores.a[-1]) == (True, 21, pytest.approx(1))


def test_users_stand_side_by_side_from_the_one_that_changed_most(root: Path, pair: tuple[str, str]) -> None:
    bob, ann = diff(root, *pair).users
    assert (bob.user, bob.overlap, ann.user, ann.segment, ann.overlap) == ("bob", 0.5, "ann", "DE", 1.0)
    assert [(shown.item, shown.other_place) for shown in bob.a] == [("item-0", 1), ("item-1", None)]
    assert [(shown.item, shown.other_place) for shown in bob.b] == [("item-0", 1), ("new", None)]
    assert [(shown.item, shown.other_place) for shown in ann.b] == [(f"item-{i}", i + 1) for i in (3, 2, 1, 0)]
    assert [user.user for user in diff(root, *pair, shown=1).users] == ["bob"]


def test_a_version_does_not_differ_from_itself(root: Path, make_version: MakeVersion) -> None:
    name = make_version("a")
    report = diff(root, name, name)
    assert report.overlap is not None
    assert report.rank_agreement is not None
    assert (report.overlap.mean, report.rank_agreement.mean, report.scores.drift) == (1, pytest.approx(1), 0)
    assert (report.gained, report.lost, report.inputs_changed) == ([], [], [])
    assert "inputs that changed: none" in "\n".join(lines(report))


def test_versions_that_share_no_user_can_be_told_apart(root: Path, make_version: MakeVersion) -> None:
    report = diff(root, make_version("a", lists={"ann": [1]}), make_version("b", lists={"bob": [1]}))
    assert (report.users_both, report.overlap, report.scores.drift, report.users) == (0, None, None, [])
    assert "nobody's lists can be compared" in "\n".join(lines(report))
    ElementTree.fromstring(page_of(report))


def test_empty_lists_and_versions_without_titles_can_be_compared(root: Path, make_version: MakeVersion) -> None:
    a = make_version("a", lists={"ann": [], "bob": [], "cy": [1]}, columns={"title": None})
    b = make_version("b", lists={"ann": [2], "bob": [], "cy": []}, columns={"title": None})
    report = diff(root, a, b)
    assert report.overlap is not None
    assert (report.users_both, report.overlap.mean) == (2, 0)
    assert [item.title for item in report.gained] == [""]
    ElementTree.fromstring(page_of(report))


@pytest.fixture
def nasty(root: Path, make_version: MakeVersion) -> DiffReport:
    """Users, items, titles and segments with all that markup dislikes."""
    world: dict[str, Any] = {
        "n_items": 2,
        "popular": {"": [0], NASTY: [1]},
        "segments": {NASTY: NASTY},
        "columns": {"title": Texts([NASTY, "two"])},
    }
    a = make_version("a", lists={NASTY: [0], "ann": [1]}, item_ids=[f"{NASTY} a", "b"], **world)
    b = make_version("b", lists={NASTY: [0], "ann": [1]}, item_ids=[f"{NASTY} c", "b"], **world)
    return diff(root, a, b)


def test_the_page_is_well_formed_and_shows_ids_as_they_are(nasty: DiffReport) -> None:
    text = "".join(ElementTree.fromstring(page_of(nasty)).itertext())
    shown = NASTY.replace("\x00", "\ufffd").replace("\x1b", "\ufffd")
    assert text.count(f"{shown} a") >= 2, "an item that was lost, and its place in the list of the user"
    assert f"{shown}, {shown} overlap 0.00" in text, "a user and the segment"
    assert "<b>" not in page_of(nasty).replace('<div class="tile"><b>', "")


def test_a_long_title_leaves_the_id_of_the_item_to_be_read(root: Path, make_version: MakeVersion) -> None:
    titles = {"title": Texts(["A title that goes on for longer than any terminal is wide", "two"])}
    a, b = (
        make_version(name, n_items=2, lists={"ann": [item]}, columns=titles, popular={"": [0]})
        for name, item in (("a", 1), ("b", 0))
    )
    found = [line for line in lines(diff(root, a, b)) if line.startswith("  A title")]
    assert [line.split()[-4:] for line in found] == [["item-0", "0", "1", "+1"]]
    assert "…" in found[0] and found[0].index(" 0 ") < 60


def test_the_page_needs_nothing_from_elsewhere(nasty: DiffReport) -> None:
    page = page_of(nasty).lower()
    for word in (
        "http",
        "//",
        "<script",
        "javascript",
        "<link",
        "@import",
        "url(",
        "src=",
        "href=",
        "onload",
        "<iframe",
    ):
        assert word not in page, word
    assert page.startswith("<!doctype html>\n<html lang=")
    assert page.count("<svg") == 4, "two histograms, the segments, the scores"
    assert "prefers-color-scheme: dark" in page


def test_the_verb_prints_a_table_and_says_how_to_get_the_page(root: Path, pair: tuple[str, str], verb: Verb) -> None:
    code, out, _ = verb("diff", *pair)
    assert code == 0
    assert out.startswith(f"from {pair[0]} to {pair[1]}\n")
    assert "2 sampled users in both, 1 only in the first, 1 only in the second" in out
    assert re.search(r"overlap of the first 100 +mean 0\.750", out)
    assert re.search(r"Title 1 item-1 +2 +1 +-1", out)
    assert f"shortlist diff {pair[0]} {pair[1]} --html diff.html --set paths.store={root}" in out, "of the same store"


def test_the_verb_writes_the_page_where_it_is_told_to(
    root: Path, pair: tuple[str, str], verb: Verb, tmp_path: Path
) -> None:
    code, out, _ = verb("diff", *pair, "--html", "pages/diff.html")
    assert (code, "written: pages/diff.html" in out) == (0, True)
    written = tmp_path / "pages" / "diff.html"
    assert written.read_text(encoding="utf-8") == page_of(diff(root, *pair))
    assert verb("diff", *pair, "--html", "pages/diff.html")[0] == 0, "an older page is replaced"
    assert list(written.parent.iterdir()) == [written]


def test_the_page_takes_the_place_of_a_file_only(pair: tuple[str, str], verb: Verb, tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    (folder := pages / "page").mkdir(parents=True)
    os.mkfifo(pipe := pages / "pipe")
    for path in (pipe, folder):
        code, _, err = verb("diff", *pair, "--html", str(path))
        assert (code, f"--html: {path} is there, and is no file" in err) == (2, True)
    assert (pipe.is_fifo(), folder.is_dir()) == (True, True)
    assert {path.name for path in pages.iterdir()} == {"page", "pipe"}


def test_the_verb_speaks_json_and_takes_a_smaller_sample(root: Path, pair: tuple[str, str], verb: Verb) -> None:
    report = msgspec.json.decode(verb("diff", *pair, "--json")[1], type=DiffReport)
    assert report == diff(root, *pair)
    few = json.loads(verb("diff", *pair, "--json", "--users", "2")[1])
    assert few["users_both"] + few["users_only_a"] + few["users_only_b"] == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["diff", "../../etc", "20260101T000000Z-00000000"], "is not the name of a version"),
        (["diff", "20260101T000000Z-00000000", "20260101T000000Z-00000000"], "is not there"),
        (["diff", "20260101T000000Z-00000000"], ""),
        (["diff", "a", "b", "--users", "0"], ""),
    ],
)
def test_a_mistake_exits_2(verb: Verb, argv: list[str], message: str) -> None:
    code, _, err = verb(*argv)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
