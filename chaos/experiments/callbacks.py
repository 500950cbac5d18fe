"""Webhook receivers and image hosts that misbehave, or that lead where this server must not go."""

import uuid
from typing import Any

from chaos.experiment import Experiment
from chaos.photos import photo
from chaos.trial import Trial

TRIES = 4  # LOOKALIKE_WEBHOOK_MAX_ATTEMPTS of the run
END_SECONDS = 60
ALLOWED = {"ok", "slow", "failing", "good"}  # those that lead to a public address, and stay there


def run(trial: Trial) -> None:
    """Name every kind of receiver and host, and see who was reached."""
    trap = trial.receiver.trap
    port, reached_before, run_id = trap.server_port, trap.connections, uuid.uuid4().hex[:8]
    refused = _refused_by_text(port)
    for url in refused:
        _check_text(trial, url)
    trial.say("webhooks to receivers that misbehave")
    hooks = {
        "ok": f"http://ok.shop.example/ok/{run_id}",
        "slow": f"http://slow.shop.example/slow/{run_id}",
        "failing": f"http://failing.shop.example/failing/{run_id}",
        "moved": f"http://moved.shop.example/moved/{run_id}",
        "rebound": f"http://rebound-{run_id}.example:{port}/failing/rebound-{run_id}",
        "private": f"http://private.example:{port}/ok/private-{run_id}",
        "mapped": f"http://mapped.example:{port}/ok/mapped-{run_id}",
        "metadata": f"http://metadata.example:{port}/ok/metadata-{run_id}",
    }
    jobs = {name: trial.search(f"hook/{run_id}/{name}", callback_url=url) for name, url in hooks.items()}
    images = {
        "good": f"http://images.shop.example/{run_id}.jpg",
        "moved": f"http://images.shop.example/moved/{run_id}.jpg",
        "moved-mapped": f"http://images.shop.example/moved-mapped/{run_id}.jpg",
        "again": f"http://rebound-image-{run_id}.example:{port}/again/{run_id}.jpg",
        "private": f"http://private.example:{port}/{run_id}.jpg",
        "mapped": f"http://mapped.example:{port}/{run_id}.jpg",
        "metadata": f"http://metadata.example:{port}/{run_id}.jpg",
    }
    fetched = {name: _fetch(trial, url) for name, url in images.items()}
    for name, job in fetched.items():
        expected = ("succeeded", None) if name == "good" else ("failed", "url_refused")
        found = (job["status"], job["error"] and job["error"]["code"])
        trial.require(found == expected, f"an image_url, {name}, ended as {found}")
    _check_deliveries(trial, {name: _delivered(trial, job_id) for name, job_id in jobs.items()}, hooks)
    reached = trap.connections - reached_before
    named = 2 * len(refused) + len(hooks.keys() - ALLOWED) + len(images.keys() - ALLOWED)
    trial.record.figures |= {"refused_addresses": named, "refused_addresses_reached": reached}
    trial.require(not reached, f"{reached} connections reached the private service")


def _refused_by_text(port: int) -> list[str]:
    """Return URLs whose text already says that they lead here, or nowhere good."""
    hosts = ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]  # noqa: S104
    hosts += ["169.254.169.254", "10.0.0.1", "192.168.0.1", "[fd00:ec2::254]", "user@127.0.0.1"]
    return [f"http://{host}:{port}/" for host in hosts] + [f"ftp://127.0.0.1:{port}/", f"gopher://127.0.0.1:{port}/"]


def _check_text(trial: Trial, url: str) -> None:
    system = trial.system
    answers = (
        system.post("/v1/searches", files={"image": photo("refused")}, data={"callback_url": url}),
        system.post("/v1/searches", json={"image_url": url}),
    )
    for answer in answers:
        if answer.status_code in (200, 202):
            trial.accepted(answer)
        is_refused = answer.status_code == 422 and answer.json()["code"] == "url_refused"
        trial.require(is_refused, f"{url} was answered {answer.status_code} {answer.text[:200]}")


def _fetch(trial: Trial, url: str) -> dict[str, Any]:
    answer = trial.system.post("/v1/searches", json={"image_url": url})
    answer.raise_for_status()
    return trial.finished(trial.accepted(answer), END_SECONDS) or {"status": "gone", "error": None}


def _delivered(trial: Trial, job_id: str) -> list[dict[str, Any]]:
    """Return the tries of a job's webhook when there are to be no more."""
    found: list[dict[str, Any]] = []

    def is_over() -> bool:
        found[:] = (trial.read(job_id) or {"deliveries": []})["deliveries"]
        return bool(found) and found[-1]["next_attempt_at"] is None

    trial.require(trial.wait_for(is_over, END_SECONDS), f"the webhook of job {job_id} came to no end: {found}")
    return found


def _check_deliveries(trial: Trial, tries: dict[str, list[dict[str, Any]]], hooks: dict[str, str]) -> None:
    statuses = {name: [entry["status"] for entry in entries] for name, entries in tries.items()}
    expected: dict[str, list[int | None]] = {
        "ok": [204],
        "slow": [None] * TRIES,
        "failing": [500, 500, 204],
        "moved": [302] * TRIES,
        "rebound": [500, None],  # the second time it leads here, and that is final
        "private": [None],
        "mapped": [None],
        "metadata": [None],
    }
    for name in hooks:
        trial.require(statuses[name] == expected[name], f"the webhook to {name} was answered {statuses[name]}")


EXPERIMENT = Experiment(
    "callbacks",
    "Webhooks to receivers that answer late, with 500, with a redirect to 127.0.0.1, or whose name leads to 127.0.0.1 "
    "the second time; image URLs and redirects of the same kinds; private addresses in every spelling.",
    "Tries go on by their plan and under one id; no private address is ever connected to.",
    run,
)
