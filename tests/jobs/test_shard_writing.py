"""Shards: attempts agree or are refused, and each record is what encoding its list alone would give."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs import shard_writing
from prediction_store.errors import ShardConflictError
from prediction_store.shards import open_shard
from prediction_store.writer import shard_of
from schemas.record import encode_record, record_seed


def shard_rows(turn: int = 0) -> list[pa.RecordBatch]:
    """Rows of one shard, sorted by key, in batches of 2 or of 5; `turn` changes the first user's scores."""
    keys = sorted(key for key in (f"u{number}".encode() for number in range(60)) if shard_of(key, 3) == 1)
    rows = [
        {
            "user_index": number,
            "key": key,
            "items": np.arange(number, number + 4, dtype=np.int32).tobytes(),
            "scores": np.array([4, 3, 2 - (turn if number == 0 else 0), 0], dtype=np.float32).tobytes(),
            "shard": 1,
        }
        for number, key in enumerate(keys)
    ]
    return pa.Table.from_pylist(rows).to_batches(max_chunksize=5 if turn else 2)


def plan_of(folder: Path) -> shard_writing.ShardPlan:
    paths = tuple(str(folder / f"shard-{number:04d}.mdb") for number in range(3))
    return shard_writing.ShardPlan(paths, 1_772_496_000, record_seed("0" * 64), 20, 100_000)


def test_two_attempts_at_a_shard_with_the_same_records_agree(tmp_path: Path) -> None:
    batches = shard_rows()
    first = shard_writing.write_attempt(batches, 1, plan_of(tmp_path))
    second = shard_writing.write_attempt(
        pa.Table.from_batches(batches).to_batches(max_chunksize=7), 1, plan_of(tmp_path)
    )
    assert first.path != second.path
    assert (first.users, first.bytes) == (second.users, second.bytes)
    assert [path.name for path in tmp_path.iterdir()] == ["shard-0001.mdb"]


def test_a_shard_that_travels_over_a_shared_disk_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here", "shared", "node"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    here, shared = plan_of(tmp_path / "here"), plan_of(tmp_path / "shared")._replace(is_shared=True)
    shard_writing.write_attempt(shard_rows(), 1, here)
    for _ in range(2):
        shard_writing.write_attempt(shard_rows(), 1, shared)
    assert Path(shared.paths[1]).read_bytes() == Path(here.paths[1]).read_bytes()
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["shard-0001.mdb"]
    assert list((tmp_path / "node").iterdir()) == []


def test_an_attempt_that_differs_from_the_first_is_refused(tmp_path: Path) -> None:
    shard_writing.write_attempt(shard_rows(), 1, plan_of(tmp_path))
    kept = (tmp_path / "shard-0001.mdb").read_bytes()
    with pytest.raises(ShardConflictError, match="differ"):
        shard_writing.write_attempt(shard_rows(turn=1), 1, plan_of(tmp_path))
    assert (tmp_path / "shard-0001.mdb").read_bytes() == kept


def test_a_shard_holds_what_encoding_each_list_alone_would_give(tmp_path: Path) -> None:
    keys = sorted(key for key in (f"u{number}".encode() for number in range(60)) if shard_of(key, 3) == 1)
    lists = [np.arange(number, number + number % 7, dtype=np.int32) for number in range(len(keys))]
    scores = [np.linspace(3, -number, items.size, dtype=np.float32) for number, items in enumerate(lists)]
    rows = [
        {"user_index": number, "key": key, "items": items.tobytes(), "scores": of_items.tobytes(), "shard": 1}
        for number, (key, items, of_items) in enumerate(zip(keys, lists, scores, strict=True))
    ]
    plan = plan_of(tmp_path)
    shard_writing.write_attempt(pa.Table.from_pylist(rows).to_batches(max_chunksize=5), 1, plan)
    with open_shard(tmp_path / "shard-0001.mdb") as shard, shard.begin() as transaction:
        assert dict(transaction.cursor()) == {
            key: encode_record(
                key, items, of_items, made_at=plan.made_at, user_row=number, seed=plan.seed, index_bits=plan.index_bits
            )
            for number, (key, items, of_items) in enumerate(zip(keys, lists, scores, strict=True))
        }


def test_a_record_of_a_thousand_candidates_is_planned_as_one_page() -> None:
    record = encode_record(
        b"u", np.arange(1000), np.arange(1000, 0, -1.0), made_at=1, user_row=0, seed=0, index_bits=20
    )
    assert len(record) <= 4080
    assert shard_writing.record_bytes(1000, 5000) == 4096 + 128
    assert shard_writing.record_bytes(1000, 1 << 25) == 2 * 4096 + 128
