"""Small plots as inline SVG: histogram, lines, horizontal bars, alone or in groups. `page.STYLE` colours them.

A plot is text that goes into a page as it is; what it is given is escaped. Every mark says its number when pointed at.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Final, NamedTuple
from unicodedata import east_asian_width

from prediction_store.page import escape

WIDTH: Final = 560
HEIGHT: Final = 250
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 12, 40
BAR_HEIGHT: Final = 20
THIN_BAR: Final = 14
TICKS: Final = 5
LETTER_WIDTH: Final = 6.8
"""About: what a letter of a label takes; a capital and a wide one, say of Chinese, take more."""
CAPITAL_WIDTH, WIDE_WIDTH = 8.5, 12.5
MAX_LABEL_WIDTH: Final = 272.0


class Range(NamedTuple):
    """A number, and the interval around it."""

    value: float
    low: float
    high: float


def histogram(counts: Sequence[int], *, title: str, x: str, y: str, mark: float | None = None) -> str:
    """How many there are in equal steps from 0 to 1; `mark` is where to draw a line, at a mean say."""
    ticks = _ticks(0, max(1, *counts))
    scale = _Scale((0, 1), (0, ticks[-1]))
    step = 1 / len(counts)
    parts = [scale.frame([(tick, tick) for tick in _ticks(0, 1)], ticks, x, y)]
    for place, count in enumerate(counts):
        left, right = scale.x(place * step), scale.x((place + 1) * step)
        top = scale.y(count)
        tip = f"{place * step:.4g} to {(place + 1) * step:.4g}: {count:,}"
        parts.append(
            f'<rect class="bar" x="{left + 0.5:.1f}" y="{top:.1f}" width="{max(0.5, right - left - 1):.1f}"'
            f' height="{scale.y(0) - top:.1f}"><title>{escape(tip)}</title></rect>'
        )
    if mark is not None:
        at = scale.x(mark)
        parts.append(f'<line class="mark" x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{scale.y(0):.1f}"/>')
        side = "end" if at > WIDTH / 2 else "start"
        shift = -6 if side == "end" else 6
        parts.append(
            f'<text class="label" x="{at + shift:.1f}" y="{TOP + 12}" text-anchor="{side}">mean {mark:.3f}</text>'
        )
    return _svg(title, HEIGHT, parts)


def lines(
    xs: Sequence[float],
    series: Mapping[str, Sequence[float]],
    *,
    title: str,
    x: str,
    y: str,
    is_log: bool = False,
    band: tuple[Sequence[float], Sequence[float]] | None = None,
) -> str:
    """Up to four lines over the same `xs`, with a legend. Requires: at least two points, all finite.

    Args:
        is_log: equal ratios of `xs` are equally far apart, and each of `xs` is written under the axis.
        band: the lower and the upper end of what is shaded behind the lines, an interval say.
    """
    at = [math.log10(value) for value in xs] if is_log else list(xs)
    values = [value for points in (*series.values(), *(band or ())) for value in points]
    up = _ticks(min(values), max(values))
    scale = _Scale((min(at), max(at)), (up[0], up[-1]))
    marks = list(zip(at, xs, strict=True)) if is_log else [(tick, tick) for tick in _ticks(min(xs), max(xs))]
    parts = [scale.frame(marks, up, x, y)]
    if band is not None:
        corners = [*zip(at, band[0], strict=True), *reversed(list(zip(at, band[1], strict=True)))]
        parts.append(f'<polygon class="band" points="{scale.points(corners)}"/>')
    for place, (name, points) in enumerate(series.items()):
        way = scale.points(list(zip(at, points, strict=True)))
        parts.append(f'<polyline class="line{place % 4}" points="{way}"><title>{escape(name)}</title></polyline>')
        top = TOP + 8 + 17 * place
        parts.append(
            f'<polyline class="line{place % 4}" points="{LEFT + 12},{top} {LEFT + 40},{top}"/>'
            f'<text class="label" x="{LEFT + 46}" y="{top + 4}">{escape(_short(name))}</text>'
        )
    return _svg(title, HEIGHT, parts)


def groups(rows: Sequence[tuple[str, Mapping[str, Range | None]]], *, title: str) -> str:
    """For each row a thin bar per series, from 0, with its interval as a whisker, and a legend below.

    Requires: the same series, up to four, in every row; no number is negative. None: there is none.
    """
    start = 12 + max((_width(_short(name)) for name, _ in rows), default=0.0)
    most = max((found.high for _, of in rows for found in of.values() if found), default=0.0) or 1.0
    scale = most, WIDTH - start - 60
    parts, top = [], 4.0
    for name, of in rows:
        middle = top + len(of) * THIN_BAR / 2
        parts.append(
            f'<text class="label" x="{start - 8:.1f}" y="{middle + 4:.1f}" text-anchor="end">'
            f"{escape(_short(name))}</text>"
        )
        for place, (series, found) in enumerate(of.items()):
            if found is not None:
                parts.append(_ranged(f"{name}, {series}", found, place, (start, top + place * THIN_BAR), scale))
        top += len(of) * THIN_BAR + 8
    parts.append(f'<line class="axis" x1="{start:.1f}" y1="2" x2="{start:.1f}" y2="{top - 6:.1f}"/>')
    left = start
    for place, series in enumerate(rows[0][1] if rows else ()):
        parts.append(
            f'<rect class="bar{place % 4}" x="{left:.1f}" y="{top + 6:.1f}" width="12" height="9"/>'
            f'<text x="{left + 17:.1f}" y="{top + 15:.1f}">{escape(_short(series))}</text>'
        )
        left += 34 + _width(_short(series))
    return _svg(title, round(top + 24), parts)


def _ranged(tip: str, found: Range, place: int, at: tuple[float, float], scale: tuple[float, float]) -> str:
    """`scale`: a number, and how wide it is."""
    (start, top), (most, width) = at, scale
    # Divided first: so many pixels for each of the smallest numbers would be more than a float can say.
    low, end, high = (start + value / most * width for value in (found.low, found.value, found.high))
    middle = top + THIN_BAR / 2 - 0.5
    return (
        f'<rect class="bar{place % 4}" x="{start:.1f}" y="{top:.1f}" width="{max(0.5, end - start):.1f}"'
        f' height="{THIN_BAR - 2}"><title>{escape(f"{tip}: {found.value:.4f}")}</title></rect>'
        f'<line class="whisker" x1="{low:.1f}" y1="{middle:.1f}" x2="{high:.1f}" y2="{middle:.1f}"/>'
        f'<text x="{max(end, high) + 6:.1f}" y="{top + THIN_BAR - 3:.1f}">{found.value:.3f}</text>'
    )


def bars(rows: Sequence[tuple[str, float]], *, title: str, show: Callable[[float], str] = "{:,.4g}".format) -> str:
    """One horizontal bar per row, from 0; negative ones to the left, in another colour."""
    values = [0.0, *(value for _, value in rows)]
    low, high = min(values), max(values)
    names = [_short(name) for name, _ in rows]
    start = 12 + max(map(_width, names), default=0.0)
    span, room = (high - low) or 1.0, WIDTH - start - 60
    zero = start - low / span * room
    parts = []
    for place, (name, value) in enumerate(rows):
        top = 4 + place * BAR_HEIGHT
        left, width = zero + min(0.0, value) / span * room, abs(value) / span * room  # divided first, as in `_ranged`
        parts.append(
            f'<text class="label" x="{start - 8:.1f}" y="{top + 14}" text-anchor="end">{escape(names[place])}</text>'
            f'<rect class="bar{" less" if value < 0 else ""}" x="{left:.1f}" y="{top + 3}"'
            f' width="{max(0.5, width):.1f}" height="{BAR_HEIGHT - 6}">'
            f"<title>{escape(f'{name}: {show(value)}')}</title></rect>"
            f'<text x="{left + width + 6:.1f}" y="{top + 14}">{escape(show(value))}</text>'
        )
    bottom = 8 + len(rows) * BAR_HEIGHT
    parts.append(f'<line class="axis" x1="{zero:.1f}" y1="2" x2="{zero:.1f}" y2="{bottom - 4}"/>')
    return _svg(title, bottom, parts)


class _Scale:
    """From numbers to places on the drawing."""

    def __init__(self, across: tuple[float, float], up: tuple[float, float]) -> None:
        self._across, self._up = across, up

    def x(self, value: float) -> float:
        low, high = self._across
        return LEFT + (value - low) / ((high - low) or 1.0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self._up
        return HEIGHT - BOTTOM - (value - low) / ((high - low) or 1.0) * (HEIGHT - TOP - BOTTOM)

    def points(self, places: Sequence[tuple[float, float]]) -> str:
        """The points of a line or an area."""
        return " ".join(f"{self.x(at):.1f},{self.y(value):.1f}" for at, value in places)

    def frame(self, across: Sequence[tuple[float, float]], up: Sequence[float], x: str, y: str) -> str:
        """Rules, axis, the numbers along them, and what they are; `across` are places and what is written there."""
        floor = HEIGHT - BOTTOM
        parts = []
        for value in up:
            at = self.y(value)
            parts.append(
                f'<line class="rule" x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}"/>'
                f'<text x="{LEFT - 7}" y="{at + 4:.1f}" text-anchor="end">{_figure(value)}</text>'
            )
        for place, value in across:
            if self._across[0] <= place <= self._across[1]:
                text = _figure(value)
                middle = min(self.x(place), WIDTH - len(text) * LETTER_WIDTH / 2)
                parts.append(f'<text x="{middle:.1f}" y="{floor + 16}" text-anchor="middle">{text}</text>')
        parts.append(f'<line class="axis" x1="{LEFT}" y1="{floor}" x2="{WIDTH - RIGHT}" y2="{floor}"/>')
        parts.append(
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x)}</text>'
            f'<text transform="translate(12 {(TOP + floor) / 2:.0f}) rotate(-90)" text-anchor="middle">'
            f"{escape(y)}</text>"
        )
        return "".join(parts)


def _svg(title: str, height: int, parts: Sequence[str]) -> str:
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">\n'
        + "\n".join(parts)
        + f"\n</svg><figcaption>{escape(title)}</figcaption></figure>\n"
    )


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, about `TICKS` of them."""
    span = (high - low) or abs(high) or 1.0
    raw = span / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * place, 12) for place in range(first, max(last, first + 1) + 1)]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _width(text: str) -> float:
    return sum(map(_letter_width, text))


def _letter_width(letter: str) -> float:
    if east_asian_width(letter) in "WF":
        return WIDE_WIDTH
    return CAPITAL_WIDTH if letter.isupper() else LETTER_WIDTH


def _short(text: str) -> str:
    ends = list(accumulate(map(_letter_width, text)))
    if not ends or ends[-1] <= MAX_LABEL_WIDTH:
        return text
    return text[: bisect_right(ends, MAX_LABEL_WIDTH - LETTER_WIDTH)] + "…"
