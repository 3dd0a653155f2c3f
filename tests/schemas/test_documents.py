"""Manifest, history record, gate report: newer words are tolerated, newer formats refused, damage noticed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.errors import FormatError, NewerFormatError
from schemas.gate_report import Gate, GateReport, decode_gate_report, encode_gate_report
from schemas.history import HistoryRecord, Quarantine, decode_history_record, encode_history_record
from schemas.manifest import Counts, Environment, FileFacts, Manifest, decode_manifest, encode_manifest
from schemas.ranker import ArrivalScore, RankerWeights, decode_weights, encode_weights

NAME = "20261122T031500Z-3f9c0a1b"
DIGEST = "3f9c0a1b" + "0" * 56
MANIFEST = Manifest(
    record_format=1,
    name=NAME,
    inputs_digest=DIGEST,
    space_id="space",
    made_at=1,
    built_at=2,
    expires_at=3,
    index_bits=20,
    shards=1,
    dimensions=4,
    counts=Counts(users=1, items=2, records=1, lists=1, list_items=2),
    columns={"id": "text"},
    environment=Environment(4096, "little", 64, 1),
    files={"users/vectors.npy": FileFacts(3, DIGEST)},
)
RECORD = HistoryRecord(number=3, action="cutover", version=NAME, manifest_sha256=DIGEST, who="ann@host", at=9)
REPORT = GateReport(
    version=NAME,
    manifest_sha256=DIGEST,
    at=4,
    outcome="pass",
    gates=[Gate(name="users", outcome="pass", found=2.0, fail=1.0)],
)


def changed(document: msgspec.Struct, **fields: Any) -> bytes:
    return msgspec.json.encode({**msgspec.to_builtins(document), **fields})


def test_documents_come_back_as_they_were() -> None:
    assert decode_manifest(encode_manifest(MANIFEST)) == MANIFEST
    assert decode_history_record(encode_history_record(RECORD)) == RECORD
    assert decode_gate_report(encode_gate_report(REPORT)) == REPORT


def test_fields_of_a_later_shortlist_are_ignored() -> None:
    assert decode_manifest(changed(MANIFEST, mood="good")) == MANIFEST
    assert decode_gate_report(changed(REPORT, mood="good")) == REPORT


def test_a_manifest_may_still_have_the_field_that_an_earlier_shortlist_never_filled() -> None:
    assert decode_manifest(changed(MANIFEST, parents=[])) == MANIFEST


def test_an_action_of_a_later_shortlist_still_names_the_version() -> None:
    record = msgspec.structs.replace(RECORD, action="teleport")
    assert decode_history_record(encode_history_record(record)).version == NAME


def test_a_manifest_of_a_later_format_is_refused_even_if_it_fits_nothing() -> None:
    with pytest.raises(NewerFormatError, match="format 2; this Shortlist reads up to 1"):
        decode_manifest(b'{"format": 2, "name": 17}')


def test_records_of_a_later_format_are_refused_by_the_manifest() -> None:
    with pytest.raises(NewerFormatError, match="records of format 2"):
        decode_manifest(changed(MANIFEST, record_format=2))


def test_a_gate_report_of_a_later_format_is_refused() -> None:
    with pytest.raises(NewerFormatError):
        decode_gate_report(changed(REPORT, format=3))


def test_a_history_record_of_a_later_format_is_refused() -> None:
    with pytest.raises(NewerFormatError):
        decode_history_record(encode_history_record(msgspec.structs.replace(RECORD, format=3)))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "../../etc"},
        {"name": NAME + "\n"},
        {"inputs_digest": "abc"},
        {"shards": 0},
        {"dimensions": "four"},
        {"files": {"a": {"bytes": -1, "sha256": DIGEST}}},
    ],
    ids=str,
)
def test_a_manifest_with_a_wrong_value_is_not_a_manifest(fields: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        decode_manifest(changed(MANIFEST, **fields))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b'{"format": "one"}', b'{"format": 1}'])
def test_other_bytes_are_no_document(data: bytes) -> None:
    for decode in (decode_manifest, decode_history_record, decode_gate_report):
        with pytest.raises(FormatError):
            decode(data)


GOLDEN = Path(__file__).parent / "golden"


def test_a_history_record_of_format_1_is_read_as_far_as_it_goes() -> None:
    record = decode_history_record((GOLDEN / "history-format-1.json").read_bytes())
    assert (record.number, record.action, record.version) == (2, "cutover", NAME)
    assert record.before == ["20261121T031500Z-0badcafe"], "what it replaced is what rollback goes to"
    assert (record.pinned, record.quarantined) == (0, {})


def test_a_history_record_of_format_2_is_what_it_was() -> None:
    data = (GOLDEN / "history-format-2.json").read_bytes()
    record = decode_history_record(data)
    assert (record.since, record.before, record.pinned) == (3, ["20261120T031500Z-00c0ffee"], 2)
    assert record.quarantined == {NAME: Quarantine(3, "3f9c0a1b" * 8)}
    assert encode_history_record(record) == data


def test_no_flipped_bit_of_a_history_record_changes_what_it_says() -> None:
    data = encode_history_record(RECORD)
    for place in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        try:
            assert decode_history_record(bytes(flipped)) == RECORD
        except FormatError:
            continue


def test_weights_come_back_as_they_were() -> None:
    weights = RankerWeights(["base_score", "freshness"], [1.0, 0.25], "space")
    assert decode_weights(encode_weights(weights)) == weights
    with_arrivals = msgspec.structs.replace(weights, arrivals=ArrivalScore(-2.5, 1.25, -0.5))
    assert decode_weights(encode_weights(with_arrivals)) == with_arrivals
    with pytest.raises(ValueError, match="of_count is -1; wanted 0 or more"):
        ArrivalScore(0.0, -1, -0.5)


def test_a_weight_without_a_signal_is_refused() -> None:
    with pytest.raises(ValueError, match="as many of each"):
        RankerWeights(["base_score"], [1.0, 2.0], "space")
    with pytest.raises(FormatError):
        decode_weights(b'{"format": 1, "signals": ["a"], "weights": [], "space_id": "s"}')


@pytest.mark.parametrize("fields", [b'"signals": [], "weights": [], "space_id": "s"', b'"layers": 2'])
def test_weights_of_a_later_format_are_refused_whether_they_fit_or_not(fields: bytes) -> None:
    with pytest.raises(NewerFormatError, match="format 2; this Shortlist reads up to 1"):
        decode_weights(b'{%b, "format": 2}' % fields)


def test_a_gate_report_of_format_2_is_what_it_was() -> None:
    data = (GOLDEN / "gate-report-format-2.json").read_bytes()
    report = decode_gate_report(data)
    overlap, drift = report.gates
    assert (report.outcome, report.passed, overlap.warn, overlap.numbers["segment DE"]) == ("warn", True, 0.3, 0.25)
    assert (drift.found, drift.fail, drift.is_upper) == (None, None, True)
    assert encode_gate_report(report) == data
