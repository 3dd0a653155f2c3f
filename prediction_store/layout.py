"""Names and paths of the store: makes them, parses them, and nothing else does. `durable` does the writing.

store/
  history/00000042.json      versions/<name>/…      gates/<name>.json      live/items/

Object storage that several hosts share is laid out likewise; the names of its objects are made here, too.
"""

from __future__ import annotations

import os
import re
import time
from datetime import datetime
from pathlib import Path
from typing import Final

from prediction_store.errors import BuildError, DiskError, MissingVersionError
from schemas.documents import VERSION_NAME
from schemas.errors import UsageError

MANIFEST: Final = "manifest.json"
HELD: Final = "held.json"
"""Beside the manifest of a version that is here in part only."""
CANDIDATES: Final = "candidates"
ITEM_VECTORS: Final = "items/vectors.npy"
ITEM_INDEX: Final = "items/index.mdb"
USER_VECTORS: Final = "users/vectors.npy"
CONSUMED_OFFSETS: Final = "users/consumed.offsets.npy"
CONSUMED_ITEMS: Final = "users/consumed.items.npy"
SEGMENTS: Final = "users/segments.npy"
USER_BASES: Final = "users/bases.npy"
HISTORY_OFFSETS: Final = "users/history.offsets.npy"
HISTORY_ITEMS: Final = "users/history.items.npy"
HISTORY_WEIGHTS: Final = "users/history.weights.npy"
TOWER_FACTS: Final = "tower/tower.json"
TOWER_MATRIX: Final = "tower/matrix.npy"
TOWER_STRANGER: Final = "tower/stranger.npy"
TOWER_RECENCY: Final = "tower/recency.npy"
OF_TOWER: Final = (USER_BASES, HISTORY_OFFSETS, HISTORY_ITEMS, HISTORY_WEIGHTS, TOWER_FACTS, TOWER_MATRIX,
                   TOWER_STRANGER, TOWER_RECENCY)  # fmt: skip
"""All of these files are in a version, or none."""
CONTEXTS: Final = "items/context.npy"
CONTEXT_NAMES: Final = "items/context.json"
OF_CONTEXTS: Final = (CONTEXTS, CONTEXT_NAMES)
"""Both are in a version, or none."""
COLUMNS: Final = "items/columns"
LISTS: Final = "lists/lists.msgpack"
NEIGHBOURS: Final = "lists/neighbours.npy"
NEIGHBOUR_SCORES: Final = "lists/neighbour_scores.npy"
OF_TOGETHER: Final = ("lists/together.npy", "lists/together_scores.npy")
"""Both are in a version, or none."""
RANKER: Final = "ranker/weights.json"
REPORT: Final = "evaluation/report.json"
TOWER: Final = "tower"
"""The folder that only a version with a tower has."""
FOLDERS: Final = (CANDIDATES, "users", "items", COLUMNS, "lists", "ranker", "evaluation")
"""The folders that every version has, parents first."""

BUILDING: Final = ".building-"
PULLING: Final = ".pulling-"
TRASH: Final = ".trash-"
TEMPORARY: Final = ".tmp-"
ATTEMPT: Final = ".attempt-"
PART: Final = ".part-"
REMOTE_VERSIONS: Final = "versions/"
REMOTE_HISTORY: Final = "history/"
REMOTE_HOSTS: Final = "hosts/"
"""Prefixes in object storage."""
NAME_LENGTH: Final = 25
"""Characters in the name of a version."""
LAST_RECORD: Final = 99_999_999
"""The highest number that a history record can have."""

_VERSION = re.compile(VERSION_NAME)
_HISTORY = re.compile(r"([0-9]{8})\.json\Z")
_COLUMN = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")


def version_name(now: float, inputs_digest: str) -> str:
    """The name of a version built at `now` from inputs of that digest."""
    name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}-{inputs_digest[:8]}"
    if not is_version_name(name):
        raise BuildError(f"{name!r} cannot name a version: the inputs' digest must be hexadecimal")
    return name


def is_of_inputs(name: str, inputs_digest: str) -> bool:
    """True when a version of this name has inputs of that digest, as far as a name can tell."""
    return name.endswith(f"-{inputs_digest[:8]}")


def is_version_name(name: str) -> bool:
    """True for what `version_name` makes, so that no name can leave the folder of versions."""
    if _VERSION.match(name) is None:
        return False
    try:
        built_at(name)
    except ValueError:  # digits that are no time
        return False
    return True


def checked_name(name: str) -> str:
    """The name as given, if it can name a version.

    Raises:
        UsageError: it cannot.
    """
    if not is_version_name(name):
        raise UsageError(
            f"{name!r} is not the name of a version; wanted the form 20261122T031500Z-3f9c0a1b",
            hint="shortlist versions",
        )
    return name


def built_at(name: str) -> int:
    """When a version was built, by its name; UTC epoch seconds. Raises ValueError when the digits are no time."""
    return int(datetime.fromisoformat(name[:16]).timestamp())


def is_store(root: Path) -> bool:
    """True when something has been built or decided in this folder. Raises DiskError."""
    return not {"versions", "history"}.isdisjoint(entries(root))


def versions_folder(root: Path) -> Path:
    return root / "versions"


def version_path(root: Path, name: str) -> Path:
    """The folder of a sealed version. Raises UsageError for a name that is none."""
    return versions_folder(root) / checked_name(name)


def version_names(root: Path) -> list[str]:
    """Names of all sealed versions on disk, newest first; [] when there is no store."""
    return sorted((entry for entry in entries(versions_folder(root)) if is_version_name(entry)), reverse=True)


def building_path(root: Path, name: str, token: str) -> Path:
    return versions_folder(root) / f"{BUILDING}{name}-{token}"


def pulling_path(root: Path, name: str) -> Path:
    """Where a version arrives from object storage: one place, so that an interrupted pull is gone on with."""
    return versions_folder(root) / f"{PULLING}{checked_name(name)}"


def trash_path(root: Path, name: str, token: str) -> Path:
    return versions_folder(root) / f"{TRASH}{name}-{token}"


def leftovers(root: Path, prefix: str) -> list[Path]:
    """What lies in versions/ under a prefix: drafts (`BUILDING`), arrivals (`PULLING`), what is going (`TRASH`)."""
    folder = versions_folder(root)
    return [folder / entry for entry in sorted(entries(folder)) if entry.startswith(prefix)]


def history_folder(root: Path) -> Path:
    return root / "history"


def history_path(root: Path, number: int) -> Path:
    return history_folder(root) / f"{number:08d}.json"


def history_numbers(root: Path) -> list[int]:
    """Numbers of all history records, ascending; [] when there are none."""
    return sorted(int(match[1]) for entry in entries(history_folder(root)) if (match := _HISTORY.match(entry)))


def newest_history_number(root: Path) -> int:
    """The highest number of a history record; 0: there is none. Asked for at every poll."""
    for entry in sorted(entries(history_folder(root)), reverse=True):
        if match := _HISTORY.match(entry):
            return int(match[1])
    return 0


def gates_folder(root: Path) -> Path:
    return root / "gates"


def gate_path(root: Path, name: str) -> Path:
    return gates_folder(root) / f"{checked_name(name)}.json"


def live_items_folder(root: Path) -> Path:
    """The LMDB environment of the facts about items that change within the day."""
    return root / "live" / "items"


def live_items_file(root: Path) -> Path:
    """The file in that folder that holds the facts; its name is LMDB's."""
    return live_items_folder(root) / "data.mdb"


def shard_file(number: int) -> str:
    """Path of a shard inside its version."""
    return f"{CANDIDATES}/shard-{number:04d}.mdb"


def attempt_path(final: Path, token: str) -> Path:
    """Where one attempt at a file works until `commit_shard`: beside it, under a name of its own."""
    return final.with_name(f"{ATTEMPT}{final.stem}-{token}{final.suffix}")


def temporary_path(final: Path, token: str) -> Path:
    """Where a small file is written that gets its name when it is whole: beside it, under a name of its own."""
    return final.with_name(f"{TEMPORARY}{final.stem}-{token}")


def part_path(final: Path) -> Path:
    """Where a file arrives from object storage until all of it is here and verified."""
    return final.with_name(f"{PART}{final.name}")


def column_file(name: str, part: str) -> str:
    """Path of one file of a column inside its version: part is `npy`, `utf8`, `offsets.npy`, …"""
    if not _COLUMN.match(name):
        raise BuildError(f"{name!r} cannot name a column; wanted lower-case letters, digits and _")
    return f"{COLUMNS}/{name}.{part}"


def remote_file(name: str, file: str) -> str:
    """A file of a version in object storage; the manifest comes last, so that its presence says "complete"."""
    return f"{REMOTE_VERSIONS}{checked_name(name)}/{file}"


def remote_gate(name: str) -> str:
    return f"gates/{checked_name(name)}.json"


def remote_history(number: int) -> str:
    return f"{REMOTE_HISTORY}{number:08d}.json"


def remote_history_number(key: str) -> int | None:
    """The number of the history record under a key of object storage; None: it is none."""
    match = _HISTORY.match(key.removeprefix(REMOTE_HISTORY))
    return int(match[1]) if match else None


def remote_host(host: str) -> str:
    return f"{REMOTE_HOSTS}{host}.json"


def entries(folder: Path) -> list[str]:
    """Names in a folder, in no order; [] when it does not exist. Raises DiskError."""
    try:
        return os.listdir(folder)  # noqa: PTH208 a third of the time, and every worker looks five times a second
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DiskError(f"reading {folder}: {error.strerror}") from error


def files_of(version: Path) -> dict[str, Path]:
    """Every file below a version's folder that its manifest should name, by path inside the version, sorted.

    Raises:
        MissingVersionError: the folder is not there.
    """
    if not version.is_dir():
        raise MissingVersionError(f"there is no version {version.name}", hint="shortlist versions")
    found = {str(path.relative_to(version)): path for path in version.rglob("*") if not path.is_dir()}
    return {name: found[name] for name in sorted(found) if name not in (MANIFEST, HELD)}
