"""What keeps job records in order on a real Redis server: expiry, leases, callbacks that are due."""

import logging
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

import pytest
from redis import Redis

from shared.errors import BrokenImage
from shared.jobs import PREFIX, Jobs, job_key
from shared.schemas import Delivery, JobKind, Progress
from shared.settings import Settings
from tests.servers import RedisProcess, running_redis
from tests.stack import ROOT, wait_until
from worker.heartbeat import Leases, repeat

RESULT = {"rows": 1, "imported": 1, "failed": 0, "deleted": 0, "embedded": 1}
ERROR = BrokenImage("Truncated.")
CALLBACK = "https://shop.example/hook"


@pytest.fixture
def jobs(redis_client: Redis, settings: Settings) -> Jobs:
    return Jobs(redis_client, settings)


def create(jobs: Jobs, callback_url: str | None = None) -> str:
    return jobs.create(JobKind.IMPORT, {}, callback_url=callback_url).id


def test_every_key_of_a_job_expires(jobs: Jobs, redis_client: Redis, settings: Settings) -> None:
    def keys() -> list[str]:
        return [str(key, "utf-8") for key in redis_client.scan_iter(f"{PREFIX}job:*")]

    def keys_that_stay() -> list[str]:
        assert keys()
        return [key for key in keys() if not 0 < redis_client.ttl(key) <= settings.job_ttl_seconds]

    job_id = jobs.create(JobKind.SEARCH, {}, image=b"photo", callback_url=CALLBACK).id
    assert keys_that_stay() == []
    jobs.start(job_id)
    jobs.set_progress(job_id, Progress(done=1, failed=0))
    assert keys_that_stay() == []
    jobs.fail(job_id, ERROR)
    jobs.add_delivery(job_id, Delivery(attempt=1, at=datetime.now(UTC)))
    assert keys_that_stay() == []
    parts = {key.removeprefix(job_key(job_id)) for key in keys()}
    assert parts == {"", ":deliveries"}, "the photo goes when the job ends"


def test_bug_a_job_that_is_worked_on_never_expires(jobs: Jobs, redis_client: Redis, settings: Settings) -> None:
    job_id = create(jobs)
    for touch in (
        lambda: jobs.start(job_id),
        lambda: jobs.renew(job_id),
        lambda: jobs.set_progress(job_id, Progress(done=1, failed=0)),
        lambda: jobs.succeed(job_id, RESULT),
    ):
        redis_client.expire(job_key(job_id), 30)
        touch()
        assert redis_client.ttl(job_key(job_id)) > settings.job_ttl_seconds - 30


def test_a_job_whose_lease_has_run_out_is_overdue_the_longest_first(jobs: Jobs, settings: Settings) -> None:
    fresh, late, later = create(jobs), create(jobs), create(jobs)
    assert jobs.overdue() == []
    jobs.renew(late, seconds=-5)
    jobs.start(later)
    jobs.renew(later, seconds=-9)
    assert jobs.overdue() == [later, late]
    assert jobs.overdue(limit=1) == [later]
    jobs.renew(later)
    jobs.start(late)
    assert jobs.overdue() == []
    jobs.renew(fresh, seconds=-1)
    jobs.drop_active(fresh)
    assert jobs.overdue() == []


def test_a_callback_is_due_when_its_job_ends_and_for_one_claimer_alone(jobs: Jobs) -> None:
    with_callback, without = create(jobs, callback_url=CALLBACK), create(jobs)
    assert jobs.claim_due_callbacks(60) == []
    for job_id in (with_callback, without):
        jobs.cancel(job_id)
    assert jobs.claim_due_callbacks(-1) == [with_callback], "a claim whose time has passed counts as lost"
    assert jobs.claim_due_callbacks(60) == [with_callback]
    assert jobs.claim_due_callbacks(60) == []
    jobs.drop_callback(with_callback)
    assert jobs.claim_due_callbacks(-1) == []


def test_each_try_of_a_callback_is_logged_and_plans_the_next(jobs: Jobs) -> None:
    job_id, now = create(jobs, callback_url=CALLBACK), datetime.now(UTC)
    jobs.succeed(job_id, RESULT)
    jobs.claim_due_callbacks(60)
    past, future = now - timedelta(seconds=1), now + timedelta(hours=1)
    jobs.add_delivery(job_id, Delivery(attempt=1, at=now, status=500, error="No.", next_attempt_at=past))
    assert jobs.claim_due_callbacks(60) == [job_id]
    jobs.add_delivery(job_id, Delivery(attempt=2, at=now, error="No answer.", next_attempt_at=future))
    assert jobs.claim_due_callbacks(60) == []
    jobs.add_delivery(job_id, Delivery(attempt=3, at=now, status=200, next_attempt_at=past))
    jobs.add_delivery(job_id, Delivery(attempt=4, at=now, status=200))
    assert jobs.claim_due_callbacks(60) == []
    wire = jobs.get(job_id).to_wire()["deliveries"]
    assert [(entry["attempt"], entry["status"]) for entry in wire] == [(1, 500), (2, None), (3, 200), (4, 200)]


def test_a_job_in_hand_is_renewed_and_no_other(jobs: Jobs) -> None:
    held, let_go, too_long = create(jobs), create(jobs), create(jobs)
    hung: list[str] = []
    leases = Leases(jobs, lease_seconds=0.1, on_hang=hung.append)
    with leases.holding(let_go, max_seconds=60):
        pass
    with leases.holding(too_long, max_seconds=0), leases.holding(held, max_seconds=60):
        for job_id in (too_long, let_go, held):
            jobs.renew(job_id, seconds=-5)
        wait_until(lambda: held not in jobs.overdue(), 20, "the job in hand is renewed")
        assert set(jobs.overdue()) == {too_long, let_go}
        wait_until(lambda: bool(hung), 20, "the one that takes too long is noticed")
    told = f"Job {too_long} has given no sign for 0 s, which is longer than any may take: this process ends"
    assert set(hung) == {told}


def test_a_job_that_goes_on_does_not_hang(jobs: Jobs) -> None:
    hung: list[str] = []
    leases = Leases(jobs, lease_seconds=0.06, on_hang=hung.append)
    with leases.holding(create(jobs), max_seconds=0.3) as _, leases.holding("other", max_seconds=60):
        job_id = leases._holds[0].job_id
        for _ in range(20):
            time.sleep(0.05)
            leases.go_on(job_id)
        assert not hung
        wait_until(lambda: bool(hung), 20, "it is silent now")


HANGING = """
import sys, time
from redis import Redis
from shared.jobs import Jobs
from shared.settings import Settings
from worker.heartbeat import Leases

jobs = Jobs(Redis.from_url(sys.argv[1]), Settings(_env_file=None, REDIS_URL=sys.argv[1]))
with Leases(jobs, lease_seconds=0.1).holding(sys.argv[2], max_seconds=0):
    time.sleep(60)
"""


def test_a_process_whose_job_hangs_ends_and_the_job_is_up_for_others(jobs: Jobs, redis_server: RedisProcess) -> None:
    job_id = create(jobs)
    jobs.start(job_id)
    command = [sys.executable, "-c", HANGING, redis_server.url, job_id]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == os.EX_SOFTWARE, done.stderr
    assert f"Job {job_id} has given no sign for 0 s" in done.stderr
    jobs.renew(job_id, seconds=-5)
    assert jobs.overdue() == [job_id]


def test_bug_a_job_stays_in_hand_until_the_last_of_two_messages_is_done(jobs: Jobs) -> None:
    job_id = create(jobs)
    leases = Leases(jobs, lease_seconds=0.1)
    with leases.holding(job_id, max_seconds=60):
        with leases.holding(job_id, max_seconds=60):
            pass
        jobs.renew(job_id, seconds=-5)
        wait_until(lambda: jobs.overdue() == [], 20, "the job in hand is renewed")


def test_what_is_repeated_goes_on_after_redis_was_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with running_redis(tmp_path) as server, Redis.from_url(server.url) as client:
        stopped, thread = Event(), None

        def count() -> int:
            return int(client.get("count") or 0)

        try:
            thread = repeat(lambda: client.incr("count"), 0.02, stopped, "counting")
            wait_until(lambda: count() > 1, 20, "it begins")
            server.kill()
            wait_until(lambda: "counting: Redis failed" in caplog.text, 20, "it notices")
            server.start()
            client.set("count", 0)
            wait_until(lambda: count() > 1, 20, "it goes on")
        finally:
            stopped.set()
            if thread is not None:
                thread.join(20)
        assert thread is not None
        assert not thread.is_alive()
