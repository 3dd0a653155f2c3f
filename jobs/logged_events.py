"""The serving log as a table of interactions: what users did on the site, as far as the run's day knows it.

The log grows while it is read. So the lengths of its segments are taken once, and fingerprint and rows come from just
that much; and only events of the run's time count, so that a later event does not remake an earlier day.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import SourceError
from jobs.sources import Source
from prediction_store.errors import DiskError
from reranker.serving_log.frames import Tail
from reranker.serving_log.reading import read_segments, segments
from reranker.serving_log.records import EventsRecord, LoggedEvent, Record
from reranker.sessions.stored import IMPRESSION
from schemas.config import Config, events_folder
from schemas.data_config import Interactions
from schemas.errors import FormatError

COLUMNS = pa.schema(
    [
        pa.field("user_id", pa.string()),
        pa.field("item_id", pa.string()),
        pa.field("event", pa.string()),
        pa.field("timestamp", pa.int64()),
        pa.field("device", pa.string()),
    ]
)
ROWS_AT_ONCE = 100_000
REPLACEMENT = "\ufffd"
"""Stands where bytes were no text, see `jobs.columns.identifier_fault`."""


@dataclass
class LoggedEvents:
    """The events of a log from `since` up to `until`, as far as it was written when it was opened."""

    folder: Path
    sizes: dict[Path, int]
    weights: frozenset[str]
    """The event types that are interactions."""
    since: int
    until: int
    left_out: Counter[str] = field(default_factory=Counter)
    """Of the last reading: events that are no interactions, by type or by what is wrong; and bytes of torn tails."""

    @classmethod
    def open(cls, config: Config, since: int, until: int) -> LoggedEvents:
        """Measure the log; one that no server has begun yet is empty. Raises SourceError: nothing can be there."""
        folder = Path(config.data.interactions.serving_log)
        is_ours = folder == Path(events_folder(config.paths))  # in a store that the first night has yet to make
        if not (is_ours or folder.parent.is_dir()) or (folder.exists() and not folder.is_dir()):
            raise SourceError(
                f"the serving log is not there: {folder}", hint='set data.interactions.serving_log, or to "" for none'
            )
        sizes: dict[Path, int] = {}
        for path in segments(folder):
            with contextlib.suppress(FileNotFoundError):  # a worker has just removed it, for its age
                sizes[path] = path.stat().st_size
        return cls(folder, sizes, frozenset(config.data.interactions.event_weights), since, until)

    def events(self) -> Iterator[LoggedEvent]:
        """The interactions, in the order of the log.

        Raises:
            SourceError: a segment has gone, or cannot be read.
        """
        self.left_out = Counter()
        for path in self.sizes:
            read = False
            for record in self.records(path):
                read = True
                if isinstance(record, EventsRecord):
                    yield from filter(self._counts, record.events)
            if not read and not path.exists():
                raise SourceError(f"the serving log was shortened while it was read: {path.name} is gone")

    def records(self, segment: Path) -> Iterator[Record]:
        """The records of a segment, events and all others; none when it has gone.

        Raises:
            SourceError: it cannot be read.
        """
        try:
            yield from read_segments([segment], self._count_torn, self.sizes[segment])
        except (DiskError, FormatError) as error:
            raise SourceError(f"the serving log cannot be read: {error.message}") from error

    def fingerprint(self) -> str:
        """Changes when an interaction of the run's time comes or goes, wherever in the log it stands."""
        total = 0
        for event in self.events():
            row = "\0".join([event.user, event.item, event.event, str(int(event.time)), event.device or ""])
            total += int.from_bytes(hashlib.blake2b(row.encode(), digest_size=16).digest(), "little")
        return f"{total % (1 << 128):032x}"

    def write(self, folder: Path) -> int:
        """Write the interactions as a Parquet file; how many there are."""
        folder.mkdir(parents=True)
        rows, count = [], 0
        with pq.ParquetWriter(folder / "part-00000.parquet", COLUMNS) as file:
            for event in self.events():
                rows.append((event.user, event.item, event.event, int(event.time), event.device))
                count += 1
                if len(rows) == ROWS_AT_ONCE:
                    file.write_table(_table(rows))
                    rows = []
            file.write_table(_table(rows))
        return count

    def _count_torn(self, tail: Tail) -> None:
        self.left_out["torn bytes"] += tail.bytes

    def _counts(self, event: LoggedEvent) -> bool:
        if not self.since <= int(event.time) < self.until:
            return False
        # Whoever may post events chooses their types and ids, and what is logged cannot be mended: neither a type that
        # nobody has foreseen nor an id that `prepare` calls malformed may stop the night.
        if REPLACEMENT in event.user or REPLACEMENT in event.item:
            self.left_out["ids that are not UTF-8"] += 1
            return False
        if event.event == IMPRESSION or event.event not in self.weights:
            self.left_out[event.event] += 1
            return False
        return True


def source_of(folder: Path) -> Source:
    """What `write` has written, as a source."""
    return Source("interactions", folder, "parquet", (folder / "part-00000.parquet",), ())


def columns_of(config: Interactions) -> Interactions:
    """How to read that source: its own columns, the weights of the configuration."""
    return Interactions(
        user="user_id", item="item_id", time="timestamp", time_unit="seconds", event="event", session="",
        device="device", event_weights=config.event_weights,
    )  # fmt: skip


def _table(rows: list[tuple[str, str, str, int, str | None]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, COLUMNS.types, strict=True)], COLUMNS)
