"""The gates: what each finds, what its thresholds make of it, and what is said without anything to compare."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shop_store import REPORT, SPACE, MakeVersion, judge

from prediction_store import history, layout
from prediction_store.errors import DamagedVersionError, GateRefusedError
from prediction_store.gate_report import read_report
from prediction_store.gates import GATES, change, require_passed, run_gates
from prediction_store.gates.finding import Finding
from prediction_store.gates.finding import judge as judge_finding
from prediction_store.gates.fitness import misfits
from schemas.gate_config import OFF, AtLeast, AtMost, Gates
from schemas.gate_report import FAIL, PASS, WARN, Gate, GateReport
from schemas.ranker import ArrivalScore, RankerWeights

Edit = Callable[[Path, Callable[[bytes], bytes]], None]
WORSE = {**REPORT, "recall": {"20": 0.1, "100": 0.3, "1000": 0.9}, "coverage": 0.4, "ndcg": {"20": 0.15}}


def gate(report: GateReport, name: str) -> Gate:
    return next(gate for gate in report.gates if gate.name == name)


def every_microsecond() -> Callable[[], float]:
    """A clock by which the first lookup takes 1 µs, the second 2 µs, and so on."""
    waits = (wait for number in itertools.count(1) for wait in (1.0, number * 1e-6))
    now = 0.0

    def timer() -> float:
        nonlocal now
        now += next(waits)
        return now

    return timer


@dataclass
class Case:
    """A gate whose finding is known, for a version beside one that is current."""

    found: float
    note: str
    after: dict[str, Any] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


# Before, 12 scores: 2, 1, 1, … 1, 2 in the ten bins. Afterwards one, in the highest; an empty bin counts as 1e-4.
DRIFT = (
    (1 - 2 / 12) * math.log(12 / 2)
    + (1e-4 - 2 / 12) * math.log(1e-4 * 12 / 2)
    + 8 * (1e-4 - 1 / 12) * math.log(1e-4 * 12)
)
RENAMED = [f"item-{11 - number}" for number in range(12)]
CASES = {
    "users": Case(2, "", {"lists": {"ann": [1], "bob": [], "cy": [2]}}),
    "items": Case(12, ""),
    "users_ratio": Case(1 / 3, "1 against 3", {"lists": {"ann": range(12)}}),
    "items_ratio": Case(0.5, "6 against 12", {"n_items": 6}),
    "users_kept": Case(1 / 3, "1 of 3 sampled users", {"lists": {"ann": [1], "bob": [], "dan": [2]}}),
    "active_users": Case(
        0.75,
        "6 of 8 users of the last 30 days",
        {"report": {**REPORT, "active": {"days": 30, "users": 8, "covered": 6}}},
    ),
    "list_length": Case(25 / 36, "8.3 of 12 items"),
    "short_lists": Case(
        2 / 4, "of 4 sampled users", {"lists": {"a": range(12), "b": range(6), "c": range(5), "d": []}}
    ),
    "overlap": Case(0.5, "of 1 users", {"lists": {"ann": [0, 1, 9, 8]}}, {"lists": {"ann": [0, 1, 2, 3]}}),
    "rank_agreement": Case(0.98, "of 1 users", {"lists": {"ann": [1, 0]}}, {"lists": {"ann": [0, 1]}}),
    "score_drift": Case(DRIFT, "", {"lists": {"ann": [0]}}, {"lists": {"ann": range(12)}}),
    "coverage": Case(0.8, ""),
    "coverage_ratio": Case(0.5, "0.4 against 0.8", {"report": WORSE}),
    # of 12 items two are shown: one once, one twice
    "gini": Case(31 / 36, "2 items shown", settings={"depth": 1}),
    "popularity_share": Case(2 / 3, "by the 1 most popular items", settings={"depth": 1}),
    "consumed": Case(3 / 25, "3 candidates of 2 sampled users", {"consumed": {"ann": [3, 4], "cy": [0, 7]}}),
    "out_of_stock": Case(2 / 25, "of the catalogue 8.3%"),
    "ann_recall": Case(24 / 25, "24 of 25 items of 3 users"),  # the best item is the last one, and cy has the first
    "recall": Case(0.5, "at 100"),
    "recall_ratio": Case(0.6, "0.3 against 0.5", {"report": WORSE}),
    "recall_vs_popularity": Case(1.2, "0.3 against 0.25", {"report": WORSE}),
    "ndcg": Case(0.3, "at 20"),
    "ndcg_ratio": Case(0.5, "0.15 against 0.3", {"report": WORSE}),
    "ranker": Case(
        1, "the re-ranker has no signal 'magic'", {"ranker": RankerWeights(["base_score", "magic"], [1.0, 2.0], SPACE)}
    ),
    "lookup_p99_us": Case(2.98, "of 3 sampled users"),
}


@pytest.fixture
def run_case(root: Path, make_version: MakeVersion) -> Callable[..., Gate]:
    """Make the versions of a case, once, and run the gates on the later one: the gate of that name."""
    names: list[str] = []

    def run(name: str, **settings: Any) -> Gate:
        case = CASES[name]
        if not names:
            make_version("before", cut_over=True, **case.before)
            names.append(make_version("after", **case.after))
        report = run_gates(
            root, names[0], Gates(**{**case.settings, **settings}),
            candidates=1000, known_signals={"base_score"}, now=7, timer=every_microsecond(),
        )  # fmt: skip
        return gate(report, name)

    return run


def test_every_gate_has_its_thresholds_in_the_configuration_and_a_case_here() -> None:
    thresholds = [name for name in Gates.__struct_fields__ if isinstance(getattr(Gates(), name), AtLeast | AtMost)]
    assert list(GATES) == thresholds == list(CASES)


def test_every_gate_is_documented_where_it_is_configured() -> None:
    text = (Path(layout.__file__).parents[1] / "schemas/gate_config.py").read_text()
    for name, measure in GATES.items():
        assert measure.__doc__
        assert text.split(f"    {name}: At")[1].splitlines()[1].startswith('    """')


def test_the_table_in_the_documentation_has_every_gate_with_its_defaults() -> None:
    told: dict[str, tuple[float | None, float | None]] = {}
    for line in (Path(layout.__file__).parents[1] / "docs/operations.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")] + [""]
        names = re.findall(r"`(\w+)`", cells[0])
        if names and line.startswith("| `") and set(names) <= set(GATES):
            sides = [in_table(cell, len(names)) for cell in cells[2:4]]
            told |= dict(zip(names, zip(*sides, strict=True), strict=True))
    for name in GATES:
        limits = getattr(Gates(), name)
        assert told[name] == tuple(None if limit == OFF else limit for limit in (limits.warn, limits.fail)), name


def in_table(cell: str, n: int) -> list[float | None]:
    """The thresholds in a cell of that table, one for each of n gates."""
    if not cell:
        return [None] * n
    numbers = [float(re.sub("[<>, ]", "", part)) for part in cell.replace("not measured", "0").split(", ")]
    return numbers * n if len(numbers) == 1 else numbers


@pytest.mark.parametrize("name", GATES)
def test_a_gate_finds_what_is_known(run_case: Callable[..., Gate], name: str) -> None:
    found = run_case(name)
    assert found.found == pytest.approx(CASES[name].found)
    assert found.note == CASES[name].note


@pytest.mark.parametrize("name", GATES)
def test_a_gate_passes_at_its_threshold_and_warns_and_fails_beyond_it(run_case: Callable[..., Gate], name: str) -> None:
    kind = type(getattr(Gates(), name))
    at = run_case(name).found
    assert at is not None
    # What would be just too much, or too little, when `at` was found.
    beyond = math.nextafter(at, math.inf) if kind is AtLeast else math.nextafter(at, -math.inf)
    looser = 0.0 if kind is AtLeast else 1e9
    assert run_case(name, **{name: kind(warn=at, fail=at)}).outcome == PASS
    assert run_case(name, **{name: kind(warn=OFF, fail=at)}).outcome == PASS
    if beyond < 0:  # nothing is below 0, so nothing can be beyond at 0
        return
    warned = run_case(name, **{name: kind(warn=beyond, fail=looser)})
    assert (warned.outcome, warned.passed, warned.warn, warned.fail) == (WARN, True, beyond, looser)
    assert run_case(name, **{name: kind(warn=beyond)}).outcome == WARN
    failed = run_case(name, **{name: kind(warn=OFF, fail=beyond)})
    assert (failed.outcome, failed.passed, failed.is_upper) == (FAIL, False, kind is AtMost)
    assert run_case(name, **{name: kind()}).outcome == PASS, "off is off"


def test_the_outcome_is_the_worst_of_all(root: Path, make_version: MakeVersion) -> None:
    name = make_version("a", lists={"ann": range(12), "bob": range(12)}, columns={"in_stock": np.ones(12, np.bool_)})
    assert judge(root, name).outcome == PASS
    warned = judge(root, name, items=AtLeast(warn=13))
    assert (warned.outcome, warned.passed, [gate.name for gate in warned.gates if gate.outcome != PASS]) == (
        WARN, True, ["items"],
    )  # fmt: skip
    require_passed(warned)
    assert judge(root, name, items=AtLeast(warn=13), users=AtLeast(fail=3)).outcome == FAIL


def test_the_first_version_passes_with_a_note_where_there_is_nothing_to_compare(
    root: Path, make_version: MakeVersion
) -> None:
    report = judge(root, make_version("a"), now=7)
    assert (report.passed, report.against, report.at) == (True, "", 7)
    alone = {gate.name for gate in report.gates if gate.found is None}
    assert alone == {
        "users_ratio", "items_ratio", "users_kept", "overlap", "rank_agreement", "score_drift", "coverage_ratio",
        "recall_ratio", "ndcg_ratio",
    }  # fmt: skip
    for name in alone:
        assert gate(report, name).outcome == PASS
        assert "no version is current" in gate(report, name).note


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("users_ratio", "gate users_ratio: found 0.3333, wanted at least 0.9, 0.5667 too little, 63.0% short"),
        ("items_ratio", "gate items_ratio: found 0.5, wanted at least 0.9, 0.4 too little, 44.4% short (6 against 12)"),
        ("consumed", "gate consumed: found 0.12, wanted at most 0, 0.12 too much (3 candidates of 2 sampled users)"),
        ("active_users", "wanted at least 0.99, 0.24 too little, 24.2% short (6 of 8 users of the last 30 days)"),
        ("ranker", "gate ranker: found 1, wanted at most 0, 1 too much (the re-ranker has no signal 'magic')"),
    ],
)
def test_a_worse_version_is_refused_and_the_message_says_by_how_much(
    root: Path, make_version: MakeVersion, which: str, message: str
) -> None:
    current = make_version("a", cut_over=True)
    name = make_version("b", **CASES[which].after)
    report = judge(root, name)
    assert (report.outcome, report.against) == (FAIL, current)
    with pytest.raises(GateRefusedError, match=f"version {name} is refused") as error:
        require_passed(report)
    assert message in error.value.message
    assert error.value.exit_code == 3


@pytest.mark.parametrize("which", ["recall_ratio", "ndcg_ratio"])
def test_it_is_said_how_much_of_what_was_wanted_no_list_of_a_night_before_could_have_held(
    root: Path, make_version: MakeVersion, which: str
) -> None:
    make_version("a", cut_over=True, report={**REPORT, "cold_items_share": 0.021})
    found = gate(judge(root, make_version("b", report={**WORSE, "cold_items_share": 0.6})), which)
    assert found.note == f"{CASES[which].note}; of the wanted items 60% were new, against 2%"


@pytest.mark.parametrize(
    "report", [{}, {"coverage": "much", "recall": 3, "active": []}, {"coverage": None, "active": {"users": 5}}]
)
def test_what_was_not_measured_has_not_passed(root: Path, make_version: MakeVersion, report: Any) -> None:
    found = judge(root, make_version("a", report=report))
    refused = {gate.name: gate.note for gate in found.gates if not gate.passed}
    assert refused == dict.fromkeys(["active_users", "coverage", "recall", "ndcg"], "not in the evaluation report")
    assert gate(found, "recall_vs_popularity").outcome == WARN, "that one never does more than warn"
    with pytest.raises(GateRefusedError, match="gate coverage: not in the evaluation report, wanted"):
        require_passed(found)
    assert judge(root, found.version, **dict.fromkeys(refused, AtLeast())).passed, "unless nobody asks for it"


def test_against_a_current_version_what_was_not_measured_has_not_passed_either(
    root: Path, make_version: MakeVersion
) -> None:
    make_version("a", cut_over=True)
    report = judge(root, make_version("b", report={}))
    for name in ("coverage_ratio", "recall_ratio", "ndcg_ratio"):
        assert (gate(report, name).outcome, gate(report, name).note) == (FAIL, "not in the evaluation report")


def test_a_current_version_without_a_measure_is_no_reason_to_refuse(root: Path, make_version: MakeVersion) -> None:
    make_version("a", cut_over=True, report={"recall": {"100": 0}})
    report = judge(root, make_version("b"))
    assert report.passed
    assert "the other number is zero" in gate(report, "recall_ratio").note
    assert "the current version's evaluation does not have it" in gate(report, "coverage_ratio").note


def test_nobody_active_is_not_measured(root: Path, make_version: MakeVersion) -> None:
    report = {**REPORT, "active": {"days": 30, "users": 0, "covered": 0}}
    found = gate(judge(root, make_version("a", report=report)), "active_users")
    assert (found.outcome, found.note) == (FAIL, "nobody was active in the last 30 days of the data")


def test_a_version_without_any_list_is_refused_by_every_gate_that_looks_at_lists(
    root: Path, make_version: MakeVersion
) -> None:
    make_version("a", cut_over=True)
    report = judge(root, make_version("b", lists={"dan": []}))
    failed = {gate.name for gate in report.gates if gate.outcome == FAIL}
    assert failed == {
        "users", "users_ratio", "users_kept", "list_length", "short_lists", "overlap", "consumed", "out_of_stock",
        "ann_recall",
    }  # fmt: skip


def test_a_number_that_is_none_is_beyond_every_threshold() -> None:
    for value in (math.nan, math.inf):
        found = judge_finding("gini", Finding(value), AtMost(warn=0.5, fail=0.9))
        assert (found.outcome, found.found) == (FAIL, None)


def test_the_current_version_is_not_compared_with_itself(root: Path, make_version: MakeVersion) -> None:
    report = judge(root, make_version("a", cut_over=True))
    assert report.passed
    assert "this version is the current one" in gate(report, "users_ratio").note


def test_what_let_the_current_version_through_is_kept_when_it_is_judged_again(
    root: Path, make_version: MakeVersion
) -> None:
    a, b = make_version("a", cut_over=True), make_version("b")
    at_night = judge(root, b, now=7, users=AtLeast(warn=9))
    assert (at_night.outcome, at_night.against) == (WARN, a)
    history.cutover(root, b, "test@localhost", "its gates have passed", 8)
    assert judge(root, b, now=9).against == ""
    assert read_report(root, b) == at_night
    assert judge(root, a, now=10) == read_report(root, a)


@pytest.mark.leaves_damage
@pytest.mark.parametrize("file", [layout.MANIFEST, layout.REPORT, "candidates/shard-0000.mdb", "items/columns/id.utf8"])
def test_a_damaged_current_version_does_not_stand_in_the_way_of_a_good_one(
    root: Path, make_version: MakeVersion, edit_sealed: Edit, file: str
) -> None:
    a = make_version("a", cut_over=True)
    edit_sealed(layout.version_path(root, a) / file, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    report = judge(root, make_version("b"))
    assert (report.passed, report.against) == (True, "")
    for name in ("users_ratio", "overlap", "recall_ratio"):
        assert "the current version cannot be compared with" in gate(report, name).note


@pytest.mark.parametrize("report", [b"", b"[]", b'{"recall": '])
def test_a_current_version_whose_evaluation_cannot_be_read_is_not_compared_with(
    root: Path, make_version: MakeVersion, report: bytes
) -> None:
    name = make_version("a", report=report, cut_over=True)
    with pytest.raises(DamagedVersionError, match="evaluation"):
        judge(root, name)
    found = judge(root, make_version("b"))
    assert found.passed
    assert layout.REPORT in gate(found, "users_ratio").note


@pytest.mark.leaves_damage
@pytest.mark.parametrize("file", [layout.REPORT, layout.USER_VECTORS, "candidates/shard-0001.mdb"])
def test_a_damaged_version_is_not_judged(root: Path, make_version: MakeVersion, edit_sealed: Edit, file: str) -> None:
    name = make_version("a")
    edit_sealed(layout.version_path(root, name) / file, lambda data: data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DamagedVersionError):
        judge(root, name)
    assert read_report(root, name) is None


def test_a_segment_whose_lists_changed_is_found_among_others(
    root: Path, make_version: MakeVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change, "MIN_SEGMENT_USERS", 2)
    world = {
        "segments": {"a": "DE", "b": "DE", "c": "FR"},
        "popular": {"": range(12), "DE": [1], "FR": [2]},
    }
    make_version("a", cut_over=True, lists=dict.fromkeys("abcdef", range(6)), **world)
    b = make_version("b", lists={**dict.fromkeys("def", range(6)), "a": [6], "b": range(3), "c": [7]}, **world)
    found = gate(judge(root, b), "overlap")
    assert found.found == pytest.approx(0.25)
    assert found.note == "in segment 'DE'; 0.583 of all 6 users"
    numbers = {"mean": 3.5 / 6, "p10": 0.0, "segment": 1.0, "segment DE": 0.25, "segment FR": 0.0}
    assert found.numbers == pytest.approx(numbers), "FR has too few users to be judged by itself"


def test_lists_are_compared_by_the_items_ids(root: Path, make_version: MakeVersion) -> None:
    lists = {"ann": [0, 1, 2, 3]}
    make_version("a", cut_over=True, lists=lists)
    mirrored = make_version("b", item_ids=RENAMED, lists={"ann": [11, 10, 9, 8]})
    assert gate(judge(root, mirrored), "overlap").found == 1
    others = make_version("c", item_ids=[f"new-{i}" for i in range(12)], lists=lists)
    assert gate(judge(root, others), "overlap").outcome == FAIL


def test_another_embedding_space_is_said_and_only_the_shape_of_the_scores_counts(
    root: Path, make_version: MakeVersion
) -> None:
    make_version("a", cut_over=True)
    found = gate(judge(root, make_version("b", space_id="another")), "score_drift")
    assert (found.found, found.note) == (pytest.approx(0), "the embedding space is another: by shape only")
    assert found.numbers["before_p50"] == found.numbers["after_p50"]


def test_lists_that_are_empty_on_one_side_have_no_drift(root: Path, make_version: MakeVersion) -> None:
    make_version("a", cut_over=True, lists={"ann": []})
    found = gate(judge(root, make_version("b", lists={"ann": [0, 1]})), "score_drift")
    assert found.found is None
    assert found.note


def test_columns_that_a_version_lacks_are_no_reason_to_refuse(root: Path, make_version: MakeVersion) -> None:
    report = judge(root, make_version("a", columns={"popularity": None, "in_stock": None}))
    for column in ("popularity_share", "out_of_stock"):
        assert (gate(report, column).outcome, gate(report, column).found) == (PASS, None)


@pytest.mark.parametrize(
    ("weights", "reasons"),
    [
        (RankerWeights(["a", "b"], [1.0, 2.0], "s"), 0),
        (RankerWeights([], [], "s"), 0),
        (RankerWeights(["a", "x"], [1.0, 2.0], "s"), 1),
        (RankerWeights(["a", "b"], [1.0, math.inf], "s"), 1),
        (RankerWeights(["a", "b"], [1.0, math.nan], "s"), 1),
        (RankerWeights(["a", "a"], [1.0, 2.0], "s"), 1),
        (RankerWeights(["a"], [1.0], "t"), 1),
        (RankerWeights(["a"], [1.0], "s", arrivals=ArrivalScore(-1.0, 0.0, -0.5)), 0),
        (RankerWeights(["a"], [1.0], "s", arrivals=ArrivalScore(math.nan, 1.0, -0.5)), 1),
        (RankerWeights(["a"], [1.0], "s", arrivals=ArrivalScore(1.0, math.inf, -0.5)), 1),
        (RankerWeights(["x", "y", "y"], [1.0, math.nan, 0.0], "t"), 6),
    ],
)
def test_weights_that_do_not_fit_are_named_with_the_reason(weights: RankerWeights, reasons: int) -> None:
    assert len(misfits(weights, "s", {"a", "b"})) == reasons
