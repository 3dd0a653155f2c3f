"""Live facts about items, over HTTP: change some, and tell those of one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from prediction_store.item_now import item_now
from reranker.errors import InvalidFieldError, UnknownItemError
from reranker.recommend import Clock
from reranker.requests import at_most, check_id, decode_body
from schemas.live_items import MAX_UNKNOWN, ItemChange, ItemChanges, ItemChangesAnswer, ItemNow
from schemas.serving_config import Serve

if TYPE_CHECKING:
    from prediction_store.live_items import LiveItems
    from prediction_store.reader import Store

BYTES_PER_CHANGE: Final = 5 * 1024
"""Of the longest, in UTF-8."""
_DECODER: Final = msgspec.json.Decoder(ItemChanges)


def max_body_bytes(serve: Serve) -> int:
    """How long the body of a change may be."""
    return max(serve.max_body_bytes, serve.max_item_changes * BYTES_PER_CHANGE)


def decode_changes(body: bytes, serve: Serve) -> list[ItemChange]:
    """The changes in a body; raises MalformedBodyError or InvalidFieldError."""
    changes = decode_body(body, _DECODER).items
    at_most("items", len(changes), serve.max_item_changes)
    for place, change in enumerate(changes):
        check_id(f"items[{place}].item", change.item)
        if change.is_empty:
            field = f"items[{place}]"
            raise InvalidFieldError(f"`{field}` says nothing about the item", field=field)
    return changes


async def change_items(live: LiveItems, store: Store, changes: list[ItemChange], now: float) -> ItemChangesAnswer:
    """Make the changes durable, then say what they were; raises LiveItemsError when that cannot be done."""
    # In a thread: the sync takes milliseconds, and other requests go on meanwhile.
    changed = await asyncio.to_thread(live.set, changes, now=now)
    items = list(dict.fromkeys(change.item for change in changes))
    return ItemChangesAnswer(changed=len(changed), unknown=_unknown(store, items))


def read_item(live: LiveItems, store: Store, item: str, now: Clock) -> ItemNow:
    """What is known of one item now; raises UnknownItemError, or LiveItemsError when its facts are damaged."""
    facts = live.get(item)
    if store.is_ready:
        with store.acquire() as version:
            found = item_now(item, facts, version, now())
    else:
        found = item_now(item, facts, None, now())
    if found is None:
        raise UnknownItemError(f"nothing is known of item {item[:64]!r}", field="item")
    return found


def _unknown(store: Store, items: list[str]) -> list[str]:
    if not store.is_ready:
        return items[:MAX_UNKNOWN]
    with store.acquire() as version:
        indexes = version.indexes_of(items)
    return [item for item, index in zip(items, indexes, strict=True) if index is None][:MAX_UNKNOWN]
