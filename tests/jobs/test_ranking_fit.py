"""Weights of signals: what is known is found, noise gets little, and the same lists give the same weights."""

from __future__ import annotations

import numpy as np

from jobs.ranking_fit import Lists, fit

TRUE = np.array([2.0, -1.0, 0.0, 0.5], np.float32)


def lists_by(weights: np.ndarray, *, lists: int = 3000, candidates: int = 12, seed: int = 0) -> Lists:
    """Lists in which the wanted one was chosen by a softmax of these weights; it comes first."""
    rng = np.random.default_rng(seed)
    signals = rng.normal(size=(lists, candidates, len(weights))).astype(np.float32)
    chosen = (signals @ weights + rng.gumbel(size=(lists, candidates))).argmax(axis=1)
    rows = np.arange(lists)
    signals[rows, 0], signals[rows, chosen] = signals[rows, chosen].copy(), signals[rows, 0].copy()
    return Lists(signals, np.ones((lists, candidates), bool), np.ones(lists, np.float32))


def test_the_weights_that_made_the_choices_are_found() -> None:
    assert np.abs(fit(lists_by(TRUE), penalty=0.0) - TRUE).max() < 0.1


def test_choices_at_random_teach_nothing() -> None:
    assert np.abs(fit(lists_by(np.zeros(4)), penalty=0.0)).max() < 0.1


def test_a_signal_of_another_unit_gets_a_weight_of_that_unit() -> None:
    lists = lists_by(TRUE)
    hundredfold = lists._replace(signals=lists.signals * np.array([1, 1, 1, 100], np.float32))
    found, usual = fit(hundredfold, penalty=1e-3), fit(lists, penalty=1e-3)
    assert np.abs(found * [1, 1, 1, 100] - usual).max() < 1e-3


def test_a_signal_that_says_nothing_gets_no_weight() -> None:
    lists = lists_by(TRUE)
    silent = lists._replace(signals=np.concatenate([lists.signals, np.zeros((3000, 12, 1), np.float32)], axis=2))
    assert fit(silent, penalty=1e-4)[4] == 0.0


def test_what_fills_up_short_lists_does_not_count() -> None:
    lists = lists_by(TRUE)
    fill = np.full((3000, 5, 4), 1e6, np.float32)
    longer = Lists(
        np.concatenate([lists.signals, fill], axis=1),
        np.concatenate([lists.is_there, np.zeros((3000, 5), bool)], axis=1),
        lists.weights,
    )
    assert np.abs(fit(longer, penalty=1e-4) - fit(lists, penalty=1e-4)).max() < 1e-4


def test_a_list_that_counts_for_nothing_is_as_if_it_were_not_there() -> None:
    one, other = lists_by(TRUE, lists=1000), lists_by(-TRUE, lists=1000, seed=1)
    silent = other._replace(weights=np.zeros(1000, np.float32))
    both = Lists(*(np.concatenate(part) for part in zip(one, silent, strict=True)))
    assert np.abs(fit(both, penalty=1e-4) - fit(one, penalty=1e-4)).max() < 0.02


def test_the_same_lists_give_the_same_weights_bit_for_bit() -> None:
    assert np.array_equal(fit(lists_by(TRUE), penalty=1e-4), fit(lists_by(TRUE), penalty=1e-4))
