"""The whole journey by its command line: done once, skipped when repeated, and the same after a kill in every step."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from shop_store import judge, write_small_version

import jobs.spark
from jobs import datasets, journey, release
from jobs.datasets import STEP_OF
from jobs.errors import DatasetBusyError, SourceError
from jobs.journey import STEPS
from jobs.lock import lock
from prediction_store.check import check
from prediction_store.errors import GateRefusedError
from prediction_store.history import current
from prediction_store.layout import version_names
from prediction_store.manifest import read_manifest
from schemas.config import Config, Paths
from schemas.config_file import load_config
from schemas.data_config import Data, Interactions
from schemas.errors import UsageError
from schemas.gate_config import AtLeast

ROOT = Path(__file__).parents[2]
DAY = "2026-01-05"
CONFIG = """
[paths]
workspace = "work? [1]{a}*"
[simulate]
start_day = "2026-01-01"
days = 5
users = 150
items = 90
events_per_day = 400
[train]
max_epochs = 2
dimensions = 16
"""


def shop(folder: Path) -> Config:
    folder.mkdir()
    (folder / "shortlist.toml").write_text(CONFIG)
    return load_config(folder / "shortlist.toml", environ={})


class Killed(BaseException):
    """Raised where the process of a step dies."""


def killed_in(name: str, patch: pytest.MonkeyPatch) -> None:
    """From now on the process dies when the dataset is written and has not got its name: nothing is tidied up.

    What a real SIGKILL leaves behind is the same, and the kernel frees the lock: see `test_datasets`.
    """
    complete = datasets._complete

    def die(draft: Path, final: Path, manifest: datasets.DatasetManifest) -> None:
        if manifest.name == name:
            patch.setattr(datasets.shutil, "rmtree", lambda *_, **__: None)
            raise Killed(name)
        complete(draft, final, manifest)

    patch.setattr(datasets, "_complete", die)


@pytest.fixture(scope="module")
def run(spark: Any) -> Iterator[Callable[..., dict[str, str]]]:
    """Runs the journey of the day in the tests' own Spark session; step to outcome."""

    @contextmanager
    def session(*_: object) -> Iterator[Any]:
        yield spark

    def run(config: Config, only: Sequence[str] = STEPS) -> dict[str, str]:
        reports = journey.run(config, DAY, only, now=time.time)
        return {report.step: "skipped" if report.skipped else "done" for report in reports}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs.spark, "session", session)
        yield run


@pytest.fixture(scope="module")
def whole(run: Callable[..., dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A shop whose journey ran from end to end without any trouble, in a workspace whose name is no pattern."""
    config = shop(tmp_path_factory.mktemp("journey") / "whole")
    assert run(config) == dict.fromkeys(STEPS, "done")
    return config


def store_of(config: Config) -> Path:
    return Path(config.paths.store)


def test_a_repeated_journey_skips_what_is_done_and_changes_nothing(
    whole: Config, run: Callable[..., dict[str, str]]
) -> None:
    before = current(store_of(whole))
    again = run(whole)
    assert {step for step, outcome in again.items() if outcome == "done"} == {"gate", "retire"}
    assert current(store_of(whole)) == before


def test_a_journey_killed_in_every_step_ends_like_one_that_was_not(
    whole: Config, run: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    config = shop(tmp_path / "killed")
    for name in STEP_OF:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed, match=name):
            killed_in(name, patch)
            run(config)
        assert not (Path(config.paths.workspace) / DAY / name).exists()
        assert list((Path(config.paths.workspace) / DAY).glob(f".{name}.draft*"))
    assert run(config)["evaluate"] == "skipped"
    expected, found = (read_manifest(root, current(root).version) for root in (store_of(whole), store_of(config)))
    assert found.files == expected.files
    assert check(store_of(config)).problems == []
    assert not list((Path(config.paths.workspace) / DAY).glob(".*.draft*"))


def test_two_runs_of_a_day_do_not_alternate(whole: Config, run: Callable[..., dict[str, str]]) -> None:
    with lock(Path(whole.paths.workspace) / DAY / ".run.lock", "the other run's version"):
        with pytest.raises(DatasetBusyError, match=f"another process is making the version of {DAY}") as refused:
            run(whole, ["embed", "retrieve"])
        assert (refused.value.exit_code, refused.value.hint) == (1, "wait for it to end, then run again")
        assert run(whole, ["embed"]) == {"embed": "skipped"}
        assert run(whole, ["gate", "cutover"]) == {"gate": "done", "cutover": "skipped"}
    assert run(whole, ["embed", "retrieve"]) == dict.fromkeys(["embed", "retrieve"], "skipped")


def test_a_refused_version_stays_on_disk_and_is_not_served(whole: Config, run: Callable[..., dict[str, str]]) -> None:
    before = current(store_of(whole))
    strict = msgspec.structs.replace(
        whole,
        store=msgspec.structs.replace(whole.store, shards=3),
        gates=msgspec.structs.replace(whole.gates, users=AtLeast(fail=1000)),
    )
    with pytest.raises(GateRefusedError, match="gate users: found 1") as refused:
        run(strict, ["build", "gate", "cutover"])
    assert refused.value.exit_code == 3
    assert len(version_names(store_of(whole))) == 2
    assert current(store_of(whole)) == before


def test_what_a_gate_warns_of_is_in_the_line_of_the_step(tmp_path: Path) -> None:
    root = tmp_path / "store"
    name = write_small_version(root)
    config = Config(paths=Paths(workspace=str(tmp_path / "work"), store=str(root)))
    with datasets.step(config.paths.workspace, DAY, "version") as draft:
        draft.extra["version"] = name
    details = release.gate(config, DAY, 2e9).details
    assert (details["version"], details["against"]) == (name, "none")
    assert details["warning_short_lists"].startswith("gate short_lists: found 0.3333, wanted at most 0.05")


def test_a_backfilled_day_does_not_take_readers_back_in_time(tmp_path: Path) -> None:
    root = tmp_path / "store"
    later = write_small_version(root, inputs="later", made_at=1_900_000_000)
    earlier = write_small_version(root, inputs="earlier", made_at=1_800_000_000)
    config = Config(paths=Paths(workspace=str(tmp_path / "work"), store=str(root)))
    for day, name in (("2030-03-17", later), ("2027-01-15", earlier)):
        with datasets.step(config.paths.workspace, day, "version") as draft:
            draft.extra["version"] = name
        judge(root, name, candidates=1, now=2e9)
    assert not release.cutover(config, "2030-03-17", 2e9).skipped
    assert release.cutover(config, "2027-01-15", 2e9).details["current_is_newer"] == later
    assert current(root).version == later


def test_a_version_that_another_run_has_built_since_the_gates_is_left_to_be_tried_again(tmp_path: Path) -> None:
    root = tmp_path / "store"
    config = Config(paths=Paths(workspace=str(tmp_path / "work"), store=str(root)))
    judged, built_since = (write_small_version(root, inputs=inputs) for inputs in ("a", "b"))
    judge(root, judged, candidates=1, now=2e9)
    for name in (judged, built_since):
        with datasets.step(config.paths.workspace, DAY, "version", outside={"digest": name}) as draft:
            draft.extra["version"] = name
    with pytest.raises(DatasetBusyError, match=f"{built_since} has no gate report: another run .* built it") as stopped:
        release.cutover(config, DAY, 2e9)
    assert stopped.value.exit_code == 1, "which the DAGs try again"
    judge(root, built_since, candidates=1, now=2e9)
    assert release.cutover(config, DAY, 2e9).details["version"] == built_since


def test_a_version_from_the_future_does_not_keep_real_days_back(tmp_path: Path) -> None:
    root = tmp_path / "store"
    config = Config(paths=Paths(workspace=str(tmp_path / "work"), store=str(root)))
    end = datasets.end_of("2027-01-15")
    named = {}
    for day, made_at in (
        ("2099-01-01", datasets.end_of("2099-01-01")),
        ("2027-01-15", end),
        ("2027-01-14", end - 86_400),
    ):
        named[day] = write_small_version(root, inputs=day, made_at=made_at)
        with datasets.step(config.paths.workspace, day, "version") as draft:
            draft.extra["version"] = named[day]
        judge(root, named[day], candidates=1, now=end - 3600)
    release.cutover(config, "2099-01-01", end - 3600)
    told = release.cutover(config, "2027-01-15", end - 3600).details["replaces_from_the_future"]
    assert told == named["2099-01-01"]
    assert current(root).version == named["2027-01-15"]
    assert release.cutover(config, "2027-01-14", end - 3600).skipped, "today is no future"


def test_of_a_day_that_is_not_over_what_knows_more_is_served(tmp_path: Path) -> None:
    """The night of the day before may come late, and an earlier run of today may end late."""
    root, noon, hour = tmp_path / "store", datasets.end_of("2027-01-15") - 43_200, 3600
    own = Data(interactions=Interactions(path=str(tmp_path / "own.csv")))
    config = Config(paths=Paths(workspace=str(tmp_path / "work"), store=str(root)), data=own)

    def cut_over(day: str, made_at: int) -> Any:
        name = write_small_version(root, inputs=f"{day} {made_at}", made_at=made_at)
        with datasets.step(config.paths.workspace, day, "version", outside={"made_at": str(made_at)}) as draft:
            draft.extra["version"] = name
        judge(root, name, candidates=1, now=noon)
        return release.cutover(config, day, noon).details

    cut_over("2027-01-15", noon + 2 * hour)  # by a clock that was two hours ahead
    assert "replaces_from_the_future" in cut_over("2027-01-15", noon - 2 * hour)
    assert "history" in cut_over("2027-01-15", noon - hour)
    assert "current_is_newer" in cut_over("2027-01-15", noon - 2 * hour)
    assert "current_is_newer" in cut_over("2027-01-14", noon - 12 * hour)


def test_a_day_is_over_at_its_midnight_and_the_embedded_shop_writes_whole_days(tmp_path: Path) -> None:
    own = Config(data=Data(interactions=Interactions(path=str(tmp_path / "own.csv"))))
    midnight = datasets.end_of("2026-11-21")
    assert not journey.is_over(own, "2026-11-21", midnight - 0.5)
    assert journey.is_over(own, "2026-11-21", midnight)
    assert journey.is_over(shop(tmp_path / "shop"), "2026-11-21", 0)


def test_a_day_that_has_not_begun_is_neither_chosen_nor_taken(tmp_path: Path) -> None:
    now = datasets.end_of("2026-11-21") - 1.0
    own = Config(data=Data(interactions=Interactions(path=str(tmp_path / "own"))))
    for folder in ("date=2026-11-20", "date=2026-11-22"):
        (tmp_path / "own" / folder).mkdir(parents=True)
        (tmp_path / "own" / folder / "a.csv").write_text("timestamp\n1\n")
    assert journey.default_day(own, now) == "2026-11-20"
    with pytest.raises(SourceError, match="lies in the future: 2026-11-20 to 2026-11-22"):
        journey.default_day(own, now - 9 * 86_400)
    assert journey.checked_day(own, "2026-11-21", now) == "2026-11-21"
    with pytest.raises(UsageError, match="--day 2026-11-22 lies in the future"):
        journey.checked_day(own, "2026-11-22", now)
    assert journey.checked_day(shop(tmp_path / "shop"), "2099-01-01", now) == "2099-01-01"


def test_the_default_day_is_the_last_one_in_the_data(whole: Config, tmp_path: Path) -> None:
    assert journey.default_day(whole, 0) == DAY
    assert journey.default_day(shop(tmp_path / "empty"), 0) == DAY


def shortlist(*argv: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "shortlist.py", *argv], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_a_step_whose_input_is_missing_names_the_step_before(tmp_path: Path) -> None:
    shop(tmp_path / "empty")
    done = shortlist("train", "--day", "2026-01-03", cwd=tmp_path / "empty")
    assert done.returncode == 1
    assert "shortlist prepare --day 2026-01-03" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "--day", "yesterday"], "wanted YYYY-MM-DD"),
        (["prepare", "--day", "9999-12-31"], "wanted YYYY-MM-DD, 1970-01-01 to 9998-12-31"),
        (["simulate", "--day", "0001-01-01"], "wanted YYYY-MM-DD, 1970-01-01 to 9998-12-31"),
        (["run", "--only", "trian"], "there is no step 'trian'"),
        (["simulate", "--day", "2025-12-31"], "the shop opens on 2026-01-01"),
    ],
)
def test_a_mistake_exits_2_with_a_message(tmp_path: Path, argv: list[str], message: str) -> None:
    shop(tmp_path / "empty")
    done = shortlist(*argv, cwd=tmp_path / "empty")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_verb_simulate_writes_the_shop_whatever_the_tables_are(tmp_path: Path) -> None:
    config = shop(tmp_path / "own")
    (tmp_path / "own" / "events.csv").write_text("user_id,item_id,timestamp,event\nann,a,2024-02-29,view\n")
    done = shortlist("simulate", "--set", "data.interactions.path=events.csv", cwd=tmp_path / "own")
    assert done.returncode == 0, done.stderr
    days = sorted(path.name for path in (Path(config.simulate.output) / "interactions").iterdir())
    assert days == [f"date=2026-01-0{number}" for number in range(1, 6)]
    other = shortlist("simulate", "--set", "simulate.output=mine", "--day", "2026-01-01", cwd=tmp_path / "own")
    assert other.returncode == 0, other.stderr
    assert (tmp_path / "own" / "mine" / "interactions" / "date=2026-01-01").is_dir()


def test_the_whole_journey_of_your_own_tables_simulates_nothing(tmp_path: Path) -> None:
    config = shop(tmp_path / "own")
    done = shortlist("run", "--day", DAY, "--set", "data.interactions.path=none.csv", cwd=tmp_path / "own")
    assert "the table of interactions is not there" in done.stderr
    assert not Path(config.simulate.output).exists()


def test_a_table_of_no_day_that_can_be_run_names_it(tmp_path: Path) -> None:
    shop(tmp_path / "own")
    (tmp_path / "own" / "events" / "date=0001-01-01").mkdir(parents=True)
    (tmp_path / "own" / "events" / "date=0001-01-01" / "a.csv").write_text("user_id,item_id,timestamp,event\n")
    done = shortlist("prepare", "--set", "data.interactions.path=events", cwd=tmp_path / "own")
    assert (done.returncode, "'0001-01-01' is not a day" in done.stderr) == (2, True), done.stderr
