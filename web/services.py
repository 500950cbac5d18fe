"""What the endpoints work with; put together in web/app.py alone."""

from dataclasses import dataclass
from threading import BoundedSemaphore

from redis import Redis
from sqlalchemy import Engine

from shared.accepted_imports import AcceptedImports
from shared.catalogue import Catalogue
from shared.errors import JobNotFound
from shared.job_record import JobRecord
from shared.jobs import Jobs
from shared.result_cache import ResultCache
from shared.settings import Settings
from shared.store import Store
from shared.task_message import TaskMessages
from web.api_keys import ApiKeys
from web.bounds import JobBounds
from web.idempotency_keys import IdempotencyKeys
from web.job_ends import JobEnds


@dataclass(frozen=True)
class Services:
    """The parts of one running web tier."""

    settings: Settings
    redis: Redis
    engine: Engine
    jobs: Jobs
    accepted_imports: AcceptedImports
    bounds: JobBounds
    catalogue: Catalogue
    store: Store
    results: ResultCache
    messages: TaskMessages
    job_ends: JobEnds
    idempotency_keys: IdempotencyKeys
    api_keys: ApiKeys
    waiting_places: BoundedSemaphore  # fewer than threads, so that those who wait never keep all others out

    def job(self, job_id: str) -> JobRecord:
        """Read a job; an import that Redis has lost is there again.

        Raises:
            JobNotFound: if there is no such record (any more).
        """
        try:
            return self.jobs.get(job_id)
        except JobNotFound:
            if not self.accepted_imports.restore(job_id):
                raise
            return self.jobs.get(job_id)
