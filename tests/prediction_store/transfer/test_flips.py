"""Hosts that flip together: who waits for whom, and how long."""

from __future__ import annotations

import pytest
from following_hosts import LIMIT_SECONDS, WHO, Cluster

from prediction_store import history, holds, layout
from prediction_store.check import check
from prediction_store.errors import DamagedVersionError, RemoteError
from prediction_store.transfer import readiness
from prediction_store.transfer.hosts import waited_for
from prediction_store.transfer.remote import Remote
from schemas.history import HistoryRecord
from schemas.hosts import HostStatus


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
