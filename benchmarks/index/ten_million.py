"""What ten million vectors would take, from builds of one and two million; writes docs/results/index-ten-million.md.

    python -m benchmarks.index.ten_million [--rows 1000000 2000000] [--wanted 10000000]

Vectors are made while they are read (`growth.grow`) and kept in half precision by the index alone, so two million take
8 GB of disk; the time to make them is not counted. Where `make bench-index N=1000000` has measured the smaller index
already, that is taken. What grows with the rows is continued on the line through both; every step is on the page.
"""

import argparse
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.index.embeddings import DIM, Embeddings, read_embeddings
from benchmarks.index.growth import grow
from benchmarks.index.opening import opened_alone
from benchmarks.index.run import QUERIES, disk_bytes
from benchmarks.report import RESULTS, heading, write
from worker.index.recipe import IndexRecipe
from worker.index.snapshot import Snapshots
from worker.index.vector_index import Page, Vectors

ROOT = Path(__file__).parent.parent.parent
ENCODER = "bench"
TARGET, BYTES_PER_VECTOR = 0.95, 200
NAME = "index-ten-million"
# What is continued on a line, in the unit of the figure.
GROWING = {
    "build_s": "seconds to build and tune",
    "resident_gb": "GB in memory after searches, stored vectors apart",
    "disk_gb": "GB on disk",
    "load_s": "seconds to open",
    "p50_ms": "median of one search, ms",
    "p95_ms": "p95 of one search, ms",
}


def pages(real: Vectors, rows: int) -> Iterator[Page]:
    """Yield grown vectors with their rows and the hashes of images that there are not."""
    start = 0
    for vectors in grow(real, rows):
        numbers = np.arange(start, start + len(vectors))
        hashes = np.zeros((len(vectors), 32), np.uint8)
        hashes[:, :8] = numbers[:, None].view(np.uint8)
        yield numbers, hashes, vectors
        start += len(vectors)


def build(embeddings: Embeddings, rows: int, recipe: IndexRecipe, state: Path, console: Console) -> dict[str, Any]:
    """Build an index of so many rows, open it in a process of its own, and remove it.

    Returns:
        rows, queries (that tuned it), factory, arguments, recall_at_10, and the figures of GROWING.
    """
    console.print(f"{rows:,} rows", highlight=False)
    folder = state / "indexes" / f"streamed-{rows}"
    shutil.rmtree(folder, ignore_errors=True)
    queries = state / "queries.npy"
    tuning = embeddings.queries[QUERIES:]
    np.save(queries, embeddings.queries[:QUERIES])
    try:
        start = perf_counter()
        snapshots = Snapshots(folder, ENCODER, DIM, recipe, kept=1)
        made = Timed(pages(embeddings.catalogue, rows))
        snapshot = snapshots.write(made, rows, tuning)
        seconds = perf_counter() - start - made.seconds
        described = snapshot.described
        del snapshot
        opening = opened_alone(folder, ENCODER, DIM, queries)
        measured = described["measured"]
        built = {
            "rows": rows,
            "queries": len(tuning),
            "factory": described["factory"],
            "arguments": described["arguments"],
            "recall_at_10": measured["recall_at_10"],
            "build_s": seconds,
            "resident_gb": (opening["own"] + opening["codes"]) / 1e9,
            "disk_gb": disk_bytes(folder) / 1e9,
            "load_s": opening["load_s"],
            "p50_ms": measured["p50_ms"],
            "p95_ms": measured["p95_ms"],
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    console.print(f"  {built}", highlight=False)
    return built


def measured_before(rows: int, recipe: IndexRecipe) -> dict[str, Any] | None:
    """Return what `make bench-index N=...` found of so many rows with the same recipe; None if it has not run."""
    path = RESULTS / f"index-{rows}.json"
    if not path.is_file():
        return None
    run = json.loads(path.read_text(encoding="utf-8"))
    if run["data"]["recipe"] != recipe.to_dict():
        return None
    chosen, opening = run["chosen"], run["opening"]
    return {
        "rows": rows,
        "queries": run["data"]["tuning_queries"],
        "factory": chosen["factory"],
        "arguments": chosen["arguments"],
        "recall_at_10": chosen["measured"]["recall_at_10"],
        "build_s": chosen["measured"]["build_seconds"],
        "resident_gb": (opening["own"] + opening["codes"]) / 1e9,
        "disk_gb": run["disk_bytes"] / 1e9,
        "load_s": opening["load_s"],
        "p50_ms": chosen["measured"]["p50_ms"],
        "p95_ms": chosen["measured"]["p95_ms"],
    }


class Timed:
    """Pages, and the seconds that it took to make them."""

    def __init__(self, made: Iterator[Page]) -> None:
        self._made = made
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Page]:
        """Yield each page."""
        while True:
            start = perf_counter()
            page = next(self._made, None)
            self.seconds += perf_counter() - start
            if page is None:
                return
            yield page


def continued(first: Mapping[str, Any], second: Mapping[str, Any], rows: int) -> dict[str, float]:
    """Return the figures of GROWING for so many rows, on the line through two builds."""
    steps = (rows - first["rows"]) / (second["rows"] - first["rows"])
    return {name: first[name] + steps * (second[name] - first[name]) for name in GROWING}


def page(first: Mapping[str, Any], second: Mapping[str, Any], rows: int) -> str:
    """Return the page of two builds and what follows for so many rows."""
    expected = continued(first, second, rows)
    steps = (rows - first["rows"]) / (second["rows"] - first["rows"])
    lines = [
        heading(f"{rows:,} vectors", "benchmarks.index.ten_million"),
        f"Two indexes of {DIM} numbers a vector were built for recall@10 {TARGET} in {BYTES_PER_VECTOR} bytes a "
        "vector, of vectors grown as on the page of a million ([more](index-1000000.md)).",
        f"The last column is not measured: it is `first + {steps:g} x (second - first)`, the line through the two.",
        "",
        f"| | {first['rows']:,} | {second['rows']:,} | {rows:,}, continued |",
        "|---|---|---|---|",
        f"| index | {first['factory']} | {second['factory']} | |",
        f"| arguments | {first['arguments']} | {second['arguments']} | |",
        f"| recall@10 of {first['queries']} photos that it was tuned with | {first['recall_at_10']:.4f} "
        f"| {second['recall_at_10']:.4f} | tuned to {TARGET} again |",
    ]
    for name, words in GROWING.items():
        cells = " | ".join(f"{value:.3g}" for value in (first[name], second[name], expected[name]))
        lines.append(f"| {words} | {cells} |")
    lines += [
        "",
        "Where the line may be wrong: the number of lists doubles with four times the rows, so a search visits more "
        "lists of more rows each, but not in proportion; and stored vectors that re-ranking reads must come from the "
        f"disk where memory does not hold all of them ({4 * rows * DIM / 2e9:.0f} GB here).",
        "",
    ]
    return "\n".join(lines)


def _measured(embeddings: Embeddings, rows: int, state: Path, console: Console) -> dict[str, Any]:
    recipe = IndexRecipe(TARGET, BYTES_PER_VECTOR * rows)
    return measured_before(rows, recipe) or build(embeddings, rows, recipe, state, console)


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=Path, default=ROOT.parent / "shared/datasets")
    parser.add_argument("--rows", type=int, nargs=2, default=[1_000_000, 2_000_000], metavar="N")
    parser.add_argument("--wanted", type=int, default=10_000_000)
    parser.add_argument("--state", type=Path, default=ROOT / "var/bench-index", help="folder of vectors and indexes")
    arguments = parser.parse_args()
    if arguments.rows[0] >= arguments.rows[1]:
        parser.error("--rows takes two numbers, the smaller one first")
    console = Console(width=160)
    embeddings = read_embeddings(arguments.datasets, arguments.state, console)
    first, second = (_measured(embeddings, rows, arguments.state, console) for rows in arguments.rows)
    write(NAME, page(first, second, arguments.wanted))
    expected = continued(first, second, arguments.wanted)
    told = {"built": [first, second], "continued": {"rows": arguments.wanted, **expected}}
    (RESULTS / f"{NAME}.json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for name, value in expected.items():
        console.print(f"ten_million_{name}: {value:.4g}", highlight=False)


if __name__ == "__main__":
    main()
