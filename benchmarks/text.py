"""Item text as hashed words against a sentence encoder: recall of all that was wanted, and of items nobody had met.

    make install-text && python -m benchmarks.text [--seeds 3] [--cold-share 0.2]

Whole journeys from prepare to evaluate, on Online Retail and MovieLens 100K, which lie in $SHORTLIST_DATA: first as
they are, then with a random share of the items made cold: their interactions before the test split are taken away.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

from benchmarks.measure import Row, finish, header
from jobs import candidate_files, datasets, embed, evaluate, journey, prepare, retrieve, train
from jobs.datasets import Dataset
from jobs.spark import session
from schemas.config import Config
from schemas.config_file import load_config
from schemas.tables import TEST, TRAIN

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).parents[1]
DATA = ("online-retail", "ml-100k")
TEXTS = ("words", "sentences")
AT = (20, 100, 1000)
BATCH_USERS = 1024
MEASURES = ("recall@20", "recall@100", "cold@20", "cold@100", "cold@1000")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("SHORTLIST_DATA") or ROOT.parent / "shared/data")
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cold-share", type=float, default=0.2, help="of the items, made cold in the other half")
    options = parser.parse_args()
    facts = header("text")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="shortlist-bench-") as folder, session(Config().spark, "text") as spark:
        worlds = [
            World(name, share, config)
            for name in DATA
            for share, config in prepare_both(name, options.data, Path(folder) / name, options.cold_share, spark)
        ]
        # Seed by seed, so that a run that was stopped has judged everything equally often.
        for seed in range(1, options.seeds + 1):
            for world in worlds:
                rows += [run_one(world, seed, text, spark) for text in TEXTS]
    print()
    for line in table(rows):
        print(line)
    finish(facts, rows, summary(rows, options.cold_share))


class World(NamedTuple):
    """A data set that is prepared."""

    name: str
    made_cold: float
    """Share of the items that were made cold."""
    config: Config


def prepare_both(
    name: str, data: Path, folder: Path, share: float, spark: SparkSession
) -> Iterator[tuple[float, Config]]:
    """The data set as it is, and with a share of its items made cold; each in a workspace of its own."""
    whole, cut = (configure(name, data, folder / part) for part in ("whole", "cut"))
    day = journey.default_day(whole, time.time())
    prepare.run(whole, day, spark)
    yield 0.0, whole
    make_cold(datasets.open_dataset(whole.paths.workspace, day, "prepared"), cut, day, share)
    yield share, cut


def configure(name: str, data: Path, folder: Path) -> Config:
    """The example's configuration on the public data, with its workspace in `folder`."""
    file = ROOT / "examples" / name / "shortlist.toml"
    own = load_config(file).data
    overrides = [f"paths.workspace={folder / 'work'}", f"paths.store={folder / 'store'}"]
    for part in ("interactions", "items", "users"):
        overrides.append(f"data.{part}.path={data / name / Path(getattr(own, part).path).name}")
    return load_config(file, overrides)


def run_one(world: World, seed: int, text: str, spark: SparkSession) -> Row:
    """Train, embed, retrieve, evaluate lists by what the towers say alone; prints a line."""
    day = journey.default_day(world.config, time.time())
    settings = msgspec.structs.replace(world.config.train, seed=seed, text=text, order="products")
    config = msgspec.structs.replace(world.config, train=settings)
    train.run(config, day)
    embed.run(config, day, spark)
    retrieve.run(config, day, spark)
    evaluate.run(config, day)
    found: Row = {"data": world.name, "made_cold": world.made_cold, "seed": seed, "text": text, **measure(config, day)}
    print(json.dumps(found), flush=True)
    return found


def make_cold(whole: Dataset, config: Config, day: str, share: float) -> None:
    """Write a `prepared` in which a share of the items has met nobody before the test split."""
    tables = {part: _read(whole, part) for part in ("interactions", "items", "users")}
    items, users = tables["items"].sort_by("item_index"), tables["users"].sort_by("user_index")
    is_cold = np.random.default_rng(0).random(len(items)) < share
    met = tables["interactions"]
    split, item, user = (met[column].to_numpy() for column in ("split", "item_index", "user_index"))
    keep = (split == TEST) | ~is_cold[item]
    in_train = keep & (split == TRAIN)
    cut = {
        "interactions": met.filter(pa.array(keep)),
        "items": _with_counts(items, item[in_train]),
        "users": _with_counts(users, user[in_train]),
    }
    made_of = {"cold": f"{share} of {whole.fingerprint}"}
    with datasets.step(config.paths.workspace, day, "prepared", outside=made_of) as draft:
        for part, table in cut.items():
            (draft.path / part).mkdir()
            pa.parquet.write_table(table, draft.path / part / "part-0.parquet")
        draft.rows |= whole.rows | {"interactions": len(cut["interactions"])}


def measure(config: Config, day: str) -> dict[str, float]:
    """Recall as `evaluate` reports it; and `cold`: the same of the wanted items that nobody had met before the test.

    A user counts for the latter who went on to such an item, and is judged by these only.
    """
    prepared, candidates, judged = (
        datasets.open_dataset(config.paths.workspace, day, name) for name in ("prepared", "candidates", "evaluation")
    )
    report = json.loads(judged.part("report.json").read_text())
    interactions = _read(prepared, "interactions")
    split, item, user = (interactions[name].to_numpy() for name in ("split", "item_index", "user_index"))
    is_cold = np.bincount(item[split < TEST], minlength=prepared.rows["items"]) == 0
    order = np.load(candidates.part("order.npy"))
    offered = {
        who: items
        for batch in candidate_files.read_all(candidates.part("evaluation"), BATCH_USERS)
        for who, items in zip(*(batch.column(name).to_pylist() for name in ("user_index", "items")), strict=True)
    }
    wanted: dict[int, set[int]] = {}
    for who, what in zip(user[split == TEST].tolist(), item[split == TEST].tolist(), strict=True):
        if is_cold[what]:
            wanted.setdefault(who, set()).add(what)
    found: dict[str, float] = {f"recall@{k}": report["recall"][str(k)] for k in AT}
    for k in AT:
        shares = [len(some & set(order[offered[who][:k]].tolist())) / min(k, len(some)) for who, some in wanted.items()]
        found[f"cold@{k}"] = round(float(np.mean(shares)), 6)
    return found | {"cold_pairs": sum(map(len, wanted.values())), "cold_users": len(wanted)}


def table(rows: list[Row]) -> Iterator[str]:
    """Mean and standard deviation over the seeds, words and sentences, as a table of Markdown."""
    yield f"| data | cold items wanted | {' | '.join(MEASURES)} |"
    yield "|---" * (2 + len(MEASURES)) + "|"
    for name, share in dict.fromkeys((row["data"], row["made_cold"]) for row in rows):
        mine = [row for row in rows if (row["data"], row["made_cold"]) == (name, share)]
        cells = [" → ".join(_spread(mine, text, measure) for text in TEXTS) for measure in MEASURES]
        yield f"| {name}{f', {share:.0%} made cold' if share else ''} | {mine[0]['cold_pairs']} | {' | '.join(cells)} |"


def summary(rows: list[Row], cold_share: float) -> dict[str, float]:
    """What sentences are against words, 1 being the same: mean of the data sets' ratios.

    Recall where the data is as it is; cold recall, at 100, where many items are cold.
    """
    gains = {"text_gain_recall20": (0.0, "recall@20"), "text_gain_cold_recall": (cold_share, "cold@100")}
    return {key: round(float(np.mean(list(_ratios(rows, *of)))), 3) for key, of in gains.items()}


def _ratios(rows: list[Row], share: float, measure: str) -> Iterator[float]:
    for name in DATA:
        words, sentences = (
            sum(float(r[measure]) for r in rows if (r["data"], r["made_cold"], r["text"]) == (name, share, text))
            for text in TEXTS
        )
        yield sentences / words if words else float("nan")


def _spread(rows: list[Row], text: str, measure: str) -> str:
    values = [float(row[measure]) for row in rows if row["text"] == text]
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}"


def _with_counts(table: pa.Table, indexes: np.ndarray) -> pa.Table:
    place = table.schema.get_field_index("interactions")
    counts = pa.array(np.bincount(indexes, minlength=len(table)), pa.int64())
    return table.set_column(place, table.schema.field(place), counts)


def _read(dataset: Dataset, part: str) -> pa.Table:
    return pa.dataset.dataset(dataset.part(part), format="parquet").to_table()


if __name__ == "__main__":
    main()
