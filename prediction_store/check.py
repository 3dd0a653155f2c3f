"""The checker: reads every byte of a version, or of the whole store, and lists what is not as it must be."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from prediction_store import history, layout
from prediction_store.errors import FormatError, MissingVersionError, StoreError
from prediction_store.gate_report import read_report
from prediction_store.manifest import files_here, leased, verify_environment, wrong_hashes, wrong_sizes
from prediction_store.opened import OpenedVersion, open_version, release
from prediction_store.succession import follows
from prediction_store.survey import Survey, Wanted
from schemas.history import HistoryRecord
from schemas.manifest import Manifest


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong."""

    where: str
    """A version, a history record or a gate report."""
    what: str


class CheckReport(msgspec.Struct, frozen=True):
    """What the checker has looked at and found."""

    versions: list[str]
    history_records: int
    files: int
    bytes: int
    records: int
    problems: list[Problem]


class _Findings:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.files = self.bytes = self.records = self.history_records = 0

    def note(self, where: str, what: str) -> None:
        self.problems.append(Problem(where, what))


def check(root: Path, name: str | None = None) -> CheckReport:
    """Check one version, or every version and the history. Finds; mends nothing and raises for nothing that it finds.

    A version that is retired meanwhile is no problem, and not in the report.

    Cost: reads every byte and decodes every record: some ten seconds per million users.

    Raises:
        MissingVersionError: the version asked for is not there, or not any more.
    """
    found = _Findings()
    if name is None:
        versions = layout.version_names(root)
        _check_history(root, found)
    else:
        versions = [layout.checked_name(name)]
        if name not in layout.version_names(root):
            raise MissingVersionError(f"there is no version {name} in {root}", hint="shortlist versions")
    checked = []
    for version in versions:
        try:
            _check_version(root, version, found)
        except MissingVersionError as error:
            if name is not None:
                raise
            if version not in layout.version_names(root):
                continue
            found.note(version, error.message)
        checked.append(version)
    return CheckReport(checked, found.history_records, found.files, found.bytes, found.records, found.problems)


def _check_history(root: Path, found: _Findings) -> None:
    numbers = layout.history_numbers(root)
    versions = layout.version_names(root)  # later than the records, which may name what is just being cut over to
    if numbers != list(range(1, len(numbers) + 1)):
        found.note("history", f"the records are not numbered 1 to {len(numbers)} without a gap")
    previous: HistoryRecord | None = None
    for number in numbers:
        found.history_records += 1
        try:
            record = history.read_record(root, number)
        except (StoreError, FormatError) as error:
            found.note(f"history/{number:08d}", error.message)
            previous = None
            continue
        is_next = previous is not None and previous.number == number - 1 and record.format > 1
        if previous is not None and is_next and not follows(record, previous):
            found.note(f"history/{number:08d}", "it does not carry on what the record before it carried")
        previous = record
        if number == numbers[-1] and record.version not in versions:
            found.note(f"history/{number:08d}", f"the current version {record.version} is not there")


def _check_version(root: Path, name: str, found: _Findings) -> None:
    """Raises MissingVersionError, and nothing else."""
    try:
        with leased(root, name) as sealed:
            files = files_here(sealed.path, sealed.manifest)
            found.files += len(files) + 1
            found.bytes += sum(facts.bytes for facts in files.values())
            _check_identity(root, sealed.manifest, sealed.sha256, found)
            extra = set(layout.files_of(sealed.path)) - set(sealed.manifest.files)
            for file in sorted(extra):
                found.note(name, f"{file} is there and not in the manifest")
            damaged = [*wrong_sizes(sealed.path, sealed.manifest), *wrong_hashes(sealed.path, sealed.manifest)]
            for problem in damaged:
                found.note(name, problem)
            verify_environment(sealed.manifest)
            if damaged:
                return
            opened = open_version(root, name, verify_hashes=False)
            try:
                _check_contents(opened, found)
            finally:
                release(opened)
    except MissingVersionError:
        raise
    except (StoreError, FormatError) as error:
        found.note(name, error.message)


def _check_identity(root: Path, manifest: Manifest, sha256: str, found: _Findings) -> None:
    """Hold the manifest against those who speak of it: the history and the gate report."""
    for record in reversed([*history.readable_records(root)]):  # the others are reported where the history is checked
        if record.version == manifest.name and record.manifest_sha256 != sha256:
            found.note(manifest.name, f"history record {record.number} names another manifest of that name")
    try:
        report = read_report(root, manifest.name)
    except (StoreError, FormatError) as error:
        found.note(f"gates/{manifest.name}", error.message)
    else:
        if report is not None and report.manifest_sha256 != sha256:
            found.note(manifest.name, "its gate report is about another manifest of that name")
    if not manifest.name.endswith(f"-{manifest.inputs_digest[:8]}"):
        found.note(manifest.name, f"its name does not end on the digest of its inputs, {manifest.inputs_digest[:8]}")


def _check_contents(opened: OpenedVersion, found: _Findings) -> None:
    manifest, counts = opened.manifest, opened.manifest.counts
    survey = Survey(
        Wanted(manifest.shards, opened.seed, manifest.index_bits, n_items=counts.items, n_users=counts.users)
    )
    for number, shard in enumerate(opened.shards):
        if shard is not None:  # None: on other hosts only
            survey.add(layout.shard_file(number), shard, number)
    found.records += survey.records
    for problem in survey.problems:
        found.note(manifest.name, problem)
    if survey.n_problems > len(survey.problems):
        found.note(manifest.name, f"and {survey.n_problems - len(survey.problems)} more wrong records")
    read = (survey.records, survey.lists, survey.list_items)
    said = (counts.records, counts.lists, counts.list_items)
    if read != said and None not in opened.shards:
        found.note(manifest.name, f"(records, lists, list items) are {read}; the manifest says {said}")
    lost = sum(opened.item_index(item.encode()) != index for index, item in enumerate(opened.item_ids.all()))
    if lost:
        found.note(manifest.name, f"{lost} items do not lead back from their id to their index")
    for what, array in (("item", opened.item_vectors), ("user", opened.user_vectors)):
        if not bool(np.isfinite(array).all()):
            found.note(manifest.name, f"the {what} vectors have a number that is not finite")
