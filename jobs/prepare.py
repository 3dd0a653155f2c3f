"""Your tables, checked and numbered: the `prepared` dataset, from which all else is made.

Every table is read once, into a staged copy inside the draft; what follows reads that. Rows that agree in everything
Shortlist reads are one interaction, as are two of which one names no session and that agree in all else. Nothing but
counts, and a few examples, comes to the driver.
"""

from __future__ import annotations

import datetime
import shutil
import time
from itertools import chain
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from jobs import datasets, intake, oddities, rejected
from jobs.datasets import DAY_SECONDS
from jobs.errors import SourceError
from jobs.logged_events import LoggedEvents, columns_of, source_of
from jobs.progress import Report
from jobs.source_rows import read, read_address, readable, write_address
from jobs.sources import Source, locate
from jobs.splits import boundaries, core, split
from schemas import tables
from schemas.config import Config, without_paths

INTERACTIONS_PER_FILE = 500_000
ENTITIES_PER_FILE = 1_000_000
WITHIN_USER = ("time", "item_index", "event", "device", "session_id")
"""The order of a user's interactions; together with the user all that Shortlist reads of one."""
_ESCAPED_BREAK = r"(?<!\\)\\n"  # of a line, in JSON
_ROW_BITS = 33  # of monotonically_increasing_id: the row number within its partition


def run(config: Config, day: str, spark: SparkSession, *, is_over: bool = True) -> Report:
    """Make `prepared` of a day: interactions, items, users and what was rejected.

    A day that is not over ends with its newest interaction: the days that are held out are whole ones back from there,
    and all that goes by age goes by the age then. So it depends on the rows and not on the clock.

    Args:
        is_over: the midnight that ends the day has passed.

    Raises:
        SourceError: a table is missing, unreadable or empty, or lacks a column that the configuration names.
        TooManyRejectedError: more rows of a table are malformed than `data.max_rejected_share` allows.
    """
    started = time.monotonic()
    made_at, history_days = datasets.end_of(day), config.data.history_days
    since = made_at - history_days * DAY_SECONDS if history_days else 0
    sources = _sources(config, day)
    outside = {source.name: source.fingerprint() for source in sources.values()}
    log = LoggedEvents.open(config, since, made_at) if config.data.interactions.serving_log else None
    if log is not None:
        outside["serving_log"] = log.fingerprint()
    if not is_over:
        outside["known"] = "up to the newest interaction"
    settings = [without_paths(config).data, config.split]  # `outside` says what the tables hold
    with datasets.step(config.paths.workspace, day, "prepared", settings=settings, outside=outside) as draft:
        if draft.is_complete:
            return Report(step="prepare", day=day, rows=draft.rows, skipped=True)
        spark.conf.set("spark.sql.session.timeZone", "UTC")  # what a time without an offset means
        work = _Preparation(spark, config, since, made_at, draft.path)
        staged = {name: work.stage(source) for name, source in sources.items()}
        if log is not None:
            staged["interactions"], draft.extra["logged"] = work.add_log(staged["interactions"], log)
        counts = {name: work.count(sources[name], table) for name, table in staged.items()}
        valid = staged["interactions"].where(F.col("status") == "").drop(*intake.OF_THE_ROW)
        if not is_over:
            work.made_at = _end(valid, made_at - DAY_SECONDS)
        kept = work.filter(valid)
        items = work.number("item", staged.get("items"), valid)
        users = work.number("user", staged.get("users"), kept)
        interactions = work.write_interactions(kept, users, items, counts["interactions"][""])
        draft.rows |= work.write_entities(items, users, interactions)
        draft.rows["interactions"], draft.extra["split"] = work.check_split(interactions)
        draft.rows["rejected"] = rejected.write(staged, counts, work.folder / "rejected")
        draft.extra |= _facts(counts, draft.rows["interactions"], work)
        shutil.rmtree(work.staging)
    details = {name: draft.extra[name] for name in ("read", "later", "older", "duplicates")} | work.dropped()
    if log is not None:
        details |= {"logged": draft.extra["logged"], "logged_left_out": dict(log.left_out)}
        details |= oddities.no_log(config)
    if not is_over:
        details["known_until"] = _moment(work.made_at).strftime("%Y-%m-%dT%H:%M:%SZ")
    details |= work.told
    details |= oddities.never_consumed(config.data.interactions)
    return Report(step="prepare", day=day, rows=draft.rows, seconds=time.monotonic() - started, details=details)


def _sources(config: Config, day: str) -> dict[str, Source]:
    data = config.data
    interactions = locate("interactions", data.interactions.path, data.interactions.format)
    found = {"interactions": interactions.within(day, data.history_days)}
    if data.items.path:
        found["items"] = locate("items", data.items.path, data.items.format).newest(day)
    if data.users.path:
        found["users"] = locate("users", data.users.path, data.users.format).newest(day)
    return found


class _Preparation:
    """The stages of one run, in the order of their use."""

    def __init__(self, spark: SparkSession, config: Config, since: int, made_at: int, folder: Path) -> None:
        self.spark, self.config, self.since, self.made_at, self.folder = spark, config, since, made_at, folder
        self.staging = folder / ".staging"
        self.size: dict[str, int] = {}  # item, user: how many there are
        self.repeated_ids: dict[str, int] = {}  # items, users: rows whose id has a row already
        self.told: dict[str, int | str] = {}  # what a person should look at
        self.left_out = 0  # interactions, by the k-core filter
        self.tells_stock = False  # the table of items does

    def keep(self, frame: DataFrame, name: str) -> DataFrame:
        """Write a table down and read it back: computed once, and the same rows in the same order ever after."""
        path = self.staging / name
        frame.write.mode("overwrite").parquet(write_address(path))
        return self.spark.read.schema(frame.schema).parquet(read_address(path))

    def stage(self, source: Source) -> DataFrame:
        """One of your tables in Shortlist's terms, see `intake`."""
        data = self.config.data
        rows = read(self.spark, source)
        with readable(source):
            # One that was there yesterday takes with it what it told: without `stock` all that is sold out comes back.
            if missing := intake.missing(rows, getattr(data, source.name)):
                self.told[f"{source.name}_without"] = ", ".join(missing)
            if source.name == "items":
                self.tells_stock = rows.has(data.items.stock)
                return self.keep(intake.items(rows, data.items), "items")
            if source.name == "users":
                return self.keep(intake.users(rows, data.users), "users")
            return self.keep(intake.interactions(rows, data.interactions, self.made_at, self.since), "interactions")

    def add_log(self, staged: DataFrame, log: LoggedEvents) -> tuple[DataFrame, int]:
        """The interactions of your table and those of the serving log; the number of these."""
        folder = self.staging / "serving-log"
        logged = log.write(folder)
        config = columns_of(self.config.data.interactions)
        found = intake.interactions(read(self.spark, source_of(folder)), config, self.made_at, self.since)
        return staged.unionByName(self.keep(found, "logged")), logged

    def count(self, source: Source, staged: DataFrame) -> dict[str, int]:
        """Rows by status. Stops the run when there are none, or too many are malformed.

        A row that took others in, by a quote that was not closed, counts once for each of its lines.
        """
        lines = 1 + F.regexp_count("raw", F.lit(_ESCAPED_BREAK))
        rows = F.when(F.col("status") == intake.LINES_IN_VALUE, lines).otherwise(1)
        columns = [F.sum(rows).alias("rows"), F.min("raw").alias("example")]
        if source.name != "interactions":
            columns.append(F.count_distinct(f"{source.name.removesuffix('s')}_id").alias("ids"))
        if source.name == "items":
            columns += oddities.of_items()
        found = staged.groupBy("status").agg(*columns).collect()
        counts = {row["status"]: row["rows"] for row in found}
        rejected.refuse_too_many(source, staged, found, counts, self.config.data.max_rejected_share)
        if rejected.malformed(counts):
            self.told |= oddities.useless_files(source, staged)
        valid = next((row for row in found if row["status"] == ""), None)
        if source.name != "interactions":
            self.repeated_ids[source.name] = valid["rows"] - valid["ids"] if valid else 0
        if source.name == "items" and valid:
            self.told |= oddities.unreadable(source, self.config.data.items, valid)
        return counts

    def filter(self, valid: DataFrame) -> DataFrame:
        """The interactions that the k-core filter leaves, all of them when it is not set."""
        least_user, least_item = self.config.data.min_user_interactions, self.config.data.min_item_interactions
        if max(least_user, least_item) <= 1:
            return valid
        unique = self.keep(_unique(valid, "user_id", "item_id"), "unique")
        kept = core(unique, least_user, least_item, self.keep)
        self.left_out = unique.count() - kept.count()
        if kept.isEmpty():
            raise SourceError(
                f"the k-core filter leaves no interaction of {unique.count():,}",
                hint="lower data.min_user_interactions or data.min_item_interactions",
            )
        return kept

    def number(self, noun: str, table: DataFrame | None, mentioned: DataFrame) -> DataFrame:
        """Everything known of each item or user, numbered in the byte order of the ids.

        Of two rows with one id the greater one stays, comparing column by column: the choice does not depend on the
        order in which Spark finds them.
        """
        identity = f"{noun}_id"
        ids = mentioned.select(identity).distinct()
        if table is None:
            known = ids
        else:
            others = {identity, *intake.OF_THE_ROW, *intake.UNREADABLE}
            columns = [name for name in table.columns if name not in others]
            best = F.max(F.struct(*columns))
            one_each = table.where(F.col("status") == "").groupBy(identity).agg(best.alias("_row"))
            met = ids.withColumn("_is_met", F.lit(True)).join(one_each, identity, "full")
            known = met.select(identity, "_row.*", "_is_met", F.col("_row").isNotNull().alias("has_row"))
        row = F.monotonically_increasing_id().bitwiseAND((1 << _ROW_BITS) - 1)
        placed = known.sort(identity).select("*", F.spark_partition_id().alias("_part"), row.alias("_row"))
        # Kept before it is counted: a second evaluation might cut the partitions elsewhere.
        placed = self.keep(placed, f"{noun}-numbers")
        if table is not None:
            self.told |= oddities.unknown(noun, placed, getattr(self.config.data, f"{noun}s").path)
            placed = placed.drop("_is_met")
        before, offsets = 0, []
        for part, rows in sorted(tuple(line) for line in placed.groupBy("_part").count().collect()):
            offsets += [F.lit(part), F.lit(before)]
            before += rows
        self.size[noun] = before
        index = (F.col("_row") + F.element_at(F.create_map(*offsets), F.col("_part"))).cast("int")
        return placed.withColumn(f"{noun}_index", index).drop("_part", "_row")

    def write_interactions(self, kept: DataFrame, users: DataFrame, items: DataFrame, rows: int) -> DataFrame:
        """Write `interactions`, each once: all of a user in one file, sorted by user and time."""
        config = self.config.data.interactions
        weights = chain.from_iterable((F.lit(k), F.lit(float(v))) for k, v in config.event_weights.items())
        weight = F.element_at(F.create_map(*weights), F.col("event")).cast("float")
        numbered = kept.join(users.select("user_id", "user_index"), "user_id").join(
            items.select("item_id", "item_index"), "item_id"
        )
        # One exchange serves the duplicates, the split and the order of the file alike.
        spread = numbered.drop("user_id", "item_id").repartition(_files(rows, INTERACTIONS_PER_FILE), "user_index")
        weighed = _unique(spread, "user_index", "item_index").withColumn("weight", weight)
        found = split(weighed, self.config.split, self.made_at).select(
            "user_index",
            "item_index",
            "event",
            "weight",
            "time",
            "session_id",
            "device",
            F.col("event").isin(list(config.consumed_events)).alias("consumed"),
            "split",
        )
        return self._write(found.sortWithinPartitions("user_index", *WITHIN_USER), "interactions")

    def write_entities(self, items: DataFrame, users: DataFrame, interactions: DataFrame) -> dict[str, int]:
        """Write `items` and `users`, with the number of their interactions in the train split that weigh anything."""
        train = interactions.where((F.col("split") == tables.TRAIN) & (F.col("weight") > 0))
        empty, n_features = F.lit(""), len(self.config.data.users.columns)
        optional = {
            "item": {"title": empty, "category": empty, "brand": empty, "price": F.lit(None).cast("float")}
            | {"released": F.lit(None).cast("long"), "in_stock": F.lit(not self.tells_stock)},  # of one without a row
            "user": {"segment": empty, "features": F.array(*[empty] * n_features).cast("array<string>")}
            | {"has_row": F.lit(False)},
        }
        rows = {}
        for noun, frame, schema in (("item", items, tables.ITEMS), ("user", users, tables.USERS)):
            index = f"{noun}_index"
            counts = train.groupBy(index).agg(F.count("*").alias("interactions"))
            filled = frame.join(counts, index, "left").withColumn(
                "interactions", F.coalesce("interactions", F.lit(0).cast("long"))
            )
            for name, default in optional[noun].items():
                value = F.coalesce(F.col(name), default) if name in frame.columns else default
                filled = filled.withColumn(name, value)
            n = rows[f"{noun}s"] = self.size[noun]
            files = _files(n, ENTITIES_PER_FILE)
            file = F.floor(F.col(index).cast("long") * files / n).cast("int")
            ranges = filled.select(*schema.names).withColumn("_file", file).repartitionById(files, "_file")
            self._write(ranges.drop("_file").sortWithinPartitions(index), f"{noun}s")
        return rows

    def check_split(self, interactions: DataFrame) -> tuple[int, dict[str, int]]:
        """The number of interactions, and of each split. Stops the run when there is nothing to train on."""
        columns = F.count("*").alias("rows"), F.min("time").alias("first"), F.max("time").alias("last")
        splits = interactions.groupBy("split").agg(*columns).collect()
        found = {row["split"]: row["rows"] for row in splits}
        self.told |= oddities.early_times(self.config.data.interactions, max(row["last"] for row in splits))
        names = {"train": tables.TRAIN, "validation": tables.VALIDATION, "test": tables.TEST}
        by_name = {name: found.get(value, 0) for name, value in names.items()}
        if not by_name["train"]:
            first, last = _date(min(row["first"] for row in splits)), _date(max(row["last"] for row in splits))
            raise SourceError(
                f"nothing is left to train on: the validation split has {by_name['validation']:,} interactions, "
                f"the test split {by_name['test']:,}, and they are of {first} to {last}",
                hint="lower split.test_days and split.validation_days, raise data.history_days where it is set, or set "
                "split.strategy=per_user; if these are not your dates, see data.interactions.time_unit",
            )
        return sum(found.values()), by_name

    def dropped(self) -> dict[str, int]:
        """What else takes no part, if any: interactions for the k-core filter, rows whose id another one has."""
        counts = {"left_out": self.left_out} | {f"{name}_repeated": n for name, n in self.repeated_ids.items()}
        return {name: n for name, n in counts.items() if n}

    def _write(self, frame: DataFrame, part: str) -> DataFrame:
        frame.write.parquet(write_address(self.folder / part))
        return self.spark.read.schema(frame.schema).parquet(read_address(self.folder / part))


def _unique(interactions: DataFrame, user: str, item: str) -> DataFrame:
    """Each interaction once: its rows are neighbours in the order of the file, those without a session first."""
    names = ["time", item, "event", "device", "session_id"]
    in_order = Window.partitionBy(user).orderBy(*names)
    row, but_session = F.struct(*names), F.struct(*names[:-1])
    is_again = F.when(
        F.col("session_id").isNull(), F.lead(but_session).over(in_order).eqNullSafe(but_session)
    ).otherwise(F.lag(row).over(in_order).eqNullSafe(row))
    return interactions.withColumn("_is_again", is_again).where(~F.col("_is_again")).drop("_is_again")


def _files(rows: int, rows_per_file: int) -> int:
    return max(1, -(-rows // rows_per_file))


def _end(interactions: DataFrame, begin: int) -> int:
    """The second after the newest interaction; that with which the day begins, where nothing has happened since."""
    newest = interactions.agg(F.max("time")).collect()[0][0]
    return begin if newest is None else max(begin, int(newest) + 1)


def _date(time: int) -> str:
    return _moment(time).date().isoformat()


def _moment(time: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(time, datetime.UTC)


def _facts(counts: dict[str, dict[str, int]], written: int, work: _Preparation) -> dict[str, Any]:
    mine = counts["interactions"]
    dates = boundaries(work.config.split, work.made_at)
    return {
        "made_at": work.made_at,
        "read": sum(mine.values()),
        "later": mine.get(intake.LATER, 0),
        "older": mine.get(intake.OLDER, 0),
        "duplicates": mine[""] - work.left_out - written,
        "left_out": work.left_out,
        "repeated_ids": work.repeated_ids,
        "rejected": {name: rejected.malformed(found) for name, found in counts.items()},
        "validation_from": dates[0] if dates else None,
        "test_from": dates[1] if dates else None,
    }
