"""Training that reads a few files at a time: it learns and counts as if all were in memory, which need not hold it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from blocks_shop import DAY, END, small_config, write_prepared
from editable import editable

from jobs import checkpoint, datasets, model, shards, task, train
from jobs.ahead import ahead
from jobs.errors import DatasetDamagedError
from jobs.examples import Batch
from jobs.team import ALONE
from jobs.towers import TwoTowers
from schemas import tables
from schemas.config import Config

FILES = 7


@pytest.fixture
def a_file_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BYTES_KEPT", 10**9)
    monkeypatch.setattr(shards, "BYTES_STREAMED", 10**9)


def read(config: Config) -> task.Task:
    prepared = datasets.open_dataset(config.paths.workspace, DAY, "prepared")
    reading = task.Reading("drop", "time")
    return task.read_task(prepared, config.train, reading, made_at=END, device=torch.device("cpu"))


def in_one_piece_and_in_shards(config: Config, monkeypatch: pytest.MonkeyPatch) -> tuple[task.Task, task.Task]:
    write_prepared(config, files=FILES)
    whole = read(config)
    with monkeypatch.context() as patch:
        patch.setattr(shards, "BYTES_KEPT", 10**9)
        patch.setattr(shards, "BYTES_STREAMED", 10**9)
        streamed = read(config)
    assert (len(whole.shards), len(streamed.shards)) == (1, FILES)
    return whole, streamed


def examples_of(batches: Iterator[Batch]) -> Counter:
    """Each example with the items of its history and how much it counts."""
    found: Counter = Counter()
    for batch in batches:
        windows, places = batch.is_example.nonzero(as_tuple=True)
        for row, (window, place) in enumerate(zip(windows.tolist(), places.tolist(), strict=True)):
            known = batch.items[window][batch.is_known[window, place]]
            found[
                batch.users[row].item(), batch.targets[row].item(), *known.tolist(), batch.importance[row].item()
            ] += 1
    return found


def test_shards_hold_the_same_as_all_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, streamed = in_one_piece_and_in_shards(small_config(tmp_path), monkeypatch)
    for name in ("users", "items", "takers"):
        np.testing.assert_array_equal(getattr(whole.counts, name), getattr(streamed.counts, name))
    assert whole.counts.newest == streamed.counts.newest
    assert whole.architecture == streamed.architecture
    epochs = []
    for each in (whole, streamed):
        rng = np.random.default_rng(1)
        epochs.append(examples_of(each.epochs.batches(each.epochs.plan(rng), rng)))
    assert epochs[0] == epochs[1]
    assert sum(epochs[0].values()) == whole.epochs.examples == streamed.epochs.examples


def test_the_validation_slice_does_not_depend_on_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, streamed = in_one_piece_and_in_shards(small_config(tmp_path, validation_users=31), monkeypatch)
    np.testing.assert_array_equal(whole.validation.users, streamed.validation.users)
    assert len(whole.validation.users) == 31
    towers = TwoTowers(whole.architecture).eval()
    recalls = [each.validation.recall(towers, each.items, each.users, 9) for each in (whole, streamed)]
    assert recalls[0] == recalls[1] is not None


def test_what_weighs_nothing_validates_nothing(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    write_prepared(config, files=1)
    before = read(config).validation.users
    prepared = editable(datasets.open_dataset(config.paths.workspace, DAY, "prepared"))
    (file,) = prepared.part("interactions").glob("*.parquet")
    table = pyarrow.parquet.read_table(file)
    user, split = table["user_index"].to_numpy(), table["split"].to_numpy()
    weights = np.where((split == tables.VALIDATION) & (user % 2 == 0), 0, table["weight"].to_numpy())
    place = table.schema.get_field_index("weight")
    weighed = table.set_column(place, table.schema.field(place), pa.array(weights, pa.float32()))
    pyarrow.parquet.write_table(weighed, file)
    assert read(config).validation.users.tolist() == before[before % 2 == 1].tolist()


def test_a_bounded_epoch_takes_of_each_shard_in_proportion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, streamed = in_one_piece_and_in_shards(small_config(tmp_path, examples_per_epoch=300), monkeypatch)
    plan = streamed.epochs.plan(np.random.default_rng(3))
    assert sum(visit.examples for visit in plan) == 300
    for visit in plan:
        share = streamed.counts.examples[visit.shard] / streamed.epochs.examples
        assert visit.examples == pytest.approx(300 * share, abs=1)
    orders = {tuple(v.shard for v in streamed.epochs.plan(np.random.default_rng(seed))) for seed in range(5)}
    assert len(orders) > 1, "every epoch has its own order"


@pytest.mark.usefixtures("a_file_at_a_time")
def test_a_training_in_shards_learns_resumes_and_repeats_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []
    for name in ("whole", "killed"):
        config = small_config(tmp_path / name)
        write_prepared(config, files=FILES)
        if name == "killed":
            with monkeypatch.context() as patch:
                patch.setattr(checkpoint, "save", _save_and_die(checkpoint.save))
                with pytest.raises(KeyboardInterrupt):
                    train.run(config, DAY)
        train.run(config, DAY)
        trained = datasets.open_dataset(config.paths.workspace, DAY, "model")
        weights.append(trained.part(model.WEIGHTS).read_bytes())
        card = model.load(trained.path)[1]
        assert card.curve[card.best_epoch].recall == pytest.approx(1.0, abs=0.01)
    assert weights[0] == weights[1]


def _save_and_die(save: object) -> object:
    def save_and_die(*arguments: object) -> None:
        save(*arguments)  # type: ignore[operator]
        if len(arguments[1].curve) == 3:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    return save_and_die


@pytest.mark.usefixtures("a_file_at_a_time")
def test_a_user_in_two_files_is_refused_where_files_are_read_apart(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    write_prepared(config, files=2)
    folder = datasets.open_dataset(config.paths.workspace, DAY, "prepared").part("interactions")
    (folder / "part-00002.parquet").write_bytes((folder / "part-00001.parquet").read_bytes())
    with pytest.raises(DatasetDamagedError, match=r"user_index 1 .* several files") as refused:
        train.run(config, DAY)
    assert "prepare" in refused.value.hint


def test_shares_of_users_are_disjoint_and_complete(tmp_path: Path) -> None:
    """Of whole files where there are many, of each file where there are few."""
    for files in (3, 20):
        config = small_config(tmp_path / str(files))
        write_prepared(config, files=files)
        prepared = datasets.open_dataset(config.paths.workspace, DAY, "prepared")
        parts = [shards.count(shards.Shards(prepared, memory_mb=99, share=(k, 3)), ALONE) for k in range(3)]
        every = shards.count(shards.Shards(prepared, memory_mb=99), ALONE)
        np.testing.assert_array_equal(sum(part.users for part in parts), every.users)
        np.testing.assert_array_equal(sum(part.takers for part in parts), every.takers)
        assert (sum((part.users > 0).astype(int) for part in parts) <= 1).all()
        assert min(part.examples.sum() for part in parts) > every.examples.sum() / 5


LIMIT_MB = 75


def test_a_data_set_ten_times_the_memory_limit_trains(tmp_path: Path) -> None:
    """The limit is on what the process grows by after the same training of one small file."""
    settings = {"max_epochs": 1, "refit": False, "examples_per_epoch": 20_000, "batch_size": 512, "memory_mb": 25}
    small, large = (small_config(tmp_path / name, **settings) for name in ("small", "large"))
    write_many_rows(small, files=1, rows=5_000)
    assert write_many_rows(large, files=380, rows=25_000) > 10 * LIMIT_MB * 1e6
    for config in (small, large):
        (Path(config.paths.workspace) / "config.json").write_bytes(msgspec.json.encode(config))
    code = """
        import pathlib, resource, sys
        import msgspec
        from jobs import train
        from schemas.config import Config
        peaks = []
        for folder in sys.argv[2:]:
            train.run(msgspec.json.decode(pathlib.Path(folder, "config.json").read_bytes(), type=Config), sys.argv[1])
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        print((peaks[1] - peaks[0]) / 1000)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), DAY, small.paths.workspace, large.paths.workspace]
    grown_mb = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown_mb < LIMIT_MB
    examples = datasets.open_dataset(large.paths.workspace, DAY, "model").rows["examples"]
    assert examples > 4_000_000


def write_many_rows(config: Config, *, files: int, rows: int, users: int = 20, items: int = 2_000) -> int:
    """Write `prepared` with so many files of `users` each, all of random interactions; its bytes as Arrow tables."""
    rng = np.random.default_rng(1)
    user, when, item = rng.integers(0, users, rows), rng.integers(0, 30 * 86_400, rows), rng.integers(0, items, rows)
    order = np.lexsort((item, when, user))
    user, when, item = user[order], END - 1 - when[order], item[order]
    age = END - when
    split = np.where(age <= 86_400, tables.TEST, np.where(age <= 2 * 86_400, tables.VALIDATION, tables.TRAIN))
    session, none = pa.array(["0f8fad5b-d9cb-469f-a165-70867728950e"] * rows), np.zeros(rows, bool)
    columns = [user, item, ["view"] * rows, np.ones(rows), when, session, ["mobile"] * rows, none, split]
    arrays = [pa.array(column).cast(field.type) for column, field in zip(columns, tables.INTERACTIONS, strict=True)]
    n_users, size = users * files, 0
    with datasets.step(config.paths.workspace, DAY, "prepared", outside={"rows": f"{files} {rows}"}) as draft:
        for part in ("interactions", "items", "users"):
            (draft.path / part).mkdir()
        for file in range(files):
            arrays[0] = pa.array(user * files + file, pa.int32())
            table = pa.Table.from_arrays(arrays, schema=tables.INTERACTIONS)
            pa.parquet.write_table(table, draft.path / "interactions" / f"part-{file:05d}.parquet")
            size += table.nbytes
        blank, k = pa.array([""] * items), np.arange(items)
        columns = [k, k, blank, blank, blank, np.ones(items), k, np.ones(items, bool), np.ones(items)]
        arrays = [pa.array(column).cast(field.type) for column, field in zip(columns, tables.ITEMS, strict=True)]
        pa.parquet.write_table(pa.Table.from_arrays(arrays, schema=tables.ITEMS), draft.path / "items" / "part.parquet")
        features, k, ones = pa.array([[""]] * n_users), np.arange(n_users), np.ones(n_users)
        columns = [k, k, [""] * n_users, features, ones, ones.astype(bool)]
        arrays = [pa.array(column).cast(field.type) for column, field in zip(columns, tables.USERS, strict=True)]
        pa.parquet.write_table(pa.Table.from_arrays(arrays, schema=tables.USERS), draft.path / "users" / "part.parquet")
        draft.rows |= {"interactions": rows * files, "items": items, "users": n_users}
    return size


def test_reading_ahead_keeps_the_order_and_is_never_more_than_its_depth_ahead() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for k in range(20):
            made.append(k)
            yield k

    for used, thing in enumerate(ahead(numbers(), 3)):
        assert thing == used
        assert len(made) <= used + 4


def test_reading_ahead_raises_what_the_making_raised_and_leaves_no_thread() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise ValueError("the disk is gone")

    coming = ahead(numbers())
    assert next(coming) == 1
    with pytest.raises(ValueError, match="the disk is gone"):
        next(coming)
    stopped = ahead(iter(range(5)))
    next(stopped)
    stopped.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
