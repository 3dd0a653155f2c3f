"""Item columns: one value per item, in dense order; text, category or number."""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from prediction_store import durable, layout
from prediction_store.arrays import NUMBER_TYPES, AnyArray, map_array, map_bytes, write_array, write_array_to
from prediction_store.errors import BuildError, DamagedVersionError

TEXT, CATEGORY, NUMBER = "text", "category", "number"
RECENT: Final = "recent"
"""The column of what the order of lists adds to an item's product with a user; a version may be older than it."""
ID: Final = "id"
"""The column of the items' ids, which every version has."""
MISSING = -1
"""Code of a category that is not known."""


class TextColumn:
    """One text per item; "" is missing."""

    def __init__(self, blob: mmap.mmap | bytes, offsets: npt.NDArray[np.int64]) -> None:
        self._blob = blob
        shape, strides = (len(offsets) - 1, 2), offsets.strides * 2
        self._bounds = np.lib.stride_tricks.as_strided(offsets, shape, strides, writeable=False)
        """int64[n, 2]: where each text begins and ends."""

    def __len__(self) -> int:
        return len(self._bounds)

    def texts(self, indexes: npt.ArrayLike) -> list[str]:
        """The texts of some items, in the order of the indexes. Raises IndexError beyond the catalogue."""
        blob = self._blob
        return [blob[start:end].decode("utf-8") for start, end in self._bounds[np.asarray(indexes)].tolist()]

    def all(self) -> list[str]:
        """Every text, in dense order."""
        return self.texts(np.arange(len(self)))

    def is_there(self, indexes: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """bool[n]: which of some items have a text."""
        starts, ends = self._bounds[np.asarray(indexes)].T
        found: npt.NDArray[np.bool_] = starts < ends
        return found

    def is_among(self, indexes: npt.ArrayLike, texts: AbstractSet[str]) -> npt.NDArray[np.bool_]:
        """bool[n]: which of some items have one of these texts; a missing one is none of them."""
        # "surrogatepass": half a character may be asked for, though no text of a version has one.
        wanted = {text.encode("utf-8", "surrogatepass") for text in texts if text}
        bounds = self._bounds[np.asarray(indexes)]
        starts, ends = bounds.T
        lengths = ends - starts
        # Slices are what costs. Length, last byte and one from within, as one number, leave few to be sliced, even
        # where ten ids of one length are wanted. A missing text has others' bytes, and a length that no other has.
        blob, letters = self._blob, np.frombuffer(self._blob or b"\0", np.uint8)
        looks = lengths << 16 | letters[ends - 1 - lengths // 3].astype(np.int64) << 8 | letters[ends - 1]
        wanted_looks = [len(text) << 16 | text[-1 - len(text) // 3] << 8 | text[-1] for text in wanted]
        found: npt.NDArray[np.bool_] = np.isin(looks, wanted_looks, kind="sort")
        found[found] = [blob[start:end] in wanted for start, end in bounds[found].tolist()]
        return found


class CategoryColumn:
    """One of few values per item: `values[codes[index]]`; code -1 is missing. Values are in byte order."""

    def __init__(self, codes: npt.NDArray[np.int32], values: list[str]) -> None:
        self.codes = codes
        self.values = values

    def __len__(self) -> int:
        return len(self.codes)

    def texts(self, indexes: npt.ArrayLike) -> list[str]:
        """The values of some items, in the order of the indexes; "" where missing."""
        codes = self.codes[np.asarray(indexes, dtype=np.int64)].tolist()
        return [self.values[code] if code >= 0 else "" for code in codes]

    def is_there(self, indexes: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """bool[n]: which of some items have a value."""
        found: npt.NDArray[np.bool_] = self.codes[np.asarray(indexes)] >= 0
        return found

    def is_among(self, indexes: npt.ArrayLike, texts: AbstractSet[str]) -> npt.NDArray[np.bool_]:
        """bool[n]: which of some items have one of these values; a missing one is none of them."""
        places = ((bisect_left(self.values, text), text) for text in texts)
        codes = [code for code, text in places if self.values[code : code + 1] == [text]]
        return np.isin(self.codes[np.asarray(indexes)], codes, kind="sort")


class _ToldTexts(TextColumn):
    """A column of texts, with what is told of items that it says nothing of."""

    def __init__(self, column: TextColumn, told: Mapping[int, str]) -> None:
        self._blob, self._bounds, self._told = column._blob, column._bounds, told

    def texts(self, indexes: npt.ArrayLike) -> list[str]:
        places = np.asarray(indexes).tolist()
        return [text or self._told.get(at, "") for text, at in zip(super().texts(indexes), places, strict=True)]

    def is_there(self, indexes: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        found = super().is_there(indexes)
        found[~found] = [at in self._told for at in np.asarray(indexes)[~found].tolist()]
        return found

    def is_among(self, indexes: npt.ArrayLike, texts: AbstractSet[str]) -> npt.NDArray[np.bool_]:
        found, is_missing = super().is_among(indexes, texts), ~super().is_there(indexes)
        found[is_missing] = [self._told.get(at) in texts for at in np.asarray(indexes)[is_missing].tolist()]
        return found


def with_told(column: TextColumn | CategoryColumn, told: Mapping[int, str]) -> TextColumn | CategoryColumn:
    """The column, and beside it what is told of some items, by dense index, that it says nothing of; none is "".

    Values of categories stay in byte order.
    """
    if isinstance(column, TextColumn):
        return _ToldTexts(column, told)
    values = sorted({*column.values, *told.values()})
    code_of = {value: code for code, value in enumerate(values)}
    codes = np.array([*(code_of[value] for value in column.values), MISSING], np.int32)[column.codes]
    codes[[*told]] = [code_of[text] for text in told.values()]
    return CategoryColumn(codes, values)


Column = TextColumn | CategoryColumn | AnyArray


class Texts:
    """Values for a text column, as `VersionDraft.write_items` takes them."""

    def __init__(self, values: Iterable[str]) -> None:
        self.values = list(values)


class Categories:
    """Values for a category column, as `VersionDraft.write_items` takes them; "" is missing."""

    def __init__(self, values: Iterable[str]) -> None:
        self.values = list(values)


NewColumn = Texts | Categories | AnyArray


def write_columns(folder: Path, columns: Mapping[str, NewColumn], n_items: int) -> dict[str, str]:
    """Write each column into the version's folder; the kind of each, for the manifest.

    Raises:
        BuildError: a column has not one value per item, or holds what cannot be stored.
    """
    kinds = {}
    for name, column in columns.items():
        length = len(column) if isinstance(column, np.ndarray) else len(column.values)
        if length != n_items:
            raise BuildError(f"column {name} has {length} values; wanted one for each of {n_items} items")
        if isinstance(column, Texts):
            _write_texts(folder, name, "utf8", "offsets.npy", column.values)
            kinds[name] = TEXT
        elif isinstance(column, Categories):
            _write_categories(folder, name, column.values)
            kinds[name] = CATEGORY
        else:
            _write_numbers(folder, name, column)
            kinds[name] = NUMBER
    return kinds


def open_columns(folder: Path, kinds: Mapping[str, str], n_items: int) -> dict[str, Column]:
    """Map every column of a version. A kind that a later Shortlist has added is left out, not refused.

    Raises:
        DamagedVersionError: a file is not what its kind says.
    """
    opened: dict[str, Column] = {}
    for name, kind in kinds.items():
        if kind == TEXT:
            opened[name] = _open_texts(folder, name, "utf8", "offsets.npy", n_items)
        elif kind == CATEGORY:
            codes = map_array(folder / layout.column_file(name, "codes.npy"), "<i4", (n_items,))
            values = _open_texts(folder, name, "values.utf8", "values.offsets.npy", None).all()
            if n_items and not -1 <= int(codes.min()) <= int(codes.max()) < len(values):
                raise DamagedVersionError(f"column {name} has codes beyond its {len(values)} values")
            opened[name] = CategoryColumn(codes, values)
        elif kind == NUMBER:
            opened[name] = map_array(folder / layout.column_file(name, "npy"), " ".join(NUMBER_TYPES), (n_items,))
    return opened


def _write_texts(folder: Path, name: str, blob: str, offsets: str, values: Sequence[str]) -> None:
    encoded = [_encoded(name, value) for value in values]
    ends = np.cumsum([0, *(len(value) for value in encoded)], dtype=np.int64)
    with durable.create(folder / layout.column_file(name, blob)) as file:
        file.writelines(encoded)
    write_array(folder / layout.column_file(name, offsets), ends)


def _write_categories(folder: Path, name: str, values: Sequence[str]) -> None:
    known = sorted({value for value in values if value}, key=lambda value: _encoded(name, value))
    code_of = {value: code for code, value in enumerate(known)} | {"": MISSING}
    codes = np.array([code_of[value] for value in values], np.int32)
    write_array(folder / layout.column_file(name, "codes.npy"), codes)
    _write_texts(folder, name, "values.utf8", "values.offsets.npy", known)


def _write_numbers(folder: Path, name: str, values: AnyArray) -> None:
    if values.ndim != 1:
        raise BuildError(f"column {name} has shape {values.shape}; wanted one number per item")
    with durable.create(folder / layout.column_file(name, "npy")) as file:
        write_array_to(file, values, f"column {name}", nan_is_missing=True)


def _open_texts(folder: Path, name: str, blob: str, offsets: str, count: int | None) -> TextColumn:
    ends = map_array(folder / layout.column_file(name, offsets), "<i8", (None if count is None else count + 1,))
    text = map_bytes(folder / layout.column_file(name, blob))
    if len(ends) == 0 or ends[0] != 0 or ends[-1] != len(text) or bool((ends[1:] < ends[:-1]).any()):
        raise DamagedVersionError(f"column {name}: its offsets do not fit {len(text)} bytes of text")
    return TextColumn(text, ends)


def _encoded(name: str, value: str) -> bytes:
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BuildError(f"column {name}: {value!r} is not text: {error.reason}") from error
