"""Training on several workers: a barrier stage of Spark, whose tasks run at the same time, is a team.

Every task needs the workspace under the same path, as all of Shortlist's Spark jobs do. A task that dies fails the
stage; on a cluster Spark starts the stage again, and it goes on after the last finished epoch.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch 2 exports it in deed, not by word

from jobs.errors import JobError
from jobs.spark import errors_for_people
from jobs.team import Team
from jobs.train import Assignment, Outcome, learn

if TYPE_CHECKING:
    from pyspark import BarrierTaskContext
    from pyspark.sql import SparkSession

PATIENCE = timedelta(hours=2)
"""A process waits for the others no longer, while the first one validates or a slow disk is read."""


def train_together(spark: SparkSession, assignment: Assignment) -> Outcome:
    """Train in as many Spark tasks as `train.workers` says; the first one writes the model.

    Raises:
        JobError: the cluster has not so many slots, or a worker stopped; the message says why.
    """
    workers = assignment.config.workers
    slots = spark.sparkContext.defaultParallelism
    master = spark.sparkContext.master
    if master.startswith("local") and workers > slots:  # type: ignore[union-attr]  # None only before it has started
        raise JobError(
            f"train.workers is {workers} and Spark runs {slots} tasks at a time",
            hint=f"set spark.master=local[{workers}], or lower train.workers",
        )
    ask = functools.partial(_take_part, assignment=msgspec.json.encode(assignment))
    with errors_for_people("train"):
        rows = spark.range(0, workers, 1, workers).mapInArrow(ask, "outcome binary", barrier=True).collect()
    return msgspec.json.decode(rows[0]["outcome"], type=Outcome)


def _take_part(batches: Iterator[pa.RecordBatch], assignment: bytes) -> Iterator[pa.RecordBatch]:
    """One task of the stage; the first one returns the outcome."""
    from pyspark import BarrierTaskContext

    for _ in batches:
        pass
    with meet(BarrierTaskContext.get()) as team:
        outcome = learn(msgspec.json.decode(assignment, type=Assignment), team)
    if team.rank == 0:
        yield pa.RecordBatch.from_pydict({"outcome": pa.array([msgspec.json.encode(outcome)], pa.binary())})


@contextmanager
def meet(context: BarrierTaskContext) -> Iterator[Team]:
    """The team of all tasks of a barrier stage, which talk by gloo until the block ends."""
    hosts = [info.address.split(":")[0] for info in context.getTaskInfos()]
    rank, size = context.partitionId(), len(hosts)
    store = None
    if rank == 0:  # listens from here on: a port that was only found free might be taken by another process
        store = TCPStore(hosts[0], 0, size, is_master=True, timeout=PATIENCE, wait_for_workers=False)
    port = context.allGather(str(store.port) if store else "")[0]
    if store is None:
        store = TCPStore(hosts[0], int(port), size, is_master=False, timeout=PATIENCE)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield Team(rank, size)
    finally:
        distributed.destroy_process_group()
