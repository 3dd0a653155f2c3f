"""Write the embedded shop, day by day: the default input, in the shape of your own tables.

    <output>/interactions/date=YYYY-MM-DD/part-00000.parquet   user_id item_id event timestamp session_id device
    <output>/items/date=YYYY-MM-DD/part-00000.parquet          the catalogue of that day
    <output>/users/date=YYYY-MM-DD/part-00000.parquet          everybody who has joined by then

The same settings give the same bytes, and a day written alone is the day written among others. A day is there when its
interactions are: they take their name last.
"""

from __future__ import annotations

import datetime
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs import progress
from jobs import shop_words as words
from jobs.disk import refusals_for_people
from jobs.errors import SourceError
from jobs.lock import lock
from jobs.progress import Report
from jobs.shop import Catalogue, Ints, People, Shop
from jobs.visits import EVENTS, Shelves, Visits, visits
from schemas.config import Config, digest
from schemas.data_config import Simulate
from schemas.errors import UsageError

ROWS_PER_GROUP = 131_072
ROWS_PER_PART = 4_194_304
TABLES = ("users", "items", "interactions")
"""In the order in which they take their final names; the last one makes the day complete."""

INTERACTIONS = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("event", pa.string()),
        ("timestamp", pa.int64()),
        ("session_id", pa.string()),
        ("device", pa.string()),
    ]
)


def run(config: Config, day: str | None = None) -> Report:
    """Write every day up to `day`, or with `day=None` the `simulate.days` days from the first. Days there are kept.

    Raises:
        UsageError: the day lies before the shop's first.
        SourceError: the output folder holds a shop of other settings.
    """
    started = time.monotonic()
    settings, shop = config.simulate, Shop(config.simulate)
    output = Path(settings.output)
    last = shop.number_of(datetime.date.fromisoformat(day)) if day else settings.days - 1
    numbers = range(last + 1)
    if last < 0:
        raise UsageError(
            f"the shop opens on {settings.start_day}; there is nothing to simulate on {day}",
            hint="choose a later --day, or an earlier simulate.start_day",
        )
    events = written = 0
    with refusals_for_people("simulate", output), progress.bar("simulate", len(numbers)) as bar:
        _claim(output, settings)
        for number in numbers:
            rows = _write_day(output, shop, number)
            written += rows is not None
            events += rows or 0
            bar.advance(1, f"{events:,} events")
    return Report(
        step="simulate",
        day=shop.date_of(last).isoformat(),
        rows={"days": written, "interactions": events},
        seconds=time.monotonic() - started,
        skipped=written == 0,
    )


def _claim(output: Path, settings: Simulate) -> None:
    """Refuse to mix days of two shops in one folder."""
    mark, aside = output / "shop.json", output / f".shop-{secrets.token_hex(4)}.json"
    wanted = digest(msgspec.structs.replace(settings, output="-", days=1))
    text = f'{{"settings": "{wanted}"}}\n'
    output.mkdir(parents=True, exist_ok=True)
    aside.write_text(text)
    try:
        os.link(aside, mark)  # whole or not at all, and the first one wins
    except FileExistsError:
        if mark.read_text() != text:
            raise SourceError(
                f"{output} holds a shop that was made with other [simulate] settings",
                hint=f"remove {output}, or choose another simulate.output",
            ) from None
    finally:
        aside.unlink()


def _write_day(output: Path, shop: Shop, day: int) -> int | None:
    """Write the three partitions of a day, aside and then renamed. None: the day was there already."""
    date = shop.date_of(day)
    partition = f"date={date.isoformat()}"
    with lock(output / f".{partition}.lock", f"the shop's day {date}"):
        if (output / "interactions" / partition).is_dir():
            return None
        draft = output / f".{partition}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        for table in TABLES:
            (draft / table).mkdir(parents=True)
        items = shop.catalogue(day)
        _write(draft / "items", iter([_items_table(shop, items)]))
        _write(draft / "users", (_users_table(shop, people) for people in shop.people(day)))
        rows = _write(draft / "interactions", _interactions(shop, day, items))
        for table in TABLES:
            final = output / table / partition
            shutil.rmtree(final, ignore_errors=True)  # of a run that was killed between two of these
            final.parent.mkdir(exist_ok=True)
            (draft / table).rename(final)
        draft.rmdir()
    return rows


def _write(folder: Path, tables: Iterator[pa.Table]) -> int:
    """Stream tables into files of bounded size, with row groups of a size that does not depend on how they come."""
    total, part, waiting, writer = 0, 0, None, None
    for table in tables:
        waiting = table if waiting is None else pa.concat_tables([waiting, table])
        while waiting.num_rows >= ROWS_PER_GROUP:
            writer = writer or _part(folder, part, waiting.schema)
            writer.write_table(waiting.slice(0, ROWS_PER_GROUP))
            waiting = waiting.slice(ROWS_PER_GROUP)
            total += ROWS_PER_GROUP
            if total % ROWS_PER_PART == 0:
                _close(folder, part, writer)
                part, writer = part + 1, None
    assert waiting is not None
    if waiting.num_rows or total == 0:
        writer = writer or _part(folder, part, waiting.schema)
        writer.write_table(waiting)
    if writer is not None:
        _close(folder, part, writer)
    return total + waiting.num_rows


def _part(folder: Path, part: int, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(folder / f"part-{part:05d}.parquet", schema)


def _close(folder: Path, part: int, writer: pq.ParquetWriter) -> None:
    writer.close()
    with (folder / f"part-{part:05d}.parquet").open("rb") as file:
        os.fsync(file.fileno())


def _interactions(shop: Shop, day: int, items: Catalogue) -> Iterator[pa.Table]:
    yield INTERACTIONS.empty_table()  # a day without an event is a day all the same
    shelves = Shelves(shop, day, items)
    item_ids = _ids("i", np.arange(len(items)))
    for people in shop.people(day):
        user_ids = _ids("u", people.first + np.arange(len(people)))
        for block in visits(shelves, people):
            yield _interactions_table(shelves, block, people.first, user_ids, item_ids)


def _interactions_table(
    shelves: Shelves, block: Visits, first: int, user_ids: pa.Array, item_ids: pa.Array
) -> pa.Table:
    date = shelves.shop.date_of(shelves.day)
    midnight = int(datetime.datetime(date.year, date.month, date.day, tzinfo=datetime.UTC).timestamp())
    low = int(block.session.min())
    names = pa.array(np.arange(low, int(block.session.max()) + 1)).cast(pa.string())
    prefix = f"s{date:%Y%m%d}-{first}-"
    sessions = pc.binary_join_element_wise(prefix, names, "")
    columns = [
        user_ids.take(pa.array(block.user - first)),
        item_ids.take(pa.array(block.item)),
        pa.array(EVENTS).take(pa.array(block.event)),
        pa.array(midnight + block.second),
        sessions.take(pa.array(block.session - low)),
        pa.array(words.DEVICES).take(pa.array(block.device)),
    ]
    return pa.Table.from_arrays(columns, schema=INTERACTIONS)


def _items_table(shop: Shop, items: Catalogue) -> pa.Table:
    categories = pa.array([words.category_name(c) for c in range(shop.n_categories)])
    brands = pa.array([words.brand_name(b) for b in range(int(shop.niche_brands.max()) + 1)])
    return pa.table(
        {
            "item_id": _ids("i", np.arange(len(items))),
            "title": _titles(shop, items, brands),
            "category": categories.take(pa.array(items.category)),
            "brand": brands.take(pa.array(items.brand)),
            "price": pa.array(items.price),
            "released": _dates(shop, items.released),
            "stock": pa.array(items.stock.astype(np.int32)),
        }
    )


def _titles(shop: Shop, items: Catalogue, brands: pa.Array) -> pa.Array:
    """Brand, adjective of the style, colour, noun of the category: `Falmont rustic teal sandal`."""
    adjectives = [style.split() for style in words.STYLES]
    nouns = [words.category_nouns(c) for c in range(shop.n_categories)]
    per_style, per_category = len(adjectives[0]), len(nouns[0])
    adjective = pa.array([word for style in adjectives for word in style])
    noun = pa.array([word for category in nouns for word in category])
    return pc.binary_join_element_wise(
        brands.take(pa.array(items.brand)),
        adjective.take(pa.array(items.style * per_style + items.words[:, 0] % per_style)),
        pa.array(words.COLOURS).take(pa.array(items.words[:, 1] % len(words.COLOURS))),
        noun.take(pa.array(items.category * per_category + items.words[:, 2] % per_category)),
        " ",
    )


def _users_table(shop: Shop, people: People) -> pa.Table:
    return pa.table(
        {
            "user_id": _ids("u", people.first + np.arange(len(people))),
            "country": pa.array(words.COUNTRIES).take(pa.array(people.country)),
            "age_group": pa.array(words.AGE_GROUPS).take(pa.array(people.age_group)),
            "joined": _dates(shop, people.joined),
        }
    )


def _ids(prefix: str, numbers: Ints) -> pa.Array:
    """`u0000123`: seven digits, so that order of ids is order of numbers up to ten million."""
    digits = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 7, "0")
    return pc.binary_join_element_wise(prefix, digits, "")


def _dates(shop: Shop, days: Ints) -> pa.Array:
    epoch = (shop.start - datetime.date(1970, 1, 1)).days
    return pa.array((days + epoch).astype(np.int32)).cast(pa.date32())
