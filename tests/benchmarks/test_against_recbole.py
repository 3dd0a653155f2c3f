"""The benchmark beside RecBole, from end to end on made-up pairs; without RecBole it says what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import against_recbole, measure, recbole_process
from benchmarks.against_recbole import KEYS, Curve, Point, summary

TINY = ["--quick", "--threads", "1", "--dimensions", "8", "--our-epochs", "1", "--steps", "4", "--warm-up", "2"]


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(measure, "RAW", tmp_path / "raw")
    return tmp_path / "raw" / "against_recbole.jsonl"


@pytest.mark.skipif(not recbole_process.PYTHON.exists(), reason="RecBole is not installed: make install-recbole")
def test_what_recbole_learned_comes_back_in_our_order(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """20 of the 215 items left of a liked quarter find 0.093 of what is wanted, 20 of all 1,040 left find 0.019."""
    against_recbole.main([*TINY, "--epochs", "25", "--every", "10"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert tuple(figures) == KEYS
    kept = json.loads(raw.read_text())
    assert kept["summary"] == figures
    bpr = [row for row in kept["rows"] if row["name"] == "RecBole BPR"]
    assert [row["epoch"] for row in bpr] == [10, 20, 25]
    assert bpr[-1]["recall20"] > 0.06
    assert figures["recbole_bpr_epoch_s"] == pytest.approx(bpr[-1]["seconds"] / 25, abs=1e-3)
    lightgcn = next(row for row in kept["rows"] if row["name"] == "RecBole LightGCN")
    assert lightgcn["steps"] == 4
    assert figures["recbole_lightgcn_epoch_s"] == pytest.approx(94 * lightgcn["step_s"], abs=1e-3), "6,000 pairs by 64"


def test_without_recbole_it_measures_ours_and_says_what_is_missing(
    raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(recbole_process, "PYTHON", tmp_path / "nothing")
    against_recbole.main(TINY)
    *lines, last = capsys.readouterr().out.splitlines()
    assert any("make install-recbole" in line for line in lines)
    figures = json.loads(last)
    assert {key for key in KEYS if figures[key] is not None} == {"ours_refine_epoch_s", "ours_recall20", "ours_seconds"}


def test_without_the_data_it_says_so(raw: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    against_recbole.main(["--data", str(tmp_path)])
    *lines, last = capsys.readouterr().out.splitlines()
    assert "nothing is measured" in lines[-1]
    assert json.loads(last) == dict.fromkeys(KEYS)


OURS = Curve("ours", [Point(0, 40.0, 0.05), Point(1, 50.0, 0.06), Point(2, 60.0, 0.07)])


def test_times_are_compared_at_the_quality_that_both_reach() -> None:
    bpr = Curve("BPR", [Point(10, 100.0, 0.03), Point(20, 200.0, 0.055), Point(30, 300.0, 0.054)])
    found = summary(OURS, bpr, 6000.0)
    assert (found["recbole_bpr_epoch_s"], found["ours_refine_epoch_s"]) == (10.0, 10.0)
    assert (found["recbole_bpr_recall20"], found["ours_recall20"], found["ours_seconds"]) == (0.055, 0.07, 60.0)
    assert (found["bpr_seconds_to_its_best"], found["ours_seconds_to_bpr_best"]) == (200.0, 50.0)
    assert (found["bpr_vs_ours"], found["lightgcn_epoch_vs_ours_seconds"]) == (4.0, 100.0)


def test_there_is_no_ratio_where_ours_never_gets_there() -> None:
    found = summary(OURS, Curve("BPR", [Point(1, 10.0, 0.08)]), None)
    assert (found["recbole_bpr_recall20"], found["ours_seconds_to_bpr_best"], found["bpr_vs_ours"]) == (
        0.08,
        None,
        None,
    )
    assert list(against_recbole.conclusions(found)) == ["BPR's recall@20 of 0.0800 is out of reach for ours"]
