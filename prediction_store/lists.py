"""The lists that are nobody's own, popular and trending by segment: one msgpack document, read whole at opening."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgpack
import numpy as np

from prediction_store.errors import BuildError, DamagedVersionError
from schemas.record import RankedItems

KINDS: Final = ("popular", "trending")
EVERYBODY: Final = ""
"""The segment of everybody; each kind has a list for it."""
NO_ITEMS: Final = RankedItems(np.empty(0, np.uint32), np.empty(0, np.float32))


class SegmentLists:
    """The popular and trending lists of one version."""

    def __init__(self, lists: Mapping[str, Mapping[str, RankedItems]]) -> None:
        self._lists = lists

    @property
    def segments(self) -> list[str]:
        """The segments that have a popular list, in the order that `users/segments.npy` numbers them."""
        return segment_names(self._lists["popular"])

    def has_segment(self, segment: str) -> bool:
        """True when the segment has a popular list of its own; "" is everybody."""
        return segment in self._lists["popular"]

    def ranked(self, kind: str, segment: str) -> RankedItems:
        """The segment's list of a kind, else everybody's, else an empty one."""
        of_kind = self._lists[kind]
        found = of_kind.get(segment)
        return found if found is not None else of_kind.get(EVERYBODY, NO_ITEMS)


def segment_names(popular: Iterable[str]) -> list[str]:
    """Everybody's, "", and then the segments with a popular list in byte order."""
    return [EVERYBODY, *sorted(set(popular) - {EVERYBODY}, key=lambda name: name.encode("utf-8", "surrogatepass"))]


def encode_lists(popular: Mapping[str, RankedItems], trending: Mapping[str, RankedItems], n_items: int) -> bytes:
    """The bytes of lists/lists.msgpack; equal lists give equal bytes.

    Raises:
        BuildError: an item is not of the catalogue, or stands twice, or a score is not finite.
    """
    document = {}
    for kind, lists in zip(KINDS, (popular, trending), strict=True):
        for segment, ranked in lists.items():
            _check(f"the {kind} list of {segment or 'everybody'}", ranked, n_items)
        document[kind] = {segment: _packed(lists[segment]) for segment in sorted(lists)}
    packed: bytes = msgpack.packb(document, use_bin_type=True)
    return packed


def decode_lists(data: bytes, n_items: int) -> SegmentLists:
    """The lists in the bytes of lists/lists.msgpack.

    Raises:
        DamagedVersionError: they are not such lists.
    """
    try:
        document = msgpack.unpackb(data, raw=False, strict_map_key=True)
        lists = {kind: {segment: _unpacked(*pair) for segment, pair in document[kind].items()} for kind in KINDS}
    except (ValueError, TypeError, KeyError, AttributeError, msgpack.exceptions.UnpackException) as error:
        raise DamagedVersionError(f"lists/lists.msgpack: {error!r}") from error
    for of_kind in lists.values():
        for ranked in of_kind.values():
            if ranked.items.size and int(ranked.items.max()) >= n_items:
                raise DamagedVersionError(f"lists/lists.msgpack: item {ranked.items.max()} of {n_items}")
    return SegmentLists(lists)


def _check(what: str, ranked: RankedItems, n_items: int) -> None:
    items, scores = np.asarray(ranked.items), np.asarray(ranked.scores)
    if items.ndim != 1 or items.shape != scores.shape:
        raise BuildError(f"{what} has {items.shape} items and {scores.shape} scores")
    if items.size == 0:
        return
    if int(items.min()) < 0 or int(items.max()) >= n_items or np.unique(items).size != items.size:
        raise BuildError(f"{what} has an item twice, or one beyond the catalogue of {n_items}")
    if not bool(np.isfinite(scores).all()):
        raise BuildError(f"{what} has a score that is not finite")


def _packed(ranked: RankedItems) -> list[bytes]:
    return [np.asarray(ranked.items).astype("<u4").tobytes(), np.asarray(ranked.scores).astype("<f4").tobytes()]


def _unpacked(items: bytes, scores: bytes) -> RankedItems:
    ranked = RankedItems(np.frombuffer(items, "<u4").astype(np.uint32), np.frombuffer(scores, "<f4").astype(np.float32))
    if ranked.items.shape != ranked.scores.shape:
        raise ValueError(f"{ranked.items.size} items and {ranked.scores.size} scores")
    return ranked
