"""Endpoints that keep failing, secrets of API keys, and clocks that jump; a real Redis and a real receiver."""

import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pytest
from pydantic import SecretStr
from redis import Redis
from standardwebhooks import Webhook, WebhookVerificationError

from shared.database import connect_database
from shared.errors import BrokenImage
from shared.jobs import CALLBACKS_DUE_KEY, PAUSED_ENDPOINTS_KEY, Jobs
from shared.queues import CALLBACKS, TaskSender, create_celery, queue_key
from shared.schemas import JobKind
from shared.settings import Settings
from shared.webhook_secrets import signing_secrets
from tests.conftest import make_settings
from tests.receiver import Receiver
from tests.servers import RedisProcess
from tests.stack import WEBHOOK_SECRET
from web.readiness import ReadinessCheck
from web.system_metrics import SystemCollector
from worker.callback_endpoints import LONGEST_PAUSE_SECONDS, CallbackEndpoints
from worker.callbacks import AFTER_PAUSE_SECONDS, deliver_callback, dispatch_callbacks
from worker.fetcher import GuardedFetcher
from worker.webhooks import sign

FAILURES, PAUSE_SECONDS = 3, 100.0
HOUR = 3600


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver(usual_status=500)
    yield receiver
    receiver.close()


@pytest.fixture
def settings(redis_server: RedisProcess, tmp_path: Path) -> Settings:
    return make_settings(redis_server, tmp_path, webhook_secret=WEBHOOK_SECRET, webhook_backoff_seconds=1)


@pytest.fixture
def jobs(redis_client: Redis, settings: Settings) -> Jobs:
    return Jobs(redis_client, settings)


@pytest.fixture
def endpoints(redis_client: Redis) -> CallbackEndpoints:
    return CallbackEndpoints(redis_client, FAILURES, PAUSE_SECONDS)


@pytest.fixture
def ended(jobs: Jobs, receiver: Receiver) -> Callable[..., str]:
    """Makes jobs that have ended, and whose callback is due."""

    def create(path: str = "", owner: str | None = None, origin: dict[str, str] | None = None) -> str:
        url = receiver.url + path
        job_id = jobs.create(JobKind.SEARCH, {}, callback_url=url, owner=owner, origin=origin).id
        jobs.fail(job_id, BrokenImage("Truncated."))
        return job_id

    return create


Deliver = Callable[[str], dict[str, object]]


@pytest.fixture
def deliver(jobs: Jobs, endpoints: CallbackEndpoints, settings: Settings) -> Deliver:
    """Does what a worker does with a message; returns what was logged last."""
    fetcher = GuardedFetcher(allow_private=True, timeout_seconds=5)

    def deliver_(job_id: str) -> dict[str, object]:
        deliver_callback(job_id, jobs, fetcher, endpoints, settings)
        return jobs.get(job_id).deliveries[-1]

    return deliver_


def paused(redis: Redis) -> list[bytes]:
    return cast("list[bytes]", redis.zrange(PAUSED_ENDPOINTS_KEY, 0, -1))


def end_pause(redis: Redis) -> None:
    """Let all pauses be over, as time would."""
    for endpoint in paused(redis):
        redis.zadd(PAUSED_ENDPOINTS_KEY, {endpoint: time.time() - 1})


def seconds_until(moment: object) -> float:
    return (datetime.fromisoformat(str(moment)) - datetime.now(UTC)).total_seconds()


def paused_metric(redis: Redis) -> float:
    with TemporaryDirectory() as folder:
        readiness = ReadinessCheck(redis, connect_database(f"sqlite:///{folder}/lookalike.sqlite3"))
        found = list(SystemCollector(redis, readiness).collect())
    (metric,) = (m for m in found if m.name == "lookalike_callback_endpoints_paused")
    return metric.samples[0].value


def test_an_endpoint_that_keeps_failing_is_paused_and_that_is_said(
    ended: Callable[..., str],
    deliver: Deliver,
    receiver: Receiver,
    redis_client: Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    tried = [deliver(ended(f"?job={number}")) for number in range(FAILURES)]
    assert [entry["paused"] for entry in tried] == [False] * FAILURES
    assert len(receiver.requests) == FAILURES
    assert "are paused for 100 s: 3 tries in a row failed" in caplog.text
    assert "/hook" not in "".join(record.getMessage() for record in caplog.records), "a URL may be secret"
    assert paused_metric(redis_client) == 1

    waits = deliver(ended())
    assert len(receiver.requests) == FAILURES, "nothing is sent to it"
    assert (waits["attempt"], waits["status"], waits["paused"]) == (1, None, True)
    assert "paused" in str(waits["error"])
    for entry in (tried[-1], waits):
        assert PAUSE_SECONDS - 5 < seconds_until(entry["next_attempt_at"]) < PAUSE_SECONDS + AFTER_PAUSE_SECONDS


def test_a_pause_takes_no_try_from_a_callback(
    ended: Callable[..., str], deliver: Deliver, jobs: Jobs, endpoints: CallbackEndpoints, receiver: Receiver
) -> None:
    for _ in range(FAILURES):
        deliver(ended())
    job = jobs.get(ended())
    for _ in range(20):  # more than a callback has tries
        assert endpoints.begin(job, 1).paused_until is not None
    assert deliver(job.id)["attempt"] == 1
    endpoints.succeeded(job)
    receiver.statuses = [204]
    other = deliver(ended())
    assert (other["attempt"], other["status"], other["next_attempt_at"]) == (1, 204, None)


def test_after_a_pause_one_probes_and_the_others_wait_for_what_it_finds(
    ended: Callable[..., str], deliver: Deliver, receiver: Receiver, redis_client: Redis, jobs: Jobs
) -> None:
    for _ in range(FAILURES):
        deliver(ended())
    for probe in range(1, 8):
        end_pause(redis_client)
        receiver.may_answer.set()
        failed = deliver(ended())
        assert (failed["status"], len(receiver.requests)) == (500, FAILURES + probe)
        assert deliver(ended())["paused"] is True
        pause = seconds_until(failed["next_attempt_at"])
        expected = min(PAUSE_SECONDS * 2**probe, LONGEST_PAUSE_SECONDS)
        assert expected - 5 < pause < expected + AFTER_PAUSE_SECONDS, "each pause is twice as long as the last"
    end_pause(redis_client)
    receiver.statuses = [204]
    assert deliver(ended())["status"] == 204
    assert paused_metric(redis_client) == 0
    receiver.statuses = [500, 500, 204]
    assert [deliver(ended())["status"] for _ in range(3)] == [500, 500, 204], "its failures are forgotten"


def test_while_one_probes_nobody_else_does_and_a_probe_whose_worker_died_counts_as_ended(
    ended: Callable[..., str], deliver: Deliver, endpoints: CallbackEndpoints, jobs: Jobs, redis_client: Redis
) -> None:
    for _ in range(FAILURES):
        deliver(ended())
    end_pause(redis_client)
    job = jobs.get(ended())
    assert endpoints.begin(job, 50).is_probe
    until = endpoints.begin(job, 50).paused_until
    assert until is not None
    assert 45 < until - time.time() <= 50
    end_pause(redis_client)
    assert endpoints.begin(job, 50).is_probe


def test_tries_that_were_under_way_when_a_pause_began_do_not_make_it_longer(
    ended: Callable[..., str], endpoints: CallbackEndpoints, jobs: Jobs
) -> None:
    job = jobs.get(ended())
    begun = [endpoints.begin(job, 50) for _ in range(FAILURES + 4)]
    ends = [endpoints.failed(job, may_try.is_probe, "shop.example") for may_try in begun]
    assert ends[: FAILURES - 1] == [None] * (FAILURES - 1)
    assert len(set(ends[FAILURES - 1 :])) == 1


def test_an_endpoint_is_a_url_without_its_query_of_one_api_keys_jobs(
    ended: Callable[..., str], deliver: Deliver, receiver: Receiver
) -> None:
    for _ in range(FAILURES):
        deliver(ended(owner="key-1"))
    assert deliver(ended("?token=2", owner="key-1"))["paused"] is True
    assert deliver(ended("/other", owner="key-1"))["paused"] is False
    assert deliver(ended(owner="key-2"))["paused"] is False
    assert deliver(ended())["paused"] is False


def test_an_endpoint_that_is_gone_or_refused_is_not_one_that_fails(
    ended: Callable[..., str], deliver: Deliver, receiver: Receiver, redis_client: Redis
) -> None:
    receiver.statuses = [410] * (FAILURES + 1)
    assert [deliver(ended())["status"] for _ in range(FAILURES + 1)] == [410] * (FAILURES + 1)
    assert paused_metric(redis_client) == 0


def test_a_jobs_callback_is_signed_with_the_secrets_of_the_api_key_that_made_it(
    ended: Callable[..., str],
    jobs: Jobs,
    endpoints: CallbackEndpoints,
    settings: Settings,
    receiver: Receiver,
) -> None:
    previous = "whsec_b3RoZXIgc2VjcmV0IG9mIGVub3VnaCBieXRlcw=="
    rotated = settings.model_copy(update={"webhook_secret_previous": SecretStr(previous)})
    fetcher = GuardedFetcher(allow_private=True, timeout_seconds=5)
    secrets = {owner: signing_secrets(rotated, owner) for owner in (None, "key-1", "key-2")}
    assert secrets[None] == (WEBHOOK_SECRET, previous)
    assert len({secret for two in secrets.values() for secret in two}) == 6, "each is another one"
    for owner, own in secrets.items():
        deliver_callback(ended(owner=owner), jobs, fetcher, endpoints, rotated)
        headers, body = receiver.requests[-1]
        for secret in own:
            assert Webhook(secret).verify(body, headers)["type"] == "job.finished"
        for secret in {secret for two in secrets.values() for secret in two} - set(own):
            with pytest.raises(WebhookVerificationError):
                Webhook(secret).verify(body, headers)


def test_a_key_that_replaces_another_one_signs_with_the_secrets_of_both(
    ended: Callable[..., str],
    jobs: Jobs,
    endpoints: CallbackEndpoints,
    settings: Settings,
    receiver: Receiver,
) -> None:
    fetcher = GuardedFetcher(allow_private=True, timeout_seconds=5)
    job_id = ended(owner="key-2", origin={"predecessor": "key-1"})
    deliver_callback(job_id, jobs, fetcher, endpoints, settings)
    headers, body = receiver.requests[-1]
    for owner in ("key-1", "key-2"):
        (secret,) = signing_secrets(settings, owner)
        assert Webhook(secret).verify(body, headers)["type"] == "job.finished"
    (stranger,) = signing_secrets(settings, "key-3")
    with pytest.raises(WebhookVerificationError):
        Webhook(stranger).verify(body, headers)


def test_the_secret_of_a_key_stays_the_same_for_its_receivers() -> None:
    settings = Settings(_env_file=None, webhook_secret=SecretStr(WEBHOOK_SECRET))
    assert signing_secrets(settings, "0123456789ab") == ("whsec_Hqg1Wk5c3YWtFcAZIzmPC/I1eqziGIXf0TdhKrNO97g=",)


@pytest.fixture
def tasks(settings: Settings) -> Iterator[TaskSender]:
    with create_celery(settings, "test") as app:
        yield TaskSender(app)


def test_a_clock_that_jumps_an_hour_ahead_fires_no_storm_and_loses_no_callback(
    ended: Callable[..., str],
    deliver: Deliver,
    jobs: Jobs,
    tasks: TaskSender,
    settings: Settings,
    receiver: Receiver,
    redis_client: Redis,
) -> None:
    job_ids = [ended(f"/{number}") for number in range(250)]
    for job_id in job_ids[:20]:
        deliver(job_id)
    assert len(receiver.requests) == 20
    for job_id in job_ids:  # all were to be tried within the hour, and the clock says that it is over
        redis_client.zadd(CALLBACKS_DUE_KEY, {job_id: time.time() - HOUR + 60})

    sent = [dispatch_callbacks(jobs, tasks, settings) for _ in range(4)]

    assert sent == [100, 100, 50, 0], "so many messages a second at most, each once"
    assert redis_client.llen(queue_key(CALLBACKS)) == 250
    assert redis_client.zcard(CALLBACKS_DUE_KEY) == 250, "each is due again, should its message be lost"


def test_a_clock_that_jumps_an_hour_back_loses_no_callback(
    ended: Callable[..., str], jobs: Jobs, tasks: TaskSender, settings: Settings, redis_client: Redis
) -> None:
    before = ended()
    redis_client.zadd(CALLBACKS_DUE_KEY, {before: time.time() + HOUR})  # what was due now, by the new clock
    after = ended()
    assert dispatch_callbacks(jobs, tasks, settings) == 1
    assert redis_client.zscore(CALLBACKS_DUE_KEY, before) is not None
    redis_client.zadd(CALLBACKS_DUE_KEY, {before: time.time() - 1})  # an hour later
    assert dispatch_callbacks(jobs, tasks, settings) == 1
    assert redis_client.zcard(CALLBACKS_DUE_KEY) == 2
    assert jobs.get(after).status == "failed"


def test_a_pause_that_a_wrong_clock_wrote_is_not_believed(
    ended: Callable[..., str], deliver: Deliver, endpoints: CallbackEndpoints, jobs: Jobs, redis_client: Redis
) -> None:
    for _ in range(FAILURES):
        deliver(ended())
    (endpoint,) = paused(redis_client)
    redis_client.zadd(PAUSED_ENDPOINTS_KEY, {endpoint: time.time() + 2 * HOUR})
    assert endpoints.begin(jobs.get(ended()), 40).is_probe


def test_receivers_refuse_what_was_signed_by_a_clock_that_is_an_hour_off() -> None:
    for hours in (-1, 1):
        headers = sign([WEBHOOK_SECRET], "msg_j1", datetime.now(UTC) + timedelta(hours=hours), b"{}")
        with pytest.raises(WebhookVerificationError, match=r"too (old|new)"):
            Webhook(WEBHOOK_SECRET).verify(b"{}", headers)
