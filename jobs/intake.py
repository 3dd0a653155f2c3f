"""Each of your three tables, row by row in Shortlist's terms: its values, and a `status` that says what becomes of it.

`status` is "" for a row that takes part, LATER or OLDER for one outside the run's time, and else the reason why the row
is malformed; then `raw` holds the row as JSON. `file` is the address of the file that the row is of.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.columns import identifier, identifier_fault, number, seconds, text
from jobs.source_rows import Rows
from schemas.data_config import Interactions, Items, Users
from schemas.errors import ConfigError

LATER, OLDER = "later", "older"
"""After the end of the run's day, or before its history begins: neither malformed nor part of the run."""
OF_THE_ROW = ("status", "file", "raw")
"""Of all three tables, beside what is kept of a row."""
UNREADABLE = ("unreadable_price", "unreadable_stock", "unreadable_released")
"""Of items, beside what is kept of them: text that was meant to be a number or a time, "" for one, null for nothing."""
_OPTIONAL = {
    "interactions": ("session", "device"),
    "items": ("title", "category", "brand", "price", "released", "stock"),
    "users": (),
}
"""Keys of columns that may be missing where they are called as they usually are."""
NO_WEIGHT = "the event type has no weight"
NO_TIME = "the time cannot be read, or is before 1970"
WRONG_WIDTH = "the row has the wrong number of columns"
LINES_IN_VALUE = "a value holds line breaks: a quote was not closed"
"""Said of the values of a CSV file that no name needs to break: the lines in one were rows."""


def interactions(rows: Rows, config: Interactions, made_at: int, since: int) -> DataFrame:
    """user_id, item_id, event, time, session_id, device, status, file, raw. Takes part: since <= time < made_at.

    Raises:
        SourceError: a column is missing, or of a type that cannot be read.
        ConfigError: `default_event` has no weight.
    """
    for key in ("user", "item", "time"):
        rows.require(key, getattr(config, key))
    if config.event:
        rows.require("event", config.event, 'set data.interactions.event, or to "" when all rows are default_event')
    elif config.default_event not in config.event_weights:
        raise ConfigError(
            f"data.interactions.default_event is {config.default_event!r}, which is not in event_weights: "
            + ", ".join(config.event_weights)
        )
    _require_named(rows, config)
    user = identifier(rows.column(config.user), rows.kind(config.user), rows.called(config.user))
    item = identifier(rows.column(config.item), rows.kind(config.item), rows.called(config.item))
    event = _optional(rows, config.event) if config.event else F.lit(config.default_event)
    time = seconds(rows.column(config.time), rows.kind(config.time), config.time_unit, rows.called(config.time))
    read = [getattr(config, key) for key in ("user", "item", "time", "event", "session", "device")]
    status = F.coalesce(
        F.when(rows.damaged.isNotNull(), WRONG_WIDTH),
        _lines_in(rows, *read),
        identifier_fault(user, "user id"),
        identifier_fault(item, "item id"),
        F.when(event.isNull(), "the event type is missing"),
        F.when(~event.isin(list(config.event_weights)), NO_WEIGHT),
        F.when(time.isNull(), NO_TIME),
        F.when(time >= made_at, LATER),
        F.when(time < since, OLDER),
        F.lit(""),
    )
    return _with_raw(
        rows,
        status,
        user_id=user,
        item_id=item,
        event=event,
        time=time,
        session_id=_optional(rows, config.session),
        device=_optional(rows, config.device),
    )


def items(rows: Rows, config: Items) -> DataFrame:
    """item_id, title, category, brand, price, released, in_stock, status, file, raw, and UNREADABLE.

    Only the id can make a row malformed.

    Raises:
        SourceError: the id column or one that the configuration names is missing, or of a type that cannot be read.
    """
    rows.require("item", config.item)
    _require_named(rows, config)
    item = identifier(rows.column(config.item), rows.kind(config.item), rows.called(config.item))
    price, unreadable_price = _number(rows, config.price)
    stock, unreadable_stock = _number(rows, config.stock)
    released, unreadable_released = _time(rows, config.released)
    return _with_raw(
        rows,
        _entity_status(rows, config.item, item, "item id"),
        item_id=item,
        title=_text(rows, config.title),
        # Of a list of genres, the first: a category is one value, that rules and vocabularies can count on.
        category=_text(rows, config.category, first=True),
        brand=_text(rows, config.brand, first=True),
        price=F.when(price >= 0, price),
        released=released,
        # An item that may be gone is not promised: of a stock that cannot be read nothing is known.
        in_stock=F.coalesce(stock > 0, unreadable_stock.isNull()),
        unreadable_price=unreadable_price,
        unreadable_stock=unreadable_stock,
        unreadable_released=unreadable_released,
    )


def users(rows: Rows, config: Users) -> DataFrame:
    """user_id, segment, features, status, file, raw. Only the id can make a row malformed.

    Raises:
        SourceError: a column is missing, or of a type that cannot be read.
    """
    rows.require("user", config.user)
    for column in config.columns:
        rows.require("columns", column)
    if config.segment:
        rows.require("segment", config.segment, 'set data.users.segment, or to "" for none')
    user = identifier(rows.column(config.user), rows.kind(config.user), rows.called(config.user))
    return _with_raw(
        rows,
        _entity_status(rows, config.user, user, "user id"),
        user_id=user,
        segment=_text(rows, config.segment),
        features=F.array(*[_text(rows, column) for column in config.columns]).cast("array<string>"),
    )


def missing(rows: Rows, config: Interactions | Items | Users) -> list[str]:
    """The optional columns that the table does not have, though the configuration does not say that there are none."""
    names = [getattr(config, key) for key in _OPTIONAL[rows.source.name]]
    return [name for name in names if name and not rows.has(name)]


def _require_named(rows: Rows, config: Interactions | Items) -> None:
    """Raise SourceError when an optional column is not there that somebody has given a name of its own."""
    usual = type(config)()
    for key in _OPTIONAL[rows.source.name]:
        name = getattr(config, key)
        if name not in ("", getattr(usual, key)):
            rows.require(key, name, f'set data.{rows.source.name}.{key}, or to "" for none', everywhere=False)


def _entity_status(rows: Rows, name: str, identity: Column, noun: str) -> Column:
    return F.coalesce(
        F.when(rows.damaged.isNotNull(), WRONG_WIDTH),
        _lines_in(rows, name),
        identifier_fault(identity, noun),
        F.lit(""),
    )


def _lines_in(rows: Rows, *names: str) -> Column:
    """LINES_IN_VALUE when one of the columns of a CSV file holds a line break, else null."""
    if rows.source.format != "csv":
        return F.lit(None).cast("string")
    read = [rows.column(name) for name in names if rows.has(name)]
    return F.when(F.concat_ws("", *read).contains("\n"), LINES_IN_VALUE)


def _with_raw(rows: Rows, status: Column, **columns: Column) -> DataFrame:
    named = [column.alias(name) for name, column in columns.items()]
    file = F.input_file_name().alias("file")
    found = rows.frame.select(*named, status.alias("status"), file, rows.raw.alias("_raw"))
    is_malformed = ~F.col("status").isin("", LATER, OLDER)
    return found.withColumn("raw", F.when(is_malformed, F.col("_raw"))).drop("_raw")


def _number(rows: Rows, name: str) -> tuple[Column, Column]:
    """(a number as float, null when there is none; what cannot be read as one: the text of it, "" of one that can, and
    null of an empty cell)."""
    if not rows.has(name):
        return F.lit(None).cast("float"), F.lit(None).cast("string")
    found = number(rows.column(name), rows.kind(name)).cast("float")
    found = F.when(F.abs(found) < float("inf"), found)  # float32 ends long before float64
    return found, _unreadable(rows, name, found)


def _time(rows: Rows, name: str) -> tuple[Column, Column]:
    """The same of a time in epoch seconds."""
    if not rows.has(name):
        return F.lit(None).cast("long"), F.lit(None).cast("string")
    found = seconds(rows.column(name), rows.kind(name), "auto", rows.called(name))
    return found, _unreadable(rows, name, found)


def _unreadable(rows: Rows, name: str, found: Column) -> Column:
    written = F.trim(text(rows.column(name), rows.kind(name), rows.called(name)))
    is_empty = F.lower(written).isin("", "nan")  # pandas writes NaN where nothing is
    return F.when(found.isNotNull(), "").when(~is_empty, F.substring(written, 1, 40))


def _optional(rows: Rows, name: str) -> Column:
    """Text, null when it is missing or empty."""
    if not rows.has(name):
        return F.lit(None).cast("string")
    value = text(rows.column(name), rows.kind(name), rows.called(name))
    return F.when(value != "", value)


def _text(rows: Rows, name: str, *, first: bool = False) -> Column:
    if not rows.has(name):
        return F.lit("")
    return text(rows.column(name), rows.kind(name), rows.called(name), first=first)
