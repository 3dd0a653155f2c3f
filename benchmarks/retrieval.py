"""Candidate generation beside FAISS, implicit and Spark's own ALS: the best 1,000 items of many users, 64 dimensions.

    python -m benchmarks.retrieval [--quick]

Two threads for everybody; ours and FAISS's flat index by turns. Users a second are those of the search alone, with the
index built and calibrated; the job is `shortlist retrieve` with everything, in a session that is there already. The
slow are measured on fewer users (in the table). Recall is against what FAISS finds exactly. The last line is JSON; raw
lines and the plot go to benchmarks/raw.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.embeddings import enlarge, factors, gaussian
from benchmarks.measure import RAW, Row, finish, header
from benchmarks.plot import Panel, svg
from benchmarks.retrieval_job import measure_job
from benchmarks.searches import find_implicit, find_ours, flat_index, prepare, recall, spark_als
from jobs import spark as spark_session
from jobs.vectors import unit
from schemas.config import Spark

REAL = 0
"""Stands for the items that were factorised, as they are."""
ITEMS = [10_000, REAL, 100_000, 328_000, 1_000_000, 2_000_000]
USERS = [10_000, 100_000, 200_000, 1_000_000]
SAMPLE_USERS = 16_384
FLAT_PAIRS = 400_000_000
"""Products that the flat index is timed on, at a turn."""
FLAT_USERS = 2048
"""At least so many users: with 1,024 a turn the flat index took 9.6 ms of CPU for each, with 2,048 it took 2.1."""
TURNS = 3
OURS, FLAT, EXACT, IMPLICIT, ALS, JOB = "ours", "faiss flat", "ours, exact", "implicit", "Spark ALS", "the job"

KEYS = ("vs_flat_328k", "recall_328k", "vs_flat_2m", "recall_2m", "vs_implicit", "vs_spark_als", "job_vs_search")
"""What the last line begins with."""


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    facts = header("retrieval")
    found = factors(options.quick)
    facts |= {"k": options.k, "vectors": found.source}
    print(f"vectors: {found.source}; {len(found.items):,} items, {len(found.users):,} users", flush=True)
    users = enlarge(found.users, max(options.users), seed=3)
    folder = Path(tempfile.mkdtemp(prefix="shortlist-bench-", dir=options.folder))
    rows: list[Row] = []
    try:
        print("== items: users a second of the search alone", flush=True)
        for count in options.items:
            items = found.items if count == REAL else enlarge(found.items, count, seed=count)
            rows += measure_items(folder, "as the real ones", items, users, options)
        large = min(328_000, max(options.items))
        rows += measure_items(folder, "of length 1", unit(enlarge(found.items, large, seed=5)), users, options)
        rows += measure_items(folder, "gaussian", gaussian(large, 6), gaussian(4096, 7), options)
        print("== users: the whole job, on the items as they are", flush=True)
        with spark_session.session(Spark(master="local[2]", driver_memory="4g"), "benchmark") as spark:
            rows += measure_peers(spark, found.items, found.users, options)
            for count in options.users:
                rows += measure_users(spark, folder, found.items, users[:count], options.k)
        rows.append(measure_search(folder, found.items, users[: options.job_users], options.k))
    finally:
        shutil.rmtree(folder)
    RAW.mkdir(exist_ok=True)
    (RAW / "retrieval.svg").write_text(svg(panels(rows)), encoding="utf-8")
    finish(facts, rows, summary(rows, len(found.items), options))


def measure_items(
    folder: Path, kind: str, items: np.ndarray, users: np.ndarray, options: argparse.Namespace
) -> list[Row]:
    """Ours and the flat index by turns, on one catalogue."""
    root = folder / "index"
    ours = prepare(root, items, users, options.k)
    flat = flat_index(items)
    sample = users[1024 : 1024 + options.sample_users] if len(users) > 4096 else users
    few = sample[: max(options.flat_users, options.flat_pairs // len(items))]
    _, best = flat.search(few[:256], options.k)
    share = recall(ours, few[:256], best, options.k)
    seconds = by_turns(
        {OURS: lambda: find_ours(ours, sample, options.k), FLAT: lambda: flat.search(few, options.k)}, options.turns
    )
    shutil.rmtree(root)
    more = {"kind": kind, "items": len(items), "method": ours.method.name}
    return [
        _row(OURS, len(sample), seconds[OURS], **more, recall=round(share, 4), index_s=round(ours.build_seconds, 1),
             calibrate_s=round(ours.calibrate_seconds, 1), work=str(ours.facts)),
        _row(FLAT, len(few), seconds[FLAT], **more),
    ]  # fmt: skip


def measure_peers(spark: object, items: np.ndarray, users: np.ndarray, options: argparse.Namespace) -> list[Row]:
    """implicit and Spark's ALS with the factors as they are."""
    some = users[: min(len(users), options.implicit_users)]
    rows = []
    try:
        seconds = by_turns({IMPLICIT: lambda: find_implicit(items, some, options.k)}, options.turns)[IMPLICIT]
        rows.append(_row(IMPLICIT, len(some), seconds, kind="as the real ones", items=len(items)))
    except ImportError:
        print("not measured: implicit is not installed")
    few = users[: options.als_users]
    find = spark_als(spark, items, few, options.k)  # type: ignore[arg-type]
    assert find() == len(few) * min(options.k, len(items))  # and warm now
    seconds = by_turns({ALS: find}, 1)[ALS]
    return [*rows, _row(ALS, len(few), seconds, kind="as the real ones", items=len(items))]


def measure_users(spark: object, folder: Path, items: np.ndarray, users: np.ndarray, k: int) -> list[Row]:
    """The job for so many users."""
    job = measure_job(spark, folder, items, users, k)  # type: ignore[arg-type]
    more = {"index_s": round(job.index_seconds, 1), "worker_mb": round(job.worker_megabytes)}
    return [_row(JOB, len(users), job.seconds, kind="as the real ones", items=len(items), **more)]


def measure_search(folder: Path, items: np.ndarray, users: np.ndarray, k: int) -> Row:
    """The bare search of as many users as a job had."""
    ours = prepare(folder / "index", items, users, k)
    seconds = by_turns({OURS: lambda: _search_apart(ours, users, k)}, 1)[OURS]
    return _row("the bare search", len(users), seconds, kind="as the real ones", items=len(items))


def by_turns(contestants: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Seconds of each, the median of some turns. They take turns, so that all have the same weather."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(turns):
        for name, call in contestants.items():
            started = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - started)
    return {name: float(np.median(seconds)) for name, seconds in taken.items()}


def summary(rows: list[Row], real_items: int, options: argparse.Namespace) -> dict[str, float | None]:
    """The figures of the last line; null where something was not measured."""

    def speed(name: str, items: int, users: int | None = None) -> float | None:
        return next(
            (
                float(row["per_second"])
                for row in rows
                if (row["name"], row["kind"], row["items"]) == (name, "as the real ones", items)
                and users in (None, row["users"])
            ),
            None,
        )

    def ratio(one: float | None, other: float | None) -> float | None:
        return None if one is None or other is None else round(one / other, 3)

    middle, most = min(328_000, max(options.items)), max(options.items)
    job = speed(JOB, real_items, options.job_users)
    recalls = {int(row["items"]): float(row["recall"]) for row in rows if "recall" in row and row["kind"][:2] == "as"}  # type: ignore[index]
    return {
        "vs_flat_328k": ratio(speed(OURS, middle), speed(FLAT, middle)),
        "recall_328k": recalls.get(middle),
        "vs_flat_2m": ratio(speed(OURS, most), speed(FLAT, most)),
        "recall_2m": recalls.get(most),
        "vs_implicit": ratio(job, speed(IMPLICIT, real_items)),
        "vs_spark_als": ratio(job, speed(ALS, real_items)),
        "job_vs_search": ratio(speed("the bare search", real_items), job),
        "vs_flat_real": ratio(speed(OURS, real_items), speed(FLAT, real_items)),
        "job_users_per_s": job,
    }


def panels(rows: list[Row]) -> list[Panel]:
    """How the cost grows with the items and with the users."""

    def line(name: str, x: str, y: Callable[[Row], float], kind: str = "as the real ones") -> list[tuple[float, float]]:
        return sorted((float(row[x]), y(row)) for row in rows if (row["name"], row["kind"]) == (name, kind))

    def per_user(row: Row) -> float:
        return 1000 / float(row["per_second"])

    by_items = {name: line(name, "items", per_user) for name in (OURS, FLAT, IMPLICIT, ALS)}
    by_users = {name: line(name, "users", lambda row: float(row["seconds"])) for name in (JOB, "the bare search")}
    memory = {"a worker's own": line(JOB, "users", lambda row: float(row["worker_mb"]) or 1.0)}
    return [
        Panel("a user's best 1,000, in ms on two threads", "items", by_items),
        Panel("all lists, seconds", "users", by_users),
        Panel("memory of the largest worker, MB", "users", memory),
    ]


def _search_apart(ours: object, users: np.ndarray, k: int) -> None:
    """In bites, so that nothing grows with the number of users."""
    for start in range(0, len(users), SAMPLE_USERS):
        find_ours(ours, users[start : start + SAMPLE_USERS], k)  # type: ignore[arg-type]


def _row(name: str, users: int, seconds: float, **more: float | str) -> Row:
    found: Row = {"name": name, "users": users, "seconds": round(seconds, 3), "per_second": round(users / seconds, 1)}
    found |= more
    extra = "  ".join(f"{key}={value}" for key, value in more.items() if key not in ("items", "kind", "work"))
    print(
        f"{more['items']:>9,} items {more['kind']:<17} {name:<16} {users:>9,} users {seconds:>9.2f} s"
        f" {found['per_second']:>10,.0f}/s  {extra}",
        flush=True,
    )
    return found


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a size that measures nothing, in a minute")
    parser.add_argument("--folder", help="where the datasets go while it runs (17 GB); default: the temporary folder")
    options = parser.parse_args(arguments)
    sizes = {
        "k": 1000, "items": ITEMS, "users": USERS, "job_users": 200_000, "sample_users": SAMPLE_USERS,
        "flat_pairs": FLAT_PAIRS, "flat_users": FLAT_USERS, "implicit_users": 4096, "als_users": 256, "turns": TURNS,
    }  # fmt: skip
    if options.quick:
        sizes |= {"k": 100, "items": [2000, REAL, 6000], "users": [300, 600], "job_users": 600, "sample_users": 500}
        sizes |= {"flat_pairs": 100_000, "flat_users": 64, "implicit_users": 200, "als_users": 20, "turns": 1}
    return argparse.Namespace(**vars(options), **sizes)


if __name__ == "__main__":
    main()
