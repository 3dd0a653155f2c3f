"""A dataset is complete or absent, and is not made twice from the same inputs."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from jobs import datasets
from jobs.errors import DatasetBusyError, DatasetDamagedError, MissingDatasetError
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


def test_a_damaged_manifest_is_named_and_the_step_makes_it_anew(tmp_path: Path) -> None:
    make(tmp_path, "one")
    (tmp_path / DAY / "model" / "manifest.json").write_text("{")
    with pytest.raises(DatasetDamagedError, match="cannot be read"):
        datasets.open_dataset(tmp_path, DAY, "model")
    assert make(tmp_path, "two")
