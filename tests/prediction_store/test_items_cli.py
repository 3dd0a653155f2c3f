"""`shortlist items`: what it sets, shows and refuses, and that a file is taken whole or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_changes import HOME
from msgspec import UNSET
from shop_store import MakeVersion

import shortlist
from prediction_store.items_file import to_time
from prediction_store.live_items import LiveItems
from schemas.errors import UsageError
from schemas.live_items import ItemFacts


@pytest.fixture
def items(root: Path, make_version: MakeVersion, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `shortlist items …` on a store with a version of twelve items; exit code, output, errors."""
    make_version("a", cut_over=True)

    def run(*argv: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = shortlist.run(["items", *argv, "--set", f"paths.store={root}"])
        return code, *capsys.readouterr()

    return run


def facts_of(root: Path, item: str) -> ItemFacts | None:
    with LiveItems(root) as live:
        return live.get(item)


def test_facts_are_set_shown_and_cleared(items: Any, root: Path) -> None:
    code, output, _ = items("set", "item-0", "item-99", "--hide", "--out-of-stock", "--price", "9.5",
                            "--available-until", "2026-11-22T18:00")  # fmt: skip
    assert code == 0
    assert "2 of 2 items are other than before" in output
    assert "not in the current version, kept for a later one: 1: item-99" in output
    found = facts_of(root, "item-0")
    assert found is not None
    assert (found.hidden, found.in_stock, found.price, found.available_until) == (True, False, 9.5, 1_795_370_400.0)
    assert items("set", "item-0", "--show", "--price", "none")[0] == 0
    shown = items("show", "item-0", "item-2")[1].splitlines()
    assert shown[1].split() == ["item-0", "no", "no*", "no*", "10", "2026-11-22", "18:00*", "Title", "0"]
    assert shown[2].split() == ["item-2", "yes", "yes", "no", "12", "-", "Title", "2"]
    assert [line.split()[0] for line in items("show")[1].splitlines()[1:]] == ["item-0", "item-99"]
    code, output, _ = items("clear", "item-0", "item-99")
    assert (code, "not in the current version: 1: item-99" in output) == (0, True), "of it nothing is kept"
    assert items("show")[1] == "nothing is set\n"


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_of_a_store_that_is_not_there_it_is_not_said_that_nothing_is_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: list[str]
) -> None:
    assert shortlist.run(["items", "show", *how, "--set", f"paths.store={tmp_path / 'nowhere'}"]) == 1
    said = capsys.readouterr()
    assert (said.out, f"there is no store at {tmp_path / 'nowhere'}" in said.err) == ("", True)


def test_a_change_where_no_version_is_served_is_not_told_like_one_that_is_seen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recall that went to another folder than the servers read from."""
    assert shortlist.run(["items", "set", "item-0", "--hide", "--set", f"paths.store={tmp_path}"]) == 0
    told = f"no version is served from {tmp_path}, or it cannot be read, kept for a later one"
    assert told in capsys.readouterr().out


def test_programs_get_json(items: Any) -> None:
    assert json.loads(items("set", "item-0", "zz", "--hide", "--json")[1]) == {"changed": 2, "unknown": ["zz"]}
    (found,) = json.loads(items("show", "item-0", "--json")[1])
    assert found["hidden"] == {"value": True, "source": "live"}
    assert found["price"] == {"value": 10.0, "source": "version"}
    assert json.loads(items("show", "item-1", "--json")[1])[0]["price"]["value"] is None, "NaN is no JSON"


def test_prices_are_shown_as_they_were_given(items: Any, make_version: MakeVersion) -> None:
    make_version("b", columns={"price": np.full(12, 19.99, np.float32)}, cut_over=True)
    items("set", "item-0", "--price", "1234567.89")
    shown = items("show", "item-0", "item-1")[1].splitlines()[1:]
    assert [line.split()[4] for line in shown] == ["1234567.89*", "19.99"]
    assert json.loads(items("show", "item-1", "--json")[1])[0]["price"]["value"] == 19.99


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("set", "a"), "nothing to set"),
        (("set", "a", "--price", "cheap"), "'cheap' is not a price"),
        (("set", "a", "--price", "nan"), "`$.price`"),
        (("set", "a", "--price=-1"), "`$.price`"),
        (("set", "a", "--available-until", "tomorrow"), "'tomorrow' is not a time"),
        (("set", "a", "--available-until", "1.7e12"), "`$.available_until`"),
        (("set", "a", "--available-until", "20261127"), "20261127 is 1970-08-23 12:05 in epoch seconds; wanted"),
        (("set", "a", "--available-until", "2026"), "2026 is 1970-01-01 00:33 in epoch seconds; wanted"),
        (("set", "a", "--available-until", "-1"), "wanted epoch seconds"),
        (("set", "a", "--available-until", "nan"), "'nan' is not a time"),
        (("set", "", "--hide"), "`$.item`"),
        (("set", "ü" * 256, "--hide"), "512 bytes"),
        (("set", "a\udcff", "--hide"), "item 'a\\udcff' is not text in UTF-8"),
        (("show", "unheard-of"), "nothing is known of item 'unheard-of'"),
        (("load", "stock.xml"), "neither .jsonl nor .csv"),
        (("load", "nowhere.csv"), "No such file"),
    ],
)
def test_what_cannot_be_meant_exits_2_and_says_what_was_wrong(items: Any, argv: tuple[str, ...], message: str) -> None:
    code, _, errors = items(*argv)
    assert code == 2
    assert message in errors


GOOD = {
    "f.jsonl": '{"item": "item-0", "in_stock": false, "price": 2}\n\n{"item": "ä,b", "hidden": true}\n'
    '{"item": "item-2", "price": null}\n',
    "f.csv": 'in_stock,item,price,hidden\nno,item-0,2.0,\n,"ä,b",,TRUE\n\n,item-2,none,\n',
}


@pytest.mark.parametrize("name", GOOD)
def test_a_file_is_taken_over(items: Any, root: Path, tmp_path: Path, name: str) -> None:
    items("set", "item-2", "--price", "7", "--hide")
    items("set", "item-0", "--hide")
    (tmp_path / name).write_text(GOOD[name], encoding="utf-8")
    code, output, errors = items("load", str(tmp_path / name))
    assert code == 0, errors
    assert "3 of 3 items" in output
    first, second, third = (facts_of(root, item) for item in ("item-0", "ä,b", "item-2"))
    assert first is not None and second is not None and third is not None
    assert (first.in_stock, first.price, first.hidden) == (False, 2.0, True)
    assert second == ItemFacts(changed_at=second.changed_at, hidden=True)
    assert third == ItemFacts(changed_at=third.changed_at, hidden=True)


def test_what_an_item_is_can_be_set_shown_and_cleared(items: Any, root: Path, tmp_path: Path) -> None:
    assert items("set", "new", "--in-stock", "--title", "A hat, red", "--category", "hats", "--brand", "acme")[0] == 0
    found = facts_of(root, "new")
    assert found == ItemFacts(
        changed_at=found.changed_at, in_stock=True, title="A hat, red", category="hats", brand="acme"
    )  # type: ignore[union-attr]
    shown = items("show", "new")[1].splitlines()[1].split(maxsplit=6)
    assert (shown[1], shown[6]) == ("new", "A hat, red*")
    (tmp_path / "f.csv").write_text('item,title,category,brand\nnew," ",none,"b, c"\nother,none,x,\n')
    assert items("load", str(tmp_path / "f.csv"))[0] == 0
    found = facts_of(root, "new")
    assert found is not None
    assert found == ItemFacts(changed_at=found.changed_at, in_stock=True, title="A hat, red", brand="b, c")
    assert items("set", "new", "--title", "none")[0] == 0
    found = facts_of(root, "new")
    assert found is not None
    assert found.title is UNSET
    code, _, errors = items("set", "new", "--title", "a\udcff")
    assert (code, "title 'a\\udcff' is not text in UTF-8" in errors) == (2, True)


def test_an_item_that_a_file_names_again_is_told(items: Any, root: Path, tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("item,in_stock,price\nitem-0,yes,2\nitem-2,yes,\nitem-0,no,\n")
    code, output, _ = items("load", str(tmp_path / "f.csv"))
    assert (code, output.splitlines()[:2]) == (
        0, ["2 of 2 items are other than before", "named again, and changed in the order given: 1: item-0"]
    )  # fmt: skip
    found = facts_of(root, "item-0")
    assert found is not None
    assert (found.in_stock, found.price) == (False, 2.0)


FINE = '{"item": "item-0", "hidden": true}\n'
BAD: dict[str, tuple[str, bytes, str]] = {
    "half a line": (".jsonl", (FINE + '{"item": "a"').encode(), "line 2: it is not JSON"),
    "a line that is no object": (".jsonl", (FINE + "\n[]\n").encode(), "line 3: Expected `object`"),
    "an unknown fact": (
        ".jsonl",
        (FINE + '{"item": "a", "stock": 1}').encode(),
        "line 2: Object contains unknown field",
    ),
    "a fact given twice": (
        ".jsonl",
        (FINE + '{"item": "a", "price": 1, "price": 2}').encode(),
        "line 2: it is not JSON",
    ),
    "NaN": (".jsonl", (FINE + '{"item": "a", "price": NaN}').encode(), "line 2: Expected `float` >= 0.0"),
    "a surrogate": (".jsonl", (FINE + '{"item": "\\ud800", "hidden": true}').encode(), "line 2: "),
    "a long id": (".jsonl", (FINE + json.dumps({"item": "ü" * 256, "price": 1})).encode(), "line 2: item"),
    "no fact": (".jsonl", (FINE + '{"item": "a"}').encode(), "line 2: it says nothing about item 'a'"),
    "bytes that are not UTF-8": (".jsonl", FINE.encode() + b'{"item": "\xff"}', "line 2: it is not JSON in UTF-8"),
    "deep nesting": (".jsonl", FINE.encode() + b"[" * 99_999, "line 2: it is not JSON"),
    "an unknown column": (".csv", b"item,stock\nitem-0,1\n", "line 1: its columns are item, stock"),
    "a column twice": (".csv", b"item,price,price\nitem-0,1,2\n", "line 1: its columns are"),
    "no head": (".csv", b"", "line 1: its columns are none"),
    "too few cells": (".csv", b"item,price\nitem-0,1\nitem-1\n", "line 3: it has 1 cells; wanted 2"),
    "a truth that is none": (".csv", b"item,hidden\nitem-0,true\nitem-1,maybe\n", "line 3: hidden is 'maybe'"),
    "a price that is none": (".csv", b"item,price\nitem-0,1\nitem-1,cheap\n", "line 3: 'cheap' is not a price"),
    "a day for a time": (".csv", b"item,available_until\nitem-0,none\na,20261127\n", "line 3: 20261127 is 1970-08-23"),
    "a day for a time in JSON": (
        ".jsonl",
        (FINE + '{"item": "a", "available_until": 20261127}').encode(),
        "line 2: Expec",
    ),
    "a price below zero": (".csv", b"item,price\nitem-0,1\nitem-1,-1\n", "line 3: Expected `float` >= 0.0"),
    "no id": (".csv", b"item,price\nitem-0,1\n,1\n", "line 3: Expected `str` of length >= 1"),
    "cells in Latin-1": (".csv", b"item,price\nitem-0,1\n\xe4,1\n", "line 3: it is not CSV in UTF-8"),
    "a quote that does not end": (".csv", b'item,price\nitem-0,1\n"a,1\n', "it is not CSV:"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_file_with_one_bad_line_changes_nothing_and_the_line_is_named(
    items: Any, root: Path, tmp_path: Path, kind: str
) -> None:
    suffix, text, message = BAD[kind]
    path = tmp_path / f"file{suffix}"
    path.write_bytes(text)
    code, _, errors = items("load", str(path))
    assert code == 2
    assert message in errors
    assert "Traceback" not in errors
    assert facts_of(root, "item-0") is None


def test_an_id_is_taken_as_it_stands_blanks_included(items: Any, root: Path, tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("item,price,hidden\n a , 2 , true \n")
    assert items("load", str(tmp_path / "f.csv"))[0] == 0
    found = facts_of(root, " a ")
    assert found is not None
    assert (found.price, found.hidden) == (2.0, True)
    assert facts_of(root, "a") is None


def test_times_are_utc_unless_they_say_otherwise() -> None:
    wanted = 1_795_370_400.0
    for text in (
        "1795370400",
        "2026-11-22T18:00",
        "2026-11-22 18:00:00",
        "2026-11-22T19:00+01:00",
        "2026-11-22T18:00Z",
    ):
        assert to_time(text) == wanted, text
    assert to_time("none") is None
    with pytest.raises(UsageError):
        to_time("")


def test_an_id_cannot_look_like_a_line_of_its_own(items: Any) -> None:
    forged = "a\n9 items\x1b[31m"
    for argv in (("set", forged, "--hide"), ("show",), ("show", forged)):
        code, output, _ = items(*argv)
        assert code == 0
        assert "\x1b" not in output
        assert "a\\n9 items\\x1b[31m" in output
    assert json.loads(items("show", "--json")[1])[0]["item"] == forged


def test_an_error_cannot_move_the_cursor(items: Any, tmp_path: Path) -> None:
    (tmp_path / "stock.csv").write_text("item,\x1b[2J\n")
    code, _, error = items("load", str(tmp_path / "stock.csv"))
    assert code == 2
    assert "\x1b" not in error
    assert "item, \\x1b[2J" in error


def test_changing_an_item_starts_without_anything_heavy(root: Path, make_version: MakeVersion) -> None:
    make_version("a", cut_over=True)
    code = (
        "import sys, shortlist\n"
        f"assert shortlist.run(['items', 'set', 'item-0', '--hide', '--set', 'paths.store={root}']) == 0\n"
        "heavy = 'torch pyspark airflow pandas pyarrow faiss jobs reranker starlette rich.table'.split()\n"
        "heavy = set(heavy) & set(sys.modules)\n"
        "sys.exit(f'loaded {sorted(heavy)}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=HOME, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
