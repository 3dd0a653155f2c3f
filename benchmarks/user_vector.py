"""A user's vector made anew from a session, in numpy, beside torch's own tower on the same input.

    python -m benchmarks.user_vector [--calls 5000]

Every call is of another user of 20,000, with 50 to 100 interactions in a history that may be 110 long, and another
session of 10, among 50,000 items. One thread, as a serving worker has; torch runs without gradients and with the
history already as tensors. Both are asked for the same users, and have to agree. The line "CPU time" leaves out when
the machine gave the core to somebody else.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import numpy as np
import threadpoolctl
import torch

from benchmarks.measure import Row, finish, header, row, time_in_turns
from jobs.features import Encoding, Scale
from jobs.towers import Architecture, TwoTowers, UserTensors
from prediction_store.user_tower import Histories, StoredTower, Tower
from reranker.user_tower import UserTower
from schemas.user_tower import TowerFacts

USERS, ITEMS, LENGTH, SESSION = 20_000, 50_000, 110, 10
SHORTEST, LONGEST = 50, 100
FIRST_DIMENSIONS = 64
WARM_UP = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5_000)
    options = parser.parse_args()
    facts = header("user_vector")
    torch.set_num_threads(1)
    rows: list[Row] = []
    with threadpoolctl.threadpool_limits(1, "blas"):  # as `shortlist serve` has it
        for dimensions in (FIRST_DIMENSIONS, 128, 256):
            rows += compare(dimensions, options.calls)
    ours, peer, cpu = rows[:3]
    summary = {
        "refresh_p50_us": float(ours["p50_us"]),
        "refresh_p99_us": float(ours["p99_us"]),
        "torch_p50_us": float(peer["p50_us"]),
        "refresh_cpu_p99_us": float(cpu["p99_us"]),
    }
    finish(facts, rows, summary)


def compare(dimensions: int, calls: int) -> list[Row]:
    """Lines for us, for torch, and for us again by CPU time; raises AssertionError when the two do not agree."""
    random = np.random.default_rng(dimensions)
    towers = random_towers(dimensions)
    item_vectors = random.standard_normal((ITEMS, dimensions), np.float32)
    item_vectors /= np.linalg.norm(item_vectors, axis=1, keepdims=True)
    stored = StoredTower(_shared(towers), _bases(towers), _histories(random))
    tower = UserTower(stored, item_vectors)
    users = random.permutation(USERS)[: calls + WARM_UP].tolist()
    sessions = random.integers(0, ITEMS, (len(users), SESSION)).astype(np.uint32)
    weights = random.choice(np.array([1.0, 3.0, 5.0], np.float32), (len(users), SESSION))
    ours = [partial(tower.refreshed, user, *events) for user, *events in zip(users, sessions, weights, strict=True)]
    vectors = torch.from_numpy(item_vectors)
    inputs = [_tensors(stored.histories, user, *events) for user, *events in zip(users, sessions, weights, strict=True)]
    theirs = [partial(by_torch, towers, vectors, user, *given) for user, given in zip(users, inputs, strict=True)]
    for one, other in zip(ours[:WARM_UP], theirs[:WARM_UP], strict=True):
        np.testing.assert_allclose(one(), other()[0].numpy(), atol=1e-5)
    taken = time_in_turns(
        {
            "numpy": [(_call, call) for call in ours[WARM_UP:]],
            "torch": [(_call, call) for call in theirs[WARM_UP:]],
        }
    )
    return [
        row(f"refreshed user vector, d={dimensions}", taken["numpy"]),
        row(f"torch's user tower, d={dimensions}", taken["torch"]),
        row(f"refreshed user vector, CPU time, d={dimensions}", np.array([_cpu_micros(call) for call in ours])),
    ]


def by_torch(
    towers: TwoTowers, vectors: torch.Tensor, user: int, items: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """float32[1, d]: pooled and mapped by the modules that were trained."""
    with torch.inference_mode():
        pooled = towers.user.pool(vectors, items, weights, torch.tensor([len(items)]))
        columns = torch.zeros((1, 0), dtype=torch.int64)
        found: torch.Tensor = towers.user(UserTensors(torch.tensor([user + 1]), columns), pooled)
        return found


def random_towers(dimensions: int) -> TwoTowers:
    torch.manual_seed(dimensions)
    encoding = Encoding(
        categories=[], brands=[], user_columns=[], price=Scale(), age=Scale(), made_at=0, title_buckets=1
    )
    shape = Architecture(items=1, users=USERS, dimensions=dimensions, history_length=LENGTH, encoding=encoding)
    return TwoTowers(shape).eval()


def _call(call: partial[object]) -> object:
    return call()


def _cpu_micros(call: partial[object]) -> float:
    started = time.thread_time_ns()
    call()
    return (time.thread_time_ns() - started) / 1000


def _shared(towers: TwoTowers) -> Tower:
    facts = TowerFacts(is_unit=True, history_length=LENGTH, event_weights={"view": 1.0})
    user = towers.user
    tensors = (user.history.weight, user.history.bias, user.of_recency())
    return Tower(facts, *(tensor.detach().numpy() for tensor in tensors))


def _bases(towers: TwoTowers) -> np.ndarray:
    everybody = UserTensors(torch.arange(1, USERS + 1), torch.zeros((USERS, 0), dtype=torch.int64))
    with torch.inference_mode():
        return towers.user.base(everybody).numpy()


def _histories(random: np.random.Generator) -> Histories:
    offsets = np.concatenate([[0], np.cumsum(random.integers(SHORTEST, LONGEST + 1, USERS))])
    items = random.integers(0, ITEMS, offsets[-1]).astype(np.uint32)
    return Histories(offsets, items, random.choice(np.array([1.0, 3.0, 5.0], np.float32), len(items)))


def _tensors(
    histories: Histories, user: int, items: np.ndarray, weights: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    own = slice(histories.offsets[user], histories.offsets[user + 1])
    every = np.concatenate([histories.items[own], items]).astype(np.int64)
    return torch.from_numpy(every), torch.from_numpy(np.concatenate([histories.weights[own], weights]))


if __name__ == "__main__":
    main()
