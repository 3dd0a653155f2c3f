"""The agent of a serving host: how it gets ready what the history names, makes room, and says how it is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from following_hosts import WHO, Cluster

from prediction_store import contents, durable, history, layout
from prediction_store.check import check
from prediction_store.errors import (
    DamagedVersionError,
    DiskError,
    DivergedHistoryError,
    RemoteError,
    TransferStoppedError,
)
from prediction_store.reader import Version
from prediction_store.transfer import readiness
from prediction_store.transfer.follow import HEARTBEAT_SECONDS, HOUSEKEEPING_SECONDS
from prediction_store.transfer.remote import Remote
from schemas.manifest import decode_manifest, encode_manifest

Observe = Callable[[Callable[[str, Path], None]], None]


def test_what_keeps_failing_is_tried_ever_more_rarely(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.publish("a")
    (host,) = cluster.hosts("h1", hosts=[])
    tries: list[float] = []

    def fail(*_: object, **__: object) -> None:
        tries.append(cluster.at)
        raise RemoteError("broken on purpose")

    monkeypatch.setattr(readiness, "pull", fail)
    for _ in range(400):
        host.look()
        cluster.at += 0.5
    assert [later - earlier for earlier, later in pairwise(tries)][:8] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_while_a_version_fails_a_rollback_is_seen_at_once(cluster: Cluster) -> None:
    a = cluster.publish("a")
    b = cluster.publish("b")
    (host,) = cluster.hosts("h1", hosts=[])
    host.look()
    c = cluster.make("c")
    cluster.cut_over(c)
    cluster.object_path(layout.remote_file(c, layout.shard_file(0))).unlink()
    host.look()
    assert (host.serves, host.status.state) == (b, "failed")
    history.rollback(cluster.batch, WHO, "", 6, to=a, shared=cluster.shared)
    host.look()
    assert (host.serves, host.status.state) == (a, "serving")


def test_a_pull_that_is_overtaken_by_another_decision_is_given_up(cluster: Cluster, observe_steps: Observe) -> None:
    """A rollback must not wait until gigabytes of what it is about have arrived."""
    a = cluster.publish("a")
    b = cluster.publish("b")
    (host,) = cluster.hosts("h1", hosts=[], poll_seconds=0.001)
    host.look()
    c = cluster.publish("c")

    def decide(step: str, path: Path) -> None:
        if step == "extend":
            observe_steps(lambda step, path: None)
            history.rollback(cluster.batch, WHO, "", 6, to=a, shared=cluster.shared)
            cluster.at += 1

    observe_steps(decide)
    assert isinstance(host.look(), TransferStoppedError)
    assert host.serves == b
    assert layout.pulling_path(host.root, c).is_dir()
    assert host.look() is None
    assert host.serves == a


def test_sigterm_ends_a_pull_and_the_next_start_goes_on(cluster: Cluster, observe_steps: Observe) -> None:
    a = cluster.publish("a")
    (host,) = cluster.hosts("h1", hosts=[])
    observe_steps(lambda step, path: host.stopping.set() if step == "extend" else None)
    assert isinstance(host.look(), TransferStoppedError)
    host.agent.close()
    assert host.status.state == "stopped"
    observe_steps(lambda step, path: None)
    host.start()
    host.look()
    assert (host.serves, host.status.state) == (a, "serving")


def test_a_host_with_a_history_of_its_own_goes_on_serving_and_says_so(cluster: Cluster) -> None:
    a = cluster.publish("a")
    b = cluster.publish("b")
    (host,) = cluster.hosts("h1", hosts=[])
    host.look()
    history.rollback(host.root, "somebody@h1", "nobody else knows", 9)
    assert isinstance(host.look(), DivergedHistoryError)
    assert (host.serves, host.status.state) == (a, "diverged")
    assert "a decision was made on this host alone" in host.status.problem
    layout.history_folder(host.root).rename(host.root / "history.of-its-own")
    assert host.look() is None
    assert (host.serves, host.status.state) == (b, "serving")


def expired(manifest: bytes) -> bytes:
    """That of another version of the same name."""
    return encode_manifest(msgspec.structs.replace(decode_manifest(manifest), expires_at=1))


@pytest.mark.parametrize(
    ("file", "change", "problem"),
    [
        (layout.shard_file(0), lambda data: bytes([data[0] ^ 1]) + data[1:], "shard-0000.mdb has digest"),
        (layout.MANIFEST, expired, "the history says"),
    ],
)
def test_a_damaged_copy_that_nobody_reads_is_pulled_anew(
    cluster: Cluster, edit_sealed: Callable[..., None], file: str, change: Callable[[bytes], bytes], problem: str
) -> None:
    a = cluster.publish("a")
    (host,) = cluster.hosts("h1", hosts=[])
    host.look()
    host.agent.close()
    edit_sealed(layout.version_path(host.root, a) / file, change)
    with Version.open(host.root, a, verify=False):
        host.start()
        assert isinstance(host.look(), DamagedVersionError), "somebody has it open"
        assert problem in host.status.problem
    cluster.at += readiness.FIRST_PAUSE_SECONDS
    assert host.look() is None
    assert any(line.startswith(f"pulling {a} anew") for line in host.said)
    assert check(host.root).problems == []


def test_a_version_larger_than_the_memory_is_not_read_through(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.publish("a")
    (host,) = cluster.hosts("h1", hosts=[])
    host.look()
    host.agent.close()
    hashed: list[Path] = []
    real = contents.sha256_of
    monkeypatch.setattr(contents, "sha256_of", lambda path: (hashed.append(path), real(path))[1])
    for available in (1 << 40, 10_000):
        hashed.clear()
        monkeypatch.setattr(readiness, "_available_bytes", lambda n=available: n)
        host.start()
        assert host.look() is None
        host.agent.close()
        assert bool(hashed) == (available > 10_000)


def test_old_versions_go_and_what_is_needed_stays(cluster: Cluster) -> None:
    names = [cluster.publish(inputs) for inputs in "abc"]
    (host,) = cluster.hosts("h1", hosts=[])
    host.look()
    assert layout.version_names(host.root) == [names[2], names[1]], "a was never needed here"
    names.append(cluster.publish("d"))
    host.look()
    assert layout.version_names(host.root) == [names[3], names[2]]
    assert any(line == f"removed {names[1]}" for line in host.said)
    durable.make_folder(layout.pulling_path(host.root, names[0]))
    cluster.at += HOUSEKEEPING_SECONDS
    host.look()
    assert layout.leftovers(host.root, layout.PULLING) == []
    assert layout.history_numbers(host.root) == [1, 2, 3, 4], "housekeeping is not a decision"


def test_a_host_without_room_makes_some_from_what_it_needs_no_more(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = cluster.publish("a")
    (host,) = cluster.hosts("h1", hosts=[])
    host.look()
    with Version.open(host.root, a):
        for inputs in "bc":
            cluster.publish(inputs)
            host.look()
    assert a in layout.version_names(host.root), "somebody had it open"
    real = durable.shutil.disk_usage

    def usage(path: Path) -> object:
        return real(path)._replace(free=1000 if a in layout.version_names(host.root) else 1 << 30)

    monkeypatch.setattr(durable.shutil, "disk_usage", usage)
    d = cluster.publish("d")
    cluster.at += HOUSEKEEPING_SECONDS
    assert isinstance(host.look(), DiskError)
    assert a not in layout.version_names(host.root)
    cluster.at += readiness.FIRST_PAUSE_SECONDS
    assert host.look() is None
    assert host.serves == d


def test_housekeeping_leaves_what_a_pull_has_brought_that_is_tried_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = (cluster.publish(inputs) for inputs in "ab")
    (host,) = cluster.hosts("h1", hosts=[])
    real = Remote.read_piece

    def broken(remote: Remote, key: str, start: int, length: int) -> bytes:
        if key == layout.remote_file(a, layout.shard_file(1)):
            raise RemoteError("broken on purpose")
        return real(remote, key, start, length)

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "read_piece", broken)
        assert host.look() is None
    assert (host.serves, host.status.problem) == (b, "no way back yet: broken on purpose")
    assert layout.pulling_path(host.root, a).is_dir()
    cluster.at += readiness.FIRST_PAUSE_SECONDS
    host.look()
    assert set(host.status.ready) == {a, b}


def test_a_way_back_that_is_gone_everywhere_is_not_waited_for(cluster: Cluster) -> None:
    a, b, c = (cluster.publish(inputs) for inputs in "abc")
    cluster.remote.delete([layout.remote_file(b, layout.MANIFEST)])
    (host,) = cluster.hosts("h1", hosts=[])
    assert host.look() is None
    assert (host.serves, set(host.status.ready)) == (c, {a, c})


def test_a_damaged_way_back_is_a_problem_and_no_failure(cluster: Cluster) -> None:
    a, b = (cluster.publish(inputs) for inputs in "ab")
    cluster.object_path(layout.remote_file(a, layout.shard_file(0))).unlink()
    (host,) = cluster.hosts("h1", hosts=[])
    assert host.look() is None
    assert (host.serves, host.status.state) == (b, "serving")
    assert host.status.problem.startswith(f"no way back yet: version {a}: candidates/shard-0000.mdb is not there")


def test_a_host_with_some_of_the_shards_follows_and_says_which(cluster: Cluster) -> None:
    a = cluster.publish("a", shards=4)
    (host,) = cluster.hosts("h1", hosts=[], shards="1-2/4")
    host.look()
    assert (host.serves, host.status.shards) == (a, "1-2/4")
    b = cluster.publish("b", shards=4)
    host.look()
    cluster.roll_back()
    host.look()
    assert (host.serves, set(host.status.ready)) == (a, {a})
    assert b not in host.status.ready


def test_hosts_without_a_decision_are_idle(cluster: Cluster) -> None:
    (host,) = cluster.hosts("h1", hosts=[])
    assert host.look() is None
    assert (host.status.state, host.status.number, host.serves) == ("idle", 0, None)
    a = cluster.publish("a")
    host.look()
    assert host.serves == a


def test_a_status_is_written_when_it_says_something_new_or_is_old(cluster: Cluster, observe_steps: Observe) -> None:
    cluster.publish("a")
    (host,) = cluster.hosts("h1", hosts=[])
    host.look()
    written: list[str] = []
    observe_steps(lambda step, path: written.append(path.name) if step == "put" else None)
    host.look()
    assert written == []
    cluster.at += HEARTBEAT_SECONDS
    host.look()
    assert written == ["h1.json"]


def test_a_status_that_cannot_be_written_is_told_once(cluster: Cluster, observe_steps: Observe) -> None:
    a = cluster.publish("a")
    (host,) = cluster.hosts("h1", hosts=[])

    def refuse(step: str, path: Path) -> None:
        if step == "put":
            raise OSError("AccessDenied")

    observe_steps(refuse)
    for _ in range(3):
        host.look()
    assert host.serves == a
    assert len([line for line in host.said if "AccessDenied" in line]) == 1
    observe_steps(lambda step, path: None)
    host.look()
    assert host.status.version == a


def test_a_store_that_cannot_be_read_is_a_failure_that_the_next_look_may_find_mended(cluster: Cluster) -> None:
    a = cluster.publish("a")
    (host,) = cluster.hosts("h1", hosts=[])
    host.look()
    folder = layout.history_folder(host.root)
    folder.rename(host.root / "aside")
    folder.touch()
    assert isinstance(host.look(), DiskError)
    assert (host.status.state, host.status.version) == ("failed", "")
    folder.unlink()
    (host.root / "aside").rename(folder)
    assert host.look() is None
    assert (host.status.state, host.status.version) == ("serving", a)
