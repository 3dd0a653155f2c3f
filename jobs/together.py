"""The items most often met in one session with each item, counted in whole numbers.

A pair scores its sessions divided by the geometric mean of the sessions of either item: the cosine of two columns of a
table of sessions and items. Each score is computed once, from three whole numbers, so it is the same whatever the
partitioning.

Spark has no part in it: a file has all of its users, so that sessions are cut from one file after the other, and pairs,
which are many times as many, need not be shuffled.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet

from jobs import padded, pairs
from jobs.sessions import NO_SESSION, begins
from schemas.config import Lists

SESSION_EVENTS = 50
"""Last interactions of a session that count. Pairs grow with the square: this bounds a session's at 1,225, so that
robots, and tables whose times say nothing, do not decide how long it takes."""
SHRINKAGE = 5.0
"""Sessions that the geometric mean is raised by: two items met once, and together, score 1/6, not 1."""
COLUMNS = ["user_index", "item_index", "weight", "time", "session_id"]


def write(files: Sequence[str], config: Lists, dense_of: np.ndarray, folder: Path) -> None:
    """together.npy and together_scores.npy: the best `lists.neighbours` of each item, by dense index.

    Args:
        files: of `prepared`'s interactions, each with all there is of its users.
    """
    scratch = folder / ".together"
    scratch.mkdir()
    sessions = _sessions(files, config.session_gap_minutes * 60, scratch / "items")
    numbers = np.memmap(scratch / "numbers", np.uint32, "w+", shape=max(1, len(sessions.values)))
    sessions_of = pairs.turned(sessions, len(dense_of), numbers)
    paths = folder / "together.npy", folder / "together_scores.npy"
    found = pairs.best(sessions, sessions_of, config.neighbours, SHRINKAGE)
    padded.save(paths, (len(dense_of), config.neighbours), _places(found, dense_of))
    shutil.rmtree(scratch)


def sessions_in(rows: pa.Table, gap_seconds: float) -> pairs.Lists:
    """The distinct items of the last interactions of each session, by item_index.

    What a session is, `sessions.begins` says. Interactions of weight 0 say nothing here, as everywhere.

    Args:
        rows: `COLUMNS`, of whole users.
    """
    rows = rows.filter(pyarrow.compute.field("weight") > 0)
    user, item, time = (rows[name].to_numpy() for name in ("user_index", "item_index", "time"))
    names = rows["session_id"].combine_chunks().dictionary_encode()
    name = names.indices.fill_null(NO_SESSION).to_numpy()
    name = np.where(name == names.dictionary.index("").as_py(), NO_SESSION, name)
    order = np.lexsort((-item, time, name, user))  # of one time the lower item is the later one
    user, item, time, name = (column[order] for column in (user, item, time, name))
    is_first = begins(user, name, time, gap_seconds)
    number, ends = np.cumsum(is_first) - 1, np.append(np.flatnonzero(is_first)[1:], len(user))
    is_last = ends[number] - np.arange(len(user)) <= SESSION_EVENTS
    distinct = np.unique(number[is_last] << 32 | item[is_last])
    starts = np.flatnonzero(np.diff(distinct >> 32, prepend=-1))
    return pairs.Lists(np.append(starts, len(distinct)), (distinct & 0xFFFFFFFF).astype(np.int32))


def _sessions(files: Sequence[str], gap_seconds: float, path: Path) -> pairs.Lists:
    """The sessions of all files, their items in a mapped one: of these there may be as many as interactions."""
    lengths = [np.zeros(1, np.int64)]
    with path.open("wb") as items:
        for file in files:
            found = sessions_in(pyarrow.parquet.read_table(file, columns=COLUMNS), gap_seconds)
            found.values.tofile(items)
            lengths.append(np.diff(found.starts))
    starts = np.cumsum(np.concatenate(lengths))
    return pairs.Lists(starts, np.memmap(path, np.int32, "r") if starts[-1] else np.empty(0, np.int32))


def _places(found: Iterator[pairs.Best], dense_of: np.ndarray) -> Iterator[padded.Places]:
    for part in found:
        rows, columns = np.nonzero(np.arange(part.others.shape[1]) < part.counts[:, None])
        item, other = dense_of[part.first + rows], dense_of[part.others[rows, columns]]
        yield padded.Places(item, columns, other, part.scores[rows, columns])
