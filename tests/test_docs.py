"""The documents name only what there is, and all that an operator meets."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from shop_store import MADE_AT, judge, write_small_version

import shortlist
from prediction_store import errors, history
from reranker.signals import SIGNALS
from schemas.config_file import load_config
from schemas.errors import ShortlistError

ROOT = Path(shortlist.__file__).parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "prediction_store/FORMAT.md"]
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
VERBS = {verb for _, verbs in shortlist.VERBS.values() for verb in verbs}
ROW = re.compile(r"^\| ((?:\w+Error(?:, )?)+) \| (\d|–) \|", re.MULTILINE)


def code_of(page: Path) -> str:
    """What stands in code blocks and between backticks."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_verb_that_a_page_names_is_there(page: Path) -> None:
    assert set(re.findall(r"(?<!-u )\bshortlist ([a-z]+)", code_of(page))) <= VERBS


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_configuration_that_a_page_shows_can_be_read(page: Path, tmp_path: Path) -> None:
    for block in re.findall(r"^```toml\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        (tmp_path / "shown.toml").write_text(block, encoding="utf-8")
        load_config(tmp_path / "shown.toml", environ={})


def anchors_of(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_verb_is_on_some_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert {verb for verb in VERBS if f"shortlist {verb}" not in text and f"`{verb}`" not in text} == set()


def test_every_error_of_the_store_is_explained_with_its_exit_code() -> None:
    explained = {name: code for names, code in ROW.findall(OPERATIONS) for name in names.split(", ")}
    abstract = {"StoreError", "FormatError"}
    kinds = {name: getattr(errors, name) for name in errors.__all__ if name not in abstract}
    assert explained.keys() == kinds.keys()
    for name, code in explained.items():
        assert issubclass(kinds[name], ShortlistError)
        assert code in ("–", str(kinds[name].exit_code)), name


def test_the_commands_of_three_in_the_morning_work_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "store"
    good, bad = (write_small_version(store, inputs=f"night {n}", now=MADE_AT + n) for n in (1, 2))
    for name in (good, bad):
        judge(store, name)
        history.cutover(store, name, "test", "a night", MADE_AT + 3)
    section = OPERATIONS.split("\n## Three in the morning\n")[1].split("\n## ")[0]
    for line in re.findall(r"^shortlist (.*)$", section, re.MULTILINE):
        named = re.sub(r"20261121T[\w…-]+", good, re.sub(r"20261122T[\w…-]+", bad, line))
        assert shortlist.run(shlex.split(named.replace("--expect 41", "--expect 2"), comments=True)) == 0, line
    newest = history.current(store)
    assert (newest.version, newest.pinned) == (bad, 0)


def test_every_signal_is_explained_with_the_weight_that_it_has_untaught() -> None:
    section = (ROOT / "docs/serving.md").read_text(encoding="utf-8").split("\n### Signals\n")[1].split("\n## ")[0]
    told: dict[str, float] = {}
    for names, weights in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| .* \| ([-\d., ]+) \|$", section, re.MULTILINE):
        every, numbers = re.findall(r"\w+", names), [float(weight) for weight in weights.split(", ")]
        told |= zip(every, numbers * len(every) if len(numbers) == 1 else numbers, strict=True)
    assert told == {signal.name: signal.default_weight for signal in SIGNALS}
