"""The line of a finished step: coloured at a terminal, unless no colour is wanted."""

from __future__ import annotations

import io
import sys

import pytest

from jobs import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_gets_colours_unless_no_color_is_set(no_color: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("NO_COLOR", no_color)
    progress.stage(progress.Report(step="train", day="2026-03-02"))
    assert "train" in terminal.getvalue()
    assert ("\x1b[" in terminal.getvalue()) == (not no_color)
