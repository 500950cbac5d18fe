"""The documentation says what the code says."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.routing import Rule

from shared.errors import LookalikeError
from shared.settings import Settings, variable_name
from tests.conftest import make_settings
from tests.servers import RedisProcess
from web.app import create_app
from web.errors import HTTP_CODES, status_of

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])

CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
NAMED_FILE = re.compile(r"`((?:web|worker|shared|client|demo|training|tests|docs)/[\w./-]+)`")
OPERATION = re.compile(r"`(GET|POST|PUT|DELETE|PATCH) (/[^`?]*)`")


def cells(page: Path) -> Iterator[list[str]]:
    """Yield the cells of each row of a page's tables."""
    for line in page.read_text().splitlines():
        if line.startswith("|"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def kinds_of_errors(kind: type[LookalikeError] = LookalikeError) -> Iterator[type[LookalikeError]]:
    for child in kind.__subclasses__():
        if child.code:
            yield child
        yield from kinds_of_errors(child)


def default_of(field: str) -> str:
    """Return a setting's default as it stands in the environment; empty where it has none."""
    default = Settings.model_fields[field].default
    return "" if default is None else str(default).lower() if isinstance(default, bool) else str(default)


@pytest.fixture
def app(redis_server: RedisProcess, tmp_path: Path) -> Any:
    return create_app(make_settings(redis_server, tmp_path))


def test_settings_stand_in_the_table_in_their_order_with_their_defaults() -> None:
    documented = [row for row in cells(DOCS / "settings.md") if row[0].startswith("`")]
    expected = [
        (f"`{variable_name(field)}`", f"`{default}`" if (default := default_of(field)) else "unset")
        for field in Settings.model_fields
    ]
    # A default may be followed by the same in words: `20971520` (20 MiB).
    assert [(row[0], row[1].partition(" (")[0]) for row in documented] == expected


def test_env_example_describes_each_setting_in_their_order_and_sets_none() -> None:
    text = (ROOT / ".env.example").read_text()
    expected = "\n\n".join(
        f"# {info.description}\n#{variable_name(field)}={default_of(field)}"
        for field, info in Settings.model_fields.items()
    )
    assert text.partition("\n\n")[2] == expected + "\n"


def test_each_error_stands_in_the_table_with_its_status_and_a_remedy() -> None:
    documented = {row[0]: row for row in cells(DOCS / "api.md") if len(row) == 4}
    for kind in kinds_of_errors():
        row = documented.get(f"`{kind.code}`")
        assert row is not None, f"{kind.code} is not in docs/api.md"
        assert row[1] == str(status_of(kind)), f"{kind.code} has another status"
        assert set(row[2].split(", ")) <= {"answer", "job", "row"}, row[2]
        assert row[3], kind.code
    known = {f"`{kind.code}`" for kind in kinds_of_errors()}
    assert {code for code, row in documented.items() if row[1].isdigit()} == known


def test_each_code_of_what_the_web_server_refuses_stands_in_the_table() -> None:
    documented = {(row[0], row[1]) for row in cells(DOCS / "api.md") if len(row) == 3}
    assert {(f"`{code}`", str(status)) for status, code in HTTP_CODES.items()} <= documented


def operations_of(rule: Rule) -> set[tuple[str, str]]:
    path = re.sub(r"<(?:[^:>]*:)?([^>]+)>", r"{\1}", rule.rule)
    return {(method, path) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}


def test_each_endpoint_stands_in_the_api_page_and_no_other(app: Any) -> None:
    rules = [rule for rule in app.url_map.iter_rules() if not rule.rule.startswith(("/static/", "/docs/"))]
    existing = set[tuple[str, str]]().union(*map(operations_of, rules))
    assert ("POST", "/v1/searches") in existing
    assert set(OPERATION.findall((DOCS / "api.md").read_text())) == existing


def test_each_metric_stands_in_the_operations_page_and_no_other(app: Any) -> None:
    exposed = set()
    for family in text_string_to_metric_families(app.test_client().get("/metrics").text):
        if not family.name.endswith("_created"):
            exposed.add(family.name + ("_total" if family.type == "counter" else ""))
    assert "lookalike_queue_messages" in exposed, "Redis was away"
    documented = {row[0].strip("`") for row in cells(DOCS / "operations.md") if row[0].startswith("`lookalike_")}
    assert documented == exposed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(CODE_BLOCK.sub("", page.read_text())):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_merge_leaves_no_mark_in_a_page(page: Path) -> None:
    assert not re.findall(r"^(?:<{7}|>{7}) .*$", page.read_text(), re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", CODE_BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    missing = [name for name in NAMED_FILE.findall(page.read_text()) if not (ROOT / name).exists()]
    assert not missing
