"""A dataset is complete or absent, and is not made twice from the same inputs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import datasets
from jobs.errors import DatasetBusyError, DatasetDamagedError, JobError, MissingDatasetError
from jobs.old_days import remove_old_days
from schemas.config import Train

DAY = "2026-01-02"


def make(workspace: Path, text: str, settings: Train | None = None, resumable: bool = False) -> bool:
    """Write one file into the dataset `model`; True when it was written, False when it was skipped."""
    with datasets.step(workspace, DAY, "model", settings=[settings or Train()], resumable=resumable) as draft:
        if draft.is_complete:
            return False
        (draft.path / "file").write_text(text)
        draft.rows["file"] = 1
        draft.extra["word"] = text
    return True


def test_what_was_written_can_be_opened(tmp_path: Path) -> None:
    assert make(tmp_path, "one")
    dataset = datasets.open_dataset(tmp_path, DAY, "model")
    assert dataset.part("file").read_text() == "one"
    assert dataset.rows == {"file": 1}
    assert dataset.extra("word") == "one"


def test_what_an_earlier_release_does_not_say_is_said_to_be_missing(tmp_path: Path) -> None:
    make(tmp_path, "one")
    with pytest.raises(DatasetDamagedError, match="model says nothing of 'order'") as refused:
        datasets.open_dataset(tmp_path, DAY, "model").extra("order")
    assert refused.value.hint == f"make it again: shortlist train --day {DAY}"


def test_what_another_release_has_made_otherwise_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "one")
    monkeypatch.setitem(datasets.REVISION, "model", 99)
    with pytest.raises(DatasetDamagedError, match="model was made by another release") as refused:
        datasets.open_dataset(tmp_path, DAY, "model")
    assert refused.value.hint == f"make it again: shortlist train --day {DAY}"
    assert make(tmp_path, "one")
    assert datasets.open_dataset(tmp_path, DAY, "model").manifest.revision == 99


def test_the_same_inputs_and_settings_are_skipped(tmp_path: Path) -> None:
    assert make(tmp_path, "one")
    assert not make(tmp_path, "two")
    assert datasets.open_dataset(tmp_path, DAY, "model").part("file").read_text() == "one"


def test_another_setting_makes_it_anew(tmp_path: Path) -> None:
    make(tmp_path, "one")
    assert make(tmp_path, "two", Train(seed=8))
    assert datasets.open_dataset(tmp_path, DAY, "model").part("file").read_text() == "two"


def test_another_input_makes_the_next_dataset_anew(tmp_path: Path) -> None:
    fingerprints = set()
    for seed in (1, 2, 2):
        make(tmp_path, "x", Train(seed=seed))
        model = datasets.open_dataset(tmp_path, DAY, "model")
        with datasets.step(tmp_path, DAY, "embeddings", inputs=[model]) as draft:
            pass
        fingerprints.add(datasets.open_dataset(tmp_path, DAY, "embeddings").fingerprint)
    assert draft.is_complete
    assert len(fingerprints) == 2


def test_a_failed_step_leaves_the_old_dataset_and_no_litter(tmp_path: Path) -> None:
    make(tmp_path, "one")
    with pytest.raises(ZeroDivisionError), datasets.step(tmp_path, DAY, "model", settings=[Train(seed=8)]) as draft:
        (draft.path / "file").write_text("half")
        raise ZeroDivisionError
    assert datasets.open_dataset(tmp_path, DAY, "model").part("file").read_text() == "one"
    assert sorted(path.name for path in (tmp_path / DAY).iterdir()) == [".model.lock", "model"]


def test_a_resumable_step_finds_its_files_again_only_for_the_same_fingerprint(tmp_path: Path) -> None:
    def fail(seed: int) -> list[str]:
        with datasets.step(tmp_path, DAY, "model", settings=[Train(seed=seed)], resumable=True) as draft:
            found = sorted(path.name for path in draft.path.iterdir() if not path.name.startswith("."))
            (draft.path / f"checkpoint-{seed}").touch()
            raise RuntimeError(found)

    for seed, found in [(1, "[]"), (1, "['checkpoint-1']"), (2, "[]")]:
        with pytest.raises(RuntimeError) as caught:
            fail(seed)
        assert str(caught.value) == found


def test_a_killed_step_leaves_nothing_visible_and_holds_nothing_up(tmp_path: Path) -> None:
    code = f"""
        import os, signal
        from jobs import datasets
        from schemas.config import Train
        with datasets.step({str(tmp_path)!r}, {DAY!r}, "model", settings=[Train()]) as draft:
            (draft.path / "file").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -9
    with pytest.raises(MissingDatasetError):
        datasets.open_dataset(tmp_path, DAY, "model")
    assert make(tmp_path, "whole")
    assert datasets.open_dataset(tmp_path, DAY, "model").part("file").read_text() == "whole"


def test_a_resumable_step_killed_while_it_is_completed_finds_its_files_again(tmp_path: Path) -> None:
    make(tmp_path, "one")
    code = f"""
        import os, signal
        from jobs import datasets
        from schemas.config import Train
        with datasets.step({str(tmp_path)!r}, {DAY!r}, "model", settings=[Train(seed=8)], resumable=True) as draft:
            (draft.path / "file").write_text("whole")
            os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -9
    with datasets.step(tmp_path, DAY, "model", settings=[Train(seed=8)], resumable=True) as draft:
        assert (draft.path / "file").read_text() == "whole"
    found = datasets.open_dataset(tmp_path, DAY, "model").path
    assert sorted(path.name for path in found.iterdir()) == ["file", "manifest.json"]


@pytest.mark.parametrize(("name", "verb"), [("model", "train"), ("tuning", "tune")])
def test_what_a_disk_refuses_is_told_with_the_place_and_a_next_step(tmp_path: Path, name: str, verb: str) -> None:
    with (
        pytest.raises(JobError, match=f"{verb}: the disk is full: {tmp_path}/{DAY}/{name}") as caught,
        datasets.step(tmp_path, DAY, name),
        Path("/dev/full").open("w") as full,
    ):
        full.write("x")
    assert "paths.workspace" in str(caught.value.hint)
    (tmp_path / "file").touch()
    with pytest.raises(JobError, match=f"train: a file lies where a folder is wanted: {tmp_path}/file/{DAY}") as other:
        make(tmp_path / "file", "one")
    with pytest.raises(ZeroDivisionError), datasets.step(tmp_path, DAY, "model"):
        raise ZeroDivisionError
    assert "ls -ld" in other.value.hint
    assert "room" not in other.value.hint


@pytest.mark.parametrize(("place", "reason"), [("a loop", "symbolic links"), ("x" * 300, "File name too long")])
def test_a_path_that_can_be_no_workspace_is_told_with_the_reason(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "a loop").symlink_to("a loop")
    with pytest.raises(JobError, match=f"the dataset 'model' of {DAY} cannot be read: .*{reason}"):
        datasets.open_dataset(tmp_path / place, DAY, "model")
    with pytest.raises(JobError, match=r"train: (links lead in a circle|the name is too long): "):
        make(tmp_path / place, "one")
    with pytest.raises(JobError, match=f"the workspace cannot be read: .*{reason}"):
        remove_old_days(tmp_path / place, keep_days=1, but=DAY, now=0)


ON_A_SMALL_DISK = """
import os, sys
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.parquet as pq, torch
from safetensors.torch import save_file
from jobs import datasets
from jobs.errors import JobError

many = np.arange(100_000.0)
writers = {
    "text": lambda file: file.write_text("x" * 100_000),
    "numpy": lambda file: np.save(file, many),
    "arrow": lambda file: pq.write_table(pa.table({"many": many}), file),
    "safetensors": lambda file: save_file({"many": torch.from_numpy(many)}, file),
}
for name, write in writers.items():
    try:
        with datasets.step("work", "2026-01-02", "model") as draft:
            write(draft.path / "file")
    except JobError as error:
        print(name, error.message.split(": ")[1])
os.system("mount -o remount,ro .")
try:
    with datasets.step("new", "2026-01-02", "model"):
        pass
except JobError as error:
    print("read-only", error.message.split(": ")[1])
"""


def test_every_library_that_fills_a_disk_is_understood(tmp_path: Path) -> None:
    line = 'mount -t tmpfs -o size=64k tmpfs "$1" && cd "$1" && exec "$2" -c "$3"'
    argv = ["unshare", "-rm", "sh", "-c", line, "sh", tmp_path, sys.executable, ON_A_SMALL_DISK]
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environ)
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no disk can be mounted here: {done.stderr}")
    expected = [*(f"{name} the disk is full" for name in ("text", "numpy", "arrow", "safetensors"))]
    assert done.stdout.splitlines() == [*expected, "read-only the disk is read-only"], done.stderr


def test_spark_reads_addresses_alone() -> None:
    """A bare path is a pattern to it."""
    bare = re.compile(
        r"\bread\.(?:\w+\([^()]*\)\.)*(?:parquet|csv|text|json)\((?!read_address|list\(map\(read_address)"
    )
    assert bare.search('spark.read.parquet(str(prepared.part("users")))')
    sources = sorted(Path(datasets.__file__).parent.rglob("*.py"))
    assert [file.name for file in sources if bare.search(file.read_text())] == []


@pytest.mark.parametrize("damage", [lambda file: os.truncate(file, 2), Path.unlink])
def test_a_file_that_is_not_as_it_was_written_stops_who_reads_it_and_is_made_anew(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    make(tmp_path, "one")
    damage(tmp_path / DAY / "model" / "file")
    with pytest.raises(DatasetDamagedError, match=f"{DAY}/model/file (is gone|has 2 bytes, wanted 3)") as caught:
        datasets.open_dataset(tmp_path, DAY, "model")
    assert caught.value.hint == f"make it again: shortlist train --day {DAY}"
    assert make(tmp_path, "one")


def test_what_was_read_while_another_made_it_anew_becomes_no_dataset(tmp_path: Path) -> None:
    make(tmp_path, "one")
    model = datasets.open_dataset(tmp_path, DAY, "model")
    with (
        pytest.raises(DatasetBusyError, match="has made model anew while it was read"),
        datasets.step(tmp_path, DAY, "embeddings", inputs=[model]),
    ):
        make(tmp_path, "two", Train(seed=8))
    assert not (tmp_path / DAY / "embeddings").exists()


def test_datasets_of_two_runs_are_not_mixed(tmp_path: Path) -> None:
    """One run has made `model` anew when another, which has made `embeddings` from the model before, goes on."""
    make(tmp_path, "one")
    with datasets.step(tmp_path, DAY, "embeddings", inputs=[datasets.open_dataset(tmp_path, DAY, "model")]):
        pass
    make(tmp_path, "two", Train(seed=8))
    both = [datasets.open_dataset(tmp_path, DAY, name) for name in ("model", "embeddings")]
    mixed = pytest.raises(DatasetBusyError, match="embeddings was made from another model than is there now")
    with mixed as refused, datasets.step(tmp_path, DAY, "candidates", inputs=both):
        pass
    assert str(refused.value.hint).startswith(f"make it again: shortlist embed --day {DAY}; or wait")


def test_tasks_that_outlive_a_killed_run_do_not_write_into_the_next_one(tmp_path: Path) -> None:
    """Spark's Java sees some seconds later that its Python is gone."""
    code = f"""
        import os, signal
        from jobs import datasets
        with datasets.step({str(tmp_path)!r}, {DAY!r}, "embeddings") as draft:
            print(draft.path, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    with datasets.step(tmp_path, DAY, "embeddings") as draft:
        Path(killed.stdout.strip()).mkdir(exist_ok=True)
        (Path(killed.stdout.strip()) / "late").touch()
        (draft.path / "file").touch()
    assert sorted(path.name for path in (tmp_path / DAY / "embeddings").iterdir()) == ["file", "manifest.json"]
    assert sorted(path.name for path in (tmp_path / DAY).iterdir()) == [".embeddings.lock", "embeddings"]


def test_a_step_that_is_skipped_sweeps_what_a_killed_one_has_left(tmp_path: Path) -> None:
    make(tmp_path, "one")
    for leftover in (".model.draft-0123abcd", ".model.old"):
        (tmp_path / DAY / leftover / "part").mkdir(parents=True)
    assert not make(tmp_path, "one")
    assert sorted(path.name for path in (tmp_path / DAY).iterdir()) == [".model.lock", "model"]


def test_two_runs_of_one_step_do_not_share_a_draft(tmp_path: Path) -> None:
    with (
        datasets.step(tmp_path, DAY, "model"),
        pytest.raises(DatasetBusyError, match="another process is making model"),
    ):
        make(tmp_path, "two")


def test_a_missing_dataset_names_the_step_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(MissingDatasetError) as caught:
        datasets.open_dataset(tmp_path, DAY, "prepared")
    assert caught.value.hint == f"make it with: shortlist prepare --day {DAY}"


@pytest.mark.parametrize("bytes_", [b"{", b'{"name": "mo\xe4el"}'])
def test_a_damaged_manifest_is_named_and_the_step_makes_it_anew(tmp_path: Path, bytes_: bytes) -> None:
    make(tmp_path, "one")
    (tmp_path / DAY / "model" / "manifest.json").write_bytes(bytes_)
    with pytest.raises(DatasetDamagedError, match="cannot be read"):
        datasets.open_dataset(tmp_path, DAY, "model")
    assert make(tmp_path, "two")
