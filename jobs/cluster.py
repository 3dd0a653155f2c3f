"""What a session on a cluster needs beside the master's address: our code on its machines, and executors.

The tasks of a local master run on this machine, with this Python's modules. Those of any other may run anywhere.
"""

from __future__ import annotations

import re
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import progress

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

PACKAGES = ("schemas", "prediction_store", "reranker", "jobs")
POLL_SECONDS = 0.25
SETTLED_SECONDS = 3.0
"""When no further executor has come for so long, all are there. Only the number of tasks depends on it, no result."""
TELL_SECONDS = 30.0


def is_cluster(master: str) -> bool:
    """True when tasks may run on other machines: the master is not `local` or `local[…]`."""
    return re.fullmatch(r"local(\[.*\])?", master) is None


def runs_on_cluster(spark: SparkSession) -> bool:
    """True when the tasks of this session may run on other machines: they see only what lies on shared disks."""
    return is_cluster(spark.sparkContext.master)  # type: ignore[arg-type]  # None only before it has started


def ship_code(context: SparkContext, folder: Path) -> None:
    """Have every task import this very code, whatever Shortlist is installed on its machine, or none.

    Args:
        folder: keeps the archive, which executors that come late fetch, too. Must outlive the context.
    """
    archive = pack_code(folder / "shortlist-code.zip")
    kept = list(sys.path)
    context.addPyFile(str(archive))
    sys.path[:] = kept  # Spark puts the archive before our own folder, where the files beside the code are, too


def pack_code(archive: Path) -> Path:
    """Write the Python files of our packages into a zip archive that can be imported from."""
    root = Path(__file__).parents[1]
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for package in PACKAGES:
            for file in sorted((root / package).rglob("*.py")):
                packed.write(file, file.relative_to(root))
    return archive


def await_executors(context: SparkContext) -> None:
    """Return when the executors have come: one at least, and no further one for a while.

    There is no limit, as there is none in Spark: a busy cluster gives us our turn. But it says what it waits for.
    """
    said = changed = time.monotonic()
    executors = 0
    while not executors or time.monotonic() - changed < SETTLED_SECONDS:
        found = len(context._jsc.sc().statusTracker().getExecutorInfos()) - 1  # one of them is the driver
        if found != executors:
            executors, changed = found, time.monotonic()
        if not executors and time.monotonic() - said >= TELL_SECONDS:
            said = time.monotonic()
            memory = context.getConf().get("spark.executor.memory", "1g")
            progress.notice(
                "waiting",
                master=context.master,
                missing="executors",
                hint=f"has it a worker with a free core and {memory} (spark.executor.memory)?",
            )
        time.sleep(POLL_SECONDS)
