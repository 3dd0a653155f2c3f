"""Clicks of a log: people look at what stands on top, and what they like is learned all the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from interactions_of import write_prepared
from serving_shop import MADE_AT, Shop

from jobs import datasets, logged_lists, train_ranker
from jobs.errors import SourceError
from jobs.logged_lists import LoggedLists, power_of_position
from jobs.ranking_fit import fit
from prediction_store.reader import Version
from reranker.ranking import Ranker, Scoring
from reranker.serving_log.records import AnswerRecord, EventsRecord, LoggedEvent, Record, ShownItems, encode
from reranker.serving_log.segments import SegmentWriter
from reranker.session import read_session
from reranker.signal_inputs import Circumstances, SignalInputs
from reranker.signals import SIGNALS, default_weights
from reranker.sources import stored
from reranker.user_tower import UserNow, UserTower
from schemas.config import Config
from schemas.config_file import load_config
from schemas.messages import SessionEvent
from schemas.ranker import LearnedFrom, RankerWeights, decode_weights
from schemas.serving_config import Log, Serve

DAY = "2099-01-01"
END = datasets.end_of(DAY)
SHOWN = 10
NAMES = [signal.name for signal in SIGNALS]
TRUTH = {"popularity": -0.4, "session_similarity": 1.5}
"""What people want; the shop, which does not know it, puts popular items on top."""
CHANCE = (2, 4, 8)


def record_of(number: int, signals: np.ndarray, propensities: np.ndarray, names: Sequence[str] = NAMES) -> AnswerRecord:
    shown = ShownItems(
        items=[f"i{place}" for place in range(len(signals))],
        rungs=["personal"] * len(signals),
        base_ranks=[*range(1, len(signals) + 1)],
        scores=b"",
        base_scores=b"",
        signals=[*names],
        values=signals.astype("<f4").tobytes(),
        propensities=propensities.astype("<f4").tobytes(),
    )
    return AnswerRecord(
        f"r{number}", "ann", END - 5000.0 + number / 10, "v", 1, "s", SHOWN, [], 0, {}, [], None, None, None,
        shown, "personal", [], None, False, 0, 0,
    )  # fmt: skip


def clicked(number: int, place: int, event: str = "click", time: float = END - 100.0) -> EventsRecord:
    return EventsRecord(time, [LoggedEvent("ann", f"i{place}", event, time, f"r{number}", place + 1)])


def people(answers: int, *, eta: float, chance: Sequence[int] = (), seed: int = 1) -> Iterator[Record]:
    """Each wants one of ten items, by a softmax of TRUTH, and clicks it when looking as far down as it stands."""
    rng = np.random.default_rng(seed)
    columns = [NAMES.index(name) for name in TRUTH]
    for number in range(answers):
        signals = rng.normal(size=(SHOWN, len(NAMES))) * np.isin(np.arange(len(NAMES)), [0, 1, *columns])
        signals = signals[np.argsort(-signals[:, NAMES.index("popularity")])]
        propensities = np.ones(SHOWN)
        for place in chance:  # whatever stands there was drawn, so that its place says nothing about it
            other = int(rng.integers(SHOWN))
            signals[[place - 1, other]] = signals[[other, place - 1]]
            propensities[place - 1] = 1 / SHOWN
        wish = signals[:, columns] @ np.array([*TRUTH.values()]) + rng.gumbel(size=SHOWN)
        wanted = int(wish.argmax())
        yield record_of(number, signals, propensities)
        if rng.random() < (wanted + 1.0) ** -eta:
            yield clicked(number, wanted)


def logged(folder: Path, records: Iterator[Record] | Sequence[Record]) -> Path:
    folder.mkdir(exist_ok=True)
    writer = SegmentWriter(folder / "events", Log(), lambda: float(END))
    writer.append([encode(record) for record in records])
    writer.close()
    return folder / "events"


def config(log: Path, *overrides: str) -> Config:
    return load_config(None, [f"data.interactions.serving_log={log}", *overrides], environ={})


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    made = Shop(tmp_path_factory.mktemp("served") / "store")
    made.publish("a")
    return made


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return logged(tmp_path_factory.mktemp("biased"), people(4000, eta=1.0))


def learned(found: LoggedLists) -> dict[str, float]:
    weights = fit(found.lists, penalty=1e-4)
    return {name: float(weights[NAMES.index(name)]) for name in TRUTH}


def test_what_people_want_is_learned_from_what_they_clicked_on_top(biased: Path) -> None:
    naive = learned(logged_lists.read(config(biased, "ranker.position_eta=0"), END))
    debiased = learned(logged_lists.read(config(biased), END))
    assert naive["popularity"] > 0.1, "what stands on top is clicked, and is popular: the wrong sign"
    assert debiased["popularity"] == pytest.approx(TRUTH["popularity"], abs=0.2)
    assert debiased["session_similarity"] == pytest.approx(TRUTH["session_similarity"], abs=0.3)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_places_left_to_chance_tell_how_far_people_look(tmp_path: Path, eta: float) -> None:
    found = logged_lists.read(config(logged(tmp_path, people(4000, eta=eta, chance=CHANCE))), END)
    assert found.is_measured
    assert found.eta == pytest.approx(eta, abs=0.25)


def test_the_power_is_found_exactly_where_clicks_follow_it() -> None:
    shows = dict.fromkeys((1, 2, 4, 8), 800)
    assert power_of_position(shows, {1: 800, 2: 400, 4: 200, 8: 100}) == pytest.approx(1.0, abs=1e-5)
    assert power_of_position(shows, dict.fromkeys(shows, 50)) == pytest.approx(0.0, abs=1e-5)
    assert power_of_position(shows, {1: 20, 2: 10}) is None, "too few clicks"
    assert power_of_position({3: 800}, {3: 400}) is None, "one place says nothing"


def test_the_order_of_the_log_and_its_segments_change_nothing(tmp_path: Path) -> None:
    records = [*people(300, eta=1.0)]
    limits = [f"ranker.{name}=40" for name in ("fewest_lists", "fewest_clicks", "most_lists")]
    one = logged_lists.read(config(logged(tmp_path / "one", records), *limits), END)
    logged(tmp_path / "two", records[::-2])
    two = logged_lists.read(config(logged(tmp_path / "two", records[-2::-2]), *limits), END)
    assert len(one.lists.signals) == 40
    assert one.fingerprint() == two.fingerprint()
    assert all(np.array_equal(part, other) for part, other in zip(one.lists, two.lists, strict=True))


def test_only_clicks_of_the_time_on_answers_of_the_time_count_once(tmp_path: Path) -> None:
    signals, sure = np.arange(SHOWN * len(NAMES), dtype=np.float64).reshape(SHOWN, -1), np.ones(SHOWN)
    records = [
        record_of(0, signals, sure),
        clicked(0, 4),
        clicked(0, 4, "purchase"),
        clicked(0, 6, "impression"),
        clicked(0, 5, "dismiss"),
        clicked(0, 7, time=END + 1.0),
        clicked(0, 8, time=END - 15 * 86_400.0),
        clicked(0, 77),
        clicked(99, 2),
        record_of(1, signals, sure),
        record_of(2, signals * np.nan, sure),
        clicked(2, 0),
        record_of(3, signals, sure, [signal.name for signal in SIGNALS[:-1]] + ["unheard of"]),
        clicked(3, 0),
    ]
    nothing = "data.interactions.event_weights={view = 1.0, dismiss = 0.0}"
    found = logged_lists.read(config(logged(tmp_path, records), nothing), END)
    ((row,), (is_there,), (weight,)) = found.lists
    expected = np.concatenate([signals[[4]], np.delete(signals, 4, axis=0)])
    assert np.array_equal(row, expected.astype(np.float32))
    assert is_there.all()
    assert weight == 5.0


def test_no_click_counts_more_than_it_may(tmp_path: Path) -> None:
    signals, sure = np.ones((SHOWN, len(NAMES))), np.ones(SHOWN)
    log = logged(tmp_path, [record_of(0, signals, sure), clicked(0, 9), clicked(0, 1)])
    found = logged_lists.read(config(log, "ranker.most_weight=4"), END)
    assert sorted(found.lists.weights.tolist()) == [2.0, 4.0]


def test_where_only_the_untrained_weights_were_served_nothing_is_learned(tmp_path: Path) -> None:
    untrained = default_weights("")
    names = [name for name, weight in zip(untrained.signals, untrained.weights, strict=True) if weight]
    records = [record_of(0, np.ones((SHOWN, len(names))), np.ones(SHOWN), names), clicked(0, 1)]
    assert len(logged_lists.read(config(logged(tmp_path, records)), END).lists.signals) == 0


def test_what_sessions_taught_is_enough_to_learn_from_the_log(tmp_path: Path) -> None:
    """Replayed sessions say nothing of `ignored`: it has no weight, and is not in the log."""
    names = [name for name in NAMES if name != "ignored"]
    records = [record_of(0, np.ones((SHOWN, len(names))), np.ones(SHOWN), names), clicked(0, 1)]
    assert len(logged_lists.read(config(logged(tmp_path, records)), END).lists.signals) == 1


def test_a_log_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="serving log is not there"):
        logged_lists.read(config(tmp_path / "none" / "events"), END)
    assert len(logged_lists.read(config(tmp_path / "not begun"), END).lists.signals) == 0


def test_train_ranker_learns_from_clicks_where_there_are_enough(shop: Shop, biased: Path, tmp_path: Path) -> None:
    write_prepared(tmp_path, DAY, [("u0", "a01", MADE_AT + 10, "s")])

    def trained(*overrides: str) -> tuple[RankerWeights, dict[str, object], bool]:
        log = f"data.interactions.serving_log={biased}"
        report = train_ranker.run(shop.config(f"paths.workspace={tmp_path}", log, *overrides), DAY)
        made = datasets.open_dataset(tmp_path, DAY, "ranker")
        return decode_weights(made.part(train_ranker.WEIGHTS).read_bytes()), report.details, report.skipped

    weights, details, _ = trained("ranker.fewest_clicks=500")
    by_name = dict(zip(weights.signals, weights.weights, strict=True))
    assert (details["learned_from"], details["weights"], details["eta"]) == ("log", "learned", 1.0)
    assert by_name["popularity"] == pytest.approx(TRUTH["popularity"], abs=0.2)
    assert isinstance(weights.learned_from, LearnedFrom)
    assert (weights.learned_from.source, weights.learned_from.lists) == ("log", details["lists"])
    assert trained("ranker.fewest_clicks=500")[2], "the same log teaches nothing new"
    for setting in ("ranker.fewest_clicks=20000", "ranker.fewest_clicks=0"):
        weights, details, _ = trained(setting)
        assert (details["learned_from"], details["weights"]) == ("sessions", "as before")
        assert weights == default_weights("space")


def test_scores_served_are_those_that_torch_learned_to_1e_5(shop: Shop) -> None:
    rng = np.random.default_rng(4)
    weights = RankerWeights(NAMES, rng.normal(scale=3.0, size=len(NAMES)).tolist(), "space")
    with Version.open(shop.root, shop.current()) as version:
        candidates, tower = version.read("u1"), UserTower.of(version)
        assert candidates is not None
        events = [SessionEvent(item=item, time=MADE_AT - 60.0 * n) for n, item in enumerate(("a31", "a12", "a03"))]
        session = read_session(events, version, Serve(), MADE_AT)
        at = Circumstances(float(MADE_AT), "phone", {3: 2}, UserNow(tower, candidates.user_row, session))
        given = SignalInputs(version, stored(candidates), session, at)
        values = torch.from_numpy(np.stack([signal.values(given) for signal in SIGNALS], axis=1))
        expected = (values @ torch.tensor(weights.weights)).numpy()
        served = Scoring(Ranker.of(weights, tower), given).scores(np.ones(len(values), np.bool_))
    assert np.abs(served - expected).max() < 1e-5
    assert np.ptp(served) > 1.0
