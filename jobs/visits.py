"""What the users of the simulated shop do on one day: sessions, each with an intent, of views, carts and purchases.

A session begins with an intent: one of its user's interests (more likely those that suit the device), or whatever is
in vogue. The next view stays with the intent with probability STAY; else another intent is drawn. So the items of the
running session say more about the next item than all the user's history does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.shop import CHUNK, DECISION_DAYS, STYLES, VISITS, Catalogue, Floats, Ints, People, Shop, stream

STAY = 0.85
OWN_INTEREST = 0.88
"""Share of intents that are one of the user's interests; the others follow the general appeal."""
MEAN_VIEWS = 5.0
CART_DECIDED, BUY_DECIDED, CART_UNDECIDED = 0.7, 0.75, 0.035
"""Chance that a view leads to a cart, and a cart to a purchase, on the day the user decides; and of an idle cart."""
SESSIONS_AT_A_TIME = 32_768
EVENTS = ("view", "cart", "purchase")

_WEEKDAY = np.array([0.95, 0.90, 0.92, 0.95, 1.03, 1.15, 1.10])
_AGE_DEVICE = np.cumsum(
    [
        [0.60, 0.30, 0.10],
        [0.50, 0.30, 0.20],
        [0.35, 0.30, 0.35],
        [0.25, 0.25, 0.50],
        [0.15, 0.25, 0.60],
        [0.1, 0.2, 0.7],
    ],
    axis=1,
)
_HOURS = np.array(
    [
        [3, 2, 1, 1, 1, 1, 3, 6, 6, 4, 4, 4, 6, 5, 4, 4, 5, 6, 8, 10, 12, 13, 11, 6],  # app: evenings
        [2, 1, 1, 1, 1, 2, 5, 9, 9, 6, 5, 6, 9, 7, 5, 5, 7, 9, 8, 7, 7, 7, 6, 4],  # mobile: on the way
        [1, 1, 0, 0, 0, 0, 1, 3, 8, 11, 12, 11, 8, 10, 11, 11, 10, 7, 5, 5, 6, 6, 4, 2],  # desktop: at the desk
    ],
    dtype=np.float64,
)
_HOURS_CUMULATED = np.cumsum(_HOURS / _HOURS.sum(axis=1, keepdims=True), axis=1)


@dataclass(frozen=True)
class Visits:
    """Events of some sessions, session by session in time order."""

    user: Ints  # user number
    item: Ints  # item number
    event: Ints  # index into EVENTS
    second: Ints  # of the day
    session: Ints  # number within the day and the chunk of users
    device: Ints

    def __len__(self) -> int:
        return len(self.user)


class Shelves:
    """The shop as it stands on one day: its catalogue laid out niche by niche, to draw items from by appeal."""

    def __init__(self, shop: Shop, day: int, items: Catalogue) -> None:
        self.shop, self.day = shop, day
        self.niche = items.niche
        self.order = np.argsort(self.niche, kind="stable")
        ends = np.searchsorted(self.niche[self.order], np.arange(shop.n_niches + 1))
        self.cumulated = np.concatenate([[0.0], np.cumsum(items.appeal[self.order])])
        self.low, self.high = self.cumulated[ends[:-1]], self.cumulated[ends[1:]]
        sold_out = self.high <= self.low
        self.low[sold_out], self.high[sold_out] = 0.0, self.cumulated[-1]

    def draw(self, niche: Ints, chance: Floats) -> Ints:
        """One item for each niche; any item where the niche has nothing on sale."""
        return self._at(self.low[niche] + chance * (self.high[niche] - self.low[niche]))

    def draw_any(self, chance: Floats) -> Ints:
        """Items of the whole shop."""
        return self._at(chance * self.cumulated[-1])

    def _at(self, place: Floats) -> Ints:
        found = np.searchsorted(self.cumulated, place, side="right") - 1
        return self.order[np.clip(found, 0, len(self.order) - 1)]


def visits(shelves: Shelves, people: People) -> Iterator[Visits]:
    """All events of some users on a day, a bounded number at a time."""
    shop, day = shelves.shop, shelves.day
    chunk = people.first // CHUNK
    rate = people.activity * _sessions_per_user(shop, day)
    counts = stream(shop.seed, VISITS, day, chunk, 0).poisson(rate)
    user = np.repeat(np.arange(len(people)), counts)  # [sessions]
    for block, begin in enumerate(range(0, len(user), SESSIONS_AT_A_TIME), start=1):
        random = stream(shop.seed, VISITS, day, chunk, block)
        yield _sessions(shelves, people, user[begin : begin + SESSIONS_AT_A_TIME], begin, random)


def _sessions_per_user(shop: Shop, day: int) -> float:
    decided = 1.0 / DECISION_DAYS
    carts = decided * CART_DECIDED + (1 - decided) * CART_UNDECIDED
    events = MEAN_VIEWS * (1.0 + carts + decided * CART_DECIDED * BUY_DECIDED)
    weekday = _WEEKDAY[shop.date_of(day).weekday()]
    return float(shop.settings.events_per_day * weekday / events / shop.n_users(day))


def _sessions(shelves: Shelves, people: People, user: Ints, first: int, random: np.random.Generator) -> Visits:
    n = len(user)
    device = (random.random(n)[:, None] > _AGE_DEVICE[people.age_group[user], :-1]).sum(axis=1)
    hour = (random.random(n)[:, None] > _HOURS_CUMULATED[device, :-1]).sum(axis=1)
    begin = hour * 3600.0 + random.random(n) * 3600.0
    views = random.geometric(1.0 / MEAN_VIEWS, n)

    session = np.repeat(np.arange(n), views)  # [views]
    opening = np.cumsum(views) - views  # [sessions] place of the first view
    turns = random.random(len(session)) > STAY
    turns[opening] = True
    intent = _intents(shelves, people, user[session[turns]], device[session[turns]], random)
    niche = intent[np.cumsum(turns) - 1]
    item = shelves.draw(niche, random.random(len(session)))
    again = np.flatnonzero((item[1:] == item[:-1]) & (session[1:] == session[:-1])) + 1
    item[again] = shelves.draw(niche[again], random.random(len(again)))  # few look at the same item twice in a row

    pauses = 4.0 + random.exponential(45.0, len(session))
    passed = np.cumsum(pauses)
    time = begin[session] + passed - passed[opening][session]
    closing = time[opening + views - 1]  # [sessions]

    carted, bought = _decisions(shelves.day, people.first + user[session], item, random)
    place = np.concatenate([np.arange(len(session)), carted, bought])
    event = np.repeat([0, 1, 2], [len(session), len(carted), len(bought)])
    when = np.concatenate(
        [
            time,
            time[carted] + random.uniform(1.0, 4.0, len(carted)),
            closing[session[bought]] + random.uniform(30.0, 120.0, len(bought)),
        ]
    )
    order = np.lexsort((event, when, session[place]))
    place = place[order]
    return Visits(
        user=people.first + user[session[place]],
        item=item[place],
        event=event[order],
        second=np.minimum(when[order], 86_399.0).astype(np.int64),
        session=first + session[place],
        device=device[session[place]],
    )


def _intents(shelves: Shelves, people: People, user: Ints, device: Ints, random: np.random.Generator) -> Ints:
    """A niche for each (user, device)."""
    own = people.interests[user]  # [intents, INTERESTS]
    weight = people.taste(shelves.day)[user] * shelves.shop.device_category[device[:, None], own // STYLES]
    edges = np.cumsum(weight, axis=1)
    which = (random.random(len(user))[:, None] * edges[:, -1:] > edges[:, :-1]).sum(axis=1)
    niche = own[np.arange(len(user)), which]
    vogue = shelves.niche[shelves.draw_any(random.random(len(user)))]
    return np.where(random.random(len(user)) < OWN_INTEREST, niche, vogue)


def _decisions(day: int, user: Ints, item: Ints, random: np.random.Generator) -> tuple[Ints, Ints]:
    """Places of the views that end in a cart, and of those among them that end in a purchase."""
    decides = _decision_day(user, item) == day % DECISION_DAYS
    chance = random.random(len(user))
    carted = np.flatnonzero(chance < np.where(decides, CART_DECIDED, CART_UNDECIDED))
    buys = carted[decides[carted] & (random.random(len(carted)) < BUY_DECIDED)]
    # Who looks twice still buys once.
    pairs = user[buys].astype(np.uint64) << np.uint64(32) | item[buys].astype(np.uint64)
    return carted, buys[np.sort(np.unique(pairs, return_index=True)[1])]


def _decision_day(user: Ints, item: Ints) -> NDArray[np.uint64]:
    """The day, modulo DECISION_DAYS, on which a user makes up their mind about an item: a mixed hash of the two."""
    mixed = user.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) ^ item.astype(np.uint64) * np.uint64(
        0xC2B2AE3D27D4EB4F
    )
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return (mixed >> np.uint64(33)) % np.uint64(DECISION_DAYS)
