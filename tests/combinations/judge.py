"""What must hold of any answer, whatever was asked: each problem in words."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator

import msgspec
import numpy as np

from combinations.expected import Expected
from combinations.serving import Answered
from reranker.answered import numbers
from schemas.messages import AnsweredItem, RecommendAnswer
from schemas.rules import Order

ARRIVALS, LEARNED = "arrivals", "learned"


def problems_of(expected: Expected, found: Answered, weights: list[float]) -> Iterator[str]:
    """What is wrong with an answer and its record; `weights` are those of the record's signals."""
    answer = found.answer
    if [(item.item, item.rung, item.base_rank) for item in answer.items] != [*_logged(found)]:
        yield f"{answer.items}; in the log {[*_logged(found)]}"
        return
    yield from _of_items(expected, answer)
    if any(item.item not in expected.world.index for item in others(answer)):
        return
    yield from _of_arrivals(expected, answer)
    yield from _of_rungs(expected, answer)
    yield from _of_facts(expected, answer)
    yield from _of_length(expected, found)
    yield from _of_pins(expected, found)
    yield from _of_order(expected, found)
    yield from _of_explanations(expected, answer)
    yield from _of_record(expected, found, weights)


def _logged(found: Answered) -> Iterator[tuple[str, str, int]]:
    shown = found.record.shown
    yield from zip(shown.items, shown.rungs, shown.base_ranks, strict=True)


def others(answer: RecommendAnswer) -> list[AnsweredItem]:
    """All items that are no arrivals."""
    return [item for item in answer.items if item.rung != ARRIVALS]


def wanted(expected: Expected) -> int:
    """How many items are asked for."""
    k = expected.asked.request.k
    return expected.settings.config.serve.default_k if k is None else k


def pinned(expected: Expected, found: Answered) -> dict[str, int]:
    """The items that pins bring where they stand, and their places, from 1, among all that are no arrivals.

    Each pin in its turn takes the best that it means of the rung that the answer begins with. Where that rung has too
    few, what is pinned below them moves up.
    """
    kept = [item.rank for item in found.answer.items if item.rung == ARRIVALS]
    scores = dict(zip(found.record.shown.items, numbers(found.record.shown.scores).tolist(), strict=True))
    rung = [item for item in others(found.answer) if item.rung == found.answer.rung]
    taken: dict[int, str] = {}
    for position, meant in expected.pins():
        place = position - sum(rank < position for rank in kept)
        free = [item for item in rung if item.item not in taken.values()]
        means = [item for item in free if meant.holds(expected.row(expected.world.index[item.item]))]
        if means and place <= wanted(expected) - len(kept) and place not in taken:
            taken[place] = min(means, key=lambda item: (-scores[item.item], item.base_rank)).item
    free_places = len(rung) - len(taken)
    return {item: min(place, free_places + above + 1) for above, (place, item) in enumerate(taken.items())}


def _of_items(expected: Expected, answer: RecommendAnswer) -> Iterator[str]:
    ids = [item.item for item in answer.items]
    if len({*ids}) < len(ids):
        yield f"an item twice: {ids}"
    if [item.rank for item in answer.items] != [*range(1, len(ids) + 1)]:
        yield f"ranks {[item.rank for item in answer.items]}"
    if len(ids) > wanted(expected):
        yield f"{len(ids)} items, {wanted(expected)} were asked for"
    for item in others(answer):
        place = expected.world.index.get(item.item)
        if place is None:
            yield f"{item.item} is not in the version"
        elif not expected.may_be_shown(place):
            yield f"{item.item} must not be shown (rung {item.rung}, known as {expected.known.get(place)})"
    for item in answer.items:
        if not (math.isfinite(item.score) and math.isfinite(item.base_score)):
            yield f"{item.item} scores {item.score}, {item.base_score}"


def _of_arrivals(expected: Expected, answer: RecommendAnswer) -> Iterator[str]:
    found = [item for item in answer.items if item.rung == ARRIVALS]
    trending, serve = expected.asked.trending, expected.settings.config.serve
    if found and (expected.asked.holdout or trending is None):
        yield "arrivals, where there are none"
        return
    if serve.arrivals == LEARNED:
        yield from _of_competing(expected, answer)
        return
    pins = {position for position, _ in expected.pins()}
    places = [place for place in sorted(serve.arrivals) if place <= wanted(expected) and place not in pins]
    for item in found:
        if item.rank not in places and len(answer.items) >= wanted(expected):
            yield f"{item.item} stands at {item.rank}, which is not kept for it"
    wants = (
        []
        if expected.asked.holdout
        else expected.arrivals_by({i: worth for i, (worth, _) in expected.arrivals.items()})
    )
    if [item.item for item in found] != wants[: len(places)]:
        yield f"arrivals {[item.item for item in found]} at {places}, wanted {wants}"


def _of_competing(expected: Expected, answer: RecommendAnswer) -> Iterator[str]:
    """Arrivals that stand where their scores put them."""
    found = [item for item in answer.items if item.rung == ARRIVALS]
    score, trending, order = expected.world.arrival_score, expected.asked.trending, expected.settings.config.serve.order
    if trending is None or isinstance(score, msgspec.UnsetType):
        if found:
            yield "arrivals, and nobody knows what they score"
        return
    scores = expected.arrival_scores(score)
    pins = {position for position, _ in expected.pins()}
    for item in found:
        if item.item not in scores or not math.isclose(item.score, scores[item.item], rel_tol=1e-4, abs_tol=1e-4):
            yield f"{item.item} has the score {item.score}; wanted {scores.get(item.item, 'that it is not there')}"
        is_short = len(answer.items) < wanted(expected)
        if item.rank in pins | {*order.explore_positions} and not is_short:
            yield f"{item.item} stands at {item.rank}, which is for others"
    shown, wants = [item.item for item in found], expected.arrivals_by(scores)
    if shown != wants[: len(shown)] and not _are_near(scores):
        yield f"arrivals {[(item.item, item.score) for item in found]}, wanted {wants} of {scores}"
    is_hasty = any(rung.is_hasty for rung in expected.rungs if rung.name == answer.rung)
    if found and is_hasty:
        yield "arrivals, and no time to score the others"
    if pins or order != Order() or is_hasty or expected.asked.holdout:
        return
    first = [item for item in answer.items if item.rung in (answer.rung, ARRIVALS)]
    lowest = first[-1].score if len(first) == len(answer.items) == wanted(expected) else -math.inf
    missing = {name: scores[name] for name in wants[len(shown) :]}
    if any(one > lowest + 1e-4 for one in missing.values()):
        yield f"{missing} are not there, and the last scores {lowest}"
    for item, after in itertools.pairwise(first):
        if item.score < after.score - 1e-4:
            yield f"{item.item} stands before {after.item}, which scores more"


def _are_near(scores: dict[str, float]) -> bool:
    """Whether some may be equal, or the other way round, in float32."""
    return any(0.0 < one - other < 1e-4 for other, one in itertools.pairwise(sorted(scores.values())))


def _of_rungs(expected: Expected, answer: RecommendAnswer) -> Iterator[str]:
    told = [rung for rung, _ in itertools.groupby(item.rung for item in others(answer))]
    if told != [*dict.fromkeys(told)]:
        yield f"rungs come back: {told}"
    first = told[0] if told else (ARRIVALS if answer.items else "empty")
    if (answer.rung, answer.topped_up_from) != (first, told[1:]):
        yield f"rungs {told}, told {answer.rung} and {answer.topped_up_from}"
    by_name = {rung.name: rung for rung in expected.rungs}
    if [name for name in by_name if name in told] != told:
        yield f"rungs {told}; open are {[*by_name]}"
    for item in others(answer):
        rung, place = by_name.get(item.rung), expected.world.index.get(item.item, -1)
        if rung is not None and place not in rung.perhaps:
            yield f"{item.item} is not in {rung}"
        listed = _listed(expected, item.rung)
        if listed is not None and item.base_rank <= len(listed) and listed[item.base_rank - 1] != place:
            yield f"{item.item} is said to be number {item.base_rank} of {item.rung}"


def _listed(expected: Expected, rung: str) -> list[int] | None:
    if rung in ("personal", "stored_order"):
        return expected.stored[0]
    if rung == "segment":
        return expected.world.popular[expected.segment or ""]
    return expected.world.popular[""] if rung == "popular" else None


def _of_facts(expected: Expected, answer: RecommendAnswer) -> Iterator[str]:
    listed, reason, is_stale = expected.stored
    if answer.stale != is_stale or answer.age_seconds != expected.age_seconds:
        yield f"stale {answer.stale}, age {answer.age_seconds}; wanted {is_stale}, {expected.age_seconds}"
    unknown = sum(event.item not in expected.world.index for event in expected.asked.request.session)
    if answer.ignored_events != unknown:
        yield f"{answer.ignored_events} events ignored, {unknown} are of unknown items"
    hasty = {rung.name for rung in expected.rungs if rung.is_hasty}
    if expected.asked.holdout:
        reasons: set[str | None] = {"holdout"}
    elif {answer.rung, *answer.topped_up_from} & hasty:
        reasons = {"deadline"}
    elif listed is not None and answer.rung == "personal":
        reasons = {None}
    else:
        reasons = {reason if listed is None else "list_ran_dry"}
    if expected.asked.since >= 0 and not expected.asked.holdout:
        reasons.add("deadline")  # it may have come on a rung that had nothing
    if listed is not None and answer.rung == ARRIVALS:
        reasons.add(None)  # nothing else may have been asked for
    if answer.reason not in reasons:
        yield f"reason {answer.reason}, wanted {reasons}"


def _of_length(expected: Expected, found: Answered) -> Iterator[str]:
    answer = found.answer
    caps = expected.caps
    shown = [expected.world.index[item.item] for item in others(answer) if item.item in expected.world.index]
    at_pins = {expected.world.index[item] for item in pinned(expected, found)}
    items = expected.world.items
    arrived = [expected.announced(item.item) for item in answer.items if item.rung == ARRIVALS]
    seen = {name: Counter(expected.row(place).get(name) for place in shown) for name in caps}
    for name, most in caps.items():
        of_arrivals = Counter(row[name] for row in arrived if name in row)
        seen[name].update(of_arrivals)
        if any(count > most for count in of_arrivals.values()):
            yield f"arrivals are {of_arrivals} by {name}, the cap is {most}"
        by_pins = of_arrivals + Counter(expected.row(place).get(name) for place in at_pins)
        for value, count in seen[name].items():
            if value is not None and count > max(most, by_pins[value]):
                yield f"{count} of {name} {value}, the cap is {most} and {by_pins[value]} may be pinned"
    if len(answer.items) >= wanted(expected):
        return
    left = {place for rung in expected.rungs for place in rung.surely} - {*shown}
    for place in left:
        values = {name: expected.row(place).get(name) for name in caps}
        fits = all(value is None or seen[name][value] < caps[name] for name, value in values.items())
        if fits and expected.may_be_shown(place):
            yield f"{len(answer.items)} of {wanted(expected)} items, and {items[place].id} is left out"


def _of_pins(expected: Expected, found: Answered) -> Iterator[str]:
    rung, shown = found.answer.rung, others(found.answer)
    for item, place in pinned(expected, found).items():
        if shown[place - 1].item != item:
            yield f"{item} is pinned to {place} among what is no arrival; there stands {shown[place - 1].item}"
    first = next((one for one in expected.rungs if one.name == rung), None)
    above = 0
    for position, meant in expected.pins() if first is not None else ():
        is_meant = any(meant.holds(expected.row(expected.world.index[item.item])) for item in shown)
        may_be = [place for place in first.surely if expected.may_be_shown(place) and meant.holds(expected.row(place))]
        # Of two pins to one position the first holds, if there is anything that it means.
        if above < position <= len(found.answer.items) and may_be and not is_meant:
            yield f"a pin to {position} means {[expected.world.items[place].id for place in may_be]}; none is shown"
        above = position


def _of_order(expected: Expected, found: Answered) -> Iterator[str]:
    """Within a rung scores fall, or places in the list rise, where nothing else is wanted."""
    answer, order = found.answer, expected.settings.config.serve.order
    hasty = {rung.name for rung in expected.rungs if rung.is_hasty}
    pins = pinned(expected, found)
    odds = numbers(found.record.shown.propensities).tolist()
    chance = {item.item for item, odd in zip(answer.items, odds, strict=True) if odd < 1}
    for name, of_rung in itertools.groupby(others(answer), key=lambda item: item.rung):
        is_hasty = name in hasty
        if not is_hasty and (order.diversity or (order.explore_positions and name == answer.rung)):
            continue
        free = [item for item in of_rung if item.item not in pins and item.item not in chance]
        for above, below in itertools.pairwise(free):
            if is_hasty and above.base_rank > below.base_rank:
                yield f"{above.item} stands above {below.item}, which is further up in its list"
            # Scores are told with six digits.
            if not is_hasty and above.score < below.score - 2e-6:
                yield f"{above.item} with {above.score} stands above {below.item} with {below.score}"


def _of_explanations(expected: Expected, answer: RecommendAnswer) -> Iterator[str]:
    hasty = {rung.name for rung in expected.rungs if rung.is_hasty}
    for item in answer.items:
        parts = item.contributions
        if (parts is not msgspec.UNSET) != expected.asked.request.explain:
            yield f"{item.item} is explained, or is not"
        elif item.rung == ARRIVALS and expected.settings.config.serve.arrivals == LEARNED:
            if parts is not msgspec.UNSET:
                yield from _of_arrival(expected, item, parts)
        elif parts is msgspec.UNSET or item.rung == ARRIVALS or item.rung in hasty:
            if parts is not msgspec.UNSET and parts:
                yield f"{item.item} has contributions where nothing was ranked"
        elif abs(sum(parts.values()) - item.score) > 3e-5 * (1 + sum(map(abs, parts.values()))):
            yield f"{item.item} scores {item.score}, its parts add up to {sum(parts.values())}: {parts}"
        else:
            yield from _of_additions(expected, item)
        if expected.asked.request.explain and not (item.sources and item.why):
            yield f"{item.item} is there for no reason: {item.sources}, {item.why!r}"


def _of_arrival(expected: Expected, item: AnsweredItem, parts: dict[str, float]) -> Iterator[str]:
    boosts = {name: by for name, by in expected.boosts_of_arrival(item.item).items() if by}
    added = {name: part for name, part in parts.items() if name != ARRIVALS and part}
    if added.keys() != boosts.keys() or any(abs(added[name] - boosts[name]) > 1e-5 for name in boosts):
        yield f"{item.item} has {added}, wanted {boosts}"
    if abs(sum(parts.values()) - item.score) > 1e-5 or ARRIVALS not in parts:
        yield f"{item.item} scores {item.score} as an arrival, by {parts}"
    if item.title != expected.announced(item.item).get("title", ""):
        yield f"{item.item} is called {item.title!r}"


def _of_additions(expected: Expected, item: AnsweredItem) -> Iterator[str]:
    """Beside signals there are the boosts that hold, and the discount of what the user knows."""
    place, parts = expected.world.index[item.item], dict(item.contributions)  # type: ignore[arg-type]
    added = {name: part for name, part in parts.items() if name.startswith(("rule ", "discount "))}
    row, boosts = expected.row(place), Counter[str]()
    for rule, meant in expected.rules:
        if rule.action == "boost" and meant.holds(row):
            boosts[f"rule {rule.name}"] += rule.weight  # type: ignore[assignment]
    discounts = {name: -by for name, by in expected.discount(place).items() if round(by, 6)}
    given = dict(boosts) | discounts
    if added.keys() != given.keys() or any(abs(added[name] - given[name]) > 1e-5 for name in given):
        yield f"{item.item} has {added}, wanted {dict(boosts)} and {discounts}"


def _of_record(expected: Expected, found: Answered, weights: list[float]) -> Iterator[str]:
    answer, record = found.answer, found.record
    shown, n = record.shown, len(answer.items)
    scores, base, odds = (numbers(part) for part in (shown.scores, shown.base_scores, shown.propensities))
    values = numbers(shown.values)
    if {len(scores), len(base), len(odds)} != {n} or len(values) != n * len(shown.signals):
        yield f"{n} items, and in the log {len(scores)}, {len(base)}, {len(odds)}, {len(values)} numbers"
        return
    for item, score, low, odd in zip(answer.items, scores.tolist(), base.tolist(), odds.tolist(), strict=True):
        if abs(item.score - score) > 1e-6 * (1 + abs(score)) or abs(item.base_score - low) > 1e-6 * (1 + abs(low)):
            yield f"{item.item} scores {item.score} ({item.base_score}), in the log {score} ({low})"
        if not 0 < odd <= 1:
            yield f"{item.item} is there with a chance of {odd}"
        is_left = item.rank in expected.settings.config.serve.order.explore_positions and item.rung == answer.rung
        hasty = {rung.name for rung in expected.rungs if rung.is_hasty}
        if odd < 1 and (not is_left or item.rung in hasty):
            yield f"{item.item} is there with a chance of {odd}, and nothing is left to chance at {item.rank}"
    matrix = values.reshape(n, len(shown.signals))
    added = numbers(shown.added) if shown.added else np.zeros(n, np.float32)
    ranked = np.isfinite(matrix).all(axis=1)
    summed = (matrix @ np.array(weights, np.float32).reshape(-1)) + added if weights else added
    for item, score, total, is_ranked in zip(answer.items, scores.tolist(), summed.tolist(), ranked, strict=True):
        if is_ranked and weights and abs(score - total) > 3e-5 * (1 + abs(total)):
            yield f"{item.item} scores {score}, by the log's values {total}"
