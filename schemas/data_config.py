"""The settings of your own data: the tables and how to read them, how they are split, and the shop that stands in."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated, Literal

from msgspec import Meta, field

from schemas.section import Count, Days, EventWeight, Name, Positive, Section, Share

CONSUMED = ["purchase"]
Day = Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$", examples=["2026-01-31"])]


class Simulate(Section, frozen=True):
    """The embedded shop that stands in for your own data."""

    output: Name = "data/shop"
    """Folder that receives `interactions/date=…`, `items/date=…` and `users/date=…`."""
    seed: Count = 20261122
    start_day: Day = "2026-01-01"
    """The shop's first day."""
    days: Days = 30
    """Days of history that `simulate` writes when no single day is asked for."""
    users: Positive = 20_000
    """Users at the end of the first day; more arrive every day."""
    items: Positive = 5_000
    """Items on sale at the end of the first day; more are released every day."""
    events_per_day: Positive = 34_000
    """Mean number of events a day (30 days: about one million)."""
    new_users_share: Share = 0.004
    """Users that arrive each day, as a share of `users`."""
    new_items_share: Share = 0.003
    """Items released each day, as a share of `items`."""

    def __post_init__(self) -> None:
        try:
            date.fromisoformat(self.start_day) + timedelta(days=self.days)
        except (ValueError, OverflowError):
            raise ValueError(f"start_day {self.start_day} is not a day that a shop can open on") from None


class Interactions(Section, frozen=True):
    """The table of interactions: who did what with which item, and when."""

    path: Name = "data/shop/interactions"
    """A file, a folder (date=YYYY-MM-DD partitions are understood) or a glob."""
    format: Literal["auto", "parquet", "csv", "recbole"] = "auto"
    """csv covers .csv and .csv.gz; recbole is the tab-separated atomic file (.inter)."""
    user: Name = "user_id"
    item: Name = "item_id"
    time: Name = "timestamp"
    time_unit: Literal["auto", "seconds", "milliseconds", "iso"] = "auto"
    event: str = "event"
    """Column of the event type; empty when every row is the same event, `default_event`."""
    default_event: Name = "view"
    session: str = "session_id"
    """Column of the session; empty when there is none. The default may be absent from the file, another name not."""
    device: str = "device"
    """Column of the device; likewise."""
    event_weights: dict[str, EventWeight] = field(default_factory=lambda: {"view": 1.0, "cart": 3.0, "purchase": 5.0})
    """How much one event of each type says about taste. With weight 0 it says nothing: lists are neither learned from
    it nor judged by it. An event type that is not listed is rejected."""
    consumed_events: list[str] = field(default_factory=CONSUMED.copy)
    """Events after which an item is not recommended to that user again (see `retrieve.consumed`)."""
    serving_log: str = ""
    """Folder of a serving log (`paths.events` of the servers, or a copy) whose events are read as interactions, too.
    Impressions and event types without a weight are left out. Empty: no log is read."""

    def __post_init__(self) -> None:
        if self.consumed_events == CONSUMED:  # the default need not suit the table
            return
        for name in self.consumed_events:
            if name not in self.event_weights:
                raise ValueError(
                    f"consumed_events names {name!r} and event_weights does not: such rows are rejected, and nothing is"
                    " consumed by them; give it a weight, 0 maybe"
                )


class Items(Section, frozen=True):
    """The catalogue. Every column but the id may be missing: name it "", or leave it out of the file where the name is
    the default."""

    path: str = "data/shop/items"
    """Empty: the catalogue is whatever the interactions mention. With date partitions, the newest up to the day."""
    format: Literal["auto", "parquet", "csv", "recbole"] = "auto"
    item: Name = "item_id"
    title: str = "title"
    category: str = "category"
    brand: str = "brand"
    price: str = "price"
    released: str = "released"
    """Day or time of release; gives an item its age."""
    stock: str = "stock"
    """A number; 0 or less means out of stock, and so does a text that is not a number. Missing means in stock. Where
    there is this column, an item that only the interactions know is out of stock, too."""


class Users(Section, frozen=True):
    """What is known of users apart from what they did."""

    path: str = "data/shop/users"
    """Empty: the users are whatever the interactions mention."""
    format: Literal["auto", "parquet", "csv", "recbole"] = "auto"
    user: Name = "user_id"
    columns: list[str] = field(default_factory=lambda: ["country", "age_group"])
    """Categorical columns the user tower reads."""
    segment: str = "country"
    """Column whose values get popular and trending lists of their own; empty for none."""


class Data(Section, frozen=True):
    """Your own data: three tables and how to read them."""

    interactions: Interactions = field(default_factory=Interactions)
    items: Items = field(default_factory=Items)
    users: Users = field(default_factory=Users)
    max_rejected_share: Share = 0.05
    """`prepare` stops when more than this share of a table's rows is malformed."""
    history_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    """Interactions older than this many days before the run's day are not read. 0: all of them."""
    min_user_interactions: Count = 0
    """k-core: users with fewer interactions are left out, repeatedly with the item limit. 0: no filter."""
    min_item_interactions: Count = 0
    """k-core: items with fewer interactions lose their interactions (never their place in the catalogue)."""


class Split(Section, frozen=True):
    """Which interactions train, which choose the epoch, which judge."""

    strategy: Literal["time", "per_user"] = "time"
    """`time`: the last days are held out. `per_user`: each user's last interactions are."""
    validation_days: Days = 1
    test_days: Days = 1
    validation_per_user: Positive = 1
    """Interactions held out per user, with `per_user`."""
    test_per_user: Positive = 1
