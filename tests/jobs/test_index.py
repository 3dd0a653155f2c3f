"""What lies on disk of an index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from searched import clustered, make_index

from jobs import clusters, index, vectors


def test_lists_are_slices_and_know_their_mean_and_spread(tmp_path: Path) -> None:
    item_vectors, _ = clustered(2000)
    found = clusters.cluster(item_vectors, 50)
    item_index = make_index(tmp_path / "index", item_vectors, lists=50)
    order = np.load(tmp_path / "index" / "order.npy")
    assert np.array_equal(item_index.vectors, vectors.on_grid(item_vectors[order]))
    assert np.array_equal(item_index.dense_of[order], np.arange(2000))
    list_of = index.list_of(item_index.starts)
    _, expected = np.unique(found.of_item[order], return_inverse=True)
    assert np.array_equal(list_of, expected)
    for number in range(item_index.lists):
        own = item_index.vectors[list_of == number]
        np.testing.assert_allclose(item_index.means[number], own.mean(axis=0), atol=1e-6)
        spread = np.sqrt(np.square(own - own.mean(axis=0)).mean())
        np.testing.assert_allclose(item_index.spreads[number], spread, atol=1e-6)
    assert item_index.longest == np.sqrt(np.square(item_index.vectors.astype(np.float64)).sum(axis=1).max())


def test_an_index_is_opened_once_and_anew_when_it_is_another(tmp_path: Path) -> None:
    first = make_index(tmp_path / "index", clustered(200)[0])
    again = index.open_index(str(tmp_path / "index"), index.token_of(tmp_path / "index"))
    assert again is first
    assert not first.vectors.flags.writeable
    (tmp_path / "other").mkdir()
    index.build(tmp_path / "other", first.vectors, np.arange(200, dtype=np.int32), np.zeros(200, dtype=np.int32))
    (tmp_path / "other" / "vectors.npy").rename(tmp_path / "index" / "vectors.npy")
    assert index.open_index(str(tmp_path / "index"), index.token_of(tmp_path / "index")) is not first
