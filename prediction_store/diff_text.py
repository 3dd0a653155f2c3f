"""The difference between two versions as a table for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from prediction_store.diff import DiffReport, DiffSide, ItemDiff, Spread
from prediction_store.terminal import minute, size

MAX_SEGMENTS: Final = 10
MAX_ITEMS: Final = 5
BARS: Final = "▁▂▃▄▅▆▇█"
FACTS: Final[tuple[tuple[str, Callable[[DiffSide], str]], ...]] = (
    ("data up to", lambda side: minute(side.made_at)),
    ("built at", lambda side: minute(side.built_at)),
    ("users with a list", lambda side: f"{side.users:,}"),
    ("items", lambda side: f"{side.items:,}"),
    ("mean length of a list", lambda side: f"{side.list_items / max(1, side.users):,.1f}"),
    ("size", lambda side: size(side.bytes)),
    ("shards", lambda side: str(side.shards)),
    ("embedding space", lambda side: side.space_id[:16]),
    ("settings", lambda side: side.config_digest[:8] or "not known"),
)


def facts(report: DiffReport) -> list[tuple[str, str, str]]:
    """(what, of a, of b): what the manifests say of the two versions."""
    return [(what, of(report.a), of(report.b)) for what, of in FACTS]


def lines(report: DiffReport) -> Iterator[str]:
    """What `shortlist diff` prints."""
    rows = facts(report)
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    yield f"from {report.a.version} to {report.b.version}"
    yield ""
    for what, a, b in rows:
        yield f"  {what:<{widths[0]}}  {a:>{widths[1]}}  {'=' if a == b else '→'}  {b:>{widths[2]}}".rstrip()
    yield f"  inputs that changed: {', '.join(report.inputs_changed) or 'none'}"
    yield ""
    yield (
        f"{report.users_both:,} sampled users in both, {report.users_only_a:,} only in the first,"
        f" {report.users_only_b:,} only in the second"
    )
    if report.overlap is None or report.rank_agreement is None:
        yield "nobody's lists can be compared"
        return
    yield f"  {f'overlap of the first {report.depth}':<26} {_spread(report.overlap)}"
    yield f"  {'rank agreement':<26} {_spread(report.rank_agreement)}"
    if report.scores.drift is not None:
        unit = "" if report.scores.is_same_space else "; by shape only, for the embedding space is another"
        yield f"  {'score drift (PSI)':<26} {report.scores.drift:.3f}{unit}"
    if len(report.segments) > 1:
        yield ""
        yield f"  {'segment':<20} {'users':>8} {'overlap':>8} {'rank agreement':>15}"
        for segment in report.segments[:MAX_SEGMENTS]:
            name = segment.segment or "(none)"
            yield f"  {name:<20.20} {segment.users:>8,} {segment.overlap:>8.3f} {segment.rank_agreement:>15.3f}"
        if len(report.segments) > MAX_SEGMENTS:
            yield f"  … and {len(report.segments) - MAX_SEGMENTS} more"
    yield from _items("in more lists", report.gained, report.depth)
    yield from _items("in fewer lists", report.lost, report.depth)


def _items(head: str, items: Sequence[ItemDiff], depth: int) -> Iterator[str]:
    if not items:
        return
    yield ""
    yield f"  {head + f' (first {depth})':<46} {'before':>7} {'after':>7} {'change':>7}"
    for item in items[:MAX_ITEMS]:
        yield f"  {_named(item):<46} {item.a:>7,} {item.b:>7,} {item.b - item.a:>+7,}"


def _named(item: ItemDiff) -> str:
    """The title, as far as there is room beside the id, which tells items of one title apart."""
    room = max(0, 45 - len(item.item))
    title = item.title if len(item.title) <= room else f"{item.title[: max(0, room - 1)]}…"
    return f"{title} {item.item}".strip()


def _spread(spread: Spread) -> str:
    most = max(spread.histogram)
    bars = "".join(BARS[-(-count * len(BARS) // most) - 1] if count else " " for count in spread.histogram)
    return f"mean {spread.mean:.3f}   p10 {spread.p10:.3f}   p90 {spread.p90:.3f}   0 │{bars}│ 1"
