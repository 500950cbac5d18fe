"""Break a running Lookalike on purpose, and count what was lost; see docs/results/chaos.md.

    python -m chaos [--quick] [--only NAME ...] [--soak MINUTES] [--out DIR]

Starts every process of the Procfile on loopback, ends only what it started, prints one `name: value` line per figure,
and writes chaos.md and chaos.json. Ends with 1 if a promise was broken.
"""

import argparse
import importlib.util
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parent.parent
SEED = 20261126


def parse(names: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a shorter form of each experiment; no page in docs/")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--soak", type=int, default=0, metavar="MINUTES", help="afterwards; 0: no soak")
    parser.add_argument("--no-faults", action="store_true", help="the soak alone")
    parser.add_argument("--seed", type=int, default=SEED, help="of every random choice")
    parser.add_argument("--scratch", type=Path, default=ROOT / "var" / "chaos", metavar="DIR", help="for logs and data")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="for the page; unset: docs/results, of --quick the scratch"
    )
    return parser.parse_args()


def interrupt(signum: int, _frame: FrameType | None) -> None:
    """Leave every `with` block on SIGTERM, so that each process that we started is stopped."""
    raise SystemExit(128 + signum)


def main() -> None:
    """Run the suite."""
    missing = [name for name in ("hypothesis", "schemathesis") if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"{' and '.join(missing)} missing. Run `make chaos`, or: pip install -r requirements-dev.txt")
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from chaos.experiments import ALL
    from chaos.page import totals, write_results
    from chaos.record import Record
    from chaos.run import Run
    from chaos.scale import FULL, QUICK
    from chaos.system import SETTINGS

    arguments = parse([experiment.name for experiment in ALL])
    signal.signal(signal.SIGTERM, interrupt)
    chosen = [] if arguments.no_faults else [experiment for experiment in ALL if experiment.name in arguments.only]
    folder = (arguments.scratch / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")).resolve()
    told = {name: value for name, value in SETTINGS.items() if "SECRET" not in name}
    described = {"quick": arguments.quick, "seed": arguments.seed, "settings": told}
    out = arguments.out or (folder / "results" if arguments.quick else ROOT / "docs" / "results")
    console, started = Console(stderr=True), time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=len(chosen) + bool(arguments.soak))
        names: list[str] = []

        def show(name: str, text: str) -> None:
            if name not in names:
                names.append(name)
            progress.update(bar, description=f"{name}: {text}", completed=len(names) - 1)
            if not console.is_terminal:
                console.print(f"{time.monotonic() - started:6.0f} s  {name}: {text}", highlight=False)

        run = Run(QUICK if arguments.quick else FULL, folder, arguments.seed, show)
        records: list[Record] = run.experiments(chosen)
        page = write_results(records, out.resolve(), described)
        if arguments.soak:
            records.append(run.soak(arguments.soak))
            page = write_results(records, out.resolve(), described)
        progress.update(bar, completed=len(records))
    for record in records:
        for what in record.broken:
            console.print(f"{record.name}: {what}", style="red", highlight=False, markup=False)
    console.print(f"wrote {page}; logs are in {folder}", highlight=False)
    sys.stdout.write("".join(f"{name}: {value:g}\n" for name, value in totals(records).items()))
    raise SystemExit(0 if all(record.holds for record in records) else 1)


if __name__ == "__main__":
    main()
