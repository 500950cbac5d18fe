"""The end of an import: near-duplicates that can't be looked for never fail it."""

import csv
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from shared.accepted_imports import AcceptedImports
from shared.catalogue import Catalogue
from shared.database import connect_database
from shared.jobs import Jobs
from shared.migrations import upgrade
from shared.queues import TaskSender, create_celery
from shared.releases import Release
from shared.schemas import ImportParameters, JobKind, JobStatus
from shared.store import Store
from tests.conftest import make_settings
from tests.photo_intake import CornerEncoder, photo
from tests.servers import RedisProcess
from worker.encoder import EncoderUnavailable
from worker.engine import Engine
from worker.fetcher import GuardedFetcher
from worker.imports.intake import Intake
from worker.imports.run import ImportRunner
from worker.index.flat_index import FlatIndex
from worker.index.recipe import EXACT
from worker.item_index import ItemIndex
from worker.live_index import LiveIndex
from worker.milvus.connection import MilvusConnection
from worker.milvus.milvus_index import MilvusIndex
from worker.services import Services

ROWS = 10  # of five photos, each of two items


class Importer:
    """A bulk worker's part in imports, with a small encoder and an engine that the test chooses."""

    def __init__(self, folder: Path, server: RedisProcess, client: redis.Redis, tasks: TaskSender) -> None:
        self.settings = make_settings(server, folder, import_chunk_rows=4)
        database = connect_database(self.settings.database_url)
        upgrade(database)
        self.catalogue = Catalogue(database)
        self.store = Store(self.settings.store_url)
        self.jobs = Jobs(client, self.settings)
        self.encoder = CornerEncoder()
        intake = Intake(self.settings, self.catalogue, self.store, self.encoder.id, lambda: self.encoder)
        self.engine: Callable[[], Engine] = self._new_engine
        self.encoder_of_index = self.encoder.id
        fetcher = GuardedFetcher(allow_private=False, timeout_seconds=1)
        parts = (self.settings, self.jobs, self.catalogue, self.store, fetcher)
        accepted = AcceptedImports(database, client, self.settings)
        self.runner = ImportRunner(*parts, lambda: intake, lambda: self.engine(), tasks, accepted, lambda _job_id: None)

    def _new_engine(self) -> Engine:
        return self.engine_of(LiveIndex(self.catalogue, FlatIndex(self.encoder.dim), self.encoder_of_index))

    def engine_of(self, index: ItemIndex[Any]) -> Engine:
        return Engine(
            settings=self.settings,
            redis=redis.Redis(),
            catalogue=self.catalogue,
            store=self.store,
            release=Release("corner.flat", "corner", {"similar": {"min_cosine": 1.0}}),
            encoder=self.encoder,
            live_index=index,
            fetch=lambda url, max_bytes: b"",
        )

    def job(self, **options: Any) -> str:
        table, packed = io.StringIO(), io.BytesIO()
        writer = csv.writer(table)
        writer.writerows([["id", "image"], *([f"i{number}", f"{number // 2}.jpg"] for number in range(ROWS))])
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("products.csv", table.getvalue())
            for number in range(ROWS // 2):
                archive.writestr(f"{number}.jpg", photo(40, 30, 37 * number))
        key = f"{self.store.new_upload_folder()}/catalogue.zip"
        self.store.put_stream(key, io.BytesIO(packed.getvalue()))
        parameters = ImportParameters(**options).model_dump(mode="json", exclude={"callback_url"})
        job_id = self.jobs.create(JobKind.IMPORT, {**parameters, "upload": key}).id
        self.jobs.start(job_id)
        return job_id

    def run(self, job_id: str, crashes: int = 0) -> dict[str, Any]:
        """Do all of an import, whose worker dies so often after the plan; returns its result."""
        self.runner.plan(self.jobs.get(job_id))
        for _ in range(crashes):
            self.jobs.start(job_id)
        for number in range((ROWS + 3) // 4):
            self.runner.run_chunk(self.jobs.get(job_id), number)
        job = self.jobs.get(job_id)
        assert job.status is JobStatus.SUCCEEDED, job.error
        assert job.result is not None
        assert job.progress is not None
        assert (job.progress["done"], job.progress["step"]) == (ROWS, None)
        assert (job.result["imported"], job.result["embedded"]) == (ROWS, ROWS // 2)
        assert self.store.names(f"imports/{job_id}") == self.store.names("uploads") == []
        return job.result


@pytest.fixture
def importer(redis_server: RedisProcess, redis_client: redis.Redis, tmp_path: Path) -> Iterator[Importer]:
    with create_celery(make_settings(redis_server, tmp_path), "test") as app:
        importer = Importer(tmp_path, redis_server, redis_client, TaskSender(app))
        yield importer
        importer.catalogue.engine.dispose()


def test_items_with_the_same_photo_are_told_in_the_order_of_the_file(importer: Importer) -> None:
    result = importer.run(importer.job())
    assert (result["near_duplicates"], result["duplicate_min_cosine"]) == (ROWS, 1.0)
    pairs = [(pair["item_id"], pair["duplicate_of"]) for pair in result["near_duplicate_pairs"]]
    assert pairs == [(f"i{number}", f"i{number ^ 1}") for number in range(ROWS)]
    assert result["near_duplicates_skipped"] is None


def test_an_import_waits_for_milvus_to_hold_its_items(
    importer: Importer, milvus: MilvusConnection, redis_client: redis.Redis
) -> None:
    parts = (importer.catalogue, redis_client, milvus, f"import {id(importer)}", importer.encoder.id)
    index = MilvusIndex(*parts, importer.encoder.dim, EXACT)
    index.open()
    importer.engine = lambda: importer.engine_of(index)
    result = importer.run(importer.job())
    assert (result["near_duplicates"], result["near_duplicates_skipped"]) == (ROWS, None)
    assert [pair["duplicate_of"] for pair in result["near_duplicate_pairs"]] == [f"i{n ^ 1}" for n in range(ROWS)]


def test_an_import_ends_well_though_its_worker_may_not_open_the_index(importer: Importer) -> None:
    services = Services(importer.settings.model_copy(update={"index_url": "var/milvus.db"}))
    importer.engine = services.current_engine
    result = importer.run(importer.job())
    assert "need FAISS, or Milvus as a server" in result["near_duplicates_skipped"]


def test_an_import_ends_well_though_there_is_no_encoder_to_search_with(importer: Importer) -> None:
    def refuse() -> Engine:
        raise EncoderUnavailable("Install the encoder.")

    importer.engine = refuse
    result = importer.run(importer.job(duplicate_min_cosine=0.9))
    assert (result["near_duplicates"], result["near_duplicate_pairs"]) == (None, [])
    assert result["near_duplicates_skipped"] == "Install the encoder."


def test_an_import_ends_well_though_its_items_are_not_in_the_index_yet(importer: Importer) -> None:
    importer.encoder_of_index = "of another release"
    result = importer.run(importer.job())
    assert result["near_duplicates"] is None
    assert "None of the items is in the index of release corner.flat" in result["near_duplicates_skipped"]


def test_an_import_whose_worker_died_again_and_again_ends_without_looking(importer: Importer) -> None:
    def die() -> Engine:
        raise AssertionError("it is not to be opened again")

    importer.engine = die
    result = importer.run(importer.job(), crashes=importer.settings.job_max_attempts)
    assert "died 3 times" in result["near_duplicates_skipped"]


def test_an_import_that_is_cancelled_before_its_end_has_no_result(importer: Importer) -> None:
    job_id = importer.job()
    importer.runner.plan(importer.jobs.get(job_id))

    def cancelled() -> Engine:
        importer.jobs.cancel(job_id)
        return importer._new_engine()

    importer.engine = cancelled
    for number in range(3):
        importer.runner.run_chunk(importer.jobs.get(job_id), number)
    job = importer.jobs.get(job_id)
    assert (job.status, job.result) == (JobStatus.CANCELLED, None)
    assert importer.store.names(f"imports/{job_id}") == importer.store.names("uploads") == []
