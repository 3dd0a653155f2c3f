"""What a record carries on to the next: the ways back, the pin, the quarantine; held against a slow account of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prediction_store.succession import REMEMBERED, held_by, opening, remark, way_back
from schemas.history import HistoryRecord

BY = {"who": "ann@host", "why": "", "now": 5.0}
SHA256 = "0" * 64


def name_of(letter: str) -> str:
    return f"20260101T00000{letter}Z-0000000{letter}"


def told(text: str) -> HistoryRecord | None:
    """The last record of "c1 c2 r1 p u q2 f2": cutover to 1, to 2, rollback to 1, pin, unpin, quarantine 2, free it."""
    newest: HistoryRecord | None = None
    for number, word in enumerate(text.split(), 1):
        name = name_of(word[1:] or "0")
        if word[0] == "c":
            newest = opening(newest, number, "cutover", name, SHA256, **BY)
        elif word[0] == "r":
            left = {newest.version: newest.version[-8:]} if newest else {}
            newest = opening(newest, number, "rollback", name, SHA256, abandoned=left, **BY)
        elif newest is not None:
            action = {"p": "pin", "u": "unpin", "q": "quarantine", "f": "release", "x": "retire"}[word[0]]
            newest = remark(newest, number, action, subjects={name: name[-8:]}, **BY)
    return newest


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("", ""),
        ("c1", ""),
        ("c1 c2", "1"),
        ("c1 c2 c3", "21"),
        ("c1 c2 c3 r2", "1"),
        ("c1 c2 c3 r2 r1", ""),
        ("c1 c2 r1 c3", "1"),
        ("c1 c2 c1", "2"),
        ("c1 c2 c3 r1", ""),
        ("c1 c2 r9", "1"),
        ("c1 c2 p0 c3", "21"),
        ("c1 c2 c3 q2", "1"),
        ("c1 c2 c3 q2 f2", "21"),
        ("c1 c2 x9 c3", "21"),
        ("r9", ""),
    ],
)
def test_what_can_be_gone_back_to(text: str, before: str) -> None:
    newest = told(text)
    ways = way_back(newest, [name_of(letter) for letter in "123456789"]) if newest else []
    assert [name[14] for name in ways] == list(before)


def test_what_is_not_on_disk_is_no_way_back() -> None:
    newest = told("c1 c2 c3")
    assert newest is not None
    assert way_back(newest, [name_of("1"), name_of("3")]) == [name_of("1")]


def test_a_quarantine_is_lifted_only_by_name() -> None:
    newest = told("c1 c2 r1 c3 c4")
    assert newest is not None
    assert held_by(newest, name_of("2"), "") == name_of("2")
    assert held_by(newest, name_of("5"), name_of("2")[-8:]) == name_of("2"), "another one of the same inputs"
    assert held_by(newest, name_of("5"), "") is None
    freed = told("c1 c2 r1 c3 c4 f2")
    assert freed is not None
    assert held_by(freed, name_of("2"), name_of("2")[-8:]) is None


WORDS = st.lists(st.tuples(st.sampled_from("ccrpuqfx"), st.sampled_from("12345")).map("".join), min_size=1, max_size=30)


@given(WORDS)
def test_it_carries_what_a_slow_account_of_all_records_finds(words: list[str]) -> None:
    """The account keeps a stack of what was served: a cutover grows it, a rollback cuts it."""
    stack: list[str] = []
    pinned, held, since = 0, set(), 0
    words = [word for place, word in enumerate(words) if word[0] in "cr" or any(w[0] in "cr" for w in words[:place])]
    for number, (action, letter) in enumerate(words, 1):
        if action == "c":
            if letter in stack:
                stack.remove(letter)
            stack.append(letter)
            since = number
        elif action == "r":
            if stack:
                held.add(stack[-1])
            if letter in stack:
                del stack[stack.index(letter) + 1 :]
            else:
                del stack[-1:]
                stack.append(letter)
            since = number
        else:
            pinned = {"p": number, "u": 0}.get(action, pinned)
            held = held | {letter} if action == "q" else held - {letter} if action == "f" else held
    newest = told(" ".join(words))
    assert (newest is None) == (not words)
    if newest is not None:
        assert newest.version == name_of(stack[-1])
        assert newest.before == [name_of(letter) for letter in reversed(stack[:-1])]
        assert (newest.pinned, newest.since) == (pinned, since)
        assert set(newest.quarantined) == {name_of(letter) for letter in held}


@given(WORDS)
def test_rolling_back_ends_and_never_returns(words: list[str]) -> None:
    newest = told(" ".join(words))
    served = []
    while newest is not None and (ways := way_back(newest, [name_of(letter) for letter in "12345"])):
        assert ways[0] not in (newest.version, *served)
        served.append(newest.version)
        left = {newest.version: ""}
        newest = opening(newest, newest.number + 1, "rollback", ways[0], SHA256, abandoned=left, **BY)
    assert len(served) < 6


def test_a_record_names_only_so_many_ways_back() -> None:
    newest: HistoryRecord | None = None
    for number in range(1, 3 * REMEMBERED):
        newest = opening(newest, number, "cutover", f"20260101T000000Z-{number:08x}", SHA256, **BY)
    assert newest is not None
    assert newest.before[0] == f"20260101T000000Z-{3 * REMEMBERED - 2:08x}"
    assert len(newest.before) == REMEMBERED
