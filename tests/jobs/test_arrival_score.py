"""What arrivals score: learned from what users wanted when something was new, where that makes answers better."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from interactions_of import Row, write_prepared
from serving_shop import MADE_AT, N_ITEMS, TASTES, Shop

from jobs import datasets, train_ranker
from jobs.arrival_score import BEST, CONSIDERED, Contests, fit, reciprocal_rank, taught
from prediction_store.reader import Version
from reranker.arrivals import scores_of
from reranker.signals import default_weights
from schemas.ranker import ArrivalScore, RankerWeights, decode_weights

DAY = "2099-01-01"
WEEK = 7 * 86_400
LEARNED = 'serve.arrivals="learned"'


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = Shop(tmp_path_factory.mktemp("arrivals") / "store")
    made.publish("a")
    return made


def news(*, are_wanted: bool, sessions: int = 160) -> list[Row]:
    """Each looks at an item and then at an article that came after the version; or at an item, which others do, too."""
    begin = (MADE_AT // WEEK + 1) * WEEK
    rng = np.random.default_rng(5)
    rows: list[Row] = []
    for number in range(sessions):
        user = list(TASTES)[number % len(TASTES)]
        article = f"article {number // 40}"
        follows = article if are_wanted or number % 20 == 0 else f"a{rng.integers(N_ITEMS):02}"
        time = begin + 300 * number
        rows.append((user, f"a{rng.integers(N_ITEMS):02}", time, f"session {number}"))
        rows.append((user, follows, time + 1, f"session {number}"))
        rows += [(f"reader {number} {reader}", article, time + 2, None) for reader in range(3)]
    return rows


def trained(shop: Shop, workspace: Path, *overrides: str) -> tuple[RankerWeights, dict[str, object]]:
    config = shop.config(f"paths.workspace={workspace}", "ranker.fewest_lists=20", *overrides)
    report = train_ranker.run(config, DAY)
    made = datasets.open_dataset(config.paths.workspace, DAY, "ranker")
    return decode_weights(made.part(train_ranker.WEIGHTS).read_bytes()), report.details


def with_arrivals(score: ArrivalScore | None) -> RankerWeights:
    usual = default_weights("space")
    return usual if score is None else msgspec.structs.replace(usual, arrivals=score)


def one_score(score: ArrivalScore) -> float:
    """Of what nine want, since an hour ago."""
    return float(scores_of(np.full(1, 9.0, np.float32), np.ones(1, np.float32), score)[0])


def contests(score: ArrivalScore, *, sharpness: float = 1.0, count: int = 4_000) -> Contests:
    """Moments in which each item was wanted as often as a softmax of its score says."""
    rng = np.random.default_rng(1)
    scores = -np.sort(-rng.normal(size=(count, BEST)).astype(np.float32) * 2, axis=1)
    counts, hours = np.full((2, count, CONSIDERED), np.nan, np.float32)
    counts[:, :5] = -np.sort(-rng.uniform(1, 60, (count, 5)).astype(np.float32), axis=1)
    hours[:, :5] = rng.uniform(0, 30, (count, 5))
    every = np.concatenate([scores, scores_of(counts, hours, score)], axis=1) * sharpness
    noisy = every + rng.gumbel(size=every.shape)
    return Contests(scores, counts, hours, np.nanargmax(noisy, axis=1))


@pytest.mark.parametrize(
    ("score", "sharpness"), [(ArrivalScore(2.0, 1.0, 0.0), 1.0), (ArrivalScore(-1.0, 2.0, -1.0), 0.5)]
)
def test_the_score_that_choices_were_made_by_is_found(score: ArrivalScore, sharpness: float) -> None:
    counts, hours = np.array([[2.0, 10.0, 50.0], [0.0, 20.0, 3.0]], np.float32)
    found = scores_of(counts, hours, fit(contests(score, sharpness=sharpness)))
    assert found == pytest.approx(scores_of(counts, hours, score), abs=0.4)


def test_an_answer_is_judged_by_the_place_of_what_was_wanted() -> None:
    scores = np.full((4, BEST), -np.inf, np.float32)
    counts = np.full((4, CONSIDERED), np.nan, np.float32)
    scores[:, :3], counts[:, :2] = [3.0, 2.0, 1.0], [np.e - 1, 0.0]  # arrivals score 2 and 1: behind their equals
    given = Contests(scores, counts, counts * 0, np.array([0, 2, BEST, BEST + 1]))
    score = ArrivalScore(1.0, 1.0, 5.0)
    assert reciprocal_rank(given, score, 20) == pytest.approx((1 / 1 + 1 / 4 + 1 / 3 + 1 / 5) / 4)
    assert reciprocal_rank(given, score, 4) == pytest.approx((1 / 1 + 1 / 4 + 1 / 3) / 4)
    assert reciprocal_rank(given, None, 20) == pytest.approx((1 / 1 + 1 / 3) / 4)


def test_where_news_is_wanted_it_gets_a_score_that_puts_it_first(shop: Shop, tmp_path: Path) -> None:
    write_prepared(tmp_path, DAY, news(are_wanted=True))
    weights, details = trained(shop, tmp_path, LEARNED)
    assert details["arrivals"] == "learned"
    assert isinstance(weights.arrivals, ArrivalScore)
    assert one_score(weights.arrivals) > max(weights.weights)
    assert details["arrivals_mrr_none"] == 0.0
    assert float(str(details["arrivals_mrr_learned"])) > 0.5, "the newest of four articles"
    write_prepared(tmp_path / "again", DAY, news(are_wanted=True))
    assert trained(shop, tmp_path / "again", LEARNED)[0] == weights


def test_where_the_list_is_wanted_more_it_scores_less(shop: Shop, tmp_path: Path) -> None:
    write_prepared(tmp_path / "news", DAY, news(are_wanted=True))
    write_prepared(tmp_path / "list", DAY, news(are_wanted=False))
    many, few = (trained(shop, tmp_path / name, LEARNED)[0].arrivals for name in ("news", "list"))
    assert isinstance(many, ArrivalScore)
    assert isinstance(few, msgspec.UnsetType) or one_score(few) < one_score(many) - 1.0


def test_nothing_is_learned_where_there_are_to_be_none(shop: Shop, tmp_path: Path) -> None:
    write_prepared(tmp_path, DAY, news(are_wanted=True))
    weights, details = trained(shop, tmp_path, "serve.arrivals=[]")
    assert not isinstance(weights.arrivals, ArrivalScore)
    assert not any(name.startswith("arrivals") for name in details)
    assert "arrivals" in trained(shop, tmp_path)[1], "another setting is another ranker"
    config = shop.config(f"paths.workspace={tmp_path}", "ranker.fewest_lists=20", "serve.arrivals=[2]")
    assert not train_ranker.run(config, DAY).skipped
    others = shop.config(f"paths.workspace={tmp_path}", "ranker.fewest_lists=20", "serve.arrivals=[3]")
    assert train_ranker.run(others, DAY).skipped, "where places are does not matter"


@pytest.mark.parametrize(("score", "kept"), [(ArrivalScore(5.0, 1.0, 0.0), "as before"), (None, "none")])
def test_too_few_moments_leave_it_as_it_was(tmp_path: Path, score: ArrivalScore | None, kept: str) -> None:
    usual = Shop(tmp_path / "store")
    usual.publish("a", ranker=with_arrivals(score))
    write_prepared(tmp_path, DAY, news(are_wanted=True, sessions=8))
    weights, details = trained(usual, tmp_path, LEARNED)
    assert details["arrivals"] == kept
    assert weights.arrivals == (msgspec.UNSET if score is None else score)


def test_nights_in_which_nothing_was_new_leave_it_as_it_was(tmp_path: Path) -> None:
    shop, score = Shop(tmp_path / "store"), ArrivalScore(5.0, 1.0, 0.0)
    shop.publish("a", ranker=with_arrivals(score))
    rows = [row for row in news(are_wanted=False) if not row[1].startswith("article")]
    write_prepared(tmp_path, DAY, rows)
    weights, details = trained(shop, tmp_path, LEARNED)
    assert (weights.arrivals, details["arrivals"], details["arrivals_moments"]) == (score, "as before", 0)


def test_what_stays_is_told_in_the_unit_of_the_new_weights(tmp_path: Path) -> None:
    """Weights learned anew may be ten times as large: an arrival must not stand above everything for that."""
    shop, score = Shop(tmp_path / "store"), ArrivalScore(0.5, 0.25, -0.125)
    usual = with_arrivals(score)
    shop.publish("a", ranker=usual)
    larger = msgspec.structs.replace(default_weights(""), weights=[10 * weight for weight in usual.weights])
    write_prepared(tmp_path, DAY, [row for row in news(are_wanted=False) if not row[1].startswith("article")])
    prepared = datasets.open_dataset(str(tmp_path), DAY, "prepared").path
    config = shop.config(LEARNED)
    with Version.open(shop.root, shop.current()) as version:
        stage, every = train_ranker._replayed(version, prepared, config, datasets.end_of(DAY))
        weights, details = taught(stage, every, larger, usual, config)
        assert taught(stage, every, usual, usual, config)[0] == usual
    assert details["arrivals"] == "as before"
    assert isinstance(weights.arrivals, ArrivalScore)
    assert msgspec.structs.astuple(weights.arrivals) == pytest.approx((5.0, 2.5, -1.25), abs=1e-4)


def test_what_was_learned_before_goes_where_answers_are_better_without(tmp_path: Path) -> None:
    """Nobody wants what is new any more: a score that put it first is dropped, or a lower one learned."""
    shop = Shop(tmp_path / "store")
    shop.publish("a", ranker=with_arrivals(ArrivalScore(50.0, 1.0, 0.0)))
    write_prepared(tmp_path, DAY, news(are_wanted=False))
    weights, details = trained(shop, tmp_path, LEARNED)
    assert details["arrivals"] in {"none", "learned"}
    assert float(str(details["arrivals_mrr_before"])) < float(str(details["arrivals_mrr_none"]))
    assert not isinstance(weights.arrivals, ArrivalScore) or weights.arrivals.base < 10.0


def test_moments_without_a_list_or_the_wanted_item_are_left_out(shop: Shop, tmp_path: Path) -> None:
    rows = news(are_wanted=True, sessions=4)
    rows += [("stranger", "a00", rows[0][2], "x"), ("stranger", "article 0", rows[-1][2], "x")]
    write_prepared(tmp_path, DAY, rows)
    _, details = trained(shop, tmp_path, LEARNED)
    assert (details["arrivals"], details["arrivals_moments"]) == ("none", 3), (
        "the first article was announced by nobody"
    )
