"""Promise 11: whatever is sent gets an answer that is documented, and is no fault of the server."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzed_requests import Fuzzer, Request
from serving_shop import Shop

from promises import fuzz
from promises.fuzz import Judge
from promises.outcome import Outcome


def test_some_thousand_fuzzed_requests_find_no_fault(folder: Path) -> None:
    outcome = fuzz.run_long(3, 4_000, folder)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried == 4_000
    for status in (200, 400, 404, 405, 413, 415, 422):
        assert outcome.counts[f"answered {status}"] >= 5, "the fuzz reaches everything"
    assert outcome.counts["lines of the log"] > 20


def test_no_user_stands_in_the_log_also_when_a_record_is_damaged(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "store")
    shop.publish("a")
    outcome = fuzz.fuzz(shop, 5, 1_500, damaged="ü2")
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.counts["damages in the log"] > 3
    assert outcome.counts["answered 503"] > 0


def test_the_same_seed_makes_the_same_requests_and_shared_values_stay_as_they_are() -> None:
    first, second = Fuzzer(7, ["u0"]), Fuzzer(7, ["u0"])
    assert [first.next() for _ in range(500)] == [second.next() for _ in range(500)]


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (500, b'{"error": "x", "message": "y"}', "fault"),
        (503, b'{"error": "x", "message": "y"}', "fault"),
        (418, b'{"error": "x", "message": "y"}', "does not know"),
        (400, b'{"error": "x", "message": "y"}', "called malformed"),
        (422, b'{"error": "x", "message": "y"}', "no field"),
        (422, b'{"error": "x", "message": "", "field": "k"}', "no message"),
        (200, b'{"score": NaN}', "no JSON"),
    ],
)
def test_the_judge_finds_what_is_wrong(status: int, body: bytes, problem: str) -> None:
    outcome = Outcome()
    documented = [("POST", fuzz.re.compile("/v1/recommend"), {200, 400, 422, 500, 503})]
    request = Request("POST", "/v1/recommend", b"", [], [b'{"user": "u0"}'])
    Judge(outcome, documented, "").judge(request, status, body)
    assert (outcome.tried, outcome.violations) == (1, 1)
    assert problem in outcome.shown[0]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"level": "error", "event": "request failed"}', "an error"),
        ('{"level": "info", "event": "x", "exception": "Traceback"}', "a traceback"),
        ('{"level": "info", "event": "x", "user": "somebody-3"}', "a user"),
        ('{"level": "info", "event": "x", "user": "u0"}', "a user"),
    ],
)
def test_the_judge_reads_the_log(line: str, problem: str) -> None:
    outcome = Outcome()
    Judge(outcome, [], "u0").judge_log(line)
    assert outcome.violations == 1
    assert problem in outcome.shown[0]


def test_the_judge_finds_memory_that_grows() -> None:
    outcome = Outcome()
    judge = Judge(outcome, [], "")
    hoard = []
    for step in range(20):
        judge.look(step / 20)
        hoard.append(bytearray(b"x" * 3_000_000))
    judge.judge_memory()
    assert outcome.violations == 1, len(hoard)
