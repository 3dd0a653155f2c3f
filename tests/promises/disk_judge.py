"""What is wrong with a disk that a power cut has left: judged from a description of it, or by the real reader."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from prediction_store import history, layout
from prediction_store.check import check
from prediction_store.errors import FormatError, StoreError
from prediction_store.gate_report import read_report
from promises.disk_model import Contents, Tree
from promises.tiny_store import problems_of
from promises.traces import Acknowledged
from schemas.gate_report import GateReport, decode_gate_report
from schemas.history import HistoryRecord, decode_history_record
from schemas.manifest import Manifest, decode_manifest

Document = TypeVar("Document")


class Judge:
    """Says what is wrong with a disk, without a disk."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self._places: dict[str, tuple[str, str, str]] = {}
        self._whole: dict[tuple[str, frozenset[tuple[str, int]]], bool] = {}
        self._digests: dict[int, str] = {}
        self._records: dict[int, HistoryRecord | None] = {}
        self._manifests: dict[int, Manifest | None] = {}
        self._reports: dict[int, GateReport | None] = {}

    def problems(self, tree: Tree, acknowledged: Acknowledged) -> list[str]:
        """What is torn, and what was acknowledged and is lost; []: nothing."""
        records: dict[int, int] = {}
        versions: dict[str, Tree] = {}
        reports: dict[str, int] = {}
        for path, content in tree.items():
            kind, name, file = self._place(path)
            if kind == "versions":
                versions.setdefault(name, {})[file] = content
            elif kind == "history":
                records[int(name)] = content
            elif kind == "gates":
                reports[name] = content
        found = self._about_the_history(records, versions, acknowledged)
        for name, files in versions.items():
            if not self._is_whole(name, files):
                found.append(f"version {name} is torn")
            elif name in reports and not self._is_about(reports[name], name, files):
                found.append(f"the gate report of {name} is torn")
        found += [f"version {name} is lost" for name in acknowledged.versions - versions.keys()]
        found += [
            f"the gate report of {name} is lost" for name in acknowledged.reports & versions.keys() - reports.keys()
        ]
        return found

    def _about_the_history(
        self, records: dict[int, int], versions: dict[str, Tree], acknowledged: Acknowledged
    ) -> list[str]:
        newest = max(records, default=0)
        if newest < acknowledged.number:
            return [f"history record {acknowledged.number} is lost"]
        if sorted(records) != list(range(1, newest + 1)):
            return ["the history has a gap"]
        decoded = {number: self._record(content) for number, content in records.items()}
        if any(record is None or record.number != number for number, record in decoded.items()):
            return ["a history record is torn"]
        record = decoded.get(newest)
        if record is None:
            return []
        manifest = versions.get(record.version, {}).get(layout.MANIFEST)
        if manifest is None or self._digest(manifest) != record.manifest_sha256:
            return [f"the current version {record.version} is not there"]
        return []

    def _place(self, path: str) -> tuple[str, str, str]:
        """("versions", version, file), ("history", number, ""), ("gates", version, ""); else nobody looks at it."""
        found = self._places.get(path)
        if found is None:
            _, kind, name, file = [*path.split("/", 3), "", "", ""][:4]
            is_nothing = not name or name.startswith(".")
            found = ("", "", "") if is_nothing else (kind, name.removesuffix(".json"), file)
            self._places[path] = found
        return found

    def _is_whole(self, name: str, files: Tree) -> bool:
        key = (name, frozenset(files.items()))
        if key not in self._whole:
            self._whole[key] = self._is_as_sealed(name, files)
        return self._whole[key]

    def _is_as_sealed(self, name: str, files: Tree) -> bool:
        manifest = self._manifest(files[layout.MANIFEST]) if layout.MANIFEST in files else None
        if manifest is None or manifest.name != name or len(files) != len(manifest.files) + 1:
            return False
        facts = manifest.files
        return all(
            file == layout.MANIFEST or (file in facts and facts[file].sha256 == self._digest(content))
            for file, content in files.items()
        )

    def _is_about(self, content: int, name: str, files: Tree) -> bool:
        report = self._report(content)
        return report is not None and (report.version, report.manifest_sha256) == (
            name, self._digest(files[layout.MANIFEST]),
        )  # fmt: skip

    def _digest(self, content: int) -> str:
        if content not in self._digests:
            self._digests[content] = sha256(self.contents.bytes_of(content)).hexdigest()
        return self._digests[content]

    def _record(self, content: int) -> HistoryRecord | None:
        if content not in self._records:
            self._records[content] = _decoded(decode_history_record, self.contents.bytes_of(content))
        return self._records[content]

    def _manifest(self, content: int) -> Manifest | None:
        if content not in self._manifests:
            self._manifests[content] = _decoded(decode_manifest, self.contents.bytes_of(content))
        return self._manifests[content]

    def _report(self, content: int) -> GateReport | None:
        if content not in self._reports:
            self._reports[content] = _decoded(decode_gate_report, self.contents.bytes_of(content))
        return self._reports[content]


def problems_on_disk(root: Path, acknowledged: Acknowledged) -> list[str]:
    """What `Judge.problems` finds, by the reader's own means."""
    found = [f"{problem.where}: {problem.what}" for problem in check(root).problems]
    try:
        record = history.current_or_none(root)
    except (StoreError, FormatError) as error:
        return [*found, str(error)]
    if record is not None:
        found += problems_of(root, {record.version})
    if (record.number if record is not None else 0) < acknowledged.number:
        found.append("the newest record is lost")
    there = set(layout.version_names(root))
    found += [f"version {name} is lost" for name in acknowledged.versions - there]
    for name in acknowledged.reports & there:
        try:
            if read_report(root, name) is None:
                found.append(f"the gate report of {name} is lost")
        except StoreError as error:
            found.append(str(error))
    return found


def _decoded(decode: Callable[[bytes], Document], data: bytes) -> Document | None:
    try:
        return decode(data)
    except FormatError:
        return None
