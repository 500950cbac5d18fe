"""What people see: tables and summaries. Text of the catalogue is shown as text, never as terminal codes."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 160  # columns where the output is not a terminal
SHOWN_ROW_ERRORS = 20


def console_for(*, stderr: bool = False) -> Console:
    """Return a console that doesn't squeeze tables into 80 columns when its output is piped."""
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=PIPED_WIDTH)


def plain(value: object) -> Text:
    """Return a value as unformatted text, its control characters replaced."""
    return Text("".join(character if character.isprintable() else " " for character in str(value)))


def hits_table(result: Mapping[str, Any]) -> Table:
    """Return the hits of a search, best first."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("score", justify="right")
    table.add_column("item", no_wrap=True)
    table.add_column("title")
    table.add_column("attributes", style="dim")
    for hit in result["hits"]:
        attributes = ", ".join(f"{name}={value}" for name, value in hit["attributes"].items())
        score = f"{hit['score']:.4f}"
        table.add_row(str(hit["rank"]), score, plain(hit["item_id"]), plain(hit["title"]), plain(attributes))
    return table


def search_summary(result: Mapping[str, Any]) -> str:
    """Return where an answer came from and how long each step took."""
    timings = result["timings_ms"]
    steps = ", ".join(f"{step} {milliseconds:.1f}" for step, milliseconds in timings.items() if step != "total")
    total = f"{timings['total']:.1f} ms" if "total" in timings else "no time"
    text = f"answered from {result['answered_from'].replace('_', ' ')} in {total}"
    return f"{text} ({steps})" if steps else text


def print_search(console: Console, result: Mapping[str, Any]) -> None:
    """Print the hits, or why there are none, and what the answer took."""
    if result["hits"]:
        console.print(hits_table(result))
    else:
        console.print(f"No hits: {(result.get('reason') or 'no reason given').replace('_', ' ')}.", markup=False)
    console.print(search_summary(result), style="dim", markup=False)


def import_summary(result: Mapping[str, Any]) -> str:
    """Return what an import did, in one line."""
    parts = [f"{result['imported']:,} of {counted(result['rows'], 'row')} imported"]
    parts.append(f"{counted(result['embedded'], 'image')} embedded")
    if result["deleted"]:
        parts.append(f"{counted(result['deleted'], 'item')} deleted")
    parts.append(f"{counted(result['failed'], 'row')} left out")
    if result.get("near_duplicates"):
        parts.append(f"{counted(result['near_duplicates'], 'near-duplicate')} found")
    return ", ".join(parts)


def batch_summary(result: Mapping[str, Any]) -> str:
    """Return what a batch search did, in one line."""
    answered = result["queries"] - result["failed"]
    rate = f" ({result['queries'] / result['seconds']:.1f}/s)" if result["seconds"] else ""
    queries = f"{answered:,} of {result['queries']:,} queries" if result["queries"] != 1 else f"{answered} of 1 query"
    return f"{queries} answered in {result['seconds']:.1f} s{rate}"


def counted(number: int, thing: str) -> str:
    """Return a number with its noun: 1 row, 2,000 rows."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def spreadsheet_cell(value: Any) -> Any:
    """Return a value for a CSV file that no spreadsheet takes for a formula; catalogues are other people's text."""
    begins_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    return f"'{value}" if begins_formula else value


def row_errors_table(errors: Iterable[Mapping[str, Any]]) -> Table:
    """Return rows that an import left out, with the reasons."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("line", justify="right")
    for name in ("item", "code", "detail"):
        table.add_column(name)
    for error in errors:
        table.add_row(
            str(error["line"]), plain(error.get("item_id") or ""), plain(error["code"]), plain(error["detail"])
        )
    return table
