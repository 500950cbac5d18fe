"""What every experiment has at hand: the system, the ledger, the record, and the questions that all of them ask."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import requests

from chaos.ledger import Ledger
from chaos.load import CallbackOf, Load
from chaos.photos import catalogue, item_id, photo
from chaos.receiver import Receiver
from chaos.record import Record
from chaos.scale import Scale
from chaos.system import System

RECOVERY_GOAL_SECONDS = 10
RECOVERY_LIMIT_SECONDS = 60
SEARCHED_ROWS = 20
SAME_SCORE = 0.999


@dataclass
class Trial:
    """One experiment under way."""

    system: System
    receiver: Receiver
    scale: Scale
    record: Record
    random: Random
    say: Callable[[str], None]
    ledger: Ledger = field(default_factory=Ledger)

    def require(self, holds: bool, otherwise: str) -> None:
        """Note a promise that did not hold."""
        if not holds:
            self.record.broken.append(otherwise)

    def load(self, *, callback_of: CallbackOf = lambda _number: None, per_second: float | None = None) -> Load:
        """Return clients of the system, whose jobs are in the ledger."""
        return Load([self.system.base_url], self.ledger, callback_of=callback_of, per_second=per_second)

    def accepted(self, answer: requests.Response) -> str:
        """Note the job of an answer, and return its id."""
        job = answer.json()
        self.ledger.accept(job["id"])
        self.ledger.saw(job)
        return str(job["id"])

    def search(self, name: str, **fields: Any) -> str:
        """Send a search with the photo of a name and return the job's id."""
        answer = self.system.post(
            "/v1/searches", files={"image": photo(name)}, data=fields, headers={"Cache-Control": "no-cache"}
        )
        answer.raise_for_status()
        return self.accepted(answer)

    def send_import(self, prefix: str, rows: int, edition: str = "") -> str:
        """Send a catalogue and return the job's id."""
        file = ("catalogue.zip", catalogue(prefix, rows, edition))
        answer = self.system.post("/v1/imports", files={"file": file})
        answer.raise_for_status()
        return self.accepted(answer)

    def read(self, job_id: str) -> dict[str, Any] | None:
        """Read a job; None if the server says that there is none. Refusals and broken connections are tried again."""
        deadline = time.monotonic() + RECOVERY_LIMIT_SECONDS
        while True:
            try:
                answer = self.system.get(f"/v1/jobs/{job_id}")
                if answer.status_code == 404:
                    return None
                if answer.ok:
                    job: dict[str, Any] = answer.json()
                    return job
            except requests.RequestException:
                pass
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {job_id} can't be read for {RECOVERY_LIMIT_SECONDS} s")
            time.sleep(0.2)

    def finished(self, job_id: str, seconds: float) -> dict[str, Any] | None:
        """Wait for a job's end and return the job as it is then; None if it is gone."""
        deadline = time.monotonic() + seconds
        while True:
            job = self.read(job_id)
            if job is None:
                self.ledger.is_gone(job_id)
                return None
            if self.ledger.saw(job) or time.monotonic() > deadline:
                return job
            time.sleep(0.2)

    def recovery(self, what: str) -> float:
        """Measure the time until a new search is answered; the fault has just ended."""
        started = time.monotonic()
        while (elapsed := time.monotonic() - started) < RECOVERY_LIMIT_SECONDS:
            if self._is_answered():
                elapsed = time.monotonic() - started
                break
            time.sleep(0.05)
        self.record.recovery_s = max(elapsed, self.record.recovery_s or 0.0)
        self.require(elapsed <= RECOVERY_GOAL_SECONDS, f"{what}: a new search was answered after {elapsed:.1f} s only")
        return elapsed

    def _is_answered(self) -> bool:
        try:
            answer = self.system.post(
                "/v1/searches",
                files={"image": photo(uuid.uuid4().hex)},
                headers={"Prefer": "wait=1", "Cache-Control": "no-cache"},
                timeout=10,
            )
            if answer.status_code not in (200, 202):
                return False
            self.accepted(answer)
            return bool(answer.json()["status"] == "succeeded")
        except requests.RequestException:
            return False

    def check_load(self, load: Load) -> None:
        """Note what clients saw that they must not see."""
        self.record.figures |= {"searches": load.answered, "refused": load.refused, "connections_broken": load.dropped}
        self.require(not load.errors, f"clients got answers that they can do nothing with: {dict(load.errors)}")
        self.require(not load.silent, f"{load.silent} searches got no end")
        self.require(not load.without_advice, f"{load.without_advice} refusals had no Retry-After")

    def check_import(self, job_id: str, prefix: str, rows: int, seconds: float) -> None:
        """Wait for an import's end; every row must be there once and be found."""
        job = self.finished(job_id, seconds)
        if job is None or job["status"] != "succeeded":
            self.record.broken.append(f"the import did not succeed: {job and {**job, 'progress': None}}")
            return
        expected = {item_id(prefix, number) for number in range(rows)}
        missing = expected - self.system.items(prefix)
        self.record.lost += len(missing)
        self.record.figures["rows"] = self.record.figures.get("rows", 0) + rows
        result = job["result"]
        self.require(result["imported"] == rows and not result["failed"], f"the import tells of other rows: {result}")
        for name in self.random.sample(sorted(expected), min(SEARCHED_ROWS, rows)):
            found = self.finished(self.search(name), 30)
            hits = found["result"]["hits"] if found and found["result"] else []
            is_found = any(hit["item_id"] == name and hit["score"] >= SAME_SCORE for hit in hits)
            self.record.lost += not is_found and name not in missing
            self.require(is_found, f"item {name} was imported and is not found by its photo")

    def check_rows_reported(self, job_id: str, prefix: str) -> None:
        """Compare what an import said was done with what is in the catalogue a moment later."""
        job = self.read(job_id)
        if job is None or not job["progress"]:
            return
        there = len(self.system.items(prefix))
        gone = max(0, job["progress"]["done"] - job["progress"]["failed"] - there)
        self.record.lost += gone
        self.require(not gone, f"{gone} rows were reported done and are not in the catalogue")

    def wait_for(self, is_true: Callable[[], bool], seconds: float) -> bool:
        """Poll until something holds; returns whether it does."""
        deadline = time.monotonic() + seconds
        while not is_true():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True
