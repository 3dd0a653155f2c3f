"""An export's file is complete or absent, whatever stops it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mounts import HOME, can_mount, on_small_disk
from serving_shop import MADE_AT, Shop

from jobs.export import run
from jobs.export_rows import FORMATS
from jobs.whole_file import whole_file
from prediction_store import durable
from prediction_store.errors import DiskError


def at_a_step(step: str, act: str) -> str:
    """Code that does something just before a durable step of an export, whose arguments are those of the process."""
    return (
        "import os, signal, sys, shortlist\n"
        "from prediction_store import durable\n"
        f"def before(step, path):\n    if step == {step!r}: {act}\n"
        "durable.before = before\n"
        "sys.exit(shortlist.run(['export', *sys.argv[1:]]))"
    )


def process(code: str, *argv: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, argv)]
    return subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("name", "step"),
    [("SIGINT", "sync file"), ("SIGTERM", "create"), ("SIGTERM", "sync file"), ("SIGTERM", "rename")],
)
def test_who_is_interrupted_leaves_the_file_before_and_nothing_else(
    shop: Shop, out: Path, name: str, step: str
) -> None:
    (out / "lists.parquet").write_text("the file before")
    code = at_a_step(step, f"os.kill(os.getpid(), signal.{name})")
    done = process(code, out / "lists.parquet", "--set", f"paths.store={shop.root}")
    assert done.returncode == 130
    assert "interrupted; nothing half-done is visible" in done.stderr
    assert "Traceback" not in done.stderr
    assert [*out.iterdir()] == [out / "lists.parquet"]
    assert (out / "lists.parquet").read_text() == "the file before"


def test_what_a_killed_one_leaves_says_what_it_is_and_goes_with_the_next_of_that_name(shop: Shop, out: Path) -> None:
    (out / "lists.csv").write_text("the file before")
    done = process(
        at_a_step("rename", "os.kill(os.getpid(), signal.SIGKILL)"),
        out / "lists.csv",
        "--set",
        f"paths.store={shop.root}",
    )
    assert done.returncode == -signal.SIGKILL
    assert (out / "lists.csv").read_text() == "the file before"
    (left,) = {*out.iterdir()} - {out / "lists.csv"}
    assert left.name.startswith(".shortlist-export-lists.csv-")
    with whole_file(out / "lists.csv.gz"):
        assert left.exists()
    with whole_file(out / "lists.csv") as file:
        (living,) = {*out.iterdir()} - {out / "lists.csv", out / "lists.csv.gz"}
        assert living != left
        run(shop.config(), out / "lists.csv", k=5, placement="home", now=MADE_AT + 60.0)
        assert living.exists(), "what is in use stays"
        file.write(b"the last one")
    assert {*out.iterdir()} == {out / "lists.csv", out / "lists.csv.gz"}
    assert (out / "lists.csv").read_bytes() == b"the last one"


def test_a_folder_that_comes_in_its_way_is_told(shop: Shop, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def come(step: str, path: Path) -> None:
        if step == "rename":
            path.mkdir()

    monkeypatch.setattr(durable, "before", come)
    with pytest.raises(DiskError, match="Is a directory"):
        run(shop.config(), out / "lists.csv", k=5, placement="home", now=MADE_AT + 60.0)
    assert [*out.iterdir()] == [out / "lists.csv"]


@pytest.mark.skipif(not can_mount(), reason="no mount namespaces for this user")
@pytest.mark.parametrize("suffix", [".parquet", ".csv.gz"])
def test_a_full_disk_is_told_and_nothing_is_left_there(shop: Shop, out: Path, suffix: str) -> None:
    code = f"""
import os, shortlist
fill(sys.argv[1])
code = shortlist.run(["export", sys.argv[1] + "/lists{suffix}", "--set", "paths.store={shop.root}"])
sys.exit(10 * code + len(os.listdir(sys.argv[1])))
"""
    done = on_small_disk(out, code)
    assert (done.returncode, "No space left on device" in done.stderr) == (11, True), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_disk_that_is_full_in_the_midst_is_told_and_nothing_is_left(shop: Shop, out: Path, suffix: str) -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
        "from jobs import export; export.GROUP_ROWS = 1\n"
        "from prediction_store import durable; durable.BUFFER_BYTES = 16\n"
    )
    done = process(code + at_a_step("", "pass"), out / f"lists{suffix}", "--set", f"paths.store={shop.root}")
    assert (done.returncode, "File too large" in done.stderr) == (1, True), done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert [*out.iterdir()] == []
