"""The suite that breaks things must notice when something is lost: else its zeros mean nothing."""

import hashlib
import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from chaos import soak
from chaos.experiments.mutated_input import generated, mutated_images
from chaos.ledger import Ledger
from chaos.page import totals, write_results
from chaos.photos import photo
from chaos.receiver import Receiver
from chaos.record import Record
from chaos.system import SETTINGS, System
from chaos.usage import open_files, resident_mib
from demo.processes import ProcessGroup
from shared.settings import load_settings
from tests.stack import ROOT, wait_until


def job(job_id: str, status: str, **fields: Any) -> dict[str, Any]:
    return {"id": job_id, "status": status, "result": None, "error": None, "finished_at": None, **fields}


def settled(jobs: Mapping[str, Mapping[str, Any] | None], *seen: Mapping[str, Any]) -> Ledger:
    """Return the ledger of accepted jobs that were seen so, and are read in the end as they are."""
    ledger = Ledger()
    for job_id in jobs:
        ledger.accept(job_id)
    for entry in seen:
        ledger.saw(entry)
    ledger.settle(jobs.__getitem__, 0.3)
    return ledger


def test_a_job_that_never_ends_is_lost_and_others_are_not() -> None:
    ledger = settled({"a": job("a", "running"), "b": job("b", "succeeded"), "c": job("c", "cancelled")})
    assert (ledger.accepted, ledger.finished, ledger.lost) == (3, 2, ["a"])


def test_a_job_that_the_server_says_is_gone_is_counted_as_such() -> None:
    ledger = settled({"a": None, "b": job("b", "succeeded")})
    assert (ledger.gone, ledger.lost) == (1, [])


@pytest.mark.parametrize(
    "later",
    [
        job("a", "failed", error={"code": "worker_lost"}),
        job("a", "succeeded", result={"hits": [1]}),
        job("a", "succeeded", finished_at="later"),
        job("a", "running"),
    ],
)
def test_a_job_with_two_outcomes_is_doubled(later: dict[str, Any]) -> None:
    assert settled({"a": later}, job("a", "succeeded")).doubled == ["a"]


def test_a_job_that_is_read_twice_is_not_doubled_and_failures_are_counted_by_code() -> None:
    failed = job("a", "failed", error={"code": "deadline_exceeded"})
    ledger = settled({"a": {**failed, "deliveries": [1]}}, job("a", "queued"), job("a", "running"), failed, failed)
    assert (ledger.doubled, dict(ledger.failed)) == ([], {"deadline_exceeded": 1})


def test_the_logs_are_searched_for_what_nobody_foresaw(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "search.log"
    log.parent.mkdir()
    trace = "Traceback (most recent call last):\n  File x\n"
    foreseen = f"2026-11-26 18:00:00,1 ERROR celery Task search[1] raised unexpected: X\n{trace}"
    foreseen += "redis.exceptions.ConnectionError: gone\n"
    unforeseen = f"2026-11-26 18:00:01,1 ERROR worker.job_tasks Job {'a' * 32} failed\n{trace}KeyError: 'k'\n"
    log.write_text(foreseen + unforeseen + foreseen + f"2026-11-26 18:00:02,1 INFO x Job {'b' * 32} is fine\n")
    system = System(ProcessGroup(ROOT, tmp_path), tmp_path, tmp_path, {})
    assert [line.partition(" ERROR ")[2] for line in system.unhandled()] == [f"worker.job_tasks Job {'a' * 32} failed"]
    assert system.unhandled() == []
    with log.open("a") as file:
        file.write(unforeseen)
        file.write(f"2026-11-26 18:00:03,1 WARNING x Nobody knows these words\n{trace}KeyError: 'k'\n{foreseen}")
        file.write(f"{trace}OSError: printed by nobody's log\n")
    assert [line.split()[:4][-1] for line in system.unhandled()] == ["ERROR", "WARNING", "recent"]


def post(receiver: Receiver, path: str, webhook_id: str, body: bytes = b"{}") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=10)
    connection.request("POST", path, body, {"webhook-id": webhook_id})
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_receiver_tells_webhooks_under_two_ids_or_with_two_bodies() -> None:
    with Receiver() as receiver:
        assert [post(receiver, "/failing/1", "a") for _ in range(3)] == [500, 500, 204]
        assert post(receiver, "/ok/2", "b") == 204
        assert receiver.doubled() == []
        post(receiver, "/ok/2", "c")
        post(receiver, "/failing/1", "a", b"other")
        assert receiver.doubled() == ["/failing/1", "/ok/2"]


def test_the_resolver_leads_names_where_the_run_wants_them_and_the_trap_counts_the_rest() -> None:
    script = """
import socket
def names(host): return socket.getaddrinfo(host, 80, 0, socket.SOCK_STREAM)[0][4][0]
print(names("a.shop.example"), names("rebound1.example"), names("rebound1.example"), names("private.example"))
for address in ("10.0.0.1", "169.254.169.254"):
    socket.create_connection((address, 80), 5).close()
connection = socket.create_connection(("a.shop.example", 80), 5)
connection.sendall(b"GET /x HTTP/1.0\\r\\n\\r\\n")
print(connection.recv(15).decode())
"""
    with Receiver() as receiver:
        ports = {"CHAOS_RECEIVER_PORT": str(receiver.port), "CHAOS_TRAP_PORT": str(receiver.trap.server_port)}
        environment = {**os.environ, **ports, "PYTHONPATH": str(ROOT / "chaos" / "resolver")}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        wait_until(lambda: receiver.trap.connections == 2, 5, "both connections are counted")
    public = "93.184.216.34"
    assert done.stdout.split() == [public, public, "127.0.0.1", "127.0.0.1", "HTTP/1.0", "200", "OK"]


def test_mutated_images_are_the_same_in_every_run_and_no_two_alike() -> None:
    images = generated(mutated_images(), 30)
    assert images == generated(mutated_images(), 30)
    assert len({hashlib.sha256(image).digest() for image in images}) > 20
    assert photo("a") != photo("b")


def test_memory_and_files_of_a_group_are_counted() -> None:
    script = "held = b'x' * (64 << 20); files = [open('/dev/null') for _ in range(50)]; print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        groups = {"it": process.pid}
        assert 64 < resident_mib(groups)["it"] < 200
        assert 50 < open_files(groups)["it"] < 80
        process.send_signal(signal.SIGKILL)


def test_the_page_says_what_was_broken_lost_and_skipped(tmp_path: Path) -> None:
    good = Record(
        "good", "Nothing.", "All.", accepted=3, finished=3, recovery_s=1.25, figures={"refused_addresses_reached": 0}
    )
    bad = Record("bad", "Something.", "All.", accepted=2, finished=1, lost=1, recovery_s=3.0, broken=["it broke"])
    skipped = Record("no-disk", "Fill it.", "All.", skipped="No disk.")
    page = write_results([good, bad, skipped], tmp_path, {"settings": {"A": "1"}, "quick": True, "seed": 1}).read_text()
    assert "| good | 3 | 3 | 0 | 0 | 0 | 0 | 1.2 | 0 | yes |" in page
    assert "| bad | 2 | 1 | 0 | 0 | 1 | 0 | 3.0 | 0 | **no** |" in page
    assert "**Broken:** it broke" in page
    assert "Skipped: No disk." in page
    found = totals([good, bad, skipped])
    assert (found["jobs"], found["lost"], found["recovery_s_max"], found["experiments_that_hold"]) == (5, 1, 3.0, 1)
    assert "soak_memory_growth_percent" not in found


def test_the_settings_of_the_soak_hold_together(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**SETTINGS, **soak.SETTINGS}.items():
        monkeypatch.setenv(name, value)
    assert load_settings().job_ttl_seconds == 60


def test_a_soak_compares_medians_after_warm_up_and_at_the_end() -> None:
    minutes = [{"p95_ms": float(number), "mib": {"web": 100.0 + number}} for number in range(30)]
    warm, last = soak.compared(minutes)
    assert (warm["p95_ms"], last["p95_ms"]) == (8.5, 26.5)
    assert last["mib"] == {"web": 126.5}
    assert soak.compared(minutes[:1]) == (minutes[0], minutes[0])
