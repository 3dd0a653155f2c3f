"""The configuration says what it holds, where it came from, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.cli import config as print_config
from schemas.config import Config, Train, digest
from schemas.config_file import flatten, load
from schemas.errors import ConfigError
from schemas.gate_config import AtLeast, AtMost, Gates


def write(folder: Path, text: str) -> Path:
    file = folder / "shortlist.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_without_any_source_everything_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(environ={})
    assert loaded.config.train == Train()
    assert set(loaded.sources.values()) == {"default"}


def test_later_sources_win_and_are_named(tmp_path: Path) -> None:
    file = write(tmp_path, "[train]\nseed = 1\nmax_epochs = 2\npatience = 3\n")
    environ = {"SHORTLIST_TRAIN__MAX_EPOCHS": "20", "SHORTLIST_TRAIN__PATIENCE": "30"}
    loaded = load(file, ["train.patience=300"], environ)
    assert (loaded.config.train.seed, loaded.config.train.max_epochs, loaded.config.train.patience) == (1, 20, 300)
    assert loaded.sources["train.seed"] == "shortlist.toml"
    assert loaded.sources["train.max_epochs"] == "environment SHORTLIST_TRAIN__MAX_EPOCHS"
    assert loaded.sources["train.patience"] == "--set"


def test_a_table_of_free_names_that_comes_later_takes_the_place_of_all_entries_before(tmp_path: Path) -> None:
    file = write(tmp_path, '[spark]\nconf = {a = "file", b = "file"}\n')
    environ = {"SHORTLIST_SPARK__CONF__A": "environment"}
    assert load(file, [], environ).config.spark.conf == {"a": "environment", "b": "file"}
    loaded = load(file, ['spark.conf={c = "set"}'], environ)
    assert (loaded.config.spark.conf, loaded.sources["spark.conf"]) == ({"c": "set"}, "--set")
    loaded = load(file, ['spark.conf={c = "set"}', "spark.conf.d=set, too"], environ)
    assert loaded.config.spark.conf == {"c": "set", "d": "set, too"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[train]\nmax_epoch = 3",
            "unknown key 'train.max_epoch' (from shortlist.toml); nearest known key: 'train.max_epochs'",
        ),
        ("[trian]\nseed = 3", "unknown key 'trian.seed' (from shortlist.toml); nearest known key: 'train.seed'"),
        ("[train]\nseed = 'a'", 'train.seed = "a" (from shortlist.toml): wanted `int`, found `str`'),
        ("[train]\nbatch_size = 1", "train.batch_size = 1 (from shortlist.toml): wanted `int` >= 8"),
        (f"[train]\nseed = {2**63}", f"train.seed = {2**63} (from shortlist.toml): wanted `int` <= {2**63 - 1}"),
        ("[train]\nthreads = 100000", "train.threads = 100000 (from shortlist.toml): wanted `int` <= 1024"),
        ("[train]\nnegatives = 100000000", "wanted `int` <= 1000000"),
        ("[train]\nhistory_length = 100000", "wanted `int` <= 10000"),
        ("[train]\ntitle_buckets = 100000000", "wanted `int` <= 10000000"),
        ("[train]\nweight_decay = 1e300", "wanted `float` <= 1000.0"),
        ("[retrieve]\nmin_recall = 1.5", "retrieve.min_recall = 1.5 (from shortlist.toml): wanted `float` <= 1.0"),
        ("[split]\nstrategy = 'x'", "split.strategy = \"x\" (from shortlist.toml): wanted one of 'time', 'per_user'"),
        ('[spark]\ndriver_memory = "2GB"', "(from shortlist.toml): wanted text like '2g'"),
        ("[simulate]\nstart_day = '1.2.2026'", "(from shortlist.toml): wanted text like '2026-01-31'"),
        ("[simulate]\nstart_day = 2026-01-31", "simulate.start_day = 2026-01-31 (from shortlist.toml): wanted `str`"),
        ("[serve]\ntraces_endpoint = 'collector:4318'", "wanted text like 'http://host:4318/v1/traces'"),
        ("[follow]\nhost = 'my host'", "(from shortlist.toml): wanted text like 'host-1.example.org'"),
        ("[follow]\nhosts = ['a', 'b, c']", 'follow.hosts[1] = "b, c" (from shortlist.toml): wanted text like'),
        ("[follow]\nshards = '0-15'", "(from shortlist.toml): wanted text like '0-15/64'"),
        ("[spark]\nconf = {a = 1}", 'spark.conf = {"a": 1} (from shortlist.toml): wanted `str`, found `int`'),
        ("train = 3", "unknown key 'train'"),
        ("gates.gini = 1", "unknown key 'gates.gini' (from shortlist.toml): a section, with keys like 'gates.gini"),
        ("serve.order = 1", "unknown key 'serve.order' (from shortlist.toml): a section, with keys like 'serve.order"),
        ("[gates]\nmin_users_ratio = 0.9", "unknown key 'gates.min_users_ratio' (from shortlist.toml); nearest known"),
        ("[gates.gini]\nfail = 'of'", "gates.gini.fail = \"of\" (from shortlist.toml): wanted a number or 'off'"),
        ("[gates.gini]\nfail = true", "gates.gini.fail = true (from shortlist.toml): wanted a number or 'off'"),
        ("[serve]\nmax_body_bytes = 8388609", "(from shortlist.toml): wanted `int` <= 8388608"),
        ("[serve]\nmax_events_body_bytes = 16777217", "(from shortlist.toml): wanted `int` <= 8388608"),
        ("[serve]\narrivals = 'all'", "serve.arrivals = \"all\" (from shortlist.toml): wanted a list or 'learned'"),
        ("[serve]\narrivals = [2, 0]", "serve.arrivals[1] = 0 (from shortlist.toml): wanted `int` >= 1"),
        ("[gates.gini]\nfail = -0.1", "gates.gini.fail = -0.1 (from shortlist.toml): wanted `float` >= 0.0"),
        ("[gates.gini]\nfail = nan", "gates.gini.fail = NaN (from shortlist.toml): wanted `float` >= 0.0"),
        ("[spark]\nconf = 3", "spark.conf = 3 (from shortlist.toml): wanted a table, found `int`"),
        ("[serve.order]\ncaps = 3", "serve.order.caps = 3 (from shortlist.toml): wanted a table, found `int`"),
        (
            "[serve.order.caps]\nbrand = {a = 1}",
            'serve.order.caps = {"brand": {"a": 1}} (from shortlist.toml): wanted `int`, found a table',
        ),
        (
            "[[serve.rules]]\nname = 'a'\nwhere = 'b'\naction = 'pin'\n"
            "[[serve.rules]]\nname = 'c'\nwhere = 'd'\naction = 'exlude'",
            'serve.rules[1].action = "exlude" (from shortlist.toml): '
            "wanted one of 'include', 'exclude', 'boost', 'pin'",
        ),
        (
            "[[serve.rules]]\nname = 'a'\nwhere = 'b'\naction = 'pin'\nposition = 0",
            "serve.rules[0].position = 0 (from shortlist.toml): wanted `int` >= 1",
        ),
        (
            "[[serve.rules]]\nname = 'a'\nwhere = 'b'\naction = 'pin'\nplacements = ['c', 4]",
            "serve.rules[0].placements[1] = 4 (from shortlist.toml): wanted `str`, found `int`",
        ),
        (
            "[[serve.rules]]\nnmae = 'a'\nwhere = 'b'\naction = 'pin'",
            "(from shortlist.toml): unknown field `nmae`; wanted name, where, action, placements, weight, position",
        ),
        (
            "[serve.rules]\nname = 'a'\nwhere = 'b'\naction = 'pin'",
            "unknown key 'serve.rules.name' (from shortlist.toml): 'serve.rules' is a list, and begins an entry with"
            " [[serve.rules]]",
        ),
        ("[follow.hosts]\na = 1", "unknown key 'follow.hosts.a' (from shortlist.toml); nearest known key"),
        (
            "[spark.conf]\nspark.executor.memory = '4g'",
            "wanted `str`, found a table; a name with dots in it stands in quotes",
        ),
        (
            "[data.interactions]\nconsumed_events = ['purchase', 'purchse']",
            "(data.interactions.consumed_events from shortlist.toml): consumed_events names 'purchse'",
        ),
        ("[data]\nhistory_days = 1000000", "data.history_days = 1000000 (from shortlist.toml): wanted `int` <= 36500"),
        ("[split]\ntest_days = 1000000000000000", "(from shortlist.toml): wanted `int` <= 36500"),
        ("[split]\nvalidation_days = 36501", "(from shortlist.toml): wanted `int` <= 36500"),
        ("[train]\nkeep_days = 36501", "(from shortlist.toml): wanted `int` <= 36500"),
        ("[simulate]\ndays = 36501", "(from shortlist.toml): wanted `int` <= 36500"),
        ('[simulate]\nstart_day = "2026-02-31"', "(simulate.start_day from shortlist.toml): start_day 2026-02-31"),
        ("[data.interactions.event_weights]\nview = 1e30", "wanted `float` <= 10000.0"),
        ("[data.interactions.event_weights]\nview = inf", "wanted `float` <= 10000.0"),
        ("[data.interactions.event_weights]\nview = nan", "wanted `float` >= 0.0"),
        ("[serve]\nrules = [3]", "serve.rules[0] = 3 (from shortlist.toml): wanted a table, found `int`"),
        ("[serve]\ndefault_k = 99999999999999999999", "(from shortlist.toml): wanted `int` <= 1000"),
        (
            "[serve]\nport = 0\ndefault_k = 30\nmax_k = 10",
            "[serve] (serve.default_k from shortlist.toml, serve.max_k from shortlist.toml): "
            "default_k 30 is above max_k 10; lower the one or raise the other",
        ),
        ("[serve]\nmax_k = 10", "[serve] (serve.max_k from shortlist.toml): default_k 20 is above max_k 10"),
        (
            "[serve.holdouts]\nstored_order = 0.6\npopular = 0.5",
            "stored_order 0.6 and popular 0.5 are more than all users",
        ),
        (
            "[serve.order]\nexplore_positions = [2, 201]",
            "(serve.order.explore_positions from shortlist.toml): order.explore_positions 201 is beyond max_k 200",
        ),
        (
            "[[serve.rules]]\nname = 'a'\nwhere = 'b'\naction = 'pin'\nposition = 300",
            "[serve] (serve.rules from shortlist.toml): the pin 'a' of rules stands at 300, beyond max_k 200",
        ),
        (
            "[[serve.rules]]\nname = 'a'\nwhere = 'b'\naction = 'boost'",
            'serve.rules[0] = {"name": "a", "where": "b", "action": "boost"} (from shortlist.toml): '
            "a boost of weight 0 changes no score",
        ),
        ("[ranker]\nfewest_lists = 4", "ranker.fewest_lists = 4 (from shortlist.toml): wanted `int` >= 5"),
        (
            "[ranker]\nmost_lists = 400",
            "[ranker] (ranker.most_lists from shortlist.toml): fewest_lists 500 is above most_lists 400",
        ),
        (
            "[ranker]\nfewest_clicks = 30000",
            "[ranker] (ranker.fewest_clicks from shortlist.toml): fewest_clicks 30000 is above most_lists 20000",
        ),
        (
            "[gates.coverage]\nfail = 0.2",
            "[gates.coverage] (gates.coverage.fail from shortlist.toml): warn 0.1 is below",
        ),
        (
            "[gates.consumed]\nwarn = 0.2",
            "[gates.consumed] (gates.consumed.warn from shortlist.toml): warn 0.2 is above",
        ),
    ],
)
def test_a_wrong_key_is_named_with_its_value_and_what_was_wanted(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text), environ={})
    assert message in caught.value.message


def test_a_wrong_entry_of_a_free_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'serve\.order\.caps\.brand = {"a": 1} \(from --set\): wanted `int`'):
        load(write(tmp_path, ""), ["serve.order.caps.brand={a = 1}"], environ={})


def test_a_file_that_is_not_toml_is_an_error_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 2"):
        load(write(tmp_path, "[train]\nseed = = 1\n"), environ={})


@pytest.mark.parametrize(
    ("text", "line"),
    [("# caf\u00e9\n", 1), ("[train]\n# caf\u00e9\n", 2)],
)
def test_a_file_that_is_not_utf_8_is_an_error_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    file = tmp_path / "shortlist.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=rf"shortlist\.toml is not text in UTF-8 \(at line {line}\)") as caught:
        load(file, environ={})
    assert "UTF-8" in caught.value.hint


def test_a_mark_at_the_beginning_of_a_file_is_passed_over(tmp_path: Path) -> None:
    """As editors on Windows put there."""
    assert load(write(tmp_path, "\ufeff[train]\r\nseed = 9\r\n"), environ={}).config.train.seed == 9


DEEP = "[" * 100_000
DIGITS = "9" * 6_000


@pytest.mark.parametrize(
    "text", [f"a = {DEEP}", f"a = {DIGITS}", f"{'a.' * 5_000}a = 1"], ids=["deep", "long", "dotted"]
)
def test_a_file_that_nobody_can_mean_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"shortlist\.toml is not valid TOML"):
        load(write(tmp_path, text), environ={})


@pytest.mark.parametrize("text", [DEEP, DIGITS], ids=["deep", "long"])
def test_a_value_that_nobody_can_mean_is_an_error_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError, match=r"train\.seed = .{1,80}… \(from --set\): wanted `int`") as refused:
        load(None, [f"train.seed={text}"], {})
    assert len(str(refused.value)) < 300


def test_a_path_whose_bytes_are_not_utf_8_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"paths\.store = '.*\\udcff': a path is wanted whose bytes are UTF-8"):
        load(None, ["paths.store=\udcff"], {})


@pytest.mark.parametrize("key", ["paths.store", "data.items.path", "serve.tokens_file"])
def test_a_path_with_a_null_byte_is_an_error(tmp_path: Path, key: str) -> None:
    for overrides in ([f"{key}=a\0b"], [f'{key}="a\\u0000b"']):
        with pytest.raises(ConfigError, match=rf"{key} = 'a\\x00b': a path has no null byte"):
            load(None, overrides, {})


def test_every_number_is_a_finite_one() -> None:
    keys = [key for key, value in flatten(Config()) if isinstance(value, float)]
    for key in [*keys, "gates.recall.warn", "serve.session_event_weights.view"]:
        for number in ("inf", "nan", "1e400"):
            with pytest.raises(ConfigError, match=rf"{key.replace('.', '[.]')} = .{{1,30}}: wanted "):
                load(None, [f"{key}={number}"], {})


def test_a_number_that_is_not_finite_is_found_in_a_table(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"session_event_weights = .*: wanted "):
        load(write(tmp_path, "[serve.session_event_weights]\nview = 1\ncart = inf\n"), environ={})


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not there"):
        load(tmp_path / "none.toml", environ={})


def test_a_named_file_that_cannot_be_read_is_an_error_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="x cannot be read: File name too long"):
        load(tmp_path / ("x" * 300), environ={})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), r"shortlist\.toml is no file"),  # as Docker does where a mount's file is missing
        (lambda path: path.symlink_to("gone"), r"shortlist\.toml is not there"),
        (lambda path: path.symlink_to(path.name), r"shortlist\.toml is not there"),
    ],
    ids=["a folder", "a link to nothing", "a loop"],
)
def test_what_stands_where_the_file_should_be_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "shortlist.toml")
    for path in (None, tmp_path / "shortlist.toml"):
        with pytest.raises(ConfigError, match=message) as caught:
            load(path, environ={})
        assert "--config" in caught.value.hint


def test_a_home_that_nobody_has_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"paths\.store = '~nobody-at-all/store': there is no such home folder"):
        load(write(tmp_path, "[paths]\nstore = '~nobody-at-all/store'"), environ={})


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, "[paths]\nstore = 'a/store'"), environ={})
    assert loaded.config.paths.store == str(tmp_path / "a/store")


def test_one_entry_of_a_free_table_keeps_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(overrides=["data.interactions.event_weights.like=2"], environ={})
    assert loaded.config.data.interactions.event_weights == {"view": 1.0, "cart": 3.0, "purchase": 5.0, "like": 2.0}
    assert loaded.sources["data.interactions.event_weights"] == "--set"


def test_of_a_gate_one_threshold_is_set_and_the_other_stays(tmp_path: Path) -> None:
    file = write(tmp_path, "[gates.users_ratio]\nwarn = 'off'\n[gates.gini]\nfail = 1\n")
    gates = load(file, ["gates.items_ratio.fail=0.5"], {"SHORTLIST_GATES__RECALL__FAIL": "off"}).config.gates
    assert gates.users_ratio == AtLeast(warn="off", fail=Gates().users_ratio.fail)
    assert gates.gini == AtMost(warn=Gates().gini.warn, fail=1.0)
    assert gates.items_ratio == AtLeast(warn=0.95, fail=0.5)
    assert gates.recall == AtLeast(warn=0.01, fail="off")
    assert gates.coverage == Gates().coverage


def test_what_is_consumed_by_default_need_not_be_in_the_table(tmp_path: Path) -> None:
    text = "[data.interactions]\nevent_weights = { rating = 1.0 }\n"
    assert load(write(tmp_path, text), environ={}).config.data.interactions.consumed_events == ["purchase"]


def test_a_table_in_the_file_replaces_the_default_table(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, "[data.interactions.event_weights]\nread = 1.0\n"), environ={})
    assert loaded.config.data.interactions.event_weights == {"read": 1.0}


def test_every_key_is_listed_once() -> None:
    keys = [key for key, _ in flatten(Config())]
    assert len(keys) == len(set(keys)) > 90


def test_what_config_prints_is_a_file_that_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(
        tmp_path,
        "[serve.order]\ncaps = { brand = 3 }\n[gates.gini]\nfail = 'off'\n[data.interactions.event_weights]\n"
        "'comment \"é\"' = 2\n[[serve.rules]]\nname = 'no sale'\nwhere = 'price < 2'\naction = 'exclude'\n",
    )
    print_config(file)
    copy = tmp_path / "copy.toml"
    copy.write_text(capsys.readouterr().out, encoding="utf-8")
    assert load(copy, environ={}).config == load(file, environ={}).config


def test_text_of_any_characters_is_printed_so_that_toml_can_read_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = r'serve.bought_events=["\U0001f600 é\u007f\u0000\n", "\\", "\""]'
    overrides = [texts, r'data.interactions.event_weights={"\U0001f6d2" = 2}']
    print_config(None, overrides)
    copy = tmp_path / "copy.toml"
    copy.write_text(capsys.readouterr().out, encoding="ascii")  # whatever the locale, a redirected one is UTF-8
    assert load(copy, environ={}).config == load(None, overrides, {}).config


def test_a_folder_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="the working folder cannot be read: No such file or directory"):
        load(environ={})


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("simulate.start_day", "2026-02-01", "2026-02-01"),
        ("data.interactions.user", "0", "0"),
        ("data.interactions.user", '"a"', "a"),
        ("spark.conf.spark.executor.cores", "2", {"spark.executor.cores": "2"}),
        ("gates.gini.warn", "0.5", 0.5),
    ],
)
def test_what_reads_as_a_date_or_number_is_text_where_text_is_wanted(key: str, text: str, value: object) -> None:
    name = f"SHORTLIST_{key.upper().replace('.', '__')}"
    for loaded in (load(None, [f"{key}={text}"], {}), load(None, environ={name: text})):
        known = dict(flatten(loaded.config))
        assert known.get(key, known.get("spark.conf")) == value


def test_equal_settings_have_equal_digests_and_others_do_not() -> None:
    assert digest(Train(seed=1)) == digest(Train(seed=1)) != digest(Train(seed=2))
