"""Promise 8: time to live is exact, at each reading, under a clock that jumps."""

from __future__ import annotations

from pathlib import Path

from promises import time_to_live


def test_a_record_expires_on_its_very_second(folder: Path) -> None:
    outcome = time_to_live.run(4, 20_000, folder)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried == 20_000


def test_answers_expire_with_the_record_and_come_back_with_the_clock(folder: Path) -> None:
    outcome = time_to_live.run_answers(4, 400, folder)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried == 400
