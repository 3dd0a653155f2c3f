"""Lists as the version has them, without a session: items like another, popular ones, trending ones, those of a user.

All but the last are meant to be shown: they leave out what is sold out or hidden now, and what the rules of the
placements `similar`, `popular` and `trending` exclude or do not include. There is no score to boost, and nothing is
pinned. A user's list is given as it is stored, for people who inspect it.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from prediction_store.ttl import freshness_of
from reranker.arrays import Float32, Indexes
from reranker.errors import InvalidFieldError, UnknownItemError, UnknownUserError
from reranker.requests import check_id
from schemas.config import Store
from schemas.messages import ListAnswer, ListedItem
from schemas.record import RankedItems
from schemas.serving_config import Serve

if TYPE_CHECKING:
    from prediction_store.live_view import LiveView
    from prediction_store.reader import Version
    from reranker.rules import Rules


def similar(
    version: Version, live: LiveView, rules: Rules, item: str, *, k: int, settings: Store, now: float
) -> ListAnswer:
    """The items nearest to an item. Raises UnknownItemError."""
    check_id("item", item)
    index = version.item_index(item)
    if index is None:
        raise UnknownItemError(f"item {item[:100]!r} is not in version {version.name}", field="item")
    return shown(version, live, rules.at("similar"), version.neighbours(index), k=k, settings=settings, now=now)


def shown(
    version: Version, live: LiveView, rules: Rules, ranked: RankedItems, *, k: int, settings: Store, now: float
) -> ListAnswer:
    """What may be shown of a list of the version, by the rules of its placement."""
    may = live.eligible(ranked.items, now)
    is_allowed = rules.effects(partial(live.column, version), ranked.items, kept=live.kept).is_allowed
    may = may if is_allowed is None else may & is_allowed
    age = freshness_of(version.manifest.made_at, version.manifest.expires_at, now, settings).age_seconds
    return _listed(version, ranked.items[may], ranked.scores[may], k, age)


def stored(version: Version, user: str, *, k: int, settings: Store, now: float) -> ListAnswer:
    """The user's list. Raises UnknownUserError; DamagedRecordError and ShardNotHeldError as `Version.read` does."""
    check_id("user", user)
    candidates = version.read(user)
    if candidates is None:
        raise UnknownUserError(f"there is no list of this user in version {version.name}", field="user")
    fresh = freshness_of(candidates.made_at, version.manifest.expires_at, now, settings)
    return _listed(version, candidates.items, candidates.scores, k, fresh.age_seconds)


def read_k(k: int | str | None, serve: Serve) -> int:
    """The number of items that is asked for, by default `serve.default_k`.

    Raises InvalidFieldError when it is not from 1 to `serve.max_k`.
    """
    if k is None:
        return serve.default_k
    text, most = str(k), serve.max_k
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= most):
        raise InvalidFieldError(f"`k` is {text[:20]!r}, wanted 1 to {most}", field="k")
    return int(text)


def _listed(version: Version, items: Indexes, scores: Float32, k: int, age_seconds: int) -> ListAnswer:
    rounded = np.round(scores[:k].astype(np.float64), 6).tolist()
    listed = [
        ListedItem(item=item, score=score) for item, score in zip(version.item_ids(items[:k]), rounded, strict=True)
    ]
    return ListAnswer(items=listed, version=version.name, age_seconds=age_seconds)
