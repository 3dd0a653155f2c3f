"""Where the towers start: at random, at a matrix factorisation, or at one that has been taught to rank.

With `train.similarity = dot` the ids alone are as good a model as ids can be before the towers learn anything: two
factorisations are blended and refined (see `factors`, `least_squares`, `blend`, `refine`). A user's id then is what the
user's history does not already say, so that a user without an id still gets the history's share.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numba
import numpy as np
import torch
from torch.nn import functional

from jobs import progress
from jobs.blend import balanced, blend, flattened
from jobs.explain import explain_ids
from jobs.factors import factorise
from jobs.least_squares import alternate
from jobs.refine import Factors, Refinement
from jobs.task import Task
from jobs.team import ALONE, Team
from jobs.towers import TwoTowers
from schemas.train_config import Train

ROUNDS = 10
"""Of least squares."""
NORMALISED_SHARE = 0.35
"""Of the normalised factorisation beside the least squares one, each with scores of standard deviation 1."""
FACTORS_SHARE = 0.1
"""Share of both factorisations in the teacher, beside the refined factors: more of them gains at the end of a list of a
thousand and loses as much at the top."""
BATCH_USERS = 4096
TINY = 1e-12
RIDGE = 1e-3
"""Of the mean variance of pooled histories, when a user's factors are explained by the user's history."""


def start(task: Task, towers: TwoTowers, config: Train, team: Team = ALONE) -> int:
    """Give the towers their first weights; the number of epochs of refinement, 0 where there was none.

    The epoch of refinement with the best recall is taken; the last one where the validation slice has no users.
    """
    if config.initialise == "random":
        return 0
    if config.similarity == "cosine":
        users, dimensions = task.architecture.users, config.dimensions
        factors = factorise(
            task.met, task.counts.takers, users=users, dimensions=dimensions, seed=config.seed, team=team
        )
        towers.start_from(*factors, user_share=config.user_id_share)
        explain_ids(towers.item, task.items, task.counts.items)
        return 0
    if team.rank > 0:  # the others wait: this takes as long as an epoch or two of theirs
        return 0
    return _start_ranking(task, towers, config)


def _start_ranking(task: Task, towers: TwoTowers, config: Train) -> int:
    # Before anything is compiled or computed: the numbers do not depend on the threads, only the time does.
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    both = _blended(task, config)
    best_epoch, refined, recall = _refined(task, config, _strongest(both, config.dimensions))
    # Where only the epoch is chosen, all is done anew, and nothing trains on from here: one teacher tells as much.
    is_trial = config.refit and recall is not None and config.max_epochs == 0
    if best_epoch:
        more = range(1, 1 if is_trial else config.teachers)
        others = [_taught(task, config, both, epochs=best_epoch, number=number) for number in more]
        refined = distilled([refined, *others], both, config.dimensions)
    _put(task, towers, refined)
    explain_ids(towers.item, task.items, task.counts.items)
    return best_epoch


def _blended(task: Task, config: Train) -> Factors:
    """The two factorisations as one of twice the dimensions, the strongest first; see `blend`."""
    shape, d, seed = (task.architecture.users, task.architecture.items), config.dimensions, config.seed
    with progress.bar("factors", ROUNDS + 1) as bar:
        normalised = factorise(task.met_by_all, task.counts.takers, users=shape[0], dimensions=d, seed=seed)
        bar.advance(1, "least squares")
        squares = alternate(task.met_by_all, shape=shape, dimensions=d, rounds=ROUNDS, seed=seed, advance=bar.advance)
    users, items = blend(squares, normalised, share=NORMALISED_SHARE, dimensions=2 * d)
    return Factors(torch.from_numpy(users), torch.from_numpy(flattened(users, items, config.popularity_debias)))


def _strongest(both: Factors, dimensions: int) -> Factors:
    """The best approximation by so many dimensions, scores of deviation 1; a small catalogue leaves the rest zero."""
    sides = balanced(*(side[:, :dimensions].numpy() for side in both))
    return Factors(*(_padded(side, dimensions) for side in sides))


def _padded(side: np.ndarray, dimensions: int) -> torch.Tensor:
    return torch.from_numpy(np.pad(side, ((0, 0), (0, dimensions - side.shape[1]))))


def distilled(towers: list[Factors], both: Factors, dimensions: int) -> Factors:
    """A student of `dimensions` for an ensemble: refined factors, all alike, and a share of both factorisations.

    The nearest to the sum of their scores, each of standard deviation 1, see `blend`.
    """
    alike = [balanced(*(side.numpy() for side in one)) for one in towers]
    users, items = (np.hstack(sides) for sides in zip(*alike, strict=True))
    factors = both.users.numpy(), both.items.numpy()
    student = blend((users, items), factors, share=FACTORS_SHARE, dimensions=dimensions)
    return Factors(*(_padded(side, dimensions) for side in balanced(*student)))


def _refined(task: Task, config: Train, factors: Factors) -> tuple[int, Factors, float | None]:
    """(the epoch with the best recall, the factors it left, their recall); the last where the slice has no users."""

    def recall(factors: Factors) -> float | None:
        assert task.validation is not None  # the first process has the slice, and it alone refines
        return task.validation.recall_of(*factors, config.recall_at)

    best_epoch, best, highest = 0, factors.copy(), recall(factors)
    training = _refinement(task, factors, epochs=config.factor_epochs, seed=config.seed)
    with progress.bar("refine", config.factor_epochs * task.pairs) as bar:
        for epoch in range(1, config.factor_epochs + 1):
            note = f"epoch {epoch}  recall {highest or 0:.4f}"
            loss = training.run_epoch(epoch - 1, task.met_by_all, advance=functools.partial(bar.advance, note=note))
            now = training.factors()
            found = recall(now)
            bar.milestone(epoch=epoch, loss=loss, recall=found)
            if config.popularity_debias or found is None or highest is None or found > highest:
                best_epoch, best, highest = epoch, now, found
    return best_epoch, best.to("cpu"), highest


def _taught(task: Task, config: Train, both: Factors, *, epochs: int, number: int) -> Factors:
    """One more refinement from the same start, with other random numbers."""
    training = _refinement(task, _strongest(both, config.dimensions), epochs=epochs, seed=config.seed + number)
    with progress.bar(f"refine, teacher {number + 1}", epochs * task.pairs) as bar:
        for epoch in range(epochs):
            loss = training.run_epoch(epoch, task.met_by_all, advance=bar.advance)
            bar.milestone(epoch=epoch + 1, loss=loss)
    return training.factors().to("cpu")


def _refinement(task: Task, factors: Factors, *, epochs: int, seed: int) -> Refinement:
    drawn, device = np.flatnonzero(task.counts.items), task.items.ids.device
    return Refinement(factors, epochs=epochs, seed=seed, drawn=drawn, offsets=task.offsets, device=device)


@torch.no_grad()
def _put(task: Task, towers: TwoTowers, factors: Factors) -> None:
    """Make the towers give exactly these vectors to all who are known, and as much of them as history tells to others.

    The history is mapped by ridge regression of the users' factors on their pooled histories; a user's id gets the
    difference. What else the towers read starts at zero.
    """
    d = factors.items.shape[1]
    gram, cross = torch.zeros(d + 1, d + 1).double(), torch.zeros(d + 1, d).double()
    for users, pooled in _pooled(task, towers, factors.items):
        wide = functional.pad(pooled.double(), (0, 1), value=1.0)  # the last column finds the mean
        gram += wide.T @ wide
        cross += wide.T @ factors.users[users].double()
    penalty = RIDGE * float(gram[:d, :d].trace()) / d
    gram += torch.diag(functional.pad(torch.full((d,), penalty + TINY).double(), (0, 1)))
    history = torch.linalg.solve(gram, cross).float()  # [d + 1, d]
    rest = torch.zeros_like(factors.users)
    for users, pooled in _pooled(task, towers, factors.items):
        rest[users] = factors.users[users] - functional.pad(pooled, (0, 1), value=1.0) @ history
    met = torch.from_numpy(task.counts.items > 0)
    towers.start_exactly(rest, history[:d], history[d], factors.items, met)


def _pooled(task: Task, towers: TwoTowers, items: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(int64[n] users, float32[n, d] their pooled histories), some users at a time."""
    device = task.items.ids.device
    items = items.to(device)
    for table in task.everybody.tables():
        known = task.everybody.known(table)
        users = np.flatnonzero(np.diff(known.starts))
        for part in np.split(users, range(BATCH_USERS, len(users), BATCH_USERS)):
            history = known.last(part, task.architecture.history_length)
            on_device = (torch.from_numpy(array).to(device) for array in history)
            yield torch.from_numpy(part), towers.user.pool(items, *on_device).cpu()
