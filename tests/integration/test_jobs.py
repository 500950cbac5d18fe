"""Job records on a real Redis server: states, races, what comes and goes together."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from threading import Barrier
from typing import Any

import pytest
from redis import Redis

from shared.errors import BrokenImage, JobAlreadyFinished, JobNotFound
from shared.job_record import JobRecord
from shared.jobs import CALLBACKS_DUE_KEY, COUNTS_KEY, FINISHED_KEPT, FINISHED_KEY, Jobs, job_key, new_job_id
from shared.queues import SEARCH, create_celery, queue_key
from shared.result_cache import CacheEntry
from shared.schemas import JobKind, JobStatus, Progress
from shared.settings import Settings
from shared.task_message import TaskMessages

RESULT = {"rows": 1, "imported": 1, "failed": 0, "deleted": 0, "embedded": 1}
ERROR = BrokenImage("Truncated.", missing_bytes=5)
CALLBACK = "https://shop.example/hook"


@pytest.fixture
def jobs(redis_client: Redis, settings: Settings) -> Jobs:
    return Jobs(redis_client, settings)


def create(jobs: Jobs, kind: JobKind = JobKind.IMPORT, callback_url: str | None = None) -> str:
    return jobs.create(kind, {"k": 5, "filter": {"colour": "röt"}}, callback_url=callback_url).id


def ended(redis: Redis) -> list[str]:
    """Return the ids that the stream of ended jobs has, the oldest first."""
    entries: list[Any] = redis.xrange(FINISHED_KEY)  # type: ignore[assignment]
    return [fields[b"id"].decode() for _, fields in entries]


def end_attempts(jobs: Jobs, job_id: str) -> list[Callable[[], object]]:
    def cancel() -> bool:
        try:
            return jobs.cancel(job_id).status is JobStatus.CANCELLED
        except JobAlreadyFinished:
            return False

    return [lambda: jobs.succeed(job_id, RESULT), lambda: jobs.fail(job_id, ERROR), cancel]


def test_a_new_job_is_queued_with_all_that_it_needs(jobs: Jobs, redis_client: Redis) -> None:
    before = datetime.now(UTC)
    created = jobs.create(JobKind.SEARCH, {"k": 5}, image=b"\x00photo\xff", callback_url=CALLBACK)
    job_id, job = created.id, jobs.get(created.id)
    assert job == created, "who creates it needs not read it"
    assert (job.id, job.kind, job.status, job.parameters) == (job_id, JobKind.SEARCH, JobStatus.QUEUED, {"k": 5})
    assert (job.attempts, job.callback_url, job.deliveries) == (0, CALLBACK, [])
    assert before <= job.created_at <= datetime.now(UTC)
    assert [job.started_at, job.finished_at, job.progress, job.result, job.error] == [None] * 5
    assert redis_client.get(job_key(job_id, "image")) == b"\x00photo\xff"
    assert create(jobs) != create(jobs)


def test_a_started_job_is_running_and_counts_its_tries(jobs: Jobs) -> None:
    job_id = create(jobs)
    first = jobs.start(job_id)
    assert first is not None
    assert first.record == jobs.get(job_id)
    assert (first.record.status, first.record.attempts) == (JobStatus.RUNNING, 1)
    second = jobs.start(job_id)
    assert second is not None
    assert (second.record.attempts, second.record.started_at) == (2, first.record.started_at)
    third = jobs.start(job_id, counts_as_attempt=False)
    assert third is not None
    assert third.record.attempts == 2


def test_a_started_job_comes_with_its_photo_until_it_has_ended(jobs: Jobs, redis_client: Redis) -> None:
    photo = bytes(range(256)) * 1000
    job_id = jobs.create(JobKind.SEARCH, {"k": 5}, image=photo).id
    for _ in range(2):
        started = jobs.start(job_id)
        assert started is not None
        assert started.image == photo
    jobs.succeed(job_id, RESULT)
    assert jobs.start(job_id) is None
    assert redis_client.get(job_key(job_id, "image")) is None
    without = jobs.start(create(jobs))
    assert without is not None
    assert without.image is None


def test_a_job_ends_with_a_result_an_error_or_because_nobody_wants_it(jobs: Jobs) -> None:
    succeeded, failed, cancelled = create(jobs), create(jobs), create(jobs)
    for job_id in (succeeded, failed):
        jobs.start(job_id)
    assert jobs.succeed(succeeded, RESULT)
    assert jobs.fail(failed, ERROR)
    assert jobs.cancel(cancelled).status is JobStatus.CANCELLED
    assert jobs.get(succeeded).result == RESULT
    assert jobs.get(failed).error == ERROR.to_wire()
    assert jobs.get(failed).result is jobs.get(succeeded).error is jobs.get(cancelled).result is None
    for job_id, status in ((succeeded, "succeeded"), (failed, "failed"), (cancelled, "cancelled")):
        wire = jobs.get(job_id).to_wire()
        assert (wire["status"], wire["links"]["self"]) == (status, f"/v1/jobs/{job_id}")
        assert wire["finished_at"] is not None
    assert jobs.get(failed).to_wire()["error"]["missing_bytes"] == 5


@pytest.mark.parametrize("first", [0, 1, 2], ids=["succeeded", "failed", "cancelled"])
def test_a_final_status_never_changes(jobs: Jobs, redis_client: Redis, first: int) -> None:
    job_id = create(jobs, callback_url=CALLBACK)
    jobs.start(job_id)
    jobs.set_progress(job_id, Progress(done=1, failed=0, total=2))
    assert end_attempts(jobs, job_id)[first]()
    before: JobRecord = jobs.get(job_id)
    for again in end_attempts(jobs, job_id):
        again()
    assert jobs.start(job_id) is None
    jobs.set_progress(job_id, Progress(done=2, failed=0, total=2))
    jobs.renew(job_id, seconds=-1)
    assert jobs.get(job_id) == before
    assert jobs.overdue() == []
    assert redis_client.hvals(COUNTS_KEY) == [b"1"]
    assert ended(redis_client) == [job_id]


def test_of_many_that_end_a_job_at_once_exactly_one_does(jobs: Jobs, redis_client: Redis) -> None:
    for _ in range(25):
        job_id = create(jobs)
        ends = end_attempts(jobs, job_id)
        actions = [*ends, *ends[:2], partial(jobs.start, job_id)]
        together = Barrier(len(actions))

        def act(action: Callable[[], object], together: Barrier = together) -> object:
            together.wait(timeout=20)
            return action()

        with ThreadPoolExecutor(len(actions)) as pool:
            outcomes = list(pool.map(act, actions))
        job = jobs.get(job_id)
        assert outcomes.count(True) == 1
        final = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.SUCCEEDED, JobStatus.FAILED)
        assert job.status is final[outcomes.index(True)]
        assert (job.result is not None) == (job.status is JobStatus.SUCCEEDED)
        assert (job.error is not None) == (job.status is JobStatus.FAILED)
        assert ended(redis_client).count(job_id) == 1
        assert jobs.start(job_id) is None
    assert sum(map(int, redis_client.hvals(COUNTS_KEY))) == 25


def test_cancelling_twice_is_fine_and_a_finished_job_stays_finished(jobs: Jobs) -> None:
    job_id, done = create(jobs), create(jobs)
    assert not jobs.is_cancelled(job_id)
    jobs.cancel(job_id)
    assert jobs.is_cancelled(job_id)
    assert jobs.cancel(job_id).status is JobStatus.CANCELLED
    jobs.succeed(done, RESULT)
    with pytest.raises(JobAlreadyFinished, match="succeeded"):
        jobs.cancel(done)


def test_an_unknown_job_is_not_a_waiting_one(jobs: Jobs, redis_client: Redis) -> None:
    for ask in (jobs.get, jobs.cancel):
        with pytest.raises(JobNotFound):
            ask("nobody")
    assert jobs.start("nobody") is None
    assert redis_client.get(job_key("nobody", "image")) is None
    assert jobs.is_cancelled("nobody")
    assert not jobs.succeed("nobody", RESULT)
    jobs.set_progress("nobody", Progress(done=1, failed=0))
    jobs.renew("nobody")
    assert redis_client.dbsize() == 0, "nothing of it comes to be"


def test_a_job_its_photo_and_its_message_are_written_in_one_transaction(
    jobs: Jobs, redis_client: Redis, settings: Settings
) -> None:
    job_id = new_job_id()
    with create_celery(settings, "test") as app:
        message = TaskMessages(app).of("search", job_id)
    seen: list[str] = []
    with redis_client.monitor() as monitor:
        jobs.create(JobKind.SEARCH, {"k": 5}, job_id=job_id, image=b"photo", message=message)
        while "EXEC" not in seen:
            seen.append(next(monitor.listen())["command"].partition(" ")[0])
    assert seen[seen.index("MULTI") :] == ["MULTI", "HSET", "EXPIRE", "SET", "ZADD", "LPUSH", "EXEC"]
    assert jobs.get(job_id).status is JobStatus.QUEUED
    assert redis_client.lrange(queue_key(SEARCH), 0, -1) == [message.text.encode()]


def test_an_answer_that_was_known_makes_a_job_that_has_ended(jobs: Jobs, redis_client: Redis) -> None:
    job = jobs.create_succeeded(JobKind.SEARCH, {"k": 5}, b'{"hits":[]}', callback_url=CALLBACK)
    assert jobs.get(job.id) == job
    assert (job.status, job.result, job.attempts) == (JobStatus.SUCCEEDED, {"hits": []}, 0)
    assert job.started_at is None
    assert job.finished_at == job.created_at
    assert jobs.start(job.id) is None
    with pytest.raises(JobAlreadyFinished):
        jobs.cancel(job.id)
    assert jobs.active() == []
    assert redis_client.hgetall(COUNTS_KEY) == {b"search:succeeded:result_cache": b"1"}
    assert redis_client.zrange(CALLBACKS_DUE_KEY, 0, -1) == [job.id.encode()]
    jobs.create_succeeded(JobKind.SEARCH, {"k": 5}, b'{"hits":[]}')
    assert redis_client.zcard(CALLBACKS_DUE_KEY) == 1


def test_what_a_worker_learnt_is_kept_with_the_end_of_its_job_even_if_nobody_wants_that(
    jobs: Jobs, redis_client: Redis
) -> None:
    wanted, cancelled = create(jobs), create(jobs)
    jobs.cancel(cancelled)
    for number, job_id in enumerate((wanted, cancelled)):
        entries = [CacheEntry(f"a{number}", b"\x00\xff", 100), CacheEntry(f"b{number}", b"", 200)]
        assert jobs.succeed(job_id, b'{"hits":[]}', entries) is (job_id is wanted)
        assert [redis_client.get(entry.key) for entry in entries] == [b"\x00\xff", b""]
        assert [redis_client.ttl(entry.key) for entry in entries] == [100, 200]
    assert jobs.get(wanted).result == {"hits": []}
    assert jobs.get(cancelled).result is None


def test_the_stream_of_ended_jobs_does_not_grow_for_good(jobs: Jobs, redis_client: Redis) -> None:
    with redis_client.pipeline(transaction=False) as pipe:
        for number in range(2 * FINISHED_KEPT):
            pipe.xadd(FINISHED_KEY, {"id": str(number)})
        pipe.execute()
    job_id = create(jobs)
    jobs.succeed(job_id, RESULT)
    assert FINISHED_KEPT <= redis_client.xlen(FINISHED_KEY) < FINISHED_KEPT * 1.1
    assert ended(redis_client)[-1] == job_id


def test_several_jobs_are_read_at_once_and_those_that_are_gone_left_out(jobs: Jobs) -> None:
    one, other = create(jobs), create(jobs, callback_url=CALLBACK)
    assert jobs.get_many([]) == []
    assert jobs.get_many([other, "gone", one]) == [jobs.get(other), jobs.get(one)]


def test_scripts_that_a_restarted_server_has_forgotten_are_sent_again(jobs: Jobs, redis_client: Redis) -> None:
    job_id = create(jobs)
    for step in (lambda: jobs.start(job_id), lambda: jobs.succeed(job_id, RESULT)):
        redis_client.script_flush()
        assert step()
    assert jobs.get(job_id).status is JobStatus.SUCCEEDED


def test_progress_is_shown_while_the_job_runs(jobs: Jobs) -> None:
    job_id = create(jobs)
    progress = Progress(done=3, failed=1, total=10, rate_per_second=1.5, eta_seconds=4.7)
    jobs.set_progress(job_id, progress)
    assert jobs.get(job_id).progress == progress.model_dump()
