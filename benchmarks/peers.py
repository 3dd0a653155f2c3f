"""The other stores that could hold the lists, each in its best shape: the same bytes, our decoder, nothing compressed.

A peer is a context manager: it is filled on entering, yields how to read from it, and leaves nothing behind.
"""

from __future__ import annotations

import importlib
import json
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

Read = Callable[[bytes], object]
Records = Iterable[tuple[bytes, bytes]]
FILL_RECORDS = 1_000


class MissingPeerError(Exception):
    """Raised when a peer is not installed; says what is missing."""


class Peer(NamedTuple):
    """A store that is filled."""

    read: Read
    """Everything from the key to the list."""
    bytes: int
    """What the records take there, in memory or on disk."""


@contextmanager
def redis(folder: Path, records: Records, decode: Callable[[bytes, bytes], object]) -> Iterator[Peer]:
    """Redis over loopback TCP, one client, without persistence."""
    client_library = _imported("redis")
    with redis_server(folder) as port:
        client = client_library.Redis(host="127.0.0.1", port=port)
        await_answer(client.ping, client_library.ConnectionError)
        before = client.info("memory")["used_memory"]
        for some in _in_batches(records):
            with client.pipeline(transaction=False) as pipeline:
                for key, value in some:
                    pipeline.set(key, value)
                pipeline.execute()
        taken = client.info("memory")["used_memory"] - before
        get = client.get
        yield Peer(lambda key: decode(get(key), key), taken)
        client.close()


def json_of(value: bytes, key: bytes) -> object:
    """What a client does with a JSON list."""
    return json.loads(value)


@contextmanager
def sqlite(folder: Path, records: Records, decode: Callable[[bytes, bytes], object]) -> Iterator[Peer]:
    """SQLite: opened immutable and mapped into memory.

    With row numbers: WITHOUT ROWID finds values as long as these in twice the time, see sqlite.org/withoutrowid.html.
    """
    path = folder / "peer.sqlite"
    try:
        writer = sqlite3.connect(path, isolation_level=None)
        writer.execute("PRAGMA journal_mode = OFF")
        writer.execute("PRAGMA synchronous = OFF")
        writer.execute("CREATE TABLE records (key BLOB PRIMARY KEY, value BLOB NOT NULL)")
        writer.execute("BEGIN")
        writer.executemany("INSERT INTO records VALUES (?, ?)", records)
        writer.execute("COMMIT")
        writer.close()
        reader = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
        reader.execute(f"PRAGMA mmap_size = {1 << 40}")
        execute = reader.cursor().execute
        yield Peer(
            lambda key: decode(execute("SELECT value FROM records WHERE key = ?", (key,)).fetchone()[0], key),
            path.stat().st_size,
        )
        reader.close()
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def rocksdb(folder: Path, records: Records, decode: Callable[[bytes, bytes], object]) -> Iterator[Peer]:
    """RocksDB: loaded in bulk, compacted, opened read-only and mapped into memory.

    Plain tables are its format for what memory holds; with the usual blocks a bare get takes two thirds longer.
    """
    library = _imported("rocksdict")
    path = folder / "peer.rocksdb"
    table = library.PlainTableFactoryOptions()
    table.user_key_length, table.bloom_bits_per_key, table.hash_table_ratio, table.index_sparseness = 0, 10, 0.75, 16
    options = library.Options(raw_mode=True)
    options.set_compression_type(library.DBCompressionType.none())
    options.set_plain_table_factory(table)
    options.set_prefix_extractor(library.SliceTransform.create_noop())  # hashed is the whole key
    options.set_allow_mmap_reads(True)
    try:
        unlogged = library.WriteOptions()
        unlogged.disable_wal = True
        writer = library.Rdict(str(path), options)
        for some in _in_batches(records):
            batch = library.WriteBatch(raw_mode=True)
            for key, value in some:
                batch.put(key, value)
            writer.write(batch, unlogged)
        writer.flush()
        writer.compact_range(None, None)
        writer.close()
        reader = library.Rdict(str(path), options, access_type=library.AccessType.read_only())
        get = reader.get
        yield Peer(lambda key: decode(get(key), key), sum(file.stat().st_size for file in path.iterdir()))
        reader.close()
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def redis_server(folder: Path) -> Iterator[int]:
    """A server of our own on a free loopback port, ended by its own process id."""
    program = shutil.which("redis-server")
    if program is None:
        raise MissingPeerError("there is no redis-server on PATH")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with subprocess.Popen([*argv, "--dir", str(folder)], stdout=subprocess.DEVNULL) as server:
        try:
            yield port
        finally:
            server.terminate()


def await_answer(ask: Callable[[], object], not_yet: type[Exception], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            ask()
            return
        except not_yet:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _in_batches(records: Records) -> Iterator[list[tuple[bytes, Any]]]:
    left = iter(records)
    while some := list(islice(left, FILL_RECORDS)):
        yield some


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPeerError(f"{name} is not installed: make bench") from error
