"""How work is cut into tasks. Imported by the tasks, too: nothing of a session is needed here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PARTITIONS = "spark.sql.shuffle.partitions"


def tasks_of(spark: SparkSession) -> int:
    """How many tasks a session cuts work into."""
    return int(spark.conf.get(PARTITIONS) or 1)


def task_number() -> int:
    """The number of the partition that this process works on. Requires: it runs a task."""
    from pyspark import TaskContext

    context = TaskContext.get()
    assert context is not None
    return context.partitionId()
