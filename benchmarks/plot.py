"""A plot as a self-contained SVG file: a few panels side by side, with logarithmic axes unless said otherwise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 380, 62, 128, 40, 44
COLOURS = ("#1b6ca8", "#888888", "#c0392b", "#e08e0b", "#2e8b57", "#7d3c98", "#444444")

Points = Sequence[tuple[float, float]]


class Panel(NamedTuple):
    """One plot: lines by name, each a sequence of (x, y), all greater than zero."""

    title: str
    x_label: str
    lines: Mapping[str, Points]
    is_linear: bool = False
    """The axis of y, which then begins where the values do."""


def svg(panels: Sequence[Panel]) -> str:
    """The panels as one SVG document."""
    drawn = "".join(_panel(panel, number * WIDTH) for number, panel in enumerate(panels))
    size = f'width="{len(panels) * WIDTH}" height="{HEIGHT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
    return f'{head}<rect width="100%" height="100%" fill="white"/>{drawn}</svg>\n'


class _Axis:
    """Whole decades on a stretch of the picture."""

    def __init__(self, values: Sequence[float], begin: float, end: float) -> None:
        self.low = math.floor(math.log10(min(values)))
        self.high = max(math.ceil(math.log10(max(values))), self.low + 1)
        self._begin, self._end = begin, end

    def at(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return round(self._begin + share * (self._end - self._begin), 1)

    def ticks(self) -> list[float]:
        return [10.0**power for power in range(self.low, self.high + 1)]


class _Linear:
    """Round steps, four to nine of them, on a stretch of the picture."""

    def __init__(self, values: Sequence[float], begin: float, end: float) -> None:
        spread = max(values) - min(values) or abs(max(values)) or 1.0
        power = 10.0 ** math.floor(math.log10(spread))
        self._step = next(step for step in (0.2 * power, 0.5 * power, power, 2 * power) if spread / step <= 7)
        self._low, self._high = math.floor(min(values) / self._step), math.ceil(max(values) / self._step)
        self._high = max(self._high, self._low + 1)
        self._begin, self._end = begin, end

    def at(self, value: float) -> float:
        share = (value / self._step - self._low) / (self._high - self._low)
        return round(self._begin + share * (self._end - self._begin), 1)

    def ticks(self) -> list[float]:
        return [number * self._step for number in range(self._low, self._high + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def _panel(panel: Panel, left: float) -> str:
    points = [point for line in panel.lines.values() for point in line]
    if not points:
        return ""
    x = _Axis([at for at, _ in points], left + LEFT, left + WIDTH - RIGHT)
    y = (_Linear if panel.is_linear else _Axis)([value for _, value in points], HEIGHT - BOTTOM, TOP)
    parts = [_text(left + LEFT, 20, panel.title, "start", 'font-weight="bold"')]
    for value in x.ticks():
        parts.append(_line([(x.at(value), TOP), (x.at(value), HEIGHT - BOTTOM)], "#dddddd", 1))
        parts.append(_text(x.at(value), HEIGHT - BOTTOM + 16, _number(value), "middle"))
    for value in y.ticks():
        parts.append(_line([(left + LEFT, y.at(value)), (left + WIDTH - RIGHT, y.at(value))], "#dddddd", 1))
        parts.append(_text(left + LEFT - 6, y.at(value) + 4, _number(value), "end"))
    parts.append(_text((2 * left + LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, panel.x_label, "middle"))
    for (name, line), place, colour in zip(panel.lines.items(), _label_places(panel, y), _colours(panel), strict=True):
        if not line:
            continue
        drawn = [(x.at(at), y.at(value)) for at, value in line]
        parts.append(_line(drawn, colour, 2))
        parts += [f'<circle cx="{across}" cy="{down}" r="3" fill="{colour}"/>' for across, down in drawn]
        parts.append(_text(drawn[-1][0] + 8, place, name, "start", f'fill="{colour}"'))
    return "".join(parts)


def _colours(panel: Panel) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(len(panel.lines))]


def _label_places(panel: Panel, y: _Axis | _Linear) -> list[float]:
    """Where the names stand: beside the ends of their lines, moved apart where they would touch."""
    ends = [y.at(line[-1][1]) + 4 if line else 0.0 for line in panel.lines.values()]
    places = list(ends)
    lowest = -math.inf
    for number in sorted(range(len(ends)), key=ends.__getitem__):
        places[number] = lowest = max(ends[number], lowest + 13)
    return places


def _line(points: Sequence[tuple[float, float]], colour: str, width: int) -> str:
    path = " ".join(f"{across},{down}" for across, down in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def _text(across: float, down: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{across}" y="{down}" text-anchor="{anchor}" {more}>{escape(text)}</text>'
