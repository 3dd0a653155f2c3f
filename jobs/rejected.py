"""Rows of a table that no run can use: how many of them are borne, and where they are written with their reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path

import pyarrow.parquet as pq
from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from jobs import intake
from jobs.errors import SourceError, TooManyRejectedError
from jobs.source_rows import write_address
from jobs.sources import Source, shortened
from schemas import tables

_USUAL_REMEDY = "mend the table or its column mapping"
_REMEDIES = {
    "the user id is missing": "leave such rows out, or let data.interactions.user name a column that names every "
    "visitor, such as a cookie",
    intake.NO_TIME: "write times like 2026-11-21T18:30:00Z, or as seconds or milliseconds since 1970, see "
    "data.interactions.time_unit",
}
"""Of reasons why an interaction is malformed."""
_TYPES_SHOWN = 5


def malformed(counts: Mapping[str, int]) -> dict[str, int]:
    """Of rows by status those that are malformed; what is merely of another time is not."""
    return {status: n for status, n in counts.items() if status not in {"", intake.LATER, intake.OLDER}}


def refuse_too_many(
    source: Source, staged: DataFrame, found: Sequence[Row], counts: Mapping[str, int], limit: float
) -> None:
    """Stop the run where a table has no rows, more than a share of malformed ones, or no interaction that takes part.

    Args:
        staged: the table itself, see `intake`.
        found: (status, rows, example) of each status.
        counts: rows by status.

    Raises:
        SourceError, TooManyRejectedError.
    """
    total, of_malformed = sum(counts.values()), malformed(counts)
    if not total:
        raise SourceError(f"the table of {source.name} has no rows: {source.path}")
    share = sum(of_malformed.values()) / total
    if share > limit:
        told = [
            f"{row['rows']:,} rows: {row['status']}, for example {shortened(row['example'])}"
            for row in sorted(found, key=lambda row: (-row["rows"], row["status"]))
            if row["status"] in of_malformed
        ]
        raise TooManyRejectedError(
            f"{sum(of_malformed.values()):,} of {total:,} rows of {source.path} are malformed "
            f"({share:.1%}, allowed are {limit:.1%}): " + "; ".join(told),
            hint=f"{_remedy(source, staged, of_malformed)}, or raise data.max_rejected_share",
        )
    if source.name == "interactions" and not counts.get(""):
        reasons = ", ".join(f"{n:,} {status}" for status, n in sorted(counts.items()))
        is_other_time = {intake.LATER, intake.OLDER} & set(counts)
        raise SourceError(
            f"no interaction of {source.path} takes part in the run: {reasons}",
            hint="choose another --day" if is_other_time else _USUAL_REMEDY,
        )


def write(staged: Mapping[str, DataFrame], counts: Mapping[str, Mapping[str, int]], folder: Path) -> int:
    """Write the malformed rows of all tables to a folder; how many there are."""
    total = sum(sum(malformed(found).values()) for found in counts.values())
    if not total:
        folder.mkdir()
        pq.write_table(tables.REJECTED.empty_table(), folder / "part-00000.parquet")
        return 0
    parts = [
        table.where(F.col("raw").isNotNull()).select(
            F.lit(name).alias("source"), F.col("raw").alias("row"), F.col("status").alias("reason")
        )
        for name, table in staged.items()
    ]
    every = reduce(DataFrame.union, parts)
    every.sort("source", "reason", "row").coalesce(1).write.parquet(write_address(folder))
    return total


def _remedy(source: Source, staged: DataFrame, of_malformed: Mapping[str, int]) -> str:
    """What helps against the most frequent reason."""
    reason = max(sorted(of_malformed), key=of_malformed.__getitem__)
    if source.name != "interactions":
        return _USUAL_REMEDY
    if reason == intake.NO_WEIGHT:
        every = staged.where(F.col("status") == reason).groupBy("event").count()
        types = [repr(row["event"][:40]) for row in every.sort(F.desc("count"), "event").take(_TYPES_SHOWN + 1)]
        listed = ", ".join(types[:_TYPES_SHOWN] + ["…"] * (len(types) > _TYPES_SHOWN))
        return f"list {listed} in data.interactions.event_weights, with 0 where they say nothing of taste"
    return _REMEDIES.get(reason, _USUAL_REMEDY)
