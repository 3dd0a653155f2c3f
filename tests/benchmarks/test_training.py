"""The benchmark of the training, from end to end on a few made-up users, and its protocol against a loop."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from benchmarks import measure, training, yelp

USERS, ITEMS = 40, 1100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files like the published split's; every user likes the items of one of four groups."""
    rng = np.random.default_rng(2)
    found = tmp_path / "yelp2018-lightgcn"
    found.mkdir()
    liked = [4 * rng.choice(ITEMS // 4, 16, replace=False) + user % 4 for user in range(USERS)]
    for name, part in (("train", slice(0, 12)), ("test", slice(12, 16))):
        users = np.repeat(np.arange(USERS), len(range(16)[part]))
        items = np.concatenate([items[part] for items in liked])
        pa.parquet.write_table(pa.table({"user_id": users, "item_id": items}), found / f"{name}.parquet")
    return found


def test_the_protocol_is_that_of_the_published_tables(folder: Path) -> None:
    data = yelp.read(folder)
    rng = np.random.default_rng(3)
    users, items = (
        rng.normal(size=(data.users, 5)).astype(np.float32),
        rng.normal(size=(data.items, 5)).astype(np.float32),
    )
    expected = []
    for user in range(data.users):
        seen = set(data.train.items[data.train.users == user])
        wanted = set(data.test.items[data.test.users == user])
        ranking = [item for item in np.argsort(-(items @ users[user])) if item not in seen]
        hits = [item in wanted for item in ranking]
        gain = sum(hit / np.log2(place + 2) for place, hit in enumerate(hits[:20]))
        best = sum(1 / np.log2(place + 2) for place in range(min(len(wanted), 20)))
        expected.append((sum(hits[:20]) / len(wanted), gain / best, sum(hits[:1000]) / len(wanted)))
    found = yelp.measure(data, users, items)
    np.testing.assert_allclose(list(found.values()), np.mean(expected, axis=0), atol=1e-5)


def test_it_ends_with_one_line_of_json(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(measure, "RAW", tmp_path / "raw")
    monkeypatch.setattr(training, "_implicit", lambda data, k: (np.ones((data.users, k)), np.ones((data.items, k))))
    training.main(["--data", str(folder.parent), "--only", "yelp", "--epochs", "1", "--dimensions", "8"])
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(figures) == list(training.YELP_KEYS)
    assert figures["yelp_recall1000"] > 0.8
    assert "towers" in (tmp_path / "raw" / "training.svg").read_text()


def test_it_says_what_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measure, "RAW", tmp_path / "raw")
    training.main(["--data", str(tmp_path / "nothing")])
    *lines, last = capsys.readouterr().out.splitlines()
    assert sum("left out" in line for line in lines) == 3
    assert json.loads(last)["cold_item_recall_vs_popularity"] is None
