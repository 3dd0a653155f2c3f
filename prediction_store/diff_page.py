"""The difference between two versions as one HTML page, with plots and some users side by side."""

from __future__ import annotations

from collections.abc import Sequence

from prediction_store import plots
from prediction_store.diff import DiffReport, ItemDiff, Shown, Spread, UserDiff
from prediction_store.diff_text import facts
from prediction_store.page import Cell, beside, escape, number, page, section, table, tiles, words


def page_of(report: DiffReport) -> str:
    """The page, as text in UTF-8."""
    return page(
        f"{report.a.version} to {report.b.version}",
        _head(report),
        _facts(report),
        _change(report),
        _segments(report),
        _scores(report),
        _items(report),
        _users(report),
        foot=f"shortlist diff {report.a.version} {report.b.version}",
    )


def _head(report: DiffReport) -> str:
    head = (
        "<h1>What changed between two versions</h1>\n"
        f"<p><code>{escape(report.a.version)}</code> → <code>{escape(report.b.version)}</code></p>\n"
    )
    drift = report.scores.drift
    return head + tiles(
        [
            (_share(report.overlap), f"of a user's first {report.depth} are the same items"),
            ("–" if report.rank_agreement is None else f"{report.rank_agreement.mean:.2f}", "rank agreement (RBO)"),
            ("–" if drift is None else f"{drift:.2f}", "score drift (PSI)"),
            (f"{report.b.users - report.a.users:+,}", "users with a list"),
            (f"{report.b.items - report.a.items:+,}", "items"),
        ]
    )


def _facts(report: DiffReport) -> str:
    rows = facts(report)
    styles = ["" if a == b else "changed" for _, a, b in rows]
    changed = ", ".join(report.inputs_changed) or "none"
    return section(
        "The versions",
        table(
            [words(""), number("before"), number("after")],
            [[words(what), number(a), number(b)] for what, a, b in rows],
            styles,
        ),
        f"<p>Inputs that are not the same: {escape(changed)}.</p>\n",
    )


def _change(report: DiffReport) -> str:
    about = (
        f"{report.users_both:,} sampled users are in both versions, {report.users_only_a:,} only in the first,"
        f" {report.users_only_b:,} only in the second. What follows is about the first {report.depth} items of those"
        " who are in both. Items are compared by id."
    )
    if report.overlap is None or report.rank_agreement is None:
        return section("How much the lists changed", about=about)
    return section(
        "How much the lists changed",
        beside(_histogram(report.overlap, "overlap"), _histogram(report.rank_agreement, "rank agreement")),
        about=about,
    )


def _histogram(spread: Spread, what: str) -> str:
    title = f"{what}: a tenth of the users is below {spread.p10:.2f}, half below {spread.p50:.2f}"
    return plots.histogram(spread.histogram, title=title, x=what, y="users", mark=spread.mean)


def _segments(report: DiffReport) -> str:
    if len(report.segments) < 2:
        return ""
    head = [words("segment"), number("users"), number("overlap"), number("rank agreement")]
    rows = [
        [_segment(of.segment), number(f"{of.users:,}"), number(f"{of.overlap:.3f}"), number(f"{of.rank_agreement:.3f}")]
        for of in report.segments
    ]
    names = [(of.segment or "(none)", of.overlap) for of in report.segments[:20]]
    return section(
        "By segment", beside(table(head, rows), plots.bars(names, title="mean overlap", show="{:.2f}".format))
    )


def _segment(name: str) -> Cell:
    return words(name) if name else Cell('<span class="muted">(none)</span>')


def _scores(report: DiffReport) -> str:
    scores = report.scores
    if not scores.a or not scores.b:
        return ""
    unit = (
        "Both versions are of one embedding space: the scores can be compared."
        if scores.is_same_space
        else "The versions are of different embedding spaces: only the shapes of the two curves can be compared."
    )
    plot = plots.lines(
        scores.quantiles,
        {"before": scores.a, "after": scores.b},
        title="base scores of all candidates, by quantile",
        x="quantile",
        y="score",
    )
    chosen = [place for place, quantile in enumerate(scores.quantiles) if place % 5 == 0]
    rows = [
        [words(f"{scores.quantiles[at]:.0%}"), number(f"{scores.a[at]:.4f}"), number(f"{scores.b[at]:.4f}")]
        for at in chosen
    ]
    return section(
        "Scores", beside(plot, table([words("quantile"), number("before"), number("after")], rows)), about=unit
    )


def _items(report: DiffReport) -> str:
    if not report.gained and not report.lost:
        return ""
    parts = [
        f"<h3>{escape(head)}</h3>\n{_item_table(items)}" if items else ""
        for head, items in (("Gained most", report.gained), ("Lost most", report.lost))
    ]
    return section(
        "Items",
        beside(*parts),
        about=f"In how many lists an item is among the first {report.depth}, of {report.users_both:,} lists.",
    )


def _item_table(items: Sequence[ItemDiff]) -> str:
    return table(
        [words("item"), number("before"), number("after"), number("change")],
        [
            [_item(item), number(f"{item.a:,}"), number(f"{item.b:,}"), number(f"{item.b - item.a:+,}")]
            for item in items
        ],
    )


def _item(item: ItemDiff | Shown) -> Cell:
    title = f"{escape(item.title)} " if item.title else ""
    return Cell(f'{title}<span class="id">{escape(item.item)}</span>')


def _users(report: DiffReport) -> str:
    if not report.users:
        return ""
    return section(
        "Some users side by side",
        *map(_user, report.users),
        about="From the one whose list changed most to the one whose list changed least.",
    )


def _user(user: UserDiff) -> str:
    of = f", {user.segment}" if user.segment else ""
    head = (
        f'<h3>{escape(user.user)}{escape(of)} <span class="muted">overlap {user.overlap:.2f},'
        f" rank agreement {user.rank_agreement:.2f}</span></h3>\n"
    )
    return head + beside(_list(user.a, "before", "gone", "now"), _list(user.b, "after", "new", "was"))


def _list(places: Sequence[Shown], when: str, flag: str, link: str) -> str:
    """One of a user's two lists; an item that is not among the other one's first is flagged, else its place is told."""
    if not places:
        return f'<p class="muted">{escape(when)}: an empty list</p>\n'
    rows = [
        [
            number(place),
            _item(shown),
            number(f"{shown.score:.3f}"),
            Cell(f'<span class="flag">{flag}</span>', "n")
            if shown.other_place is None
            else number(f"{link} {shown.other_place}"),
        ]
        for place, shown in enumerate(places, 1)
    ]
    styles = [flag if shown.other_place is None else "" for shown in places]
    return table([number(""), words(when), number("score"), number("")], rows, styles)


def _share(spread: Spread | None) -> str:
    return "–" if spread is None else f"{spread.mean:.0%}"
