"""The intervals: against a slow loop, against theory, and that they do not depend on what they must not depend on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jobs.evaluation import bootstrap
from jobs.evaluation.bootstrap import RESAMPLES, Bootstrap


def intervals(values: np.ndarray) -> np.ndarray:
    """The intervals of all columns, over all users."""
    bootstrap = Bootstrap(np.arange(len(values)))
    bootstrap.ask(np.arange(len(values)), lambda own: values[own])
    return bootstrap.answers()[0].ends


def draws(*sizes: int) -> np.ndarray:
    """uint8[RESAMPLES, users]: how often each user is drawn, for blocks of these sizes."""
    random = np.random.default_rng(bootstrap.SEED)
    bits = [random.integers(0, 1 << 16, (RESAMPLES, size), dtype=np.uint16) for size in sizes]
    return np.concatenate([bootstrap.DRAWN[block] for block in bits], axis=1)


def test_a_user_is_drawn_as_often_as_poisson_says() -> None:
    for count in range(7):
        chance = math.exp(-1) / math.factorial(count)
        assert np.mean(count == bootstrap.DRAWN) == pytest.approx(chance, abs=2 / 65536)
    assert bootstrap.DRAWN.mean() == pytest.approx(1, abs=1e-3)


def test_the_intervals_are_those_of_a_loop_over_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "BLOCK", 7)
    values = np.random.default_rng(0).integers(0, 9, (20, 3)) / 8  # whole steps: the grid changes nothing
    values[4:9, 1] = np.nan
    for column, found in enumerate(intervals(values)):
        means = []
        for resample in draws(7, 7, 6):
            users = [user for user, times in enumerate(resample) for _ in range(times)]
            counted = [values[user, column] for user in users if not np.isnan(values[user, column])]
            means.append(sum(counted) / len(counted))
        np.testing.assert_allclose(found, np.quantile(means, [0.025, 0.975]), rtol=1e-12)


def test_a_question_about_some_users_is_that_of_the_others_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "BLOCK", 8)
    users = np.arange(100, 150)
    values = np.random.default_rng(1).random((50, 2))
    some = np.array([3, 4, 5, 20, 21, 30, 47])
    holes = np.full_like(values, np.nan)
    holes[some] = values[some]
    asked = Bootstrap(users)
    asked.ask(users, lambda own: holes[own])
    asked.ask(users[some], lambda own: values[some][own])
    asked.ask(users, lambda own: values[own])
    whole, part, everybody = asked.answers()
    np.testing.assert_array_equal(part.ends, whole.ends)
    np.testing.assert_allclose(part.means, values[some].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(everybody.means, values.mean(axis=0), rtol=1e-12)


def test_an_interval_is_as_wide_as_the_standard_error_says() -> None:
    values = np.random.default_rng(3).random((4000, 1))
    low, high = intervals(values)[0]
    error = values.std() / math.sqrt(len(values))
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.12)
    assert low < values.mean() < high


def test_a_difference_within_users_has_a_narrower_interval_than_its_parts() -> None:
    random = np.random.default_rng(4)
    theirs = random.random(500)
    ours = theirs + 0.02 + 0.01 * random.random(500)
    (a, b, paired) = intervals(np.stack([ours, theirs, ours - theirs], axis=1))
    assert 0.02 < paired[0] < paired[1] < 0.03
    assert a[0] < b[1], "taken apart, the two cannot be told from each other"


def test_the_sums_are_exact_so_that_no_arithmetic_library_can_move_an_interval() -> None:
    values = np.random.default_rng(5).random((300, 1))
    drawn = np.random.default_rng(6).integers(0, 12, 300).astype(float)
    on_grid = np.rint(values[:, 0] * bootstrap.GRID)
    exact = sum(int(times) * int(value) for times, value in zip(drawn, on_grid, strict=True))
    assert int((drawn @ on_grid).item()) == int((drawn[::-1] @ on_grid[::-1]).item()) == exact


def test_nobody_and_one_user_are_no_error() -> None:
    assert np.isnan(intervals(np.empty((0, 2)))).all()
    found = intervals(np.array([[0.25, np.nan]]))
    assert found[0].tolist() == [0.25, 0.25]
    assert np.isnan(found[1]).all()
