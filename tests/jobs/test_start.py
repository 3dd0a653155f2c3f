"""Where towers start: the parts of it against slow or known answers, and the whole through the towers."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from blocks_shop import BLOCKS, DAY, ITEMS, USERS, block_of, small_config, write_prepared
from torch.nn import functional

from jobs import datasets, model, task, train
from jobs.blend import balanced, blend, flattened
from jobs.features import item_features, user_features
from jobs.least_squares import PENALTY, WEIGHT, alternate
from jobs.losses import popularity_offsets
from jobs.refine import Factors, Refinement
from jobs.start import FACTORS_SHARE, distilled
from jobs.towers import ItemTensors, UserTensors
from schemas.config import Config

N_USERS, N_ITEMS = 60, 40


@pytest.fixture
def pairs() -> np.ndarray:
    """Who met what: some users, some items of their half of the catalogue; user 3 and item 7 met nobody."""
    rng = np.random.default_rng(4)
    met = rng.random((N_USERS, N_ITEMS)) < 0.3
    met &= (np.arange(N_USERS)[:, None] + np.arange(N_ITEMS)) % 2 == 0
    met[3], met[:, 7] = False, False
    return np.flatnonzero(met)


def in_blocks(pairs: np.ndarray, size: int) -> list[np.ndarray]:
    """The pairs cut between users."""
    users = pairs // N_ITEMS
    return [pairs[(users >= first) & (users < first + size)] for first in range(0, N_USERS, size)]


def random_factors(seed: int, d: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(N_USERS, d)).astype(np.float32), rng.normal(size=(N_ITEMS, d)).astype(np.float32)


def test_balanced_scores_have_a_standard_deviation_of_one() -> None:
    users, items = balanced(*random_factors(1))
    assert (users @ items.T).std() == pytest.approx(1.0, rel=1e-4)
    assert np.square(users).sum() / N_USERS == pytest.approx(np.square(items).sum() / N_ITEMS, rel=1e-4)


@pytest.mark.parametrize("d", [1, 3, 8])
def test_a_blend_is_the_best_approximation_of_the_sum(d: int) -> None:
    first, second = random_factors(1), random_factors(2, d=4)
    users, items = blend(first, second, share=0.4, dimensions=d)
    of_first, of_second = (np.dot(u, v.T) for u, v in (balanced(*first), balanced(*second)))
    left, strengths, right = np.linalg.svd((of_first + 0.4 * of_second).astype(np.float64))
    nearest = left[:, :d] * strengths[:d] @ right[:d]
    assert users.shape == (N_USERS, d)
    np.testing.assert_allclose(users @ items.T, nearest, atol=1e-4)


def test_what_all_users_agree_on_can_be_taken_out() -> None:
    users, items = random_factors(1)
    users += 0.5
    left = flattened(users, items, 1.0)
    assert np.ptp((users @ left.T).mean(axis=0)) < 1e-4
    apart = users - users.mean(axis=0)
    orthogonal = apart - np.outer(apart @ users.mean(axis=0), users.mean(axis=0)) / np.square(users.mean(axis=0)).sum()
    np.testing.assert_allclose(orthogonal @ left.T, orthogonal @ items.T, atol=1e-4)
    np.testing.assert_array_equal(flattened(users, items, 0.0), items)


def test_a_blend_of_two_equal_ones_needs_no_more_dimensions() -> None:
    users, items = blend(random_factors(1), random_factors(1), share=0.5, dimensions=12)
    assert users.shape[1] == items.shape[1] == 6


def exactly_alternated(met: np.ndarray, items: np.ndarray, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Weighted least squares by solving every row's equations, with all pairs in memory."""

    def solved(met: np.ndarray, other: np.ndarray) -> np.ndarray:
        weights = np.where(met, WEIGHT, 1.0)
        ridge = PENALTY * np.eye(other.shape[1])
        return np.stack(
            [
                np.linalg.solve((other.T * w) @ other + ridge, other.T @ (w * m))
                for w, m in zip(weights, met, strict=True)
            ]
        )

    for _ in range(rounds):
        users = solved(met, items)
        items = solved(met.T, users)
    return users, items


def loss_of(met: np.ndarray, users: np.ndarray, items: np.ndarray) -> float:
    wrong = np.where(met, WEIGHT, 1.0) * (met - users.astype(np.float64) @ items.T.astype(np.float64)) ** 2
    return float(wrong.sum() + PENALTY * (np.square(users).sum() + np.square(items).sum()))


def test_least_squares_end_where_solving_every_equation_ends(pairs: np.ndarray) -> None:
    met = np.zeros(N_USERS * N_ITEMS, dtype=bool)
    met[pairs] = True
    met = met.reshape(N_USERS, N_ITEMS)
    found = alternate(lambda: [pairs], shape=met.shape, dimensions=4, rounds=100, seed=1)
    wanted = exactly_alternated(met, random_factors(3, d=4)[1].astype(np.float64), rounds=400)
    assert loss_of(met, *found) == pytest.approx(loss_of(met, *wanted), rel=1e-3)


def test_least_squares_do_not_depend_on_the_cut_into_blocks(pairs: np.ndarray) -> None:
    settings = {"shape": (N_USERS, N_ITEMS), "dimensions": 6, "rounds": 3, "seed": 5}
    whole = alternate(lambda: [pairs], **settings)
    cut = alternate(lambda: in_blocks(pairs, 7), **settings)
    for one, other in zip(whole, cut, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def refined(pairs: np.ndarray, factors: tuple[np.ndarray, np.ndarray], epochs: int, seed: int = 7) -> Factors:
    found = Factors(*(torch.from_numpy(side.copy()) for side in factors))
    training = Refinement(found, epochs=epochs, seed=seed, drawn=np.arange(len(found.items)))
    for epoch in range(epochs):
        training.run_epoch(epoch, lambda: [pairs], advance=lambda _: None)
    return training.factors()


@pytest.mark.parametrize("negatives", [16, N_ITEMS])
def test_refinement_ranks_what_was_met_before_what_was_not(
    pairs: np.ndarray, monkeypatch: pytest.MonkeyPatch, negatives: int
) -> None:
    monkeypatch.setattr("jobs.refine.NEGATIVES", negatives)
    users, items = refined(pairs, tuple(0.1 * side for side in random_factors(6, d=16)), epochs=200)
    scores = (users @ items.T).numpy()
    met = np.zeros(scores.size, dtype=bool)
    met[pairs] = True
    lowest_met = np.where(met.reshape(scores.shape), scores, np.inf).min(axis=1, keepdims=True)
    before = (scores > lowest_met) & ~met.reshape(scores.shape)
    known = np.isin(np.arange(N_USERS), pairs // N_ITEMS)
    assert before[known].mean() < 0.15, "few others stand before the last of those met"


def test_refinement_gives_the_same_numbers_again_and_others_for_another_seed(pairs: np.ndarray) -> None:
    factors = random_factors(6)
    first, again, other = (refined(pairs, factors, 2, seed) for seed in (1, 1, 2))
    assert torch.equal(first.users, again.users)
    assert torch.equal(first.items, again.items)
    assert not torch.equal(first.users, other.users)


def test_refinement_leaves_users_alone_who_met_nothing(pairs: np.ndarray) -> None:
    factors = random_factors(6)
    users, _ = refined(pairs, factors, 2)
    cosines = (functional.normalize(users, dim=1) * functional.normalize(torch.from_numpy(factors[0]), dim=1)).sum(
        dim=1
    )
    assert cosines[3] == pytest.approx(1.0, abs=1e-6)
    assert cosines[4] < 1.0 - 1e-5


def test_a_student_says_what_all_its_teachers_say_as_far_as_its_dimensions_go() -> None:
    scores = []
    teachers = [random_factors(seed, d=3) for seed in (1, 2, 3)]
    both = random_factors(4, d=3)
    for users, items in (balanced(*one) for one in [*teachers, both]):
        scores.append(users.astype(np.float64) @ items.T)
    wanted = sum(scores[:3]) / np.std(sum(scores[:3])) + FACTORS_SHARE * scores[3]
    as_tensors = [Factors(*map(torch.from_numpy, one)) for one in [*teachers, both]]
    users, items = distilled(as_tensors[:3], as_tensors[3], 14)
    assert users.shape[1] == items.shape[1] == 14
    np.testing.assert_allclose((users @ items.T).numpy(), wanted / np.std(wanted), atol=1e-3)
    few = distilled(as_tensors[:3], as_tensors[3], 4)
    left, strengths, right = np.linalg.svd(wanted / np.std(wanted))
    best = left[:, :4] * strengths[:4] @ right[:4]
    np.testing.assert_allclose((few.users @ few.items.T).numpy(), best / np.std(best), atol=1e-3)


def test_what_an_offset_says_of_popularity_is_not_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users who met items at random: all that is to be learned is how popular the items are."""
    monkeypatch.setattr("jobs.refine.LEARNING_RATE", 0.01)
    rng = np.random.default_rng(8)
    chance = np.linspace(0.05, 0.6, N_ITEMS)
    random_pairs = np.flatnonzero(rng.random((N_USERS, N_ITEMS)) < chance)
    takers = np.bincount(random_pairs % N_ITEMS, minlength=N_ITEMS)
    slopes = []
    for share in (0.0, 1.0):
        found = Factors(torch.full((N_USERS, 4), 1.0), torch.from_numpy(random_factors(6, d=4)[1]))
        offsets = popularity_offsets(takers, share)
        training = Refinement(found, epochs=100, seed=1, drawn=np.arange(N_ITEMS), offsets=offsets)
        for epoch in range(100):
            training.run_epoch(epoch, functools.partial(iter, [random_pairs]), advance=lambda _: None)
        users, items = training.factors()
        scores = (users @ items.T).mean(dim=0).numpy()
        slopes.append(np.polyfit(np.log(chance), scores, 1)[0])
    assert slopes[0] > 0.05
    assert abs(slopes[1]) < slopes[0] / 5


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The blocks, learned by nothing but the start."""
    config = small_config(tmp_path_factory.mktemp("dot"), similarity="dot", max_epochs=0)
    write_prepared(config)
    train.run(config, DAY)
    return config


def test_the_start_alone_learns_the_blocks(ranked: Config) -> None:
    _, card = model.load(datasets.open_dataset(ranked.paths.workspace, DAY, "model").path)
    assert [epoch.epoch for epoch in card.curve] == [0]
    assert card.curve[0].recall == pytest.approx(1.0, abs=0.02)


def test_a_new_user_with_a_history_gets_the_items_of_the_history(ranked: Config) -> None:
    prepared = datasets.open_dataset(ranked.paths.workspace, DAY, "prepared")
    towers, _ = model.load(datasets.open_dataset(ranked.paths.workspace, DAY, "model").path)
    encoding = towers.architecture.encoding
    with torch.no_grad():
        items = towers.item(
            ItemTensors.of(item_features(task.read_sorted(prepared.part("items"), "item_index"), encoding))
        )
        every = UserTensors.of(user_features(task.read_sorted(prepared.part("users"), "user_index"), encoding))
        for block in range(BLOCKS):
            history = torch.tensor([block, block + BLOCKS, block + 2 * BLOCKS])
            pooled = towers.user.pool(items, history, torch.ones(3), torch.tensor([3]))
            user = towers.user(every.take(torch.tensor([USERS])), pooled)  # met by nobody: no id
            best = (user @ items[:ITEMS].T).topk(ITEMS // BLOCKS).indices[0].numpy()
            assert (block_of(best, ITEMS) == block).mean() > 0.9


def test_the_same_seed_starts_with_the_same_bytes(ranked: Config, tmp_path: Path) -> None:
    again = small_config(tmp_path, similarity="dot", max_epochs=0)
    write_prepared(again)
    train.run(again, DAY)
    first, second = (
        datasets.open_dataset(config.paths.workspace, DAY, "model").part(model.WEIGHTS).read_bytes()
        for config in (ranked, again)
    )
    assert first == second


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_debiased_towers_show_more_of_the_catalogue(tmp_path: Path, similarity: str) -> None:
    """Half of the items are met ten times as often: the other half must be seen more with the option than without."""
    shown = []
    for share in (0.0, 1.0):
        config = small_config(tmp_path / f"{share}", similarity=similarity, popularity_debias=share, history_length=1)
        write_prepared(config, noise=True, popular=10)
        train.run(config, DAY)
        towers, card = model.load(datasets.open_dataset(config.paths.workspace, DAY, "model").path)
        prepared = datasets.open_dataset(config.paths.workspace, DAY, "prepared")
        items, users = (task.read_sorted(prepared.part(f"{noun}s"), f"{noun}_index") for noun in ("item", "user"))
        encoding = card.architecture.encoding
        with torch.no_grad():
            vectors = towers.item(ItemTensors.of(item_features(items, encoding)))[:ITEMS]
            every = towers.user(UserTensors.of(user_features(users, encoding)), torch.zeros(len(users), 16))
        best = (every[:USERS] @ vectors.T).topk(10).indices.numpy()
        shown.append((best >= ITEMS // 2).mean())
    assert shown[1] > shown[0] + 0.05


def test_towers_with_free_vectors_go_on_learning(tmp_path: Path) -> None:
    config = small_config(tmp_path, similarity="dot", max_epochs=3, factor_epochs=0)
    write_prepared(config)
    train.run(config, DAY)
    _, card = model.load(datasets.open_dataset(config.paths.workspace, DAY, "model").path)
    assert card.refined == 0
    assert card.curve[-1].recall == pytest.approx(1.0, abs=0.02)
    assert card.curve[-1].loss < card.curve[1].loss
