"""Lists that need no model, judged as `evaluate` judges ours: what a user did before, and what was popular of late.

The report's popularity counts all interactions alike, however old, and knows nothing of the user. Where things are
bought or read again, or live for a week, that is easily passed; so these stand beside it in docs/numbers.md.

    python -m benchmarks.simple_lists --data FOLDER      # online-retail, deskdrop in it; the shop is invented
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset

from benchmarks import measure
from jobs import datasets, journey
from jobs.datasets import DAY_SECONDS, Dataset
from jobs.evaluation.held_out import IS_TEST, SAYS_SOMETHING, HeldOut, read_held_out, rows_of
from jobs.evaluation.judged import RECALL_AT, Batches, columns, first_of, judge
from schemas.config import Config
from schemas.config_file import load_config

NAMES = ("shop", "online-retail", "deskdrop")
DAYS = 7
"""Before the judged part: what is popular of late."""
WEEK = f"popularity of the last {DAYS} days"
BATCH_USERS = 512


def main(argv: Sequence[str] | None = None) -> None:
    """Judge the lists of each data set; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", choices=NAMES)
    arguments = parser.parse_args(argv)
    facts, rows = measure.header("simple-lists"), list[measure.Row]()
    for name in NAMES:
        if arguments.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                rows += _of_example(name, Path(folder), arguments.data / name)
    summary = {f"{row['data']}, {row['name']}": float(row["recall@20"]) for row in rows}
    measure.finish(facts, rows, summary)


def _of_example(name: str, folder: Path, data: Path) -> Iterator[measure.Row]:
    example = folder / name
    ignored = shutil.ignore_patterns("data", "work", "store")
    shutil.copytree(Path(__file__).resolve().parent.parent / "examples" / name, example, ignore=ignored)
    config, steps = load_config(example / "shortlist.toml"), ["prepare"]
    if journey.is_simulated(config):
        steps.insert(0, "simulate")
    elif data.is_dir():
        (example / "data").symlink_to(data.resolve())
    else:
        print(f"no {data}: left out")
        return
    day = journey.default_day(config, time.time())
    journey.run(config, day, steps, now=time.time)
    for rule, batches, held_out in lists(config, datasets.open_dataset(config.paths.workspace, day, "prepared")):
        found = columns(judge(batches, held_out).rows)
        recalls = {f"recall@{k}": round(float(found["recall", k].mean()), 4) for k in (20, 100, 1000)}
        print(f"{name:<14} {rule:<32} {recalls}", flush=True)
        yield {"data": name, "name": rule, **recalls}


def lists(config: Config, prepared: Dataset) -> Iterator[tuple[str, Batches, HeldOut]]:
    """The name of each rule, its lists of all who are judged, and what judges them."""
    order = np.arange(prepared.rows["items"], dtype=np.int32)
    held_out = read_held_out(prepared, order, drop_consumed=config.retrieve.consumed == "drop")
    users = np.unique(held_out.wanted.user)
    assert held_out.time is not None
    late = pa.dataset.field("time") >= held_out.time[0] - DAYS * DAY_SECONDS
    counts = np.bincount(_before(prepared, late)[1], minlength=len(order))
    # What nobody met in these days follows in the order of all days.
    of_late = held_out._replace(popular=np.lexsort((-held_out.known_items, -counts)).astype(np.int32))
    for name, known in (("popularity", held_out), (WEEK, of_late)):
        yield name, first_of(known, users, BATCH_USERS), held_out
        yield f"own items, then {name}", own_first(prepared, known, users), held_out


def own_first(prepared: Dataset, held_out: HeldOut, users: np.ndarray) -> Batches:
    """What each user did most often before the judged part, equally often in the popularity order, and then that order;
    without what must not be offered."""
    user, item = _before(prepared, pa.dataset.scalar(True))
    pairs, counts = np.unique(user.astype(np.int64) * len(held_out.popular) + item, return_counts=True)
    user, item = np.divmod(pairs, len(held_out.popular))
    place_of = np.argsort(held_out.popular)
    order = np.lexsort((place_of[item], -counts, user))
    user, item = user[order], item[order]
    width = max(RECALL_AT)
    for one in users:
        own = item[slice(*np.searchsorted(user, [one, one + 1]))]
        every = np.concatenate([own, held_out.popular])
        every = every[np.sort(np.unique(every, return_index=True)[1])]
        every = every[~np.isin(every, rows_of(held_out.consumed, np.array([one])).item)]
        yield np.array([one]), every[None, :width]


def _before(prepared: Dataset, rows: pa.dataset.Expression) -> tuple[np.ndarray, np.ndarray]:
    """(user_index, item_index) of the interactions before the judged part that weigh anything."""
    source = pa.dataset.dataset(prepared.part("interactions"), format="parquet")
    table = source.to_table(columns=["user_index", "item_index"], filter=~IS_TEST & SAYS_SOMETHING & rows)
    return table["user_index"].to_numpy(), table["item_index"].to_numpy()


if __name__ == "__main__":
    main()
