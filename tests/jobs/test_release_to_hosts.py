"""The end of a night where several hosts share object storage: pushed, decided among them, and retired there."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from shop_store import judge, write_small_version

from jobs import datasets, release
from jobs.errors import DatasetBusyError
from prediction_store import history
from prediction_store.manifest import read_manifest
from prediction_store.transfer.copies import find_copy, names_there
from prediction_store.transfer.flow import Flow
from prediction_store.transfer.outgoing import send
from prediction_store.transfer.remote import Remote
from prediction_store.transfer.shared import RemoteHistory
from schemas.config import Config, Paths, Store

NOW = 2e9


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        paths=Paths(workspace=str(tmp_path / "work"), store=str(tmp_path / "store")),
        store=Store(remote=(tmp_path / "remote").as_uri(), keep_versions=2),
    )


def built(config: Config, day: str, made_at: int, *, gated: bool = True) -> str:
    """A version of a day, as `build` and `gate` leave it."""
    root = Path(config.paths.store)
    name = write_small_version(root, inputs=day, made_at=made_at, now=made_at + 3600)
    with datasets.step(config.paths.workspace, day, "version") as draft:
        draft.extra["version"] = name
    if gated:
        judge(root, name, candidates=1, now=NOW)
    return name


def test_cutover_pushes_first_and_decides_among_the_hosts(config: Config) -> None:
    name = built(config, "2027-01-15", 1_800_000_000)
    report = release.cutover(config, "2027-01-15", NOW)
    remote = Remote(config.store.remote)
    assert find_copy(remote, name) is not None
    newest = RemoteHistory(remote).newest()
    assert newest is not None
    assert (newest.version, newest) == (name, history.current(Path(config.paths.store)))
    assert report.details["sent_files"] == len(read_manifest(Path(config.paths.store), name).files)
    again = release.cutover(config, "2027-01-15", NOW)
    assert (again.skipped, again.details["sent_files"]) == (True, 0)


def test_a_history_that_is_there_already_is_carried_on(config: Config) -> None:
    alone = msgspec.structs.replace(config, store=Store())
    first, second = built(config, "2027-01-15", 1_800_000_000), built(config, "2027-01-16", 1_800_086_400)
    release.cutover(alone, "2027-01-15", NOW)
    release.cutover(config, "2027-01-16", NOW)
    remote = Remote(config.store.remote)
    assert RemoteHistory(remote).newest_number() == 2
    assert set(names_there(remote)) == {first, second}, "what rollback goes to is there, too"


def test_a_backfilled_day_does_not_replace_what_another_host_has_made_current(config: Config, tmp_path: Path) -> None:
    other = tmp_path / "other"
    later = write_small_version(other, inputs="later", made_at=1_900_000_000, cut_over=True)
    list(send(other, Remote(config.store.remote, make=True), [later], flow=Flow(), parallel=4))
    built(config, "2027-01-15", 1_800_000_000)
    report = release.cutover(config, "2027-01-15", NOW)
    assert report.details["current_is_newer"] == later
    assert RemoteHistory(Remote(config.store.remote)).newest_number() == 1


def test_a_version_without_its_gates_is_not_pushed(config: Config) -> None:
    built(config, "2027-01-15", 1_800_000_000, gated=False)
    with pytest.raises(DatasetBusyError):
        release.cutover(config, "2027-01-15", NOW)
    assert names_there(Remote(config.store.remote)) == {}


def test_retire_writes_its_removals_into_the_shared_history_and_prunes(config: Config) -> None:
    names = []
    for day in range(15, 18):
        names.append(built(config, f"2027-01-{day}", 1_800_000_000 + day * 86_400))
        release.cutover(config, f"2027-01-{day}", NOW)
    report = release.retire(config, "2027-01-17", NOW)
    assert (report.details["removed"], report.details["pruned"], report.details["old_days"]) == (1, 1, 2)
    remote = Remote(config.store.remote)
    newest = RemoteHistory(remote).newest()
    assert newest is not None
    assert (newest.action, newest.subjects, newest.version) == ("retire", [names[0]], names[2])
    assert set(names_there(remote)) == set(names[1:])
