"""`shortlist skew`: signals of logged answers, made again; alike, or which are not."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import serving_shop
from asgi_client import AsgiClient
from serving_shop import Shop

import shortlist
from prediction_store import durable
from prediction_store.layout import version_path
from reranker import signals, stability
from reranker.answered import numbers
from reranker.app import create_app
from reranker.serve import ONE_THREAD
from reranker.serving_log.reading import read_log, segments
from reranker.serving_log.records import AnswerRecord, encode
from reranker.serving_log.segments import SegmentWriter
from reranker.signals import default_weights
from reranker.skew import sample, skew
from reranker.stability import spread_of
from schemas.ranker import LearnedFrom
from schemas.serving_config import Log


@pytest.fixture(autouse=True)
def no_traces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in ONE_THREAD.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def served(shop: Shop) -> Shop:
    """A shop with twelve answers in its log."""
    shop.publish("a")
    with AsgiClient(create_app(shop.config())) as client:
        for number in range(12):
            session = [{"item": f"a{number:02}", "time": time.time() - 60.0 * number}]
            user = ["u0", "u1", "ü2", "nobody"][number % 4]
            client.post("/v1/recommend", {"user": user, "k": 10, "session": session})
    return shop


def run(shop: Shop, *argv: str) -> int:
    return shortlist.run(["skew", *argv, "--set", f"paths.store={shop.root}"])


def records(shop: Shop) -> list[AnswerRecord]:
    found = read_log(shop.root / "events", pytest.fail)
    return [record for record in found if isinstance(record, AnswerRecord)]


def rewritten(shop: Shop, change: Callable[[AnswerRecord], AnswerRecord]) -> None:
    changed = [change(record) for record in records(shop)]
    durable.remove_folder(shop.root / "events")
    writer = SegmentWriter(shop.root / "events", Log(), time.time)
    writer.append([encode(record) for record in changed])
    writer.close()


def test_what_was_served_is_found_again_bit_for_bit(served: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(served, "--tolerance", "0", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["answers"], found["missing_items"], found["passed_over"]) == (12, 0, {})
    assert found["signals"].keys() == set(records(served)[0].shown.signals)
    for facts in found["signals"].values():
        assert (facts["values"], facts["unequal"], facts["most"]) == (120, 0, 0.0)


def test_a_difference_is_told_with_its_signal_share_mean_and_maximum(
    served: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    def raised(record: AnswerRecord) -> AnswerRecord:
        shown = record.shown
        values = numbers(shown.values).reshape(len(shown.items), -1).copy()
        column = shown.signals.index("base_score")
        values[0, column] += np.float32(0.5) if not np.isnan(values[0, column]) else 0
        return msgspec.structs.replace(record, shown=msgspec.structs.replace(shown, values=values.tobytes()))

    rewritten(served, raised)
    (changed,) = (signal for signal in skew(served.config(), 12).signals if signal.unequal)
    assert (changed.name, changed.unequal, changed.values) == ("base_score", 12, 120)
    assert changed.most == pytest.approx(0.5)
    assert changed.mean == pytest.approx(0.05)
    assert run(served) == 1
    said = capsys.readouterr()
    assert "10.00 %" in said.out
    assert said.err.count("base_score") == 1
    assert run(served, "--tolerance", "0.6") == 0


def test_a_signal_that_is_computed_otherwise_now_is_found(served: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = signals.BY_NAME["session_category"]
    other = dataclasses.replace(usual, compute=signals.BY_NAME["session_brand"].compute)
    monkeypatch.setitem(signals.BY_NAME, "session_category", other)
    assert run(served) == 1
    assert [signal.name for signal in skew(served.config(), 12).signals if signal.unequal] == ["session_category"]


def test_what_cannot_be_made_again_is_passed_over_and_counted(served: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    rewritten(served, lambda record: record)  # as an older Shortlist wrote it, without the settings
    assert skew(served.config("serve.neighbour_candidates=1"), 12).passed_over == {"settings unknown": 12}
    first = served.current()
    served.publish("b")
    durable.remove_folder(version_path(served.root, first))
    assert skew(served.config(), 5).passed_over == {"version retired": 5}
    capsys.readouterr()
    assert run(served) == 2
    said = capsys.readouterr()
    assert "no answer that can be made again" in said.err
    assert said.out == "0 answers made again; passed over, version retired: 12\n", "no empty table"


def test_answers_of_other_settings_and_live_facts_are_compared_too(served: Shop) -> None:
    others = ("serve.neighbour_candidates=1", "serve.session_half_life_seconds=9")
    with AsgiClient(create_app(served.config(*others))) as client:
        for number in range(6):
            session = [{"item": f"a{number:02}", "time": time.time() - 60.0}]
            top = client.post("/v1/recommend", {"user": "u0", "k": 10, "session": session}).json()["items"][0]
            client.post("/v1/items", {"items": [{"item": top["item"], "hidden": True}]})
    found = skew(served.config(), 18)
    assert (found.answers, found.passed_over, found.missing) == (18, {}, 0)
    assert {signal.unequal for signal in found.signals} == {0}


def test_what_is_torn_is_passed_over_and_told(served: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    (segment,) = segments(served.root / "events")
    served.publish("b")
    with AsgiClient(create_app(served.config())) as client:
        client.post("/v1/recommend", {"user": "u0", "k": 10})
    segment.write_bytes(b"\0" + segment.read_bytes()[1:])
    assert run(served) == 0
    told = f"1 answers made again; {segment.stat().st_size} bytes of torn tails could not be read\n"
    assert told in capsys.readouterr().out
    assert run(served, "--json") == 0
    assert json.loads(capsys.readouterr().out)["torn_bytes"] == segment.stat().st_size


def test_settings_that_decide_no_answer_pass_over_none(served: Shop) -> None:
    assert run(served, "--set", "store.keep_versions=9", "--set", "serve.max_events=501") == 0
    assert skew(served.config("store.live_items_mb=64"), 12).answers == 12


def test_a_version_that_does_not_tell_what_taught_it_has_no_psi(
    served: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(served, "--most-psi", "0") == 0
    assert "does not tell what its weights were learned from: no PSI" in capsys.readouterr().out
    assert run(served, "--json") == 0
    drift = json.loads(capsys.readouterr().out)["drift"]
    assert drift == {"version": served.current(), "learned_from": None, "answers": 0, "signals": {}}


def test_signals_that_are_not_as_where_the_weights_were_learned_are_told(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stability, "FEWEST_ANSWERS", 12)
    # What twelve answers serve is 1 at the top; it was learned from lists where it is 3.
    spreads = {"base_score": spread_of(np.full(100, 3, np.float32))}
    weights = msgspec.structs.replace(default_weights("space"), learned_from=LearnedFrom("log", 5, spreads))
    monkeypatch.setattr(serving_shop, "default_weights", lambda space_id: weights)
    shop.publish("a")
    with AsgiClient(create_app(shop.config())) as client:
        for number in range(12):
            client.post("/v1/recommend", {"user": "u0", "session": [{"item": f"a{number:02}", "time": time.time()}]})
    assert run(shop) == 0
    said = capsys.readouterr().out
    assert f"12 answers of version {shop.current()} against the 5 served lists" in said
    assert re.search(r"base_score .* changed *\n", said)
    assert said.count("changed") == 1
    assert run(shop, "--most-psi", "0.25") == 1
    assert "PSI above 0.25: base_score\n" in capsys.readouterr().err


def test_a_sample_is_the_same_for_the_same_log_in_any_order(served: Shop) -> None:
    folder = served.root / "events"
    before = [record.request_id for record in sample(folder, 5, pytest.fail)]
    assert len(set(before)) == 5
    everything = records(served)
    durable.remove_folder(folder)
    for part in (everything[7:], everything[:7]):
        writer = SegmentWriter(folder, Log(), time.time)
        writer.append([encode(record) for record in part])
        writer.close()
    assert [record.request_id for record in sample(folder, 5, pytest.fail)] == before
