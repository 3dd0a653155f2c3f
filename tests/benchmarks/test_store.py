"""The benchmark of the store, from end to end at a size that measures nothing; it says so where a peer is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import measure, store
from benchmarks.plot import Panel, svg

TINY = ["--users", "300", "--items", "1100", "--lookups", "100", "--cold-lookups", "100", "--quiet-seconds", "0.1"]
TINY += ["--flips", "1", "--rollbacks", "1", "--rollback-users", "100", "--rollback-items", "1100", "--workers", "1"]


def test_it_ends_with_one_line_of_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for client in ("redis", "rocksdict"):  # wherever this runs
        monkeypatch.setitem(sys.modules, client, None)
    raw = tmp_path / "raw"
    monkeypatch.setattr(measure, "RAW", raw)
    monkeypatch.setattr(store, "RAW", raw)
    store.main([*TINY, "--folder", str(tmp_path)])
    *lines, last = capsys.readouterr().out.splitlines()
    figures = json.loads(last)
    assert tuple(figures)[: len(store.KEYS)] == store.KEYS
    missing = {key for key in store.KEYS if figures[key] is None}
    assert missing == {"vs_redis_json", "vs_redis_packed", "vs_rocksdb"}
    assert all(figures[key] > 0 for key in store.KEYS if key not in missing)
    assert figures["users"] == 300
    assert any("not measured: redis is not installed" in line for line in lines)
    assert any("not measured: rocksdict is not installed" in line for line in lines)
    assert json.loads((raw / "store.jsonl").read_text())["summary"] == figures
    ElementTree.parse(raw / "store.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"], "it cleans up"


def test_each_figure_is_of_the_largest_size_that_has_it() -> None:
    by_size: dict[int, store.Figures] = {
        1000: dict.fromkeys(store.KEYS[:-2], 1.0),
        10: dict.fromkeys(store.KEYS[:-2], 2.0),
        100_000: {key: None if key == "vs_redis_json" else 3.0 for key in store.KEYS[:-2]},
    }
    found = store.summary(by_size, {"rollback_command_s": 4.0, "rollback_to_last_worker_s": 5.0})
    assert found["vs_redis_json"] == 1.0
    assert found["vs_redis_json_users"] == 1000
    assert found["bytes_per_user"] == 3.0
    assert "bytes_per_user_users" not in found
    assert (found["rollback_to_last_worker_s"], found["users"]) == (5.0, 100_000)


def test_a_plot_shows_every_point() -> None:
    lines = {"a < b": [(10.0, 1.0), (1000.0, 20.0)], "b": [(10.0, 1.0), (1e6, 0.01)], "none": []}
    drawn = ElementTree.fromstring(svg([Panel("one", "users", lines), Panel("two", "users", {})]))
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}circle"))) == 4
    assert {"a < b", "1,000,000", "0.01"} <= {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}


def test_a_linear_axis_has_round_steps_around_its_values() -> None:
    lines = {"a": [(10.0, 0.0626), (100.0, 0.0716)]}
    drawn = ElementTree.fromstring(svg([Panel("recall", "seconds", lines, is_linear=True)]))
    texts = {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {"0.062", "0.064", "0.066", "0.068", "0.07", "0.072"} <= texts
    low, high = (float(dot.attrib["cy"]) for dot in drawn.iter("{http://www.w3.org/2000/svg}circle"))
    ticks = {text.text: float(text.attrib["y"]) - 4 for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    per_unit = (ticks["0.062"] - ticks["0.072"]) / 0.01
    assert low - high == pytest.approx(per_unit * 0.009, abs=0.2)
