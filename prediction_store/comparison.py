"""The lists of the same users in two versions, side by side: what the gates judge and `diff` shows.

Items are compared by id: the dense indexes of two versions have nothing to do with each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prediction_store.measures import overlap, population_stability, rank_biased_overlap, standardised
from prediction_store.sample import read_lists
from prediction_store.version import Version
from schemas.record import Candidates

Codes = npt.NDArray[np.int64]
Means = npt.NDArray[np.float64]


class Pair(NamedTuple):
    """One user's lists in both versions; at least one of them is not empty."""

    user: str
    segment: str
    """In the later version; "" when it has no lists of its own."""
    before: Candidates
    after: Candidates
    items_before: Codes
    """int64[≤ depth]: the first items, as codes of the comparison."""
    items_after: Codes


class SegmentMeans(NamedTuple):
    """The users of one segment."""

    segment: str
    users: int
    overlap: float
    rank_agreement: float


class Comparison:
    """Two versions by the lists of some users. An item has one code in both, whichever of them knows it."""

    def __init__(self, before: Version, after: Version, users: Iterable[str], depth: int) -> None:
        """Read the lists of those of the users who have a record in both versions.

        Args:
            depth: how far down the lists are compared.

        Raises:
            DamagedRecordError: a record is not as it was written.
        """
        self.before, self.after, self.depth = before, after, depth
        self.pairs = self._read(users)
        self.overlap: Means = np.array([overlap(pair.items_before, pair.items_after) for pair in self.pairs])
        """float64[pairs]"""
        self.rank_agreement: Means = np.array(
            [rank_biased_overlap(pair.items_before, pair.items_after) for pair in self.pairs]
        )
        """float64[pairs]"""

    def by_segment(self) -> list[SegmentMeans]:
        """The means of each segment, the one with the most users first."""
        rows: dict[str, list[int]] = {}
        for place, pair in enumerate(self.pairs):
            rows.setdefault(pair.segment, []).append(place)
        means = [
            SegmentMeans(segment, len(of), float(self.overlap[of].mean()), float(self.rank_agreement[of].mean()))
            for segment, of in rows.items()
        ]
        return sorted(means, key=lambda mean: (-mean.users, mean.segment))

    @property
    def is_same_space(self) -> bool:
        """True when the base scores of both versions come from the same embedding space."""
        return self.before.manifest.space_id == self.after.manifest.space_id

    def scores(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """All base scores of the lists, before and after; float32[n] each."""
        none = np.empty(0, np.float32)
        before = [pair.before.scores for pair in self.pairs]
        after = [pair.after.scores for pair in self.pairs]
        return np.concatenate([*before, none]), np.concatenate([*after, none])

    def score_drift(self) -> float | None:
        """The population stability index of the base scores; None: one side has no scores.

        Scores of two embedding spaces have no common unit: then only the shapes are compared.
        """
        before, after = (scores.astype(np.float64) for scores in self.scores())
        if not len(before) or not len(after):
            return None
        if not self.is_same_space:
            before, after = standardised(before), standardised(after)
        return population_stability(before, after)

    def counts(self) -> tuple[Codes, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(codes, before, after): int64[n] each: every item in a list, and how many lists it is in."""
        sides = [[pair.items_before for pair in self.pairs], [pair.items_after for pair in self.pairs]]
        codes, place = np.unique(np.concatenate([*sides[0], *sides[1], np.empty(0, np.int64)]), return_inverse=True)
        n_before = sum(map(len, sides[0]))
        before, after = (np.bincount(part, minlength=len(codes)) for part in (place[:n_before], place[n_before:]))
        return codes, before, after

    def describe(self, codes: npt.ArrayLike) -> list[tuple[str, str]]:
        """Id and title of some items, by code."""
        return [self._name(int(code)) for code in np.asarray(codes)]

    def _name(self, code: int) -> tuple[str, str]:
        version, index = (self.before, code) if code < self.before.n_items else (self.after, code - self.before.n_items)
        return version.item_ids([index])[0], version.titles([index])[0]

    def _read(self, users: Iterable[str]) -> list[Pair]:
        before = {sampled.user: sampled.candidates for sampled in read_lists(self.before, users)}
        after = read_lists(self.after, before)
        lists = [
            (user, before[user], candidates)
            for user, candidates in after
            if len(before[user].items) or len(candidates.items)
        ]
        code_of = self._codes([candidates.items[: self.depth] for _, _, candidates in lists])
        return [
            Pair(
                user,
                self.after.segment_of(new.user_row),
                old,
                new,
                old.items[: self.depth].astype(np.int64),
                code_of(new.items[: self.depth]),
            )
            for user, old, new in lists
        ]

    def _codes(self, lists: Sequence[npt.NDArray[np.uint32]]) -> Callable[[npt.NDArray[np.uint32]], Codes]:
        """A function from the later version's dense indexes to codes, for the items of some lists.

        An item of the earlier version has its dense index there as its code; the code of another one is behind all
        of these.
        """
        items = np.unique(np.concatenate([*lists, np.empty(0, np.uint32)]))
        known = self.before.indexes_of(self.after.item_ids(items))
        beyond = self.before.n_items + items.astype(np.int64)
        codes = np.array([new if old is None else old for old, new in zip(known, beyond, strict=True)], np.int64)
        return lambda wanted: codes[np.searchsorted(items, wanted)]
