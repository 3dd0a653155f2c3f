"""The operator's side of several hosts: what each verb prints, and its exit code."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from shop_store import MakeVersion, judge

import shortlist
from prediction_store import history, layout
from prediction_store.errors import RemoteError
from prediction_store.manifest import read_manifest
from prediction_store.transfer.hosts import read_status
from prediction_store.transfer.remote import Remote
from schemas.manifest import decode_manifest, encode_manifest

Verb = Callable[..., tuple[int, str, str]]
PATIENCE_SECONDS = 60.0


@pytest.fixture
def verb(tmp_path: Path, folder_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verb:
    """Run a verb on a host, which is called like its store: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def run(host: str, *argv: str) -> tuple[int, str, str]:
        settings = [f"paths.store={tmp_path / host}", f"store.remote={folder_url}", f"follow.host={host}"]
        code = shortlist.run([argv[0], *(word for setting in settings for word in ("--set", setting)), *argv[1:]])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def names(root: Path, make_version: MakeVersion) -> tuple[str, str]:
    """Two versions of the host called `store`; the first one is current."""
    names = make_version("a"), make_version("b")
    for name in names:
        judge(root, name)
    history.cutover(root, names[0], "ann@host", "first", 2)
    return names


def test_a_pull_brings_no_other_version_than_the_one_decided_on(
    names: tuple[str, str], verb: Verb, folder: Remote
) -> None:
    assert verb("store", "push")[0] == 0
    key = layout.remote_file(names[0], layout.MANIFEST)
    data = folder.read(key)
    assert data is not None
    folder.put(key, encode_manifest(msgspec.structs.replace(decode_manifest(data), expires_at=1)))
    code, _, problem = verb("other", "pull")
    assert code == 1
    assert "its manifest in" in problem


def test_from_one_host_to_another_and_back(tmp_path: Path, names: tuple[str, str], verb: Verb) -> None:
    a, b = names
    code, out, _ = verb("store", "push", a, b)
    assert code == 0
    assert [line.split(":")[0] for line in out.splitlines()] == [f"pushed {a}", f"pushed {b}"]
    n_files = len(read_manifest(tmp_path / "store", a).files)
    assert verb("store", "push")[1] == f"pushed {a}: nothing was missing, {n_files} files\n"
    code, out, _ = verb("other", "pull")
    assert (code, out.startswith(f"pulled {a}: {n_files} of {n_files} files, ")) == (0, True)
    assert history.current_or_none(tmp_path / "other") is None, "a pull makes nothing current"
    code, out, _ = verb("other", "follow", "--once")
    assert code == 0
    assert f"other: flipped to {a}, history record 1" in out
    assert verb("store", "cutover", b)[0] == 0
    assert verb("other", "follow", "--once")[0] == 0
    code, out, _ = verb("other", "rollback", "--why", "bad")
    assert (code, out[:25]) == (0, a)
    assert history.current(tmp_path / "other").version == a
    assert verb("store", "follow", "--once")[0] == 0
    assert history.current(tmp_path / "store").version == a


def test_every_verb_speaks_json(root: Path, names: tuple[str, str], verb: Verb) -> None:
    n_files = len(read_manifest(root, names[0]).files)
    (report,) = json.loads(verb("store", "push", names[0], "--json")[1])
    assert (report["version"], report["files"], report["files_in_all"]) == (names[0], n_files, n_files)
    (report,) = json.loads(verb("other", "pull", "--json")[1])
    assert report["bytes"] > 10_000
    verb("other", "follow", "--once")
    (status,) = json.loads(verb("other", "hosts", "--json")[1])
    assert (status["host"], status["state"], status["version"]) == ("other", "serving", names[0])


def test_hosts_shows_who_serves_what_and_who_is_silent(names: tuple[str, str], verb: Verb) -> None:
    assert verb("store", "push")[0] == 0
    assert "no host has said anything" in verb("store", "hosts")[1]
    verb("h1", "follow", "--once", "--shards", "0-0/2")
    verb("h2", "follow", "--once", "--shards", "0-0/5")
    code, out, _ = verb("store", "hosts", "--set", 'follow.hosts=["h1","h3"]')
    lines = out.splitlines()
    assert code == 0
    assert lines[1].split()[:5] == ["*", "h1", "serving", "1", names[0]]
    assert "0-0/2" in lines[1]
    assert lines[2].split()[:4] == ["h2", "failed", "-", "-"]
    assert lines[2].endswith("has 2 shards; this host is to hold 0-0/5")
    assert lines[3].split() == ["*", "h3", "silent"]


def test_one_look_of_follow_exits_with_what_went_wrong(names: tuple[str, str], verb: Verb, folder: Remote) -> None:
    verb("store", "push")
    folder.delete([layout.remote_file(names[0], layout.shard_file(0))])
    code, out, err = verb("other", "follow", "--once")
    assert code == 1
    assert "failed: version" in out
    assert "shard-0000.mdb is not there in file:" in err


def test_retire_removes_from_object_storage_too(root: Path, make_version: MakeVersion, verb: Verb) -> None:
    names = [make_version(inputs, cut_over=True) for inputs in "abc"]
    assert verb("store", "push", *names)[0] == 0
    code, out, _ = verb("store", "retire", "--keep", "2")
    assert code == 0
    assert out.splitlines()[:2] == [f"removed {names[0]}", f"removed {names[0]} from {verb_url(root)}"]
    report = json.loads(verb("store", "retire", "--keep", "2", "--json")[1])
    assert (report["removed"], report["pruned"]) == ([], [])


def test_what_retire_has_removed_here_is_told_although_object_storage_is_silent(
    make_version: MakeVersion, verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [make_version(inputs, cut_over=True) for inputs in "abc"]
    assert verb("store", "push", *names)[0] == 0

    def fail(*_: object, **__: object) -> None:
        raise RemoteError("no answer, on purpose")

    monkeypatch.setattr(Remote, "sizes", fail)
    code, out, err = verb("store", "retire", "--keep", "2")
    assert code == 1
    assert out.splitlines()[0] == f"removed {names[0]}"
    assert "no answer, on purpose" in err


def verb_url(root: Path) -> str:
    return (root.parent / "remote").as_uri()


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["push", "--set", "store.remote="], 2, "store.remote is not set"),
        (["hosts", "--set", "store.remote=ftp://x/y"], 2, "wanted file:///FOLDER, s3://BUCKET/PREFIX"),
        (["pull", "--set", "store.remote=file:///no/such/folder"], 1, "in object storage"),
        (["push"], 1, "no version is current, so one has to be named"),
        (["push", "20260101T000000Z-00000000"], 2, "is not there"),
        (["push", "../../etc"], 2, "is not the name of a version"),
        (["pull"], 1, "has no history yet"),
        (["pull", "20260101T000000Z-00000000"], 2, "is not complete in file:"),
        (["pull", "../../etc"], 2, "is not the name of a version"),
        (["follow", "--once", "--shards", "7-3/4"], 2, "wanted FIRST-LAST/ALL"),
        (["follow", "--once", "--shards", "all"], 2, "follow.shards"),
        (["follow", "--once", "--host", "a/b"], 2, "follow.host"),
        (["push", "--max-mb-per-second", "-1"], 2, ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_a_message_and_no_trace(
    verb: Verb, folder: Remote, argv: list[str], code: int, message: str
) -> None:
    found, _, err = verb("store", *argv)
    assert found == code
    assert message in err
    assert "Traceback" not in err


def test_sigterm_ends_follow_cleanly(tmp_path: Path, names: tuple[str, str], verb: Verb, folder: Remote) -> None:
    verb("store", "push")
    command = [sys.executable, str(Path(shortlist.__file__)), "follow", "--host", "h1"]
    settings = [f"--set=paths.store={tmp_path / 'h1'}", f"--set=store.remote={folder.url}"]
    with subprocess.Popen([*command, *settings], stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (status := read_status(folder, "h1")) is None or status.state != "serving":
            assert time.monotonic() < deadline, "it never happened"
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    assert f"flipped to {names[0]}" in out
    status = read_status(folder, "h1")
    assert status is not None
    assert (status.state, status.version) == ("stopped", names[0])
