"""What passes between two steps: a dataset with a manifest, complete or absent.

`<workspace>/<day>/<name>/` exists under its final name if and only if it is complete. It is written beside it, in a
folder `.<name>.draft…`, and renamed at the end. Its fingerprint says what it was made from: the step, the day, the
input datasets' fingerprints and the settings. The same fingerprint again means there is nothing to do.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from jobs.disk import refusals_for_people
from jobs.errors import DatasetBusyError, DatasetDamagedError, JobError, MissingDatasetError
from jobs.lock import lock

if TYPE_CHECKING:
    import pyarrow.dataset
    from pyspark.sql import DataFrame, SparkSession

MANIFEST = "manifest.json"
FORMAT = 1
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
DAY_SECONDS = 86_400

STEP_OF = {
    "prepared": "prepare",
    "model": "train",
    "embeddings": "embed",
    "candidates": "retrieve",
    "lists": "lists",
    "evaluation": "evaluate",
    "report": "evaluate",
    "ranker": "train-ranker",
    "version": "build",
}
"""The verb that makes each dataset, in journey order."""

VERB_OF = STEP_OF | {"tuning": "tune"}
"""And of what no journey makes."""

REVISION = dict.fromkeys(STEP_OF, 1) | {
    "prepared": 3, "model": 11, "embeddings": 3, "candidates": 3, "lists": 4, "evaluation": 8, "version": 6,
    "ranker": 7,
}  # fmt: skip
"""Raised when a step's code starts to give another output for the same inputs, so that old datasets are made anew."""

CHANGED_ONLY = "changed_only"
"""The further fact of `candidates` that says what was carried over. It depends on what was there before, and so must
not get into what is made from it."""


class DatasetManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a complete dataset says of itself."""

    format: int
    name: str
    day: str
    fingerprint: str
    inputs: dict[str, str]
    """Name of each input dataset, or of an input outside the workspace, to its fingerprint."""
    rows: dict[str, int]
    extra: dict[str, msgspec.Raw]
    seconds: float
    files: dict[str, int] = {}
    """Bytes of each file but the hidden ones; those of an earlier release say nothing."""
    revision: int = 0
    """See REVISION."""


class Dataset:
    """A complete dataset on disk. Read-only."""

    def __init__(self, path: Path, manifest: DatasetManifest) -> None:
        self.path = path
        self.manifest = manifest
        self.fingerprint = manifest.fingerprint
        self.name = manifest.name
        self.rows = manifest.rows

    def part(self, name: str) -> Path:
        """The folder or file `name` inside the dataset."""
        return self.path / name

    def read(self, spark: SparkSession, name: str) -> DataFrame:
        """The part `name` as Spark reads it. Glob characters in its path are meant literally."""
        from jobs.source_rows import read_address

        return spark.read.parquet(read_address(self.part(name)))

    def arrow(self, name: str) -> pyarrow.dataset.Dataset:
        """The part `name` as Arrow reads it: nothing yet, then what is asked for."""
        import pyarrow.dataset

        return pyarrow.dataset.dataset(self.part(name), format="parquet")

    def extra(self, name: str, kind: type = object) -> Any:
        """One of the manifest's further facts, decoded as `kind`.

        Raises:
            DatasetDamagedError: it is not there, as in a dataset of an earlier release.
        """
        if name not in self.manifest.extra:
            raise DatasetDamagedError(
                f"{self.path} says nothing of {name!r}, as datasets of an earlier release do not",
                hint=_again(self.manifest),
            )
        return msgspec.json.decode(self.manifest.extra[name], type=kind)


class Draft:
    """A dataset being written. `rows` and `extra` go into its manifest when the step ends without an error."""

    def __init__(self, path: Path, fingerprint: str, complete: Dataset | None = None) -> None:
        self.path = path
        self.fingerprint = fingerprint
        self.is_complete = complete is not None
        """The same fingerprint is there already, at `path` with its `rows`, and nothing has to be written."""
        self.also_read: Sequence[Dataset] = ()
        """Datasets that are read beside the inputs, and change nothing in what comes out."""
        self.rows: dict[str, int] = complete.rows if complete else {}
        self.extra: dict[str, object] = {}


def end_of(day: str) -> int:
    """The midnight UTC that ends a day, in epoch seconds: the run of that day knows everything before it."""
    midnight = datetime.combine(date.fromisoformat(day), datetime.min.time(), tzinfo=UTC)
    return int((midnight + timedelta(days=1)).timestamp())


def known_until(prepared: Dataset) -> int:
    """The run's logical time in epoch seconds: it knows everything before. The end of the day, or of a day that was not
    over the time of its newest interaction.
    """
    said = prepared.manifest.extra.get("made_at")
    return end_of(prepared.manifest.day) if said is None else msgspec.json.decode(said, type=int)


def open_dataset(workspace: str | Path, day: str, name: str) -> Dataset:
    """The complete dataset `name` of a day.

    Raises:
        MissingDatasetError: the step that makes it has not run, or has not finished.
        DatasetDamagedError: its manifest cannot be read, another release has made it otherwise, or a file is gone or
            has another size.
        JobError: this user may not read it, or such.
    """
    path = Path(workspace) / day / name
    try:
        return _read(path)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingDatasetError(
            f"the dataset {name!r} of {day} is not there: {path}",
            hint=f"make it with: shortlist {VERB_OF.get(name, name)} --day {day}",
        ) from None
    except OSError as error:
        raise JobError(
            f"the dataset {name!r} of {day} cannot be read: {error.filename or path}: {error.strerror}",
            hint="see paths.workspace, and whose it is",
        ) from error


@contextlib.contextmanager
def step(
    workspace: str | Path,
    day: str,
    name: str,
    *,
    inputs: Sequence[Dataset] = (),
    settings: Sequence[msgspec.Struct] = (),
    outside: Mapping[str, str] | None = None,
    resumable: bool = False,
) -> Iterator[Draft]:
    """Write the dataset `name` of a day, unless the same one is there already.

    Inside the block: return at once when `draft.is_complete`, else write below `draft.path`. When the block ends, the
    manifest is written, everything is synced and the draft takes its final name; the dataset that stood there before
    is gone. When the block raises, the draft is removed; with `resumable` it stays, and the next run with the same
    fingerprint finds its files again.

    Args:
        inputs: the datasets it is made from.
        settings: the configuration sections that change its contents.
        outside: name to fingerprint of inputs that are not datasets, such as your own tables.

    Raises:
        DatasetBusyError: another process is writing the same dataset, or has written one that is read anew meanwhile;
            or of two that are read one was made from another than is there now.
        JobError: the disk is full, or may not be written.
    """
    _refuse_mixed(inputs)
    final = Path(workspace) / day / name
    # Of its own: tasks of a killed run may go on for some seconds, and write where they wrote.
    draft_path = final.parent / (f".{name}.draft" if resumable else f".{name}.draft-{secrets.token_hex(4)}")
    sources = {dataset.name: dataset.fingerprint for dataset in inputs} | dict(outside or {})
    own = fingerprint(day, name, sources, settings)
    with refusals_for_people(VERB_OF.get(name, name), final), contextlib.ExitStack() as stack:
        final.parent.mkdir(parents=True, exist_ok=True)
        stack.enter_context(lock(final.parent / f".{name}.lock", f"{name} of {day}"))
        _sweep(final)
        existing = _existing(final)
        if existing is not None and existing.fingerprint == own:
            yield Draft(final, own, existing)
            return
        _clear(draft_path, own if resumable else None)
        draft = Draft(draft_path, own)
        started = time.monotonic()
        try:
            yield draft
            _refuse_replaced([*inputs, *draft.also_read])
        except BaseException:
            if not resumable:
                shutil.rmtree(draft_path, ignore_errors=True)
            raise
        manifest = DatasetManifest(
            format=FORMAT,
            name=name,
            day=day,
            fingerprint=own,
            inputs=sources,
            rows=draft.rows,
            extra={key: msgspec.Raw(msgspec.json.encode(value)) for key, value in draft.extra.items()},
            seconds=round(time.monotonic() - started, 3),
            files=_sizes(draft_path),
            revision=REVISION.get(name, 1),
        )
        _complete(draft_path, final, manifest)


def fingerprint(day: str, name: str, sources: Mapping[str, str], settings: Sequence[msgspec.Struct]) -> str:
    """What the dataset `name` of a day is known by when it is made from these inputs with these settings."""
    parts = [name, REVISION.get(name, 1), day, dict(sources), [[type(s).__name__, s] for s in settings]]
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()[:32]


def write_json(path: Path, value: object) -> None:
    """Write a file that people can read, too."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def _existing(final: Path) -> Dataset | None:
    """The complete dataset under the final name; None when there is none, or none that can be read: it is made anew."""
    try:
        return _read(final)
    except (FileNotFoundError, NotADirectoryError, DatasetDamagedError):
        return None


def _sweep(final: Path) -> None:
    """Remove what killed runs have left; not a draft that can be gone on with."""
    for leftover in (*final.parent.glob(f".{final.name}.draft-*"), _aside(final)):
        shutil.rmtree(leftover, ignore_errors=True)


def _aside(final: Path) -> Path:
    """Where a dataset lies for the moment in which another takes its name."""
    return final.parent / f".{final.name}.old"


def _refuse_replaced(inputs: Sequence[Dataset]) -> None:
    for dataset in inputs:
        now = _existing(dataset.path)
        if now is None or now.fingerprint != dataset.fingerprint:
            raise DatasetBusyError(
                f"another process has made {dataset.name} anew while it was read: {dataset.path}", hint="run again"
            )


def _refuse_mixed(inputs: Sequence[Dataset]) -> None:
    """The steps of two runs may alternate: numbers of items and users mean nothing in a dataset of the other run."""
    there = {dataset.name: dataset for dataset in inputs}
    for dataset in inputs:
        for name, made_from in dataset.manifest.inputs.items():
            if name in there and there[name].fingerprint != made_from:
                raise DatasetBusyError(
                    f"{dataset.path} was made from another {name} than is there now",
                    hint=f"{_again(dataset.manifest)}; or wait for the run that makes them anew",
                )


def _clear(draft: Path, keep: str | None) -> None:
    """Leave an empty draft folder, or the one that an earlier run with the fingerprint `keep` left behind."""
    mark = draft / ".fingerprint"
    if keep is not None and mark.is_file() and mark.read_text() == keep:
        (draft / MANIFEST).unlink(missing_ok=True)  # of a run that was killed while it was completed
        return
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    if keep is not None:
        mark.write_text(keep)


def _complete(draft: Path, final: Path, manifest: DatasetManifest) -> None:
    write_json(draft / MANIFEST, manifest)
    for folder, _, files in os.walk(draft):
        for name in files:
            _sync(Path(folder) / name)
        _sync(Path(folder))
    if final.exists():
        final.rename(_aside(final))
    draft.rename(final)
    (final / ".fingerprint").unlink(missing_ok=True)  # no sooner: without it all would be done again
    _sync(final.parent)
    _sweep(final)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sizes(folder: Path) -> dict[str, int]:
    files = (file for file in sorted(folder.rglob("[!._]*")) if file.is_file())
    return {str(file.relative_to(folder)): file.stat().st_size for file in files}


def _again(manifest: DatasetManifest) -> str:
    return f"make it again: shortlist {VERB_OF.get(manifest.name, manifest.name)} --day {manifest.day}"


def _read(path: Path) -> Dataset:
    try:
        manifest = msgspec.json.decode((path / MANIFEST).read_bytes(), type=DatasetManifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DatasetDamagedError(
            f"the manifest of {path} cannot be read: {error}", hint=f"remove {path} and run again"
        ) from error
    if manifest.format != FORMAT:
        raise DatasetDamagedError(
            f"{path} has format {manifest.format}, this release reads {FORMAT}", hint=f"remove {path} and run again"
        )
    if manifest.revision != REVISION.get(manifest.name, 1):
        raise DatasetDamagedError(f"{path} was made by another release, otherwise than now", hint=_again(manifest))
    for name, size in manifest.files.items():
        file = path / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            raise DatasetDamagedError(
                f"{file} is gone" if found is None else f"{file} has {found:,} bytes, wanted {size:,}",
                hint=_again(manifest),
            )
    return Dataset(path, manifest)
