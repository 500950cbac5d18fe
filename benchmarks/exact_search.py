"""Does the public API give the same ten items as comparing the photo with everything?

Starts all processes, imports the catalogue through the API, searches with test photos one after the other, and
compares each answer with a numpy brute force over the stored embeddings. Writes docs/results/exact-search.md.

    python -m benchmarks.exact_search [--catalog ../shared/datasets/fashion/products.csv] [--queries 200]
"""

import argparse
import hashlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import requests
from rich.console import Console
from rich.progress import track

from benchmarks.report import heading, latency_row, write
from demo.processes import ProcessGroup
from shared.catalogue import Catalogue
from shared.database import connect_database

ROOT = Path(__file__).parent.parent
K = 10
# Two ways to compute one cosine in float32 differ in the last digits; items closer than that are tied.
TIE = 2e-5

console = Console()


@dataclass
class Figures:
    """What one run measured."""

    imported: dict[str, Any]
    import_seconds: float
    equal: int = 0
    equal_but_ties: int = 0
    different: list[str] = field(default_factory=list)
    engine_ms: list[float] = field(default_factory=list)
    cached_ms: list[float] = field(default_factory=list)
    steps_ms: dict[str, list[float]] = field(default_factory=dict)


class BruteForce:
    """Every stored embedding in one matrix."""

    def __init__(self, catalogue: Catalogue, encoder_id: str) -> None:
        self._catalogue, self._encoder_id = catalogue, encoder_id
        items = [item for page in catalogue.changed_items(encoder_id, 0, catalogue.state().seq) for item in page]
        pairs = [(row, item.item_id, vector) for item in items for row, vector in item.rows]
        pairs.sort(key=lambda pair: pair[0])
        self._items = [item_id for _, item_id, _ in pairs]
        self._matrix = np.stack([np.frombuffer(vector, "<f4") for _, _, vector in pairs]).astype(np.float64)  # (n, dim)

    def best(self, photo: bytes, k: int) -> list[tuple[str, float]]:
        """Return the k best items with their scores; the photo must be one of the catalogue's."""
        sha256 = hashlib.sha256(photo).hexdigest()
        stored = self._catalogue.embeddings(self._encoder_id, [sha256])[sha256]
        scores = self._matrix @ np.frombuffer(stored, "<f4").astype(np.float64)  # (n,)
        best: dict[str, float] = {}
        for row in np.argsort(-scores, kind="stable"):
            best.setdefault(self._items[row], float(scores[row]))
            if len(best) == k:
                break
        return list(best.items())


def same_but_ties(hits: list[tuple[str, float]], exact: list[tuple[str, float]], scores: dict[str, float]) -> bool:
    """Tell whether two rankings differ only among items whose exact scores are tied."""
    return len(hits) == len(exact) and all(
        abs(scores.get(item_id, -2.0) - score) <= TIE for (item_id, _), (_, score) in zip(hits, exact, strict=True)
    )


def search(base_url: str, photo: bytes, fresh: bool) -> tuple[dict[str, Any], float]:
    """Search through the public API; return the result and the milliseconds that the client waited."""
    headers = {"Prefer": "wait=30", **({"Cache-Control": "no-cache"} if fresh else {})}
    start = time.perf_counter()
    answer = requests.post(
        f"{base_url}/v1/searches", files={"image": photo}, data={"k": K}, headers=headers, timeout=60
    )
    elapsed = (time.perf_counter() - start) * 1000
    answer.raise_for_status()
    return answer.json()["result"], elapsed


def import_catalogue(base_url: str, name: str) -> tuple[dict[str, Any], float]:
    """Import a file below the import root and wait for its end."""
    start = time.perf_counter()
    job = requests.post(f"{base_url}/v1/imports", json={"path": name}, timeout=60).json()
    while job["status"] in ("queued", "running"):
        job = requests.get(f"{base_url}/v1/jobs/{job['id']}?wait=10", timeout=60).json()
        progress = job["progress"] or {"done": 0, "total": "?", "rate_per_second": 0}
        console.print(f"  imported {progress['done']} of {progress['total']}, {progress['rate_per_second']} a second")
    if job["status"] != "succeeded":
        raise SystemExit(f"The import failed: {job['error']}")
    return job["result"], time.perf_counter() - start


def measure(group: ProcessGroup, catalogue: Catalogue, table: Path, queries: int) -> Figures:
    """Import, search, compare."""
    imported, seconds = import_catalogue(group.base_url, table.name)
    figures = Figures(imported, seconds)
    products = pd.read_csv(table, dtype={"id": str})
    test = products[products["split"] == "test"] if "split" in products else products
    chosen = test.sample(n=min(queries, len(test)), random_state=7)
    encoder_id = str(catalogue.state().release_id).rpartition(".")[0]
    brute_force = BruteForce(catalogue, encoder_id)
    for image in track(chosen["image"], description="Searching", console=console):
        photo = (table.parent / image.split("|")[0]).read_bytes()
        result, elapsed = search(group.base_url, photo, fresh=True)
        figures.engine_ms.append(elapsed)
        for step, milliseconds in result["timings_ms"].items():
            figures.steps_ms.setdefault(step, []).append(milliseconds)
        _, elapsed = search(group.base_url, photo, fresh=False)
        figures.cached_ms.append(elapsed)
        hits = [(hit["item_id"], hit["score"]) for hit in result["hits"]]
        exact = brute_force.best(photo, K)
        scores = dict(brute_force.best(photo, 10 * K))
        figures.equal += [item_id for item_id, _ in hits] == [item_id for item_id, _ in exact]
        if same_but_ties(hits, exact, scores):
            figures.equal_but_ties += 1
        else:
            figures.different.append(image)
    return figures


def report(figures: Figures, table: Path) -> str:
    """Return the page of figures."""
    imported, total = figures.imported, len(figures.engine_ms)
    rate = imported["rows"] / figures.import_seconds
    lines = [
        heading("Exact search through the public API", "benchmarks.exact_search"),
        f"Catalogue: `{os.path.relpath(table, ROOT)}`.",
        "All processes of the Procfile on this machine, SQLite, exact index.",
        "",
        "| what | figure |",
        "|---|---|",
        f"| rows imported / failed | {imported['imported']} / {imported['failed']} of {imported['rows']} |",
        f"| import | {figures.import_seconds:.0f} s, {rate:.1f} rows a second |",
        f"| searches with the same top {K} as numpy brute force, in the same order | {figures.equal} of {total} |",
        f"| the same but for items tied within {TIE:g} of each other | {figures.equal_but_ties} of {total} |",
        "",
        "Milliseconds that a client waits, one search at a time:",
        "",
        "| search | n | median | p95 | p99 |",
        "|---|---|---|---|---|",
        latency_row("new photo (caches bypassed)", figures.engine_ms),
        latency_row("the same photo again (answered by web)", figures.cached_ms),
        "",
        "Steps of a new photo, as the result tells them:",
        "",
        "| step | n | median | p95 | p99 |",
        "|---|---|---|---|---|",
        *(latency_row(step, values) for step, values in figures.steps_ms.items()),
        "",
    ]
    if figures.different:
        lines += ["Different answers: " + ", ".join(figures.different), ""]
    return "\n".join(lines)


def main() -> None:
    """Run the measurement as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", type=Path, default=ROOT.parent / "shared/datasets/fashion/products.csv")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--state", type=Path, default=ROOT / "var" / "bench", help="folder of the database and images")
    arguments = parser.parse_args()
    if not arguments.catalog.is_file():
        raise SystemExit(f"There is no catalogue {arguments.catalog}; name one with --catalog.")
    state = arguments.state.resolve()
    database_url = f"sqlite:///{state}/lookalike.sqlite3"
    environment = {
        "DATABASE_URL": database_url,
        "LOOKALIKE_STORE_URL": f"{state}/store",
        "LOOKALIKE_IMPORT_ROOT": str(arguments.catalog.resolve().parent),
    }
    with ProcessGroup(ROOT, state, environment=environment) as group:
        catalogue = Catalogue(connect_database(database_url))
        figures = measure(group, catalogue, arguments.catalog, arguments.queries)
    page = write("exact-search", report(figures, arguments.catalog))
    console.print(page.read_text(encoding="utf-8"))
    if figures.different:
        raise SystemExit(f"{len(figures.different)} answers differ from brute force.")


if __name__ == "__main__":
    main()
