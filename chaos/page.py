"""The page and the figures of a run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import heading
from chaos.record import Record

HEAD = (
    "| experiment | accepted | finished | of these failed | told gone | lost | doubled | recovery, s "
    "| unhandled | holds |\n"
    "|---|---|---|---|---|---|---|---|---|---|\n"
)
EXPLAINED = """
Accepted: jobs that were answered with an id; finished: those that came to an end, by itself or as failed with a code.
Lost: accepted and never ended, or a row reported done that is not in the catalogue or not found, or a webhook that
never came. Doubled: a job with two outcomes, or a webhook under two ids. Recovery: the longest time from the end of a
fault to the answer to the first new search. Unhandled: exceptions in the logs that no code had foreseen.
"""
TOLD = ("server_errors_from_bad_input", "refused_addresses_reached", "soak_memory_growth_percent")


def totals(records: Sequence[Record]) -> dict[str, float]:
    """Return the figures of the whole run; those of experiments that were not done are left out."""
    done = [record for record in records if not record.skipped]
    found: dict[str, float] = {
        "jobs": sum(record.accepted for record in done),
        "lost": sum(record.lost for record in done),
        "doubled": sum(record.doubled for record in done),
    }
    recoveries = [record.recovery_s for record in done if record.recovery_s is not None]
    if recoveries:
        found["recovery_s_max"] = round(max(recoveries), 1)
    for name in TOLD:
        values = [record.figures[name] for record in done if name in record.figures]
        if values:
            found[name] = max(values)
    found["unhandled_exceptions"] = sum(record.unhandled for record in done)
    found["experiments_that_hold"] = sum(record.holds for record in done)
    found["experiments"] = len(done)
    return found


def write_results(records: Sequence[Record], out: Path, described: dict[str, Any]) -> Path:
    """Write chaos.json and chaos.md into a folder; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    whole = {**described, "totals": totals(records), "experiments": [record.to_json() for record in records]}
    _write(out / "chaos.json", json.dumps(whole, indent=2) + "\n")
    return _write(out / "chaos.md", _page(records, described))


def _write(path: Path, text: str) -> Path:
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(text, encoding="utf-8")
    return aside.replace(path)


def _page(records: Sequence[Record], described: dict[str, Any]) -> str:
    settings = "; ".join(f"`{name}={value}`" for name, value in described["settings"].items())
    text = heading("What survives", "chaos") + f"\nOther than by default: {settings}.\n" + EXPLAINED + "\n" + HEAD
    text += "".join(_row(record) for record in records)
    for record in records:
        text += f"\n## {record.name}\n\n{record.done}\n\nMust hold: {record.checked}\n\n"
        text += f"Skipped: {record.skipped}\n" if record.skipped else f"{record.seconds:.0f} s. {_figures(record)}\n"
        text += "".join(f"\n- **Broken:** {what}" for what in record.broken) + ("\n" if record.broken else "")
        text += _minutes(record)
    return text


def _row(record: Record) -> str:
    if record.skipped:
        return f"| {record.name} |" + " - |" * 8 + " skipped |\n"
    failed = ", ".join(f"{count} {code}" for code, count in record.failed.items()) or "0"
    recovery = "-" if record.recovery_s is None else f"{record.recovery_s:.1f}"
    cells = [record.name, record.accepted, record.finished, failed, record.told, record.lost, record.doubled, recovery]
    return f"| {' | '.join(map(str, cells))} | {record.unhandled} | {'yes' if record.holds else '**no**'} |\n"


def _figures(record: Record) -> str:
    return "; ".join(f"{name}: {value:g}" for name, value in record.figures.items())


def _minutes(record: Record) -> str:
    if not record.minutes:
        return ""
    names = list(record.minutes[0]["mib"])
    text = "\n| minute | searches | p95, ms | Redis connections | " + " | ".join(
        f"{name}, MiB (files)" for name in names
    )
    text += " |\n" + "|---" * (4 + len(names)) + "|\n"
    for number, minute in enumerate(record.minutes, 1):
        memory = " | ".join(f"{minute['mib'][name]:.0f} ({minute['files'][name]})" for name in names)
        text += (
            f"| {number} | {minute['searches']} | {minute['p95_ms']:.0f} | {minute['redis_connections']} | {memory} |\n"
        )
    return text
