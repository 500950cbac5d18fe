"""Opens an index in a process of its own: how long that takes, and what stays in memory after searches.

python -m benchmarks.index.opening FOLDER ENCODER DIM QUERIES.npy
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

SEARCHES = 300


def opened_alone(folder: Path, encoder_id: str, dim: int, queries: Path) -> dict[str, float]:
    """Run this module; returns what it prints: load_s, and bytes of memory by what they hold."""
    command = [sys.executable, "-m", "benchmarks.index.opening", str(folder), encoder_id, str(dim), str(queries)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _resident() -> dict[str, int]:
    """Return the resident bytes of this process by mapped file, and of memory of its own under ""."""
    held: dict[str, int] = {}
    name = ""
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if header := re.match(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+\s*(\S*)", line):
            name = Path(header[1]).name if header[1].startswith("/") else ""
        elif line.startswith("Rss:"):
            held[name] = held.get(name, 0) + 1024 * int(line.split()[1])
    return held


def main() -> None:
    """Open, search, measure."""
    from worker.index.snapshot import Snapshots

    folder, encoder_id, dim, queries = sys.argv[1:]
    asked: Any = np.load(queries)[:SEARCHES]
    before = _resident()
    start = perf_counter()
    snapshot = Snapshots(Path(folder), encoder_id, int(dim)).newest()
    load = perf_counter() - start
    if snapshot is None:
        raise SystemExit(f"There is no snapshot in {folder}.")
    for query in asked:
        snapshot.index.search(query[None], 10)
    after = _resident()
    own = after.get("", 0) - before.get("", 0)
    codes = after.get("structure.faiss", 0) + after.get("vectors.faiss", 0)
    print(json.dumps({"load_s": load, "own": own, "codes": codes, "vectors": after.get("vectors.npy", 0)}))


if __name__ == "__main__":
    main()
