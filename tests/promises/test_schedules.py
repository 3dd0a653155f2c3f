"""Promise 6: retention never removes what is used, needs no clock for that, and never fails a publish."""

from __future__ import annotations

from pathlib import Path

from promises import schedules


def test_a_store_is_as_a_dictionary_says_whatever_happens_to_it(folder: Path) -> None:
    outcome = schedules.run(11, 40, folder)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried >= 40
    assert outcome.counts["versions removed"] > 0
