"""Worlds: a random version, what is known of it in plain Python, and what has happened within the day since.

Small, so that everything meets: lists run dry, caps are full, pins and places left to chance lie side by side.
"""

from __future__ import annotations

import mmap
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from prediction_store.contexts import Contexts
from prediction_store.layout import shard_file, version_path
from prediction_store.user_facts import Consumed
from prediction_store.user_tower import Histories, StoredTower, Tower
from prediction_store.writer import Categories, Texts, VersionDraft, shard_of, write_shard
from reranker.signals import SIGNALS, default_weights
from schemas.ranker import ArrivalScore, RankerWeights
from schemas.record import RankedItems, encode_record
from schemas.user_tower import TowerFacts

MADE_AT: Final = 1_800_000_000
DAY: Final = 86_400
SPACE: Final = "space"
SEGMENTS: Final = ("", "DE", "FR")
CATEGORIES: Final = ("", "hats", "shoes", "bags")
BRANDS: Final = ("", "acme", "emca", "äcme")
KINDS: Final = ("view", "cart", "purchase", "dismiss", "wink")
"""Types of events; `dismiss` weighs nothing in training."""
STRANGERS: Final = ("nobody", "nobody else")
SHARDS: Final = 2
SAID: Final = ("price", "title", "category", "brand")
"""What is said of an item that the version lacks."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """What the version says of an item; None: nothing."""

    id: str
    title: str
    category: str | None
    brand: str | None
    price: float | None
    released: float | None
    in_stock: bool
    popularity: float
    trend: float | None
    recent: float | None


@dataclass(frozen=True, kw_only=True)
class User:
    """What the version has of a user, items by their dense index."""

    row: int
    listed: list[int]
    """Best first."""
    made_at: int
    consumed: set[int]
    history: list[int]
    segment: str
    is_damaged: bool


@dataclass
class World:
    """A version in a store, and its contents."""

    root: Path
    seed: int
    items: list[Item]
    users: dict[str, User]
    popular: dict[str, list[int]]
    trending: dict[str, list[int]]
    near: list[list[int]]
    """Of each item, the neighbours, best first."""
    has_tower: bool
    columns: set[str]
    expires_at: int
    version: str = ""
    records: dict[str, bytes] = field(default_factory=dict)
    """Of each user, as it lies in the store."""
    live: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Set within the day, by item."""
    arrivals: list[str] = field(default_factory=list)
    """Items that the version lacks."""
    arrival_score: ArrivalScore | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        self.index = {item.id: place for place, item in enumerate(self.items)}

    @property
    def ids(self) -> list[str]:
        return [item.id for item in self.items]

    def is_silent(self, kind: str) -> bool:
        """Whether events of a type weighed nothing in training."""
        return self.has_tower and kind == "dismiss"


def draw_world(root: Path, seed: int) -> World:
    """A new version in a store, the same for the same seed."""
    dice, rng = random.Random(seed), np.random.default_rng(seed)
    n = dice.choice([1, 2, 7, 25, 25, 60, 300])
    dimensions = dice.choice([1, 4, 8])
    vectors = rng.normal(size=(n, dimensions)).astype(np.float32)
    if dice.random() < 0.3:  # equal scores, and vectors of no direction
        vectors = np.round(vectors)
    columns = {"title", "category", "brand", "price", "released", "in_stock", "popularity"}
    columns |= {name for name in ("trend", "recent") if dice.random() < 0.5}
    items = [_item(dice, place, columns) for place in range(n)]
    near = [dice.sample(range(n), dice.randint(0, min(n, 6))) for _ in range(n)]
    names = [f"user {place}" for place in range(dice.choice([1, 4]))] + ["ü"]
    tastes = rng.normal(size=(len(names), dimensions)).astype(np.float32)
    scores = tastes @ vectors.T
    has_tower = dice.random() < 0.7
    users = {name: _user(dice, row, scores[row], has_tower=has_tower) for row, name in enumerate(names)}
    lists = {segment: _few(dice, n) for segment in SEGMENTS if segment == "" or dice.random() < 0.7}
    trending = {segment: _few(dice, n) for segment in lists}
    world = World(
        root=root,
        seed=seed,
        items=items,
        users=users,
        popular=lists,
        trending=trending,
        near=near,
        has_tower=has_tower,
        columns=columns | {"id"},
        expires_at=MADE_AT + dice.choice([1, 7]) * DAY,
    )
    if seed % 4 and dice.random() < 0.7:
        world.arrival_score = ArrivalScore(dice.uniform(-6, 3), dice.uniform(0, 2), dice.uniform(-1, 0.5))
    _write(world, rng, vectors, tastes, scores)
    _draw_day(world, dice)
    return world


def damage(world: World) -> None:
    """Flip a bit in the records that are to be damaged. Requires: the version has been opened, and so verified."""
    for name in (name for name, user in world.users.items() if user.is_damaged):
        shard = version_path(world.root, world.version) / shard_file(shard_of(name.encode(), SHARDS))
        shard.chmod(0o644)
        with shard.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            place = mapped.find(world.records[name])
            assert place > 0
            mapped[place + len(world.records[name]) - 1] ^= 1


def _item(dice: random.Random, place: int, columns: set[str]) -> Item:
    known = dice.random
    return Item(
        id=f"i{place:02}",
        title=f"Title {place}" if known() < 0.8 else "",
        category=dice.choice(CATEGORIES) or None,
        brand=dice.choice(BRANDS) or None,
        price=dice.randint(0, 40) / 4 if known() < 0.8 else None,
        released=float(MADE_AT + dice.randint(-30, 2) * DAY) if known() < 0.8 else None,
        in_stock=known() < 0.85,
        popularity=dice.randint(0, 8) / 8,
        trend=dice.randint(0, 8) / 8 if "trend" in columns else None,
        recent=dice.randint(0, 8) / 8 if "recent" in columns else None,
    )


def _user(dice: random.Random, row: int, scores: np.ndarray, *, has_tower: bool) -> User:
    n = len(scores)
    consumed = set(dice.sample(range(n), dice.choice([0, 0, min(n, 3)])))
    drops = dice.random() < 0.5
    order = [place for place in np.argsort(-scores, kind="stable").tolist() if not (drops and place in consumed)]
    return User(
        row=row,
        listed=order[: dice.choice([0, 2, 8, 20, n])],
        made_at=MADE_AT - dice.choice([0, 0, 2 * DAY]),
        consumed=consumed,
        history=[dice.randrange(n) for _ in range(dice.choice([0, 1, 5]))] if has_tower else [],
        segment=dice.choice(SEGMENTS),
        is_damaged=dice.random() < 0.1,
    )


def _few(dice: random.Random, n: int) -> list[int]:
    return dice.sample(range(n), dice.choice([0, min(n, 3), n // 2, n]))


def _write(world: World, rng: np.random.Generator, vectors: np.ndarray, tastes: np.ndarray, scores: np.ndarray) -> None:
    n, dimensions = vectors.shape
    with VersionDraft.begin(world.root, f"{world.seed % 2**64:064x}", MADE_AT + 60.0) as draft:
        draft.write_items(vectors, world.ids, _columns(world))
        draft.write_user_vectors(tastes)
        for number in range(SHARDS):
            records = {
                name: _record(name, user, scores[user.row], draft.seed)
                for name, user in sorted(world.users.items(), key=lambda pair: pair[0].encode())
                if shard_of(name.encode(), SHARDS) == number
            }
            pairs = [(name.encode(), record) for name, record in records.items()]
            write_shard(draft.shard_path(number), pairs, expected_bytes=10_000)
            world.records |= records
        draft.write_lists(
            {segment: _ranked(items) for segment, items in world.popular.items()},
            {segment: _ranked(items) for segment, items in world.trending.items()},
        )
        held = [np.array(sorted(user.consumed), np.uint32) for user in world.users.values()]
        consumed = Consumed(np.cumsum([0, *map(len, held)], dtype=np.int64), np.concatenate(held))
        draft.write_user_facts(consumed, [user.segment for user in world.users.values()])
        draft.write_neighbours(*_padded(world.near, rng))
        if world.seed % 3:
            draft.write_together(*_padded([row[::-1] for row in world.near], rng))
            names = [("hour", str(hour)) for hour in range(24)] + [("device", "phone"), ("weekday", "2")]
            draft.write_contexts(Contexts(names, np.tanh(rng.normal(size=(len(names), n))).astype(np.float32)))
        if world.has_tower:
            draft.write_user_tower(_tower(world, rng, dimensions))
        draft.write_ranker(_weights(rng, world.arrival_score) if world.seed % 4 else default_weights(SPACE))
        draft.write_report(b"{}")
        draft.seal(space_id=SPACE, made_at=MADE_AT, expires_at=world.expires_at, shards=SHARDS)
    world.version = draft.name


def _columns(world: World) -> dict[str, Any]:
    items = world.items

    def numbers(name: str, kind: type) -> np.ndarray:
        return np.array([np.nan if (found := getattr(item, name)) is None else found for item in items], kind)

    columns: dict[str, Any] = {
        "title": Texts(item.title for item in items),
        "category": Categories(item.category or "" for item in items),
        "brand": Categories(item.brand or "" for item in items),
        "price": numbers("price", np.float64 if world.seed % 2 else np.float32),
        "released": numbers("released", np.float64),
        "in_stock": np.array([item.in_stock for item in items]),
        "popularity": numbers("popularity", np.float32),
    }
    return columns | {name: numbers(name, np.float32) for name in ("trend", "recent") if name in world.columns}


def _record(name: str, user: User, scores: np.ndarray, seed: int) -> bytes:
    return encode_record(
        name.encode(),
        np.array(user.listed, np.int64),
        scores[user.listed],
        made_at=user.made_at,
        user_row=user.row,
        seed=seed,
        index_bits=20,
    )


def _ranked(items: list[int]) -> RankedItems:
    return RankedItems(np.array(items, np.uint32), np.linspace(1.0, 0.1, len(items), dtype=np.float32))


def _padded(lists: list[list[int]], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    width = max(1, *map(len, lists)) if len(lists) > 1 else max(1, len(lists[0]))
    found = np.full((len(lists), width), -1, np.int32)
    for row, near in zip(found, lists, strict=True):
        row[: len(near)] = near
    scores = np.sort(rng.random(found.shape).astype(np.float32), axis=1)[:, ::-1]
    return found, np.where(found >= 0, scores, np.float32(0.0))


def _tower(world: World, rng: np.random.Generator, dimensions: int) -> StoredTower:
    facts = TowerFacts(is_unit=world.seed % 2 == 0, history_length=4, event_weights={"view": 1.0, "dismiss": 0.0})
    matrix = rng.normal(size=(dimensions, dimensions)).astype(np.float32)
    histories = [user.history for user in world.users.values()]
    items = np.array([item for history in histories for item in history], np.uint32)
    offsets = np.cumsum([0, *map(len, histories)], dtype=np.int64)
    bases = rng.normal(size=(len(histories), dimensions)).astype(np.float32)
    tower = Tower(facts, matrix, matrix[0].copy(), np.array([1.0, 0.5], np.float32))
    return StoredTower(tower, bases, Histories(offsets, items, np.ones(items.size, np.float32)))


def _weights(rng: np.random.Generator, score: ArrivalScore | msgspec.UnsetType) -> RankerWeights:
    weights = rng.normal(size=len(SIGNALS)) * (rng.random(len(SIGNALS)) < 0.7)
    return RankerWeights([signal.name for signal in SIGNALS], weights.tolist(), SPACE, arrivals=score)


def _draw_day(world: World, dice: random.Random) -> None:
    """Facts of some items, and of some that the version lacks."""
    world.arrivals = [f"new {place}" for place in range(dice.choice([0, 0, 1, 5, 12]))]
    changed = dice.sample(world.ids, dice.choice([0, 0, len(world.ids) // 3]))
    for item in changed:
        world.live[item] = draw_facts(dice)
    for item in world.arrivals:
        said = {name: fact for name, fact in _every_fact(dice).items() if name in SAID and dice.random() < 0.7}
        world.live[item] = {"in_stock": dice.random() < 0.9} | said | (draw_facts(dice) if dice.random() < 0.2 else {})


def draw_facts(dice: random.Random) -> dict[str, Any]:
    """One to five facts of an item."""
    every = _every_fact(dice)
    return {name: every[name] for name in dice.sample(list(every), dice.randint(1, 5))}


def _every_fact(dice: random.Random) -> dict[str, Any]:
    return {
        "in_stock": dice.random() < 0.6,
        "hidden": dice.random() < 0.4,
        "price": dice.randint(0, 40) / 4,
        "available_until": float(MADE_AT + dice.choice([0, 1, 3, 20]) * DAY),
        "title": f"title {dice.randint(0, 9)}",
        "category": dice.choice([*CATEGORIES[1:], "of no version"]),
        "brand": dice.choice([*BRANDS[1:], "of no version"]),
    }
