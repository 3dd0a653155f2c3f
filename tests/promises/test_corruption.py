"""Promise 4: corrupt bytes are never served."""

from __future__ import annotations

from pathlib import Path

import pytest

from prediction_store import history
from promises import corruption, damaged_records
from promises.tiny_store import MADE_AT, publish
from schemas.errors import FormatError
from schemas.history import decode_history_record, encode_history_record


def test_every_damage_is_refused_at_load(folder: Path) -> None:
    outcome = corruption.run(3, 1_500, folder)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried == 1_500
    assert len([name for name in outcome.counts if name.startswith("refused")]) >= 2, "history and version"


def test_every_flipped_bit_of_a_history_record_is_refused(folder: Path) -> None:
    publish(folder / "store", "a", MADE_AT)
    whole = encode_history_record(history.current(folder / "store"))
    for place in range(len(whole)):
        for bit in range(8):
            with pytest.raises(FormatError):
                decode_history_record(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])


def test_without_the_check_at_load_no_list_is_wrong(folder: Path) -> None:
    outcome = damaged_records.run(3, 1_500, folder)
    assert outcome.violations == 0, "\n".join(outcome.shown)
    assert outcome.tried >= 1_500
    assert outcome.counts["opened anew after the damage"] > 0
    assert outcome.counts["lists refused"] > outcome.counts["lists wrong"] == 0
