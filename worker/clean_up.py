"""Removing what nobody will ask for again: old tombstones, what old imports and batch searches left, lost uploads."""

import logging
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, select

from shared.batch_files import FOLDER, batch_folder
from shared.catalogue import Catalogue
from shared.errors import JobNotFound
from shared.jobs import Jobs
from shared.schemas import JobStatus
from shared.store import Store
from shared.tables import ImportChunkRow, ImportErrorRow

log = logging.getLogger(__name__)

# A worker that was cut off for longer than this compares its index with all images in the database instead.
TOMBSTONES_KEPT = timedelta(days=1)
UPLOADS_KEPT = timedelta(days=1)


def clean_up(catalogue: Catalogue, jobs: Jobs, store: Store) -> None:
    """Remove leftovers; safe to run at any time, and twice."""
    now = datetime.now(UTC)
    with catalogue.change() as change:
        purged = change.purge_tombstones(now - TOMBSTONES_KEPT)
    jobs.recount_unfinished()
    forgotten = _forget_imports(catalogue, jobs, store)
    batches = _forget_batches(jobs, store)
    # What no job names was sent with a request that died; the margin is for requests that are under way.
    uploads = store.remove_old_uploads(now - UPLOADS_KEPT, _needed_uploads(jobs))
    message = "Cleaned up %d tombstones, %d imports, %d batch searches, %d uploads"
    log.info(message, purged, forgotten, batches, uploads)


def _forget_imports(catalogue: Catalogue, jobs: Jobs, store: Store) -> int:
    """Forget chunks and errors of imports whose job record has expired."""
    with catalogue.engine.connect() as connection:
        chunks = select(ImportChunkRow.job_id).distinct()
        known = set(connection.execute(chunks.union(select(ImportErrorRow.job_id))).scalars())
    gone = [job_id for job_id in known if not _exists(jobs, job_id)]
    for job_id in gone:
        with catalogue.change() as change:
            for table in (ImportChunkRow, ImportErrorRow):
                change.session.execute(delete(table).where(table.job_id == job_id))
        store.remove_tree(f"imports/{job_id}")
    return len(gone)


def _exists(jobs: Jobs, job_id: str) -> bool:
    try:
        jobs.get(job_id)
    except JobNotFound:
        return False
    return True


def _needed_uploads(jobs: Jobs) -> list[str]:
    """Return the keys of the files that came with jobs which have not ended."""
    needed: list[str] = []
    for job_id in jobs.active():
        try:
            parameters = jobs.get(job_id).parameters
        except JobNotFound:
            continue
        needed += [parameters["upload"]] if "upload" in parameters else parameters.get("uploads", [])
    return needed


def _forget_batches(jobs: Jobs, store: Store) -> int:
    """Remove the answers of batch searches that nobody can read: cancelled, failed, or their job record has expired."""
    gone = [job_id for job_id in store.names(FOLDER) if not _may_have_answers(job_id, jobs)]
    for job_id in gone:
        store.remove_tree(batch_folder(job_id))
    return len(gone)


def _may_have_answers(job_id: str, jobs: Jobs) -> bool:
    try:
        return jobs.get(job_id).status not in (JobStatus.FAILED, JobStatus.CANCELLED)
    except JobNotFound:
        return False
