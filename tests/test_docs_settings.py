"""docs/settings.md and .env.example name every setting, and nothing that is none."""

import re
from pathlib import Path

from shared.settings import Settings, variable_name

ROOT = Path(__file__).parent.parent
VARIABLES = {variable_name(field): field for field in Settings.model_fields}
A_VARIABLE = re.compile(r"\b(?:LOOKALIKE_[A-Z_]*[A-Z]|REDIS_URL|DATABASE_URL)\b")


def test_docs_settings_lists_each_variable_once_with_its_description_and_default() -> None:
    rows = [line for line in (ROOT / "docs" / "settings.md").read_text().splitlines() if line.startswith("|")]
    by_variable = {}
    for row in rows:
        if match := A_VARIABLE.search(row.split("|")[1]):
            assert match[0] not in by_variable, f"{match[0]} is listed twice"
            by_variable[match[0]] = row
    assert by_variable.keys() == VARIABLES.keys()
    for variable, row in by_variable.items():
        field = Settings.model_fields[VARIABLES[variable]]
        assert field.description
        assert _plain(field.description) in _plain(row), f"{variable}: {row}"


def test_env_example_shows_each_variable_with_its_default() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    shown = {match[1]: match[2] for line in lines if (match := re.match(r"#? ?([A-Z_]+)=(.*)$", line))}
    assert shown.keys() == VARIABLES.keys()
    for variable, value in shown.items():
        default = Settings.model_fields[VARIABLES[variable]].default
        if default is not None:
            expected = str(default).lower() if isinstance(default, bool) else str(default)
            assert value.strip().strip("\"'") == expected, variable


def test_no_page_names_a_variable_that_does_not_exist() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), ROOT / "docker-compose.yml"]
    known = {*VARIABLES, "LOOKALIKE_DATASETS", "LOOKALIKE_SERVER", "LOOKALIKE_KEY"}  # the tests' own and the client's
    unknown = {
        (page.relative_to(ROOT).as_posix(), name)
        for page in pages
        for name in A_VARIABLE.findall(page.read_text())
        if name not in known
    }
    assert not unknown


def _plain(text: str) -> str:
    """Return the text without Markdown's marks, in which a table may differ from the code."""
    return re.sub(r"[`\\*]", "", text)
