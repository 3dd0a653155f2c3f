"""What stands beside the answers of a server: the lists of `export`, and what `skew` says of the log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec

from combinations.draws import Asked, Settings
from combinations.serving import opened, serving
from combinations.worlds import World
from jobs import export
from reranker.holdouts import holdout_of
from reranker.skew import skew
from schemas.messages import RecommendRequest


def problems_of_the_export(world: World, settings: Settings, folder: Path, now: float) -> Iterator[str]:
    """Everybody's list is what a server would answer without a session, but that nothing is left to chance."""
    file, k = folder / "lists.jsonl", min(12, settings.config.serve.max_k)
    export.run(settings.config, file, k=k, placement="basket", now=now)
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    order = msgspec.structs.replace(settings.config.serve.order, explore_positions=[])
    serve = msgspec.structs.replace(settings.config.serve, order=order)
    certain = Settings(msgspec.structs.replace(settings.config, serve=serve), settings.meant)
    with opened(world) as version, serving(world, certain, version) as server:
        for user in world.users:
            request = RecommendRequest(user=user, k=k, placement="basket")
            holdout = holdout_of(user, settings.config.serve.holdouts)
            answer = server.answer(Asked(request, {}, now, -1, holdout, None, "exported")).answer
            found = [(row["rank"], row["item_id"], row["rung"]) for row in rows if row["user_id"] == user]
            if found != [(item.rank, item.item, item.rung) for item in answer.items]:
                yield f"exported to {user} {found}, answered {answer.items}"


def problems_of_the_signals(settings: Settings) -> Iterator[str]:
    """Each signal comes out as it was logged, whatever has become of the items meanwhile."""
    found = skew(settings.config, 1000)
    yield from (f"{signal.name} comes out otherwise: {signal}" for signal in found.signals if signal.unequal)
