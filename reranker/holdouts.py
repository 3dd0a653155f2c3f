"""Holdouts: a few users who are answered by less than there is, so that it can be measured what the rest is worth."""

from __future__ import annotations

import hashlib

from reranker.fallbacks import POPULAR, STORED_ORDER
from schemas.serving_config import Holdouts

NOBODY = ""
"""The holdout of all other users."""
_POINTS = 1 << 64


def holdout_of(user: str, shares: Holdouts) -> str:
    """The holdout that the user is in, named by the rung that answers there: `stored_order` or `popular`, or NOBODY.

    A user's id alone decides, on each host and in each version. Whoever is in one stays in it while its share grows.
    """
    if not (shares.stored_order or shares.popular):
        return NOBODY
    drawn = hashlib.blake2b(user.encode(errors="surrogatepass"), digest_size=8, person=b"holdout").digest()
    point = int.from_bytes(drawn, "big") / _POINTS
    # From both ends, so that one may grow without touching the other.
    if point < shares.popular:
        return POPULAR
    return STORED_ORDER if point >= 1.0 - shares.stored_order else NOBODY
