"""Your columns, of whatever type, as the values Shortlist works with: Spark expressions, no data touched.

Ids become text exactly. Times become UTC epoch seconds. What cannot be read becomes null; `prepare` decides what that
means. `name` is what an error calls the column.
"""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.datasets import DAY_SECONDS
from jobs.errors import SourceError

MAX_ID_BYTES = 511
MILLISECONDS_FROM = 1e11
"""A number from here on is milliseconds: as seconds it would lie after the year 5138, as milliseconds in 1973."""
END_OF_TIME = 1e11

_NUMBER = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$"
_ISO = (
    r"^(\d{4}-\d{2}-\d{2})"
    r"(?:[T ](\d{2}:\d{2})(:\d{2})?(?:[.,]\d+)?)?"
    r" ?(?:([Zz]|UTC)|([+-]\d{2})(?::?(\d{2}))?)?$"
)


def identifier(column: Column, kind: T.DataType, name: str) -> Column:
    """An id as text: text as it is, integers of any size digit by digit.

    Raises:
        SourceError: another type. A float cannot tell all ids above 2^53 apart, and 7.0 is not 7.
    """
    if isinstance(kind, T.StringType):
        return column
    if isinstance(kind, T.IntegralType) or (isinstance(kind, T.DecimalType) and kind.scale == 0):
        return column.cast("string")
    raise SourceError(
        f"the id column {name} is {kind.simpleString()}; wanted text or integers",
        hint="write the ids as text or integers, which pandas makes of numbers by astype('Int64'): other types cannot "
        "be compared exactly",
    )


def identifier_fault(text: Column, noun: str) -> Column:
    """Why an id is malformed; null when it is fit."""
    return (
        F.when(text.isNull() | (text == ""), f"the {noun} is missing")
        .when(F.octet_length(text) > MAX_ID_BYTES, f"the {noun} is longer than {MAX_ID_BYTES} bytes")
        # A CSV reader puts U+FFFD where the bytes were not UTF-8: two ids could become one.
        .when(~F.is_valid_utf8(text) | F.contains(text, F.lit("\ufffd")), f"the {noun} is not UTF-8")
    )


def seconds(column: Column, kind: T.DataType, unit: str, name: str) -> Column:
    """A time as UTC epoch seconds, rounded down; null when it is none, or before 1970.

    `unit` is one of auto, seconds, milliseconds, iso. A time without an offset is UTC.

    Raises:
        SourceError: the column is neither text, number, date nor timestamp.
    """
    if isinstance(kind, T.TimestampType | T.TimestampNTZType):  # the session's time zone is UTC
        found = F.unix_seconds(column.cast("timestamp"))
    elif isinstance(kind, T.DateType):
        found = F.unix_date(column).cast("long") * DAY_SECONDS
    elif isinstance(kind, T.NumericType):
        found = _scaled(column.cast("double"), unit)
    elif isinstance(kind, T.StringType):
        text = F.trim(column)
        number = F.when(text.rlike(_NUMBER), text).try_cast("double")
        found = _iso(text) if unit == "iso" else _scaled(number, unit)
        if unit == "auto":
            found = F.coalesce(found, _iso(text))
    else:
        raise SourceError(f"the time column {name} is {kind.simpleString()}; wanted text, number, date or timestamp")
    return F.when((found >= 0) & (found < END_OF_TIME), found).cast("long")


def _scaled(number: Column, unit: str) -> Column:
    """Seconds as double; null for NaN and infinities, which fail both comparisons."""
    whole = F.when((number >= 0) & (number < END_OF_TIME * 1000), number)
    if unit == "iso":
        return F.lit(None).cast("double")
    in_seconds = F.floor(whole)
    in_milliseconds = F.floor(whole / 1000)
    if unit == "auto":
        return F.when(whole >= MILLISECONDS_FROM, in_milliseconds).otherwise(in_seconds)
    return in_seconds if unit == "seconds" else in_milliseconds


def _iso(text: Column) -> Column:
    """Built anew from its parts: Spark's own cast also takes "2020" or "T12:30", the latter as a time of today."""

    def part(group: int) -> Column:
        return F.regexp_extract(text, _ISO, group)

    def or_else(group: int, default: str) -> Column:
        return F.when(part(group) == "", default).otherwise(part(group))

    offset = F.when(part(5) == "", F.lit("Z")).otherwise(F.concat(part(5), F.lit(":"), or_else(6, "00")))
    whole = F.concat(part(1), F.lit("T"), or_else(2, "00:00"), or_else(3, ":00"), offset)
    return F.unix_seconds(F.when(text.rlike(_ISO), whole).try_cast("timestamp"))


def text(column: Column, kind: T.DataType, name: str, *, first: bool = False) -> Column:
    """Any value as text, "" when it is missing. A list is joined by spaces, or gives its `first` entry.

    Raises:
        SourceError: the column is neither text, number nor a list of these.
    """
    inner = kind.elementType if isinstance(kind, T.ArrayType) else kind
    if isinstance(inner, T.StructType | T.MapType | T.BinaryType | T.ArrayType):
        raise SourceError(f"the column {name} is {kind.simpleString()}; wanted text, a number or a list of them")
    if isinstance(kind, T.ArrayType):
        parts = F.array_compact(column.cast("array<string>"))
        column = F.get(parts, F.lit(0)) if first else F.array_join(parts, " ")
    return F.coalesce(F.make_valid_utf8(column.cast("string")), F.lit(""))


def number(column: Column, kind: T.DataType) -> Column:
    """A number as double, a boolean as 1 or 0; null when it is neither, or not finite."""
    if isinstance(kind, T.BooleanType):
        return column.cast("int").cast("double")
    if isinstance(kind, T.NumericType):
        value = column.cast("double")
    else:
        trimmed = F.trim(column.cast("string"))
        value = F.coalesce(trimmed.try_cast("double"), trimmed.try_cast("boolean").cast("int").cast("double"))
    return F.when(F.abs(value) < float("inf"), value)
