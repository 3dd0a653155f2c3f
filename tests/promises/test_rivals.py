"""Promise 10: of publishers at once one wins and the others are told; a dead or stopped one holds nothing up."""

from __future__ import annotations

from pathlib import Path

from promises import rivals


def test_of_eight_that_decide_at_once_one_wins_and_the_others_are_told(folder: Path) -> None:
    outcome = rivals.run(9, 20, folder)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried == 20
    assert outcome.counts["told"] > 20


def test_a_publisher_that_stands_still_or_dies_holds_nothing_up_and_is_told(folder: Path) -> None:
    outcome = rivals.run_stopped(9, 40, folder)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried == 40
    assert outcome.counts["told"] > 0
