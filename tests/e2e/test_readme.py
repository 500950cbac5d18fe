"""The README's commands, run as they stand, do what it says."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from demo.ports import free_port
from tests.stack import ROOT, WEBHOOK_SECRET, Stack

README = (ROOT / "README.md").read_text()
POLL, IMPORT, WEBHOOK = range(3)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def environment(stack: Stack, sample_catalogue: Path) -> dict[str, str]:
    """What a person has after `source .venv/bin/activate`, and this test's server instead of the demo's."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LOOKALIKE": stack.base_url,
        "SAMPLE": str(sample_catalogue),
        "WEBHOOK_SECRET": WEBHOOK_SECRET,
        "RECEIVER_PORT": str(free_port()),
    }


def run(script: str, environment: dict[str, str]) -> str:
    """Run a script that must succeed, and return what it prints."""
    command = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_has_a_block_for_each_of_the_three_uses() -> None:
    uses = blocks("bash")
    assert len(uses) == 3
    assert "/v1/searches" in uses[POLL]
    assert "/v1/imports" in uses[IMPORT]
    assert "callback_url" in uses[WEBHOOK]


def test_a_photo_is_submitted_and_polled(environment: dict[str, str], photographed: str) -> None:
    hits = [line.split() for line in run(blocks("bash")[POLL], environment).splitlines()]
    assert [hit[0] for hit in hits] == ["1", "2", "3"]
    assert hits[0][2] == photographed


def test_a_catalogue_is_imported_in_bulk(environment: dict[str, str], products: list[dict[str, Any]]) -> None:
    *progress, result, errors = run(blocks("bash")[IMPORT], environment).splitlines()
    rows = len(products)
    assert progress[-1].startswith("succeeded {")
    # The stack has this catalogue already, and what it has is not embedded again.
    counts = {"rows": rows, "imported": rows, "failed": 0, "deleted": 0, "deletion_skipped": None, "embedded": 0}
    duplicates = {"near_duplicates": 0, "near_duplicate_pairs": []}
    assert result.startswith(str({**counts, "skipped_columns": [], **duplicates}).removesuffix("}"))
    assert json.loads(errors) == {"errors": [], "next_cursor": None}


def test_a_webhook_is_taken_and_its_signature_checked(environment: dict[str, str]) -> None:
    printed = run(blocks("bash")[WEBHOOK], environment)
    assert re.fullmatch(r"job\.finished search succeeded /v1/jobs/[0-9a-f]{32}\n", printed)


def test_the_receiver_refuses_a_webhook_that_another_secret_signed(environment: dict[str, str]) -> None:
    other = {**environment, "WEBHOOK_SECRET": "whsec_" + "A" * 32}
    assert run(blocks("bash")[WEBHOOK], other).startswith("refused:")


def test_the_answer_that_the_readme_shows_is_what_the_server_answers(
    environment: dict[str, str], sample_catalogue: Path, stack: Stack
) -> None:
    command = next(block for block in blocks("sh") if block.startswith("curl "))
    ours = command.replace("var/demo/sample", str(sample_catalogue)).replace("http://127.0.0.1:8000", stack.base_url)
    assert ours != command
    # Else what another test searched with could be answered from a cache, with other timings.
    answer = json.loads(run(f"{ours.rstrip()} -H 'Cache-Control: no-cache'", environment))
    shown = json.loads(blocks("json")[0])

    assert shape(answer) == shape(shown)
    assert answer["result"]["release"].partition("-")[0] == shown["result"]["release"].partition("-")[0]
    for found, told in zip(answer["result"]["hits"], shown["result"]["hits"], strict=True):
        assert found["score"] == pytest.approx(told["score"], abs=0.1)
        assert {**found, "score": None} == {**told, "score": None}


def shape(value: Any) -> Any:
    """Return the names and types of a JSON value, without what they hold."""
    if isinstance(value, dict):
        return {name: shape(member) for name, member in value.items()}
    if isinstance(value, list):
        return [shape(entry) for entry in value]
    return type(value).__name__


def test_the_command_line_takes_what_the_readme_shows(
    environment: dict[str, str],
    sample_catalogue: Path,
    products: list[dict[str, Any]],
    stack: Stack,
    tmp_path: Path,
) -> None:
    block = next(block for block in blocks("sh") if block.startswith("python -m client "))
    files = {name: str(sample_catalogue / name) for name in ("products.csv", "photo.jpg")}
    files |= {name: str(tmp_path / name) for name in ("errors.csv", "similar.ndjson")}
    commands = [shlex.split(line, comments=True)[3:] for line in block.splitlines() if "JOB" not in line]
    assert [command[0] for command in commands] == ["import", "search", "search", "search-batch"]
    for command in commands:
        arguments = [sys.executable, "-m", "client", "--server", stack.base_url]
        run(shlex.join([*arguments, *(files.get(word, word) for word in command)]), environment)
    assert Path(files["errors.csv"]).read_text().splitlines() == ["line,item_id,code,detail"]
    assert len(Path(files["similar.ndjson"]).read_text().splitlines()) == len(products)
