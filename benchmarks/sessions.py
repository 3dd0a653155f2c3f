"""What the session adds to the stored list: the next item of real sessions, ranked by the re-ranker and by rules.

Deskdrop and Online Retail, night after night: every few days a version is made of everything until then, and the
sessions of known users up to the next version are replayed through it. The weights are learned on the earlier weeks
(`jobs/train_ranker.py`) and judged on the later ones. Where a session goes on with an item that is new to it, that item
is wanted: hit rate@20 and MRR@20. All rank the user's stored 1,000 and what the re-ranker adds to it; the rules, which
know every session up to the version, rank the catalogue too: all of it, or what the user has not consumed, which is all
that the re-ranker may show where `retrieve.consumed` drops it.

Beside the learned order stands the same with places for arrivals (`serve.arrivals`), as if each item had been announced
when it was first met. To be held against that, rules go on counting after the version was made: until the moment, they
know every session that is over, and items that no version knows. What most users want just now, which the re-ranker
counts too, is one of them.

    python -m benchmarks.sessions --data FOLDER      # deskdrop and online-retail in it
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Set
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow.parquet as pq

from benchmarks import measure
from benchmarks.session_rules import ItemToItem, Popularity, Rule, Scores, SessionNeighbours, wanted_now
from jobs import arrival_score, datasets, journey, release, train_ranker
from jobs.moments import Moment, Moments, Replayed, Stage, Visit, replay
from jobs.ranking_fit import Lists
from jobs.trending_then import Events, TrendingThen
from prediction_store.reader import Version
from reranker.arrays import Float32
from reranker.arrivals import Arrivals, Competing, Wanted, arrivals_of
from reranker.rules import Rules
from reranker.signals import SIGNALS, default_weights
from schemas.config import Config
from schemas.config_file import load_config
from schemas.messages import SessionEvent
from schemas.ranker import ArrivalScore, RankerWeights
from schemas.serving_config import Serve

K = 20
SPLIT = ["split.validation_days=7", "split.test_days=1"]
"""The version is judged on what comes after it: nearly everything before may be learned from."""
MOST_MOMENTS = 1500
"""Of one version, at random: a basket of fifty lines has as many."""
KNOWN_DAYS = 90
"""Before a version, from which rules take their sessions."""
STEPS = ("prepare", "train", "embed", "retrieve", "lists", "evaluate", "train-ranker", "build")
RULES: dict[str, Callable[[Sequence[Sequence[str]]], Rule]] = {
    "session neighbours (V-SKNN)": SessionNeighbours,
    "item to item": ItemToItem,
    "popularity": Popularity,
}

TRENDING = "trending now, same candidates"
UNTIL = "until the moment"
WANTED_NOW = f"wanted most now, {UNTIL}, whole catalogue"
WITH_ARRIVALS = "the re-ranker, learned, arrivals"
PLACES = ((2, 4, 6), (2, 4, 6, 8, 10), (1, 3, 5, 7, 9, 11, 13, 15, 17, 19))
"""For arrivals."""


class Data(NamedTuple):
    """A public data set, and how it is divided by time."""

    name: str
    key: str  # of the last line
    file: str
    event: str | None  # column
    first: str  # the day of the first version
    learn_until: str  # sessions up to this day are learned from, the later ones judge
    last: str
    every_days: int  # from a version to the next


DATA = (
    Data("deskdrop", "deskdrop", "events.parquet", "event", "2016-07-31", "2016-08-21", "2016-09-18", 3),
    Data("online-retail", "retail", "interactions.parquet", None, "2011-10-31", "2011-11-14", "2011-12-09", 7),
)


class Known(NamedTuple):
    """What rules know."""

    before: Sequence[Sequence[Visit]]  # sessions that were over when the version was made
    after: Sequence[Sequence[Visit]]  # those that were over later, by their end
    happened: Events


class Case(NamedTuple):
    """A moment, replayed, and what the rules say about it: item id to score."""

    moment: Moment
    replayed: Replayed
    signals: Float32  # [n, signals] of the pool: its version is closed when they are weighed
    rules: dict[str, Scores]
    live: dict[str, int]  # the rank by rules that go on counting
    ids: list[str]  # of the pool
    consumed: frozenset[str]  # by the user, up to the version
    arrivals: tuple[Arrivals, ...]  # for each of PLACES
    arriving: Wanted


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is asked for; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--only", choices=[data.name for data in DATA])
    parser.add_argument("--keep", type=Path, help="a folder where the versions stay, and are taken from next time")
    arguments = parser.parse_args(argv)
    facts = measure.header("sessions")
    rows: list[measure.Row] = []
    summary: dict[str, float | None] = {}
    for data in DATA:
        if arguments.only not in (None, data.name):
            continue
        source = arguments.data / data.name
        if not source.is_dir():
            print(f"no {source}: left out")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            config = prepare_example(arguments.keep or Path(scratch), data, source)
            summary |= compare(data, config, read_sessions(data, source), rows)
    measure.finish(facts, rows, summary)


def prepare_example(folder: Path, data: Data, source: Path) -> Config:
    """The configuration of the example of this name, in a copy of it."""
    example = folder / data.name
    if not example.is_dir():
        root = Path(__file__).resolve().parent.parent
        ignored = shutil.ignore_patterns("data", "work", "store")
        shutil.copytree(root / "examples" / data.name, example, ignore=ignored)
        (example / "data").symlink_to(source.resolve())
    return load_config(example / "shortlist.toml", SPLIT)


def nights(data: Data) -> Iterator[tuple[str, int]]:
    """(day of a version, the second at which the next one takes over)."""
    day, last = date.fromisoformat(data.first), date.fromisoformat(data.last)
    while day < last:
        following = min(day + timedelta(days=data.every_days), last)
        yield str(day), datasets.end_of(str(following))
        day = following


def compare(
    data: Data, config: Config, sessions: Sequence[Sequence[Visit]], rows: list[measure.Row]
) -> dict[str, float | None]:
    """Night after night: learn, or rank what came next in every way."""
    learned_from, cases, happened = [], [], events_of(sessions)
    for day, until in nights(data):
        journey.run(config, day, STEPS, now=time.time)
        made = datasets.end_of(day)
        before = [s for s in sessions if made - KNOWN_DAYS * 86_400 <= s[0].event.time and s[-1].event.time < made]
        every = moments_of(sessions, made, until, config)
        with Version.open(Path(config.paths.store), release.version_of(config, day)) as version:
            stage = Stage.of(version, TrendingThen(version, happened))
            if day < data.learn_until:
                learned_from.append(train_ranker.examples(stage, every, config))
            else:
                after = sorted((s for s in sessions if s[-1].event.time >= made), key=lambda s: s[-1].event.time)
                cases += list(judged(stage, Known(before, after, happened), every, config))
    lists = Lists(*(np.concatenate(part) for part in zip(*learned_from, strict=True)))
    untrained = default_weights("")
    learned = train_ranker.learn(lists, untrained, config)
    print(f"\n{data.name}: {len(lists.signals):,} lists to learn from, {len(cases):,} moments to judge")
    print(f"{np.mean([case.replayed.wanted >= 0 for case in cases]):.3f} of the wanted items are candidates; weights:")
    for name, weight in zip(learned.signals, learned.weights, strict=True):
        print(f"    {name:<20} {weight:8.3f}")
    ranks = {"batch order": [_rank(-np.arange(len(case.ids)), case.replayed) for case in cases]}
    for name, weights in (("the re-ranker, learned", learned), ("the re-ranker, untrained", untrained)):
        used = np.array(weights.weights, np.float32)
        ranks[name] = [_rank(case.signals @ used, case.replayed) for case in cases]
    score = score_of_arrivals(data, config, sessions, learned)
    print(f"    {'arrivals':<20} {score}")
    now = [signal.name for signal in SIGNALS].index("trending_now")
    ranks[TRENDING] = [_rank(case.signals[:, now], case.replayed) for case in cases]
    pairs = [*zip(cases, ranks["the re-ranker, learned"], strict=True)]
    for number, places in enumerate(PLACES):
        name = f"{WITH_ARRIVALS} at {' '.join(map(str, places))}"
        ranks[name] = [_rank_around(case.arrivals[number], rank, case.moment.wanted) for case, rank in pairs]
    used = np.array(learned.weights, np.float32)
    ranks[f"{WITH_ARRIVALS} by score"] = [
        _rank_around(_placed(case, case.signals @ used, score), rank, case.moment.wanted) for case, rank in pairs
    ]
    for rule in RULES:
        ranks[f"{rule}, same candidates"] = [
            _rank(_of_pool(case.ids, case.rules[rule]), case.replayed) for case in cases
        ]
        ranks[f"{rule}, whole catalogue"] = [_rank_of(case.rules[rule], case.moment) for case in cases]
        unread = [_rank_of(case.rules[rule], case.moment, case.consumed) for case in cases]
        ranks[f"{rule}, what is not consumed"] = unread
    ranks |= {name: [case.live[name] for case in cases] for name in cases[0].live}
    found = {name: _measured(rows, data.name, name, of_rule) for name, of_rule in ranks.items()}
    batch, ours = found["batch order"], found["the re-ranker, learned"]
    arrived = found[f"{WITH_ARRIVALS} by score"]
    by_rule = {name: found[name]["hit20"] for name in found if name.startswith((TRENDING, WANTED_NOW, *RULES))}
    best = max(hit20 for name, hit20 in by_rule.items() if UNTIL not in name)
    best_live = max(by_rule.values())
    return {
        f"{data.key}_hit20_vs_batch": round(ours["hit20"] / max(batch["hit20"], 1e-9), 3),
        f"{data.key}_mrr20_vs_batch": round(ours["mrr20"] / max(batch["mrr20"], 1e-9), 3),
        f"{data.key}_hit20_vs_best_rule": round(ours["hit20"] / max(best, 1e-9), 3),
        f"{data.key}_hit20_with_arrivals_vs_batch": round(arrived["hit20"] / max(batch["hit20"], 1e-9), 3),
        f"{data.key}_hit20_with_arrivals_vs_best_live_rule": round(arrived["hit20"] / max(best_live, 1e-9), 3),
    }


def moments_of(sessions: Sequence[Sequence[Visit]], since: int, until: int, config: Config) -> Moments:
    """The moments of the sessions within a version's time."""
    during = [session for session in sessions if since <= session[0].event.time and session[-1].event.time < until]
    return Moments(during, most_events=config.serve.max_session_events)


def score_of_arrivals(
    data: Data, config: Config, sessions: Sequence[Sequence[Visit]], weights: RankerWeights
) -> ArrivalScore:
    """As `train-ranker` learns it, of the same nights as the weights."""
    contests, happened = [], events_of(sessions)
    for day, until in nights(data):
        if day < data.learn_until:
            every = moments_of(sessions, datasets.end_of(day), until, config)
            with Version.open(Path(config.paths.store), release.version_of(config, day)) as version:
                stage = Stage.of(version, TrendingThen(version, happened))
                contests.append(arrival_score.contests_of(stage, every, weights, config.serve))
    return arrival_score.fit(arrival_score.Contests(*map(np.concatenate, zip(*contests, strict=True))))


def events_of(sessions: Sequence[Sequence[Visit]]) -> Events:
    """What all users did, by time."""
    visits = sorted((visit for session in sessions for visit in session), key=lambda visit: visit.event.time)
    _, user = np.unique([visit.user for visit in visits], return_inverse=True)
    items, item = np.unique([visit.event.item for visit in visits], return_inverse=True)
    return Events(user, item, np.array([visit.event.time for visit in visits], np.int64), items.tolist())


def judged(stage: Stage, known: Known, every: Sequence[Moment], config: Config) -> Iterator[Case]:
    """Some moments of users who have a list, by time."""
    version = stage.version
    rules, live = ({name: make(_items_of(known.before)) for name, make in RULES.items()} for _ in range(2))
    chosen = np.random.default_rng(1).permutation(len(every))[:MOST_MOMENTS]
    going_on = deque(known.after)
    for moment in sorted((every[number] for number in chosen.tolist()), key=_time_of):
        found = replay(stage, moment, config.serve)
        if found is None:
            continue
        while going_on and going_on[0][-1].event.time < _time_of(moment):
            (over,) = _items_of([going_on.popleft()])
            for rule in live.values():
                rule.add(over)
        seen = [event.item for event in moment.request.session]
        scores = {name: rule.scores(seen) for name, rule in rules.items()}
        user = version.read(moment.request.user)
        consumed = version.item_ids(version.consumed(user.user_row)) if user is not None else ()
        signals, ids = found.signals(np.arange(found.pool.items.size)), version.item_ids(found.pool.items)
        ranks = {WANTED_NOW: _rank_of(wanted_now(known.happened, _time_of(moment)), moment)}
        for name, rule in live.items():
            ranks[f"{name}, {UNTIL}, same candidates"] = _rank(_of_pool(ids, rule.scores(seen)), found)
            ranks[f"{name}, {UNTIL}, whole catalogue"] = _rank_of(rule.scores(seen), moment)
        arrivals = tuple(_arrivals(stage, moment, config.serve, places) for places in PLACES)
        arriving = arrival_score.arrived_at(stage, moment, config.serve)
        yield Case(moment, found, signals, scores, ranks, ids, frozenset(consumed), arrivals, arriving)


def read_sessions(data: Data, source: Path) -> list[list[Visit]]:
    """All sessions with a user and an id, by time; in the order of the file within one time."""
    columns = ["user_id", "session_id", "item_id", "timestamp", *([data.event] if data.event else [])]
    table = pq.read_table(source / data.file).to_pandas()
    table = table[[*columns, *(["device"] if "device" in table else [])]].dropna(subset=["user_id"])
    table = table.sort_values("timestamp", kind="stable")
    found: dict[tuple[str, str], list[Visit]] = {}
    for row in table.itertuples():
        kind = str(getattr(row, data.event)) if data.event else "purchase"
        event = SessionEvent(item=str(row.item_id), event=kind, time=float(row.timestamp))
        visit = Visit(str(row.user_id), event, str(getattr(row, "device", "") or ""))
        found.setdefault((visit.user, str(row.session_id)), []).append(visit)
    return list(found.values())


def _items_of(sessions: Sequence[Sequence[Visit]]) -> list[list[str]]:
    return [[visit.event.item for visit in session] for session in sessions]


def _time_of(moment: Moment) -> float:
    assert moment.request.context.time is not None
    return moment.request.context.time


def _of_pool(ids: Sequence[str], scores: Scores) -> np.ndarray:
    return np.array([scores.get(item, 0.0) for item in ids])


def _rank(scores: np.ndarray, case: Replayed) -> int:
    """The place of the wanted among what may be shown, from 1, ties by base rank; 0: it is not among it."""
    if case.wanted < 0 or not case.is_eligible[case.wanted]:
        return 0
    mine = scores[case.wanted]
    better = (scores > mine) | ((scores == mine) & (np.arange(len(scores)) < case.wanted))
    return 1 + int(np.count_nonzero(better & case.is_eligible))


def _arrivals(stage: Stage, moment: Moment, serve: Serve, places: Sequence[int]) -> Arrivals:
    now = _time_of(moment)
    assert stage.trending is not None
    settings = msgspec.structs.replace(serve, arrivals=[*places])
    return arrivals_of(
        stage.version, moment.request, Rules(), settings,
        trending=stage.trending.at(now), live=stage.live, ignored={}, wanted=K, now=now, score=None,
    ).placed(None)  # fmt: skip


def _placed(case: Case, scores: Float32, score: ArrivalScore) -> Arrivals:
    best = np.sort(scores[case.replayed.is_eligible])[::-1][:K]
    return Competing(case.arriving, (), K).by(score).placed(lambda: best)


def _rank_around(arrivals: Arrivals, rank: int, wanted: str) -> int:
    """The place in an answer with arrivals of what had a rank in one without, or is an arrival; 0: it is not there."""
    if wanted in arrivals.shown.items:
        return arrivals.places[[*arrivals.shown.items].index(wanted)]
    for place in arrivals.places:
        rank += 0 < rank >= place
    return rank


def _rank_of(scores: Scores, moment: Moment, hidden: Set[str] = frozenset()) -> int:
    """The place of the wanted in the catalogue without the session and what is hidden; 0: it has no score there."""
    seen = {event.item for event in moment.request.session} | hidden
    mine = 0.0 if moment.wanted in hidden else scores.get(moment.wanted, 0.0)
    if mine <= 0.0:
        return 0
    better = sum(score > mine or (score == mine and item < moment.wanted) for item, score in scores.items())
    return 1 + better - sum(item in scores and (scores[item], moment.wanted) > (mine, item) for item in seen)


def _measured(rows: list[measure.Row], data: str, name: str, ranks: Sequence[int]) -> dict[str, float]:
    places = np.array(ranks, dtype=np.float64)
    is_hit = (places >= 1) & (places <= K)
    found = {"hit20": float(is_hit.mean()), "mrr20": float(np.where(is_hit, 1.0 / np.maximum(places, 1.0), 0.0).mean())}
    rows.append(
        {"data": data, "name": name, "cases": len(ranks), **{key: round(value, 5) for key, value in found.items()}}
    )
    print(f"{data:<14} {name:<46} hit@20 {found['hit20']:.4f}  MRR@20 {found['mrr20']:.4f}", flush=True)
    return found


if __name__ == "__main__":
    main()
