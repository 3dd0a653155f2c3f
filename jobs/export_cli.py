"""The verb `export`."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.options import ConfigOption, JsonOption, SetOption

if TYPE_CHECKING:
    from jobs.export import Exported

app = typer.Typer(add_completion=False)


@app.callback()  # with one command and no callback, Typer would leave out the verb
def verbs() -> None:
    """Outside the server."""


@app.command()
def export(  # noqa: PLR0917 the options of the command line
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file, .parquet, .csv, .csv.gz or .jsonl; an older one goes.")
    ],
    k: Annotated[int, typer.Option("--k", "-k", help="How many items of each user.")] = 10,
    placement: Annotated[str, typer.Option(help="Where they will be shown: whose rules hold.")] = "home",
    users: Annotated[
        str | None,
        typer.Option("--users", metavar="FILE", help="Whose lists: one id a line; -: standard input. Default: all."),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    """Write everybody's list into one file, one row per user and rank, for mails, campaigns or a warehouse.

    The answers are those that a server would give now, of one version, without a session.

    They do not go into the serving log. So places that serve.order.explore_positions leaves to chance hold the best.

    Example: shortlist export lists.parquet -k 10 --placement mail
    """
    import os
    import time

    from reranker.serve import ONE_THREAD

    os.environ.update(ONE_THREAD)  # as in a worker, and before numpy is loaded
    from jobs.export import run
    from prediction_store import terminal
    from prediction_store.place import settings_of, store_of

    settings = settings_of(config, overrides)
    store_of(settings)
    asked_for = None if users is None else _read(users)
    with _ended_by_sigterm():
        found = run(settings, out, k=k, placement=placement, now=time.time(), users=asked_for)
    if as_json:
        terminal.print_json(found)
    else:
        terminal.print_line(_line(found))


def _read(users: str) -> list[str]:
    import sys

    from jobs.export import read_users
    from schemas.errors import UsageError

    if users == "-":
        return read_users(sys.stdin.buffer.read(), "standard input")
    try:
        return read_users(Path(users).read_bytes(), users)
    except OSError as error:
        raise UsageError(f"reading {users}: {error.strerror or error}") from error


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does: what was begun is cleared away."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _line(found: Exported) -> str:
    from prediction_store.held import is_whole
    from schemas.held import parse_shards

    shards = parse_shards(found.shards)
    facts = [
        f"{found.file}: {found.users:,} users, {found.rows:,} rows of version {found.version} in {found.seconds:.1f} s",
        f"rungs: {_counted(found.rungs) or 'none'}",
        f"own list not used: {_counted(found.reasons)}" if found.reasons else "",
        f"stale {found.stale:,}" if found.stale else "",
        f"users of the shards {shards} only" if shards and not is_whole(shards) else "",
    ]
    return "; ".join(filter(None, facts))


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
