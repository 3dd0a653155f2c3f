"""The facts about one item as they are now, and where each comes from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from msgspec import UNSET

from schemas.live_items import NOTHING_SET, TEXTS, FlagNow, ItemFacts, ItemNow, NumberNow, TextNow

if TYPE_CHECKING:
    from prediction_store.version import Version


def item_now(item: str, facts: ItemFacts | None, version: Version | None, now: float) -> ItemNow | None:
    """What is known of an item; None: neither the live facts nor the version, if there is one, have it."""
    index = None if version is None else version.item_index(item)
    if facts is None and index is None:
        return None
    live = NOTHING_SET if facts is None else facts
    in_stock, price = FlagNow(value=None, source="none"), NumberNow(value=None, source="none")
    if version is not None and index is not None:
        in_stock = FlagNow(value=bool(version.in_stock[index]), source="version")
        # By its text: a column of float32 has 19.989999771118164 for 19.99.
        prices = version.numbers("price")
        found = math.nan if prices is None else float(str(prices[index]))
        price = NumberNow(value=None if math.isnan(found) else found, source="version")
    if live.in_stock is not UNSET:
        in_stock = FlagNow(value=live.in_stock, source="live")
    if live.price is not UNSET:
        price = NumberNow(value=live.price, source="live")
    hidden = FlagNow(value=False, source="none")
    if live.hidden is not UNSET:
        hidden = FlagNow(value=live.hidden, source="live")
    until = NumberNow(value=None, source="none")
    if live.available_until is not UNSET:
        until = NumberNow(value=live.available_until, source="live")
    is_there = bool(in_stock.value) and not hidden.value and (until.value is None or until.value > now)
    return ItemNow(
        item=item,
        is_shown=index is not None and is_there,
        is_arrival=version is not None and index is None and is_there,
        version=version.name if version is not None and index is not None else None,
        in_stock=in_stock,
        hidden=hidden,
        price=price,
        available_until=until,
        **{name: _text(name, live, version, index) for name in TEXTS},
        changed_at=None if facts is None else facts.changed_at,
    )


def _text(name: str, live: ItemFacts, version: Version | None, index: int | None) -> TextNow:
    """What the version says of an item; where it says nothing, the live facts."""
    column = None if version is None or index is None else version.texts(name)
    text = "" if column is None or index is None else column.texts([index])[0]
    told = getattr(live, name)
    if not text and told is not UNSET:
        return TextNow(value=told, source="live")
    return TextNow(value=text or None, source="none" if column is None else "version")
