"""Two executors search one index; prints as JSON what the memory map of each says of its vectors.

A process of its own: python tests/cluster/executors_sharing_an_index.py FOLDER
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs import index, retrieve, vectors
from jobs.calibration import Queries
from jobs.search import Method, Ragged
from jobs.spark import session
from schemas.config import Spark

MASTER = "local-cluster[2,1,1024]"
SECONDS = 60.0


def of_vectors(pid: str) -> dict[str, int]:
    """Kilobytes by kind, of the mapping of vectors.npy in a process."""
    found: dict[str, int] = {}
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):  # the head of a mapping
            inside = line.endswith("/vectors.npy")
        elif inside and rest[-1] == "kB":
            found[name[:-1]] = found.get(name[:-1], 0) + int(rest[0])
    return found


def search_and_tell(batches: Iterable[pa.RecordBatch], folder: str, token: str) -> Iterator[pa.RecordBatch]:
    """Search, then wait until the other has searched too, for what is shared shows only in both at once."""
    opened = index.open_index(folder, token)
    for batch in batches:
        nothing = Ragged(np.zeros(len(batch) + 1, np.int64), np.empty(0, np.int32))
        queries = Queries(vectors.matrix(batch.column("vector"), 64), nothing)
        retrieve.search_users(opened, batch.column("user_index").to_numpy(), queries, 10, Method())
    mark = Path(folder) / f"searched-{os.getpid()}"
    mark.touch()
    deadline = time.monotonic() + SECONDS
    while len(list(Path(folder).glob("searched-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    said = json.dumps({"pid": os.getpid(), "parent": os.getppid()} | of_vectors("self"))
    (Path(folder) / f"told-{os.getpid()}").touch()
    while len(list(Path(folder).glob("told-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    yield pa.RecordBatch.from_pydict({"said": [said]})


def main(folder: str) -> None:
    path = Path(folder)
    rng = np.random.default_rng(0)
    items = rng.standard_normal((100_000, 64)).astype(np.float32)
    numbers = np.arange(len(items), dtype=np.int32)
    index.build(path, items, numbers, numbers // 1000)
    users = pa.table(
        {
            "user_index": pa.array(np.arange(40, dtype=np.int32)),
            "vector": pa.array(list(rng.standard_normal((40, 64)).astype(np.float32)), pa.list_(pa.float32())),
        }
    )
    settings = Spark(master=MASTER, shuffle_partitions=2, conf={"spark.executor.memory": "512m"})
    with session(settings, "sharing") as spark:
        token = index.token_of(path)
        rows = (
            spark.createDataFrame(users)
            .repartitionByRange(2, "user_index")
            .mapInArrow(lambda batches: search_and_tell(batches, folder, token), "said string")
            .collect()
        )
    print(json.dumps([json.loads(row["said"]) for row in rows]))


if __name__ == "__main__":
    main(sys.argv[1])
