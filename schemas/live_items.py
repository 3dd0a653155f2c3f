"""Facts about items that change within the day: what a change says, what is stored, and what is answered.

A fact that is not set is "as the version says": there `in_stock` and `price` are columns, nothing is hidden and nothing
expires. What an item is (title, category, brand) is the version's to say; facts say it where the version does not.
Times are UTC epoch seconds.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from schemas.messages import EpochSeconds, Id, Message

LIVE_ITEMS_FORMAT: Final = 1
"""Of the store of live facts. Raised by a change that an older reader would get wrong."""
TEXTS: Final = ("title", "category", "brand")
"""What an item is, until a version has it."""
FACTS: Final = ("in_stock", "hidden", "price", "available_until", *TEXTS)

MAX_UNKNOWN: Final = 100
"""Items that are named in an answer because the version does not have them."""

Price = Annotated[float, Meta(ge=0.0, le=1e12, description="0 or more, in the currency of the catalogue")]
Title = Annotated[str, Meta(min_length=1, max_length=500)]
Value = Annotated[str, Meta(min_length=1, max_length=200)]
"""Of a category or brand."""
EARLIEST_END: Final = 1e9
"""The least that `available_until` takes, a time in 2001. Otherwise the day 20261122 would be a time in 1970."""
EndSeconds = Annotated[
    float,
    Meta(
        ge=EARLIEST_END,
        le=99_999_999_999.0,
        description="UTC epoch seconds (a day such as 20261122 is refused as too small, milliseconds as too large)",
    ),
]


class ItemFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is set for one item."""

    changed_at: float
    """When the facts were last changed."""
    in_stock: bool | UnsetType = UNSET
    hidden: bool | UnsetType = UNSET
    price: Price | UnsetType = UNSET
    available_until: EpochSeconds | UnsetType = UNSET
    title: str | UnsetType = UNSET
    category: str | UnsetType = UNSET
    brand: str | UnsetType = UNSET


NOTHING_SET: Final = ItemFacts(changed_at=0.0)


class ItemChange(Message, frozen=True):
    """Set some facts of an item. Null clears one, so that the version's holds again; an absent one stays."""

    item: Id
    in_stock: bool | UnsetType | None = UNSET
    hidden: bool | UnsetType | None = UNSET
    """Not shown, whatever its stock."""
    price: Price | UnsetType | None = UNSET
    available_until: EndSeconds | UnsetType | None = UNSET
    """Not shown from then on."""
    title: Title | UnsetType | None = UNSET
    """What it is called, until a version has the item and says so itself."""
    category: Value | UnsetType | None = UNSET
    """What rules and caps go by, likewise."""
    brand: Value | UnsetType | None = UNSET
    """As the category."""

    @property
    def is_empty(self) -> bool:
        """True when it says nothing about the item."""
        return all(getattr(self, fact) is UNSET for fact in FACTS)


class ItemChanges(Message, frozen=True):
    """Change facts of some items, all or none. Changes are applied in their order, also those of one item."""

    items: Annotated[list[ItemChange], Meta(min_length=1)]


class ItemChangesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What has been changed: durably, and for the next request to any worker."""

    changed: int
    """Items whose facts are other than before."""
    unknown: list[str]
    """Items that the version served now does not have, at most 100 of them. Their facts are kept for a later one."""


Source = Literal["live", "version", "none"]


class FlagNow(msgspec.Struct, frozen=True, kw_only=True):
    """A fact that is true or false, as it is now."""

    value: bool | None
    source: Source
    """live: set within the day; version: a column of the version; none: nobody has said anything."""


class NumberNow(msgspec.Struct, frozen=True, kw_only=True):
    """A fact that is a number, as it is now."""

    value: float | None
    source: Source
    """live: set within the day; version: a column of the version; none: nobody has said anything."""


class TextNow(msgspec.Struct, frozen=True, kw_only=True):
    """A fact that is a text, as it is now."""

    value: str | None
    source: Source
    """version: a column of the version, which has the item; live: set within the day, and it does not say so; none:
    nobody has said anything."""


class ItemNow(msgspec.Struct, frozen=True, kw_only=True):
    """The facts about one item as they are now, and where each comes from."""

    item: str
    is_shown: bool
    """Answers may show it: it is in the version, in stock, not hidden and still available."""
    is_arrival: bool
    """The version lacks it, and it is announced: in stock, not hidden and still available. Answers may show it when
    users want it, see `serve.arrivals`."""
    version: str | None
    """The version that is served, if it has the item."""
    in_stock: FlagNow
    hidden: FlagNow
    price: NumberNow
    available_until: NumberNow
    title: TextNow
    category: TextNow
    brand: TextNow
    changed_at: float | None
    """When a live fact was last changed; null: none is set."""


def change_facts(before: ItemFacts | None, change: ItemChange, now: float) -> ItemFacts | None:
    """The facts after a change; `before` itself when nothing differs; None: nothing is set any more."""
    facts = {fact: UNSET if before is None else getattr(before, fact) for fact in FACTS}
    for fact in FACTS:
        wanted = getattr(change, fact)
        if wanted is not UNSET:
            facts[fact] = UNSET if wanted is None else wanted
    if all(value is UNSET for value in facts.values()):
        return None
    if before is not None and all(getattr(before, fact) == facts[fact] for fact in FACTS):
        return before
    return ItemFacts(changed_at=now, **facts)
