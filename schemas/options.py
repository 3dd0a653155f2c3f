"""The options that verbs of the command line share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration file. Default: shortlist.toml in this folder, if there is one."),
]
SetOption = Annotated[
    list[str],
    typer.Option("--set", help="Override one key: section.key=value. May be repeated.", metavar="KEY=VALUE"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]
DayOption = Annotated[
    str | None,
    typer.Option(
        "--day",
        help="The run's day, YYYY-MM-DD: everything before its end is known. Default: the last day in the data.",
    ),
]
