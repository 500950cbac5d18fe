"""The report of a judgement: a Markdown page, and the pictures beside it."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from training.files import writing_aside
from training.judgement import WORST, Judgement
from training.metrics import Difference
from training.pictures import choose_queries, draw_map, retrieval_sheet
from training.run_folder import git_revision
from training.served import Cost

SHEET_ROWS = 12


def write_report(
    folder: Path,
    judgement: Judgement,
    against: Judgement | None,
    differences: Mapping[str, Difference] | None,
    command: str,
) -> Path:
    """Write report.md, figures.json, sheet.jpg, worst.jpg and map.png.

    Args:
        folder: made where it is not there.
        judgement: of the encoder that the report is about.
        against: of the encoder that it is compared with.
        differences: how far the figures are above those.
        command: what was run.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = judgement.found
    any_ones, worst = choose_queries(judgement.each["p_at_10"], SHEET_ROWS)
    retrieval_sheet(found, any_ones, folder / "sheet.jpg")
    retrieval_sheet(found, worst, folder / "worst.jpg")
    labels = found.photos.values[found.photos.label]
    draw_map(judgement.embeddings[found.queries], labels[found.queries], folder / "map.png")
    figures = {name: vars(interval) for name, interval in judgement.intervals().items()}
    values = {
        "encoder": judgement.encoder,
        "runtime": judgement.runtime,
        "figures": figures,
        "cost": vars(judgement.cost),
    }
    with writing_aside(folder / "figures.json") as aside:
        aside.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    page = folder / "report.md"
    with writing_aside(page) as aside:
        aside.write_text("\n".join(_lines(judgement, against, differences, command)) + "\n", encoding="utf-8")
    return page


def _cost_line(cost: Cost) -> str:
    return (
        f"{cost.milliseconds:.1f} ms for a photo alone, {cost.photos_per_second:.0f} photos a second in batches, "
        f"decoding included; {cost.size_bytes / 2**20:.1f} MiB"
    )


def _lines(
    judgement: Judgement, against: Judgement | None, differences: Mapping[str, Difference] | None, command: str
) -> list[str]:
    found = judgement.found
    lines = [
        f"# What {judgement.encoder} finds",
        "",
        f"Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC at revision {git_revision()}:",
        "",
        f"    {command}",
        "",
        f"Index: {len(found.index):,} photos; queries: {len(found.queries):,}; relevant: same {found.photos.label}. "
        f"Runtime {judgement.runtime}: {_cost_line(judgement.cost)}.",
        "",
        *table(
            ("figure", "mean", "95% interval"),
            [
                (name, f"{interval.mean:.4f}", f"{interval.low:.4f} to {interval.high:.4f}")
                for name, interval in judgement.intervals().items()
            ],
        ),
    ]
    if against is not None and differences is not None:
        lines += [
            "",
            f"## Compared with {against.encoder} ({against.runtime})",
            "",
            f"The other: {_cost_line(against.cost)}.",
            "",
            *table(
                ("figure", "it", "the other", "difference, 95% interval", "p"),
                [
                    (
                        name,
                        f"{judgement.each[name].mean():.4f}",
                        f"{against.each[name].mean():.4f}",
                        f"{difference.points.mean:+.4f} [{difference.points.low:+.4f}, {difference.points.high:+.4f}]",
                        f"{difference.p_value:.4f}",
                    )
                    for name, difference in differences.items()
                ],
            ),
            "",
            "p: paired randomisation test over queries, two-sided.",
        ]
    classes = judgement.classes()
    lines += ["", f"## The {min(WORST, len(classes))} worst of {len(classes)} classes", ""]
    lines += table(
        ("class", "queries", "in the index", "Precision@5", "mostly taken for"),
        [(row.name, row.queries, row.indexed, f"{row.p_at_5:.3f}", row.taken_for) for row in classes[:WORST]],
    )
    lines += ["", "## What first hits are taken for", ""]
    lines += table(("query", "first hit", "times"), judgement.confusions())
    lines += [
        "",
        "## Queries and their ten hits",
        "",
        "Green: the same class; red: another one. First some queries at random, then some of the worst.",
        "",
        "![Queries at random](sheet.jpg)",
        "",
        "![Some of the worst queries](worst.jpg)",
        "",
        "## The embedding space",
        "",
        "![Map](map.png)",
        "",
        "## All classes",
        "",
    ]
    lines += table(
        ("class", "queries", "in the index", "Precision@5"),
        [
            (row.name, row.queries, row.indexed, f"{row.p_at_5:.3f}")
            for row in sorted(classes, key=lambda row: row.name)
        ],
    )
    return lines


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return the lines of a Markdown table."""
    cells = [headings, ["---"] * len(headings), *rows]
    return [f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in cells]


def named_values(judgement: Judgement) -> dict[str, float]:
    """Return the means of all figures by name."""
    return {name: float(np.mean(values)) for name, values in judgement.each.items()}
