"""Reading the log: every whole record of every segment, in order; what is torn is told, and never guessed at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from prediction_store import layout
from prediction_store.errors import DiskError
from reranker.serving_log.frames import SegmentName, Tail, frames
from reranker.serving_log.records import Record, decode

Watch = Callable[[list[Path]], Iterable[Path]]
"""Hands on the segments as they are read, so that somebody may see how far it is."""


def segments(folder: Path) -> list[Path]:
    """The segments of a log in the order of time; [] when there is no log. Raises DiskError."""
    names = [name for entry in layout.entries(folder) if (name := SegmentName.parse(entry)) is not None]
    return [folder / str(name) for name in sorted(names)]


def read_log(folder: Path, on_tail: Callable[[Tail], None]) -> Iterator[Record]:
    """Every whole record of a log: segment by segment in order of their beginning, each as it was written.

    Records of two workers are not in order of time among each other. A segment that is removed meanwhile is left out.

    Raises:
        FormatError: a record that is whole is not what this program writes.
        NewerFormatError: a later Shortlist has written a segment.
        DiskError: the disk cannot read it.
    """
    return read_segments(segments(folder), on_tail)


def read_segments(paths: Sequence[Path], on_tail: Callable[[Tail], None], max_bytes: int = -1) -> Iterator[Record]:
    """Like `read_log`, of these segments; of each only the first `max_bytes`, as if it were no longer yet. -1: all."""
    for path in paths:
        try:
            with path.open("rb") as file:
                data = file.read(max_bytes)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DiskError(f"reading {path}: {error.strerror or error}") from error
        for part in frames(path, data):
            if isinstance(part, Tail):
                on_tail(part)
            else:
                yield decode(part.payload, path, part.begin)
