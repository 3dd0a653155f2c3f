"""Vectors to search: factors of real interactions, made many; and vectors without any structure, the worst case.

The real ones are the factors that implicit's alternating least squares finds on Yelp2018 (1.2 million interactions of
31,668 users with 38,048 items). A made one is a real one, moved a random part of the way towards one of its eight
nearest by angle, with noise in each component that is a third of the difference between the two: new vectors lie where
real ones lie, about as densely as more items of such a catalogue would. Without the data set both kinds are drawn
around centres of unequal weight, with lengths that differ as much.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

DIMENSIONS = 64
NEAR = 8
NOISE = 0.35
ROUNDS = 8
STEP = 100_000
YELP = Path(os.environ.get("SHORTLIST_DATA") or Path(__file__).parents[2] / "shared" / "data") / "yelp2018-lightgcn"


class Factors(NamedTuple):
    """float32[n, 64] each, and where they come from."""

    items: np.ndarray
    users: np.ndarray
    source: str


def factors(quick: bool = False) -> Factors:
    """Those of Yelp2018, or made-up ones where the data set or implicit is missing, or time is short."""
    interactions = YELP / "train.parquet"
    if not quick and interactions.exists():
        try:
            return _factorise(interactions)
        except ImportError:
            pass
    return _invent(4_000 if quick else 38_048, 2_000 if quick else 31_668)


def enlarge(vectors: np.ndarray, rows: int, seed: int) -> np.ndarray:
    """float32[rows, d] that lie as `vectors` do."""
    rng = np.random.default_rng(seed)
    near = _nearest(vectors)
    made = np.empty((rows, vectors.shape[1]), dtype=np.float32)
    for start in range(0, rows, STEP):
        count = min(STEP, rows - start)
        one = rng.integers(0, len(vectors), count)
        other = near[one, rng.integers(0, near.shape[1], count)]
        apart = vectors[other] - vectors[one]
        noise = NOISE * np.abs(apart) * rng.standard_normal(apart.shape, dtype=np.float32)
        made[start : start + count] = vectors[one] + rng.random((count, 1), dtype=np.float32) * apart + noise
    return made


def gaussian(rows: int, seed: int) -> np.ndarray:
    """float32[rows, 64] that lie nowhere in particular: no list of them can be left out."""
    return np.random.default_rng(seed).standard_normal((rows, DIMENSIONS), dtype=np.float32)


def _factorise(interactions: Path) -> Factors:
    import implicit.als
    import pyarrow.parquet
    import scipy.sparse
    import threadpoolctl

    table = pyarrow.parquet.read_table(interactions)
    users, items = (table[name].to_numpy() for name in ("user_id", "item_id"))
    matrix = scipy.sparse.csr_matrix((np.ones(len(users), dtype=np.float32), (users, items)))
    with threadpoolctl.threadpool_limits(1, "blas"):
        model = implicit.als.AlternatingLeastSquares(
            factors=DIMENSIONS, iterations=ROUNDS, regularization=0.05, random_state=1
        )
        model.fit(matrix, show_progress=False)
    # A few users and items have no interactions; what would be made from their zeros would be zeros.
    found = [vectors[np.linalg.norm(vectors, axis=1) > 0] for vectors in (model.item_factors, model.user_factors)]
    return Factors(*found, "Yelp2018, implicit ALS")


def _invent(items: int, users: int) -> Factors:
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((200, DIMENSIONS)) * np.linspace(2.0, 0.3, DIMENSIONS)
    made = []
    for rows, spread in ((items, 0.8), (users, 0.5)):
        own = centres[np.minimum(rng.exponential(40, rows).astype(int), 199)]
        vectors = own + 0.5 * rng.standard_normal((rows, DIMENSIONS))
        made.append((vectors * np.exp(spread * rng.standard_normal((rows, 1)))).astype(np.float32))
    return Factors(*made, "made up")


def _nearest(vectors: np.ndarray) -> np.ndarray:
    """int64[n, NEAR]: the nearest others by angle."""
    import faiss

    directions = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(directions)
    return flat.search(directions, NEAR + 1)[1][:, 1:]
