"""What is odd about your tables and does not make a row malformed: `prepare` tells it in its line, or stops at it."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from jobs.errors import SourceError
from jobs.intake import UNREADABLE
from jobs.sources import Source
from schemas.data_config import Items

_FEW = 0.1  # a share of the items that are met


def of_items() -> list[Column]:
    """What `unreadable` wants to know of staged items: of numbers an example, and how many there are of both kinds."""
    examples = [F.max(name).alias(name) for name in UNREADABLE]
    counts = [F.count_if(F.col(name) != "").alias(f"n_{name}") for name in UNREADABLE]
    readable = [F.count_if(F.col(name) == "").alias(f"readable_{name}") for name in UNREADABLE]
    words = F.concat_ws(" ", "title", "category", "brand")
    return [*examples, *counts, *readable, F.count_if(words.contains("\ufffd")).alias("n_not_utf8")]


def unreadable(source: Source, config: Items, row: Row) -> dict[str, int]:
    """How many prices and stocks of items are no numbers, and how many items have words that are not UTF-8, where there
    are any.

    Raises:
        SourceError: a column has values and none of them is a number.
    """
    told = {}
    for name in UNREADABLE:
        count, key = row[f"n_{name}"], name.removeprefix("unreadable_")
        if count and not row[f"readable_{name}"]:
            raise SourceError(
                f"no {key} in {source.path} is a number, for example {row[name]!r}: column {getattr(config, key)!r}",
                hint=f'write numbers, like 1.50, or set data.items.{key} to "" for none',
            )
        if count:
            told[name] = count
    if row["n_not_utf8"]:
        told["items_not_utf8"] = row["n_not_utf8"]
    return told


def unknown(noun: str, numbered: DataFrame, path: str) -> dict[str, int | str]:
    """How many items or users of the interactions their table does not have; a warning when it has hardly an item.

    Requires: the columns `_is_met`, by an interaction, and `has_row`, in the table.
    """
    met, missing = numbered.agg(F.count_if("_is_met"), F.count_if(~F.col("has_row"))).collect()[0]
    told: dict[str, int | str] = {f"{noun}s_unknown": missing} if missing else {}
    if noun == "item" and met - missing < _FEW * met:
        told["warning_items"] = (
            f"{missing:,} of {met:,} items of the interactions are not in {path}: are their ids written alike?"
        )
    return told
