"""A day of a server: events, changes of items, requests alone and in batches, as the clock goes on.

What was answered and what the log has of it is held against what the day had seen until then, and made again.
"""

from __future__ import annotations

import copy
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec
from asgi_client import JSON_HEADERS, AsgiClient

from combinations.draws import Asked, Settings, draw_asked, draw_settings
from combinations.expected import Expected
from combinations.judge import problems_of
from combinations.outside import problems_of_the_export, problems_of_the_signals
from combinations.serving import Answered, Serving, opened, serving, set_live_facts
from combinations.worlds import KINDS, MADE_AT, SEGMENTS, World, draw_facts, draw_world
from prediction_store import history
from prediction_store.live_items import LiveItems
from reranker.answered import request_of
from reranker.app import create_app
from reranker.outcomes import outcomes
from reranker.replay import differences, replay, trending_then
from reranker.serving_log.reading import read_log
from reranker.serving_log.records import AnswerRecord
from reranker.sessions.stored import IMPRESSION
from schemas.messages import ListAnswer, PostedEvent, RecommendAnswer, RecommendManyAnswer, RecommendRequest
from schemas.serving_config import Sessions

STEPS: Final = 40
TTL_MINUTES: Final = 60.0
Given = tuple[RecommendRequest, RecommendAnswer, dict[str, dict[str, Any]], list[Any], dict[str, int]]
"""A request, its answer, and what was known then: live facts, the session of the user and what was shown in vain."""


@dataclass
class Memory:
    """What a server should know of the users' last minutes, told once more and slowly."""

    limit: int
    happened: dict[str, dict[tuple[str, str, float], float]] = field(default_factory=lambda: defaultdict(dict))
    """By user: item, type and time as told, to the time that counts."""
    shown: dict[str, dict[tuple[str, float], float]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, events: list[PostedEvent], now: float) -> None:
        for place, event in enumerate(events):
            sent = now - (len(events) - 1 - place) * 1e-6 if event.time is None else event.time
            if event.event == IMPRESSION:
                self.shown[event.user].setdefault((event.item, sent), min(sent, now))
            else:
                self.happened[event.user].setdefault((event.item, event.event, sent), min(sent, now))
        for user, kept in self.happened.items():
            ordered = sorted(kept, key=lambda one: (kept[one], one[2], one[0], one[1]))
            self.happened[user] = {one: kept[one] for one in ordered[-self.limit :]}

    def session(self, request: RecommendRequest, now: float) -> list[tuple[str, str, float | None]]:
        """The session of an answer to a request."""
        own = [(event.item, event.event, event.time) for event in request.session if event.event != IMPRESSION]
        stored = self.happened[request.user]
        recent = [(*one[:2], time) for one, time in stored.items() if time > now - TTL_MINUTES * 60 and one not in own]
        room = max(0, self.limit - len(own))
        return [*recent[len(recent) - min(room, len(recent)) :], *own]

    def ignored(self, user: str, now: float) -> dict[str, int]:
        """Times that items were shown in vain."""
        since, latest = now - TTL_MINUTES * 60, dict[str, float]()
        for (item, _, _), time in self.happened[user].items():
            latest[item] = max(time, latest.get(item, since))
        shown = self.shown[user].items()
        return dict(Counter(item for (item, _), time in shown if time > max(since, latest.get(item, since))))


@dataclass
class Day:
    """One server, and all that it has been told and has answered."""

    world: World
    settings: Settings
    dice: random.Random
    now: float = MADE_AT + 7200.0
    given: list[Given] = field(default_factory=list)
    clicks: set[tuple[str, str, str]] = field(default_factory=set)
    """Request id, item and type of the events that name an answer which shows the item."""

    def __post_init__(self) -> None:
        self.memory = Memory(self.settings.config.serve.max_session_events)

    def run(self) -> Iterator[str]:
        """The day; what was wrong at once."""
        with AsgiClient(create_app(self.settings.config, now=lambda: self.now)) as client:
            for _ in range(STEPS):
                step = self.dice.choice(
                    (self._ask, self._ask, self._ask, self._tell, self._tell, self._change, self._look)
                )
                yield from step(client)
                self.now += self.dice.choice([0.0, 0.5, 1.0, 45.0, 600.0])

    def _ask(self, client: AsgiClient) -> Iterator[str]:
        count = self.dice.choice([1, 1, 3])
        asked = [draw_asked(self.world, self.settings, self.dice).request for _ in range(count)]
        asked = [msgspec.structs.replace(one, session=one.session[: self.memory.limit]) for one in asked]
        if count == 1:
            reply = client.request("POST", "/v1/recommend", [msgspec.json.encode(asked[0])], JSON_HEADERS)
        else:
            body = msgspec.json.encode({"requests": asked})
            reply = client.request("POST", "/v1/recommend/batch", [body], JSON_HEADERS)
        if reply.status != 200:
            yield f"{asked}: {reply.status} {reply.body!r}"
            return
        if count == 1:
            answers = [msgspec.json.decode(reply.body, type=RecommendAnswer)]
        else:
            answers = msgspec.json.decode(reply.body, type=RecommendManyAnswer).answers
        live = copy.deepcopy(self.world.live)
        for request, answer in zip(asked, answers, strict=True):
            session, ignored = self.memory.session(request, self.now), self.memory.ignored(request.user, self.now)
            self.given.append((request, answer, live, session, ignored))

    def _tell(self, client: AsgiClient) -> Iterator[str]:
        events = [self._event() for _ in range(self.dice.choice([1, 1, 4]))]
        reply = client.request("POST", "/v1/events", [msgspec.json.encode({"events": events})], JSON_HEADERS)
        if reply.json() != {"accepted": len(events)}:
            yield f"{events}: {reply.status} {reply.body!r}"
        self.memory.add(events, self.now)
        weights = self.settings.config.data.interactions.event_weights
        shown = {answer.request_id: {item.item for item in answer.items} for _, answer, *_ in self.given}
        self.clicks |= {
            (event.request_id, event.item, event.event)
            for event in events
            if event.request_id is not None
            and event.item in shown[event.request_id]
            and event.event != IMPRESSION
            and weights.get(event.event, 1.0) > 0
        }

    def _event(self) -> PostedEvent:
        dice = self.dice
        time = dice.choice([None, None, self.now - dice.uniform(0, 5000), self.now + dice.choice([5.0, 100.0])])
        if self.given and dice.random() < 0.6:
            request, answer, *_ = dice.choice(self.given[-3:])
            if answer.items:
                item, kind = dice.choice(answer.items), dice.choice([*KINDS, IMPRESSION, IMPRESSION])
                return PostedEvent(
                    user=request.user, item=item.item, event=kind, time=time, request_id=answer.request_id,
                    position=item.rank,
                )  # fmt: skip
        user, item = dice.choice([*self.world.users, "nobody"]), dice.choice([*self.world.ids, *self.world.arrivals])
        if self.world.arrivals and dice.random() < 0.4:  # so that many want some of them
            user, item = f"reader {dice.random()}", dice.choice(self.world.arrivals)
        return PostedEvent(user=user, item=item, event=dice.choice([*KINDS, IMPRESSION]), time=time)

    def _change(self, client: AsgiClient) -> Iterator[str]:
        changes = []
        for item in self.dice.sample([*self.world.ids, *self.world.arrivals], 1):
            facts = draw_facts(self.dice) if self.dice.random() < 0.7 else dict.fromkeys(("in_stock", "hidden"))
            changes.append({"item": item, **facts})
            known = self.world.live.get(item, {}) | facts
            self.world.live[item] = {name: fact for name, fact in known.items() if fact is not None}
        reply = client.post("/v1/items", {"items": changes})
        if reply.status != 200:
            yield f"{changes}: {reply.status} {reply.body!r}"

    def _look(self, client: AsgiClient) -> Iterator[str]:
        """The lists as they are, but for what must not be shown."""
        name = self.dice.choice(("popular", "trending", "similar"))
        if name == "similar":
            place = self.dice.randrange(len(self.world.items))
            path, listed = f"/v1/similar/{self.world.items[place].id}?k=40", self.world.near[place]
        else:
            segment = self.dice.choice([*SEGMENTS, "unknown"])
            lists = self.world.popular if name == "popular" else self.world.trending
            path, listed = f"/v1/{name}?k=40&segment={segment}", lists.get(segment, lists[""])
        request = RecommendRequest(user="nobody", placement=name)
        expected = Expected(self.world, self.settings, Asked(request, {}, self.now, -1, "", None, ""))
        wanted = [self.world.items[place].id for place in listed if expected.may_be_shown(place)][:40]
        found = [item.item for item in msgspec.json.decode(client.get(path).body, type=ListAnswer).items]
        if found != wanted:
            yield f"{path}: {found}, wanted {wanted}"

    def afterwards(self) -> Iterator[str]:
        """What the log has of it, and what comes of that."""
        folder, config = self.world.root / "events", self.settings.config
        tails: list[Any] = []
        records = [record for record in read_log(folder, tails.append) if isinstance(record, AnswerRecord)]
        if [record.request_id for record in records] != [answer.request_id for _, answer, *_ in self.given]:
            yield f"{len(records)} answers in the log of {len(self.given)}"
            return
        trending = trending_then(folder, {record.trending for record in records})
        with LiveItems(self.world.root) as live:
            latest = live.read().number
        with opened(self.world) as version, serving(self.world, self.settings, version) as server:
            for (request, answer, facts, session, ignored), record in zip(self.given, records, strict=True):
                if sorted(map(str, record.session)) != sorted(map(str, session)):
                    yield f"{record.request_id}: session {record.session}, wanted {session}"
                is_read = config.sessions.impressions and "ignored" in record.shown.signals
                if is_read and record.ignored != ignored:
                    yield f"{record.request_id}: shown in vain {record.ignored}, wanted {ignored}"
                used = msgspec.structs.replace(request_of(record), explain=request.explain)
                asked = Asked(
                    used, record.ignored, record.time, -1, record.holdout, trending.get(record.trending),
                    record.request_id,
                )  # fmt: skip
                expected = Expected(replace(self.world, live=facts), self.settings, asked)
                yield from problems_of(expected, Answered(answer, record), server.weights())
                if record.live == latest:
                    yield from self._made_again(server, asked, Answered(answer, record))
        yield from self._outcomes()
        yield from problems_of_the_export(self.world, self.settings, self.world.root.parent, self.now)
        yield from problems_of_the_signals(self.settings)

    def _made_again(self, server: Serving, asked: Asked, found: Answered) -> Iterator[str]:
        here = server.answer(asked)
        if here.answer != found.answer:
            yield f"{asked.request_id}: over HTTP {found.answer}, here {here.answer}"
        yield from differences(found.record, here.record)
        again = replay(self.settings.config, asked.request_id)
        yield from again.differences

    def _outcomes(self) -> Iterator[str]:
        found = outcomes(self.settings.config, "rung", 0.0, self.now + 1.0)
        counted = sum(sum(group.events.values()) for group in found.groups)
        if counted != len(self.clicks):
            yield f"{counted} events on what was shown are counted, {len(self.clicks)} were posted"


def problems_of_a_day(folder: Path, seed: int) -> Iterator[str]:
    """One day of a world of its own."""
    dice = random.Random(f"day {seed}")
    world = draw_world(folder / f"day {seed}", seed)
    # A version is verified before anything is replayed from it.
    world.users = {name: replace(user, is_damaged=False) for name, user in world.users.items()}
    set_live_facts(world)
    history.cutover(world.root, world.version, "test", "a test", MADE_AT + 60.0, force=True)
    settings = draw_settings(world, dice)
    sessions = Sessions(impressions=dice.random() < 0.5, ttl_minutes=TTL_MINUTES)
    serve = msgspec.structs.replace(settings.config.serve, max_session_events=dice.choice([3, 200]))
    config = msgspec.structs.replace(settings.config, sessions=sessions, serve=serve)
    day = Day(world, Settings(config, settings.meant), dice)
    yield from day.run()
    yield from day.afterwards()
