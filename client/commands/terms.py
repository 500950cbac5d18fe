"""What searches ask for, as options that several commands take."""

import json
from collections.abc import Callable
from typing import Any

import click


def parse_filter(context: click.Context, parameter: click.Parameter, value: str | None) -> dict[str, Any] | None:
    """Return the filter of an option's text."""
    if value is None:
        return None
    try:
        condition = json.loads(value)
    except json.JSONDecodeError as error:
        raise click.BadParameter(f"not JSON: {error}") from error
    if not isinstance(condition, dict):
        raise click.BadParameter('not a JSON object such as {"colour": "red"}')
    return condition


_OPTIONS = (
    click.option("-k", type=click.IntRange(1, 100), help="Wanted number of items; 10 unless given."),
    click.option("--min-score", type=click.FloatRange(-1, 1), help="Leave out items below this cosine similarity."),
    click.option(
        "--filter",
        "condition",
        metavar="JSON",
        callback=parse_filter,
        help='Which items may be found, for example \'{"colour": "red", "price": {"lt": 50}}\'.',
    ),
    click.option(
        "--group-by",
        metavar="ATTRIBUTE",
        help="Show only the best items of each value of an attribute; @duplicates: of those that look nearly the same.",
    ),
    click.option("--per-group", type=click.IntRange(1, 100), help="How many of each group; 1 unless given."),
)


def term_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options k, min_score, condition, group_by and per_group."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def given_terms(
    k: int | None,
    min_score: float | None,
    condition: dict[str, Any] | None,
    group_by: str | None,
    per_group: int | None,
) -> dict[str, Any]:
    """Return those of the options that were given, as the API names them."""
    terms = {"k": k, "min_score": min_score, "filter": condition, "group_by": group_by, "per_group": per_group}
    return {name: value for name, value in terms.items() if value is not None}
