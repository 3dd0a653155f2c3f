"""A small real version in a real store, with lists and columns that a test can predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from prediction_store import history
from prediction_store.contexts import Contexts
from prediction_store.gates import run_gates
from prediction_store.user_facts import Consumed
from prediction_store.user_tower import Histories, StoredTower, Tower
from prediction_store.writer import Categories, Texts, VersionDraft, shard_of, write_shard
from schemas.gate_config import AtMost, Gates
from schemas.gate_report import GateReport
from schemas.history import HistoryRecord
from schemas.ranker import RankerWeights
from schemas.record import RankedItems, encode_record
from schemas.user_tower import TowerFacts

MADE_AT = 1_767_225_600
"""2026-01-01T00:00:00Z."""
DAY = 86_400
SPACE = "5ca1ab1e5ca1ab1e"
REPORT: dict[str, Any] = {
    "users": 3,
    "recall": {"20": 0.4, "100": 0.5, "1000": 0.9},
    "ndcg": {"20": 0.3},
    "coverage": 0.8,
    "active": {"days": 30, "users": 3, "covered": 3},
    "popularity": {"recall": {"20": 0.2, "100": 0.25, "1000": 0.5}, "ndcg": {"20": 0.1}, "coverage": 0.1},
}


class MakeVersion(Protocol):
    """The fixture `make_version`: `write_small_version` into the test's store, an hour later each time; the name."""

    def __call__(self, inputs: str, **settings: Any) -> str: ...


def default_lists(n_items: int) -> dict[str, list[int]]:
    """Three users: ann has every item in order, bob every item backwards, cy just item 0."""
    return {"ann": list(range(n_items)), "bob": list(range(n_items))[::-1], "cy": [0]}


def score_at(rank: int) -> float:
    """The base score that a list's item at a rank (from 0) is written with."""
    return 1.0 - rank / 16


def write_small_version(
    root: Path,
    *,
    inputs: str = "inputs",
    now: float = MADE_AT + 3600,
    made_at: int = MADE_AT,
    expires_at: int | None = None,
    n_items: int = 12,
    item_ids: Sequence[str] | None = None,
    lists: Mapping[str, Sequence[int]] | None = None,
    scores: Mapping[str, Sequence[float]] | None = None,
    vectors: npt.NDArray[np.float32] | None = None,
    user_vectors: npt.NDArray[np.float32] | None = None,
    columns: Mapping[str, Any] | None = None,
    popular: Mapping[str, Sequence[int]] | None = None,
    trending: Mapping[str, Sequence[int]] | None = None,
    consumed: Mapping[str, Sequence[int]] | None = None,
    segments: Mapping[str, str] | None = None,
    neighbours: npt.NDArray[np.int32] | None = None,
    together: tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]] | None = None,
    contexts: Contexts | None = None,
    ranker: RankerWeights | None = None,
    tower: StoredTower | None = None,
    space_id: str = SPACE,
    report: Mapping[str, Any] | bytes | None = None,
    shards: int = 2,
    cut_over: bool = False,
) -> str:
    """Write and seal a version; its name. Everything not given is as described here.

    Items are `item-0` … in dense order, titled `Title 0` …, category hats (even) or shoes (odd), brand `brand-{i % 3}`
    ("" for item 0), price 10 + i (NaN for item 1), released i days before `made_at`, in stock but the last one,
    popularity falling from 1 to 0. Item vectors are float32[n, 4]: a one in place i % 4, and i / 100 more in the first.
    User vectors are rows of ones, one per user. Scores fall by rank, see `score_at`.

    Args:
        inputs: any text; its digest is the version's inputs digest.
        item_ids: in dense order.
        lists: user id to dense items, best first; by default `default_lists`.
        scores: user id to those of the list.
        columns: added to the default columns, or put in the place of one; None: without that one.
        popular, trending: segment to dense items. By default everybody's are all items, in order and backwards, and
            segment "DE" has popular items 3, 2 and 1.
        consumed, segments: by user id; by default nothing and everybody's.
        neighbours: int32[n, k]; by default the next three items, with scores 0.9, 0.8 and 0.7.
        together: items and scores, as `VersionDraft.write_together` takes them; by default none.
        contexts: by default none.
        tower: such as `small_tower`; by default none.
        cut_over: make it current at once, gates or not.
    """
    lists = default_lists(n_items) if lists is None else lists
    numbers = np.arange(n_items)
    if vectors is None:
        vectors = np.eye(4, dtype=np.float32)[numbers % 4]
        vectors[:, 0] += numbers.astype(np.float32) / 100
    if user_vectors is None:
        user_vectors = np.ones((max(1, len(lists)), vectors.shape[1]), np.float32)
    if neighbours is None:
        width = min(3, n_items - 1)
        neighbours = ((numbers[:, None] + np.arange(1, width + 1)) % n_items).astype(np.int32)  # [n, width]
    near_scores = np.tile(0.9 - 0.1 * np.arange(neighbours.shape[1], dtype=np.float32), (n_items, 1))
    with VersionDraft.begin(root, sha256(inputs.encode()).hexdigest(), now) as draft:
        kept = {**_columns(n_items, made_at), **(columns or {})}
        ids = item_ids or [f"item-{i}" for i in numbers]
        draft.write_items(vectors, ids, {name: column for name, column in kept.items() if column is not None})
        draft.write_user_vectors(user_vectors)
        _write_records(draft, lists, scores or {}, made_at, shards)
        everything = list(range(n_items))
        draft.write_lists(
            {
                segment: _ranked(items)
                for segment, items in (popular or {"": everything, "DE": [i for i in (3, 2, 1) if i < n_items]}).items()
            },
            {segment: _ranked(items) for segment, items in (trending or {"": everything[::-1]}).items()},
        )
        held = [np.unique(np.array((consumed or {}).get(user, ()), np.uint32)) for user in lists]
        held += [np.empty(0, np.uint32)] * (len(user_vectors) - len(held))
        draft.write_user_facts(
            Consumed(np.cumsum([0, *map(len, held)], dtype=np.int64), np.concatenate(held).astype(np.uint32)),
            [(segments or {}).get(user, "") for user in lists] + [""] * (len(user_vectors) - len(lists)),
        )
        if tower is not None:
            draft.write_user_tower(tower)
        draft.write_neighbours(neighbours, near_scores.astype(np.float32))
        if together is not None:
            draft.write_together(*together)
        if contexts is not None:
            draft.write_contexts(contexts)
        draft.write_ranker(ranker or RankerWeights(["base_score"], [1.0], space_id))
        draft.write_report(
            report if isinstance(report, bytes) else msgspec.json.encode(REPORT if report is None else report)
        )
        name = draft.seal(
            space_id=space_id,
            made_at=made_at,
            expires_at=made_at + 7 * DAY if expires_at is None else expires_at,
            shards=shards,
            inputs={"test": inputs},
        ).name
    if cut_over:
        history.cutover(root, name, "test@localhost", "made by a test", now, force=True)
    return name


def small_tower(n_users: int, n_items: int, dimensions: int) -> StoredTower:
    """A user tower; the first user has a history of two items, the last one has the last item, the others nothing."""
    random = np.random.default_rng(8)
    return StoredTower(
        Tower(
            TowerFacts(is_unit=True, history_length=8, event_weights={"view": 1.0}),
            random.standard_normal((dimensions, dimensions), np.float32),
            random.standard_normal(dimensions, np.float32),
            np.array([1.0, 0.5], np.float32),
        ),
        random.standard_normal((n_users, dimensions), np.float32),
        Histories(
            np.array([0, *[2] * (n_users - 1), 3], np.int64),
            np.array([1, 0, n_items - 1], np.uint32),
            np.array([1.0, 3.0, 1.0], np.float32),
        ),
    )


def judge(root: Path, name: str, *, candidates: int = 1000, now: float = 1, **settings: Any) -> GateReport:
    """Run the gates on a small version; `settings` are those of the gates. With the defaults it passes and warns.

    A lookup may take what the machine lets it take.
    """
    settings = {"lookup_p99_us": AtMost(), **settings}
    return run_gates(root, name, Gates(**settings), candidates=candidates, known_signals={"base_score"}, now=now)


def go_live(root: Path, name: str) -> HistoryRecord:
    """Run the gates on a small version and make it current."""
    judge(root, name)
    return history.cutover(root, name, "ann@host", "tonight's run", 5)


def _columns(n_items: int, made_at: int) -> dict[str, Any]:
    numbers = range(n_items)
    price = np.array([10.0 + i for i in numbers], np.float32)
    price[1:2] = np.nan
    return {
        "title": Texts(f"Title {i}" for i in numbers),
        "category": Categories(("hats", "shoes")[i % 2] for i in numbers),
        "brand": Categories(f"brand-{i % 3}" if i else "" for i in numbers),
        "price": price,
        "released": np.array([made_at - i * DAY for i in numbers], np.float64),
        "in_stock": np.array([i != n_items - 1 for i in numbers], np.bool_),
        "popularity": np.linspace(1.0, 0.0, n_items, dtype=np.float32),
    }


def _write_records(
    draft: VersionDraft,
    lists: Mapping[str, Sequence[int]],
    scores: Mapping[str, Sequence[float]],
    made_at: int,
    shards: int,
) -> None:
    records: list[list[tuple[bytes, bytes]]] = [[] for _ in range(shards)]
    for row, (user, items) in enumerate(lists.items()):
        key = user.encode()
        value = encode_record(
            key,
            np.array(items, np.int64),
            scores.get(user) or [score_at(rank) for rank in range(len(items))],
            made_at=made_at,
            user_row=row,
            seed=draft.seed,
            index_bits=draft.index_bits,
        )
        records[shard_of(key, shards)].append((key, value))
    for number, of_shard in enumerate(records):
        write_shard(draft.shard_path(number), sorted(of_shard), expected_bytes=1 << 20)


def _ranked(items: Sequence[int]) -> RankedItems:
    scores = [score_at(rank) for rank in range(len(items))]
    return RankedItems(np.array(items, np.uint32), np.array(scores, np.float32))
