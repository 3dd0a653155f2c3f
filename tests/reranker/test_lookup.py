"""`shortlist lookup`: the server's answer at the terminal."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import pytest
from asgi_client import AsgiClient
from serving_shop import Shop

import shortlist
from reranker.app import create_app
from reranker.cli import _event
from reranker.recommend import open_reranker


def run(shop: Shop, *argv: str) -> int:
    return shortlist.run(["lookup", *argv, "--set", f"paths.store={shop.root}"])


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(str(tmp_path))


def test_the_table_has_rank_item_title_scores_and_why(stocked_shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(stocked_shop, "u0", "--k", "3") == 0
    head, facts, names, *rows = capsys.readouterr().out.splitlines()
    assert head == "u0: answered from the stored list (rung personal)"
    assert stocked_shop.current() in facts
    assert names.split("  ")[0] == "rank"
    for name in ("item", "title", "base score", "final score", "why"):
        assert name in names
    assert len(rows) == 3
    assert "number 1 of your list" in rows[0]


def test_the_rules_of_a_placement_hold(stocked_shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    rule = '{name = "r", where = "id == \'a00\'", action = "exclude", placements = ["basket"]}'
    for placement, is_shown in (("home", True), ("basket", False)):
        assert run(stocked_shop, "u0", "--placement", placement, "--json", "--set", f"serve.rules=[{rule}]") == 0
        assert ("a00" in [item["item"] for item in json.loads(capsys.readouterr().out)["items"]]) == is_shown


def test_an_answer_that_is_not_for_a_terminal_has_one_line_for_each_item_whatever_its_length(
    stocked_shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert run(stocked_shop, "u0", "--k", "3", "--session", "a31") == 0
    _, _, _, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 3
    for row in rows:
        assert "Title of a" in row
        assert row.rstrip().endswith(" of your list")


def test_an_unknown_user_is_told_which_rung_answered(stocked_shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(stocked_shop, "nobody", "--segment", "DE") == 0
    said = capsys.readouterr().out
    assert "nobody is not in this version: answered from what is popular in the segment (rung segment)" in said


def test_a_session_shows_in_the_reasons(stocked_shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(stocked_shop, "u0", "--session", "a31:cart,nothing", "--exclude", "a00,a01") == 0
    said = capsys.readouterr().out
    assert "because you looked at Title of a31" in said
    assert "1 session event of unknown items" in said
    assert "a00" not in said


def test_what_is_wrong_with_a_rule_is_said_beside_the_answer_and_not_in_it(
    stocked_shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = "serve.rules=[{name='r', where='colour == \"red\"', action='exclude'}]"
    assert run(stocked_shop, "u0", "--json", "--set", rule) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["rung"] == "personal"
    assert "a rule does not hold" in said.err


def test_an_event_type_of_your_own_table_is_known_in_a_session(
    stocked_shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    types = 'data.interactions.event_weights={view = 1.0, purchase = 1.0, "4.5" = 1.0}'
    assert run(stocked_shop, "u0", "--session", "a31:4.5", "--set", types) == 0
    said = capsys.readouterr().out
    assert "because you looked at Title of a31" in said
    assert "unknown items" not in said


def test_json_is_what_the_server_answers(
    stocked_shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()  # the same for both: an item's age counts
    monkeypatch.setattr("reranker.recommend.open_reranker", partial(open_reranker, now=lambda: now))
    assert run(stocked_shop, "u0", "--k", "5", "--session", "a31", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    fields = {"user": "u0", "k": 5, "session": [{"item": "a31"}], "explain": True}
    with AsgiClient(create_app(stocked_shop.config(), now=lambda: now)) as client:
        served = client.post("/v1/recommend", fields).json()
    for answer in (printed, served):
        del answer["request_id"]
    assert printed == served


def test_a_store_without_a_version_is_an_error_with_the_next_command(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    (shop.root / "versions").mkdir(parents=True)
    assert run(shop, "u0") == 1
    assert "next: shortlist" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [("u0", "--k", "0"), ("u0", "--k", "1001"), ("",), ("u" * 512,)])
def test_arguments_out_of_bounds_exit_2(
    stocked_shop: Shop, argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(stocked_shop, *argv) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "item", "event"),
    [("i1", "i1", "view"), ("i1:cart", "i1", "cart"), ("urn:item:7", "urn:item:7", "view"), (":cart", ":cart", "view")],
)
def test_an_event_type_is_only_taken_for_one_when_it_is_known(text: str, item: str, event: str) -> None:
    found = _event(text, {"view": 1.0, "cart": 2.0})
    assert (found["item"], found.get("event", "view")) == (item, event)


def test_an_id_cannot_move_the_cursor_of_a_terminal(stocked_shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(stocked_shop, "no\x1b[2Jbody\n[red]") == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "no\\x1b[2Jbody\\n[red] is not in this version" in said


def test_the_terminal_knows_what_was_posted_to_the_server(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.publish("a")
    assert run(shop, "u0", "--json") == 0
    assert not (shop.root / "sessions").exists()
    with AsgiClient(create_app(shop.config())) as client:
        client.post("/v1/events", {"events": [{"user": "u0", "item": "a20", "event": "cart"}]})
        served = client.post("/v1/recommend", {"user": "u0", "k": 5}).json()
    capsys.readouterr()
    assert run(shop, "u0", "--k", "5", "--json") == 0
    items = json.loads(capsys.readouterr().out)["items"]
    assert [item["item"] for item in items] == [item["item"] for item in served["items"]]
    assert "as in this session" in items[0]["why"]


@pytest.mark.parametrize("argv", [["lookup", "u0"], ["outcomes"], ["skew"]])
def test_a_store_that_is_not_there_is_told_and_not_called_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    assert shortlist.run([*argv, "--set", f"paths.store={tmp_path / 'stroe'}"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"there is no store at {tmp_path / 'stroe'}" in err
