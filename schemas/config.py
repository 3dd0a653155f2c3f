"""The one typed configuration: every setting with its unit, default, effect and bounds.

`config_file.load` reads it once, at the process edge; everything else is handed the section it needs.
Paths are relative to the folder of the configuration file. A section is frozen and valid by construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from schemas.gate_config import Gates
from schemas.held import SHARDS_PATTERN
from schemas.hosts import HOST_PATTERN, HostName
from schemas.section import Section
from schemas.serving_config import Log, Serve, Sessions
from schemas.train_config import Ranker, Train

Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Weight = Annotated[float, Meta(ge=0.0)]
EventWeight = Annotated[float, Meta(ge=0.0, le=1e4)]
Hours = Annotated[float, Meta(gt=0.0)]
Days = Annotated[int, Meta(ge=1, le=36_500)]
Name = Annotated[str, Meta(min_length=1)]
Day = Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]


class Paths(Section, frozen=True):
    """Where things lie."""

    workspace: Name = "work"
    """The datasets between the steps, one folder a day. Can be deleted: everything in it is recomputed."""
    store: Name = "store"
    """The prediction store: versions, history, gates. The only folder that serving reads versions from."""
    events: str = ""
    """The serving log, written by the server. Empty: `events` in the store."""
    sessions: str = ""
    """The embedded session state, written by the server. Empty: `sessions` in the store."""


class Simulate(Section, frozen=True):
    """The embedded shop that stands in for your own data."""

    output: Name = "data/shop"
    """Folder that receives `interactions/date=…`, `items/date=…` and `users/date=…`."""
    seed: Count = 20261122
    start_day: Day = "2026-01-01"
    """The shop's first day."""
    days: Days = 30
    """Days of history that `simulate` writes when no single day is asked for."""
    users: Positive = 20_000
    """Users at the end of the first day; more arrive every day."""
    items: Positive = 5_000
    """Items on sale at the end of the first day; more are released every day."""
    events_per_day: Positive = 34_000
    """Mean number of events a day (30 days: about one million)."""
    new_users_share: Share = 0.004
    """Users that arrive each day, as a share of `users`."""
    new_items_share: Share = 0.003
    """Items released each day, as a share of `items`."""

    def __post_init__(self) -> None:
        try:
            date.fromisoformat(self.start_day) + timedelta(days=self.days)
        except (ValueError, OverflowError):
            raise ValueError(f"start_day {self.start_day} is no day that a shop can open on") from None


class Interactions(Section, frozen=True):
    """The table of interactions: who did what with which item, and when."""

    path: Name = "data/shop/interactions"
    """A file, a folder (date=YYYY-MM-DD partitions are understood) or a glob."""
    format: Literal["auto", "parquet", "csv", "recbole"] = "auto"
    """csv covers .csv and .csv.gz; recbole is the tab-separated atomic file (.inter)."""
    user: Name = "user_id"
    item: Name = "item_id"
    time: Name = "timestamp"
    time_unit: Literal["auto", "seconds", "milliseconds", "iso"] = "auto"
    event: str = "event"
    """Column of the event type; empty when every row is the same event, `default_event`."""
    default_event: Name = "view"
    session: str = "session_id"
    """Column of the session; empty, or absent from the file, when there is none."""
    device: str = "device"
    """Column of the device; empty, or absent from the file, when there is none."""
    event_weights: dict[str, EventWeight] = field(default_factory=lambda: {"view": 1.0, "cart": 3.0, "purchase": 5.0})
    """How much one event of each type says about taste. An event type that is not listed is rejected."""
    consumed_events: list[str] = field(default_factory=lambda: ["purchase"])
    """Events after which an item is not recommended to that user again (see `retrieve.consumed`)."""
    serving_log: str = ""
    """Folder of a serving log, `paths.events` of the servers or a copy: its events are interactions, too. Impressions,
    and types that have no weight, are left out. Empty: none is read."""


class Items(Section, frozen=True):
    """The catalogue. Every column but the id may be missing: name it "" or leave it out of the file."""

    path: str = "data/shop/items"
    """Empty: the catalogue is whatever the interactions mention. With date partitions, the newest up to the day."""
    format: Literal["auto", "parquet", "csv", "recbole"] = "auto"
    item: Name = "item_id"
    title: str = "title"
    category: str = "category"
    brand: str = "brand"
    price: str = "price"
    released: str = "released"
    """Day or time of release; gives an item its age."""
    stock: str = "stock"
    """A number; 0 or less means out of stock, as does what is none. Missing means in stock."""


class Users(Section, frozen=True):
    """What is known of users beside what they did."""

    path: str = "data/shop/users"
    """Empty: the users are whatever the interactions mention."""
    format: Literal["auto", "parquet", "csv", "recbole"] = "auto"
    user: Name = "user_id"
    columns: list[str] = field(default_factory=lambda: ["country", "age_group"])
    """Categorical columns the user tower reads."""
    segment: str = "country"
    """Column whose values get popular and trending lists of their own; empty for none."""


class Data(Section, frozen=True):
    """Your own data: three tables and how to read them."""

    interactions: Interactions = field(default_factory=Interactions)
    items: Items = field(default_factory=Items)
    users: Users = field(default_factory=Users)
    max_rejected_share: Share = 0.05
    """`prepare` stops when more than this share of a table's rows is malformed."""
    history_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    """Interactions older than this many days before the run's day are not read. 0: all of them."""
    min_user_interactions: Count = 0
    """k-core: users with fewer interactions are left out, repeatedly with the item limit. 0: no filter."""
    min_item_interactions: Count = 0
    """k-core: items with fewer interactions lose their interactions (never their place in the catalogue)."""


class Split(Section, frozen=True):
    """Which interactions train, which choose the epoch, which judge."""

    strategy: Literal["time", "per_user"] = "time"
    """`time`: the last days are held out. `per_user`: each user's last interactions are."""
    validation_days: Days = 1
    test_days: Days = 1
    validation_per_user: Positive = 1
    """Interactions held out per user, with `per_user`."""
    test_per_user: Positive = 1


class Retrieve(Section, frozen=True):
    """The best items of every user."""

    candidates: Annotated[int, Meta(ge=1, le=1000)] = 1000
    consumed: Literal["drop", "keep"] = "drop"
    """What happens to items the user has consumed (see `data.interactions.consumed_events`)."""
    method: Literal["auto", "exact", "grouped", "hnsw", "ivfpq"] = "auto"
    """How the best items are found. `grouped` looks into few lists of items, together with all users who look there;
    `auto` takes it where it is less work than `exact`. `hnsw` and `ivfpq` are for catalogues that exceed memory."""
    lists: Count = 0
    """Inverted lists of the index; also the clusters that give items their dense order. 0: 4·√items."""
    probes: Count = 0
    """Inverted lists searched per user, or the breadth of an `hnsw` search. 0: as `min_recall` needs on a sample of
    users; with `grouped` each user then searches a number of their own."""
    min_recall: Share = 0.99
    """Share of the exact best items that a search must find, when `probes` is left to it."""
    batch_users: Positive = 4096
    """Users searched at a time in one task. More share the work better; each takes some 40 KB of the task's memory."""
    changed_only: bool = False
    """Search anew only for users whose vector, consumed items or listed items have changed since the current version,
    or for whom an item that is new or has another vector is good enough; carry all other lists over. Pays where
    `train.keep_days` keeps the model, for a new one changes every vector."""


class Lists(Section, frozen=True):
    """The fallbacks: what to show where there is no list of one's own."""

    length: Annotated[int, Meta(ge=1, le=1000)] = 500
    popular_half_life_days: Hours = 30.0
    """An interaction weighs half after so many days, where lists are of popular items."""
    trending_half_life_days: Hours = 2.0
    """The same for trending ones. The column `trend` is the share of the one in the other."""
    neighbours: Annotated[int, Meta(ge=1, le=1000)] = 50
    """Items kept for every item: the nearest ones, and those most often met in one session with it."""
    session_gap_minutes: Hours = 30.0
    """A pause this long ends a session, where the interactions name none."""
    min_segment_users: Count = 50
    """Segments with fewer users get no list of their own."""


class Store(Section, frozen=True):
    """Versions on disk: shards, time to live, retention."""

    shards: Annotated[int, Meta(ge=1, le=9999)] = 4
    record_ttl_hours: Hours = 72.0
    """A user's record older than this is expired."""
    version_ttl_hours: Hours = 168.0
    """A version older than this is expired as a whole."""
    expired: Literal["serve_stale", "fallback"] = "serve_stale"
    """Serve an expired record, marked as stale, or take the next rung."""
    keep_versions: Annotated[int, Meta(ge=2)] = 3
    """Sealed versions that `retire` leaves, the current one and the rollback target included."""
    grace_hours: Annotated[float, Meta(ge=0.0)] = 1.0
    """`retire` never removes a version younger than this."""
    live_items_mb: Annotated[int, Meta(ge=1, le=1_048_576)] = 1024
    """Megabytes that the facts about items that change within the day may take, some 300 bytes an item. Address space
    of each process that reads them; on disk only what is set."""
    remote: str = ""
    """Object storage that several hosts share: file:///…, s3://bucket/prefix, gs://… or az://…; empty: there is none.
    Credentials, region and endpoint come from the environment: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …"""


class Transfer(Section, frozen=True):
    """Between the store and object storage."""

    parallel: Annotated[int, Meta(ge=1, le=64)] = 4
    """Files that travel at the same time."""
    max_mb_per_second: Weight = 0.0
    """Megabytes a second that all of them together may take. 0: as fast as it goes."""


class Follow(Section, frozen=True):
    """A serving host among several: `shortlist follow`."""

    host: Annotated[str, Meta(pattern=rf"^$|{HOST_PATTERN}")] = ""
    """Name of this host, unlike any other's. Empty: what the operating system calls it."""
    hosts: list[HostName] = field(default_factory=list)
    """The hosts that flip together: none takes a new version before all have it. Empty: each flips by itself."""
    limit_seconds: Annotated[float, Meta(ge=0.0)] = 300.0
    """A host that is ready waits for the others no longer than this."""
    poll_seconds: Annotated[float, Meta(gt=0.0, le=3600.0)] = 1.0
    """How often the shared history is looked at."""
    shards: Annotated[str, Meta(pattern=SHARDS_PATTERN)] = ""
    """The shards of users that this host holds, FIRST-LAST/ALL, like 0-15/64. Empty: all of them."""


class Spark(Section, frozen=True):
    """The one SparkSession of a job. Any master: the job files and all other settings stay as they are."""

    master: Name = "local[*]"
    driver_memory: Annotated[str, Meta(pattern=r"^\d+[kmgt]$")] = "2g"
    shuffle_partitions: Count = 0
    """0: twice the cores of the executors that have come, of this machine with a local master. Results do not depend on
    it. With Spark's dynamic allocation 0 means Spark's own 200."""
    quick_start: bool = True
    """C1 compiler and serial collector: halves the cost of short local jobs, slows long scans."""
    conf: dict[str, str] = field(default_factory=dict)
    """Further Spark settings, as they are."""


class Config(Section, frozen=True):
    """Everything that can be set, by section."""

    paths: Paths = field(default_factory=Paths)
    simulate: Simulate = field(default_factory=Simulate)
    data: Data = field(default_factory=Data)
    split: Split = field(default_factory=Split)
    train: Train = field(default_factory=Train)
    retrieve: Retrieve = field(default_factory=Retrieve)
    lists: Lists = field(default_factory=Lists)
    ranker: Ranker = field(default_factory=Ranker)
    store: Store = field(default_factory=Store)
    transfer: Transfer = field(default_factory=Transfer)
    follow: Follow = field(default_factory=Follow)
    gates: Gates = field(default_factory=Gates)
    serve: Serve = field(default_factory=Serve)
    log: Log = field(default_factory=Log)
    sessions: Sessions = field(default_factory=Sessions)
    spark: Spark = field(default_factory=Spark)


def events_folder(paths: Paths) -> str:
    """Where the serving log lies."""
    return paths.events or f"{paths.store}/events"


def sessions_folder(paths: Paths) -> str:
    """Where the embedded session state lies."""
    return paths.sessions or f"{paths.store}/sessions"


def without_paths(config: Config) -> Config:
    """The settings that say what is computed, not where: the same wherever the tables, datasets and store lie."""
    data, replace = config.data, msgspec.structs.replace
    tables = {name: replace(getattr(data, name), path="-") for name in ("interactions", "items", "users")}
    tables["interactions"] = replace(tables["interactions"], serving_log="")
    return replace(
        config,
        paths=Paths(),
        data=replace(data, **tables),
        simulate=replace(config.simulate, output="-"),
        store=replace(config.store, remote="", live_items_mb=Store().live_items_mb),
        transfer=Transfer(),
        follow=Follow(),
        log=Log(),
        sessions=Sessions(),
    )


def deciding(section: Retrieve) -> Retrieve:
    """The settings that say what is found, not whether it is found anew or carried over."""
    return msgspec.structs.replace(section, changed_only=False)


def digest(settings: msgspec.Struct | Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a section, or of settings by name: 64 hex digits, alike for equal ones."""
    import hashlib

    return hashlib.sha256(msgspec.json.encode(settings, order="sorted")).hexdigest()
