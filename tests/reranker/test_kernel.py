"""The compiled loops against their definitions in numpy, on random stores with holes in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from serving_shop import Shop

import reranker
from prediction_store.columns import Categories, Texts
from prediction_store.contexts import Contexts
from prediction_store.live_view import LiveView
from prediction_store.reader import NearItems, Version
from prediction_store.user_tower import Histories, StoredTower, Tower
from prediction_store.writer import VersionDraft, write_shard
from reranker import eligibility, ranking, sources, standing, user_tower
from reranker.arrays import NO_PLACES
from reranker.catalogue import Catalogue
from reranker.compiled import is_compiled, kernel
from reranker.forms import OfCode, OfItem, Placed, Together, Toward, values_of
from reranker.fresh import Fresh
from reranker.pool import Pool
from reranker.ranking import Ranker, Scoring, top_in_numpy
from reranker.recommend import open_reranker
from reranker.session import EMPTY, Session
from reranker.signal_inputs import Circumstances, SignalInputs
from reranker.signals import SIGNALS, default_weights
from reranker.user_tower import UserNow, UserTower
from schemas.messages import RecommendRequest, SessionEvent
from schemas.record import Candidates, RankedItems
from schemas.serving_config import Serve
from schemas.user_tower import TowerFacts

ITEMS, USERS, NOW = 300, 3, 1_800_000_000
KINDS = {"whole": 19, "bare": 16, "of one number": 1}
"""Versions and their dimensions; a bare one has only what every version has."""

needs_kernel = pytest.mark.skipif(not is_compiled, reason="there is no kernel here")


def write(root: Path, kind: str) -> str:
    """Vectors of zeros, prices and releases that are missing, lists that are padded; some companions are the item."""
    rng = np.random.default_rng(len(kind))
    dimensions = KINDS[kind]
    vectors = rng.normal(size=(ITEMS, dimensions)).astype(np.float32) * rng.choice([0.0, 0.01, 1.0, 30.0], (ITEMS, 1))
    holes = rng.random((2, ITEMS)) < 0.2
    columns = {
        "title": Texts([""] * ITEMS),
        "category": Categories(rng.choice(["", "a", "b", "c"], ITEMS).tolist()),
        "brand": Categories(["" if kind == "bare" else f"brand {n % 7}" for n in range(ITEMS)]),
        "price": np.where(holes[0], rng.choice([np.nan, 0.0, -1.0], ITEMS), rng.lognormal(3, 2, ITEMS)),
        "released": np.where(holes[1], np.nan, NOW + rng.uniform(-9e7, 1e6, ITEMS)),
        "in_stock": rng.random(ITEMS) < 0.8,
        "popularity": rng.random(ITEMS).astype(np.float32 if kind == "whole" else np.float64),
    }
    near = rng.integers(0, ITEMS, (ITEMS, 9)).astype(np.int32)
    near[np.arange(9) >= rng.integers(0, 10, (ITEMS, 1))] = -1
    scores = np.sort(rng.choice(np.linspace(0, 1, 5), (ITEMS, 9)), axis=1)[:, ::-1].astype(np.float32)
    with VersionDraft.begin(root, f"{len(kind):064x}", NOW) as draft:
        if kind == "whole":
            columns["trend"] = rng.random(ITEMS).astype(np.float32)
        draft.write_items(vectors.astype(np.float32), [f"i{item}" for item in range(ITEMS)], columns)
        draft.write_user_vectors(rng.normal(size=(USERS, dimensions)).astype(np.float32))
        draft.write_lists({"": RankedItems(*_list(rng, 50))}, {"": RankedItems(*_list(rng, 5))})
        draft.write_user_facts(None, [""] * USERS)
        draft.write_neighbours(near, scores)
        if kind != "bare":
            draft.write_together(near, scores)
            draft.write_contexts(
                Contexts([("hour", "8"), ("device", "tv")], np.tanh(rng.normal(size=(2, ITEMS))).astype("f4"))
            )
            facts = TowerFacts(is_unit=kind == "whole", history_length=6, event_weights={"view": 1.0, "cart": 3.0})
            matrix = rng.normal(size=(dimensions, dimensions)).astype(np.float32)
            histories = Histories(np.array([0, 0, 4, 12]), rng.integers(0, ITEMS, 12).astype("u4"), np.ones(12, "f4"))
            bases = rng.normal(size=(USERS, dimensions)).astype(np.float32)
            draft.write_user_tower(StoredTower(Tower(facts, matrix, matrix[0], np.ones(2, "f4")), bases, histories))
        draft.write_ranker(default_weights("space"))
        draft.write_report(b"{}")
        write_shard(draft.shard_path(0), [], expected_bytes=1_000)
        draft.seal(space_id="space", made_at=NOW, expires_at=NOW + 86_400, shards=1)
    return draft.name


@pytest.fixture(scope="module", params=KINDS)
def version(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Version]:
    if not is_compiled:
        pytest.skip("there is no kernel here")
    root = tmp_path_factory.mktemp("kernel") / "store"
    with Version.open(root, write(root, request.param)) as opened:
        yield opened


def _list(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    scores = np.sort(rng.normal(size=count).astype(np.float32))[::-1].copy()
    return rng.permutation(ITEMS)[:count].astype(np.uint32), scores if count % 7 else np.ones(count, np.float32)


def some_session(rng: np.random.Generator, count: int) -> Session:
    items = rng.permutation(ITEMS)[:count].astype(np.uint32)
    weights = rng.choice([0.0, 0.01, 0.5, 1.0, 2.0], count).astype(np.float32)
    kinds = tuple(rng.choice(["view", "cart", "wink"], count).tolist())
    return Session(items, weights, visits=items[::-1].copy(), kinds=kinds) if count else EMPTY


def requests(version: Version) -> Iterator[tuple[np.random.Generator, SignalInputs, Ranker]]:
    """Forty requests with pools of 1 to all items, sessions of none to 60, and weights of either sign."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        print(f"seed {seed}")
        count = int(rng.choice([1, 2, 30, 200, ITEMS]))
        pool = Pool(*_list(rng, count), listed=int(rng.choice([0, count // 2, count])))
        ignored = {int(item): int(rng.integers(1, 5)) for item in rng.integers(0, ITEMS, rng.choice([0, 12]))}
        session = some_session(rng, int(rng.choice([0, 1, 4, 60])))
        user = UserNow(UserTower.of(version), rng.choice([None, 0, 1, 2]), session)
        at = Circumstances(NOW + 8 * 3600.0, str(rng.choice(["", "tv"])), ignored, user)
        weights = rng.normal(size=len(SIGNALS)) * (rng.random(len(SIGNALS)) < 0.8)
        terms = tuple((signal, float(weight)) for signal, weight in zip(SIGNALS, weights, strict=True) if weight)
        yield rng, SignalInputs(version, pool, session, at), Ranker(terms)


def without_session(version: Version, items: np.ndarray) -> SignalInputs:
    return SignalInputs(version, Pool.of_list(items, np.zeros(items.size, np.float32)), EMPTY, Circumstances(NOW))


def slowly(given: SignalInputs, ranker: Ranker) -> np.ndarray:
    """float32[signals, n] by the definitions."""
    return np.stack([signal.values(given) for signal, _ in ranker.terms])


def test_the_kernel_is_built_where_there_is_a_compiler() -> None:
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    assert is_compiled or shutil.which("cc") is None or not headers.is_file()


@needs_kernel
@pytest.mark.parametrize(
    ("changed", "is_used"), [(None, True), ("terms.h", False), ("_kernel.c", False), ("all gone, as in a wheel", True)]
)
def test_a_kernel_of_other_sources_than_those_beside_it_is_not_used(
    changed: str | None, is_used: bool, tmp_path: Path
) -> None:
    package = Path(reranker.__file__).parent
    shutil.copytree(package, tmp_path / "reranker", ignore=shutil.ignore_patterns("__pycache__"))
    copy = tmp_path / "reranker" / "compiled"
    if changed in ("terms.h", "_kernel.c"):
        (copy / changed).write_bytes((copy / changed).read_bytes() + b"\n")
    elif changed is not None:
        for source in copy.glob("*.[ch]"):
            source.unlink()
    script = "import reranker, reranker.compiled as found; print(reranker.__file__, found.is_compiled)"
    path = os.pathsep.join([str(tmp_path), str(package.parent)])
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(tmp_path / "reranker" / "__init__.py"), str(is_used)]


def test_values_and_scores_are_those_of_the_definitions(version: Version) -> None:
    for rng, given, ranker in requests(version):
        scoring, n = Scoring(ranker, given), given.pool.items.size
        expected = slowly(given, ranker)
        positions = rng.permutation(n)[:20].astype(np.int64)
        np.testing.assert_allclose(scoring.values(positions), expected[:, positions].T, atol=1e-5)
        boost = rng.normal(size=n).astype(np.float32)
        found = scoring.scores(np.ones(n, np.bool_), boosts=[boost])
        np.testing.assert_allclose(found, boost + np.float32(ranker.weights) @ expected, atol=3e-5)


def test_asking_for_the_best_only_finds_the_best(version: Version) -> None:
    left_out = 0
    for rng, given, ranker in requests(version):
        scoring, n = Scoring(ranker, given), given.pool.items.size
        allowed = rng.random(n) < rng.choice([0.05, 0.9])
        boost = rng.choice([0.0, 2.0], n).astype(np.float32)
        whole = scoring.scores(allowed, boosts=[boost])
        for k in (1, 7, 20, 400):
            found, best = scoring.best(allowed, k, boosts=[boost])
            assert best.tolist() == top_in_numpy(whole, allowed, k).tolist()
            assert found[best].tolist() == whole[best].tolist()
            left_out += int(np.isneginf(found[allowed]).sum())
    assert left_out > 1_000, "the bounds leave nobody out, so that nothing was tested"


def test_a_signal_that_is_not_finite_counts_as_nothing(version: Version) -> None:
    rng = np.random.default_rng(1)
    column = rng.choice(np.array([np.nan, np.inf, -np.inf, 0.5], np.float32), ITEMS)
    given = without_session(version, np.arange(ITEMS, dtype=np.uint32))
    found = np.zeros(ITEMS, np.float32)
    kernel.score(found, given.arrays(), np.ones(ITEMS, np.bool_), [2.0], [OfItem(column)], NO_PLACES)
    assert found.tolist() == np.where(np.isfinite(column), 2 * column, 0.0).tolist()
    assert found.tolist() == (2 * values_of(OfItem(column), given)).tolist()


def test_a_column_may_be_one_of_a_table(version: Version) -> None:
    given = without_session(version, np.arange(ITEMS, dtype=np.uint32)[::-1].copy())
    for kind in (np.float32, np.float64):
        table = np.random.default_rng(2).normal(size=(ITEMS, 3)).astype(kind)
        found = np.zeros((2, ITEMS), np.float32)
        kernel.values(found, given.arrays(), np.arange(ITEMS), [OfItem(table[:, 1]), OfItem(table[::-1, 2])])
        assert found.tolist() == [table[::-1, 1].astype("f4").tolist(), table[:, 2].astype("f4").tolist()]
        with pytest.raises(TypeError, match=r"2 dimensions of .; wanted one of fd"):
            kernel.values(found, given.arrays(), np.arange(ITEMS), [OfItem(table), None])


def test_columns_that_lie_side_by_side_are_those_of_the_version(version: Version) -> None:
    catalogue = Catalogue(version, Circumstances(NOW))
    assert np.array_equal(catalogue.column("price"), version.column("price").astype("f4"), equal_nan=True)
    for name in ("category", "brand"):
        form = catalogue.affinity(name)
        assert isinstance(form, OfCode)
        assert form.codes.tolist() == version.column(name).codes.tolist()
        assert form.codes.strides == catalogue.column("price").strides == (12,)


SPREADS = {
    "all alike": lambda rng, shape: np.full(shape, 0.5),
    "one far above": lambda rng, shape: np.where(rng.random(shape) < 1e-3, 1e30, rng.uniform(0.9, 1.0, shape)),
    "few values": lambda rng, shape: rng.choice([-1.0, -0.0, 0.0, 0.25], shape),
    "of any size": lambda rng, shape: rng.choice([-1.0, 1.0], shape) * 10.0 ** rng.uniform(-30, 30, shape),
    "next to each other": lambda rng, shape: 1.0 + np.float32(2.0**-23) * rng.integers(0, 9, shape),
}


@pytest.mark.parametrize("spread", SPREADS)
def test_neighbours_come_in_order_however_their_scores_lie(spread: str) -> None:
    """As many as a session can have, each the neighbour of one item only, so that sums are scores."""
    rng = np.random.default_rng(4)
    scores = SPREADS[spread](rng, (60, 50)).astype(np.float32)
    near = NearItems(rng.permutation(3_000).reshape(60, 50).astype(np.int32), scores)
    for count in (1, 3, 6, 50):
        visited = sources.Visited(np.arange(count, dtype=np.uint32), np.ones(count, np.float32))
        items, found = np.empty(50 * count, np.uint32), np.empty(50 * count, np.float32)
        assert kernel.neighbours(items, found, *near, *visited) == 50 * count
        expected = sources.neighbours_in_numpy(near, visited)
        assert items.tolist() == expected[0].tolist()
        assert found.tolist() == expected[1].tolist()


def test_places_beyond_the_last_number_have_that_one(version: Version) -> None:
    given, numbers = without_session(version, np.arange(5, dtype=np.uint32)), np.array([3.0, 2.0, 1.0], np.float32)
    found = np.zeros((1, 3), np.float32)
    kernel.values(found, given.arrays(), np.array([4, 0, 2]), [Placed(numbers)])
    assert found.tolist() == [[1.0, 3.0, 1.0]]
    assert values_of(Placed(numbers), given).tolist() == [3.0, 2.0, 1.0, 1.0, 1.0]


def test_neighbours_are_those_of_the_definition(version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        visited = some_session(rng, int(rng.choice([0, 1, 5, 60])))
        by_kernel = sources.session_neighbours(version, visited)
        with monkeypatch.context() as patch:
            patch.setattr(sources, "is_compiled", False)
            expected = sources.session_neighbours(version, visited)
        for found, wanted in zip(by_kernel, expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_a_pool_is_that_of_the_definition(version: Version) -> None:
    fresh = Fresh.of(version)
    assert fresh is not None
    sizes = set()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        listed = Candidates(*_list(rng, int(rng.choice([0, 1, 200]))), made_at=1, user_row=int(rng.integers(3)))
        visited = sources.Visited.of(some_session(rng, int(rng.choice([1, 5, 60]))))
        suiting = sources.Suiting(fresh, rng.normal(size=version.dimensions).astype(np.float32))
        asked = (
            (None, suiting)[seed % 2],
            Serve(neighbour_candidates=int(rng.choice([0, 1, 30])), fresh_candidates=int(rng.choice([1, 9, 10_000]))),
        )
        found, scores = sources.gathered(version, listed, visited, *asked)
        expected, their_scores = sources.gathered_in_numpy(version, listed, visited, *asked)
        assert len(set(found.tolist())) == len(found)
        np.testing.assert_allclose(scores, their_scores, rtol=1e-5, atol=1e-5)
        assert found[: listed.items.size].tolist() == listed.items.tolist()
        # Within a part products that are equal to the last digits may stand in either order.
        assert sorted(found.tolist()) == sorted(expected.tolist())
        sizes.add(len(found) - len(listed.items))
    assert len(sizes) > 10, "hardly anything was gathered, so that nothing was tested"


def test_who_is_eligible_does_not_depend_on_the_kernel(version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    live = LiveView(version)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        (items, _), (hidden, _) = _list(rng, 200), _list(rng, int(rng.choice([0, 150])))
        live.available_until = rng.choice([NOW, np.inf], ITEMS) if seed % 2 else None
        found = eligibility.eligible(items, hidden, live, NOW)
        with monkeypatch.context() as patch:
            patch.setattr(eligibility, "is_compiled", False)
            np.testing.assert_array_equal(found, eligibility.eligible(items, hidden, live, NOW))


def test_a_refreshed_vector_does_not_depend_on_the_kernel(version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    tower = UserTower.of(version)
    if tower is None:
        return
    for seed in range(30):
        rng = np.random.default_rng(seed)
        visited = some_session(rng, int(rng.choice([0, 1, 4, 60])))
        asked = (rng.choice([None, 0, 1, 2]), visited.visits, tower.weights_of(visited.kinds))
        found = tower.refreshed(*asked)
        with monkeypatch.context() as patch:
            patch.setattr(user_tower, "is_compiled", False)
            np.testing.assert_allclose(found, tower.refreshed(*asked), rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused_and_not_read(version: Version) -> None:
    items, allowed = np.arange(4, dtype=np.uint32), np.ones(4, np.bool_)
    out = np.zeros(4, np.float32)
    asked = without_session(version, items).arrays()

    def other(**changed: object) -> tuple[object, ...]:
        names = ("items", "base", "vectors", "visited", "weights", "user", "missed", "misses", "history", "listed")
        return tuple({**dict(zip(names, asked, strict=True)), **changed}.values())

    with pytest.raises(IndexError, match=f"item {ITEMS} of {ITEMS}"):
        kernel.score(out, other(items=items + np.uint32(ITEMS - 3)), allowed, [], [], NO_PLACES)
    visited = {"visited": np.array([ITEMS], np.uint32), "weights": out[:1]}
    with pytest.raises(IndexError, match=f"item {ITEMS} of {ITEMS}"):
        kernel.score(out, other(**visited), allowed, [], [], NO_PLACES)
    with pytest.raises(TypeError, match="wanted one or two of f"):
        kernel.score(out, other(vectors=version.item_vectors.astype(np.float64)), allowed, [], [], NO_PLACES)
    with pytest.raises(TypeError, match="tuple of 10"):
        kernel.score(out, asked[:9], allowed, [], [], NO_PLACES)
    longer = np.zeros(version.dimensions + 1, np.float32)
    for changed in (
        {"base": out[:3]},
        {"listed": 5},
        {"listed": -1},
        {"weights": out},
        {"misses": out},
        {"user": longer},
    ):
        with pytest.raises(ValueError, match="other lengths"):
            kernel.score(out, other(**changed), allowed, [], [], NO_PLACES)
    for lengths in ((out[:3], allowed), (out, allowed[:3])):
        with pytest.raises(ValueError, match="other lengths"):
            kernel.score(lengths[0], asked, lengths[1], [], [], NO_PLACES)
    near = np.zeros((ITEMS, 2), np.int32), np.zeros((ITEMS, 3), np.float32)
    with_session = other(visited=items, weights=out)
    for form in (
        OfItem(out),
        Placed(out[:0]),
        Toward(4),
        Toward(-1),
        OfCode(np.zeros(ITEMS, np.int32), -1),
        Together(*near, 1),
        Together(near[0], near[1][:, :2].copy(), 0),
    ):
        with pytest.raises(ValueError, match="does not fit the catalogue"):
            kernel.score(out, with_session, allowed, [1.0], [form], NO_PLACES)
    for code in (3, 100_000, -2):
        with pytest.raises(IndexError, match="a code beyond the 3 that there are"):
            kernel.score(out, with_session, allowed, [1.0], [OfCode(np.full(ITEMS, code, np.int32), 3)], NO_PLACES)
    with pytest.raises(ValueError, match="not a known one"):
        kernel.score(out, asked, allowed, [1.0], [(1, 2)], NO_PLACES)  # type: ignore[list-item]
    for beyond in (4, -1):
        with pytest.raises(ValueError, match="beyond the pool"):
            kernel.values(np.zeros((0, 4), np.float32), asked, np.array([0, 1, 2, beyond]), [])
    assert not out.any()


@needs_kernel
def test_an_answer_without_the_kernel_is_the_same(stocked_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [SessionEvent(item="a13"), SessionEvent(item="a31", event="cart", time=NOW - 60.0)]
    asked = [RecommendRequest(user=user, k=9, session=given) for user in ("u0", "u1", "?") for given in ([], events)]
    with open_reranker(stocked_shop.config()) as reranker:
        by_kernel = [reranker.recommend(request) for request in asked]
        for module in (eligibility, ranking, sources, standing, user_tower):
            monkeypatch.setattr(module, "is_compiled", False)
        in_numpy = [reranker.recommend(request) for request in asked]
    for one, other in zip(by_kernel, in_numpy, strict=True):
        assert [item.item for item in one.items] == [item.item for item in other.items]
        scores = [item.score for item in one.items]
        assert scores == pytest.approx([item.score for item in other.items], abs=1e-5)
