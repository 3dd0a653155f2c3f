"""Hosts that share the users: each answers its own from their lists, and the others' from the next rung."""

from __future__ import annotations

from pathlib import Path

from asgi_client import AsgiClient
from serving_shop import SHARDS, Shop

from prediction_store.transfer.flow import Flow
from prediction_store.transfer.pull import pull
from prediction_store.transfer.push import push
from prediction_store.transfer.remote import Remote
from prediction_store.writer import shard_of
from reranker.app import create_app
from reranker.recommend import open_reranker
from reranker.terminal import headlines
from schemas.held import ShardRange
from schemas.messages import RecommendRequest, SessionEvent


def host_with(shop: Shop, tmp_path: Path, number: int) -> Shop:
    """Another host, which holds one shard of the shop's version."""
    remote = Remote((tmp_path / "remote").as_uri(), make=True)
    push(shop.root, remote, shop.current(), flow=Flow())
    host = Shop(tmp_path / f"host-{number}")
    pull(host.root, remote, shop.current(), flow=Flow(), shards=ShardRange(number, number, SHARDS))
    host.cut_over(shop.current())
    return host


def test_each_host_answers_its_own_users_from_their_lists_and_the_others_from_the_next_rung(
    shop: Shop, tmp_path: Path
) -> None:
    shop.publish("a")
    answered = set()
    for number in range(SHARDS):
        with AsgiClient(create_app(host_with(shop, tmp_path, number).config())) as client:
            assert client.get("/v1/version").json()["shards"] == f"{number}-{number}/{SHARDS}"
            others = 0
            for user in shop.users:
                answer = client.post("/v1/recommend", {"user": user, "k": 5}).json()
                if shard_of(user.encode(), SHARDS) == number:
                    answered.add(user)
                    expected, made = shop.list_of(user), (None, "personal")
                else:
                    others += 1
                    expected, made = shop.popular(""), ("other_host", "popular")
                assert (answer["reason"], answer["rung"]) == made
                assert [item["item"] for item in answer["items"]] == list(filter(shop.in_stock, expected))[:5]
            assert (
                f'shortlist_fallbacks_total{{reason="other_host"}} {others}.0' in client.get("/metrics").body.decode()
            )
    assert answered == set(shop.users)


def test_the_session_of_another_hosts_user_is_used_all_the_same(shop: Shop, tmp_path: Path) -> None:
    shop.publish("a")
    user = shop.users[0]
    elsewhere = 1 - shard_of(user.encode(), SHARDS)
    with open_reranker(host_with(shop, tmp_path, elsewhere).config()) as reranker:
        request = RecommendRequest(user=user, k=5, session=[SessionEvent(item="a31")])
        answer = reranker.recommend(request)
    assert (answer.rung, answer.reason) == ("session", "other_host")
    assert headlines(answer, user)[0].startswith(f"the list of {user} is on another host: answered from the neighbours")
