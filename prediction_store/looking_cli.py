"""The verbs that look at a store and change nothing. Each parses, calls one function and prints; heavy imports wait."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from prediction_store.place import folder_of, options_given, settings_of, store_of
from schemas.options import ConfigOption, JsonOption, SetOption

app = typer.Typer(add_completion=False, help="What there is in the store.")


@app.command()
def versions(config: ConfigOption = None, overrides: SetOption = [], as_json: JsonOption = False) -> None:
    """The versions on disk, newest first: state, age, users, size, gates, and who made which current.

    Example: shortlist versions --json
    """
    from prediction_store import history, terminal
    from prediction_store.listing import list_versions

    root = folder_of(settings_of(config, overrides))
    rows = list_versions(root, time.time())
    if as_json:
        return terminal.print_json(rows)
    return terminal.print_versions(rows, history.current_or_none(root), str(root))


@app.command("history")
def show_history(config: ConfigOption = None, overrides: SetOption = [], as_json: JsonOption = False) -> None:
    """Every decision about what is served, newest first: when, what, who and why.

    Example: shortlist history
    """
    from prediction_store import terminal
    from prediction_store.listing import list_history

    rows = list_history(store_of(settings_of(config, overrides)))
    return terminal.print_json(rows) if as_json else terminal.print_history(rows)


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="The earlier version, as `shortlist versions` lists it.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The later version.")],
    *,
    users: Annotated[int, typer.Option("--users", min=1, max=100_000, help="Users whose lists are compared.")] = 1000,
    html: Annotated[str, typer.Option("--html", metavar="PATH", help="Also write a page with plots there.")] = "",
    config: ConfigOption = None,
    overrides: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    """What changed between two versions: how much the lists overlap, which items came and went, by segment.

    Example: shortlist diff 20261121T031500Z-0b5c77d2 20261122T031500Z-3f9c0a1b --html diff.html
    """
    import shlex
    from pathlib import Path

    from prediction_store import diff_page, diff_text, durable, terminal
    from prediction_store.diff import diff as compare
    from schemas.errors import UsageError

    page = Path(html)
    if html and page.exists() and not page.is_file():  # a device, say, which root would replace
        raise UsageError(f"--html: {html} is there, and is no file")
    settings = settings_of(config, overrides)
    report = compare(folder_of(settings), a, b, users=users, depth=settings.gates.depth)
    if html:
        durable.replace_document(page.absolute(), diff_page.page_of(report).encode())
    if as_json:
        return terminal.print_json(report)
    for line in [*diff_text.lines(report), ""]:
        terminal.print_line(line)
    again = shlex.join(["shortlist", "diff", a, b, "--html", "diff.html", *options_given(config, overrides)])
    terminal.print_line(f"written: {html}" if html else f"as a page with plots: {again}")
    return None


@app.command()
def check(
    version: Annotated[str, typer.Argument(help="One version. Default: all of them, and the history.")] = "",
    config: ConfigOption = None,
    overrides: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    """Verify every byte and every record of a version, or of the whole store. Exit 1: something is wrong.

    Example: shortlist check
    """
    from prediction_store import check as checker
    from prediction_store import terminal
    from prediction_store.errors import CheckFailedError

    report = checker.check(store_of(settings_of(config, overrides)), version or None)
    if as_json:
        terminal.print_json(report)
    else:
        print(
            f"{len(report.versions)} versions, {report.history_records} history records, {report.files} files,"
            f" {terminal.size(report.bytes)}, {report.records} users' records: {len(report.problems)} problems"
        )
        for problem in report.problems:
            terminal.print_line(f"  {problem.where}: {problem.what}")
    if report.problems:
        first = report.problems[0]
        raise CheckFailedError(
            f"{len(report.problems)} problems, the first in {first.where}: {first.what}",
            hint="docs/operations.md, under 'What each error means': damaged versions, a damaged history",
        )
