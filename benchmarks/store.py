"""The store: size, lookups, build, cutover and rollback, beside other stores that hold the same lists.

    python -m benchmarks.store [--users 10000 100000 1000000]

Every ratio is of two things measured in the same run, by turns where that is possible. The last line is JSON: each
figure at the largest size at which it could be measured; null: a peer is not installed. Raw lines and a plot go to
benchmarks/raw.
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.cold import measure_cold
from benchmarks.flips import measure_flips
from benchmarks.measure import RAW, Row, finish, header
from benchmarks.plot import Panel, svg
from benchmarks.rollback import measure_rollback
from benchmarks.versions import Written, write_version
from benchmarks.warm import (
    BARE,
    BARE_FIRST,
    OURS,
    REDIS_JSON,
    REDIS_PACKED,
    ROCKSDB,
    SQLITE,
    measure_warm,
)
from prediction_store.durable import remove_folder

SIZES = [10_000, 100_000, 1_000_000]
ITEMS = 50_000
WRITE_BYTES = 1 << 20
RATIOS = {
    "lookup_vs_get": BARE,
    "lookup_vs_get_unmapped": BARE_FIRST,
    "vs_redis_json": REDIS_JSON,
    "vs_redis_packed": REDIS_PACKED,
    "vs_sqlite": SQLITE,
    "vs_rocksdb": ROCKSDB,
}
KEYS = (
    "bytes_per_user", "lookup_vs_get", "vs_redis_json", "vs_redis_packed", "vs_sqlite", "vs_rocksdb", "build_vs_write",
    "flip_p99_ratio", "rollback_command_s", "rollback_to_last_worker_s",
)  # fmt: skip
"""What the last line begins with."""

Figures = dict[str, float | None]


def main(arguments: list[str] | None = None) -> None:
    options = _options(arguments)
    facts = header("store")
    facts["items"] = options.items
    rows: list[Row] = []
    by_size: dict[int, Figures] = {}
    folder = Path(tempfile.mkdtemp(prefix="shortlist-bench-", dir=options.folder))
    try:
        for users in options.users:
            print(f"== {users:,} users", flush=True)
            found, by_size[users] = measure_size(folder, users, options)
            rows += [{"users": users, **row} for row in found]
            _print_figures(by_size[users])
        print(f"== rollback, {options.rollback_users:,} users, {options.workers} workers", flush=True)
        command, last_worker = measure_rollback(
            folder / "rollback",
            options.rollbacks,
            users=options.rollback_users,
            items=options.rollback_items,
            workers=options.workers,
        )
    finally:
        remove_folder(folder)
    rollback = {"rollback_command_s": round(command, 3), "rollback_to_last_worker_s": round(last_worker, 3)}
    _print_figures(rollback)
    RAW.mkdir(exist_ok=True)
    (RAW / "store.svg").write_text(svg(_panels(rows, by_size)), encoding="utf-8")
    finish(facts, rows, summary(by_size, rollback))


def measure_size(folder: Path, users: int, options: argparse.Namespace) -> tuple[list[Row], Figures]:
    """Everything that depends on how many users there are."""
    root = folder / f"store-{users}"
    try:
        written = write_version(root, users, options.items)
        plain_seconds = write_plainly(folder, written.shard_bytes)
        figures = _figures_of_writing(written, plain_seconds, users)
        rows: list[Row] = [{"name": "written", **{key: value for key, value in figures.items() if value is not None}}]
        cold, figures["cold_pages_per_lookup"] = measure_cold(root, written.name, users, options.cold_lookups)
        warm, ratios = measure_warm(root, written.name, users, options.lookups)
        figures |= {key: ratios.get(name) for key, name in RATIOS.items()}
        gc.collect()
        names = [
            write_version(root, users, options.items, inputs=f"flip {flip}", current=False).name
            for flip in range(options.flips)
        ]
        flips, figures["flip_p99_ratio"] = measure_flips(root, users, names, quiet_seconds=options.quiet_seconds)
        return rows + cold + warm + flips, figures
    finally:
        if root.exists():
            remove_folder(root)


def write_plainly(folder: Path, size: int) -> float:
    """Seconds to write that many bytes, a megabyte at a time, and to sync them: the better of two."""
    data = os.urandom(WRITE_BYTES)
    seconds = []
    for _ in range(2):
        path = folder / "plain"
        os.sync()  # what others have written is not ours to wait for
        started = time.perf_counter()
        with path.open("wb", buffering=0) as file:
            left = size
            while left:
                left -= file.write(data[: min(left, WRITE_BYTES)])
            os.fsync(file.fileno())
        seconds.append(time.perf_counter() - started)
        path.unlink()
    return min(seconds)


def summary(by_size: dict[int, Figures], rollback: Figures) -> Figures:
    """Each figure at the largest size that has it, under `KEYS` first; the sizes that are not the largest are named."""
    found: Figures = {}
    at: Figures = {}
    for users, figures in sorted(by_size.items()):
        for key, value in figures.items():
            if value is not None or key not in found:
                found[key] = None if value is None else round(value, 3)
                at[f"{key}_users"] = users
    found |= rollback
    largest = max(by_size)
    ordered = {key: found[key] for key in KEYS} | {key: found[key] for key in found if key not in KEYS}
    return ordered | {"users": largest} | {key: users for key, users in at.items() if users != largest}


def _figures_of_writing(written: Written, plain_seconds: float, users: int) -> Figures:
    return {
        "bytes_per_user": written.shard_bytes / users,
        "bytes_per_user_whole_version": written.version_bytes / users,
        "build_vs_write": plain_seconds / written.build_seconds,
        "build_and_seal_vs_write": plain_seconds / (written.build_seconds + written.seal_seconds),
        "build_s": written.build_seconds,
        "seal_s": written.seal_seconds,
        "plain_write_s": plain_seconds,
    }


def _panels(rows: list[Row], by_size: dict[int, Figures]) -> list[Panel]:
    """How cost grows with the number of users."""

    def p50s(name: str) -> list[tuple[float, float]]:
        return [(float(row["users"]), float(row["p50_us"])) for row in rows if row["name"] == name]

    def of(key: str) -> list[tuple[float, float]]:
        return [(float(users), float(value)) for users, found in by_size.items() if (value := found[key]) is not None]

    names = (OURS, BARE, REDIS_JSON, REDIS_PACKED, SQLITE, ROCKSDB)
    return [
        Panel("a lookup, p50 in µs", "users", {name: p50s(name) for name in names if p50s(name)}),
        Panel(
            "writing all lists, seconds",
            "users",
            {"build": of("build_s"), "seal": of("seal_s"), "as many plain bytes": of("plain_write_s")},
        ),
        Panel(
            "bytes on disk for a user",
            "users",
            {"shards": of("bytes_per_user"), "whole version": of("bytes_per_user_whole_version")},
        ),
    ]


def _print_figures(figures: Figures) -> None:
    print("  ".join(f"{key}={'-' if value is None else f'{value:.4g}'}" for key, value in figures.items()), flush=True)


def _options(arguments: list[str] | None) -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=SIZES)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--lookups", type=int, default=50_000)
    parser.add_argument("--cold-lookups", type=int, default=4_000)
    parser.add_argument("--flips", type=int, default=2, help="to a version that was never read, one after the other")
    parser.add_argument("--quiet-seconds", type=float, default=5.0, help="before each flip")
    parser.add_argument("--rollbacks", type=int, default=5)
    parser.add_argument("--rollback-users", type=int, default=2_000)
    parser.add_argument("--rollback-items", type=int, default=2_000)
    parser.add_argument("--workers", type=int, default=4, help="of the server that a rollback has to reach")
    parser.add_argument("--folder", type=Path, help="where to write; 13 GB for a million users. Default: the system's.")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
