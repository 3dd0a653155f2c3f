"""The verb `items`: facts about items that change within the day. Each parses, calls one function and prints."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prediction_store.place import folder_of, settings_of, store_of
from schemas.errors import ShortlistError, UsageError
from schemas.options import ConfigOption, JsonOption, SetOption

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prediction_store.live_items import LiveItems
    from prediction_store.version import Version
    from schemas.config import Config
    from schemas.live_items import FlagNow, ItemChange, ItemNow, NumberNow, TextNow

app = typer.Typer(add_completion=False, help="Within the day.")
items = typer.Typer(add_completion=False, no_args_is_help=True)
app.add_typer(
    items,
    name="items",
    help="""Facts about items that change within the day; every server sees them at its next request.

    Example: shortlist items set i00042 --hide
    """,
)

ItemsArgument = Annotated[list[str], typer.Argument(metavar="ITEM…", help="Ids of items.")]


@items.command("set")
def set_facts(
    names: ItemsArgument,
    *,
    in_stock: Annotated[bool | None, typer.Option("--in-stock/--out-of-stock", help="Whether it can be had.")] = None,
    hidden: Annotated[bool | None, typer.Option("--hide/--show", help="Whether it is kept out of answers.")] = None,
    price: Annotated[str | None, typer.Option(help="What it costs; none: what the version says.")] = None,
    available_until: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Not shown from then on: epoch seconds, 2026-11-22T18:00 (UTC), or none."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="What it is called, until a version has the item; or none.")] = None,
    category: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    brand: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    config: ConfigOption = None,
    overrides: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    """Set some facts of items; the others stay as they are.

    Example: shortlist items set i00042 i00043 --out-of-stock
    """
    from prediction_store.items_file import to_change, to_price, to_text, to_time

    facts: dict[str, Any] = {}
    if in_stock is not None:
        facts["in_stock"] = in_stock
    if hidden is not None:
        facts["hidden"] = hidden
    if price is not None:
        facts["price"] = to_price(price)
    if available_until is not None:
        facts["available_until"] = to_time(available_until)
    texts = {"title": title, "category": category, "brand": brand}
    facts |= {name: to_text(text) for name, text in texts.items() if text is not None}
    if not facts:
        raise UsageError("nothing to set", hint="shortlist items set --help")
    _change([to_change({"item": item, **facts}) for item in names], settings_of(config, overrides), as_json)


@items.command()
def clear(
    names: ItemsArgument,
    config: ConfigOption = None,
    overrides: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    """Forget what was set for items: they are as the version says again.

    Example: shortlist items clear i00042
    """
    from prediction_store.items_file import to_change
    from schemas.live_items import FACTS

    nothing = dict.fromkeys(FACTS)
    _change([to_change({"item": item, **nothing}) for item in names], settings_of(config, overrides), as_json, kept="")


@items.command()
def load(
    file: Annotated[str, typer.Argument(metavar="FILE.jsonl|FILE.csv", help="One item a line.")],
    config: ConfigOption = None,
    overrides: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    """Set facts of the items in a file, all or nothing: JSON lines as POST /v1/items takes them, or CSV with a head.

    In CSV an empty cell leaves a fact as it is, and none clears it.

    Example: shortlist items load stock.csv
    """
    from pathlib import Path

    from prediction_store.items_file import read_changes

    _change(read_changes(Path(file)), settings_of(config, overrides), as_json)


@items.command()
def show(
    names: Annotated[list[str] | None, typer.Argument(metavar="[ITEM…]", help="Default: all that are set.")] = None,
    config: ConfigOption = None,
    overrides: SetOption = [],
    as_json: JsonOption = False,
) -> None:
    """What is known of items now, and where it comes from; a * marks what was set within the day.

    `new`: the version lacks it, and answers may show it when users want it (serve.arrivals).

    Example: shortlist items show i00042
    """
    from prediction_store import terminal

    settings = settings_of(config, overrides)
    with _live(settings) as live, _current(settings) as version:
        found = list(_facts_of(live, version, names or []))
    if not found:
        store_of(settings)
    if as_json:
        return terminal.print_json(found)
    if not found:
        print("nothing is set")
        return None
    print(f"{'item':<24} {'shown':<6} {'in stock':<9} {'hidden':<7} {'price':>10}  {'until':<17} title")
    for item in found:
        until = item.available_until.value
        cells = (
            f"{item.item:<24} {'new' if item.is_arrival else _word(item.is_shown):<6}",
            f"{_marked(item.in_stock):<9} {_marked(item.hidden):<7} {_marked(item.price):>10} ",
            f"{'-' if until is None else terminal.minute(int(until)) + '*':<17} {_marked(item.title)}",
        )
        terminal.print_line(" ".join(cells))
    return None


def _facts_of(live: LiveItems, version: Version | None, names: Sequence[str]) -> Iterator[ItemNow]:
    from prediction_store.item_now import item_now

    now = time.time()
    for name in names:
        found = item_now(name, live.get(name), version, now)
        if found is None:
            raise UsageError(f"nothing is known of item {name[:64]!r}", hint="shortlist items show lists all")
        yield found
    if not names:
        for key, facts in live.read().entries:
            if isinstance(facts, ShortlistError):
                raise facts
            found = item_now(key.decode("utf-8"), facts, version, now)
            assert found is not None
            yield found


def _change(changes: list[ItemChange], settings: Config, as_json: bool, kept: str = ", kept for a later one") -> None:
    """Apply changes and say what came of it; `kept` says what becomes of them where the version lacks the item."""
    from prediction_store import terminal
    from schemas.live_items import MAX_UNKNOWN, ItemChangesAnswer

    with _live(settings) as live:
        changed = live.set(changes, now=time.time())
    names = list(dict.fromkeys(change.item for change in changes))
    with _current(settings) as version:
        indexes = [None] * len(names) if version is None else version.indexes_of(names)
    unknown = [name for name, index in zip(names, indexes, strict=True) if index is None]
    if as_json:
        return terminal.print_json(ItemChangesAnswer(changed=len(changed), unknown=unknown[:MAX_UNKNOWN]))
    print(f"{len(changed)} of {len(names)} items are other than before")
    again = [name for name, times in Counter(change.item for change in changes).items() if times > 1]
    if again:
        terminal.print_line(f"named again, and changed in the order given: {_listed(again)}")
    if version is None:
        place = settings.paths.store
        terminal.print_line(f"no version is served from {place}, or it cannot be read{kept}")
    elif unknown:
        terminal.print_line(f"not in the current version{kept}: {_listed(unknown)}")
    return None


def _listed(names: list[str]) -> str:
    """How many there are, and the first of them."""
    return f"{len(names)}: {', '.join(names[:10])}{' …' if len(names) > 10 else ''}"


def _live(settings: Config) -> LiveItems:
    from prediction_store.live_items import LiveItems

    return LiveItems(folder_of(settings), map_bytes=settings.store.live_items_mb << 20)


@contextlib.contextmanager
def _current(settings: Config) -> Iterator[Version | None]:
    """The version that is served; None: there is none that can be opened."""
    from prediction_store import history
    from prediction_store.version import Version

    root = folder_of(settings)
    version = None
    with contextlib.suppress(ShortlistError):  # the live facts do not depend on it
        record = history.current_or_none(root)
        if record is not None:
            # Whoever serves it has hashed every file.
            version = Version.open(root, record.version, verify=False, manifest_sha256=record.manifest_sha256)
    with version or contextlib.nullcontext():
        yield version


def _marked(fact: FlagNow | NumberNow | TextNow) -> str:
    """A fact in a word; a * after what was set within the day."""
    match fact.value:
        case None:
            text = "-"
        case bool() as flag:
            text = _word(flag)
        case str() as said:
            text = said
        case number:
            text = f"{number:.15g}"
    return text + "*" * (fact.source == "live")


def _word(value: bool) -> str:
    return "yes" if value else "no"
