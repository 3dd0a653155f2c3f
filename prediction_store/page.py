"""One self-contained HTML page: no script, nothing from elsewhere, readable in light and dark and on paper.

What it makes is well-formed XML as well, so that a test can hold it to that. All text goes through `escape`.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
STYLE: Final = """
:root { color-scheme: light dark; --paper: #fdfdfc; --card: #ffffff; --ink: #1d2126; --muted: #626a73; --rule: #e1e4e8;
  --first: #8a94a0; --second: #1f6feb; --good: #1a7f37; --bad: #b35900; --mark: #eef4fe; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --card: #1b1f24; --ink: #e3e7eb; --muted: #98a2ad;
  --rule: #30363d; --first: #8b949e; --second: #5aa2ff; --good: #56c271; --bad: #f0a04b; --mark: #1b2b44; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 74rem; background: var(--paper); color: var(--ink);
  overflow-wrap: anywhere;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0 0 .3rem; font-weight: 650; }
h2 { font-size: 1.1rem; margin: 2.6rem 0 .6rem; padding-top: .9rem; border-top: 1px solid var(--rule); }
h3 { font-size: .95rem; margin: 1.4rem 0 .4rem; font-weight: 600; }
p { margin: .3rem 0 .8rem; max-width: 52rem; }
code, .id { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: .88em; }
.muted, .id { color: var(--muted); }
.tiles { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1.2rem 0; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: .6rem .9rem;
  min-width: 9.5rem; flex: 1; }
.tile b { display: block; font-size: 1.45rem; font-weight: 620; font-variant-numeric: tabular-nums; line-height: 1.3; }
.tile span { color: var(--muted); font-size: .82rem; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(27rem, 100%), 1fr)); gap: 1rem 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .26rem .7rem .26rem 0; border-bottom: 1px solid var(--rule); vertical-align: top;
  unicode-bidi: isolate; }
td:not(.n) { min-width: 7rem; }
th { color: var(--muted); font-weight: 550; font-size: .82rem; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; overflow-wrap: normal; }
tr.new td, tr.changed td { background: var(--mark); }
.new .flag { color: var(--good); } .gone .flag { color: var(--bad); }
.better { color: var(--good); } .worse { color: var(--bad); } small { color: var(--muted); font-size: .82em; }
tr.first td { border-top: 1px solid var(--muted); } dt { font-weight: 600; margin-top: .5rem; } dd { margin: 0; }
dl { max-width: 52rem; }
figure { margin: 0 0 .8rem; max-width: 44rem; }
figcaption { color: var(--muted); font-size: .82rem; margin-top: .2rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--muted); font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
svg .label { fill: var(--ink); paint-order: stroke; stroke: var(--paper); stroke-width: 3px; stroke-linejoin: round; }
svg .rule { stroke: var(--rule); stroke-width: 1; } svg .axis { stroke: var(--muted); stroke-width: 1; }
svg .bar { fill: var(--second); } svg .bar.less { fill: var(--bad); }
svg .bar0 { fill: var(--first); } svg .bar1 { fill: var(--second); } svg .bar2 { fill: var(--good); }
svg .bar3 { fill: var(--bad); } svg .whisker { stroke: var(--ink); stroke-width: 1.2; }
svg .band { fill: var(--second); opacity: .16; }
svg .mark { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 4 3; }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .line0 { stroke: var(--first); stroke-dasharray: 6 3; } svg .line1 { stroke: var(--second); }
svg .line2 { stroke: var(--good); stroke-dasharray: 2 3; } svg .line3 { stroke: var(--bad); stroke-dasharray: 8 2 2 2; }
footer { margin-top: 3rem; color: var(--muted); font-size: .82rem; }
@media print { body { padding: 0; } h2 { break-after: avoid; } figure, tr, .tile { break-inside: avoid; } }
"""


class Cell(NamedTuple):
    """One cell of a table: markup that is escaped already, and a class of `STYLE`."""

    markup: str
    style: str = ""


def escape(text: object) -> str:
    """Any text as it stands in markup and attributes; characters that no document may hold are replaced."""
    return html.escape(CONTROL.sub("\ufffd", str(text)), quote=True)


def number(text: object) -> Cell:
    """A cell with a number, set to the right."""
    return Cell(escape(text), "n")


def words(text: object) -> Cell:
    """A cell with plain text."""
    return Cell(escape(text))


def table(head: Sequence[Cell], rows: Iterable[Sequence[Cell]], styles: Sequence[str] = ()) -> str:
    """A table; `styles` are the classes of its rows, if they have any."""
    body = "".join(
        f"<tr{_class(styles[place] if place < len(styles) else '')}>{''.join(_cell('td', cell) for cell in row)}</tr>\n"
        for place, row in enumerate(rows)
    )
    top = "".join(_cell("th", cell) for cell in head)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>\n{body}</tbody></table></div>\n'


def tiles(facts: Iterable[tuple[str, str]]) -> str:
    """A row of the numbers that matter most: (number, what it is)."""
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><b>{escape(figure)}</b><span>{escape(what)}</span></div>' for figure, what in facts
        )
        + "</div>\n"
    )


def section(title: str, *parts: str, about: str = "") -> str:
    """A part of the page under a heading."""
    lead = f'<p class="muted">{escape(about)}</p>\n' if about else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{lead}{''.join(parts)}</section>\n"


def beside(*parts: str) -> str:
    """Parts next to each other, where there is room."""
    return f'<div class="beside">{"".join(f"<div>{part}</div>" for part in parts)}</div>\n'


def page(title: str, *parts: str, foot: str = "") -> str:
    """The whole document."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{''.join(parts)}<footer>{escape(foot)}</footer>\n</body>\n</html>\n"
    )


def _cell(tag: str, cell: Cell) -> str:
    return f"<{tag}{_class(cell.style)}>{cell.markup}</{tag}>"


def _class(name: str) -> str:
    return f' class="{escape(name)}"' if name else ""
