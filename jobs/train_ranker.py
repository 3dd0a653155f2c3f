"""The weights of the re-ranker's signals, learned from what users did after a version was made for them.

Where the serving log has enough clicks on answers, these teach, with the signals as they were served (`logged_lists`).
Where it has not, sessions do: those that began after the data of a version that was made current before ends are
replayed through it (`moments`). So nothing that is learned from was known to its lists, and every number is computed as
it is served. Signals have the same meaning in every embedding space, shares and cosines; so weights learned in one
space serve the next.

What clicks have taught stays until there are enough of them again: by replayed sessions it is worse than what sessions
teach, and by clicks it is the other way round.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from jobs import arrival_score, datasets, logged_lists
from jobs.learned_from import of_log, of_sessions
from jobs.logged_lists import LoggedLists
from jobs.moments import Moment, Moments, Stage, replay, sessions
from jobs.progress import Report
from jobs.ranking_fit import Lists, fit
from jobs.trending_then import TrendingThen, events_of
from prediction_store import history, layout
from prediction_store.errors import FormatError, StoreError
from prediction_store.manifest import read_manifest
from prediction_store.reader import Version
from reranker.arrivals import LEARNED
from reranker.signals import SIGNALS, default_weights
from schemas.config import Config
from schemas.ranker import LOG, SESSIONS, LearnedFrom, RankerWeights, encode_weights
from schemas.serving_config import Serve

WEIGHTS = "weights.json"
CANDIDATES = 128
"""Of a list that is learned from: the wanted one and others at random, which stand for all."""
SEED = 7
HELD_OUT = 5
"""One in so many lists, the latest, judges what the others have taught."""


def run(config: Config, day: str) -> Report:
    """Write `ranker`: weights.json. What is learned is taken where it ranks the latest sessions better than what was.

    Without a version that was served before, or with too few sessions since, the weights stay as they were.
    """
    started = time.monotonic()
    prepared = datasets.open_dataset(config.paths.workspace, day, "prepared")
    end = datasets.known_until(prepared)
    logged = _logged(config, end)
    with datasets.step(
        config.paths.workspace,
        day,
        "ranker",
        inputs=[prepared],
        settings=[config.ranker, config.lists, _replayed_with(config.serve)],
        outside={} if logged is None else {"serving_log": logged.fingerprint()},
    ) as draft:
        if draft.is_complete:
            return Report(step="train-ranker", day=day, skipped=True, rows=draft.rows)
        weights = default_weights("")
        details: dict[str, Any] = {}
        begin = datasets.end_of(day) - datasets.DAY_SECONDS
        earlier = earlier_version(Path(config.paths.store), begin) if config.ranker.learn else None
        if earlier is not None:
            with earlier:
                weights, details = _taught(earlier, prepared.path, logged, config, end)
                draft.rows["lists"] = details["lists"]
        name = earlier.name if earlier else "none"
        details = {"weights": "learned" if "mrr" in details else "as before", "from": name, **details}
        draft.extra |= details
        draft.path.joinpath(WEIGHTS).write_bytes(encode_weights(weights))
    return Report(step="train-ranker", day=day, rows=draft.rows, seconds=time.monotonic() - started, details=details)


def earlier_version(root: Path, begin: int) -> Version | None:
    """The last one made current of the versions that know nothing from `begin` on and are still there and whole,
    opened; None: there is none.

    Args:
        begin: of the day that is run, in epoch seconds: what the day itself has made is not earlier, its first hours
            neither, so that there is the whole day to learn from.
    """
    for number in reversed(layout.history_numbers(root)):
        try:
            name = history.read_record(root, number).version
            if read_manifest(root, name).made_at <= begin:
                return Version.open(root, name)
        except (StoreError, FormatError):  # retired since, damaged, or of a later Shortlist: the version or its record
            continue
    return None


def examples(stage: Stage, every: Sequence[Moment], config: Config) -> Lists:
    """The lists in which the wanted item is a candidate that may be shown; many of them at random, by time.

    Args:
        every: moments, by time. Only those that are drawn are asked for.
    """
    rng = np.random.default_rng(SEED)
    kept: dict[int, np.ndarray] = {}
    for number in map(int, rng.permutation(len(every))):
        case = replay(stage, every[number], config.serve)
        if case is None or case.wanted < 0 or not case.is_eligible[case.wanted]:
            continue
        others = np.flatnonzero(case.is_eligible)
        others = others[others != case.wanted]
        if len(others) >= CANDIDATES:
            others = rng.choice(others, CANDIDATES - 1, replace=False)
        kept[number] = case.signals(np.append(case.wanted, others))
        if len(kept) == config.ranker.most_lists:
            break
    signals = np.zeros((len(kept), CANDIDATES, len(SIGNALS)), np.float32)
    is_there = np.zeros((len(kept), CANDIDATES), bool)
    for row, number in enumerate(sorted(kept)):
        signals[row, : len(kept[number])] = kept[number]
        is_there[row, : len(kept[number])] = True
    return Lists(signals, is_there, np.ones(len(kept), np.float32))


def learn(lists: Lists, usual: RankerWeights, config: Config) -> RankerWeights:
    """The weights that rank these lists best; of no embedding space yet.

    A signal that is 0 in all of them keeps its usual weight: a replay, say, does not know what was shown in vain.
    """
    is_silent = ~lists.signals.any(axis=(0, 1))
    weights = np.where(is_silent, usual.weights, fit(lists, penalty=config.ranker.penalty))
    return RankerWeights([signal.name for signal in SIGNALS], [round(float(weight), 6) for weight in weights], "")


def reciprocal_rank(lists: Lists, weights: RankerWeights) -> float:
    """The mean of one over the place of the wanted in each list, by the weights of the lists; among equals its place is
    the middle one."""
    scores = lists.signals @ np.array(weights.weights, np.float32)  # [lists, candidates]
    better = ((scores > scores[:, :1]) & lists.is_there).sum(axis=1)
    level = ((scores == scores[:, :1]) & lists.is_there).sum(axis=1)  # the wanted one among them
    return float(np.average(1.0 / (better + (level + 1) / 2), weights=lists.weights))


def _logged(config: Config, end: int) -> LoggedLists | None:
    """What the serving log teaches; None: it is not asked."""
    if not (config.ranker.learn and config.ranker.fewest_clicks and config.data.interactions.serving_log):
        return None
    return logged_lists.read(config, end)


def _taught(
    version: Version, prepared: Path, logged: LoggedLists | None, config: Config, end: int
) -> tuple[RankerWeights, dict[str, Any]]:
    """The weights that serve next, with what they were learned from where they were, and how that went."""
    usual, clicks = _usual(version), 0 if logged is None else len(logged.lists.signals)
    replayed, seen = None, None
    if logged is not None and clicks >= config.ranker.fewest_clicks:
        weights, details = _better(logged.lists, usual, config)
        details |= {"learned_from": LOG, "eta": logged.eta, "eta_measured": logged.is_measured}
        seen = of_log(logged.lists) if "mrr" in details else None
    elif logged is not None and _is_from_log(usual):
        weights, details = usual, {"lists": clicks, "learned_from": LOG, "clicks": clicks}
    else:
        replayed = stage, every = _replayed(version, prepared, config, end)
        weights, details = _better(examples(stage, every, config), usual, config)
        details |= {"learned_from": SESSIONS, "clicks": clicks}
        seen = of_sessions(stage, every, weights, config.serve) if "mrr" in details else None
    if seen is not None:
        weights = msgspec.structs.replace(weights, learned_from=seen)
    if config.serve.arrivals == LEARNED:
        stage, every = replayed or _replayed(version, prepared, config, end)
        weights, of_arrivals = arrival_score.taught(stage, every, weights, usual, config)
        details |= of_arrivals
    return weights, details


def _replayed(version: Version, prepared: Path, config: Config, end: int) -> tuple[Stage, Moments]:
    """The moments since the version's data, and what they are replayed on."""
    since, gap = version.manifest.made_at, config.lists.session_gap_minutes
    found = sessions(prepared, since=since, until=end, gap_minutes=gap)
    stage = Stage.of(version, TrendingThen(version, events_of(prepared, since=since, until=end)))
    return stage, Moments(found, most_events=config.serve.max_session_events)


def _usual(version: Version) -> RankerWeights:
    """The weights of a version, in the order of SIGNALS; what is new since has its default, and so have all where the
    version goes by a signal that is unknown here."""
    served, usual = version.ranker, default_weights("")
    weights = dict(zip(served.signals, served.weights, strict=True))
    if not weights.keys() <= {*usual.signals}:
        return usual
    by_name = dict(zip(usual.signals, usual.weights, strict=True)) | weights
    return msgspec.structs.replace(served, signals=[*by_name], weights=[*by_name.values()])


def _is_from_log(weights: RankerWeights) -> bool:
    return isinstance(weights.learned_from, LearnedFrom) and weights.learned_from.source == LOG


def _better(lists: Lists, usual: RankerWeights, config: Config) -> tuple[RankerWeights, dict[str, object]]:
    """The weights that are learned, or the usual ones where they are as good or there is too little to say."""
    details: dict[str, object] = {"lists": len(lists.signals)}
    if len(lists.signals) < config.ranker.fewest_lists:
        return usual, details
    split = len(lists.signals) - len(lists.signals) // HELD_OUT
    earlier, later = (Lists(*(part[slice_] for part in lists)) for slice_ in (slice(split), slice(split, None)))
    before, after = reciprocal_rank(later, usual), reciprocal_rank(later, learn(earlier, usual, config))
    details["mrr_before"] = round(before, 4)
    if after <= before:
        return usual, details | {"mrr_learned": round(after, 4)}
    return learn(lists, usual, config), details | {"mrr": round(after, 4)}


def _replayed_with(serve: Serve) -> Serve:
    """The settings that say what a request ranks, and by what."""
    return msgspec.structs.replace(
        Serve(),
        max_session_events=serve.max_session_events,
        session_half_life_seconds=serve.session_half_life_seconds,
        session_event_weights=serve.session_event_weights,
        neighbour_candidates=serve.neighbour_candidates,
        fresh_candidates=serve.fresh_candidates,
        trending_now_candidates=serve.trending_now_candidates,
        arrivals=LEARNED if serve.arrivals == LEARNED else [],
        seen=serve.seen,
        seen_before=serve.seen_before,
        bought=serve.bought,
        bought_events=serve.bought_events,
        default_k=serve.default_k,
        max_k=max(serve.default_k, Serve().max_k),  # decides nothing here, but bounds `default_k`
    )
