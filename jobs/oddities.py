"""What is odd about your tables and does not make a row malformed: `prepare` tells it in its line, or stops at it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from jobs.errors import SourceError
from jobs.intake import UNREADABLE
from jobs.sources import Source
from schemas.config import Config, events_folder
from schemas.data_config import Interactions, Items

_WANTED = {
    "price": ("a number", "numbers, like 1.50"),
    "stock": ("a number", "numbers, like 3"),
    "released": ("a time from 1970 on", "days like 2026-11-21"),
}
_YEAR_1971 = 31_536_000
_FEW = 0.1  # a share of the items that are met
_LOOKED_AT = 10_000
"""Ids that a table does not have and that are compared with those it has."""
_BLANKS = " \t\r\n\u00a0\u3000"


def of_items() -> list[Column]:
    """What `unreadable` wants to know of staged items: an example, and how many can be read and cannot."""
    examples = [F.max(name).alias(name) for name in UNREADABLE]
    counts = [F.count_if(F.col(name) != "").alias(f"n_{name}") for name in UNREADABLE]
    readable = [F.count_if(F.col(name) == "").alias(f"readable_{name}") for name in UNREADABLE]
    words = F.concat_ws(" ", "title", "category", "brand")
    not_utf8 = F.count_if(words.contains("\ufffd")).alias("n_not_utf8")
    return [*examples, *counts, *readable, not_utf8, F.max("released").alias("last_released")]


def unreadable(source: Source, config: Items, row: Row) -> dict[str, int | str]:
    """How many prices and stocks of items are no numbers, and days of release no times, and how many items have words
    that are not UTF-8, where there are any; a warning where all days of release are of 1970.

    Raises:
        SourceError: such a column has values and none of them can be read.
    """
    told: dict[str, int | str] = {}
    for name in UNREADABLE:
        count, key = row[f"n_{name}"], name.removeprefix("unreadable_")
        if count and not row[f"readable_{name}"]:
            kind, examples = _WANTED[key]
            raise SourceError(
                f"no {key} in {source.path} is {kind}, for example {row[name]!r}: column {getattr(config, key)!r}",
                hint=f'write {examples}, or set data.items.{key} to "" for none',
            )
        if count:
            told[name] = count
    if row["n_not_utf8"]:
        told["items_not_utf8"] = row["n_not_utf8"]
    if row["last_released"] is not None and row["last_released"] < _YEAR_1971:
        told["warning_released"] = f"every day in column {config.released!r} is of 1970: is it no number of seconds?"
    return told


def useless_files(source: Source, staged: DataFrame) -> dict[str, str]:
    """A warning where all rows of a file are malformed: the export of a day, say, too few of all to stop the run."""
    rows, malformed = F.count("*").alias("rows"), F.count("raw").alias("malformed")
    by_file = staged.groupBy("file").agg(rows, malformed, F.mode("status", deterministic=True).alias("status"))
    useless = by_file.where("rows = malformed").sort(F.desc("rows"), "file")
    count, first = useless.count(), useless.first()
    if first is None:
        return {}
    found = f"{count:,} files of {source.path} have" if count > 1 else f"1 file of {source.path} has"
    example = f"{unquote(urlsplit(first['file']).path)}, {first['rows']:,} rows, most often: {first['status']}"
    return {f"warning_{source.name}_files": f"{found} no row that can be used: {example}"}


def early_times(config: Interactions, latest: int) -> dict[str, str]:
    """A warning where no interaction is later than 1970: what was read as seconds was something else, 20261121 say."""
    if latest >= _YEAR_1971:
        return {}
    return {"warning_times": f"every time in column {config.time!r} is of 1970: see data.interactions.time_unit"}


def never_consumed(config: Interactions) -> dict[str, str]:
    """A warning where a type that uses an item up is none that an event may have, as the usual one among others."""
    never = [kind for kind in config.consumed_events if kind not in config.event_weights]
    if not never:
        return {}
    found = f"data.interactions.consumed_events names {', '.join(never)}, which no event can be"
    return {"warning_consumed_events": f"{found}: event_weights lists {', '.join(config.event_weights)}"}


def no_log(config: Config) -> dict[str, str]:
    """A warning where no server of this configuration writes the serving log that is read, and none is there."""
    folder = Path(config.data.interactions.serving_log)
    if folder == Path(events_folder(config.paths)) or folder.is_dir():
        return {}
    return {"warning_serving_log": f"data.interactions.serving_log: there is no folder {folder} yet; wanted its path"}


def unknown(noun: str, numbered: DataFrame, path: str) -> dict[str, int | str]:
    """How many items or users of the interactions their table does not have; warnings when it has hardly an item, and
    when ids are written in two ways.

    Requires: the columns `_is_met`, by an interaction, and `has_row`, in the table.
    """
    met, missing = numbered.agg(F.count_if("_is_met"), F.count_if(~F.col("has_row"))).collect()[0]
    told: dict[str, int | str] = {f"{noun}s_unknown": missing} if missing else {}
    if noun == "item" and met - missing < _FEW * met:
        told["warning_items"] = (
            f"{missing:,} of {met:,} items of the interactions are not in {path}: are their ids written alike?"
        )
    if missing and (found := _alike(noun, numbered)):
        alike, example = found
        looked_at = min(missing, _LOOKED_AT)
        told[f"warning_{noun}_ids"] = (
            f"{alike:,} of {looked_at:,} {noun}s that {path} does not have differ from one it has by capitals or "
            f"blanks alone, for example {example[0]!r} from {example[1]!r}"
        ) + (f"; not looked at: {missing - looked_at:,}" if missing > looked_at else "")
    return told


def _alike(noun: str, numbered: DataFrame) -> tuple[int, tuple[str, str]] | None:
    """How many of the first unknown ids equal a known one but for capitals and the blanks around them, and the first
    with its like; None: none does."""
    identity = F.col(f"{noun}_id")
    plain = F.lower(F.trim(identity, F.lit(_BLANKS))).alias("plain")
    unknown = numbered.where("NOT has_row").select(identity.alias("unknown"), plain).sort("unknown").limit(_LOOKED_AT)
    known = numbered.where("has_row").select(identity.alias("known"), plain)
    pairs = known.join(F.broadcast(unknown), "plain")
    count, first = pairs.agg(F.count_distinct("unknown"), F.min(F.struct("unknown", "known"))).collect()[0]
    return (count, tuple(first)) if count else None
