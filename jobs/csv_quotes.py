"""Quotes that are left open in a CSV file: they make one value of all the lines that follow, and no row looks wrong.

Quotes are understood as Spark understands them: only at the beginning of a value do they mean anything, inside quotes a
quote is doubled, and after a quote that ends nothing the value goes on unquoted to its delimiter.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jobs.compiled import strict
from jobs.errors import SourceError
from jobs.sources import Source

_CHUNK = 1 << 23
_BOM = b"\xef\xbb\xbf"
_OUTSIDE, _UNQUOTED, _QUOTED, _AFTER_QUOTE, _STRAY = range(5)
"""At the beginning of a value; in one without quotes; in quotes; behind a quote in quotes; at one that ends nothing,
lines after the opening quote."""


def refuse_open_quotes(source: Source) -> None:
    """Read the files of a CSV source once, some hundred megabytes a second, and stop at a quote that is never closed.

    Raises:
        SourceError: a file ends inside quotes, or a value of several lines holds a quote that neither ends it nor is
            doubled: the quote that opened it was not meant, and lines were lost in it.
    """
    for file in source.files:
        opened = _open_quote(file)
        if opened:
            raise SourceError(
                f"{file}: the quote that opens a value in line {opened:,} is not closed",
                hint='a value that begins with a quote is written in quotes, and the quote in it twice: "say ""hi"""',
            )


def _open_quote(file: Path) -> int:
    """The line in which a quote opens that is never closed; 0 when there is none."""
    state, line, opened = _OUTSIDE, 1, 0
    for chunk in _chunks(file):
        if state in (_OUTSIDE, _UNQUOTED) and b'"' not in chunk:
            line += chunk.count(b"\n")
            state = _OUTSIDE if chunk[-1:] in b",\r\n" else _UNQUOTED
            continue
        state, line, opened = _follow(np.frombuffer(chunk, np.uint8), state, line, opened)
        if state == _STRAY:
            break
    return opened if state in (_QUOTED, _STRAY) else 0


def _chunks(file: Path) -> Iterator[bytes]:
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as opened:
            first = opened.read(_CHUNK).removeprefix(_BOM)
            while first:
                yield first
                first = opened.read(_CHUNK)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{file} cannot be read: {error}") from error


@strict
def _follow(data, state, line, opened):  # type: ignore[no-untyped-def]
    """Compiled: where some bytes leave the reader that was at `state`."""
    quote, comma, newline, carriage, space, tab = 34, 44, 10, 13, 32, 9
    for byte in data:
        ends = byte in (comma, newline, carriage)
        if state == _QUOTED:
            if byte == quote:
                state = _AFTER_QUOTE
        elif state == _AFTER_QUOTE:
            if byte == quote:
                state = _QUOTED
            elif ends:
                state = _OUTSIDE
            elif byte not in (space, tab):
                if opened < line:
                    return _STRAY, line, opened
                state = _UNQUOTED
        elif ends:
            state = _OUTSIDE
        elif state == _OUTSIDE and byte == quote:
            state, opened = _QUOTED, line
        else:
            state = _UNQUOTED
        if byte == newline:
            line += 1
    return state, line, opened
