"""Batch searches on a real store, a real Redis server and a real engine: parts, turns, and what a crash leaves."""

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import redis

import worker.batches.run
from shared.batch_files import (
    alone_key,
    batch_folder,
    clear_ended_batch,
    part_key,
    read_answered,
    read_state,
    write_state,
)
from shared.errors import BatchUnreadable, WorkerLost
from shared.job_record import JobRecord
from shared.jobs import Jobs
from shared.queues import TaskSender, create_celery, queue_key
from shared.result_cache import asked_of
from shared.schemas import BatchAnswer, BatchRequest, Job, JobKind, JobStatus, SearchParameters
from shared.settings import Settings
from tests.vector_shop import VectorShop, random_vectors
from worker.batches.plan import PART_QUERIES, plan_batch, read_part
from worker.batches.run import BatchRunner
from worker.engine import Engine

ITEMS = 450  # three parts
TERMS = BatchRequest(all_items=True, k=3).model_dump(mode="json", exclude={"item_ids", "all_items", "callback_url"})


class Stopped(Exception):
    """The worker dies here."""


@pytest.fixture
def shop(settings: Settings, redis_client: redis.Redis) -> VectorShop:
    shop = VectorShop(settings, redis_client)
    vectors = random_vectors(ITEMS)
    items = {f"i{number:03d}": [vector] for number, vector in enumerate(vectors)}
    shop.put(items, side={item_id: "left" if number % 2 else "right" for number, item_id in enumerate(items)})
    return shop


class Bulk:
    """A bulk worker's part in batch searches; its engine may be another one each time."""

    def __init__(self, shop: VectorShop, tasks: TaskSender) -> None:
        self.shop = shop
        self.engine = shop.engine()
        self.opened = 0
        self.dies_at = 1000
        self.gone_on: list[str] = []
        parts = (shop.jobs, shop.catalogue, shop.store, self._open, tasks)
        self.runner = BatchRunner(*parts, shop.settings.job_max_attempts, self.gone_on.append)

    def _open(self) -> Engine:
        self.opened += 1
        if self.opened == self.dies_at:
            raise Stopped
        return self.engine

    def job(self, lines: bytes | None = None, **parameters: Any) -> str:
        if lines is None:
            given: dict[str, Any] = {"all_items": True, "terms": TERMS}
        else:
            key = f"{self.shop.store.new_upload_folder()}/queries.ndjson"
            with self.shop.store.writing(key) as file:
                file.write(lines)
            given = {"upload": key, "terms": {}}
        return self.shop.jobs.create(JobKind.BATCH_SEARCH, {**given, **parameters}).id

    def turn(self, job_id: str, still_wanted: Callable[[], None] = lambda: None) -> JobRecord:
        started = self.shop.jobs.start(job_id)
        assert started is not None
        self.runner.run(started.record, still_wanted)
        return self.shop.jobs.get(job_id)

    def answers(self, job_id: str) -> list[dict[str, Any]]:
        state = read_answered(self.shop.store, job_id)
        assert state is not None
        lines: list[bytes] = []
        for number in range(state.parts):
            with self.shop.store.open(part_key(job_id, number)) as file:
                lines += file.read().splitlines()
        answers = [json.loads(line) for line in lines]
        for answer in answers:
            BatchAnswer.model_validate(answer)
        return answers


@pytest.fixture
def bulk(shop: VectorShop, settings: Settings) -> Iterator[Bulk]:
    with create_celery(settings, "test") as app:
        yield Bulk(shop, TaskSender(app))


def single(engine: Engine, item_id: str, **terms: Any) -> list[dict[str, Any]]:
    asked = asked_of(SearchParameters(**terms).model_dump(mode="json"))
    engine.live_index.refresh()
    return engine.find(engine.query({"item_id": item_id}, None, lambda: None), asked)[0]


def test_every_item_is_answered_in_order_as_a_search_of_its_own_would_be(bulk: Bulk) -> None:
    job = bulk.turn(bulk.job())
    assert Job.model_validate(job.to_wire()).status is JobStatus.SUCCEEDED
    result = job.result
    assert result is not None
    assert (result["queries"], result["failed"], result["releases"]) == (ITEMS, 0, ["chosen.flat"])
    assert result["results"] == job.links["results"] == f"/v1/jobs/{job.id}/results"
    assert job.progress is not None
    assert (job.progress["done"], job.progress["total"], job.progress["eta_seconds"]) == (ITEMS, ITEMS, 0)
    answers = bulk.answers(job.id)
    assert [(answer["line"], answer["item_id"]) for answer in answers] == [
        (number + 1, f"i{number:03d}") for number in range(ITEMS)
    ]
    for answer in answers[::50]:
        assert answer["hits"] == single(bulk.engine, answer["item_id"], k=3)
    kept = sorted(bulk.shop.store.names(batch_folder(job.id)))
    assert kept == ["000000.ndjson", "000001.ndjson", "000002.ndjson", "answered.json", "state.json"]
    assert not bulk.shop.redis.keys("lookalike:result:*") + bulk.shop.redis.keys("lookalike:embedding:*")


def test_each_line_has_terms_of_its_own_and_a_bad_one_stops_no_other(bulk: Bulk) -> None:
    lines = [
        {"item_id": "i000", "k": 2, "id": "first"},
        {"item_id": "nobody", "id": "second"},
        {"item_id": "i001", "filter": {"side": "left"}, "k": 4},
        {"item_id": "i001", "filter": {"colour": "red"}},
        {"item_id": "i002", "group_by": "side"},
        {"item_id": "i002", "group_by": "colour"},
        {"item_id": "i003", "min_score": 1},
        {"item_id": "i003", "kk": 1, "id": "typing error"},
        {"id": "names nothing"},
    ]
    text = b"\xef\xbb\xbf" + b"\n".join(json.dumps(line).encode() for line in lines[:3])
    text += b"\r\n\n \nnot json\n[1]\n" + b"\n".join(json.dumps(line).encode() for line in lines[3:])
    job = bulk.turn(bulk.job(text + b'\n{"item_id": "i004", "k": NaN}\n{"item_id": "\xff"}'))
    answers = {answer["line"]: answer for answer in bulk.answers(job.id)}
    assert list(answers) == [1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    hits = {line: [hit["item_id"] for hit in answer["hits"]] for line, answer in answers.items() if "hits" in answer}
    codes = {line: answer["error"]["code"] for line, answer in answers.items() if "error" in answer}
    assert (answers[1]["id"], len(hits[1])) == ("first", 2)
    assert hits[3] == [hit["item_id"] for hit in single(bulk.engine, "i001", filter={"side": "left"}, k=4)]
    assert len(hits[9]) == 2
    assert (hits[11], answers[11]["reason"]) == ([], "all_below_min_score")
    assert codes == {
        2: "item_not_found",
        6: "invalid_parameter",
        7: "invalid_parameter",
        8: "filter_field_unknown",
        10: "filter_field_unknown",
        12: "invalid_parameter",
        13: "invalid_parameter",
        14: "invalid_parameter",
        15: "invalid_parameter",
    }
    assert "kk" in answers[12]["error"]["detail"]
    assert (answers[12]["id"], answers[13]["id"]) == ("typing error", "names nothing")
    assert job.result is not None
    assert (job.result["queries"], job.result["failed"]) == (13, 9)


def test_a_line_that_is_far_too_long_is_bad_and_the_next_ones_are_read(bulk: Bulk) -> None:
    text = b'{"item_id": "i000"}\n{"item_id": "' + b"x" * 3_000_000 + b'"}\n{"item_id": "i001"}\n'
    job = bulk.turn(bulk.job(text))
    assert ["error" in answer for answer in bulk.answers(job.id)] == [False, True, False]


def test_parts_are_read_where_the_plan_says_so(bulk: Bulk) -> None:
    lines = [b'{"item_id": "i%03d"}' % (number % ITEMS) for number in range(2 * PART_QUERIES + 1)]
    job = bulk.shop.jobs.get(bulk.job(b"\n\n".join(lines)))
    plan = plan_batch(job, bulk.shop.catalogue, bulk.shop.store)
    assert plan_batch(job, bulk.shop.catalogue, bulk.shop.store) == plan
    assert (plan.queries, len(plan.parts)) == (len(lines), 3)
    parts = [read_part(job, plan, number, bulk.shop.store) for number in range(3)]
    assert [query.text for part in parts for query in part] == lines
    assert [query.line for part in parts for query in part] == [2 * number + 1 for number in range(len(lines))]


def test_a_batch_whose_worker_died_goes_on_behind_the_parts_that_are_there(bulk: Bulk) -> None:
    job_id = bulk.job()
    bulk.dies_at = 2
    with pytest.raises(Stopped):
        bulk.turn(job_id)
    assert read_answered(bulk.shop.store, job_id) is None
    with bulk.shop.store.writing(part_key(job_id, 0)) as file:
        file.write(b'{"line": 1, "item_id": "not written again", "hits": []}\n')

    job = bulk.turn(job_id)

    assert (job.status, job.attempts) == (JobStatus.SUCCEEDED, 1), "it went on, so the crash does not count"
    answers = bulk.answers(job_id)
    assert answers[0]["item_id"] == "not written again"
    assert [answer["line"] for answer in answers[1:]] == list(range(PART_QUERIES + 1, ITEMS + 1))
    assert bulk.opened == 4


def test_a_query_over_which_the_worker_died_is_refused_and_the_others_are_answered(
    bulk: Bulk, settings: Settings
) -> None:
    job_id, store, tries = bulk.job(), bulk.shop.store, settings.job_max_attempts

    def note() -> dict[str, Any]:
        with store.open(alone_key(job_id, 0)) as file:
            note: dict[str, Any] = json.load(file)
        return note

    def die(in_hand: str) -> None:
        """Leave what a worker leaves that dies over a query; it runs no line of ours any more."""
        bulk.shop.jobs.start(job_id)
        with store.writing(alone_key(job_id, 0)) as file:
            file.write(json.dumps({"deaths": {"7": tries - 1, "9": tries - 2}, "in_hand": in_hand}).encode())

    bulk.shop.jobs.start(job_id)  # dies over all of them
    die("9")
    job = bulk.turn(job_id)

    assert (job.status, job.attempts) == (JobStatus.SUCCEEDED, 1)
    assert job.result is not None
    assert (job.result["queries"], job.result["failed"]) == (ITEMS, 2)
    answers = bulk.answers(job_id)
    assert [answer["line"] for answer in answers] == list(range(1, ITEMS + 1))
    refused = {answer["line"]: answer["error"] for answer in answers if "error" in answer}
    assert refused.keys() == {7, 9}
    assert answers[6]["item_id"] == "i006"
    assert refused[7]["code"] == "worker_lost"
    assert f"{tries} times in all" in refused[7]["detail"]
    assert note()["in_hand"] is None
    assert bulk.gone_on == [job_id] * PART_QUERIES, "each query alone may take as long as a job may be silent"
    assert answers[7]["hits"] == single(bulk.engine, "i007", **TERMS)


def test_a_failure_of_the_database_does_not_have_a_part_that_kills_answered_together_again(bulk: Bulk) -> None:
    job_id = bulk.job()
    with bulk.shop.store.writing(alone_key(job_id, 0)) as file:
        file.write(b'{"deaths": {"7": 2}, "in_hand": null}')
    job = bulk.turn(job_id)
    assert (job.status, job.attempts) == (JobStatus.SUCCEEDED, 1)
    assert [answer["line"] for answer in bulk.answers(job_id) if "error" in answer] == [7]


def test_deaths_over_queries_are_not_held_against_the_job_and_others_are(bulk: Bulk, settings: Settings) -> None:
    job_id, store = bulk.job(), bulk.shop.store
    assert settings.job_max_attempts == 3
    bulk.shop.jobs.start(job_id)
    with store.writing(alone_key(job_id, 0)) as file:
        file.write(b'{"deaths": {}, "in_hand": "7"}')

    class Killed(BaseException):
        """Stands for the end of the process, but for what it leaves of the note."""

    def dies() -> None:
        raise Killed

    seen = []
    for _ in range(3):
        with pytest.raises(Killed):
            bulk.turn(job_id, dies)
        seen.append(bulk.shop.jobs.get(job_id).attempts)
    assert seen == [1, 2, 3], "the first death has a query to blame, the next ones have none"


def test_a_batch_that_kills_its_worker_at_the_same_part_is_tried_a_few_times_only(
    bulk: Bulk, settings: Settings
) -> None:
    job_id = bulk.job()
    for attempt in range(1, settings.job_max_attempts + 1):
        bulk.dies_at = bulk.opened + 1
        with pytest.raises(Stopped):
            bulk.turn(job_id)
        assert bulk.shop.jobs.get(job_id).attempts == attempt


def test_after_its_turn_a_batch_goes_behind_what_waits(
    bulk: Bulk, monkeypatch: pytest.MonkeyPatch, redis_client: redis.Redis
) -> None:
    monkeypatch.setattr(worker.batches.run, "TURN_SECONDS", -1)
    job_id = bulk.job()
    for turn in range(3):
        assert redis_client.llen(queue_key("bulk")) == turn
        job = bulk.turn(job_id)
    assert (job.status, job.attempts) == (JobStatus.SUCCEEDED, 1)
    assert redis_client.llen(queue_key("bulk")) == 2
    assert len(bulk.answers(job_id)) == ITEMS


@pytest.mark.parametrize("is_uploaded", [True, False])
def test_two_workers_with_the_same_batch_give_one_result(bulk: Bulk, shop: VectorShop, is_uploaded: bool) -> None:
    lines = b"".join(b'{"item_id": "i%03d"}\n' % number for number in range(ITEMS))
    job_id = bulk.job(lines if is_uploaded else None)
    bulk.dies_at = 2
    with pytest.raises(Stopped):
        bulk.turn(job_id)
    slow = shop.jobs.start(job_id)
    slow_state = read_state(shop.store, job_id)
    assert slow is not None
    assert slow_state is not None
    done = bulk.turn(job_id)
    first = bulk.answers(job_id)

    write_state(shop.store, job_id, slow_state)  # the other one wrote this before it was cut off
    with pytest.raises(BatchUnreadable, match="not in the store") if is_uploaded else nullcontext():
        bulk.runner.run(slow.record, lambda: None)
    assert shop.jobs.fail(job_id, WorkerLost("late")) is False
    assert shop.jobs.get(job_id).result == done.result
    assert bulk.answers(job_id) == first


def test_a_release_that_takes_over_in_the_middle_is_named(bulk: Bulk, shop: VectorShop) -> None:
    first, second = bulk.engine, shop.engine(name="other")

    def take_over() -> Engine:
        bulk.opened += 1
        return first if bulk.opened == 1 else second

    runner = BatchRunner(shop.jobs, shop.catalogue, shop.store, take_over, bulk.runner.tasks, 3, bulk.gone_on.append)
    job_id = bulk.job()
    started = shop.jobs.start(job_id)
    assert started is not None
    runner.run(started.record, lambda: None)
    result = shop.jobs.get(job_id).result
    assert result is not None
    assert result["releases"] == ["chosen.flat", "chosen.other"]


def test_all_items_are_those_of_the_beginning(bulk: Bulk, shop: VectorShop) -> None:
    job_id = bulk.job()
    bulk.dies_at = 2
    with pytest.raises(Stopped):
        bulk.turn(job_id)
    shop.put({"a new one": [random_vectors(1, seed=9)[0]]})
    with shop.catalogue.change() as change:
        change.delete(["i440"])
    job = bulk.turn(job_id)
    assert job.result is not None
    assert (job.result["queries"], job.result["failed"]) == (ITEMS, 1)
    assert bulk.answers(job_id)[440]["error"]["code"] == "item_not_found"


def test_all_items_of_an_empty_catalogue_are_none(settings: Settings, redis_client: redis.Redis) -> None:
    with create_celery(settings, "test") as app:
        bulk = Bulk(VectorShop(settings, redis_client), TaskSender(app))
        job = bulk.turn(bulk.job())
        assert job.result is not None
        assert (job.result["queries"], bulk.answers(job.id)) == (0, [])


def test_a_batch_that_is_not_wanted_any_more_stops_and_nothing_of_it_stays(bulk: Bulk, shop: VectorShop) -> None:
    job_id = bulk.job(b'{"item_id": "i000"}\n' * 1000)

    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        bulk.turn(job_id, stop)
    shop.jobs.cancel(job_id)
    job = shop.jobs.get(job_id)
    clear_ended_batch(shop.store, job)
    clear_ended_batch(shop.store, job)
    assert shop.store.names("batches") == []
    assert shop.store.names("uploads") == []


def test_the_end_of_a_batch_is_safe_from_a_message_that_comes_late(bulk: Bulk, shop: VectorShop) -> None:
    job = bulk.turn(bulk.job())
    clear_ended_batch(shop.store, job)
    assert len(bulk.answers(job.id)) == ITEMS
    assert isinstance(shop.jobs, Jobs)
    assert shop.jobs.start(job.id) is None
