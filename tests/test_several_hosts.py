"""Three hosts as they really run, over object storage: flips together, a lost host, its return, a rollback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_processes import HostProcesses
from serving_shop import Shop
from shop_server import Visitors, eventually

from prediction_store import history, layout
from prediction_store.check import check
from prediction_store.transfer.flow import Flow
from prediction_store.transfer.hosts import read_statuses
from prediction_store.transfer.outgoing import send
from prediction_store.transfer.remote import Remote
from prediction_store.transfer.shared import RemoteHistory

NAMES = ("h1", "h2", "h3")


class Town:
    """The host that builds and decides, those that serve, and who asks them."""

    def __init__(self, tmp_path: Path, url: str) -> None:
        self.remote = Remote(url)
        self.shop = Shop(tmp_path / "batch")
        settings = [
            f"store.remote={url}", f"follow.hosts={json.dumps(NAMES)}", "follow.limit_seconds=3",
            "follow.poll_seconds=0.1",
        ]  # fmt: skip
        self.hosts = [HostProcesses(name, tmp_path, *settings) for name in NAMES]
        self.visitors: dict[str, Visitors] = {}
        """Who asks each host now."""
        self.all_visitors: list[Visitors] = []
        self.kind_of: dict[str, str] = {}

    def build(self, kind: str) -> str:
        """A version with items of this kind, in object storage; nobody serves it."""
        name = self.shop.publish(kind, cutover=False)
        self.kind_of[name] = kind
        self.push(name)
        return name

    def push(self, *names: str) -> None:
        list(send(self.shop.root, self.remote, names, flow=Flow(), parallel=4))

    def cut_over(self, name: str) -> None:
        history.cutover(self.shop.root, name, "batch", "a test", 5, force=True, shared=RemoteHistory(self.remote))

    def open(self, host: HostProcesses) -> None:
        """Start a host's server, and have somebody ask it from now on."""
        host.serve()
        self.visitors[host.name] = Visitors(host.url)
        self.all_visitors.append(self.visitors[host.name])

    def wait_until_seen(self, version: str, *hosts: HostProcesses) -> None:
        """Until the visitors of these hosts see only this version."""
        for host in hosts or self.hosts:
            eventually(
                lambda: self.visitors[host.name].see_only(version),  # noqa: B023 it runs here and now
                lambda: "\n".join(f"{each.name}: {each.log('follow')}" for each in self.hosts),
            )

    def state_of(self, host: HostProcesses) -> str:
        found = read_statuses(self.remote, [host.name]).get(host.name)
        return found.state if found else ""

    def leave(self) -> None:
        for visitors in self.all_visitors:
            visitors.leave()
        for host in self.hosts:
            host.kill()


@pytest.fixture
def town(tmp_path: Path, s3_url: str) -> Iterator[Town]:
    town = Town(tmp_path, s3_url)
    try:
        yield town
    finally:
        town.leave()


def test_hosts_flip_together_and_go_on_without_one_that_is_lost_until_it_comes_back(town: Town) -> None:
    one, two, three = town.hosts
    a = town.shop.publish("a")
    town.kind_of[a] = "a"
    town.push()
    for host in town.hosts:
        host.follow()
    for host in town.hosts:
        eventually(lambda: history.current_or_none(host.store) is not None, lambda: host.log("follow"))  # noqa: B023
        town.open(host)
    town.wait_until_seen(a)

    b = town.build("b")
    town.cut_over(b)
    town.wait_until_seen(b)

    # One host is lost in the middle of the next pull, which it does slowly.
    three.stop_following()
    three.follow("transfer.max_mb_per_second=0.005")
    c = town.build("c")
    town.cut_over(c)
    eventually(lambda: town.state_of(three) == "pulling" and three.is_pulling(), lambda: three.log("follow"))
    town.visitors[three.name].leave()
    three.kill()
    assert history.current(three.store).version == b
    town.wait_until_seen(c, one, two)
    assert f"flipped to {c}, history record 3" in one.log("follow") + two.log("follow")
    assert "without h3" in one.log("follow") + two.log("follow")

    # It comes back, goes on with the pull, and has nobody to wait for.
    town.open(three)
    three.follow()
    town.wait_until_seen(c)

    history.rollback(town.shop.root, "batch", "bad", 6, shared=RemoteHistory(town.remote))
    town.wait_until_seen(b)
    town.leave()
    for visitors in town.all_visitors:
        assert visitors.failures == []
        for answer in visitors.answers:
            kinds = {item["item"][0] for item in answer["items"]}  # type: ignore[attr-defined]
            assert kinds == {town.kind_of[str(answer["version"])]}, "no answer mixes two versions"
    assert len({layout.history_path(host.store, 4).read_bytes() for host in town.hosts}) == 1
    assert [check(host.store).problems for host in town.hosts] == [[], [], []]
