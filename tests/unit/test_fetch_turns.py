from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from demo.procfile import read_procfile
from shared.job_record import JobRecord
from shared.schemas import JobKind, JobStatus
from worker.fetch_turns import FetchTurns
from worker.services import FETCHING_TASKS

ROOT = Path(__file__).resolve().parents[2]


def job(kind: JobKind = JobKind.SEARCH, **parameters: Any) -> JobRecord:
    nothing: dict[str, Any] = dict.fromkeys(
        ("started_at", "finished_at", "progress", "result", "error", "callback_url")
    )
    at = datetime.now(UTC)
    return JobRecord("j", kind, JobStatus.QUEUED, parameters, at, attempts=0, deliveries=[], **nothing)


BY_URL = job(source={"image_url": "https://shop.example/a.jpg"})
ITEM_BY_URL = job(JobKind.IMPORT, uploads=[], image_urls=["https://shop.example/a.jpg"])
OTHERS = [
    job(source={"sha256": "0"}),
    job(source={"item_id": "a"}),
    job(JobKind.IMPORT, uploads=["uploads/a/0"], image_urls=None),
]


def test_jobs_that_fetch_have_so_many_turns_and_others_always_one() -> None:
    turns = FetchTurns(limit=2)
    with ExitStack() as running:
        assert running.enter_context(turns.turn(BY_URL))
        assert running.enter_context(turns.turn(ITEM_BY_URL))
        for refused in (BY_URL, ITEM_BY_URL):
            with turns.turn(refused) as may_run:
                assert not may_run
        for other in OTHERS:
            assert running.enter_context(turns.turn(other))
    for _ in range(3):
        with turns.turn(BY_URL) as first, turns.turn(ITEM_BY_URL) as second:
            assert (first, second) == (True, True), "turns that ended are free again"


def test_a_job_that_fails_gives_its_turn_back() -> None:
    turns = FetchTurns(limit=1)
    for _ in range(2):
        try:
            with turns.turn(BY_URL) as may_run:
                assert may_run
                raise OSError
        except OSError:
            pass


def test_half_of_the_threads_of_a_search_worker_are_left_for_jobs_that_fetch_nothing() -> None:
    command = read_procfile(ROOT / "Procfile")["search"]
    assert int(command[command.index("--concurrency") + 1]) == 2 * FETCHING_TASKS
