"""An answer, what came of answers, and what skew has found, as tables for people."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from prediction_store.terminal import printable
from reranker import fallbacks
from reranker.answer import DEADLINE, HOLDOUT, LIST_RAN_DRY
from reranker.arrivals import ARRIVALS
from reranker.forget import Forgotten
from reranker.outcomes import Outcomes
from reranker.skew import Skew
from reranker.stability import Drift
from reranker.stored_list import DAMAGED_RECORD, EXPIRED_RECORD, OTHER_HOST, UNKNOWN_USER
from schemas.messages import RecommendAnswer
from schemas.ranker import LOG, SESSIONS

REASONS = {
    None: "{user}",
    UNKNOWN_USER: "{user} is not in this version",
    EXPIRED_RECORD: "the list of {user} has expired",
    DAMAGED_RECORD: "the list of {user} is damaged",
    OTHER_HOST: "the list of {user} is on another host",
    LIST_RAN_DRY: "nothing of the list of {user} may be shown",
    DEADLINE: "{user}, with no time to rank",
    HOLDOUT: "{user}, who is in a holdout",
}
MOST_WIDTH = 1_000_000
"""Of a table, in characters."""
RUNGS = {
    fallbacks.PERSONAL: "answered from the stored list",
    fallbacks.STORED_ORDER: "answered from the stored list in its own order",
    fallbacks.SESSION: "answered from the neighbours of the session",
    fallbacks.SEGMENT: "answered from what is popular in the segment",
    fallbacks.POPULAR: "answered from what is popular",
    ARRIVALS: "answered from what has arrived since",
    fallbacks.EMPTY: "and nothing is left to show",
}


def print_answer(answer: RecommendAnswer, user: str) -> None:
    """Print one answer: a line on how it was made, then the items."""
    console = Console()
    for line in headlines(answer, user):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("item", no_wrap=True)
    table.add_column("title")
    for title in ("base score", "final score"):
        table.add_column(title, justify="right", no_wrap=True, min_width=len(title))
    table.add_column("why")
    for item in answer.items:
        table.add_row(
            str(item.rank),
            _plain(item.item),
            _plain(str(item.title or "")),
            f"{item.base_score:.3f}",
            f"{item.score:.3f}",
            _plain(str(item.why or "")),
        )
    _print_table(console, table)


def watch_segments(paths: list[Path]) -> Iterable[Path]:
    """The segments of a log as they are read, with a bar at a terminal."""
    console = Console(stderr=True)
    return track(paths, "reading the log", console=console, transient=True, disable=not console.is_terminal)


def print_outcomes(found: Outcomes) -> None:
    """Print one line for each group, and under them what could not be counted."""
    console = Console()
    types = sorted({type for group in found.groups for type in group.events})
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column(found.by, no_wrap=True)
    for title in ("answers", "users", "clicked", *map(_plain, types)):
        table.add_column(title, justify="right", no_wrap=True)
    for group in found.groups:
        margin = "" if group.margin is None else f" ± {100 * group.margin:.2f}"
        numbers = (group.answers, group.users, f"{100 * group.share:.2f}{margin} %")
        table.add_row(_plain(group.group), *map(str, numbers), *(str(group.events.get(type, 0)) for type in types))
    _print_table(console, table)
    lines = [
        (found.nameless, "events name no answer: send its request_id along with them"),
        (found.astray, "clicks are on answers that are not of that time, or not in the log, or did not show the item"),
        (found.torn_bytes, "bytes of torn tails could not be read"),
    ]
    for count, words in lines:
        if count:
            console.print(f"{count} {words}", markup=False, highlight=False, soft_wrap=True)


def print_forgotten(found: Forgotten, session_minutes: float) -> None:
    """Print what was taken out, and what will go by itself or not at all."""
    written = f"written anew: segments {found.segments}"
    print(f"taken out of the log: answers {found.answers}, events {found.events}; {written}")
    if found.torn_bytes:
        print(f"  and {found.torn_bytes} bytes of torn tails, which nobody can read")
    print(f"sessions: gone {session_minutes:g} minutes after the last event")
    for name in found.versions:
        print(f"version {name} has a list of theirs, until it is retired")


def print_skew(found: Skew) -> None:
    """Print how signals compare: lines on the sample and on what was learned from, then one for each signal."""
    console = Console()
    passed = "".join(f"; passed over, {why}: {count}" for why, count in sorted(found.passed_over.items()))
    gone = f"; {found.missing} items not there any more" if found.missing else ""
    torn = f"; {found.torn_bytes} bytes of torn tails could not be read" if found.torn_bytes else ""
    lines = [f"{found.answers} answers made again{gone}{passed}{torn}"]
    drift = found.drift
    if drift is not None:
        lines.append(_compared(drift))
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("signal", no_wrap=True)
    for title in ("values", "unequal", "mean difference", "greatest", "PSI"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    again = {
        signal.name: (
            str(signal.values),
            f"{100 * signal.share_unequal:.2f} %",
            f"{signal.mean:.2g}",
            f"{signal.most:.2g}",
        )
        for signal in found.signals
    }
    indexes = (
        {} if drift is None else {name: (f"{drift.indexes[name]:.3f}", drift.reading(name)) for name in drift.indexes}
    )
    for name in sorted({*again, *indexes}):
        table.add_row(name, *again.get(name, ("",) * 4), *indexes.get(name, ("",) * 2))
    if table.row_count:
        _print_table(console, table)


def _compared(drift: Drift) -> str:
    """What the population stability index of each signal is of."""
    if drift.learned_from is None:
        return f"version {drift.version} does not tell what its weights were learned from: no PSI"
    lists, source = drift.learned_from.lists, drift.learned_from.source
    told = {LOG: "served lists", SESSIONS: "lists of replayed sessions"}[source]
    return f"PSI: {drift.answers} answers of version {drift.version} against the {lists} {told} that taught its weights"


def headlines(answer: RecommendAnswer, user: str) -> list[str]:
    """How the answer was made, in one line or two."""
    made = f"{REASONS[answer.reason].format(user=printable(user))}: {RUNGS[answer.rung]} (rung {answer.rung})"
    if answer.topped_up_from:
        made += f", filled up from {' and '.join(answer.topped_up_from)}"
    lines = [made]
    facts = f"version {answer.version}, {_age(answer.age_seconds)} old"
    if answer.stale:
        facts += ", past its time to live"
    if answer.ignored_events:
        facts += f"; {answer.ignored_events} session event{'s' if answer.ignored_events > 1 else ''} of unknown items"
    lines.append(facts)
    return lines


def _print_table(console: Console, table: Table) -> None:
    """A table of which nothing is cut off; texts are folded to the width of a terminal, where there is one."""
    widths = console.measure(table, options=console.options.update(width=MOST_WIDTH))
    folds = console.is_terminal and not all(column.no_wrap for column in table.columns)
    console.width = max(console.width, widths.minimum if folds else widths.maximum)
    console.print(table)


def _age(seconds: int) -> str:
    hours = seconds / 3600
    return f"{hours:.1f} hours" if hours < 72 else f"{hours / 24:.0f} days"


def _plain(text: str) -> str:
    return escape(printable(text))
