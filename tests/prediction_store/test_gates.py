"""The gates: which, found what, wanted what, by how much; nothing to compare with is said and passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shop_store import REPORT, MakeVersion

from prediction_store import layout
from prediction_store.errors import DamagedVersionError, GateRefusedError
from prediction_store.gates import describe, read_report, require_passed, run_gates
from schemas.config import Gates
from schemas.gate_report import Gate, GateReport


def judged(root: Path, name: str, **settings: Any) -> GateReport:
    return run_gates(root, name, Gates(**settings), candidates=1000, now=7)


def gate(report: GateReport, name: str) -> Gate:
    return next(gate for gate in report.gates if gate.name == name)


def test_the_first_version_passes_with_a_note_where_there_is_nothing_to_compare(
    root: Path, make_version: MakeVersion
) -> None:
    report = judged(root, make_version("a"))
    assert (report.passed, report.against, report.at) == (True, "", 7)
    for name in ("users_ratio", "items_ratio", "coverage_ratio", "recall@100_ratio"):
        found = gate(report, name)
        assert (found.passed, found.found) == (True, None)
        assert "no version is current" in found.note


def test_the_report_stands_beside_the_version(root: Path, make_version: MakeVersion) -> None:
    name = make_version("a")
    report = judged(root, name)
    assert read_report(root, name) == report
    assert layout.gate_path(root, name).is_file()
    refused = judged(root, name, min_items=99)
    assert read_report(root, name) == refused, "the last word counts"
    assert [path.name for path in layout.gates_folder(root).iterdir()] == [f"{name}.json"]


WORSE = {**REPORT, "recall": {"20": 0.1, "100": 0.3, "1000": 0.9}, "coverage": 0.4}


@pytest.mark.parametrize(
    ("version", "gates", "which", "found", "wanted", "message"),
    [
        ({"lists": {"ann": range(12)}}, {}, "users_ratio", 1 / 3, 0.9, "found 0.333333, wanted at least 0.9"),
        ({"lists": {"ann": [1], "bob": [2], "cy": [3]}}, {}, "mean_list_share", 1 / 12, 0.5, "83.3% short"),
        ({"lists": {"ann": []}}, {}, "users", 0, 1, "found 0, wanted at least 1, 1 too little"),
        ({"n_items": 6}, {}, "items_ratio", 0.5, 0.9, "6 against 12"),
        ({}, {"min_items": 13}, "items", 12, 13, "1 too little"),
        ({"report": WORSE}, {}, "recall@100_ratio", 0.6, 0.8, "0.3 against 0.5"),
        ({"report": WORSE}, {"recall_at": 20}, "recall@20_ratio", 0.25, 0.8, "0.1 against 0.4"),
        ({"report": WORSE}, {}, "coverage_ratio", 0.5, 0.7, "0.4 against 0.8"),
        ({"report": WORSE}, {"min_coverage": 0.5}, "coverage", 0.4, 0.5, "0.1 too little, 20.0% short"),
        (
            {"report": WORSE},
            {"min_recall_vs_popularity": 1.5},
            "recall@100_vs_popularity",
            1.2,
            1.5,
            "0.3 against 0.25",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_worse_version_is_refused_and_the_message_says_by_how_much(
    root: Path, make_version: MakeVersion, *, version: Any, gates: Any, which: str, found: float, wanted: float,
    message: str,
) -> None:  # fmt: skip
    current = make_version("a", cut_over=True)
    name = make_version("b", **version)
    report = judged(root, name, **gates)
    refused = gate(report, which)
    assert (report.passed, refused.passed, report.against) == (False, False, current)
    assert (refused.found, refused.fail) == (pytest.approx(found), wanted)
    with pytest.raises(GateRefusedError, match=f"version {name} is refused") as error:
        require_passed(report)
    assert f"gate {which}: " in error.value.message
    assert message in error.value.message
    assert error.value.exit_code == 3


def test_an_equal_version_passes(root: Path, make_version: MakeVersion) -> None:
    make_version("a", cut_over=True)
    report = judged(root, make_version("b"), min_recall_vs_popularity=2.0)
    assert report.passed
    require_passed(report)
    assert describe(gate(report, "recall@100_vs_popularity")) == (
        "recall@100_vs_popularity: 2, wanted at least 2 (0.5 against 0.25)"
    )


@pytest.mark.parametrize("report", [{}, {"coverage": "much", "recall": 3}, {"coverage": None}])
def test_what_was_not_measured_has_not_passed(root: Path, make_version: MakeVersion, report: Any) -> None:
    found = judged(root, make_version("a", report=report))
    assert not found.passed
    refused = {gate.name: gate.note for gate in found.gates if not gate.passed}
    assert refused == dict.fromkeys(["coverage", "recall@100"], "not in the evaluation report")
    with pytest.raises(GateRefusedError, match="coverage: not in the evaluation report"):
        require_passed(found)


def test_the_current_version_is_not_compared_with_itself(root: Path, make_version: MakeVersion) -> None:
    report = judged(root, make_version("a", cut_over=True))
    assert report.passed
    assert "this version is the current one" in gate(report, "users_ratio").note


@pytest.mark.leaves_damage
def test_a_damaged_current_version_does_not_stand_in_the_way_of_a_good_one(
    root: Path, make_version: MakeVersion, edit_sealed: Any
) -> None:
    a = make_version("a", cut_over=True)
    edit_sealed(layout.version_path(root, a) / layout.MANIFEST, lambda data: b"")
    report = judged(root, make_version("b"))
    assert report.passed
    assert "cannot be compared with" in gate(report, "users_ratio").note


@pytest.mark.leaves_damage
@pytest.mark.parametrize("file", [layout.REPORT, layout.USER_VECTORS])
def test_a_damaged_version_is_not_judged(root: Path, make_version: MakeVersion, edit_sealed: Any, file: str) -> None:
    name = make_version("a")
    edit_sealed(layout.version_path(root, name) / file, lambda data: data + b" ")
    with pytest.raises(DamagedVersionError):
        judged(root, name)


@pytest.mark.leaves_damage
@pytest.mark.parametrize("data", [b"", b"{}", b'{"format": 1}'])
def test_a_damaged_gate_report_is_an_error_and_can_be_made_anew(
    root: Path, make_version: MakeVersion, data: bytes
) -> None:
    name = make_version("a")
    judged(root, name)
    layout.gate_path(root, name).write_bytes(data)
    with pytest.raises(DamagedVersionError):
        read_report(root, name)
    judged(root, name)
    assert read_report(root, name) is not None
