"""What the demo shows on screen: one user's answer before and after three clicks, and what was measured."""

from __future__ import annotations

import json
import random
import shlex
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from traffic import Client, Traffic, percentile

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
ROOT = Path(__file__).resolve().parent.parent
REQUESTS = 2000
LOOKUPS = 20_000


@dataclass(frozen=True)
class Figures:
    """What was measured of one version; times in seconds."""

    version: str
    report: dict[str, Any]
    """The version's own evaluation, written by the night's run."""
    lookups: list[float]
    requests: list[float]


def announce(text: str) -> None:
    """One line before a step."""
    console.print(f"[bold cyan]==[/] {text}")


def some_users(config: Path, day: date) -> tuple[list[str], str]:
    """Some hundred users of the day's shop, and the one of them who did most that day."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    folder = config.parent / "data/shop/interactions" / f"date={day.isoformat()}"
    counts = pc.value_counts(pq.read_table(folder, columns=["user_id"])["user_id"].combine_chunks()).to_pylist()
    users = sorted(counts, key=lambda entry: (-entry["counts"], entry["values"]))
    return sorted(entry["values"] for entry in users[:500]), users[0]["values"]


def show_answers(config: Path, port: int, version: str, user: str) -> None:
    """One user's first ten before and after three clicks on items that were far down."""
    with Client(port) as client:
        before = ask(client, {"user": user, "k": 200, "explain": True})
        clicked = three_alike(config, version, [item["item"] for item in before["items"]])
        session = [{"item": item, "event": "view"} for item in clicked]
        after = ask(client, {"user": user, "k": 10, "explain": True, "session": session})
    was = {item["item"]: item["rank"] for item in before["items"]}
    table = Table(title=f"{user}, by {version}", title_justify="left")
    for heading in ("", "before", "after three clicks", "was"):
        table.add_column(heading)
    for left, right in zip(before["items"][:10], after["items"], strict=True):
        # Two items may have one title: the id tells them apart.
        shown = (f"{item['title']} {item['item']}" for item in (left, right))
        table.add_row(str(right["rank"]), *shown, str(was.get(right["item"], "-")))
    titles = zip(titles_of(config, version, clicked), clicked, strict=True)
    announce(f"{user} clicks on: {'; '.join(f'{title} {item}' for title, item in titles)}")
    console.print(table)
    console.print(f"   the first one is there {after['items'][0]['why']}")


def ask(client: Client, request: dict[str, Any]) -> dict[str, Any]:
    status, answer = client.recommend(request)
    assert status == 200, answer
    found: dict[str, Any] = answer
    return found


def three_alike(config: Path, version: str, ranked: list[str]) -> list[str]:
    """An item from far down a list, and the two items most like it."""
    with opened(config, version) as store:
        index = store.item_index(ranked[len(ranked) // 2])
        assert index is not None
        return list(store.item_ids([index, *store.neighbours(index).items[:2]]))


def titles_of(config: Path, version: str, items: list[str]) -> list[str]:
    with opened(config, version) as store:
        return list(store.column("title").texts([store.item_index(item) for item in items]))


def measure(config: Path, port: int, version: str, users: list[str]) -> Figures:
    """Lookups in this process and requests over one connection, each after a warm-up, one after the other."""
    chosen = random.Random(1).choices(users, k=LOOKUPS)
    with opened(config, version) as store:
        for user in users:
            store.read(user)
        lookups = [timed(store.read, user) for user in chosen]
        report = json.loads((config.parent / "store/versions" / version / "evaluation/report.json").read_bytes())
    bodies = [{"user": user, "k": 20} for user in chosen[:REQUESTS]]
    with Client(port) as client:
        for body in bodies[:200]:
            client.recommend(body)
        requests = [timed(client.recommend, body) for body in bodies]
    return Figures(version, report, lookups, requests)


def timed(act: Any, argument: Any) -> float:
    began = time.perf_counter()
    act(argument)
    return time.perf_counter() - began


def opened(config: Path, version: str) -> Any:
    """The version, for reading in this process; closed with the block."""
    from contextlib import closing

    from prediction_store.reader import Version

    return closing(Version.open(config.parent / "store", version, verify=False))


def summary(figures: Figures, rollback_seconds: float, traffics: list[Traffic], seconds: float) -> None:
    """What was measured, as a table."""
    report = figures.report
    table = Table(title="what was measured", title_justify="left", show_header=False)
    for at in ("20", "100"):
        ours, popular = report["recall"][at], report["popularity"]["recall"][at]
        against = f"popularity {popular:.3f}: {ours / max(popular, 1e-9):.1f} times"
        table.add_row(f"recall@{at}, held-out day", f"{ours:.3f}", against)
    table.add_row(
        "lookup in process",
        micro(figures.lookups, 0.5),
        f"p99 {micro(figures.lookups, 0.99)}, {len(figures.lookups):,} lookups",
    )
    table.add_row(
        "request over HTTP", milli(figures.requests, 0.5), f"p99 {milli(figures.requests, 0.99)}, one after the other"
    )
    table.add_row(
        "rollback", f"{rollback_seconds:.2f} s", "from the command's start to the first answer from the old version"
    )
    sent, failed = sum(t.sent for t in traffics), sum(len(t.failures) for t in traffics)
    table.add_row("requests during the flips", f"{sent:,}", f"failed: {failed}")
    table.add_row("the whole demo", f"{seconds:.0f} s", "everything is stopped again")
    console.print(table)


def what_next(user: str, other_version: str) -> None:
    """Commands to copy."""
    console.print("\nWhat to try next, in this folder; README.md says how to bring your own data:")
    for line in (
        ["versions"],
        ["lookup", user],
        ["history"],
        ["release", other_version, "--why", "it was not that bad"],
        ["cutover", other_version],
        ["serve"],
    ):
        console.print(f"   .venv/bin/shortlist {shlex.join(line)} --config .demo/shortlist.toml", soft_wrap=True)


def micro(values: list[float], share: float) -> str:
    return f"{percentile(values, share) * 1e6:.0f} µs"


def milli(values: list[float], share: float) -> str:
    return f"{percentile(values, share) * 1e3:.2f} ms"
