"""Temporary folders: one for each process, and none that outlives the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from jobs.temporary import temporary_folder

DIES_IN_THE_MIDST = """
import os, signal
from jobs.temporary import temporary_folder
with temporary_folder() as folder:
    (folder / "spilled").mkdir()
    (folder / "spilled" / "rows").write_bytes(bytes(1000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_a_folder_is_there_for_a_block_and_no_longer(root: Path) -> None:
    with temporary_folder() as one, temporary_folder() as other:
        (one / "file").write_text("")
        assert {*root.iterdir()} == {one, other}
    assert [*root.iterdir()] == []


def test_what_a_killed_process_has_left_is_removed_by_the_next_and_what_is_in_use_is_not(root: Path) -> None:
    (root / "shortlist-of-somebody-else").mkdir()
    (root / "shortlist-step-link").symlink_to(root / "shortlist-of-somebody-else")
    others = {*root.iterdir()}
    with temporary_folder() as living:
        dead = subprocess.run([sys.executable, "-c", DIES_IN_THE_MIDST], check=False).returncode
        assert dead == -signal.SIGKILL
        assert len({*root.iterdir()} - others) == 2
        with temporary_folder() as own:
            assert {*root.iterdir()} - others == {living, own}
    assert {*root.iterdir()} == others


@pytest.mark.skipif(os.getuid() != 0, reason="only root has the folders of two users")
def test_the_folder_of_another_user_is_left_alone(root: Path) -> None:
    theirs = root / "shortlist-step-theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, -1)
    with temporary_folder():
        assert theirs.exists()
