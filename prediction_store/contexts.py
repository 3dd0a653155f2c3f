"""How much more often than usual each item is met at an hour, on a weekday, on a device. A version may be without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from prediction_store import durable, layout
from prediction_store.arrays import map_array, write_array
from prediction_store.errors import BuildError, DamagedVersionError
from schemas.contexts import ContextNames, decode_contexts, encode_contexts


class Contexts(NamedTuple):
    """The affinity of every item to every context."""

    names: Sequence[tuple[str, str]]
    """(kind, value) of each row, each once; see `schemas.contexts`."""
    affinities: npt.NDArray[np.float32]
    """float32[contexts, n_items], from -1 (half as often as usual, or less) to 1 (twice as often, or more)."""

    def of(self, kind: str, value: str) -> npt.NDArray[np.float32] | None:
        """float32[n_items]: the affinities to one context; None: nothing is known of it."""
        try:
            row = self.names.index((kind, value))
        except ValueError:
            return None
        found: npt.NDArray[np.float32] = self.affinities[row]
        return found


def write_contexts(folder: Path, contexts: Contexts, n_items: int) -> None:
    """Write the affinities into the version's folder.

    Raises:
        BuildError: they do not fit their names or the catalogue.
    """
    for problem in _misfits(contexts, n_items):
        raise BuildError(problem)
    write_array(folder / layout.CONTEXTS, contexts.affinities)
    with durable.create(folder / layout.CONTEXT_NAMES) as opened:
        opened.write(encode_contexts(ContextNames(contexts=[*contexts.names])))


def open_contexts(folder: Path, n_items: int) -> Contexts:
    """Map the affinities; every number is looked at.

    Raises:
        DamagedVersionError: a file is not what it should be.
        NewerFormatError: a later Shortlist has written it.
        FormatError: context.json does not name contexts.
    """
    names = decode_contexts((folder / layout.CONTEXT_NAMES).read_bytes()).contexts
    contexts = Contexts(names, map_array(folder / layout.CONTEXTS, "<f4", (len(names), n_items)))
    for problem in _misfits(contexts, n_items):
        raise DamagedVersionError(f"{folder}: {problem}")
    return contexts


def _misfits(contexts: Contexts, n_items: int) -> Iterator[str]:
    """What does not fit; each may rest on those before it."""
    names, affinities = contexts
    if affinities.dtype != np.float32 or affinities.shape != (len(names), n_items):
        yield f"affinities {affinities.shape} of {affinities.dtype} to {len(names)} contexts of {n_items} items"
    if len(set(names)) != len(names):
        yield "a context is there twice"
    for name, row in zip(names, affinities, strict=True):
        if not bool((np.abs(row) <= 1).all()):  # so it is with NaN
            yield f"the affinity of an item to the context {' '.join(name)} is not from -1 to 1"
