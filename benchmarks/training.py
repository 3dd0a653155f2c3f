"""What the towers learn and how long they take, on public data with published figures.

Yelp2018 (the LightGCN split): recall@20, NDCG@20 and recall@1000 of the trained towers, of what they start from, and of
implicit's ALS in the same run; and the minutes that each took. Online Retail and Deskdrop by the whole journey: recall
of cold users and cold items beside the popularity order and content alone.

    python -m benchmarks.training --data FOLDER      # yelp2018-lightgcn, online-retail, deskdrop in it
    python -m benchmarks.training --data FOLDER --only yelp
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from benchmarks import measure, yelp
from benchmarks.plot import Panel, svg
from jobs import train
from jobs.blend import balanced, blend
from jobs.device import choose_device
from jobs.factors import factorise
from jobs.least_squares import alternate
from jobs.refine import Factors, Refinement
from jobs.start import NORMALISED_SHARE, ROUNDS, distilled
from schemas.config import Config, Paths, Train

LIGHTGCN, MF_BSL = 0.0649, 0.0725
PUBLISHED = {
    "MF-BPR": (0.0576, 0.0468),
    "LightGCN": (LIGHTGCN, 0.0530),
    "EASE": (0.0657, 0.0552),
    "MF-CCL": (0.0698, 0.0572),
    "SimpleX": (0.0701, 0.0575),
    "MF + BSL": (MF_BSL, 0.0599),
    "LightGCN + BSL": (0.0744, 0.0617),
}
"""Recall@20 and NDCG@20 on this split; source: the papers of the models and Wu et al. 2023, BSL, table 2."""
YELP_KEYS = (
    "yelp_recall20",
    "yelp_ndcg20",
    "yelp_recall1000",
    "als128_recall1000",
    "minutes_to_lightgcn",
    "minutes_total",
)
KINDS = (
    ("implicit ALS", "implicit ALS"),
    ("degree-normalised", "SVD"),
    ("least squares", "least squares"),
    ("both factorisations", "both added"),
    ("towers", "towers"),
    ("the teacher", "distilled"),
    ("refined with", "refined alone"),
)
"""Starts of names of rows, and the line of the plot they are on."""
TRAINED_ALONE = ("implicit ALS", "towers")
"""Those whose seconds are all that it takes; the others build on one another."""
Vectors = tuple[np.ndarray, np.ndarray]


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is asked for; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", choices=["yelp", "cold"])
    parser.add_argument("--epochs", type=int, default=Train().factor_epochs, help="of refinement")
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--teachers", type=int, default=Train().teachers, help="`train.teachers`")
    arguments = parser.parse_args(argv)
    facts = measure.header("training") | {"device": device_name()}
    print(f"device={facts['device']}")
    rows: list[measure.Row] = []
    summary: dict[str, float | None] = {}
    if arguments.only != "cold":
        summary |= on_yelp(
            arguments.data / "yelp2018-lightgcn",
            rows,
            Train(
                dimensions=arguments.dimensions,
                similarity="dot",
                max_epochs=0,
                factor_epochs=arguments.epochs,
                teachers=arguments.teachers,
                threads=os.cpu_count() or 1,
            ),
        )
    if arguments.only != "yelp":
        summary |= cold(arguments.data, rows)
    measure.RAW.mkdir(exist_ok=True)
    (measure.RAW / "training.svg").write_text(svg(panels(rows)), encoding="utf-8")
    measure.finish(facts, rows, summary)


def device_name() -> str:
    """Of what trains; the factorisations and implicit stay on the CPU whatever it is."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"


def panels(rows: list[measure.Row]) -> list[Panel]:
    """What was found on Yelp2018, by the time it took and by the dimensions it needs."""

    def lines(x: str, y: str) -> dict[str, list[tuple[float, float]]]:
        found: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            name = next((kind for start, kind in KINDS if str(row["name"]).startswith(start)), None)
            if name is not None and float(row[x]) > 0:
                found.setdefault(name, []).append((float(row[x]), float(row[y])))
        return {name: sorted(points) for name, points in found.items()}

    whole = {name: line for name, line in lines("seconds", "recall20").items() if name in TRAINED_ALONE}
    return [
        Panel("recall@20", "seconds of training", whole, is_linear=True),
        Panel("recall@20", "dimensions", lines("dimensions", "recall20"), is_linear=True),
        Panel("recall@1000", "dimensions", lines("dimensions", "recall1000"), is_linear=True),
    ]


def on_yelp(folder: Path, rows: list[measure.Row], settings: Train) -> dict[str, float | None]:
    """The table of Yelp2018; nothing where the data is not."""
    if not folder.is_dir():
        print(f"no {folder}: Yelp2018 is left out")
        return {}
    data = yelp.read(folder)
    print(f"\nYelp2018: {data.users:,} users, {data.items:,} items, {len(data.train.users):,} pairs to learn from")
    for name, (recall, ndcg) in PUBLISHED.items():
        print(f"{'published: ' + name:<58} recall@20 {recall:.4f}  ndcg@20 {ndcg:.4f}")
    als = _judged(rows, data, "implicit ALS, 128 factors", lambda: _implicit(data, 128))
    _judged(rows, data, "implicit ALS, 256 factors", lambda: _implicit(data, 256))
    factorisations = _factorisations(rows, data, settings.dimensions)
    with tempfile.TemporaryDirectory() as folder_of_run:
        start = msgspec.structs.replace(settings, factor_epochs=0)
        quick = _judged(rows, data, "towers, not refined", lambda: _towers(data, Path(folder_of_run) / "0", start))
        full = _judged(rows, data, "towers", lambda: _towers(data, Path(folder_of_run) / "1", settings))
    _distilled(rows, data, factorisations, settings)
    first = next((run["seconds"] for run in (quick, full) if run["recall20"] >= LIGHTGCN), None)
    found = (
        full["recall20"],
        full["ndcg20"],
        full["recall1000"],
        als["recall1000"],
        None if first is None else round(first / 60, 2),
        round(full["seconds"] / 60, 2),
    )
    return dict(zip(YELP_KEYS, found, strict=True))


def _judged(rows: list[measure.Row], data: yelp.Yelp, name: str, make: Callable[[], Vectors]) -> dict[str, float]:
    """Make vectors against the clock, measure and print them."""
    started = time.monotonic()
    users, items = make()
    seconds = round(time.monotonic() - started, 1)
    found = yelp.measure(data, users, items) | {"seconds": seconds, "dimensions": float(users.shape[1])}
    rows.append({"name": name, **found})
    print(
        f"{name:<58} recall@20 {found['recall20']:.4f}  ndcg@20 {found['ndcg20']:.4f}  recall@1000"
        f" {found['recall1000']:.4f}  {users.shape[1]:>4} dimensions  {seconds:>7.1f} s",
        flush=True,
    )
    return found


def _factorisations(rows: list[measure.Row], data: yelp.Yelp, served: int) -> Vectors:
    """What the towers start from: the two factorisations, and their sum, which has twice the dimensions."""
    pairs = np.unique(data.train.users * data.items + data.train.items)
    takers = np.bincount(pairs % data.items, minlength=data.items)

    def blocks() -> list[np.ndarray]:
        return [pairs]

    found: dict[str, Vectors] = {}

    def keep(name: str, make: Callable[[], Vectors]) -> None:
        def kept() -> Vectors:
            found[name] = make()
            return found[name]

        _judged(rows, data, name, kept)

    svd, squares, both = "degree-normalised SVD", f"least squares, {ROUNDS} rounds", "both factorisations added"
    shape = data.users, data.items
    keep(svd, lambda: factorise(blocks, takers, users=data.users, dimensions=served, seed=7))
    keep(squares, lambda: alternate(blocks, shape=shape, dimensions=served, rounds=ROUNDS, seed=7))
    keep(both, lambda: blend(found[squares], found[svd], share=NORMALISED_SHARE, dimensions=2 * served))
    return found[both]


def _taught(data: yelp.Yelp, factors: Vectors, *, dimensions: int, epochs: int, seed: int) -> Vectors:
    """Factors of so many dimensions after the refinement, on the whole training part."""
    pairs = np.unique(data.train.users * data.items + data.train.items)
    start = Factors(*(torch.from_numpy(side.copy()) for side in balanced(*_strongest(factors, dimensions))))
    drawn, device = np.unique(pairs % data.items), choose_device(Train().device)
    training = Refinement(start, epochs=epochs, seed=seed, drawn=drawn, device=device)
    for epoch in range(epochs):
        training.run_epoch(epoch, lambda: [pairs], advance=lambda _: None)
    return _arrays(training.factors().to("cpu"))


def _strongest(factors: Vectors, dimensions: int) -> Vectors:
    """The best approximation by so many dimensions: `blend` gives them in the order of their strength."""
    return factors[0][:, :dimensions], factors[1][:, :dimensions]


def _distilled(rows: list[measure.Row], data: yelp.Yelp, factorisations: Vectors, settings: Train) -> None:
    """The ensemble as teacher, and what its projections to fewer dimensions keep of it, beside towers of their size."""
    served, teachers = settings.dimensions, settings.teachers
    taught = functools.partial(_taught, data, factorisations, epochs=settings.factor_epochs)
    found: list[Vectors] = []

    def teacher() -> Vectors:
        refined = [_factors(taught(dimensions=served, seed=settings.seed + number)) for number in range(teachers)]
        found.append(_arrays(distilled(refined, _factors(factorisations), (teachers + 2) * served)))
        return found[0]

    whole = _judged(rows, data, f"the teacher: {teachers} refined and both factorisations", teacher)
    for dimensions in (served, served // 2, served // 4):
        name = f"the teacher projected to {dimensions}: a student"
        run = _judged(rows, data, name, functools.partial(_strongest, found[0], dimensions))
        kept = ", ".join(f"{key} {run[key] / whole[key]:.1%}" for key in ("recall20", "ndcg20", "recall1000"))
        print(f"{'':<58} keeps {kept} at {dimensions / found[0][0].shape[1]:.3f} of the bytes and products")
        if dimensions < served:
            alone = functools.partial(taught, dimensions=dimensions, seed=settings.seed)
            _judged(rows, data, f"refined with {dimensions} dimensions from the start", alone)


def _factors(vectors: Vectors) -> Factors:
    return Factors(*map(torch.from_numpy, vectors))


def _arrays(factors: Factors) -> Vectors:
    return factors.users.numpy(), factors.items.numpy()


def _implicit(data: yelp.Yelp, factors: int) -> Vectors:
    import implicit
    import scipy.sparse
    import threadpoolctl

    ones = np.ones(len(data.train.users), np.float32)
    matrix = scipy.sparse.csr_matrix((ones, (data.train.users, data.train.items)), shape=(data.users, data.items))
    with threadpoolctl.threadpool_limits(1, "blas"):
        als = implicit.als.AlternatingLeastSquares(
            factors=factors, alpha=100, regularization=300, iterations=10, random_state=7, use_gpu=False
        )
        als.fit(matrix, show_progress=False)
    return als.user_factors, als.item_factors


def _towers(data: yelp.Yelp, workspace: Path, settings: Train) -> Vectors:
    """The product's own training: epochs chosen on a tenth of the training part, then anew on all of it."""
    config = Config(paths=Paths(workspace=str(workspace)), train=settings)
    yelp.write_prepared(data, config)
    train.run(config, yelp.DAY)
    return yelp.embedded(config)


def cold(data: Path, rows: list[measure.Row]) -> dict[str, float | None]:
    """Recall of users and items that training never met, on two shops, by the whole journey."""
    ratio: float | None = None
    for name in ("online-retail", "deskdrop"):
        if not (data / name).is_dir():
            print(f"no {data / name}: left out")
            continue
        report = _report(name, data / name)
        print(f"\n{name}: recall of {report['interactions']:,} wanted items of {report['users']:,} users")
        for kind in ("users", "items"):
            segment = next(segment for segment in report["segments"][kind] if segment["name"] == "cold")
            found = _recalls(segment)
            rows.append({"name": f"{name}, cold {kind}", "interactions": segment["interactions"], **found})
            print(f"  cold {kind} ({segment['interactions']:,} of these): {json.dumps(found)}")
            if (name, kind) == ("online-retail", "items") and found.get("popularity recall@100"):
                ratio = round(float(found["ours recall@100"]) / float(found["popularity recall@100"]), 2)
    return {"cold_item_recall_vs_popularity": ratio}


def _report(name: str, data: Path) -> dict[str, Any]:
    """What `evaluate` says at the end of the journey of an example."""
    root = Path(__file__).resolve().parent.parent
    with tempfile.TemporaryDirectory() as folder:
        example = Path(folder) / name
        shutil.copytree(root / "examples" / name, example, ignore=shutil.ignore_patterns("data", "work", "store"))
        (example / "data").symlink_to(data.resolve())
        steps = "prepare,train,embed,retrieve,lists,evaluate"
        command = [sys.executable, str(root / "shortlist.py"), "run", "--config", str(example / "shortlist.toml")]
        subprocess.run([*command, "--only", steps], check=True)
        report = next(example.glob("work/*/report/report.json"))
        return json.loads(report.read_bytes())  # type: ignore[no-any-return]


def _recalls(segment: dict[str, Any]) -> dict[str, float | str | None]:
    """What each ranking finds in a segment, by ranking and length of list."""
    return {
        f"{ranking} recall@{k}": value
        for ranking in ("ours", "popularity", "content")
        for k, value in segment.get(ranking, {}).get("recall", {}).items()
    }


if __name__ == "__main__":
    main()
