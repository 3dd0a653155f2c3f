"""What a night costs as the shop grows: the seconds of each step, the memory and the disk.

    python -m benchmarks.journey [--users 300000] [--items 100000] [--events 20000000] [--days 30]

One first night of the embedded shop, by the commands that people use and with the default settings. Memory is that of
all processes of the run at once, resident, looked at twice a second: pages that several share count in each.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from benchmarks.measure import Row, finish, header
from benchmarks.server import REPOSITORY
from prediction_store.durable import remove_folder

STEP = re.compile(r"event='(?P<step>[\w-]+)' .*outcome='done' seconds=(?P<seconds>[\d.]+)")
LOOK_SECONDS = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=300_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--days", type=int, default=30)
    options = parser.parse_args()
    facts = header("journey") | vars(options)
    root = Path(tempfile.mkdtemp(prefix="shortlist-bench-"))
    try:
        per_day = options.events // options.days
        (root / "shortlist.toml").write_text(
            f"[simulate]\ndays = {options.days}\nusers = {options.users}\nitems = {options.items}\n"
            f"events_per_day = {per_day}\n"
        )
        rows, _ = run(root, "simulate")
        night, memory = run(root, "run")
        rows += night
        seconds = {f"{row['name']}_s": float(row["seconds"]) for row in rows}
        whole = {"journey_s": round(sum(seconds.values()), 1), "memory_mb": memory}
        disk = {f"{name}_mb": megabytes(root / name) for name in ("work", "store")}
        finish(facts, rows, seconds | whole | disk)
    finally:
        remove_folder(root)


def run(root: Path, verb: str) -> tuple[list[Row], float]:
    """Run a verb on the shop: the seconds of each step, and the most memory in megabytes."""
    argv = [sys.executable, "-m", "shortlist", verb, "--config", str(root / "shortlist.toml")]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    rows: list[Row] = []
    looks, ended = [0.0], threading.Event()
    with subprocess.Popen(argv, cwd=root, env=environment, stderr=subprocess.PIPE, text=True) as process:

        def look() -> None:
            while not ended.wait(LOOK_SECONDS):
                looks.append(resident(process.pid))

        looking = threading.Thread(target=look)
        looking.start()
        assert process.stderr is not None
        for line in process.stderr:
            if (found := STEP.search(line)) is not None:
                rows.append({"name": found["step"], "seconds": float(found["seconds"])})
                print(f"{found['step']:<14} {float(found['seconds']):>8.1f} s", flush=True)
        ended.set()
        looking.join()
    if process.returncode:
        raise SystemExit(f"shortlist {verb} exited {process.returncode}")
    return rows, round(max(looks), 1)


def resident(pid: int) -> float:
    """Megabytes of a process and all that it has started."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:  # it has just ended
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6 + sum(map(resident, children))


def megabytes(folder: Path) -> float:
    """What the files of a folder take."""
    return round(sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) / 1e6, 1)


if __name__ == "__main__":
    main()
