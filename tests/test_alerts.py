"""The alert rules ask for metrics that there are, and lead to remedies that there are."""

import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from shared.queues import QUEUES
from tests.conftest import make_settings
from tests.servers import RedisProcess
from tests.test_docs import anchors, kinds_of_errors
from web.app import create_app

ROOT = Path(__file__).parent.parent
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((ROOT / "docs" / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
METRIC = re.compile(r"\blookalike_\w+")
SELECTOR = re.compile(r"(lookalike_\w+)\{([^}]*)\}")
LABEL = re.compile(r'(\w+)(?:=|!=|=~)"([^"]*)"')
PROMETHEUS_DURATION = re.compile(r"(?:\d+(?:ms|s|m|h|d|w|y))+")


@pytest.fixture(scope="module")
def exposed(redis_server: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of samples that an expression may ask for."""
    client = create_app(make_settings(redis_server, tmp_path_factory.mktemp("alerts"))).test_client()
    names: set[str] = set()
    for family in text_string_to_metric_families(client.get("/metrics").text):
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        names |= {family.name + suffix for suffix in suffixes}
    assert "lookalike_queue_messages" in names, "Redis was away"
    return names


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_metric_of_an_expression_is_shown_by_a_real_web_process(rule: dict[str, Any], exposed: set[str]) -> None:
    asked = set(METRIC.findall(rule["expr"]))
    assert asked
    assert asked <= exposed


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_rule_says_what_is_wrong_and_links_to_its_remedy(rule: dict[str, Any]) -> None:
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert "for" not in rule or PROMETHEUS_DURATION.fullmatch(rule["for"])
    assert rule["annotations"]["summary"]
    page, _, anchor = rule["annotations"]["remedy"].partition("#")
    assert anchor in anchors(ROOT / page)


def test_the_rules_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"Lookalike[A-Z]\w+", name) for name in names)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_each_expression_is_promql(rule: dict[str, Any]) -> None:
    promql_parser.parse(rule["expr"])
    with pytest.raises(ValueError, match="unexpected right parenthesis"):
        promql_parser.parse(rule["expr"] + " )")


def test_codes_and_queues_that_an_expression_names_exist() -> None:
    known = {"code": {kind.code for kind in kinds_of_errors()}, "queue": set(QUEUES), "step": {"total"}}
    seen = set()
    for rule in RULES:
        for _, selector in SELECTOR.findall(rule["expr"]):
            for label, values in LABEL.findall(selector):
                if label in known:
                    seen.add(label)
                    assert set(values.split("|")) <= known[label], rule["alert"]
    assert seen == known.keys()
