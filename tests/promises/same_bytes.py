"""Promise 7: the same inputs give the same bytes, whatever Spark does with its tasks.

`run` calls what a Spark task calls: several attempts at every shard at once, in processes of their own, each getting
the rows in other batches, some of them killed and repeated. `run_builds` has a real Spark build a day's version again
and again from files that are cut and ordered otherwise, with other numbers of partitions.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
from small_world import DAY, World

from jobs import build, candidate_files, datasets, evaluate, lists, retrieve, shard_writing, train_ranker
from jobs.spark import session
from prediction_store.manifest import read_manifest
from prediction_store.writer import shard_of
from promises.outcome import Outcome
from promises.tiny_store import remove_store
from schemas import config as settings
from schemas.config import Config, Lists, Paths, Retrieve
from schemas.manifest import FileFacts
from schemas.record import record_seed

SHARDS = 2
ATTEMPTS = 3
KILLED_WITHIN_SECONDS = 0.03
NOW = 1_772_500_000.0


def run(seed: int, trials: int, folder: Path) -> Outcome:
    """For that many sets of users: every shard by several attempts at once, and all of them the same."""
    outcome = Outcome()
    for trial in range(trials):
        dice = random.Random(f"{seed} {trial}")
        rows = [rows_of(shard, dice) for shard in range(SHARDS)]
        clean, crowded = folder / "clean", folder / "crowded"
        digests = []
        for place in (clean, crowded):
            remove_store(place)
            place.mkdir()
        for shard, table in enumerate(rows):
            shard_writing.write_attempt(table.to_batches(), shard, plan_of(clean))
            attempts = [
                partial(shard_writing.write_attempt, cut(table, dice), shard, plan_of(crowded)) for _ in range(ATTEMPTS)
            ]
            outcome.count("attempts", ATTEMPTS)
            outcome.count("attempts killed", at_once(attempts, dice, outcome))
            shard_writing.write_attempt(
                cut(table, dice), shard, plan_of(crowded)
            )  # a retry, which agrees or is refused
            paths = [Path(plan_of(place).paths[shard]) for place in (clean, crowded)]
            digests.append([sha256(path.read_bytes()).hexdigest() for path in paths])
        outcome.tried += 1
        for shard, (one, other) in enumerate(digests):
            if one != other:
                outcome.violate(f"seed {seed}, trial {trial}: shard {shard} has {other[:12]}; wanted {one[:12]}")
    return outcome


def rows_of(shard: int, dice: random.Random) -> pa.Table:
    """Rows of some users of one shard, in any order."""
    random_lists = np.random.default_rng(dice.randrange(1 << 30))
    users = [user for user in range(dice.randint(20, 200)) if shard_of(f"u{user}".encode(), SHARDS) == shard]
    dice.shuffle(users)
    rows = []
    for user in users:
        length = dice.choice([0, 1, 20, 300])
        items = random_lists.permutation(1000)[:length].astype(np.int32)
        scores = np.sort(random_lists.random(length, np.float32))[::-1]
        rows.append(
            {"user_index": user, "key": f"u{user}".encode(), "items": items.tobytes(), "scores": scores.tobytes(),
             "shard": shard}
        )  # fmt: skip
    return pa.Table.from_pylist(rows, _ROW).sort_by("key")


def cut(table: pa.Table, dice: random.Random) -> list[pa.RecordBatch]:
    """The rows as a task gets them: shuffled on the way, sorted by key again, in batches of any size."""
    order = dice.sample(range(len(table)), len(table))
    return table.take(order).sort_by("key").to_batches(max_chunksize=dice.randint(1, 64))


def plan_of(folder: Path) -> shard_writing.ShardPlan:
    paths = tuple(str(folder / f"shard-{number:04d}.mdb") for number in range(SHARDS))
    return shard_writing.ShardPlan(paths, int(NOW), record_seed("0" * 64), 20, 100_000)


def at_once(attempts: Sequence[Callable[[], object]], dice: random.Random, outcome: Outcome) -> int:
    """Run attempts in processes of their own, most of which a timer may kill; the number of those it did."""
    children = {}
    for number, attempt in enumerate(attempts):
        delay = dice.uniform(1e-3, KILLED_WITHIN_SECONDS) if number else 0.0
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_REAL, delay)
                attempt()
                code = 0
            finally:
                os._exit(code)
        children[child] = number
    killed = 0
    for child in children:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        killed += code == -signal.SIGALRM
        if code not in (0, -signal.SIGALRM):
            outcome.violate(f"an attempt ended with {code}")
    return killed


def run_builds(seed: int, trials: int, folder: Path) -> Outcome:
    """Build a day's version that many times with Spark; every file but the manifest is the same each time."""
    outcome, dice = Outcome(), random.Random(seed)
    world = World(seed=seed, users=80)
    with session(settings.Spark(master="local[2]", driver_memory="1g", shuffle_partitions=2), "promises") as spark:
        config = _config(folder, "store-0")
        world.write(Path(config.paths.workspace))
        retrieve.run(config, DAY, spark)
        lists.run(config, DAY, spark)
        evaluate.run(config, DAY)
        train_ranker.run(config, DAY)
        first: dict[str, FileFacts] | None = None
        for trial in range(trials + 1):
            config = _config(folder, f"store-{trial}")
            if first is not None:
                shuffle_files(datasets.open_dataset(config.paths.workspace, DAY, "candidates").part("users"), dice)
                spark.conf.set("spark.sql.shuffle.partitions", str(dice.randint(1, 7)))
            name = str(build.run(config, DAY, spark, NOW + trial).details["version"])
            files = read_manifest(Path(config.paths.store), name).files
            if first is None:
                first = files
                continue
            outcome.tried += 1
            other = sorted(file for file in first if files.get(file) != first[file])
            if other or files.keys() != first.keys():
                outcome.violate(f"seed {seed}, build {trial}: other bytes in {other}")
    return outcome


def shuffle_files(folder: Path, dice: random.Random) -> None:
    """Cut and order the rows of a dataset's part otherwise."""
    table = pa.dataset.dataset(folder, format="ipc").to_table()
    for path in folder.glob("*.arrow"):
        path.unlink()
    turned = table.take(dice.sample(range(len(table)), len(table)))
    rows = dice.randint(5, len(table))
    for number, start in enumerate(range(0, len(turned), rows)):
        with candidate_files.open_writer(folder / f"part-{number}.arrow") as file:
            file.write_table(turned.slice(start, rows))


def _config(folder: Path, store: str) -> Config:
    return Config(
        paths=Paths(workspace=str(folder / "work"), store=str(folder / store)),
        retrieve=Retrieve(candidates=20),
        lists=Lists(length=10, neighbours=5, min_segment_users=13),
        store=settings.Store(shards=3),
    )


_ROW = pa.schema(
    [
        ("user_index", pa.int32()),
        ("key", pa.binary()),
        ("items", pa.binary()),
        ("scores", pa.binary()),
        ("shard", pa.int32()),
    ]
)
