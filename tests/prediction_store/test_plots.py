"""Plots and pages: well-formed whatever they are given, and their marks where the numbers say."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prediction_store import plots
from prediction_store.page import Cell, beside, escape, page, section, table, tiles, words

TEXTS = st.text(max_size=60)
NUMBERS = st.floats(-1e9, 1e9, allow_nan=False)


def rectangles(figure: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(figure).iter("rect"))


@given(TEXTS)
@example("\"></a><script>'&amp;\0")
def test_any_text_is_escaped_into_what_a_document_may_hold(text: str) -> None:
    element = ElementTree.fromstring(f'<a b="{escape(text)}">{escape(text)}</a>')
    # A parser turns the line ends of Windows and of old Macs into its own, and in attributes into blanks.
    kept = (element.text or "").replace("\n", "")
    assert len(kept) == len(text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", ""))
    assert "<" not in escape(text).replace("&lt;", "")


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=30), TEXTS)
def test_a_histogram_has_a_bar_for_each_count_and_the_highest_for_the_most(counts: list[int], text: str) -> None:
    bars = rectangles(plots.histogram(counts, title=text, x=text, y=text, mark=0.3))
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert len(heights) == len(counts)
    assert heights[counts.index(max(counts))] == max(heights)
    assert all(0 <= float(bar.attrib["y"]) <= plots.HEIGHT for bar in bars)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=2, max_size=20, unique_by=lambda point: point[0]), TEXTS)
def test_lines_stay_inside_the_plot(points: list[tuple[float, float, float]], name: str) -> None:
    points = sorted(points)
    xs, first, second = ([point[column] for point in points] for column in range(3))
    figure = plots.lines(xs, {"first": first, f"{name} again": second}, title=name, x="x", y="y")
    for line in ElementTree.fromstring(figure).iter("polyline"):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert plots.LEFT - 0.1 <= x <= plots.WIDTH - plots.RIGHT + 0.1
            assert plots.TOP - 0.1 <= y <= plots.HEIGHT - plots.BOTTOM + 0.1


@given(st.lists(st.tuples(TEXTS, NUMBERS), max_size=12))
@example([("the smallest number there is", 5e-324), ("", -5e-324)])
def test_bars_are_as_long_as_their_numbers(rows: list[tuple[str, float]]) -> None:
    bars = rectangles(plots.bars(rows, title="t"))
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert len(widths) == len(rows)
    longest = max((abs(value) for _, value in rows), default=0)
    for (_, value), bar, width in zip(rows, bars, widths, strict=True):
        assert width == pytest.approx(max(0.5, abs(value) / (longest or 1) * max(widths)), rel=0.02, abs=0.3)
        assert ("less" in bar.attrib["class"]) == (value < 0)


@pytest.mark.parametrize(
    ("name", "letter"), [("SUMMER CLOTHING", 8.3), ("SUMMER CLOTHING" * 9, 8.3), ("帽子" * 30, 12.0)]
)
def test_a_label_has_room_for_capitals_and_for_wide_letters(name: str, letter: float) -> None:
    for figure in (plots.bars([(name, 1.0)], title="t"), plots.groups([(name, {"a": None})], title="t")):
        label = next(ElementTree.fromstring(figure).iter("text"))
        assert label.text is not None
        assert name.startswith(label.text.removesuffix("…"))
        assert len(label.text) * letter <= float(label.attrib["x"]) < plots.WIDTH / 2


def test_on_a_logarithmic_axis_equal_ratios_are_equally_far_apart() -> None:
    figure = plots.lines([1, 10, 100, 1000], {"a": [0, 1, 2, 3]}, title="t", x="x", y="y", is_log=True)
    root = ElementTree.fromstring(figure)
    at = [float(point.split(",")[0]) for point in next(root.iter("polyline")).attrib["points"].split()]
    steps = [right - left for left, right in itertools.pairwise(at)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)
    assert {"1", "10", "100", "1,000"} <= {text.text for text in root.iter("text")}


def test_a_band_goes_along_its_lower_and_back_along_its_upper_end() -> None:
    figure = plots.lines([0, 1, 2], {"a": [1, 2, 3]}, title="t", x="x", y="y", band=([0, 1, 2], [2, 3, 4]))
    [area] = ElementTree.fromstring(figure).iter("polygon")
    corners = [tuple(map(float, point.split(","))) for point in area.attrib["points"].split()]
    assert len(corners) == 6
    for low, high in zip(corners[:3], reversed(corners[3:]), strict=True):
        assert low[0] == high[0]
        assert low[1] > high[1], "down is larger in SVG"


RANGES = st.tuples(*[st.floats(0, 1e6)] * 3).map(
    lambda ends: plots.Range(*(sorted(ends)[place] for place in (1, 0, 2)))
)


@given(st.lists(st.tuples(TEXTS, st.lists(st.none() | RANGES, min_size=3, max_size=3)), min_size=1, max_size=6), TEXTS)
@example([("", [plots.Range(5e-324, 0.0, 5e-324), None, None])], "the smallest number there is")
def test_groups_have_a_bar_and_a_whisker_for_each_number_there_is(
    rows: list[tuple[str, list[plots.Range | None]]], series: str
) -> None:
    names = ("a", "b", f"{series} c")
    root = ElementTree.fromstring(
        plots.groups([(name, dict(zip(names, of, strict=True))) for name, of in rows], title="t")
    )
    numbers = [found for _, of in rows for found in of if found is not None]
    bars = [bar for bar in root.iter("rect") if bar.attrib["height"] != "9"]
    whiskers = [line for line in root.iter("line") if line.attrib["class"] == "whisker"]
    assert len(bars) == len(whiskers) == len(numbers)
    most = max((found.high for found in numbers), default=0) or 1
    longest = max((float(whisker.attrib["x2"]) for whisker in whiskers), default=0)
    for bar, whisker, found in zip(bars, whiskers, numbers, strict=True):
        start = float(bar.attrib["x"])
        assert float(bar.attrib["width"]) == pytest.approx(
            max(0.5, found.value / most * (plots.WIDTH - 60 - start)), abs=0.2
        )
        assert start - 0.1 <= float(whisker.attrib["x1"]) <= float(whisker.attrib["x2"]) <= longest <= plots.WIDTH - 59


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 7, [0, 2, 4, 6, 8]),
        (-0.13, 0.94, [-0.5, 0, 0.5, 1]),
        (3, 3, [3, 4]),
        (0, 0, [0, 0.2, 0.4, 0.6, 0.8, 1][:2]),
    ],
)
def test_ticks_are_round_numbers_around_what_is_shown(low: float, high: float, ticks: list[float]) -> None:
    assert plots._ticks(low, high) == ticks


def test_a_page_is_made_of_sections_tables_and_tiles() -> None:
    rows = [[words("<i>"), Cell("<em>2</em>", "n")], [words(""), words(3)]]
    text = page("<t>", section("head", beside(tiles([("1", "one")]), table([words("a"), words("b")], rows, ["new"]))))
    root = ElementTree.fromstring(text)
    assert [cell.text for cell in root.iter("td")] == ["<i>", None, None, "3"]
    assert [row.attrib for row in root.iter("tr")] == [{}, {"class": "new"}, {}]
    assert next(root.iter("title")).text == "<t>"
