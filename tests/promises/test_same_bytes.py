"""Promise 7: the same inputs give the same bytes. Builds by Spark are in tests/jobs/test_build.py and the soak."""

from __future__ import annotations

from pathlib import Path

from promises import same_bytes


def test_crowded_killed_and_repeated_tasks_write_the_same_shard(folder: Path) -> None:
    outcome = same_bytes.run(2, 12, folder)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried == 12
    assert outcome.counts["attempts killed"] > 0
