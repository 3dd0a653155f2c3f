"""A shop that does not exist: what it sells and who its users are, as a function of the seed and the day.

Nothing is remembered from one day to the next: tastes, prices, stock and trends are closed forms of the day, and
every random number comes from a counter-based generator keyed by (seed, what for, day, chunk). So any day can be made
alone, and in constant memory.

An item belongs to a *niche*: a category in one style, which stands for a price level and a few brands. A user has four
interests, each a niche, whose weights rise and fall over the months. `visits` turns this into sessions.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jobs import shop_words as words
from schemas.data_config import Simulate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CHUNK = 4096
"""Items, or users, that are drawn from one random stream."""
STYLES = len(words.STYLES)
INTERESTS = 4
DECISION_DAYS = 28
"""A user makes up their mind about an item on one day in so many: nobody buys the same thing again before that."""

_WORLD, _ITEMS, _USERS, VISITS = range(4)


def stream(seed: int, *key: int) -> np.random.Generator:
    """An independent random stream for every key; the same key gives the same numbers, in any order of asking."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, *key))))


@dataclass(frozen=True)
class Catalogue:
    """What is on sale on one day, by item number."""

    category: Ints
    style: Ints
    brand: Ints
    price: Floats
    released: Ints  # days from the shop's first day, often negative
    stock: Ints
    appeal: Floats  # how often it is looked at, against the others; 0 when out of stock
    words: Ints  # [items, 3] numbers of adjective, colour and noun

    def __len__(self) -> int:
        return len(self.category)

    @property
    def niche(self) -> Ints:
        """The niche of each item."""
        return self.category * STYLES + self.style


@dataclass(frozen=True)
class People:
    """A run of neighbouring users, by user number from `first`."""

    first: int
    country: Ints
    age_group: Ints
    joined: Ints  # days from the shop's first day
    activity: Floats  # sessions against the mean user
    interests: Ints  # [users, INTERESTS] niches
    base: Floats  # [users, INTERESTS] long-run weight of each interest
    period: Floats  # [users, INTERESTS] days of its rise and fall
    phase: Floats  # [users, INTERESTS]

    def __len__(self) -> int:
        return len(self.country)

    def taste(self, day: int) -> Floats:
        """[users, INTERESTS] weight of each interest on a day."""
        return self.base * (1.0 + 0.8 * np.sin(2 * np.pi * (day / self.period + self.phase)))


class Shop:
    """The shop of one configuration. `day` is always the number of days since its first day."""

    def __init__(self, settings: Simulate) -> None:
        self.settings = settings
        self.seed = settings.seed
        self.start = datetime.date.fromisoformat(settings.start_day)
        # Niches of about forty items: few enough to have a taste for, enough to choose from.
        self.n_categories = int(np.clip(round(settings.items / (40 * STYLES)), 4, 288))
        self.n_niches = self.n_categories * STYLES
        random = stream(self.seed, _WORLD)
        n = self.n_categories
        self.category_share = _shares((np.arange(n) + 3.0) ** -0.7)
        self.category_price = np.exp(random.normal(3.2, 0.7, n))
        self.niche_brands = random.integers(0, max(6, 2 * n), (n * STYLES, 3))
        # What each country and age group fancies, and what is looked at on which device.
        groups = len(words.COUNTRIES) * len(words.AGE_GROUPS)
        fancy = self.category_share * np.exp(random.normal(0.0, 0.9, (groups, n)))
        self.group_categories = np.cumsum(fancy / fancy.sum(axis=1, keepdims=True), axis=1)
        self.device_category = np.exp(random.normal(0.0, 0.5, (len(words.DEVICES), n)))
        self._drawn: list[Catalogue] = []

    def number_of(self, day: datetime.date) -> int:
        """Days from the shop's first day."""
        return (day - self.start).days

    def date_of(self, day: int) -> datetime.date:
        """The date of a day number."""
        return self.start + datetime.timedelta(days=day)

    def n_items(self, day: int) -> int:
        """Items released by the end of a day."""
        return self.settings.items + int(_arrived(day, self.settings.items, self.settings.new_items_share))

    def n_users(self, day: int) -> int:
        """Users who have joined by the end of a day."""
        return self.settings.users + int(_arrived(day, self.settings.users, self.settings.new_users_share))

    def catalogue(self, day: int) -> Catalogue:
        """Everything on sale on a day."""
        n = self.n_items(day)
        while len(self._drawn) * CHUNK < n:
            self._drawn.append(self._draw_items(len(self._drawn)))
        columns = zip(*(vars(chunk).values() for chunk in self._drawn), strict=True)
        items = Catalogue(*(np.concatenate(parts)[:n] for parts in columns))
        number = np.arange(n)
        items = replace(items, released=self._released(number, items.released))
        # A third of the items are restocked in a cycle of their own, and are sold out on its last day or two.
        cycle = 20 + number * 7919 % 25
        into = (day + number * 104_729) % cycle
        stock = np.where(number % 3 == 0, np.maximum(0, (cycle - 2 - into) * 3), items.stock)
        age = np.maximum(0, day - items.released)
        trend = np.exp(0.5 * np.sin(2 * np.pi * (day / (15 + number * 31 % 60) + number * 0.618)))
        appeal = items.appeal * trend * (1.0 + 3.0 * np.exp(-age / 5.0)) * (stock > 0)
        on_sale = (number * 13 + day // 3) % 17 == 0
        price = np.round(items.price * np.where(on_sale, 0.8, 1.0), 2)
        return replace(items, stock=stock, appeal=appeal, price=price)

    def people(self, day: int) -> Iterator[People]:
        """Everybody who has joined by the end of a day, in runs of at most CHUNK."""
        n = self.n_users(day)
        for chunk in range(-(-n // CHUNK)):
            yield self._draw_users(chunk, min(CHUNK, n - chunk * CHUNK))

    def _draw_items(self, chunk: int) -> Catalogue:
        random = stream(self.seed, _ITEMS, chunk)
        category = random.choice(self.n_categories, CHUNK, p=self.category_share)
        style = random.integers(0, STYLES, CHUNK)
        niche = category * STYLES + style
        level = 0.5 * 1.5**style
        return Catalogue(
            category=category,
            style=style,
            brand=self.niche_brands[niche, random.integers(0, 3, CHUNK)],
            price=np.maximum(0.5, self.category_price[category] * level * np.exp(random.normal(0.0, 0.2, CHUNK))),
            released=-random.integers(1, 700, CHUNK),  # of the opening stock; later items have their day
            stock=random.integers(3, 200, CHUNK),
            appeal=np.exp(random.normal(0.0, 1.2, CHUNK)),  # the long tail
            words=random.integers(0, 2**31, (CHUNK, 3)),
        )

    def _draw_users(self, chunk: int, n: int) -> People:
        random = stream(self.seed, _USERS, chunk)
        country_share = _shares((np.arange(len(words.COUNTRIES)) + 1.0) ** -0.8)
        country = random.choice(len(words.COUNTRIES), CHUNK, p=country_share)
        age_group = random.choice(len(words.AGE_GROUPS), CHUNK, p=_shares(np.array([3.0, 5, 4, 3, 2, 1])))
        group = country * len(words.AGE_GROUPS) + age_group
        shape = (CHUNK, INTERESTS)
        edges = self.group_categories[group]  # [users, categories]
        category = (random.random(shape)[:, :, None] > edges[:, None, :-1]).sum(axis=2)
        wealth = random.integers(0, STYLES, CHUNK)[:, None]
        style = np.clip(wealth + random.integers(-1, 2, shape), 0, STYLES - 1)
        people = People(
            first=chunk * CHUNK,
            country=country,
            age_group=age_group,
            joined=self._joined(chunk * CHUNK + np.arange(CHUNK), random.integers(1, 900, CHUNK)),
            activity=np.exp(random.normal(-0.5, 1.0, CHUNK)),  # mean 1
            interests=category * STYLES + style,
            base=np.array([0.5, 0.25, 0.15, 0.1]) * np.ones(shape),
            period=random.uniform(40.0, 160.0, shape),
            phase=random.random(shape),
        )
        return replace(people, **{name: value[:n] for name, value in vars(people).items() if name != "first"})

    def _released(self, number: Ints, before: Ints) -> Ints:
        later = _day_of(number, self.settings.items, self.settings.new_items_share)
        return np.where(number < self.settings.items, before, later)

    def _joined(self, number: Ints, days_before: Ints) -> Ints:
        later = _day_of(number, self.settings.users, self.settings.new_users_share)
        return np.where(number < self.settings.users, -days_before, later)


def _arrived(day: int | Ints, opening: int, share: float) -> Ints:
    """How many have come since the first day."""
    return np.floor(day * np.float64(opening * share)).astype(np.int64)


def _day_of(number: Ints, opening: int, share: float) -> Ints:
    """The day on which each number came: the inverse of `_arrived`, for numbers from `opening` on."""
    if share == 0.0:
        return np.zeros_like(number)
    wanted = number + 1 - opening
    day = np.ceil(wanted / (opening * share)).astype(np.int64)
    # The division may land one day off where its quotient is all but whole.
    day -= _arrived(day - 1, opening, share) >= wanted
    return day + (_arrived(day, opening, share) < wanted)


def _shares(weights: np.ndarray) -> Floats:
    return weights / weights.sum()
