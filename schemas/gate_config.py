"""The settings of the gates: two thresholds for each gate, under the gate's own name.

Beyond `warn` a gate warns and the version may still go live; beyond `fail` it refuses. The defaults follow one rule.
What can only be a mistake fails: users gone, empty lists, items that must not be shown, lists that are not the best.
What differs from one good night to the next, or from one machine to another, warns.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, field

from schemas.section import Amount, Section

OFF: Final = "off"
Limit = Amount | Literal["off"]
"""A threshold; "off": there is none."""


class AtLeast(Section, frozen=True):
    """The least that passes, and the least that only warns."""

    warn: Limit = OFF
    fail: Limit = OFF

    def __post_init__(self) -> None:
        _check(self.warn, self.fail, is_upper=False)


class AtMost(Section, frozen=True):
    """The most that passes, and the most that only warns."""

    warn: Limit = OFF
    fail: Limit = OFF

    def __post_init__(self) -> None:
        _check(self.warn, self.fail, is_upper=True)


def _least(warn: Limit, fail: Limit) -> AtLeast:
    return field(default_factory=lambda: AtLeast(warn=warn, fail=fail))


def _most(warn: Limit, fail: Limit) -> AtMost:
    return field(default_factory=lambda: AtMost(warn=warn, fail=fail))


class Gates(Section, frozen=True):
    """What a version must show before it may become current. `AtLeast` and `AtMost` say which side is the good one.

    What a gate should have measured and could not is beyond its thresholds. What has nothing to compare with passes.
    """

    sample_users: Annotated[int, Meta(ge=1, le=100_000)] = 1000
    """Users whose lists are looked at one by one: those of the lowest hash, so the same ones every night."""
    depth: Annotated[int, Meta(ge=1, le=1000)] = 100
    """How far down a list `overlap`, `rank_agreement`, `gini` and `popularity_share` look."""
    recall_at: Literal[20, 100, 1000] = 100
    """Length of the list whose recall is judged; NDCG is judged at 20."""

    users: AtLeast = _least(OFF, 1)
    """Users with a list."""
    items: AtLeast = _least(OFF, 1)
    """Items in the catalogue."""
    users_ratio: AtLeast = _least(0.95, 0.9)
    """Users with a list, against the current version. Users come and go by a few in a hundred."""
    items_ratio: AtLeast = _least(0.95, 0.9)
    """Items, against the current version."""
    users_kept: AtLeast = _least(0.95, 0.8)
    """Share of the current version's users, by a sample, who still have a list: as many users may be other users."""
    active_users: AtLeast = _least(0.999, 0.99)
    """Share of the users of the last 30 days who have a list. Whoever did something gets one, so nearly all."""
    list_length: AtLeast = _least(0.8, 0.5)
    """Mean length of a list, as a share of the lesser of `retrieve.candidates` and the catalogue."""
    short_lists: AtMost = _most(0.05, 0.5)
    """Share of sampled users whose list is not half as long as that. Who has consumed half of a small shop has one."""

    overlap: AtLeast = _least(0.3, 0.02)
    """Share of a list's first `depth` that was there before, in the worst segment. Night by night 0.5 to 0.8."""
    rank_agreement: AtLeast = _least(0.25, OFF)
    """Rank-biased overlap with the current version's lists, in the worst segment: as above, the top counting more."""
    score_drift: AtMost = _most(0.1, OFF)
    """Population stability index of the base scores; beyond 0.1 is usually called a shift, beyond 0.25 a large one."""

    coverage: AtLeast = _least(0.1, 0.05)
    """Share of the catalogue that is in the first 100 of at least one judged user."""
    coverage_ratio: AtLeast = _least(0.85, 0.7)
    """Coverage, against the current version."""
    gini: AtMost = _most(0.95, OFF)
    """Gini coefficient of how often items are in a sampled list: 0 all alike, 1 one item only."""
    popularity_share: AtMost = _most(0.3, OFF)
    """Share of the sampled lists that is among the most popular hundredth of the catalogue."""

    consumed: AtMost = _most(0, 0)
    """Share of sampled candidates that their user has consumed already: `retrieve` leaves out every one."""
    out_of_stock: AtMost = _most(0.2, 0.5)
    """Share of sampled candidates that are out of stock: the re-ranker leaves them out, and may run short."""
    ann_recall: AtLeast = _least(0.9, 0.8)
    """Share of the exact best items that sampled lists hold; `retrieve.min_recall` aims at 0.99."""

    recall: AtLeast = _least(0.01, 0)
    """Recall on held-out interactions. What is good depends on the data; 0 refuses only what was not measured."""
    recall_ratio: AtLeast = _least(0.9, 0.8)
    """Recall, against the current version. It is judged by other days, and they differ."""
    recall_vs_popularity: AtLeast = _least(1, OFF)
    """Recall, against that of the popularity order: a model that does not beat it is not worth its while."""
    ndcg: AtLeast = _least(0.001, 0)
    """NDCG at 20 on held-out interactions."""
    ndcg_ratio: AtLeast = _least(0.85, 0.7)
    """NDCG, against the current version; it moves more than recall."""

    ranker: AtMost = _most(OFF, 0)
    """Reasons why the weights do not fit: another embedding space, unknown signals, weights that are not numbers."""
    lookup_p99_us: AtMost = _most(5000, OFF)
    """99th percentile of the time to look up a sampled user, in microseconds. The machine may be doing other things."""


def _check(warn: Limit, fail: Limit, *, is_upper: bool) -> None:
    if warn == OFF or fail == OFF:  # noqa: PLR1714 in this form the type checker follows
        return
    if (warn > fail) if is_upper else (warn < fail):
        side = "above" if is_upper else "below"
        raise ValueError(f"warn {warn:g} is {side} fail {fail:g}: what is refused would never have warned; set both")
