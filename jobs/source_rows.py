"""A source as a Spark table of raw rows: nothing dropped, nothing interpreted.

Text formats give text columns. An atomic file's `name:type` header becomes names, and a `token_seq` column a list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, DataFrameReader, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.csv_quotes import refuse_open_quotes
from jobs.errors import SourceError
from jobs.headers import ParquetColumns, header, parquet_columns, require_column
from jobs.sources import PARTITION, Source
from jobs.spark import NO_LIBRARY

_DAMAGED = "_damaged"
_OVERFLOW = "java.lang.ArithmeticException: long overflow"
"""Spark makes microseconds of a Parquet file's milliseconds while it reads, whether the column is in use or not."""
_LISTS = ("token_seq", "float_seq")


@dataclass(frozen=True)
class Rows:
    """A table as it was read. Columns are found by their name in the file, whatever they are called inside."""

    source: Source
    frame: DataFrame
    inside: dict[str, str]  # name in the file -> name in the frame
    damaged: Column  # the raw line of a row with the wrong number of columns, else null
    disputed: dict[str, str] = field(default_factory=dict)  # columns of the files that cannot be read, and why
    lacking: dict[str, Path] = field(default_factory=dict)  # columns that not all of the files have, and one without

    @property
    def names(self) -> list[str]:
        """The column names of the file."""
        return list(self.inside)

    def has(self, name: str) -> bool:
        """True when the file has the column; "" never is one.

        Raises:
            SourceError: the files do not agree on its type.
        """
        if name in self.disputed:
            raise SourceError(self.disputed[name], hint="write the column with one type in all files")
        return name != "" and name in self.inside  # pandas writes its row numbers into a column without a name

    def require(self, key: str, name: str, hint: str = "", *, everywhere: bool = True) -> None:
        """Raise SourceError when the column that `key` names is not there; `everywhere`: or not in all of the files."""
        if not self.has(name):
            require_column(self.source, key, name, self.names, hint)
        # Or the rows of a whole day might go as malformed, and few enough not to stop the run.
        if everywhere and name in self.lacking:
            raise SourceError(
                f"{self.lacking[name]} has no column {name!r}, and other files of the table of {self.source.name} have",
                hint="write it into all of them: a column that is needed must be in each file",
            )

    def column(self, name: str) -> Column:
        """The raw column."""
        return F.col(self.inside[name])

    def called(self, name: str) -> str:
        """What an error calls the column: tables share names."""
        return f"{name!r} of {self.source.path}"

    def kind(self, name: str) -> T.DataType:
        """The type of the raw column."""
        return self.frame.schema[self.inside[name]].dataType

    @property
    def raw(self) -> Column:
        """The whole row as JSON, for a person to look at."""
        row = F.struct(*[F.col(inside).alias(name) for name, inside in self.inside.items()])
        line = F.to_json(F.struct(self.damaged.alias("line")))
        return F.when(self.damaged.isNotNull(), line).otherwise(F.to_json(row, {"ignoreNullFields": "false"}))


def read(spark: SparkSession, source: Source) -> Rows:
    """The raw rows of a source.

    Raises:
        SourceError: a file cannot be read, or the files do not agree on their columns; Parquet files may.
    """
    with readable(source):
        return {"parquet": _read_parquet, "csv": _read_csv, "recbole": _read_recbole}[source.format](spark, source)


@contextmanager
def readable(source: Source) -> Iterator[None]:
    """Translate what Spark says about a file that it cannot read; it says so when the rows are first needed."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        if NO_LIBRARY in str(error):
            raise
        if _OVERFLOW in str(error):
            raise SourceError(
                f"the table of {source.name} cannot be read: {source.path}: "
                "a time in milliseconds lies beyond the year 294,247",
                hint="write null where there is no time",
            ) from error
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        causes = [line for line in lines if line.startswith("Caused by:")] or lines[:1]
        raise SourceError(f"the table of {source.name} cannot be read: {source.path}: {causes[-1][:300]}") from error


def write_address(path: Path) -> str:
    """A path as Spark writes to it: local, whatever the default file system."""
    return f"file://{path.absolute()}"


def read_address(path: Path) -> str:
    """A path as Spark reads it: glob characters in its name are meant literally."""
    return re.sub(r"([\\*?\[\]{}])", r"\\\1", write_address(path))


def _read_parquet(spark: SparkSession, source: Source) -> Rows:
    columns = parquet_columns(source)
    # Numbered names: a name with a dot or a backtick in it is a trap in every expression.
    inside = dict(zip(columns.names, _numbered(columns.names), strict=True))
    if source.is_partitioned:
        inside = {PARTITION: PARTITION} | inside
    # Spark has no nanoseconds, which pandas writes: take them as numbers first.
    spark.conf.set("spark.sql.legacy.parquet.nanosAsLong", "true")
    reader = spark.read.option("mergeSchema", str(not columns.has_all).lower())
    if source.is_partitioned:
        reader = reader.option("basePath", write_address(_partitioned_root(source)))
    parts = [_parquet_part(reader, columns, inside, files, kinds) for files, kinds in columns.groups]
    frame = reduce(lambda one, other: one.unionByName(other, allowMissingColumns=True), parts)
    inside = {name: column for name, column in inside.items() if column in frame.columns}
    return Rows(source, frame, inside, F.lit(None).cast("string"), columns.disputed, columns.lacking)


def _parquet_part(
    reader: DataFrameReader,
    columns: ParquetColumns,
    inside: dict[str, str],
    files: list[Path],
    kinds: dict[str, pa.DataType | None],
) -> DataFrame:
    """Files whose columns have the same types, without what other files must say the type of."""
    part = reader.parquet(*map(read_address, files))
    part = part.drop(*[name for name in part.columns if name not in inside])  # of folders like hour=12 in date=…
    part = part.toDF(*[inside[name] for name in part.columns])
    found = {field.name: field.dataType for field in part.schema}
    for name, kind in kinds.items():
        if name in columns.disputed or (kind == pa.null() and any(k.get(name) != kind for _, k in columns.groups)):
            part = part.drop(inside[name])
        # Not the other nanoseconds, the INT96 that Spark itself writes: it reads those as timestamps.
        elif kind is not None and pa.types.is_timestamp(kind) and found.get(inside[name]) == T.LongType():
            micros = F.floor(F.col(inside[name]) / 1000)
            part = part.withColumn(inside[name], F.timestamp_micros(micros))
    return part


def _read_csv(spark: SparkSession, source: Source) -> Rows:
    names = header(source)
    refuse_open_quotes(source)
    schema = T.StructType([T.StructField(name, T.StringType()) for name in [*_numbered(names), _DAMAGED]])
    reader = spark.read.schema(schema).options(
        header="true",
        multiLine="true",  # a quoted value may hold a line break; so one file is one task
        quote='"',
        escape='"',  # RFC 4180: a quote inside quotes is doubled
        mode="PERMISSIVE",
        columnNameOfCorruptRecord=_DAMAGED,
        columnPruning="false",  # else a row is only checked as far as its last column in use
    )
    inside = dict(zip(names, _numbered(names), strict=True))
    if source.is_partitioned:
        reader = reader.option("basePath", write_address(_partitioned_root(source)))
        inside = {PARTITION: PARTITION} | inside
    return Rows(source, reader.csv(list(map(read_address, source.files))), inside, F.col(_DAMAGED))


def _read_recbole(spark: SparkSession, source: Source) -> Rows:
    first_line = header(source)
    names, kinds = zip(*(column.rpartition(":")[::2] for column in first_line), strict=True)
    if not all(names):
        raise SourceError(
            f"{source.files[0]} is no atomic file: its header is {', '.join(first_line)}; wanted name:type, by tabs"
        )
    lines = spark.read.text(list(map(read_address, source.files)))
    line = F.regexp_replace("value", "^\ufeff", "")
    lines = lines.select(line.alias("value")).where(~F.col("value").isin("", "\t".join(first_line)))
    cells = lines.select("value", F.split("value", "\t", -1).alias("cells"))
    columns = []
    for place, (kind, inside) in enumerate(zip(kinds, _numbered(names), strict=True)):
        cell = F.get("cells", F.lit(place))
        columns.append((F.split(cell, " ") if kind in _LISTS else cell).alias(inside))
    damaged = F.when(F.size("cells") != len(names), F.col("value"))
    frame = cells.select(*columns, damaged.alias(_DAMAGED))
    return Rows(source, frame, dict(zip(names, _numbered(names), strict=True)), F.col(_DAMAGED))


def _numbered(names: list[str] | tuple[str, ...]) -> list[str]:
    return [f"c{place}" for place in range(len(names))]


def _partitioned_root(source: Source) -> Path:
    """The folder that holds the date= folders."""
    folder = source.files[0].parent
    while not folder.name.startswith(f"{PARTITION}="):
        folder = folder.parent
    return folder.parent
