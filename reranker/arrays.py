"""The arrays that travel through a request: names for them, empty ones, and what several places do with them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Indexes = npt.NDArray[np.uint32]
"""Dense item indexes."""
Positions = npt.NDArray[np.int64]
"""Places in an array of candidates."""
Mask = npt.NDArray[np.bool_]
NO_ITEMS: Indexes = np.empty(0, np.uint32)
NO_NUMBERS: Float32 = np.empty(0, np.float32)
NO_PLACES: Positions = np.empty(0, np.int64)
SHORTEST = 1e-12
"""A vector of zeros has no direction: its products are zero and stay so. As in torch's `normalize`."""


def contains(sorted_values: Indexes, values: Indexes) -> Mask:
    """bool[len(values)]: which of the values are among the sorted ones.

    A binary search for each value: cheaper than `np.isin`, which sorts both sides.
    """
    if sorted_values.size == 0:
        return np.zeros(values.shape, np.bool_)
    places = np.searchsorted(sorted_values, values)
    places[places == sorted_values.size] = 0
    found: Mask = sorted_values[places] == values
    return found


def of_length_1(vector: Float32) -> Float32:
    """float32[d]: the vector's direction; zeros of zeros."""
    return vector / np.float32(max(float(np.sqrt(vector @ vector)), SHORTEST))
