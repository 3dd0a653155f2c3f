"""`shortlist outcomes`: what users did with what they were shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from asgi_client import AsgiClient
from serving_shop import Shop

import shortlist
from reranker.app import create_app
from reranker.outcomes import FEWEST_USERS, Outcome, Outcomes, margin_of, outcomes
from reranker.serving_log.reading import segments
from reranker.serving_log.records import AnswerRecord, EventsRecord, LoggedEvent, Record, ShownItems, encode
from reranker.serving_log.segments import SegmentWriter
from reranker.terminal import print_outcomes
from schemas.config import Config
from schemas.config_file import load_config
from schemas.serving_config import Log

NOON = 1_800_014_400.0
"""2027-01-15 12:00 UTC."""
DAY = 86_400.0


def answer(
    request_id: str,
    items: str,
    *,
    user: str = "ann",
    at: float = NOON,
    version: str = "v1",
    placement: str = "home",
    rungs: Sequence[str] = (),
) -> AnswerRecord:
    """One answer with an item for each letter."""
    shown = ShownItems([*items], [*rungs] or ["personal"] * len(items), [*range(1, len(items) + 1)], b"", b"")
    rung = shown.rungs[0] if items else "empty"
    return AnswerRecord(
        request_id, user, at, version, 1, "s", 10, [], 0, {}, [], None, None, None,
        shown, rung, [], None, False, 0, 0, placement,
    )  # fmt: skip


def event(request_id: str | None, item: str, kind: str = "view", *, at: float = NOON + 60.0) -> EventsRecord:
    return EventsRecord(at, [LoggedEvent("ann", item, kind, at, request_id)])


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(None, [f"paths.events={tmp_path / 'events'}"], environ={})


def log(config: Config, *records: Record) -> None:
    Path(config.paths.events).mkdir(exist_ok=True)
    writer = SegmentWriter(Path(config.paths.events), Log(), lambda: NOON)
    writer.append([encode(record) for record in records])
    writer.close()


def found(config: Config, by: str, *, days: float = 1.0) -> Outcomes:
    return outcomes(config, by, NOON - days * DAY, NOON + DAY)


def groups(config: Config, by: str) -> dict[str, tuple[int, int, dict[str, int]]]:
    return {of.group: (of.answers, of.clicked, of.events) for of in found(config, by).groups}


def test_each_group_has_its_answers_its_clicks_and_the_items_by_type(config: Config) -> None:
    log(
        config,
        event("r1", "b", "purchase"),  # another worker's segment may come before the answer's
        answer("r1", "abc", user="ann", version="v1"),
        answer("r2", "abc", user="bob", version="v2", placement="basket"),
        answer("r3", "cd", user="bob", version="v2", at=NOON + 13 * 3600.0, rungs=["personal", "popular"]),
        answer("r4", "", user="cid", version="v2"),
    )
    log(config, event("r1", "b"), event("r1", "c"), event("r3", "d"))
    assert groups(config, "version") == {
        "v1": (1, 1, {"purchase": 1, "view": 2}),
        "v2": (3, 1, {"view": 1}),
    }
    assert groups(config, "day") == {
        "2027-01-15": (3, 1, {"purchase": 1, "view": 2}),
        "2027-01-16": (1, 1, {"view": 1}),
    }
    assert groups(config, "placement") == {
        "basket": (1, 0, {}),
        "home": (3, 2, {"purchase": 1, "view": 3}),
    }
    assert groups(config, "rung") == {
        "empty": (1, 0, {}),
        "personal": (3, 1, {"purchase": 1, "view": 2}),
        "popular": (1, 1, {"view": 1}),
    }
    assert groups(config, "position") == {
        "1": (3, 0, {}),
        "2": (3, 2, {"purchase": 1, "view": 2}),
        "3": (2, 1, {"view": 1}),
    }
    assert [of.users for of in found(config, "version").groups] == [1, 2]


def test_positions_are_in_the_order_of_numbers(config: Config) -> None:
    log(config, answer("r1", "abcdefghijkl"))
    assert [of.group for of in found(config, "position").groups] == [str(place) for place in range(1, 13)]


def test_what_is_no_click_counts_for_nothing_and_a_repeated_one_once(config: Config) -> None:
    changed = load_config(
        None, [f"paths.events={config.paths.events}", "data.interactions.event_weights.view=0.0"], environ={}
    )
    log(
        config,
        answer("r1", "ab"),
        event("r1", "a", "impression"),
        event("r1", "b", "cart"),
        event("r1", "b", "cart", at=NOON + 90.0),
        event("r1", "a", "view"),
    )
    assert groups(changed, "version") == {"v1": (1, 1, {"cart": 1})}
    assert groups(config, "version") == {"v1": (1, 1, {"cart": 1, "view": 1})}


def test_what_joins_no_answer_is_counted_apart(config: Config) -> None:
    log(
        config,
        answer("r0", "ab", at=NOON - 2 * DAY),
        answer("r1", "ab"),
        event("r0", "a"),  # of an answer before that time
        event("r1", "z"),  # was not shown
        event("r9", "a"),  # of no logged answer
        event("r1", "a"),
        event(None, "a"),
        event(None, "a", "impression"),
        event(None, "a", at=NOON - 2 * DAY),
    )
    told = found(config, "version")
    assert (told.astray, told.nameless) == (3, 1)
    assert told.groups == [Outcome("v1", 1, 1, 1, None, {"view": 1})]


def test_the_torn_tail_of_a_killed_worker_is_told_once(config: Config) -> None:
    log(config, answer("r1", "ab"), answer("r2", "ab"))
    (segment,) = segments(Path(config.paths.events))
    segment.write_bytes(segment.read_bytes()[:-3])
    told = found(config, "version")
    assert (told.groups[0].answers, told.torn_bytes > 3) == (1, True)
    assert told.torn_bytes == len(segment.read_bytes()) - 16 - 8 - len(encode(answer("r1", "ab")))


def test_the_interval_holds_the_truth_in_95_of_a_hundred_samples_of_users_who_differ() -> None:
    random = np.random.default_rng(5)
    kinds = np.array([[1, 0.05], [20, 0.4]])  # answers and share of clicks: who asks often clicks more
    truth = (kinds[:, 0] @ kinds[:, 1]) / kinds[:, 0].sum()
    by_users, by_answers = 0, 0
    for _ in range(1000):
        answers, likely = kinds[random.integers(2, size=400)].T
        answers = answers.astype(int)
        clicked = random.binomial(answers, random.beta(2 * likely, 2 * (1 - likely)))
        share = clicked.sum() / answers.sum()
        margin = margin_of(np.column_stack([answers, clicked]).tolist())
        assert margin is not None
        by_users += abs(share - truth) <= margin
        by_answers += abs(share - truth) <= 1.96 * (share * (1 - share) / answers.sum()) ** 0.5
    assert 930 <= by_users <= 970
    assert by_answers < 700, "answers of one user are alike: to take each for a draw of its own promises too much"


def test_a_few_users_have_no_interval() -> None:
    users = [[1, 0], [3, 2]] * FEWEST_USERS
    assert margin_of(users[: FEWEST_USERS - 1]) is None
    assert margin_of(users[:FEWEST_USERS]) is not None


@pytest.mark.parametrize("clicked", [0, 5], ids=["none", "all"])
def test_where_no_answer_differs_from_another_there_is_no_interval(clicked: int) -> None:
    assert margin_of([[5, clicked]] * 1000) is None, "it would be of no width, and chance is not gone"


def test_what_was_served_and_clicked_is_told_at_the_terminal_and_as_json(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.publish("a")
    with AsgiClient(create_app(shop.config())) as client:
        for user in ("u0", "u1", "nobody"):
            told = client.post("/v1/recommend", {"user": user, "k": 5}).json()
            if user != "u1":
                shown = {"user": user, "item": told["items"][1]["item"], "request_id": told["request_id"]}
                events = [
                    {**shown, "event": "view"},
                    {**shown, "event": "purchase"},
                    {"user": user, "item": "a01", "event": "view"},
                ]
                client.post("/v1/events", {"events": events})
    capsys.readouterr()  # the server's log
    store = ["--set", f"paths.store={shop.root}"]
    assert shortlist.run(["outcomes", "--json", *store]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "by": "version",
        "groups": [
            {
                "group": shop.current(), "answers": 3, "users": 3, "clicked": 2, "margin": None,
                "events": {"purchase": 2, "view": 2}, "share": 2 / 3,
            }
        ],
        "nameless": 2,
        "astray": 0,
        "torn_bytes": 0,
    }  # fmt: skip
    assert shortlist.run(["outcomes", "--by", "rung", *store]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["personal", "2", "2", "50.00", "%", "1", "1"]
    assert lines[2] == ["popular", "1", "1", "100.00", "%", "1", "1"]
    assert " ".join(lines[3]) == "2 events name no answer: send its request_id along with them"


def test_no_number_is_cut_off_where_there_is_no_terminal_to_be_as_wide_as(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    version = "20261125T031500Z-3f9c0a1b"
    types = dict.fromkeys(("cart", "click", "purchase", "rating", "share", "view", "wish"), 1348)
    print_outcomes(Outcomes("version", [Outcome(version, 66451, 8000, 6600, 0.0023, types)], 0, 0, 0))
    names, numbers = (line.split() for line in capsys.readouterr().out.splitlines())
    assert names == ["version", "answers", "users", "clicked", *types]
    assert numbers == [version, "66451", "8000", "9.93", "±", "0.23", "%", *["1348"] * 7]


def test_a_log_without_answers_and_an_unknown_group_are_told(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    store = ["--set", f"paths.store={shop.root}"]
    (shop.root / "versions").mkdir(parents=True)
    assert shortlist.run(["outcomes", "--days", "3", *store]) == 2
    assert "the log has no answer of the last 3 days" in capsys.readouterr().err
    assert shortlist.run(["outcomes", "--by", "user", *store]) == 2
    assert "'user': wanted one of version, day, placement, holdout, rung, position" in capsys.readouterr().err
