from datetime import UTC, datetime, timedelta

import redis

from shared.batch_files import part_key
from shared.catalogue import Catalogue
from shared.errors import WorkerLost
from shared.jobs import Jobs
from shared.schemas import JobKind
from shared.settings import Settings
from shared.store import UPLOAD_TIME, Store
from shared.tables import ImportChunkRow, ImportErrorRow
from worker.clean_up import clean_up
from worker.imports.plan import Chunks, chunk_key


def test_what_belongs_to_an_expired_import_goes_and_the_rest_stays(
    catalogue: Catalogue, redis_client: redis.Redis, settings: Settings
) -> None:
    jobs, store = Jobs(redis_client, settings), Store(settings.store_url)
    alive = jobs.create(JobKind.IMPORT, {"mode": "upsert"}).id
    counters = {"rows": 1, "attempts": 0, "is_done": True, "imported": 0, "embedded": 0}
    with catalogue.change() as change:
        for job_id in (alive, "expired"):
            change.insert_new(ImportChunkRow, [{"job_id": job_id, "number": 0, **counters}])
            error = {"job_id": job_id, "line": 2, "item_id": None, "code": "row_invalid", "detail": "?"}
            change.insert_new(ImportErrorRow, [error])
            with store.writing(chunk_key(job_id, 0)) as file:
                file.write(b"{}")
    old = (datetime.now(UTC) - timedelta(days=2)).strftime(UPLOAD_TIME)
    uploads = {"new": f"{store.new_upload_folder()}/a.csv"}
    uploads |= {name: f"uploads/{old}-{name}/a.csv" for name in ("left", "of an import", "of an item")}
    jobs.create(JobKind.IMPORT, {"mode": "upsert", "upload": uploads["of an import"]})
    jobs.create(JobKind.IMPORT, {"uploads": [uploads["of an item"]]})
    for key in uploads.values():
        with store.writing(key) as file:
            file.write(b"id,image")

    for _ in range(2):
        clean_up(catalogue, jobs, store)

        assert len(Chunks(catalogue).all(alive)) == len(catalogue.row_errors(alive, 10, 0)) == 1
        assert len(Chunks(catalogue).all("expired")) == len(catalogue.row_errors("expired", 10, 0)) == 0
        assert [store.exists(chunk_key(job_id, 0)) for job_id in (alive, "expired")] == [True, False]
        assert [name for name, key in uploads.items() if not store.exists(key)] == ["left"]


def test_the_answers_of_batch_searches_stay_as_long_as_somebody_may_read_them(
    catalogue: Catalogue, redis_client: redis.Redis, settings: Settings
) -> None:
    jobs, store = Jobs(redis_client, settings), Store(settings.store_url)
    ids = {name: jobs.create(JobKind.BATCH_SEARCH, {}).id for name in ("waiting", "done", "failed", "cancelled")}
    ids["expired"] = "expired"
    jobs.succeed(ids["done"], b"{}")
    jobs.fail(ids["failed"], WorkerLost("No."))
    jobs.cancel(ids["cancelled"])
    for job_id in ids.values():
        with store.writing(part_key(job_id, 0)) as file:
            file.write(b"{}")
    for _ in range(2):
        clean_up(catalogue, jobs, store)
        assert [name for name, job_id in ids.items() if store.exists(part_key(job_id, 0))] == ["waiting", "done"]
