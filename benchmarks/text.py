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
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

from benchmarks.measure import Row, finish, header
from jobs import datasets, embed, evaluate, journey, prepare, retrieve, train
from jobs.datasets import Dataset
from jobs.spark import session
from schemas.config import Config
from schemas.config_file import load_config
from schemas.tables import TEST

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).parents[1]
DATA = ("online-retail", "ml-100k")
TEXTS = ("words", "sentences")
AT = (20, 100, 1000)
MEASURES = ("recall@20", "recall@100", "cold@20", "cold@100", "cold@1000")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("SHORTLIST_DATA") or ROOT.parent / "shared/data")
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cold-share", type=float, default=0.2, help="of the items, made cold in the second half")
    options = parser.parse_args()
    facts = header("text")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="shortlist-bench-") as folder:
        configs = {name: configure(name, options.data, Path(folder) / name) for name in DATA}
        with session(configs[DATA[0]].spark, "benchmark") as spark:
            for share in (0.0, options.cold_share):
                for name, config in configs.items():
                    rows += run_all(name, config, share, options.seeds, spark)
    print()
    for line in table(rows):
        print(line)
    finish(facts, rows, summary(rows, options.cold_share))


def configure(name: str, data: Path, folder: Path) -> Config:
    """The example's configuration on the public data, with its workspace in `folder`."""
    file = ROOT / "examples" / name / "shortlist.toml"
    own = load_config(file).data
    overrides = [f"paths.workspace={folder / 'work'}", f"paths.store={folder / 'store'}"]
    for part in ("interactions", "items", "users"):
        overrides.append(f"data.{part}.path={data / name / Path(getattr(own, part).path).name}")
    return load_config(file, overrides)


def run_all(name: str, config: Config, share: float, seeds: int, spark: SparkSession) -> Iterator[Row]:
    """Both texts with each seed, one line each."""
    day = journey.default_day(config)
    prepare.run(config, day, spark)
    if share:
        make_cold(config, day, share)
    for seed in range(1, seeds + 1):
        for text in TEXTS:
            settings = msgspec.structs.replace(config.train, seed=seed, text=text)
            chosen = msgspec.structs.replace(config, train=settings)
            train.run(chosen, day)
            embed.run(chosen, day, spark)
            retrieve.run(chosen, day, spark)
            evaluate.run(chosen, day)
            found = measure(chosen, day)
            row: Row = {"data": name, "made_cold": share, "seed": seed, "text": text, **found}
            print(json.dumps(row), flush=True)
            yield row


def make_cold(config: Config, day: str, share: float) -> None:
    """Replace `prepared` by one in which a share of the items has met nobody before the test split."""
    whole = datasets.open_dataset(config.paths.workspace, day, "prepared")
    tables = {part: _read(whole, part) for part in ("interactions", "items", "users")}
    items = tables["items"].sort_by("item_index")
    is_cold = np.random.default_rng(0).random(len(items)) < share
    met = tables["interactions"]
    split, item, user = (met[column].to_numpy() for column in ("split", "item_index", "user_index"))
    keep = (split == TEST) | ~is_cold[item]
    tables["interactions"] = met.filter(pa.array(keep))
    in_train = keep & (split == 0)
    for part, sorted_table, index in (("items", items, item), ("users", tables["users"].sort_by("user_index"), user)):
        place = sorted_table.schema.get_field_index("interactions")
        counts = pa.array(np.bincount(index[in_train], minlength=len(sorted_table)), pa.int64())
        tables[part] = sorted_table.set_column(place, sorted_table.schema.field(place), counts)
    with datasets.step(
        config.paths.workspace, day, "prepared", outside={"cold": f"{share} {whole.fingerprint}"}
    ) as draft:
        for part, cut in tables.items():
            (draft.path / part).mkdir()
            pa.parquet.write_table(cut, draft.path / part / "part-0.parquet")
        draft.rows |= whole.rows | {"interactions": len(tables["interactions"])}


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
    lists = _read(candidates, "evaluation")
    offered = dict(zip(lists["user_index"].to_pylist(), lists["items"].to_pylist(), strict=True))
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


def _read(dataset: Dataset, part: str) -> pa.Table:
    return pa.dataset.dataset(dataset.part(part), format="parquet").to_table()


if __name__ == "__main__":
    main()
