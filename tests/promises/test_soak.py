"""The soak itself: it adds up, goes on where it was, notices what breaks, and README.md says what its report says."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from promises import report, sources
from promises.catalogue import PROMISES, Technique
from promises.outcome import Outcome
from promises.soak import Screen, Soak

QUESTIONS = PROMISES[7]
OPTIONS = argparse.Namespace(scale=1.0, minutes_share=1.0, jobs=2, fresh=False)


def test_the_table_in_the_readme_is_made_of_the_report() -> None:
    found = json.loads(report.REPORT.read_text(encoding="utf-8"))
    assert report.table_in_readme() == report.table(found), "make soak SOAK=--readme"
    assert list(found["promises"]) == [str(promise.number) for promise in PROMISES]


def test_each_promise_names_a_test_file_that_is_there() -> None:
    for promise in PROMISES:
        assert (report.ROOT / promise.test).is_file()
        for technique in promise.techniques:
            assert callable(technique.load())


def test_a_soak_goes_on_where_it_was(tmp_path: Path) -> None:
    for trials, tried in ((20, 20), (40, 40), (40, 40)):
        with Screen() as screen:
            soak = Soak(tmp_path, OPTIONS, screen)
            soak.run(QUESTIONS, Technique("answers", "time_to_live.run_answers", trials, 20, 1))
        ((name, progressed),) = soak.found()
        assert (name, progressed.batches, progressed.outcome.tried) == ("answers", trials // 20, tried)
        assert progressed.outcome.violations == 0, progressed.outcome.shown


def test_a_batch_that_fails_has_broken_its_promise(tmp_path: Path) -> None:
    with Screen() as screen:
        soak = Soak(tmp_path, OPTIONS, screen)
        soak.run(QUESTIONS, Technique("no such technique", "time_to_live.run", 1, 1, 1))
    progressed = soak._read(Technique("no such technique", "time_to_live.run", 1, 1, 1))
    assert progressed is not None
    assert progressed.outcome.violations == 1
    assert "KeyError" in progressed.outcome.shown[0]


def test_a_finding_depends_on_its_trials_and_on_all_that_they_import() -> None:
    names = {path.name for path in sources._imported_by(sources.TESTS / "promises" / "leaks.py")}
    assert {"leaks.py", "flips_over_http.py", "http_load.py", "tiny_store.py", "serving_shop.py"} <= names
    assert "power_cuts.py" not in names
    assert sources.digest_of("leaks") != sources.digest_of("power_cuts")


def test_outcomes_add_up() -> None:
    one, other = Outcome(tried=2), Outcome(tried=3)
    one.violate("first")
    one.count("kills", 4)
    other.count("kills")
    other.raise_to("longest", 2.0)
    for milliseconds in range(1, 1001):
        (one if milliseconds % 2 else other).spread("answer", milliseconds / 1000)
    one.add(other)
    assert (one.tried, one.violations, one.shown, one.counts, one.highest) == (
        5, 1, ["first"], {"kills": 5}, {"longest": 2.0},
    )  # fmt: skip
    assert one.percentile("answer", 50) == pytest.approx(0.5, rel=0.02)
    assert one.percentile("answer", 99.9) == pytest.approx(0.999, rel=0.02)
    assert one.percentile("nothing", 50) is None
