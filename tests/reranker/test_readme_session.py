"""README's session, worked through: its commands work as they stand, and show what it says that they show."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from serving_shop import Shop

import shortlist

README = (Path(shortlist.__file__).parent / "README.md").read_text(encoding="utf-8")
SECTION = README.split("\n## A session, step by step\n")[1].split("\n## ")[0]
COMMANDS = re.findall(r"^\.venv/bin/shortlist (lookup .*)$", SECTION, re.MULTILINE)
CLICKED = ("a12", "a14", "a16")


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def run(shop: Shop, command: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """A command of the section, word by word, but for the user, the items and the shop."""
    words = shlex.split(command)
    words[1] = "u0"
    if "--session" in words:
        place = words.index("--session") + 1
        assert words[place].count(",") == len(CLICKED) - 1, "three clicks"
        words[place] = ",".join(CLICKED)
    place = words.index("--config")
    words[place : place + 2] = ["--set", f"paths.store={shop.root}"]
    assert shortlist.run(words) == 0
    return capsys.readouterr().out.splitlines()


def test_the_same_user_before_and_after_three_clicks(stocked_shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = COMMANDS
    assert shlex.split(first)[1] == shlex.split(second)[1], "the same user"
    before, after = run(stocked_shop, first, capsys), run(stocked_shop, second, capsys)
    assert all("of your list" in row and "because" not in row for row in before[3:])
    assert len(before) == len(after) == 8, "two lines, the head of the table, five items"
    assert "because you looked at Title of a1" in after[3]
    assert {row.split()[1][:2] for row in before[3:]} == {"a0"}
    assert after[3].split()[1][:2] == "a1"


def test_the_printed_answers_are_those_of_the_printed_commands() -> None:
    tables = re.findall(r"^rank .*\n((?: +\d .*\n)+)", SECTION, re.MULTILINE)
    assert [table.count("\n") for table in tables] == [5, 5]
    session = shlex.split(COMMANDS[1])
    clicked = session[session.index("--session") + 1].split(",")
    assert "because" not in tables[0]
    assert "because you looked at" in tables[1]
    assert not set(clicked) & set(re.findall(r"\bi\d{7}\b", tables[1])), "what was clicked is not shown again"
