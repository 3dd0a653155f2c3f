"""How far signals that are served are from where their weights were learned, by indexes known beforehand."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from reranker.serving_log.records import AnswerRecord, ShownItems
from reranker.stability import CHANGED, FEWEST_ANSWERS, LOOK, Drift, drift, spread_of, stability_index
from schemas.errors import FormatError
from schemas.ranker import LearnedFrom, RankerWeights, Spread, decode_weights, encode_weights

Values = npt.NDArray[np.float32]


def drawn(*, shift: float = 0.0, seed: int = 0, size: int = 10_000) -> Values:
    return (np.random.default_rng(seed).normal(size=size) + shift).astype(np.float32)


def test_the_index_of_two_bins_is_the_one_computed_by_hand() -> None:
    halves = Spread([0.5], [0.5, 0.5])
    three_of_four = np.array([0, 0, 0, 1], np.float32)
    assert stability_index(halves, three_of_four) == pytest.approx(0.25 * math.log(1.5) - 0.25 * math.log(0.5))


def test_equally_spread_values_have_an_index_of_about_nothing() -> None:
    assert stability_index(spread_of(drawn()), drawn()) == pytest.approx(0.0, abs=1e-6)
    assert stability_index(spread_of(drawn()), drawn(seed=1)) < 0.01


def test_the_index_grows_with_the_shift_and_ends_above_a_quarter() -> None:
    spread = spread_of(drawn())
    little, some, far = (stability_index(spread, drawn(shift=shift, seed=1)) for shift in (0.1, 0.4, 1.0))
    assert little < LOOK < some < CHANGED < far
    # Of two normal curves one apart, over all values instead of ten bins, it is the square of the shift.
    assert far == pytest.approx(1.0, abs=0.2)


def test_every_bin_holds_a_tenth_where_no_value_is_common() -> None:
    spread = spread_of(drawn())
    assert spread.shares == pytest.approx([0.1] * 10, abs=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.5, 1 / 3, -2.0])
def test_a_constant_signal_has_its_value_alone_in_a_bin(value: float) -> None:
    constant = np.full(1000, value, np.float32)
    spread = spread_of(constant)
    assert spread.shares == [0.0, 1.0, 0.0]
    assert stability_index(spread, constant) == 0.0
    for other in (value - 0.01, value + 0.01):
        assert stability_index(spread, np.full(1000, other, np.float32)) > CHANGED


def test_a_signal_that_is_mostly_nothing_is_compared_by_how_often_it_is_something() -> None:
    def sparse(share: float, seed: int) -> Values:
        values = np.random.default_rng(seed).random(10_000).astype(np.float32)
        values[: round(10_000 * (1 - share))] = 0.0
        return values

    spread = spread_of(sparse(0.05, 0))
    assert spread.shares == [0.0, 0.95, 0.05]
    assert stability_index(spread, sparse(0.05, 1)) == pytest.approx(0.0, abs=1e-6)
    assert stability_index(spread, sparse(0.3, 1)) == pytest.approx(0.25 * math.log(6) - 0.25 * math.log(0.70 / 0.95))
    assert stability_index(spread, np.zeros(10, np.float32)) == pytest.approx(0.35, abs=0.05)


def test_a_common_value_among_others_is_told_from_its_neighbours() -> None:
    values = np.concatenate([drawn(size=500), np.full(500, 0.25, np.float32)])
    beside = np.concatenate([drawn(size=500), np.full(500, 0.2501, np.float32)])
    spread = spread_of(values)
    assert 0.5 in [pytest.approx(share, abs=0.01) for share in spread.shares]
    assert stability_index(spread, beside) > CHANGED


def test_values_that_differ_by_less_than_the_grain_are_one() -> None:
    nearly = np.repeat(np.array([0.0, 5e-7, 1.0], np.float32), 100)
    assert spread_of(nearly) == Spread([-1e-6, 1e-6, 0.999999, 1.000001], [0.0, 0.666667, 0.0, 0.333333, 0.0])


@dataclass
class Answers:
    """Answers that show two signals."""

    rung: str = "personal"
    has_session: bool = True

    def of(self, values: Values, number: int = FEWEST_ANSWERS) -> list[AnswerRecord]:
        parts = np.array_split(values, number)
        return [self._record(place, part) for place, part in enumerate(parts)]

    def _record(self, number: int, values: Values) -> AnswerRecord:
        both = np.stack([values, np.zeros_like(values)], axis=1)
        count = len(values)
        items, rungs = [f"i{n}" for n in range(count)], [self.rung] * count
        shown = ShownItems(items, rungs, [1] * count, b"", b"", ["base", "none"], both.astype("<f4").tobytes(), b"")
        session = [("i0", "view", 1.0)] if self.has_session else []
        return AnswerRecord(f"r{number}", "ann", 1.0, "v", 1, "s", count, session, 0, {}, [], None, None, None, shown,
                            self.rung, [], None, False, 0, 0)  # fmt: skip


def learned(source: str) -> LearnedFrom:
    zeros = np.zeros(100, np.float32)
    return LearnedFrom(source, 7, {"base": spread_of(drawn()), "none": spread_of(zeros), "other": spread_of(zeros)})


def test_answers_are_compared_signal_by_signal_with_what_taught_the_weights() -> None:
    found = drift("v", learned("log"), Answers().of(drawn(shift=1.0, seed=1)))
    assert (found.version, found.answers, [*found.indexes]) == ("v", FEWEST_ANSWERS, ["base", "none"])
    assert found.reading("base") == "changed"
    assert (found.indexes["none"], found.reading("none")) == (0.0, "stable")
    assert found.above(0.25) == ["base"]
    assert drift("v", learned("log"), Answers().of(drawn(shift=0.4, seed=1))).reading("base") == "look"


def test_a_signal_that_taught_nothing_is_not_compared() -> None:
    of_base = LearnedFrom("log", 7, {"base": spread_of(drawn())})
    assert [*drift("v", of_base, Answers().of(drawn())).indexes] == ["base"]


def test_too_few_answers_say_nothing() -> None:
    found = drift("v", learned("log"), Answers().of(drawn(shift=1.0), FEWEST_ANSWERS - 1))
    assert found.reading("base") == "too few answers"
    assert found.above(0.25) == []


@pytest.mark.parametrize(
    ("source", "rung", "has_session", "compares"),
    [
        ("log", "personal", False, True),
        ("log", "session", True, True),
        ("log", "popular", True, False),
        ("sessions", "personal", True, True),
        ("sessions", "personal", False, False),
        ("sessions", "session", True, False),
    ],
)
def test_only_like_is_compared_with_like(source: str, rung: str, has_session: bool, compares: bool) -> None:
    found = drift("v", learned(source), Answers(rung, has_session).of(drawn()))
    assert (found.answers, bool(found.indexes)) == ((FEWEST_ANSWERS, True) if compares else (0, False))


def test_what_was_not_computed_for_want_of_time_is_left_out() -> None:
    values = drawn()
    values[::2] = np.nan
    found = drift("v", learned("log"), Answers().of(values))
    assert found.answers == FEWEST_ANSWERS
    assert found.indexes["base"] < LOOK


def test_a_version_that_does_not_tell_has_nothing_to_compare_with() -> None:
    old = b'{"signals": ["base"], "weights": [1.0], "space_id": "s", "format": 1}'
    assert drift("v", decode_weights(old).learned_from, Answers().of(drawn())) == Drift("v", None)
    assert drift("v", learned("a later way"), Answers().of(drawn())) == Drift("v", None)


def test_what_weights_were_learned_from_travels_with_them() -> None:
    weights = RankerWeights(["base"], [1.0], "s", learned_from=learned("log"))
    assert decode_weights(encode_weights(weights)) == weights
    assert b"learned_from" not in encode_weights(msgspec.structs.replace(weights, learned_from=msgspec.UNSET))


@pytest.mark.parametrize("spread", ['{"bounds": [0], "shares": [1]}', '{"bounds": [1, 0], "shares": [0, 0, 1]}'])
def test_a_spread_that_is_none_is_refused(spread: str) -> None:
    learned_from = f'{{"source": "log", "lists": 1, "spreads": {{"a": {spread}}}}}'
    text = f'{{"format": 1, "signals": [], "weights": [], "space_id": "s", "learned_from": {learned_from}}}'
    with pytest.raises(FormatError, match="wanted one more"):
        decode_weights(text.encode())
