"""The verbs of a version's life. Each parses, calls one function and prints; heavy imports wait for their verb."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import UsageError
from schemas.options import ConfigOption, JsonOption, SetOption

if TYPE_CHECKING:
    from pathlib import Path

    from schemas.config import Config
    from schemas.manifest import HistoryRecord

app = typer.Typer(add_completion=False, help="The life of a version.")

VersionArgument = Annotated[str, typer.Argument(help="A version's name, as `shortlist versions` lists it.")]
WhoOption = Annotated[str, typer.Option("--who", help="Who does it, for the history. Default: user@host.")]
WhyOption = Annotated[str, typer.Option("--why", "--reason", help="The reason, kept in the history.")]


@app.command()
def versions(config: ConfigOption = None, overrides: SetOption = [], as_json: JsonOption = False) -> None:  # noqa: B006
    """The versions on disk, newest first, and which one is current.

    Example: shortlist versions --json
    """
    from prediction_store.listing import list_versions

    root = _root(_load(config, overrides))
    rows = list_versions(root)
    if as_json:
        return _print_json(rows)
    if not rows:
        print(f"no versions in {root}")
        return None
    print(f"  {'version':<25} {'state':<9} {'gates':<10} {'data up to':<16} {'users':>10} {'items':>10} {'size':>9}")
    for row in rows:
        state = "current" if row.is_current else "previous" if row.is_rollback_target else ""
        head = f"{'*' if row.is_current else ' '} {row.version:<25} {state:<9}"
        if row.problem or row.made_at is None or row.bytes is None:
            print(f"{head} {row.problem}")
            continue
        print(
            f"{head} {row.gates:<10} {_minute(row.made_at):<16} {row.users:>10} {row.items:>10} {_size(row.bytes):>9}"
        )
    if not any(row.is_current for row in rows):
        print("no version is current: shortlist cutover VERSION")
    return None


@app.command()
def gate(
    version: VersionArgument,
    config: ConfigOption = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Check a version against the one that is current. Exit 3: refused; it stays on disk and is not served.

    Example: shortlist gate 20261122T031500Z-3f9c0a1b
    """
    from prediction_store.gates import describe, require_passed, run_gates

    loaded = _load(config, overrides)
    report = run_gates(_root(loaded), version, loaded.gates, candidates=loaded.retrieve.candidates, now=time.time())
    if as_json:
        _print_json(report)
    else:
        print(f"{version} against {report.against or 'nothing: no other version is current'}")
        for found in report.gates:
            print(f"  {'passed ' if found.passed else 'REFUSED'} {describe(found)}")
    require_passed(report)


@app.command()
def cutover(
    version: VersionArgument,
    *,
    why: WhyOption = "",
    force: Annotated[bool, typer.Option("--force", help="Although the gates have not passed; needs --why.")] = False,
    who: WhoOption = "",
    config: ConfigOption = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Make a version current. Its bytes are verified first, its gates must have passed. Servers follow by themselves.

    Example: shortlist cutover 20261122T031500Z-3f9c0a1b --why "tonight's run"
    """
    from prediction_store import history

    root = _root(_load(config, overrides))
    now = time.time()
    record = history.cutover(root, version, who or history.user_at_host(), why, now, force=force)
    _print_record(record, as_json)


@app.command()
def rollback(
    *,
    why: WhyOption = "",
    to: Annotated[str, typer.Option("--to", metavar="VERSION", help="Default: the version served before.")] = "",
    who: WhoOption = "",
    config: ConfigOption = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Go back to the version that was served before; repeated, to the one before that. Nothing is moved or deleted.

    Example: shortlist rollback --why "prices are wrong"
    """
    from prediction_store import history

    root = _root(_load(config, overrides))
    record = history.rollback(root, who or history.user_at_host(), why, time.time(), to=to or None)
    _print_record(record, as_json)


@app.command()
def check(
    version: Annotated[str, typer.Argument(help="One version. Default: all of them, and the history.")] = "",
    config: ConfigOption = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Verify every byte and every record of a version, or of the whole store. Exit 1: something is wrong.

    Example: shortlist check
    """
    from prediction_store import check as checker
    from prediction_store.errors import CheckFailedError

    root = _root(_load(config, overrides))
    report = checker.check(root, version or None)
    if as_json:
        _print_json(report)
    else:
        print(
            f"{len(report.versions)} versions, {report.history_records} history records, {report.files} files,"
            f" {_size(report.bytes)}, {report.records} users' records: {len(report.problems)} problems"
        )
        for problem in report.problems:
            print(f"  {problem.where}: {problem.what}")
    if report.problems:
        first = report.problems[0]
        raise CheckFailedError(
            f"{len(report.problems)} problems, the first in {first.where}: {first.what}", hint="shortlist versions"
        )


@app.command()
def retire(
    keep: Annotated[int, typer.Option("--keep", help="Versions to leave. Default: store.keep_versions.")] = 0,
    config: ConfigOption = None,
    overrides: SetOption = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Remove versions that nothing needs any more, and what killed processes have left behind.

    The current version, the one rollback goes to, whatever a server has open and what was built a moment ago stay.

    Example: shortlist retire --keep 2
    """
    from prediction_store.retention import retire as retire_versions

    loaded = _load(config, overrides)
    if keep < 0 or keep == 1:
        raise UsageError(f"--keep {keep}: wanted at least 2, the current version and the one to go back to")
    report = retire_versions(
        _root(loaded),
        keep=keep or loaded.store.keep_versions,
        grace_seconds=loaded.store.grace_hours * 3600,
        now=time.time(),
    )
    if as_json:
        return _print_json(report)
    for name in report.removed:
        print(f"removed {name}")
    for name in report.swept:
        print(f"swept   {name}")
    for name, reason in report.kept.items():
        print(f"kept    {name}: {reason}")
    return None


def _load(config: Path | None, overrides: list[str]) -> Config:
    from schemas.config_file import load_config

    return load_config(config, overrides)


def _root(config: Config) -> Path:
    from pathlib import Path

    return Path(config.paths.store)


def _print_record(record: HistoryRecord, as_json: bool) -> None:
    if as_json:
        return _print_json(record)
    print(f"{record.version} is current: history record {record.number}, {record.action} by {record.who}"
          f" at {_minute(record.at)}{f', instead of {record.previous}' if record.previous else ''}")  # fmt: skip
    return None


def _print_json(value: object) -> None:
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _minute(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
