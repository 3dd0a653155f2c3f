"""The agent of a serving host, with several hosts in one process and a clock that passes when it is told to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from shop_store import MakeVersion

from prediction_store import contents, durable, history, holds, layout
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
from prediction_store.transfer.flow import Flow
from prediction_store.transfer.follow import HEARTBEAT_SECONDS, HOUSEKEEPING_SECONDS, Agent, Clocks
from prediction_store.transfer.hosts import read_status, waited_for
from prediction_store.transfer.outgoing import send
from prediction_store.transfer.remote import Remote
from prediction_store.transfer.shared import RemoteHistory
from schemas.config import Follow, Store, Transfer
from schemas.errors import ShortlistError
from schemas.history import HistoryRecord
from schemas.hosts import HostStatus
from schemas.manifest import decode_manifest, encode_manifest

WHO = "ann@batch"
LIMIT_SECONDS = 100.0
Observe = Callable[[Callable[[str, Path], None]], None]


class Host:
    """One serving host: its store, its agent, what the agent has said."""

    def __init__(self, name: str, cluster: Cluster, **settings: object) -> None:
        self.name, self._cluster = name, cluster
        self.root = cluster.folder / name
        self.said: list[str] = []
        self.stopping = threading.Event()
        self._settings = {"hosts": cluster.names, "limit_seconds": LIMIT_SECONDS, **settings}
        self.start()

    def start(self) -> None:
        """Run the agent, as a process does that has just begun."""
        self.agent = Agent(
            self.root, RemoteHistory(self._cluster.remote), self.name,
            follow=Follow(host=self.name, **self._settings),  # type: ignore[arg-type]
            store=Store(keep_versions=2, grace_hours=0.0), transfer=Transfer(),
            say=self.said.append, stopping=self.stopping,
            clocks=Clocks(now=lambda: 2e9 + self._cluster.at, monotonic=lambda: self._cluster.at),
        )  # fmt: skip

    def look(self) -> ShortlistError | None:
        return self.agent.round()

    @property
    def serves(self) -> str | None:
        """The version that this host's servers are told to serve."""
        record = history.current_or_none(self.root)
        return record.version if record else None

    @property
    def status(self) -> HostStatus:
        found = read_status(self._cluster.remote, self.name)
        assert found is not None
        return found


class Cluster:
    """A batch host, which makes versions and decides, and the hosts that serve."""

    def __init__(self, batch: Path, folder: Path, remote: Remote, make_version: MakeVersion) -> None:
        self.batch, self.folder, self.remote, self._make_version = batch, folder, remote, make_version
        self.names: list[str] = []
        self.at = 0.0

    def hosts(self, *names: str, **settings: object) -> list[Host]:
        """Serving hosts that flip together."""
        self.names = list(names)
        return [Host(name, self, **settings) for name in names]

    @property
    def shared(self) -> RemoteHistory:
        return RemoteHistory(self.remote)

    def make(self, inputs: str, **settings: object) -> str:
        """A version in object storage."""
        name = self._make_version(inputs, **settings)
        list(send(self.batch, self.remote, [name], flow=Flow(), parallel=4))
        return name

    def cut_over(self, name: str) -> HistoryRecord:
        return history.cutover(self.batch, name, WHO, "a test", 5, force=True, shared=self.shared)

    def publish(self, inputs: str, **settings: object) -> str:
        name = self.make(inputs, **settings)
        self.cut_over(name)
        return name

    def roll_back(self) -> str:
        return history.rollback(self.batch, WHO, "bad", 6, shared=self.shared).version

    def object_path(self, key: str) -> Path:
        return Path(self.remote.url.removeprefix("file://")) / key


@pytest.fixture
def cluster(root: Path, tmp_path: Path, folder: Remote, make_version: MakeVersion) -> Cluster:
    return Cluster(root, tmp_path, folder, make_version)


def test_a_host_that_flips_alone_follows_cutover_and_rollback(cluster: Cluster) -> None:
    a = cluster.publish("a")
    (host,) = cluster.hosts("h1", hosts=[])
    assert host.look() is None
    assert host.serves == a
    b = cluster.publish("b")
    assert host.look() is None
    assert host.serves == b
    assert set(host.status.ready) == {a, b}, "the way back is ready, too"
    assert cluster.roll_back() == a
    host.look()
    assert (host.serves, host.status.number, host.status.state) == (a, 3, "serving")
    assert check(host.root).problems == []


def test_nobody_flips_before_all_are_ready(cluster: Cluster) -> None:
    a = cluster.publish("a")
    one, two, three = hosts = cluster.hosts("h1", "h2", "h3")
    for host in (*hosts, *hosts):
        host.look()
    assert [host.serves for host in hosts] == [a, a, a]
    b = cluster.publish("b")
    one.look()
    two.look()
    assert [host.serves for host in hosts] == [a, a, a]
    assert (one.status.state, one.status.problem, one.status.wanted) == ("waiting", "waits for h2, h3", 2)
    assert set(one.status.ready) == {a, b}
    two.look()
    assert two.status.problem == "waits for h3"
    three.look()
    assert three.serves == b, "it is the last one, and sees that the others are ready"
    for host in hosts:
        host.look()
    assert [(host.serves, host.status.state) for host in hosts] == [(b, "serving")] * 3


def test_after_the_limit_those_that_are_ready_flip_without_the_others(cluster: Cluster) -> None:
    a = cluster.publish("a")
    one, two, lost = hosts = cluster.hosts("h1", "h2", "h3")
    for host in (*hosts, *hosts):
        host.look()
    b = cluster.publish("b")
    one.look()
    cluster.at += LIMIT_SECONDS - 1
    two.look()
    one.look()
    assert (one.serves, two.serves) == (a, a)
    cluster.at += 1
    one.look()
    assert one.serves == b
    assert any("without h3" in line for line in one.said)
    two.look()
    assert two.serves == b, "its own limit is not over, but someone has flipped: nobody waits any more"
    lost.start()
    lost.look()
    assert lost.serves == b, "it comes back, and has nobody to wait for"


def test_a_rollback_waits_for_nobody_who_has_the_way_back_ready(cluster: Cluster) -> None:
    a = cluster.publish("a")
    hosts = cluster.hosts("h1", "h2")
    for _ in range(2):
        for host in hosts:
            host.look()
    b = cluster.publish("b")
    for _ in range(3):
        for host in hosts:
            host.look()
    assert [host.serves for host in hosts] == [b, b]
    assert cluster.roll_back() == a
    flow_before = [len(host.said) for host in hosts]
    for host in hosts:
        host.look()
    assert [host.serves for host in hosts] == [a, a], "in the first look after it"
    assert not any("pulled" in line for host, n in zip(hosts, flow_before, strict=True) for line in host.said[n:])


def test_a_record_that_changes_nothing_that_is_served_waits_for_nobody(cluster: Cluster) -> None:
    cluster.publish("a")
    one, two = cluster.hosts("h1", "h2")
    for host in (one, two, one):
        host.look()
    holds.pin(cluster.batch, WHO, "", 9, shared=cluster.shared)
    one.look()
    assert history.current(one.root).action == "pin"
    assert one.status.number == 2


def test_a_pin_right_after_a_cutover_does_not_start_the_waiting_anew(cluster: Cluster) -> None:
    cluster.publish("a")
    one, two = cluster.hosts("h1", "h2")
    for host in (one, two, one):
        host.look()
    b = cluster.publish("b")
    one.look()
    cluster.at += LIMIT_SECONDS - 1
    holds.pin(cluster.batch, WHO, "", 9, shared=cluster.shared)
    one.look()
    assert one.status.state == "waiting"
    cluster.at += 1
    one.look()
    assert (one.serves, one.status.number) == (b, 3)
    two.look()
    assert two.serves == b


def test_a_host_that_cannot_get_ready_keeps_serving_and_says_so(cluster: Cluster) -> None:
    a = cluster.publish("a")
    one, two = cluster.hosts("h1", "h2")
    for host in (one, two, one):
        host.look()
    b = cluster.make("b")
    shard = cluster.object_path(layout.remote_file(b, layout.shard_file(0)))
    good = shard.read_bytes()
    cluster.cut_over(b)
    shard.write_bytes(bytes(len(good)))
    assert isinstance(one.look(), DamagedVersionError)
    assert (one.serves, one.status.state) == (a, "failed")
    assert "shard-0000.mdb: what arrives" in one.status.problem
    shard.write_bytes(good)
    two.look()
    assert (two.status.state, two.status.problem) == ("waiting", "waits for h1")
    assert isinstance(one.look(), DamagedVersionError), "tried again later, not at every look"
    cluster.at += readiness.FIRST_PAUSE_SECONDS
    assert one.look() is None
    assert (one.serves, one.status.state, one.status.problem) == (b, "serving", "")
    two.look()
    assert two.serves == b


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
    host.stopping.clear()
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


def test_silent_object_storage_changes_nothing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    a = cluster.publish("a")
    one, two = cluster.hosts("h1", "h2")
    for host in (one, two, one):
        host.look()
    b = cluster.publish("b")
    one.look()

    def fail(*_: object, **__: object) -> None:
        raise RemoteError("broken on purpose")

    with monkeypatch.context() as patch:
        for method in ("read", "read_piece", "sizes", "put"):
            patch.setattr(Remote, method, fail)
        assert isinstance(two.look(), RemoteError)
        assert two.serves == a
        one.look()
        assert one.serves == a
        cluster.at += LIMIT_SECONDS
        one.look()
        assert one.serves == b, "it is ready, it knows the decision, and the limit is over"
    two.look()
    assert two.serves == b


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


def test_what_a_later_shortlist_says_of_itself_is_no_reason_to_fail(cluster: Cluster) -> None:
    a = cluster.publish("a")
    one, _ = cluster.hosts("h1", "h2")
    cluster.remote.put(layout.remote_host("h2"), b'{"format":99}')
    one.look()
    assert one.status.state == "waiting"
    cluster.at += LIMIT_SECONDS
    one.look()
    assert one.serves == a


def record(version: str, number: int, since: int) -> HistoryRecord:
    return HistoryRecord(
        number=number, action="cutover", version=version, manifest_sha256="a" * 64, who=WHO, at=1, since=since
    )


A, B = "20260101T000000Z-aaaaaaaa", "20260101T000000Z-bbbbbbbb"


def status(version: str, number: int, *ready: str, digest: str = "a" * 64) -> HostStatus:
    return HostStatus(
        host="x", at=1, state="serving", number=number, version=version, ready=dict.fromkeys(ready, digest)
    )


@pytest.mark.parametrize(
    ("statuses", "missing"),
    [
        ({}, ["y", "z"]),
        ({"y": status(A, 1, A), "z": status(A, 1, A, B)}, ["y"]),
        ({"y": status(A, 1, A, B), "z": status(A, 1, A, B)}, []),
        ({"y": status(A, 1, A, B), "z": status(A, 1, B, digest="b" * 64)}, ["z"]),
        ({"y": status(B, 2, B)}, []),
        ({"y": status(B, 3, B)}, []),
        ({"y": status(B, 1)}, ["y", "z"]),
    ],
    ids=["nobody has said anything", "one is not ready", "all are", "one has other bytes", "one has flipped",
         "and has seen the pin", "one served it long ago"],
)  # fmt: skip
def test_who_has_to_be_waited_for(statuses: dict[str, HostStatus], missing: list[str]) -> None:
    for newest in (record(B, 2, 2), record(B, 3, 2)):
        assert waited_for(newest, "x", ["x", "y", "z"], statuses) == missing
