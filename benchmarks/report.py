"""What every page of figures begins with: when, where, by which command."""

import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "docs" / "results"


def machine() -> str:
    """Describe this machine in one line."""
    model = platform.processor() or platform.machine()
    for line in (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    ):
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{os.cpu_count()} cores, {model}, Python {platform.python_version()}"


def heading(title: str, module: str) -> str:
    """Return the head of a page of figures."""
    command = " ".join(["python -m", module, *sys.argv[1:]])
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"# {title}\n\nMeasured {now} on {machine()}, revision {revision.stdout.strip() or 'unknown'}.\n\n"
        f"    {command}\n"
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that a share of all values (0..1) does not exceed, by the nearest-rank method."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def latency_row(name: str, milliseconds: Sequence[float]) -> str:
    """Return a table row: median, p95 and p99 of latencies."""
    cells = (statistics.median(milliseconds), percentile(milliseconds, 0.95), percentile(milliseconds, 0.99))
    return f"| {name} | {len(milliseconds)} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |"


def write(name: str, text: str) -> Path:
    """Write a page of figures aside, and rename it to docs/results/{name}.md."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    page, aside = RESULTS / f"{name}.md", RESULTS / f".{name}.md.part"
    aside.write_text(text, encoding="utf-8")
    return aside.replace(page)
