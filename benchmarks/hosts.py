"""Several hosts: versions to and from object storage, and how long a decision takes to reach the last of them.

    python -m benchmarks.hosts [--mb 200] [--url s3://BUCKET/PREFIX]

The peer of a transfer runs in the same run: obstore alone, with the same files in as many threads. It hashes nothing,
reads nothing back, and syncs nothing but what it has fetched.
Without --url the object storage is a folder.
"""

from __future__ import annotations

import argparse
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import obstore
from obstore.store import from_url

from benchmarks.measure import Row, finish, header, row
from prediction_store import history, holds, layout
from prediction_store.transfer.flow import PIECE_BYTES, Flow
from prediction_store.transfer.outgoing import send
from prediction_store.transfer.pull import pull
from prediction_store.transfer.remote import Remote
from prediction_store.transfer.shared import RemoteHistory
from prediction_store.user_facts import nothing_consumed
from prediction_store.writer import VersionDraft, write_shard
from reranker.signals import default_weights
from schemas.record import RankedItems

ITEMS, DIMENSIONS, SHARDS, PARALLEL, HOSTS = 1_000, 64, 4, 4, 3
BODY = b'{"user": "nobody", "k": 5}'
HEAD = {"content-type": "application/json"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=200)
    parser.add_argument("--url", default="")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--flips", type=int, default=20)
    options = parser.parse_args()
    facts = header("hosts")
    work = Path(tempfile.mkdtemp(prefix="shortlist-bench-"))
    try:
        url = options.url or (work / "remote").as_uri()
        facts |= {"url": url.split("://")[0], "mb": options.mb}
        rows, summary = transfer_rows(work, url, options.mb, options.repeats)
        rows.append(flip_row(work, f"{url}/flips", options.flips))
        finish(facts, rows, {**summary, "flip_p50_s": round(float(rows[-1]["p50_us"]) / 1e6, 2)})
    finally:
        shutil.rmtree(work)


def transfer_rows(work: Path, url: str, mb: int, repeats: int) -> tuple[list[Row], dict[str, float]]:
    """A version pushed and pulled as often as asked for, each time beside obstore alone."""
    batch = work / "batch"
    name = write_version(batch, "ab", users=mb * 1_000_000 // (4 * DIMENSIONS))
    files = layout.files_of(layout.version_path(batch, name))
    total = sum(path.stat().st_size for path in files.values()) / 1e6
    taken: dict[str, list[float]] = {"push": [], "obstore put": [], "pull": [], "obstore get": []}
    for number in range(repeats):
        remote, bare = Remote(f"{url}/ours-{number}", make=True), Remote(f"{url}/bare-{number}", make=True)
        taken["obstore put"].append(seconds(lambda: put_bare(bare.url, files)))  # noqa: B023 it runs here and now
        taken["push"].append(seconds(lambda: list(send(batch, remote, [name], flow=Flow(), parallel=PARALLEL))))  # noqa: B023
        there = work / f"there-{number}"
        taken["obstore get"].append(seconds(lambda: get_bare(bare.url, files, there)))  # noqa: B023
        taken["pull"].append(seconds(lambda: pull(there, remote, name, flow=Flow(), parallel=PARALLEL)))  # noqa: B023
        shutil.rmtree(there)
    rows = [row(f"{label} of {total:.0f} MB", np.array(found) * 1e6) for label, found in taken.items()]
    best = {label: total / min(found) for label, found in taken.items()}
    summary = {f"{label}_mb_per_s".replace(" ", "_"): round(rate) for label, rate in best.items()}
    summary["push_vs_obstore"] = round(best["obstore put"] / best["push"], 2)
    summary["pull_vs_obstore"] = round(best["obstore get"] / best["pull"], 2)
    return rows, summary


def flip_row(work: Path, url: str, flips: int) -> Row:
    """From the decision to the first answer by the new version on the last of three hosts; to and fro."""
    batch, remote = work / "deciding", Remote(url, make=True)
    names = [write_version(batch, inputs, users=1_000) for inputs in ("aa", "bb")]
    history.cutover(batch, names[0], "bench", "a benchmark", time.time(), force=True)
    list(send(batch, remote, names, flow=Flow(), parallel=PARALLEL))
    hosts = [f"h{number}" for number in range(HOSTS)]
    taken = []
    with ExitStack() as stack:
        connections = [stack.enter_context(serving_host(work / host, host, hosts, url)) for host in hosts]
        wait_for(connections, names[0])
        for number in range(flips):
            wanted = names[1 - number % 2]
            holds.release(batch, wanted, "bench", "", time.time(), shared=RemoteHistory(remote))
            started = time.perf_counter()
            if number % 2:
                history.rollback(batch, "bench", "", time.time(), to=wanted, shared=RemoteHistory(remote))
            else:
                history.cutover(batch, wanted, "bench", "again", time.time(), force=True, shared=RemoteHistory(remote))
            wait_for(connections, wanted)
            taken.append((time.perf_counter() - started) * 1e6)
    return row(f"decision to the last of {HOSTS} hosts", np.array(taken[2:]))


@contextmanager
def serving_host(folder: Path, name: str, hosts: list[str], url: str) -> Iterator[http.client.HTTPConnection]:
    """`follow` and `serve` over a store of its own, with the default polls; ended by their own process ids."""
    settings = {"paths.store": str(folder), "store.remote": url, "follow.host": name, "follow.hosts": str(hosts)}
    options = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    base = [sys.executable, "-m", "shortlist"]
    serve = [*base, "serve", "--port", "0", "--workers", "1", *options]
    with (
        subprocess.Popen([*base, "follow", *options], stdout=subprocess.DEVNULL) as agent,
        subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            yield http.client.HTTPConnection(server.stdout.readline().split()[2].removeprefix("http://"))
        finally:
            agent.terminate()
            server.terminate()


def wait_for(connections: list[http.client.HTTPConnection], version: str) -> None:
    """Until every host answers from this version."""
    waiting = list(connections)
    while waiting:
        time.sleep(0.005)
        waiting = [connection for connection in waiting if version.encode() not in ask(connection)]


def ask(connection: http.client.HTTPConnection) -> bytes:
    connection.request("POST", "/v1/recommend", BODY, HEAD)
    return connection.getresponse().read()


def seconds(do: Callable[[], object]) -> float:
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


def put_bare(url: str, files: dict[str, Path]) -> None:
    store = from_url(url)

    def put(file: str) -> None:
        with files[file].open("rb") as opened:
            obstore.put(store, file, opened)

    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(put, files))


def get_bare(url: str, files: dict[str, Path], target: Path) -> None:
    store = from_url(url)

    def get(file: str) -> None:
        path = target / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as opened:
            for start in range(0, files[file].stat().st_size, PIECE_BYTES):
                opened.write(obstore.get_range(store, file, start=start, length=PIECE_BYTES))
            opened.flush()
            os.fsync(opened.fileno())

    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(get, files))
    shutil.rmtree(target)


def write_version(root: Path, inputs: str, *, users: int) -> str:
    """A sealed version whose size is that of the user vectors; its name."""
    random = np.random.default_rng(1)
    everything = RankedItems(np.arange(ITEMS, dtype=np.uint32), np.linspace(1, 0, ITEMS, dtype=np.float32))
    with VersionDraft.begin(root, inputs * 32, time.time()) as draft:
        vectors = random.standard_normal((ITEMS, DIMENSIONS), dtype=np.float32)
        columns = {"in_stock": np.ones(ITEMS, np.bool_), "popularity": np.linspace(1, 0, ITEMS, dtype=np.float32)}
        draft.write_items(vectors, [f"i{index}" for index in range(ITEMS)], columns)
        draft.write_user_vectors(random.standard_normal((users, DIMENSIONS), dtype=np.float32))
        for shard in range(SHARDS):
            write_shard(draft.shard_path(shard), [], expected_bytes=1 << 16)
        draft.write_lists({"": everything}, {"": everything})
        draft.write_user_facts(nothing_consumed(users), [""] * users)
        draft.write_neighbours(np.full((ITEMS, 1), -1, np.int32), np.zeros((ITEMS, 1), np.float32))
        draft.write_ranker(default_weights("space"))
        draft.write_report(b"{}")
        draft.seal(space_id="space", made_at=int(time.time()), expires_at=int(time.time()) + 10**6, shards=SHARDS)
    return draft.name


if __name__ == "__main__":
    main()
