"""The one typed configuration: every setting with its unit, default, effect and bounds.

`config_file.load` reads it once, at the process edge; everything else is handed the section it needs.
Sections with much in them have a file of their own: `data_config`, `train_config`, `gate_config`, `serving_config`.
Paths are relative to the folder of the configuration file. A section is frozen and valid by construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from schemas.data_config import Data, Simulate, Split
from schemas.gate_config import Gates
from schemas.held import SHARDS_PATTERN
from schemas.hosts import HOST_EXAMPLE, HOST_PATTERN, HostName
from schemas.section import Amount, Count, Duration, Name, Positive, Section, Share
from schemas.serving_config import Log, Serve, Sessions
from schemas.train_config import Ranker, Train


class Paths(Section, frozen=True):
    """Where things lie."""

    workspace: Name = "work"
    """The datasets between the steps, one folder a day. Can be deleted: everything in it is recomputed."""
    workspace_days: Count = 14
    """The last step of a run, `retire`, removes the folders of days that were last run longer ago than this many days.
    0: none."""
    store: Name = "store"
    """The prediction store: versions, history, gates. The only folder that serving reads versions from."""
    events: str = ""
    """The serving log, written by the server. Empty: `events` in the store."""
    sessions: str = ""
    """The embedded session state, written by the server. Empty: `sessions` in the store."""


class Retrieve(Section, frozen=True):
    """The best items of every user."""

    candidates: Annotated[int, Meta(ge=1, le=1000)] = 1000
    consumed: Literal["drop", "keep"] = "drop"
    """What happens to items the user has consumed (see `data.interactions.consumed_events`)."""
    method: Literal["auto", "exact", "grouped", "hnsw", "ivfpq"] = "auto"
    """How the best items are found. `grouped` searches only a few clusters of items for each user, many users at a
    time; `auto` takes it where it is less work than `exact`. `hnsw` and `ivfpq` are for catalogues that exceed
    memory."""
    lists: Count = 0
    """Inverted lists of the index, that is clusters of items; they also give items their dense order. 0: 4·√items."""
    probes: Count = 0
    """Inverted lists searched per user, or the breadth of an `hnsw` search. 0: as many as reach `min_recall` on a
    sample of users; with `grouped` the number then differs from user to user."""
    min_recall: Share = 0.99
    """Share of the exact best items that a search must find, when `probes` is left to it."""
    batch_users: Positive = 4096
    """Users searched at a time in one task. More is faster, and takes some 40 KB of the task's memory for each."""
    changed_only: bool = False
    """Search only for users whose vector, consumed items or listed items have changed since the current version, or
    since the one before where the workspace no longer has what it was made from, and for those whose list a new or
    changed item would enter; carry all other lists over. Only worth it with `train.keep_days`, because a new model
    changes every vector."""


class Lists(Section, frozen=True):
    """The fallbacks: what to show to a user who has no list."""

    length: Annotated[int, Meta(ge=1, le=1000)] = 500
    popular_half_life_days: Duration = 30.0
    """After so many days an interaction counts half in the popular lists."""
    trending_half_life_days: Duration = 2.0
    """The same in the trending lists. The column `trend` is an item's trending weight as a share of its popular one."""
    neighbours: Annotated[int, Meta(ge=1, le=1000)] = 50
    """Length of each item's two lists: its nearest items, and those most often met in one session with it."""
    session_gap_minutes: Duration = 30.0
    """A pause this long ends a session, where the interactions name none."""
    min_segment_users: Count = 50
    """Segments with fewer users get no list of their own."""


class Store(Section, frozen=True):
    """Versions on disk: shards, time to live, retention."""

    shards: Annotated[int, Meta(ge=1, le=9999)] = 4
    record_ttl_hours: Duration = 72.0
    """A user's record older than this is expired."""
    version_ttl_hours: Duration = 168.0
    """A version older than this is expired as a whole."""
    expired: Literal["serve_stale", "fallback"] = "serve_stale"
    """Serve an expired record, marked as stale, or take the next rung."""
    keep_versions: Annotated[int, Meta(ge=2)] = 3
    """Sealed versions that `retire` leaves, the current one and the rollback target included; of each day the last one
    first."""
    grace_hours: Amount = 1.0
    """`retire` never removes a version younger than this."""
    live_items_mb: Annotated[int, Meta(ge=1, le=1_048_576)] = 1024
    """Megabytes that the live facts about items may take, some 300 bytes an item, and up to a quarter of it what they
    were before, for `replay`. Each process that reads them reserves so much address space; the disk holds only what is
    set."""
    remote: str = ""
    """Object storage that several hosts share: file:///…, s3://bucket/prefix, gs://… or az://…; empty: there is none.
    Credentials, region and endpoint come from the environment: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …"""


class Transfer(Section, frozen=True):
    """Between the store and object storage."""

    parallel: Annotated[int, Meta(ge=1, le=64)] = 4
    """Files that travel at the same time."""
    max_mb_per_second: Amount = 0.0
    """Megabytes a second that all of them together may take. 0: as fast as it goes."""


class Follow(Section, frozen=True):
    """A serving host among several: `shortlist follow`."""

    host: Annotated[str, Meta(pattern=rf"^$|{HOST_PATTERN}", examples=[HOST_EXAMPLE])] = ""
    """Name of this host; no two hosts may have the same. Empty: the operating system's host name."""
    hosts: list[HostName] = field(default_factory=list)
    """The hosts that flip together: none takes a new version before all have it. Empty: each flips by itself."""
    limit_seconds: Amount = 300.0
    """A host that is ready waits for the others no longer than this."""
    poll_seconds: Annotated[float, Meta(gt=0.0, le=3600.0)] = 1.0
    """How often the shared history is looked at."""
    shards: Annotated[str, Meta(pattern=SHARDS_PATTERN, examples=["0-15/64"])] = ""
    """The shards of users that this host holds, FIRST-LAST/ALL, like 0-15/64. Empty: all of them."""


class Spark(Section, frozen=True):
    """The one SparkSession of a job. Any master: the job files and all other settings stay as they are."""

    master: Name = "local[*]"
    driver_memory: Annotated[str, Meta(pattern=r"^\d+[kmgt]$", examples=["2g"])] = "2g"
    shuffle_partitions: Count = 0
    """0: twice the number of cores, of this machine with a local master and else of the executors that have registered.
    With Spark's dynamic allocation 0 means Spark's own 200. Results do not depend on it."""
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
    """The settings that say what is found, not how many users at a time, or whether anew or carried over."""
    return msgspec.structs.replace(section, changed_only=False, batch_users=Retrieve().batch_users)


def digest(settings: msgspec.Struct | Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a section, or of settings by name: 64 hex digits, alike for equal ones."""
    import hashlib

    return hashlib.sha256(msgspec.json.encode(settings, order="sorted")).hexdigest()
