"""Measures the kinds of index, and other libraries, on the same vectors; writes docs/results/index.md and .json.

    python -m benchmarks.index [--datasets ../shared/datasets] [--rows 43916] [--recall-target 0.99]
    python -m benchmarks.index --rows 1000000 --recall-target 0.95 --bytes-per-vector 200

A million rows are written to docs/results/index-1000000.md; they take 8 GB on disk for the vectors, 4 for an index.
"""

import argparse
import json
from pathlib import Path

from rich.console import Console

from benchmarks.index.page import page
from benchmarks.index.plot import draw
from benchmarks.index.run import Run, figures
from benchmarks.report import RESULTS, write
from worker.index.recipe import IndexRecipe

ROOT = Path(__file__).parent.parent.parent
MILLION = 10**6


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=Path, default=ROOT.parent / "shared/datasets")
    parser.add_argument("--rows", type=int, default=43_916, help="43,916 is the catalogue of the mission")
    parser.add_argument("--recall-target", type=float, default=0.99)
    parser.add_argument("--bytes-per-vector", type=int, help="memory budget, by vector; without it there is none")
    parser.add_argument("--state", type=Path, default=ROOT / "var/bench-index", help="folder of vectors and indexes")
    arguments = parser.parse_args()
    console = Console(width=160)
    budget = arguments.bytes_per_vector and arguments.bytes_per_vector * arguments.rows
    recipe = IndexRecipe(arguments.recall_target, budget)
    measured = Run(arguments.datasets, arguments.state, arguments.rows, recipe, console).measure()
    (arguments.state / "measured.json").write_text(json.dumps(measured), encoding="utf-8")
    named = figures(measured)
    name = "index" if arguments.rows < MILLION else f"index-{arguments.rows}"
    draw(measured, RESULTS.parent / "images" / f"{name}.png")
    write(name, page(measured, named, name))
    text = json.dumps({"figures": named, **measured}, indent=1, sort_keys=True)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    for figure, value in named.items():
        console.print(f"{figure}: {value:.4g}", highlight=False)


if __name__ == "__main__":
    main()
