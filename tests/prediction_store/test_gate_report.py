"""The gate report beside a version: what it keeps, how it is read, and a gate of it in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from shop_store import MakeVersion, judge

from prediction_store import layout
from prediction_store.errors import DamagedVersionError, NewerFormatError
from prediction_store.gate_report import read_report
from prediction_store.gates import describe
from schemas.gate_config import AtLeast
from schemas.gate_report import WARN, Gate


def test_the_report_stands_beside_the_version(root: Path, make_version: MakeVersion) -> None:
    name = make_version("a")
    report = judge(root, name)
    assert read_report(root, name) == report
    refused = judge(root, name, items=AtLeast(fail=99))
    assert read_report(root, name) == refused, "the last word counts"
    assert [path.name for path in layout.gates_folder(root).iterdir()] == [f"{name}.json"]


@pytest.mark.leaves_damage
@pytest.mark.parametrize("data", [b"", b"{}", b'{"format": 1}'])
def test_a_damaged_gate_report_is_an_error_and_can_be_made_anew(
    root: Path, make_version: MakeVersion, data: bytes
) -> None:
    name = make_version("a")
    judge(root, name)
    layout.gate_path(root, name).write_bytes(data)
    with pytest.raises(DamagedVersionError):
        read_report(root, name)
    judge(root, name)
    assert read_report(root, name) is not None


@pytest.mark.leaves_damage
def test_a_gate_report_of_a_later_shortlist_is_not_damaged(root: Path, make_version: MakeVersion) -> None:
    name = make_version("a")
    judge(root, name)
    path = layout.gate_path(root, name)
    with_more = path.read_bytes().replace(b'"gates"', b'"mood": "good", "gates"')
    path.write_bytes(with_more)
    assert read_report(root, name) is not None, "what is not known is ignored"
    path.write_bytes(with_more.replace(b'"format": 2', b'"format": 3'))
    with pytest.raises(NewerFormatError, match="gate report has format 3; this Shortlist reads up to 2") as caught:
        read_report(root, name)
    assert caught.value.hint == "upgrade this host"


def test_a_gate_in_one_line(root: Path, make_version: MakeVersion) -> None:
    report = judge(root, make_version("a"))
    lines = [describe(gate) for gate in report.gates]
    assert "gate users: found 3, wanted at least 1" in lines
    assert (
        "gate short_lists: found 0.3333, wanted at most 0.05, 0.2833 too much, 566.7% over (of 3 sampled users)"
        in lines
    )
    assert "gate users_ratio: no version is current: nothing to compare with" in lines
    counts = Gate(name="users", outcome=WARN, found=1_234_567.0, warn=2_000_000.0)
    assert describe(counts) == (
        "gate users: found 1,234,567, wanted at least 2,000,000, 765,433 too little, 38.3% short"
    )
