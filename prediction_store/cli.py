"""The verbs of a version's life. Each parses, calls one function and prints; heavy imports wait for their verb."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from prediction_store.place import folder_of, options_given, settings_of, store_of
from schemas.errors import UsageError
from schemas.options import ConfigOption, JsonOption, SetOption

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from schemas.history import HistoryRecord

app = typer.Typer(add_completion=False, help="The life of a version.")

VersionArgument = Annotated[str, typer.Argument(help="A version's name, as `shortlist versions` lists it.")]


def _text(option: typer.CallbackParam, words: str) -> str:
    """Words for the history, which is UTF-8; the command line may hand over any bytes."""
    try:
        words.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"{option.opts[0]} {words!r} is not text in UTF-8") from error
    return words


WhoOption = Annotated[
    str, typer.Option("--who", help="Who does it, for the history. Default: user@host.", callback=_text)
]
WhyOption = Annotated[str, typer.Option("--why", "--reason", help="The reason, kept in the history.", callback=_text)]
ExpectOption = Annotated[
    int | None,
    typer.Option("--expect", metavar="NUMBER", help="Refuse unless this is still the newest history record."),
]
PlanOption = Annotated[bool, typer.Option("--plan", help="Check everything, say what would happen, change nothing.")]


@app.command()
def cutover(
    version: VersionArgument,
    *,
    why: WhyOption = "",
    force: Annotated[bool, typer.Option("--force", help="Although the gates have not passed; needs --why.")] = False,
    plan: PlanOption = False,
    expect: ExpectOption = None,
    who: WhoOption = "",
    config: ConfigOption = None,
    overrides: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    """Make a version current. Its gates must have passed and every byte is verified. Servers follow by themselves.

    Example: shortlist cutover 20261122T031500Z-3f9c0a1b --why "tonight's run"
    """
    from prediction_store import history

    decide = partial(history.cutover, name=version, why=why, force=force, expect=expect, apply=not plan)
    _decide(decide, who, config, overrides, as_json, applied=not plan)


@app.command()
def rollback(
    *,
    why: WhyOption = "",
    to: Annotated[
        str | None, typer.Option("--to", metavar="VERSION", help="Default: the version served before.")
    ] = None,
    plan: PlanOption = False,
    expect: ExpectOption = None,
    who: WhoOption = "",
    config: ConfigOption = None,
    overrides: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    """Go back to the version that was served before; repeated, to the one before that. Nothing is moved or deleted.

    The version that is left is quarantined: no later run makes it current again before `shortlist release`.

    Example: shortlist rollback --why "prices are wrong"
    """
    from prediction_store import history

    decide = partial(history.rollback, why=why, to=to, expect=expect, apply=not plan)
    _decide(decide, who, config, overrides, as_json, applied=not plan)


@app.command()
def pin(
    *,
    why: WhyOption = "",
    who: WhoOption = "",
    config: ConfigOption = None,
    overrides: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    """Hold what is served: every cutover is refused (exit 3) until `shortlist unpin`. A rollback still works.

    Example: shortlist pin --why "the sale must not change under us"
    """
    from prediction_store import holds

    _decide(partial(holds.pin, why=why), who, config, overrides, as_json)


@app.command()
def unpin(
    *,
    why: WhyOption = "",
    who: WhoOption = "",
    config: ConfigOption = None,
    overrides: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    """Allow cutovers again.

    Example: shortlist unpin --why "the sale is over"
    """
    from prediction_store import holds

    _decide(partial(holds.unpin, why=why), who, config, overrides, as_json)


@app.command()
def quarantine(
    version: VersionArgument,
    *,
    why: WhyOption = "",
    who: WhoOption = "",
    config: ConfigOption = None,
    overrides: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    """Forbid serving a version, and any other of the same inputs. The one that is current wants a rollback instead.

    Example: shortlist quarantine 20261122T031500Z-3f9c0a1b --why "half the shop is missing"
    """
    from prediction_store import holds

    _decide(partial(holds.quarantine, name=version, why=why), who, config, overrides, as_json, held=version)


@app.command()
def release(
    version: VersionArgument,
    *,
    why: WhyOption = "",
    who: WhoOption = "",
    config: ConfigOption = None,
    overrides: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    """Lift a quarantine. The version does not become current by it: that is `shortlist cutover`.

    Example: shortlist release 20261122T031500Z-3f9c0a1b --why "it was the price feed, not the lists"
    """
    from prediction_store import holds

    _decide(partial(holds.release, name=version, why=why), who, config, overrides, as_json, held=version)


@app.command()
def retire(
    *,
    keep: Annotated[
        int | None, typer.Option("--keep", help="Versions to leave, at least 2. Default: store.keep_versions.")
    ] = None,
    why: WhyOption = "",
    who: WhoOption = "",
    config: ConfigOption = None,
    overrides: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    """Remove versions that nothing needs any more, and what killed processes have left behind.

    The current version, the one rollback goes to, whatever a server has open and what was built a moment ago stay.

    Example: shortlist retire --keep 2
    """
    from prediction_store import history, terminal
    from prediction_store.retention import require_all_removed
    from prediction_store.retention import retire as retire_versions
    from prediction_store.transfer.configured import prune_remote, shared_history

    settings = settings_of(config, overrides)
    if keep is None:
        keep = settings.store.keep_versions
    if keep < 2:
        raise UsageError(f"--keep {keep}: wanted at least 2, the current version and the one to go back to")
    report = retire_versions(
        store_of(settings),
        keep=keep,
        grace_seconds=settings.store.grace_hours * 3600,
        now=time.time(),
        who=who or history.user_at_host(),
        why=why,
        shared=shared_history(settings),
    )
    report = prune_remote(settings, report, keep=keep, now=time.time())
    if as_json:
        terminal.print_json(report)
    else:
        terminal.print_retired(report, settings.store.remote)
    require_all_removed(report)


def _decide(
    decide: Callable[..., HistoryRecord], who: str, config: Path | None, overrides: list[str], as_json: bool, *,
    applied: bool = True, held: str = "",
) -> None:  # fmt: skip
    """Take a decision, with the clock and the caller's name, and print what came of it."""
    from prediction_store import history, layout, terminal
    from prediction_store.transfer.configured import shared_history

    settings = settings_of(config, overrides)
    root, shared = folder_of(settings), shared_history(settings)
    newest = shared.newest_number() if shared else layout.newest_history_number(root)
    record = decide(root, who=who or history.user_at_host(), now=time.time(), shared=shared)
    if as_json:
        return terminal.print_json(record)
    is_new, options = record.number > newest, [*(["--who", who] if who else []), *options_given(config, overrides)]
    terminal.print_decision(record, applied=applied, is_new=is_new, held=held, options=options)
    if applied and record.number not in layout.history_numbers(root):
        print("the hosts share it now; this one takes it with shortlist follow")
    return None
