"""The shorter form of `make chaos`: the experiments that tell most, on one system of their own."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.stack import ROOT

EXPERIMENTS = (
    "killed-processes",
    "killed-redis-kept",
    "killed-redis-emptied",
    "full-redis",
    "mutated-input",
    "redis-hands-over",
)
SECONDS = 420
pytestmark = pytest.mark.timeout(SECONDS + 20)  # the first test waits for all of them


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("chaos")
    command = [sys.executable, "-m", "chaos", "--quick", "--scratch", str(folder), "--out", str(folder / "out")]
    done = subprocess.run(
        [*command, "--only", *EXPERIMENTS], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    page = folder / "out" / "chaos.json"
    assert page.exists(), done.stderr
    found = json.loads(page.read_text())
    found["printed"] = dict(line.split(": ") for line in done.stdout.splitlines())
    return found


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_what_is_promised_holds_while_something_breaks(results: dict[str, Any], name: str) -> None:
    record = next(record for record in results["experiments"] if record["name"] == name)
    assert not record["broken"], "\n".join(record["broken"])
    assert (record["lost"], record["doubled"], record["unhandled"]) == (0, 0, 0), record
    assert record["accepted"] >= record["finished"] > 0
    assert 0 < record["recovery_s"] <= 10


def test_the_figures_are_printed_and_on_the_page(results: dict[str, Any]) -> None:
    totals = {name: float(value) for name, value in results["printed"].items()}
    assert totals == pytest.approx(results["totals"])
    assert totals["jobs"] > 100
    assert totals["server_errors_from_bad_input"] == 0
