"""Weights learned from sessions after a version was made: what people do is learned, and nothing else changes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from interactions_of import Row, write_prepared
from serving_shop import MADE_AT, N_ITEMS, TASTES, Shop

from jobs import datasets, train_ranker
from jobs.ranking_fit import Lists
from jobs.train_ranker import reciprocal_rank
from prediction_store import layout
from reranker.signals import SIGNALS, default_weights
from schemas.config import Config
from schemas.ranker import LOG, LearnedFrom, RankerWeights, decode_weights

DAY = "2099-01-01"
"""Later than the version, whose data ended an hour ago."""
SESSIONS = 120
WEEK = 7 * 86_400

EditSealed = Callable[[Path, Callable[[bytes], bytes]], None]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = Shop(tmp_path_factory.mktemp("learned") / "store")
    made.publish("a")
    return made


def config(shop: Shop, workspace: Path, *overrides: str) -> Config:
    return shop.config(f"paths.workspace={workspace}", "ranker.fewest_lists=20", *overrides)


def companions(seed: int = 3) -> list[Row]:
    """Whoever looks at an item looks next at its companion in `serving_shop`, the item ten on.

    In the same hour of the same day of the week whenever the test runs: both are signals.
    """
    begin = (MADE_AT // WEEK + 1) * WEEK
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for number in range(SESSIONS):
        item, user = int(rng.integers(N_ITEMS)), list(TASTES)[number % len(TASTES)]
        for step in (0, 1):
            time = begin + 10 * number + step
            rows.append((user, f"a{(item + 10 * step) % N_ITEMS:02}", time, f"session {number}"))
    return rows


def weights_of(shop: Shop, workspace: Path, *overrides: str) -> tuple[RankerWeights, dict[str, object]]:
    settings = config(shop, workspace, *overrides)
    report = train_ranker.run(settings, DAY)
    made = datasets.open_dataset(settings.paths.workspace, DAY, "ranker")
    return decode_weights(made.part(train_ranker.WEIGHTS).read_bytes()), report.details


def test_what_goes_with_what_is_learned_from_what_people_do(shop: Shop, tmp_path: Path) -> None:
    write_prepared(tmp_path, DAY, companions())
    weights, details = weights_of(shop, tmp_path)
    assert details["weights"] == "learned"
    assert details["from"] == shop.current()
    assert weights.signals == [signal.name for signal in SIGNALS]
    by_name = dict(zip(weights.signals, weights.weights, strict=True))
    assert by_name["together_last"] > 1.0
    assert by_name["ignored"] == -0.5, "a replay does not know what was shown: the usual weight stays"
    assert isinstance(weights.learned_from, LearnedFrom)
    silent = {"on_device", "ignored"}
    assert (weights.learned_from.source, {*weights.learned_from.spreads}) == ("sessions", {*weights.signals} - silent)
    assert float(str(details["mrr"])) > 0.9 > float(str(details["mrr_before"]))


def test_a_step_that_is_done_is_skipped_and_the_same_sessions_teach_the_same(shop: Shop, tmp_path: Path) -> None:
    write_prepared(tmp_path / "one", DAY, companions())
    write_prepared(tmp_path / "other", DAY, companions())
    one, _ = weights_of(shop, tmp_path / "one")
    assert train_ranker.run(config(shop, tmp_path / "one"), DAY).skipped
    assert weights_of(shop, tmp_path / "other")[0] == one


def test_another_pause_between_sessions_is_another_ranker(shop: Shop, tmp_path: Path) -> None:
    write_prepared(tmp_path, DAY, companions())
    train_ranker.run(config(shop, tmp_path), DAY)
    assert not train_ranker.run(config(shop, tmp_path, "lists.session_gap_minutes=5"), DAY).skipped
    assert train_ranker.run(config(shop, tmp_path, "lists.session_gap_minutes=5", "serve.port=1"), DAY).skipped


def test_longer_answers_than_usual_may_be_the_usual_ones(shop: Shop, tmp_path: Path) -> None:
    write_prepared(tmp_path, DAY, [])
    weights, _ = weights_of(shop, tmp_path, "serve.max_k=500", "serve.default_k=300")
    assert weights == default_weights("space")
    assert train_ranker.run(config(shop, tmp_path, "serve.max_k=600", "serve.default_k=300"), DAY).skipped


def test_the_fewest_lists_that_may_be_set_teach(shop: Shop, tmp_path: Path) -> None:
    write_prepared(tmp_path, DAY, companions()[:12])
    _, details = weights_of(shop, tmp_path, "ranker.fewest_lists=5")
    assert (details["lists"], "mrr_before" in details) == (6, True)


def test_weights_that_say_nothing_put_nothing_on_top() -> None:
    signals = np.zeros((1, 5, len(SIGNALS)), np.float32)
    signals[0, 3, 0] = 1.0  # the one better by base score; the last only fills the list up
    lists = Lists(signals, np.array([[True, True, True, True, False]]), np.ones(1, np.float32))
    names = [signal.name for signal in SIGNALS]
    nothing, by_score = np.zeros(len(SIGNALS)), np.eye(len(SIGNALS))[0]
    found = [reciprocal_rank(lists, RankerWeights(names, by.tolist(), "")) for by in (nothing, by_score, -by_score)]
    assert found == [1 / 2.5, 1 / 3, 1 / 2]


def test_too_few_sessions_leave_the_weights_as_they_were(shop: Shop, tmp_path: Path) -> None:
    write_prepared(tmp_path, DAY, companions())
    weights, details = weights_of(shop, tmp_path, "ranker.fewest_lists=1000")
    assert details["weights"] == "as before"
    assert weights == default_weights("space")


def test_too_few_clicks_leave_the_weights_that_clicks_have_taught(tmp_path: Path) -> None:
    """By replayed sessions they are worse than what sessions teach; the next clicks would say the opposite."""
    names = [signal.name for signal in SIGNALS]
    taught = RankerWeights(names, [0.5] * len(names), "space", learned_from=LearnedFrom(LOG, 1, {}))
    shop, log = Shop(tmp_path / "store"), f"data.interactions.serving_log={tmp_path / 'events'}"
    shop.publish("a", ranker=taught)
    write_prepared(tmp_path, DAY, companions())
    weights, details = weights_of(shop, tmp_path, log)
    assert weights == taught
    assert (details["weights"], details["learned_from"], details["clicks"]) == ("as before", LOG, 0)
    for others in ([], [log, "ranker.fewest_clicks=0"]):  # nobody asks the log any more
        assert weights_of(shop, tmp_path, *others)[1]["learned_from"] == "sessions"


def test_what_was_learned_before_there_was_a_signal_stays_and_the_new_one_gets_its_usual_weight(tmp_path: Path) -> None:
    names, usual = [signal.name for signal in SIGNALS], default_weights("space")
    older = [name for name in names if name not in ("popularity", "session_nearest")]
    taught = RankerWeights([*reversed(older)], [0.25] * len(older), "space", learned_from=LearnedFrom(LOG, 1, {}))
    shop = Shop(tmp_path / "store")
    shop.publish("a", ranker=taught)
    write_prepared(tmp_path, DAY, companions())
    weights, details = weights_of(shop, tmp_path, "ranker.fewest_lists=1000")
    assert details["weights"] == "as before"
    assert (weights.signals, weights.learned_from) == (names, taught.learned_from)
    by_default = dict(zip(names, usual.weights, strict=True))
    assert weights.weights == [0.25 if name in older else by_default[name] for name in names]


def test_sessions_that_the_version_knows_teach_nothing(shop: Shop, tmp_path: Path) -> None:
    known = [(user, item, time - 2 * WEEK, session) for user, item, time, session in companions()]
    write_prepared(tmp_path, DAY, known)
    _, details = weights_of(shop, tmp_path)
    assert (details["weights"], details["lists"]) == ("as before", 0)


def test_where_nothing_was_served_yet_the_usual_weights_are_written(tmp_path: Path) -> None:
    write_prepared(tmp_path, DAY, companions())
    weights, details = weights_of(Shop(tmp_path / "empty"), tmp_path)
    assert (weights, details["from"]) == (default_weights(""), "none")


def test_learning_can_be_switched_off(shop: Shop, tmp_path: Path) -> None:
    write_prepared(tmp_path, DAY, companions())
    assert weights_of(shop, tmp_path, "ranker.learn=false")[0] == default_weights("")


def test_a_version_of_the_same_day_or_later_is_not_learned_from(shop: Shop) -> None:
    assert train_ranker.earlier_version(shop.root, MADE_AT - 1) is None
    earlier = train_ranker.earlier_version(shop.root, MADE_AT)
    assert earlier is not None
    with earlier:
        assert earlier.name == shop.current()


@pytest.mark.parametrize(
    ("file", "change"),
    [
        (layout.ITEM_VECTORS, lambda data: data[:100]),
        (layout.shard_file(0), lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        (layout.MANIFEST, lambda data: data.replace(b'"format": 1', b'"format": 9')),
    ],
    ids=["cut short", "a bit flipped", "of a later Shortlist"],
)
def test_a_version_that_cannot_be_read_stops_no_night(
    tmp_path: Path, edit_sealed: EditSealed, file: str, change: Callable[[bytes], bytes]
) -> None:
    shop = Shop(tmp_path / "store")
    whole, other = shop.publish("a"), shop.publish("b")
    edit_sealed(layout.version_path(shop.root, other) / file, change)
    write_prepared(tmp_path, DAY, companions())
    assert weights_of(shop, tmp_path)[1]["from"] == whole


def test_an_old_decision_that_cannot_be_read_stops_no_night(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "store")
    shop.publish("a")
    newest = shop.publish("b")
    record = layout.history_path(shop.root, 1)
    record.chmod(0o644)
    record.write_bytes(record.read_bytes()[:-20])
    write_prepared(tmp_path, DAY, companions())
    assert weights_of(shop, tmp_path)[1]["from"] == newest


def test_choices_at_random_change_nothing(shop: Shop, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows: list[Row] = [(user, f"a{rng.integers(N_ITEMS):02}", time, session) for user, _, time, session in companions()]
    write_prepared(tmp_path, DAY, rows)
    _, details = weights_of(shop, tmp_path)
    learned = float(str(details.get("mrr", details.get("mrr_learned"))))
    assert learned < 2 * float(str(details["mrr_before"])), "noise was taken for a pattern"
