"""Everybody's list in a file: the re-ranker's own answers, in every format. That it is whole: test_whole_file.py."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas
import pyarrow.csv
import pyarrow.parquet
import pytest
from live_changes import change, damage
from mounts import HOME
from serving_shop import MADE_AT, SHARDS, Shop
from shop_store import write_small_version

import shortlist
from jobs import export
from jobs.errors import JobError
from jobs.export import Exported, read_users, run
from jobs.export_rows import FORMATS, SCHEMA
from jobs.whole_file import PREFIX
from prediction_store import durable
from prediction_store.columns import Texts
from prediction_store.errors import LiveItemsError
from prediction_store.live_items import LiveItems
from prediction_store.transfer.flow import Flow
from prediction_store.transfer.pull import pull
from prediction_store.transfer.push import push
from prediction_store.transfer.remote import Remote
from reranker.recommend import open_reranker
from schemas.config import Config
from schemas.config_file import load_config
from schemas.held import ShardRange
from schemas.messages import RecommendRequest
from schemas.rules import Rule

NOW = MADE_AT + 60.0
STRANGE = ['say "hi"', "two\nlines", "two\r\nlines", "ends\r", "a,b;c\td", " blanks ", "00042", "NA", '"', "ünï 💡"]
"""Ids and titles that a careless reader or writer of CSV would change."""


@pytest.fixture
def verb(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line on the shop's store; its exit code."""
    monkeypatch.chdir(shop.root.parent)
    return lambda *argv: shortlist.run(["export", "--set", f"paths.store={shop.root}", *map(str, argv)])


def arranged(config: Config, **order: Any) -> Config:
    """With a rule for mails alone, and a cap."""
    rules = [Rule(name="cheap mails", where="price > 20", action="exclude", placements=["mail"])]
    arrangement = msgspec.structs.replace(config.serve.order, caps={"brand": 2}, **order)
    return msgspec.structs.replace(config, serve=msgspec.structs.replace(config.serve, rules=rules, order=arrangement))


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of an export, whatever its format, by Arrow."""
    if path.name.endswith(".parquet"):
        return pyarrow.parquet.read_table(path).to_pylist()
    if path.name.endswith(".jsonl"):
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    with pyarrow.input_stream(path, compression="detect") as file:
        lines_in_values = pyarrow.csv.ParseOptions(newlines_in_values=True)
        types = pyarrow.csv.ConvertOptions(column_types=SCHEMA)
        return pyarrow.csv.read_csv(file, parse_options=lines_in_values, convert_options=types).to_pylist()


def exported(config: Config, path: Path, **how: Any) -> list[dict[str, Any]]:
    run(config, path, **{"k": 5, "placement": "mail", "now": NOW, **how})
    return rows_of(path)


def answered(config: Config, user: str, **fields: Any) -> list[dict[str, Any]]:
    """The rows that a user's answer should become, by the re-ranker's usual way."""
    with open_reranker(config, now=lambda: NOW) as reranker:
        answer = reranker.recommend(RecommendRequest(user=user, **fields))
    return [
        {
            "user_id": user,
            "rank": item.rank,
            "item_id": item.item,
            "title": f"Title of {item.item}",
            "score": item.score,
            "base_score": item.base_score,
            "rung": item.rung,
            "version": answer.version,
        }
        for item in answer.items
    ]


def test_each_user_has_the_answer_that_the_reranker_gives(shop: Shop, out: Path) -> None:
    config = arranged(shop.config())
    before = {user: [row["item_id"] for row in answered(shop.config(), user, k=5)] for user in shop.users}
    hidden = before["u0"][0]
    with LiveItems(shop.root) as live:
        live.set([change(hidden, hidden=True), change(before["ü2"][0], in_stock=False)], now=NOW)
    asked = [*shop.users, "nobody"]
    rows = exported(config, out / "lists.parquet", users=asked)
    assert rows == [row for user in asked for row in answered(config, user, k=5, placement="mail")]
    assert {row["item_id"] for row in rows}.isdisjoint({hidden, before["ü2"][0]})
    assert [row["item_id"] for row in rows if row["user_id"] == "u1"] != before["u1"], "the rule and the cap count"


def test_who_is_in_a_holdout_is_so_here_too(shop: Shop, out: Path) -> None:
    config = shop.config("serve.holdouts.popular=0.5", "serve.holdouts.stored_order=0.5")
    rows = exported(config, out / "lists.parquet", users=shop.users)
    assert rows == [row for user in shop.users for row in answered(config, user, k=5, placement="mail")]
    assert {"popular", "stored_order"} <= {row["rung"] for row in rows} <= {"segment", "popular", "stored_order"}


def test_without_names_everybody_is_there_in_the_order_of_the_ids_bytes(tmp_path: Path, out: Path) -> None:
    users = [f"{place}{letter}" for place in range(30) for letter in "aZü"]
    write_small_version(tmp_path / "store", lists={user: [0, 1] for user in users}, shards=7, cut_over=True)
    config = load_config(None, [f"paths.store={tmp_path / 'store'}"], environ={})
    found = [row["user_id"] for row in exported(config, out / "lists.jsonl", k=1)]
    assert found == sorted(users, key=str.encode)


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_written_in_groups_is_the_same(
    shop: Shop, out: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = exported(shop.config(), out / f"whole{suffix}")
    monkeypatch.setattr(export, "GROUP_ROWS", 5)
    assert exported(shop.config(), out / f"groups{suffix}") == whole
    assert len(whole) == 5 * len(shop.users)
    if suffix == ".parquet":
        assert pyarrow.parquet.ParquetFile(out / "groups.parquet").num_row_groups == len(shop.users)


@pytest.mark.parametrize("suffix", FORMATS)
def test_ids_and_titles_are_read_back_as_they_are(tmp_path: Path, out: Path, suffix: str) -> None:
    titles = STRANGE[::-1]
    name = write_small_version(
        tmp_path / "store",
        n_items=len(STRANGE),
        item_ids=STRANGE,
        columns={"title": Texts(["", *titles[1:]]), "in_stock": np.ones(len(STRANGE), np.bool_)},
        lists={user: range(len(STRANGE)) for user in STRANGE},
        cut_over=True,
    )
    config = load_config(None, [f"paths.store={tmp_path / 'store'}"], environ={})
    path = out / f"lists{suffix}"
    rows = exported(config, path, k=20, users=STRANGE)
    ids = [(row["user_id"], row["item_id"], row["title"], row["version"]) for row in rows]
    title_of = dict(zip(STRANGE, ["", *titles[1:]], strict=True))
    assert ids == [(user, item, title_of[item], name) for user in STRANGE for item in STRANGE]
    assert list(rows[0]) == SCHEMA.names
    if ".csv" in suffix:
        texts = {field.name: str for field in SCHEMA if field.type == pyarrow.string()}
        read = pandas.read_csv(path, dtype=texts, keep_default_na=False, float_precision="round_trip")
        assert read.to_dict("records") == rows


@pytest.mark.parametrize("suffix", FORMATS)
def test_nobody_is_a_file_without_rows(shop: Shop, out: Path, suffix: str) -> None:
    assert exported(shop.config(), out / f"lists{suffix}", users=[]) == []


def test_a_version_without_titles_is_written_without(tmp_path: Path, out: Path) -> None:
    write_small_version(tmp_path / "store", columns={"title": None}, cut_over=True)
    config = load_config(None, [f"paths.store={tmp_path / 'store'}"], environ={})
    assert {row["title"] for row in exported(config, out / "lists.csv")} == {""}


def test_csv_refuses_a_text_that_its_readers_would_cut_off(tmp_path: Path, out: Path) -> None:
    titles = Texts(["a\0b", *["a title"] * 11])
    write_small_version(tmp_path / "store", columns={"title": titles}, cut_over=True)
    config = load_config(None, [f"paths.store={tmp_path / 'store'}"], environ={})
    with pytest.raises(JobError, match=r"item 'item-0' for user 'ann'.* NUL"):
        exported(config, out / "lists.csv")
    assert [*out.iterdir()] == []
    for suffix in (".parquet", ".jsonl"):
        assert exported(config, out / f"lists{suffix}", users=["ann"])[0]["title"] == "a\0b"


def test_all_is_of_one_version_though_a_cutover_comes_meanwhile(
    shop: Shop, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shop.current()

    def cut_over(step: str, path: Path) -> None:
        if path.name.startswith(PREFIX) and step == "create":
            shop.publish("b")

    monkeypatch.setattr(durable, "before", cut_over)
    rows = exported(shop.config(), out / "lists.csv")
    assert shop.current() != before
    assert {row["version"] for row in rows} == {before}
    assert {row["item_id"][0] for row in rows} == {"a"}


def test_the_summary_tells_who_has_which_list_and_why(shop: Shop, out: Path) -> None:
    found = run(
        shop.config(), out / "lists.csv", k=3, placement="home", now=NOW, users=["u0", "nobody", "u1", "somebody"]
    )
    assert found == Exported(
        file=str(out / "lists.csv"),
        version=shop.current(),
        shards="0-1/2",
        users=4,
        rows=12,
        rungs={"personal": 2, "popular": 2},
        reasons={"unknown_user": 2},
        stale=0,
        seconds=found.seconds,
    )


@pytest.mark.parametrize(("policy", "rung"), [("serve_stale", "personal"), ("fallback", "popular")])
def test_time_to_live_counts(shop: Shop, out: Path, policy: str, rung: str) -> None:
    config = shop.config(f"store.expired={policy}")
    found = run(config, out / "lists.csv", k=3, placement="home", now=NOW + 1e7, users=["u0"])
    assert (found.rungs, found.stale) == ({rung: 1}, 1)


def test_who_is_shown_nothing_has_no_row_and_is_counted(shop: Shop, out: Path) -> None:
    nothing = [Rule(name="nothing", where="price > 1000", action="include")]
    config = shop.config()
    config = msgspec.structs.replace(config, serve=msgspec.structs.replace(config.serve, rules=nothing))
    found = run(config, out / "lists.csv", k=3, placement="home", now=NOW)
    assert (found.rows, found.rungs) == (0, {"empty": 3})


def test_nothing_is_left_to_chance(shop: Shop, out: Path) -> None:
    explored = arranged(shop.config(), explore_positions=[1, 2, 3])
    assert exported(explored, out / "explored.csv") == exported(arranged(shop.config()), out / "plain.csv")


def test_an_answer_is_logged_nowhere_and_a_session_not_read(shop: Shop, out: Path) -> None:
    before = {*shop.root.parent.rglob("*")}
    exported(shop.config(), out / "lists.csv")
    assert {*shop.root.parent.rglob("*")} - before == {out / "lists.csv"}


def test_a_host_with_some_shards_writes_the_users_of_those_and_says_so(
    shop: Shop, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str], verb: Callable[..., int]
) -> None:
    remote = Remote((tmp_path / "remote").as_uri(), make=True)
    push(shop.root, remote, shop.current(), flow=Flow())
    seen = []
    for number in range(SHARDS):
        host = Shop(tmp_path / f"host-{number}")
        pull(host.root, remote, shop.current(), flow=Flow(), shards=ShardRange(number, number, SHARDS))
        host.cut_over(shop.current())
        assert verb(out / "lists.jsonl", "--set", f"paths.store={host.root}") == 0
        seen += [row["user_id"] for row in rows_of(out / "lists.jsonl") if row["rank"] == 1]
    assert sorted(seen) == shop.users
    assert f"users of the shards 1-1/{SHARDS} only" in capsys.readouterr().out


def test_live_facts_that_cannot_be_read_stop_it_for_what_is_hidden_might_be_written(shop: Shop, out: Path) -> None:
    with LiveItems(shop.root) as live:
        live.set([change("a01", hidden=True)], now=NOW)
        damage(live, b"a01")
    with pytest.raises(LiveItemsError, match="'a01' are damaged"):
        exported(shop.config(), out / "lists.csv")
    assert [*out.iterdir()] == []


def test_a_list_of_users_has_one_id_a_line_each_once() -> None:
    assert read_users(b"\xef\xbb\xbfu2\r\nu1\n\nu2\n a b \xe2\x80\xa8c", "x") == ["u2", "u1", " a b \u2028c"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["lists.txt"], "wanted .parquet, .csv, .csv.gz, .jsonl"),
        (["nowhere/lists.csv"], "there is no folder nowhere"),
        (["folder.csv"], "it is there, and is no file"),
        (["x" * 300 + ".csv"], "File name too long"),
        (["lists.csv", "--users", "missing.txt"], "reading missing.txt: No such file"),
        (["lists.csv", "--users", "."], "reading .: Is a directory"),
        (["lists.csv", "--users", "latin.txt"], "latin.txt, line 2: it is not UTF-8"),
        (["lists.csv", "--users", "long.txt"], "long.txt, line 1: an id of 512 bytes; wanted at most 511"),
        (["lists.csv", "--users", "none.txt"], "none.txt names no user"),
        (["lists.csv", "-k", "201"], "`k` is 201, wanted 1 to 200"),
        (["lists.csv", "--placement", ""], "`placement`"),
        (["lists.csv", "--set", 'serve.rules=[{name="x",where="price <",action="exclude"}]'], "rule 'x'"),
        (["lists.csv", "--set", "paths.store=nowhere"], "nowhere\n  next: set paths.store"),
        (["lists.csv", "--set", "paths.store=empty"], "no version is current"),
    ],
)
def test_what_cannot_be_is_told_and_leaves_nothing(
    argv: list[str], said: str, verb: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "empty" / "versions").mkdir(parents=True)
    (tmp_path / "latin.txt").write_bytes(b"u0\nu\xfc\n")
    (tmp_path / "long.txt").write_text("ü" * 256)
    (tmp_path / "none.txt").write_text("\n")
    before = {*tmp_path.iterdir()}
    stores = "paths.store" in str(argv) or "too long" in said
    assert verb(*argv) == (1 if stores else 2)
    assert said in capsys.readouterr().err
    assert {*tmp_path.iterdir()} == before


def test_users_may_come_by_standard_input_and_the_summary_as_json(
    verb: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("ü2\nu0\nü2\n".encode())))
    assert verb("lists.csv.gz", "--users", "-", "--json", "-k", "1") == 0
    assert json.loads(capsys.readouterr().out)["users"] == 2
    assert [row["user_id"] for row in rows_of(Path("lists.csv.gz"))] == ["ü2", "u0"]


def test_it_ends_with_one_line_and_a_long_one_tells_the_log_how_far_it_is(
    verb: Callable[..., int], shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "GROUP_ROWS", 1)
    monkeypatch.setattr(export, "MILESTONE_USERS", 2)
    assert verb("lists.parquet", "-k", "2") == 0
    said = capsys.readouterr()
    line = rf"lists\.parquet: 3 users, 6 rows of version {shop.current()} in \d+\.\d s; rungs: personal 3\n"
    assert re.fullmatch(line, said.out)
    assert len(said.err.splitlines()) == 1
    assert "event='export' users=2 of=3" in said.err


def test_a_rule_that_does_not_hold_is_told_beside_the_summary(
    verb: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    rule = '[{name="x",where="colour == \\"red\\"",action="exclude"}]'
    assert verb("lists.csv", "--json", "--set", f"serve.rules={rule}") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["users"] == 3
    assert "a rule does not hold" in said.err


def test_the_commands_of_the_manual_work(verb: Callable[..., int], tmp_path: Path) -> None:
    page = (HOME / "docs/serving.md").read_text(encoding="utf-8")
    lines = re.findall(r"^shortlist export (.*)$", page, re.MULTILINE)
    (tmp_path / "campaign.txt").write_text("u0\nu1\n")
    for line in lines:
        argv = shlex.split(line, comments=True)
        assert verb(*argv) == 0, line
        assert rows_of(Path(argv[0]))
    assert len(lines) > 1
