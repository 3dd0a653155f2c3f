"""Time to quality: our factors, taught to rank, beside RecBole's BPR and LightGCN on the same pairs and threads.

    make install-recbole
    python -m benchmarks.against_recbole --data FOLDER             # yelp2018-lightgcn in it
    python -m benchmarks.against_recbole --quick                   # made-up pairs, measures nothing

Everyone learns from the training pairs of Yelp2018 and is judged by `yelp.measure`. The clock runs while there is
training: ours from the pairs on (compiling, both factorisations, every epoch of `jobs/refine.py`), RecBole's from the
first batch on (loading and building the graph are told apart); judging is nobody's time. `shortlist train` takes longer
than ours here: it first trains on nine tenths to choose the epochs, see `benchmarks.training`. A step of LightGCN takes
seconds, so some are measured and an epoch is extrapolated; its quality is quoted, not measured.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
import torch

from benchmarks import measure, yelp
from benchmarks.peers import MissingPeerError
from benchmarks.recbole_process import BATCH, BPR, LIGHTGCN, peer, write_pairs
from jobs.blend import balanced, blend
from jobs.device import reproducible
from jobs.factors import factorise
from jobs.least_squares import alternate
from jobs.refine import Factors, Refinement
from jobs.start import NORMALISED_SHARE, ROUNDS
from schemas.config import Train

SEED = 7
QUICK_BATCH = 64
LIGHTGCN_EPOCHS = 1000
LIGHTGCN_RECALL = 0.0635
"""With 3 layers when stopped after so many epochs. Source: the table in github.com/gusye1234/LightGCN-PyTorch."""
KEYS = (
    "recbole_bpr_epoch_s",
    "recbole_bpr_recall20",
    "recbole_lightgcn_epoch_s",
    "ours_refine_epoch_s",
    "ours_recall20",
    "ours_seconds",
    "bpr_seconds_to_its_best",
    "ours_seconds_to_bpr_best",
    "bpr_vs_ours",
    "lightgcn_epoch_vs_ours_seconds",
)


class Point(NamedTuple):
    """How good a training was after so many epochs and seconds."""

    epoch: int
    seconds: float
    recall20: float


class Curve(NamedTuple):
    """A training that is judged now and then, in the order of time."""

    name: str
    points: list[Point]


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is asked for; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--quick", action="store_true", help="on a few made-up users")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each")
    parser.add_argument("--epochs", type=int, default=10, help="of BPR")
    parser.add_argument("--every", type=int, default=1, help="BPR is judged after so many epochs, and after the last")
    parser.add_argument("--steps", type=int, default=15, help="of LightGCN")
    parser.add_argument("--warm-up", type=int, default=3, help="steps of LightGCN before those that count")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[256, 64], help="ours; the first is summed up")
    parser.add_argument("--our-epochs", type=int, default=Train().factor_epochs)
    arguments = parser.parse_args(argv)
    facts = measure.header("against_recbole") | {"threads": arguments.threads}
    rows: list[measure.Row] = []
    folder = arguments.data / "yelp2018-lightgcn"
    if not arguments.quick and not folder.is_dir():
        print(f"no {folder}: nothing is measured")
        measure.finish(facts, rows, dict.fromkeys(KEYS))
        return
    data = made_up() if arguments.quick else yelp.read(folder)
    print(f"{data.users:,} users, {data.items:,} items, {len(data.train.users):,} pairs, {arguments.threads} threads")
    curves = [
        ours(data, rows, dimensions=dimensions, epochs=arguments.our_epochs, threads=arguments.threads)
        for dimensions in arguments.dimensions
    ]
    bpr, epoch = Curve("RecBole BPR", []), None
    try:
        with tempfile.TemporaryDirectory(prefix="shortlist-bench-") as work:
            pairs = write_pairs(data, Path(work))
            order = {
                "users": data.users,
                "items": data.items,
                "threads": arguments.threads,
                "seed": SEED,
                "batch": QUICK_BATCH if arguments.quick else BATCH,
            }
            train_bpr(data, rows, bpr, pairs, order | {"epochs": arguments.epochs, "keep": kept(arguments)})
            epoch = time_lightgcn(rows, pairs, order, steps=arguments.steps, warm_up=arguments.warm_up)
    except MissingPeerError as error:
        print(f"RecBole: not measured: {error}")
    found = summary(curves[0], bpr, epoch)
    for line in conclusions(found):
        print(line)
    measure.finish(facts, rows, found)


def kept(arguments: argparse.Namespace) -> list[int]:
    """The epochs of BPR after which it is judged."""
    return sorted({*range(arguments.every, arguments.epochs + 1, arguments.every), arguments.epochs} - {0})


def ours(data: yelp.Yelp, rows: list[measure.Row], *, dimensions: int, epochs: int, threads: int) -> Curve:
    """The steps of `jobs/start.py` on all training pairs, judged after the factorisations and after each epoch."""
    pairs = np.unique(data.train.users * data.items + data.train.items)
    curve = Curve(f"ours, {dimensions} dimensions", [])
    with reproducible(SEED, threads=threads):
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # as `jobs/start.py` does
        started = time.monotonic()
        factors = start([pairs], data, dimensions)
        seconds = time.monotonic() - started
        judge(rows, curve, data, (0, seconds), *factors)
        training = Refinement(factors, epochs=epochs, seed=SEED, drawn=np.unique(pairs % data.items))
        for epoch in range(1, epochs + 1):
            started = time.monotonic()
            training.run_epoch(epoch - 1, lambda: [pairs], advance=lambda _: None)
            seconds += time.monotonic() - started
            judge(rows, curve, data, (epoch, seconds), *training.factors())
    return curve


def start(blocks: list[np.ndarray], data: yelp.Yelp, dimensions: int) -> Factors:
    """The two factorisations as one."""
    takers = np.bincount(blocks[0] % data.items, minlength=data.items)
    normalised = factorise(lambda: blocks, takers, users=data.users, dimensions=dimensions, seed=SEED)
    shape = data.users, data.items
    squares = alternate(lambda: blocks, shape=shape, dimensions=dimensions, rounds=ROUNDS, seed=SEED)
    both = balanced(*blend(squares, normalised, share=NORMALISED_SHARE, dimensions=dimensions))
    return Factors(*map(torch.from_numpy, both))


def train_bpr(data: yelp.Yelp, rows: list[measure.Row], curve: Curve, pairs: Path, order: dict[str, Any]) -> None:
    """Train BPR, and judge it when that is over: judging must not slow the training."""
    order = order | {"model": "BPR", "settings": BPR, "steps": 0, "warm_up": 0}
    with tempfile.TemporaryDirectory(dir=pairs) as folder:
        seconds = {fact["epoch"]: fact["seconds"] for fact in peer(Path(folder), pairs, order) if "epoch" in fact}
        for epoch in order["keep"]:
            users, items = (np.load(Path(folder) / f"{side}-{epoch}.npy") for side in ("users", "items"))
            judge(rows, curve, data, (epoch, seconds[epoch]), users, items)


def time_lightgcn(
    rows: list[measure.Row], pairs: Path, order: dict[str, Any], *, steps: int, warm_up: int
) -> float | None:
    """Seconds of an epoch of LightGCN: the mean of some steps times the steps of an epoch."""
    order = order | {"model": "LightGCN", "settings": LIGHTGCN, "epochs": 0, "keep": []}
    with tempfile.TemporaryDirectory(dir=pairs) as folder:
        facts = list(peer(Path(folder), pairs, order | {"steps": steps, "warm_up": warm_up}))
    batches = next(fact["batches"] for fact in facts if "batches" in fact)
    taken = next((np.array(fact["steps"]) for fact in facts if "steps" in fact), np.array([]))
    if not len(taken):
        return None
    epoch = float(taken.mean()) * batches
    rows.append({"name": "RecBole LightGCN", "steps": len(taken), "step_s": float(taken.mean()), "epoch_s": epoch})
    print(
        f"RecBole LightGCN: {taken.mean():.2f} s a step ({taken.min():.2f} to {taken.max():.2f}, {len(taken)} after"
        f" {warm_up} of warm-up); extrapolated to the {batches} of an epoch: {epoch:,.0f} s",
        flush=True,
    )
    return epoch


def judge(
    rows: list[measure.Row], curve: Curve, data: yelp.Yelp, at: tuple[int, float], *vectors: np.ndarray | torch.Tensor
) -> None:
    """Measure the vectors of both sides as they are `at` (epoch, seconds): one more point, and a printed row."""
    users, items = (np.asarray(side) for side in vectors)
    found = yelp.measure(data, users, items)
    epoch, seconds = at
    curve.points.append(Point(epoch, seconds, found["recall20"]))
    rows.append({"name": curve.name, "epoch": epoch, "seconds": round(seconds, 2), **found})
    print(
        f"{curve.name:<24} epoch {epoch:>4}  {seconds:>9.1f} s  recall@20 {found['recall20']:.4f}  ndcg@20"
        f" {found['ndcg20']:.4f}  recall@1000 {found['recall1000']:.4f}",
        flush=True,
    )


def epoch_seconds(curve: Curve) -> float | None:
    """Mean seconds of an epoch; what came before the first one does not count."""
    if not curve.points or curve.points[-1].epoch == 0:
        return None
    first, last = curve.points[0], curve.points[-1]
    return (last.seconds - (first.seconds if first.epoch == 0 else 0.0)) / last.epoch


def seconds_to(curve: Curve, recall20: float) -> float | None:
    """When a training was first seen to be as good; None: never."""
    return next((point.seconds for point in curve.points if point.recall20 >= recall20), None)


def summary(ours: Curve, bpr: Curve, lightgcn_epoch: float | None) -> dict[str, float | None]:
    """The last line. Where BPR was better than ours ever is, there is no time to its quality."""
    best = max((point.recall20 for point in bpr.points), default=None)
    theirs, until = (None if best is None else seconds_to(curve, best) for curve in (bpr, ours))
    last = ours.points[-1]
    values = (
        epoch_seconds(bpr),
        best,
        lightgcn_epoch,
        epoch_seconds(ours),
        last.recall20,
        last.seconds,
        theirs,
        until,
        None if theirs is None or until is None else theirs / until,
        None if lightgcn_epoch is None else lightgcn_epoch / last.seconds,
    )
    return {key: None if value is None else round(value, 5) for key, value in zip(KEYS, values, strict=True)}


def conclusions(found: dict[str, float | None]) -> Iterator[str]:
    """What the figures say, as sentences."""
    best, theirs, until, ratio = (
        found[key]
        for key in ("recbole_bpr_recall20", "bpr_seconds_to_its_best", "ours_seconds_to_bpr_best", "bpr_vs_ours")
    )
    if best is not None and until is None:
        yield f"BPR's recall@20 of {best:.4f} is out of reach for ours"
    elif best is not None:
        yield (
            f"to recall@20 {best:.4f}, BPR's best in these epochs: RecBole {theirs:.1f} s, ours {until:.1f} s, which"
            f" is {ratio:.2f} times as fast"
        )
    if (epoch := found["recbole_lightgcn_epoch_s"]) is not None:
        yield (
            f"an epoch of LightGCN takes {found['lightgcn_epoch_vs_ours_seconds']:.2f} times our whole training"
            f" (recall@20 {found['ours_recall20']:.4f}); {LIGHTGCN_EPOCHS:,} epochs, after which its authors report"
            f" {LIGHTGCN_RECALL} on Yelp2018, would take {epoch * LIGHTGCN_EPOCHS / 3600:,.0f} hours"
        )


def made_up() -> yelp.Yelp:
    """Every user likes the items of one of four groups."""
    rng = np.random.default_rng(2)
    users, items = 100, 1100
    liked = np.stack([4 * rng.choice(items // 4, 80, replace=False) + user % 4 for user in range(users)])
    train, test = (
        yelp.Pairs(np.repeat(np.arange(users), part.shape[1]), part.reshape(-1))
        for part in (liked[:, :60], liked[:, 60:])
    )
    return yelp.Yelp(train, test, users, items)


if __name__ == "__main__":
    main()
