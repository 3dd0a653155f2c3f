"""What changed between two versions, as a report for people and programs; `diff_page` and `diff_text` show it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from prediction_store.comparison import Codes, Comparison, Means
from prediction_store.sample import sample_users_of_both
from prediction_store.version import Version

BINS: Final = 20
"""Bars of a histogram of shares between 0 and 1."""
QUANTILES: Final = tuple(step / 20 for step in range(21))
TOP_ITEMS: Final = 15
SHOWN_PLACES: Final = 10


class DiffSide(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two versions, as its manifest says."""

    version: str
    made_at: int
    built_at: int
    users: int
    """With a list."""
    items: int
    list_items: int
    """Candidates in all lists."""
    bytes: int
    space_id: str
    config_digest: str
    shards: int


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """How a share between 0 and 1 is spread over the users who were compared."""

    mean: float
    p10: float
    p50: float
    p90: float
    histogram: list[int]
    """Users by share, in `BINS` equal steps from 0 to 1."""


class SegmentDiff(msgspec.Struct, frozen=True):
    """The users of one segment; "" is those of no segment with lists of its own."""

    segment: str
    users: int
    overlap: float
    rank_agreement: float


class ScoreDiff(msgspec.Struct, frozen=True, kw_only=True):
    """Base scores of the lists that were compared."""

    is_same_space: bool
    """The scores have a common unit."""
    drift: float | None
    """Population stability index; of the shapes only where the spaces differ; None: one side has no scores."""
    quantiles: list[float]
    a: list[float]
    """The scores at these quantiles; [] when there are none."""
    b: list[float]


class ItemDiff(msgspec.Struct, frozen=True, kw_only=True):
    """An item, and how many of the compared users have it among their first items."""

    item: str
    title: str
    a: int
    b: int


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One place of a user's list."""

    item: str
    title: str
    score: float
    other_place: int | None
    """Place in the other version's list, from 1; None: it is not among the first there."""


class UserDiff(msgspec.Struct, frozen=True, kw_only=True):
    """One user's first places in both versions."""

    user: str
    segment: str
    overlap: float
    rank_agreement: float
    a: list[Shown]
    b: list[Shown]


class DiffReport(msgspec.Struct, frozen=True, kw_only=True):
    """What changed from version `a` to version `b`, by a sample of users."""

    a: DiffSide
    b: DiffSide
    inputs_changed: list[str]
    """Input datasets that are not the same ones."""
    depth: int
    """How far down the lists were compared."""
    users_both: int
    """Sampled users with a record in both versions and a list in at least one: the rest is about them."""
    users_only_a: int
    users_only_b: int
    overlap: Spread | None
    """Share of the first places that is the same items; None: nobody could be compared."""
    rank_agreement: Spread | None
    """Rank-biased overlap."""
    segments: list[SegmentDiff]
    scores: ScoreDiff
    gained: list[ItemDiff]
    """Items that came into the most lists, most first."""
    lost: list[ItemDiff]
    users: list[UserDiff]
    """Some users side by side, from the one whose list changed most to the one whose list changed least."""


def diff(root: Path, a: str, b: str, *, users: int = 1000, depth: int = 100, shown: int = 5) -> DiffReport:
    """Compare two versions of a store by the lists of a sample of users.

    Cost: every byte of both versions is hashed, unless this process has done so; the rest is the sample's.

    Args:
        users: size of the sample. depth: how far down the lists are compared. shown: users side by side.

    Raises:
        MissingVersionError, DamagedVersionError, ForeignVersionError: one of them cannot be read.
    """
    with Version.open(root, a) as first, Version.open(root, b) as second:
        sample = sample_users_of_both(first, second, users)
        comparison = Comparison(first, second, sample, depth)
        has_a, has_b = ([version.read(user) is not None for user in sample] for version in (first, second))
        gained, lost = _items(comparison)
        inputs_a, inputs_b = first.manifest.inputs, second.manifest.inputs
        return DiffReport(
            a=_side(first),
            b=_side(second),
            inputs_changed=sorted(name for name in {*inputs_a, *inputs_b} if inputs_a.get(name) != inputs_b.get(name)),
            depth=depth,
            users_both=len(comparison.pairs),
            users_only_a=sum(here and not there for here, there in zip(has_a, has_b, strict=True)),
            users_only_b=sum(there and not here for here, there in zip(has_a, has_b, strict=True)),
            overlap=_spread(comparison.overlap),
            rank_agreement=_spread(comparison.rank_agreement),
            segments=[SegmentDiff(*means) for means in comparison.by_segment()],
            scores=_scores(comparison),
            gained=gained,
            lost=lost,
            users=[_user(comparison, place) for place in _some(comparison.overlap, shown)],
        )


def _side(version: Version) -> DiffSide:
    manifest = version.manifest
    return DiffSide(
        version=manifest.name,
        made_at=manifest.made_at,
        built_at=manifest.built_at,
        users=manifest.counts.lists,
        items=manifest.counts.items,
        list_items=manifest.counts.list_items,
        bytes=sum(facts.bytes for facts in manifest.files.values()),
        space_id=manifest.space_id,
        config_digest=manifest.config_digest,
        shards=manifest.shards,
    )


def _spread(values: Means) -> Spread | None:
    if not len(values):
        return None
    p10, p50, p90 = (float(value) for value in np.quantile(values, (0.1, 0.5, 0.9)))
    bins = np.minimum((values * BINS).astype(np.int64), BINS - 1)
    histogram = np.bincount(bins, minlength=BINS).tolist()
    return Spread(mean=float(values.mean()), p10=p10, p50=p50, p90=p90, histogram=histogram)


def _scores(comparison: Comparison) -> ScoreDiff:
    a, b = (
        [float(value) for value in np.quantile(scores, QUANTILES)] if len(scores) else []
        for scores in comparison.scores()
    )
    return ScoreDiff(
        is_same_space=comparison.is_same_space,
        drift=comparison.score_drift(),
        quantiles=list(QUANTILES),
        a=a,
        b=b,
    )


def _items(comparison: Comparison) -> tuple[list[ItemDiff], list[ItemDiff]]:
    """The items that were gained and lost most."""
    codes, before, after = comparison.counts()

    def most(change: npt.NDArray[np.int64]) -> list[ItemDiff]:
        order = np.argsort(-change, kind="stable")[:TOP_ITEMS]
        chosen = order[change[order] > 0]
        names = comparison.describe(codes[chosen])
        return [
            ItemDiff(item=item, title=title, a=a, b=b)
            for (item, title), a, b in zip(names, before[chosen].tolist(), after[chosen].tolist(), strict=True)
        ]

    return most(after - before), most(before - after)


def _some(overlap: Means, n: int) -> list[int]:
    """Places of at most n users, evenly from the least overlap to the most."""
    order = np.argsort(overlap, kind="stable")
    chosen = np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(np.int64)
    return [int(order[place]) for place in chosen]


def _user(comparison: Comparison, place: int) -> UserDiff:
    pair = comparison.pairs[place]
    return UserDiff(
        user=pair.user,
        segment=pair.segment,
        overlap=float(comparison.overlap[place]),
        rank_agreement=float(comparison.rank_agreement[place]),
        a=_shown(comparison, pair.items_before, pair.before.scores, pair.items_after),
        b=_shown(comparison, pair.items_after, pair.after.scores, pair.items_before),
    )


def _shown(comparison: Comparison, items: Codes, scores: npt.NDArray[np.float32], other: Codes) -> list[Shown]:
    place_of = {int(code): place for place, code in enumerate(other, 1)}
    first: Sequence[int] = items[:SHOWN_PLACES].tolist()
    return [
        Shown(item=item, title=title, score=float(score), other_place=place_of.get(code))
        for code, (item, title), score in zip(first, comparison.describe(first), scores[:SHOWN_PLACES], strict=True)
    ]
