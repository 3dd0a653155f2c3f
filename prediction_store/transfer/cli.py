"""The verbs of several hosts: push, pull, follow, hosts. Heavy imports wait for their verb."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prediction_store.place import folder_of, settings_of
from schemas.options import ConfigOption, JsonOption, SetOption

if TYPE_CHECKING:
    from pathlib import Path

    from schemas.config import Config
    from schemas.errors import ShortlistError

app = typer.Typer(add_completion=False, help="Several hosts.")

VersionsArgument = Annotated[
    list[str] | None, typer.Argument(help="Versions. Default: the current one and the one rollback goes to.")
]
RateOption = Annotated[
    float | None,
    typer.Option(
        "--max-mb-per-second", metavar="MB", min=0.0, help="0: no limit. Default: transfer.max_mb_per_second."
    ),
]
ShardsOption = Annotated[
    str | None,
    typer.Option("--shards", metavar="FIRST-LAST/ALL", help="Hold these shards of users. Default: follow.shards."),
]


@app.command()
def push(
    versions: VersionsArgument = None,
    *,
    max_mb_per_second: RateOption = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read everything back; mend what is damaged there.")] = False,
    config: ConfigOption = None,
    overrides: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    """Copy versions to object storage: what is missing there, read back and hashed. Interrupted, it goes on.

    Where the hosts share no history yet, this host's becomes the one that they share.

    Example: shortlist push 20261122T031500Z-3f9c0a1b
    """
    from prediction_store import terminal as store_terminal
    from prediction_store.transfer import terminal
    from prediction_store.transfer.configured import flow_of, remote_of
    from prediction_store.transfer.outgoing import send

    loaded = _load(config, overrides, max_mb_per_second=max_mb_per_second)
    remote = remote_of(loaded, make=True)
    reports = []
    with terminal.bar("push") as meter:
        flow = flow_of(loaded.transfer, meter)
        for report in send(
            folder_of(loaded), remote, versions or [], flow=flow, parallel=loaded.transfer.parallel, verify_again=verify
        ):
            reports.append(report)
            if not as_json:
                terminal.print_transfer("pushed", report)
    if as_json:
        store_terminal.print_json(reports)


@app.command()
def pull(
    versions: VersionsArgument = None,
    *,
    max_mb_per_second: RateOption = None,
    shards: ShardsOption = None,
    config: ConfigOption = None,
    overrides: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    """Copy versions from object storage: what is missing here, hashed as it arrives. Interrupted, it goes on.

    They do not become current by it: that is `shortlist follow`, or a decision.

    Example: shortlist pull 20261122T031500Z-3f9c0a1b
    """
    from prediction_store import terminal as store_terminal
    from prediction_store.transfer import terminal
    from prediction_store.transfer.configured import flow_of, remote_of
    from prediction_store.transfer.incoming import fetch

    loaded = _load(config, overrides, max_mb_per_second=max_mb_per_second, shards=shards)
    remote = remote_of(loaded)
    reports = []
    with terminal.bar("pull") as meter:
        flow = flow_of(loaded.transfer, meter)
        for report in fetch(
            folder_of(loaded), remote, versions or [], flow=flow, parallel=loaded.transfer.parallel,
            shards=loaded.follow.shards,
        ):  # fmt: skip
            reports.append(report)
            if not as_json:
                terminal.print_transfer("pulled", report)
    if as_json:
        store_terminal.print_json(reports)


@app.command()
def follow(
    *,
    once: Annotated[bool, typer.Option("--once", help="One look, and what follows from it; then end.")] = False,
    host: Annotated[str | None, typer.Option("--host", help="Name of this host. Default: follow.host.")] = None,
    shards: ShardsOption = None,
    max_mb_per_second: RateOption = None,
    config: ConfigOption = None,
    overrides: SetOption = [],
) -> None:
    """Keep this host at what the hosts have decided, until SIGTERM: pull, verify, report, flip with the others.

    Run it beside `shortlist serve`, which follows this host's store. What fails is reported and tried again; the
    version that is served goes on being served.

    Example: shortlist follow --shards 0-15/64
    """
    loaded = _load(config, overrides, host=host, shards=shards, max_mb_per_second=max_mb_per_second)
    error = _follow(loaded, once=once)
    if error is not None:
        raise error


@app.command()
def hosts(config: ConfigOption = None, overrides: SetOption = [], as_json: JsonOption = False) -> None:
    """What each host serves, how far it has come, and what keeps it.

    Example: shortlist hosts --json
    """
    import time

    from prediction_store import terminal as store_terminal
    from prediction_store.transfer import terminal
    from prediction_store.transfer.configured import remote_of
    from prediction_store.transfer.hosts import read_statuses

    loaded = _load(config, overrides)
    remote = remote_of(loaded)
    statuses = read_statuses(remote)
    if as_json:
        return store_terminal.print_json(list(statuses.values()))
    return terminal.print_hosts(statuses, loaded.follow.hosts, remote.url, time.time())


def _follow(loaded: Config, *, once: bool) -> ShortlistError | None:
    """Follow until told to stop; with `once`, what went wrong in the one round."""
    import signal

    from prediction_store.transfer import terminal
    from prediction_store.transfer.configured import name_of_host, remote_of
    from prediction_store.transfer.follow import Agent
    from prediction_store.transfer.shared import RemoteHistory
    from prediction_store.transfer.stop import Stop

    name = name_of_host(loaded.follow)
    stopping = Stop()
    agent = Agent(
        folder_of(loaded), RemoteHistory(remote_of(loaded)), name, follow=loaded.follow, store=loaded.store,
        transfer=loaded.transfer, say=lambda text: terminal.log_line(name, text), stopping=stopping,
    )  # fmt: skip
    before = {word: signal.signal(word, lambda *_: stopping.set()) for word in (signal.SIGTERM, signal.SIGINT)}
    try:
        while True:
            error = agent.round()
            if once or stopping.wait(loaded.follow.poll_seconds):
                return error if once else None
    finally:
        agent.close(stopped=not once)
        for word, handler in before.items():
            signal.signal(word, handler)


def _load(config: Path | None, overrides: list[str], **options: object) -> Config:
    """The configuration, with the options of a verb on top."""
    import json

    keys = {"host": "follow.host", "shards": "follow.shards", "max_mb_per_second": "transfer.max_mb_per_second"}
    given = [f"{keys[name]}={json.dumps(value)}" for name, value in options.items() if value is not None]
    return settings_of(config, [*overrides, *given])
