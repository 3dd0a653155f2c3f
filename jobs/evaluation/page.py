"""The evaluation as one HTML page: how good the lists are, against what, for whom, and what they show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from jobs.evaluation.judged import RECALL_AT, SEGMENT_AT
from jobs.evaluation.summary import OURS
from prediction_store import plots
from prediction_store.page import Cell, beside, escape, number, page, section, table, tiles, words
from prediction_store.plots import Range

NAMES = {"popularity": "popularity", OURS: "this run", "content": "content only", "previous": "version before"}
"""What each ranking is called, in the order of the plots' colours."""
HEADLINE = (("recall", "20"), ("recall", "100"), ("recall", "1000"), ("ndcg", "20"), ("hit_rate", "20"), ("mrr", "20"))
FEWEST_USERS = 6
"""With fewer, all of them can agree by chance more often than one time in twenty: no interval of 95 % says anything."""
FEW_USERS = 100
"""With fewer, a mean over the users may be off by more than a tenth by chance alone, see `off_by`."""
MEASURES = {"recall": "recall", "ndcg": "NDCG", "hit_rate": "hit rate", "mrr": "MRR"}
PLOTTED_AT = ("20", "100")
ITEM_BANDS = {"head": "head", "mid": "middle", "tail": "tail", "cold": "cold"}
WORDS = (
    (
        "recall@k",
        "The share of the items a user went on to that are among the first k, of at most k that could be there;"
        " averaged over users.",
    ),
    ("NDCG@20", "The same for 20 places, where a place counts less the further down it is."),
    ("hit rate@20", "The share of users with at least one such item among the first 20."),
    ("MRR@20", "1 / the place of the first such item, 0 when it is not among the first 20."),
    (
        "popularity",
        "The same list for everybody: the items with the most interactions before the judged part, without what the"
        " user may not be offered.",
    ),
    (
        "content only",
        "No training: the items whose words (title, category, brand; TF-IDF) are most like those of the user's history;"
        " in order of popularity where nothing is in common.",
    ),
    (
        "version before",
        "What was served: the newest version of the store that was current and knows nothing of the judged part.",
    ),
    (
        "Gini",
        "How unevenly items are shown: 0 when all are shown equally often, near 1 when a few take nearly all places.",
    ),
)


def page_of(report: Mapping[str, Any], day: str) -> str:
    """The page for a report of `report/report.json`, as text in UTF-8."""
    title = f"Evaluation of {day}"
    foot = f"shortlist evaluate --day {day} · the same numbers: report.json beside this page"
    if not report["users"]:
        nothing = "<p>No interaction is held out, so there is nothing to judge the lists by: see split.test_days.</p>\n"
        return page(title, _head(report, day), nothing, foot=foot)
    rankings = {name: report if name == OURS else report[name] for name in NAMES if name == OURS or name in report}
    return page(
        title,
        _head(report, day),
        _tiles(report),
        _headline(rankings),
        _curves(report, rankings),
        _segments(report, rankings),
        _exposure(report, rankings),
        _notes(report),
        foot=foot,
    )


def off_by(users: int) -> str:
    """How far a mean of shares over so many users may be from that of many, with a chance of 95 %."""
    return f"{1 / math.sqrt(users):.2f}"


def _head(report: Mapping[str, Any], day: str) -> str:
    head = f"<h1>How good are the lists of {escape(day)}?</h1>\n"
    if not report["users"]:
        return head
    about = (
        f"Judged on what {report['users']:,} users went on to do between {_moment(report['test_from'])} and"
        f" {_moment(report['test_to'])}: {report['interactions']:,} pairs of a user and an item, by"
        " interactions that training has not seen."
    )
    if report["users"] < FEW_USERS:
        chance = off_by(report["users"])
        about += f" They are few: by chance alone a recall may be off by {chance}. Hold out more: see [split]."
    return head + f'<p class="muted">{escape(about)}</p>\n'


def _moment(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _tiles(report: Mapping[str, Any]) -> str:
    facts = []
    for k in ("20", "100"):
        ours, theirs = report["recall"][k], report["popularity"]["recall"][k]
        times = f", {ours / theirs:.1f} × popularity" if theirs else ""
        facts.append((f"{ours:.3f}", f"recall@{k}{times}"))
    if "previous" in report:
        change = report["previous"]["difference"]["recall"]["100"]
        facts.append((f"{change:+.3f}", "recall@100 against the version before"))
    cold = report["segments"]["items"][-1]["interactions"] / report["interactions"]
    facts += [
        (f"{report['coverage'] or 0:.0%}", f"of {report['items']:,} items are among somebody's first 100"),
        (f"{cold:.0%}", "of what is judged are items that nobody had met before"),
    ]
    return tiles(facts)


def _headline(rankings: Mapping[str, Any]) -> str:
    order = _ours_first(rankings)
    others = order[1:]
    head = [words("")] + [number(NAMES[name]) for name in order]
    head += [number(f"against {NAMES[name]}") for name in others]
    rows = []
    for measure, k in HEADLINE:
        row = [words(f"{MEASURES[measure]}@{k}")]
        row += [_ranged(rankings[name], measure, k) for name in order]
        row += [_change(rankings[name]["difference"], measure, k) for name in others]
        rows.append(row)
    about = (
        "Small: the interval that holds the number with a chance of 95 %, by resampling the users. A difference is"
        " measured user by user; it is coloured when its interval does not contain 0."
        f" There is no interval with fewer than {FEWEST_USERS} users: they may all agree by chance."
    )
    return section("Against what else could be shown", table(head, rows), about=about)


def _ours_first(rankings: Mapping[str, Any]) -> list[str]:
    return [OURS, *(name for name in rankings if name != OURS)]


def _interval(found: Mapping[str, Any], measure: str, k: str) -> Sequence[float] | None:
    """Its two ends; None: nobody counts, or too few."""
    return found["intervals"][measure][k] if found["users"] >= FEWEST_USERS else None


def _ranged(found: Mapping[str, Any], measure: str, k: str, between: str = "<br/>") -> Cell:
    value, ends = found[measure][k], _interval(found, measure, k)
    if value is None:
        return Cell("–", "n")
    small = f"{between}<small>{ends[0]:.3f} – {ends[1]:.3f}</small>" if ends else ""
    return Cell(f"{value:.3f}{small}", "n")


def _change(found: Mapping[str, Any], measure: str, k: str) -> Cell:
    value, ends = found[measure][k], _interval(found, measure, k)
    if value is None:
        return Cell("–", "n")
    if ends is None:
        return Cell(f"{value:+.3f}", "n")
    style = "better" if ends[0] > 0 else "worse" if ends[1] < 0 else ""
    return Cell(f'<span class="{style}">{value:+.3f}</span><br/><small>{ends[0]:+.3f} – {ends[1]:+.3f}</small>', "n")


def _curves(report: Mapping[str, Any], rankings: Mapping[str, Any]) -> str:
    at = [str(k) for k in RECALL_AT]
    series = {NAMES[name]: [found["recall"][k] for k in at] for name, found in rankings.items()}
    ends = [found for k in at if (found := _interval(report, "recall", k))]
    plot = plots.lines(
        RECALL_AT,
        series,
        title="recall by length of list" + ("; shaded: the interval of this run" if ends else ""),
        x="length of list",
        y="recall",
        is_log=True,
        band=([low for low, _ in ends], [high for _, high in ends]) if ends else None,
    )
    order = _ours_first(rankings)
    rows = [[number(k), *(number(f"{rankings[name]['recall'][k]:.4f}") for name in order)] for k in at]
    head = [number("length"), *(number(NAMES[name]) for name in order)]
    return section("Recall by length of list", beside(plot, table(head, rows)))


def _segments(report: Mapping[str, Any], rankings: Mapping[str, Any]) -> str:
    users = [(_activity(segment), segment) for segment in report["segments"]["users"]]
    items = [(ITEM_BANDS[segment["name"]], segment) for segment in report["segments"]["items"]]
    parts = []
    for title, found, about in (
        (
            "For whom: users by what they had done before",
            users,
            "Interactions before the judged part. Cold users had none: their lists come from what else is known of"
            " them; whoever had no list is judged on what was popular.",
        ),
        (
            "Of what: wanted items by how popular they were before",
            items,
            "Interactions that others had with them before the judged part: head items are the most popular that hold a"
            " fifth of all, tail items the least popular that hold a fifth, cold items had none. Recall of the wanted"
            " items of a band alone; a user who wanted none of them is not counted there.",
        ),
    ):
        some = [(name, segment) for name, segment in found if segment["users"]]
        drawn = []
        for k in PLOTTED_AT:
            bars = [(name, {NAMES[of]: _range(segment[of], k) for of in rankings}) for name, segment in some]
            drawn.append(plots.groups(bars, title=f"recall@{k}, with intervals"))
        parts.append(section(title, beside(*drawn), _segment_table(found, rankings), about=about))
    return "".join(parts)


def _activity(segment: Mapping[str, Any]) -> str:
    return "cold: none" if segment["high"] == 0 else str(segment["name"])


def _range(found: Mapping[str, Any], k: str) -> Range | None:
    value = found["recall"][k]
    return None if value is None else Range(value, *(_interval(found, "recall", k) or (value, value)))


def _segment_table(found: Sequence[tuple[str, Mapping[str, Any]]], rankings: Mapping[str, Any]) -> str:
    head = [words(""), number("wanted"), number("users"), words("ranking")]
    head += [number(f"recall@{k}") for k in SEGMENT_AT]
    rows, styles = [], []
    for name, segment in found:
        of_items = f" <small>{segment['items']:,} items</small>" if "items" in segment else ""
        facts = [Cell(escape(name) + of_items), number(f"{segment['interactions']:,}")]
        if not segment["users"]:
            rows.append([*facts, number(0), words("nobody"), *(number("–") for _ in SEGMENT_AT)])
            styles.append("first")
            continue
        for place, of in enumerate(_ours_first(rankings)):
            own = segment[of]
            row = [*(facts if not place else [words(""), number("")]), number(f"{own['users']:,}"), words(NAMES[of])]
            rows.append([*row, *(_ranged(own, "recall", str(k), " ") for k in SEGMENT_AT)])
            styles.append("" if place else "first")
    return table(head, rows, styles)


def _exposure(report: Mapping[str, Any], rankings: Mapping[str, Any]) -> str:
    rows, found = [], [rankings[name] for name in _ours_first(rankings)]
    for measure, what, show in (
        ("coverage", "share of the catalogue shown to somebody, first {}", "{:.1%}"),
        ("gini", "unevenness (Gini), first {}", "{:.3f}"),
        ("head_share", "share of what is shown that is head, first {}", "{:.1%}"),
        ("mean_popularity", "interactions of what is shown, on average, first {}", "{:,.0f}"),
        ("long_tail_recall", "recall of wanted tail items, first {}", "{:.4f}"),
    ):
        for k in report["exposure"][measure]:
            values = [ranking["exposure"][measure][k] for ranking in found]
            rows.append([words(what.format(k)), *(number("–" if v is None else show.format(v)) for v in values)])
    lists = [number(f"{ranking['exposure']['lists']:,}") for ranking in found]
    head = [words(""), *(number(NAMES[name]) for name in _ours_first(rankings))]
    return section(
        "What is shown",
        table(head, [[words("lists"), *lists], *rows]),
        about="A loop that shows what is popular makes it more so. Coverage grows with the number of lists.",
    )


def _notes(report: Mapping[str, Any]) -> str:
    notes = [f"Left out: {NAMES[name]}, because {reason}." for name, reason in report["left_out"].items()]
    if "content" in report and report["content"]["users"] < report["users"]:
        notes.append(f"Content only is judged on a sample of {report['content']['users']:,} users, the others on all.")
    if report["users_without_list"]:
        notes.append(
            f"{report['users_without_list']:,} of the users were unknown before the judged part: there would have been"
            " no list for them, and they are judged on what was popular with everybody then."
        )
    if "previous" in report:
        before = report["previous"]
        notes.append(
            f"The version before is {before['version']}, made from data up to {_moment(before['made_at'])};"
            f" {before['users_without_list']:,} of the users had no list in it and are judged on its popular items."
        )
    told = "".join(f"<p>{escape(note)}</p>\n" for note in notes)
    listed = "".join(f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>\n" for word, meaning in WORDS)
    return section("Notes", told, f"<dl>{listed}</dl>\n")
