"""Training on several workers through Spark: the same result within noise, and a worker that dies costs an epoch."""

from __future__ import annotations

import contextlib
import functools
import socket
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from blocks_shop import DAY, small_config, write_prepared

from jobs import checkpoint, datasets, journey, model, train, workers
from jobs.errors import JobError
from schemas.config import Config


def two_workers(root: Path, files: int = 2, **settings: object) -> Config:
    config = small_config(root, workers=2, **settings)
    write_prepared(config, files=files)
    return config


def card_of(config: Config) -> model.Model:
    return model.load(datasets.open_dataset(config.paths.workspace, DAY, "model").path)[1]


@pytest.fixture(scope="module")
def together(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A configuration that two workers have trained."""
    config = two_workers(tmp_path_factory.mktemp("together"))
    train.run(config, DAY, spark)
    return config


def test_two_workers_learn_what_one_learns(together: Config, tmp_path: Path) -> None:
    alone = small_config(tmp_path)
    write_prepared(alone)
    train.run(alone, DAY)
    ours, theirs = card_of(alone), card_of(together)
    assert ours.architecture == theirs.architecture
    assert len(ours.curve) == len(theirs.curve)
    assert theirs.curve[0].recall == pytest.approx(ours.curve[0].recall, abs=1e-3), "both start from the same factors"
    for one, two in zip(ours.curve[1:], theirs.curve[1:], strict=True):
        assert two.loss == pytest.approx(one.loss, rel=0.1)
        assert two.recall == pytest.approx(one.recall, abs=0.03)
    rows = [datasets.open_dataset(c.paths.workspace, DAY, "model").rows for c in (alone, together)]
    assert rows[0] == rows[1]


def test_two_workers_do_not_learn_noise(spark: Any, tmp_path: Path) -> None:
    config = small_config(tmp_path, workers=2)
    write_prepared(config, noise=True, files=9)  # so many files that each worker has its own
    train.run(config, DAY, spark)
    assert max(point.recall or 0.0 for point in card_of(config).curve) < 0.25 + 0.12


def test_a_worker_that_dies_stops_the_step_and_the_next_run_goes_on(
    spark: Any, together: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = two_workers(tmp_path)

    def dies_in_the_second_epoch(batches: Iterator[pa.RecordBatch], assignment: bytes) -> Iterator[pa.RecordBatch]:
        import os

        from pyspark import BarrierTaskContext

        from jobs import checkpoint
        from jobs.workers import _take_part

        advance = checkpoint.advance

        def die(progress: Any, epoch: Any, **limits: int) -> Any:
            if epoch.epoch == 2 and BarrierTaskContext.get().partitionId() == 1:
                os._exit(9)
            return advance(progress, epoch, **limits)

        checkpoint.advance = die
        try:
            yield from _take_part(batches, assignment)
        finally:
            checkpoint.advance = advance

    with monkeypatch.context() as patch:
        patch.setattr(workers, "_take_part", dies_in_the_second_epoch)
        with pytest.raises(JobError, match="train: Spark stopped") as stopped:
            train.run(config, DAY, spark)
    assert len(str(stopped.value)) < 600
    draft = Path(config.paths.workspace) / DAY / ".model.draft"
    saved = checkpoint.load(draft / train.CHOOSE)
    assert saved is not None
    assert len(saved[0].curve) in (2, 3), (
        "the first epoch is saved; the second one too where the first worker was quick"
    )
    train.run(config, DAY, spark)
    weights = [datasets.open_dataset(c.paths.workspace, DAY, "model").part(model.WEIGHTS) for c in (config, together)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_the_workers_meet_on_a_port_that_no_other_process_can_take_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    ports: list[str] = []
    task = types.SimpleNamespace(
        getTaskInfos=lambda: [types.SimpleNamespace(address="127.0.0.1:1")],
        partitionId=lambda: 0,
        allGather=lambda port: ports.append(port) or [port],
    )
    meet = workers.distributed.init_process_group
    with socket.socket() as other:

        def take_the_port_first(*given: Any, **named: Any) -> None:
            with contextlib.suppress(OSError):
                other.bind(("", int(ports[0])))
                other.listen()
            meet(*given, **named)

        monkeypatch.setattr(workers.distributed, "init_process_group", take_the_port_first)
        with workers.meet(task) as team:  # type: ignore[arg-type]
            assert (team.rank, team.size) == (0, 1)


def test_more_workers_than_spark_runs_at_a_time_are_refused_at_once(spark: Any, tmp_path: Path) -> None:
    config = small_config(tmp_path, workers=3)
    write_prepared(config)
    with pytest.raises(JobError, match="workers is 3 and Spark runs 2") as refused:
        train.run(config, DAY, spark)
    assert "local[3]" in refused.value.hint


def test_an_error_of_a_worker_is_told_in_its_own_words(spark: Any, tmp_path: Path) -> None:
    config = two_workers(tmp_path, temperature=1e-38)
    with pytest.raises(JobError, match=r"the loss is (nan|inf|exactly 0)"):
        train.run(config, DAY, spark)


def test_the_journey_gives_its_session_to_several_workers_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[Any, ...]] = []
    monkeypatch.setattr(train, "run", lambda *arguments: given.append(arguments[2:]))
    for count in (1, 2):
        journey._run_step("train", small_config(tmp_path, workers=count), DAY, "session", lambda: 0.0)
    assert given == [(), ("session",)]


@pytest.mark.parametrize("touched", [5, 2_900])
def test_gradients_are_averaged_over_all_examples_wherever_they_are(spark: Any, touched: int) -> None:
    """Of a table of 3,000 rows the touched ones travel, or all when they are many; against one process with all."""

    def average(batches: Iterator[pa.RecordBatch], touched: int) -> Iterator[pa.RecordBatch]:
        import torch
        from pyspark import BarrierTaskContext
        from torch import distributed

        from jobs.team import Team
        from jobs.workers import meet

        list(batches)
        with meet(BarrierTaskContext.get()) as team:
            assert isinstance(team, Team)
            rng = np.random.default_rng(4)
            table = torch.nn.Parameter(torch.from_numpy(rng.standard_normal((3_000, 4))))
            small = torch.nn.Parameter(torch.from_numpy(rng.standard_normal(4)))
            rows, weights = torch.from_numpy(rng.integers(0, touched, 64)), torch.from_numpy(rng.random(64))
            losses = (table[rows] * small).sum(dim=1) ** 2
            whole = (losses * weights).sum() / weights.sum()
            expected = torch.autograd.grad(whole, [table, small])
            mine = slice(0, 10) if team.rank == 0 else slice(10, 64)
            losses = (table[rows[mine]] * small).sum(dim=1) ** 2
            loss = (losses * weights[mine]).sum() / weights[mine].sum()
            loss.backward()
            value, examples = team.average([table, small], loss, float(weights[mine].sum()), len(rows[mine]))
            assert examples == 64
            assert abs(value - whole.item()) < 1e-12
            for parameter, gradient in zip([table, small], expected, strict=True):
                torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-14)
            assert distributed.is_initialized()
            # A process that has run out takes part with nothing.
            for parameter in (table, small):
                parameter.grad = None
            loss = (small**2).sum() if team.rank == 0 else None
            if loss is not None:
                loss.backward()
            value, examples = team.average([table, small], loss, float(team.rank == 0), 3 * (team.rank == 0))
            assert (examples, team.tell(1.5 if team.rank == 0 else None)) == (3, 1.5)
            torch.testing.assert_close(small.grad, 2 * small.detach())
            assert not table.grad.any()
        yield pa.RecordBatch.from_pydict({"rank": [team.rank]})

    ask = functools.partial(average, touched=touched)
    rows = spark.range(0, 2, 1, 2).mapInArrow(ask, "rank long", barrier=True).collect()
    assert sorted(row["rank"] for row in rows) == [0, 1]
