"""Metrics of the running stack: what workers count reaches /metrics of web."""

import time
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from shared.worker_presence import PRESENCE_SECONDS
from tests.stack import Stack, wait_until

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
STEPS = {"queue", "refresh", "decode", "embed", "batch", "search", "hits", "total"}
SECONDS = "lookalike_search_step_seconds"
MIB = 1024 * 1024


def samples(stack: Stack) -> Samples:
    families = text_string_to_metric_families(stack.get("/metrics").text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def counted(found: Samples, step: str) -> float:
    return found.get((f"{SECONDS}_count", (("step", step),)), 0)


def answers(found: Samples, source: str) -> float:
    return found.get(("lookalike_search_answers_total", (("answered_from", source),)), 0)


def wait_until_settled(stack: Stack) -> None:
    """Wait until no worker has anything left to write of the searches of other tests."""
    count, since = -1.0, time.monotonic()

    def is_unchanged() -> bool:
        nonlocal count, since
        if (now := counted(samples(stack), "total")) != count:
            count, since = now, time.monotonic()
        return time.monotonic() - since > PRESENCE_SECONDS / 2

    wait_until(is_unchanged, 30, "all earlier searches are counted")


def test_the_steps_of_searches_arrive_within_seconds_and_add_up(stack: Stack, photo: bytes) -> None:
    wait_until_settled(stack)
    before = samples(stack)
    results: list[dict[str, Any]] = [stack.search(photo, fresh=True)["result"] for _ in range(3)]
    wait_until(lambda: counted(samples(stack), "total") - counted(before, "total") == 3, 20, "three more searches")
    after = samples(stack)
    assert {labels[0][1] for name, labels in after if name == f"{SECONDS}_count"} >= STEPS
    for step in STEPS:
        seconds = ((f"{SECONDS}_sum", (("step", step),)),)
        added = sum(after[name] - before.get(name, 0) for name in seconds)
        expected = sum(result["timings_ms"][step] for result in results) / 1000
        assert abs(added - expected) < 1e-6, step


def test_answers_are_counted_by_where_they_came_from(stack: Stack, photo: bytes) -> None:
    stack.search(photo)
    before = samples(stack)
    assert stack.search(photo)["result"]["answered_from"] == "result_cache"
    assert stack.search(photo, fresh=True)["result"]["answered_from"] == "engine"
    after = samples(stack)
    for source in ("result_cache", "engine"):
        assert answers(after, source) - answers(before, source) == 1


def test_each_worker_tells_its_memory_and_web_its_own(stack: Stack) -> None:
    found = samples(stack)
    memory = {dict(labels)["queues"]: count for (name, labels), count in found.items() if "_worker_memory" in name}
    assert memory.keys() == {"search", "bulk", "callbacks,maintenance"}
    assert memory["search"] > memory["callbacks,maintenance"] > 20 * MIB
    assert found["lookalike_web_process_resident_memory_bytes", ()] > 20 * MIB
