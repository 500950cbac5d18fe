"""Running an import: plan, chunks, end. Every step may run twice, on any worker, and counts once."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from shared.catalogue import Catalogue
from shared.catalogue_change import CatalogueChange, type_of
from shared.errors import AttributeTypeMismatch, LookalikeError, WorkerLost
from shared.job_record import JobRecord
from shared.jobs import Jobs
from shared.queues import TaskSender
from shared.schemas import ImportMode, ImportResult, Progress
from shared.settings import Settings
from shared.store import Store
from shared.tables import ImportChunkRow
from worker.fetcher import GuardedFetcher
from worker.imports.intake import Intake, Prepared
from worker.imports.plan import Chunks, chunk_key, plan_import, read_chunk, record_errors, skipped_columns
from worker.imports.sources import open_import

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportRunner:
    """Does the parts of import jobs."""

    settings: Settings
    jobs: Jobs
    catalogue: Catalogue
    store: Store
    fetcher: GuardedFetcher
    intake: Intake
    tasks: TaskSender

    def plan(self, job: JobRecord) -> None:
        """Plan an import that is not planned yet; then send the messages of all chunks that are not done.

        Raises:
            LookalikeError: if the file as a whole can't be imported.
        """
        chunks = Chunks(self.catalogue)
        if not chunks.all(job.id):
            tries = self.settings.job_max_attempts
            if job.attempts > tries:
                raise WorkerLost(
                    f"The worker died {tries} times while it read the file. Split it, or check its format."
                )
            with open_import(job.parameters, self.settings, self.store, self.fetcher) as opened:
                plan_import(
                    opened.read_catalogue(), job.id, self.settings.import_chunk_rows, self.catalogue, self.store
                )
        for chunk in chunks.all(job.id):
            if not chunk.is_done:
                self.tasks.send("import_chunk", job.id, chunk.number)
        self.report(job)

    def run_chunk(self, job: JobRecord, number: int) -> None:
        """Import the rows of one chunk, if nobody has yet."""
        chunk = Chunks(self.catalogue).begin(job.id, number)
        if chunk is not None and not chunk.is_done:
            rows = read_chunk(self.store, job.id, number)
            if chunk.attempts > self.settings.job_max_attempts:
                lost = WorkerLost(f"The worker died {self.settings.job_max_attempts} times while it read these rows.")
                self._write(job.id, number, Prepared(rejected=[(row, lost) for row in rows]))
            else:
                with open_import(job.parameters, self.settings, self.store, self.fetcher) as opened:
                    prepared = self.intake.prepare(rows, opened.images)
                self._reject_wrong_types(prepared)
                self._write(job.id, number, prepared)
        self.report(job)

    def _reject_wrong_types(self, prepared: Prepared) -> None:
        """Leave out rows whose attributes got another type in the catalogue since the import was planned."""
        types = self.catalogue.attribute_types()
        fitting = []
        for row, item in prepared.items:
            wrong = [
                name for name, value in item.attributes.items() if types.get(name, type_of(value)) != type_of(value)
            ]
            if wrong:
                detail = (
                    f"{wrong[0]!r} is a {types[wrong[0]]} in this catalogue. Send it as such, or rename the column."
                )
                prepared.rejected.append((row, AttributeTypeMismatch(detail)))
            else:
                fitting.append((row, item))
        prepared.items[:] = fitting

    def _write(self, job_id: str, number: int, prepared: Prepared) -> None:
        """Commit items, embeddings, errors and the chunk's end together, unless another worker was faster."""
        with self.catalogue.change() as change:
            if not _mark_done(change, job_id, number, prepared):
                return
            change.add_embeddings(self.intake.encoder_id, prepared.vectors)
            change.put([item for _, item in prepared.items], import_job=job_id)
            record_errors(
                change,
                job_id,
                ((row.line, row.item_id, error.code, error.detail) for row, error in prepared.rejected),
            )

    def report(self, job: JobRecord) -> None:
        """Show the progress of an import, and end it if all is done."""
        counter = Chunks(self.catalogue)
        chunks, failed = counter.all(job.id), counter.failed_rows(job.id)
        planned = sum(chunk.rows for chunk in chunks)
        imported = sum(chunk.imported for chunk in chunks)
        failed_later = sum(chunk.rows - chunk.imported for chunk in chunks if chunk.is_done)
        total, done = planned + failed - failed_later, imported + failed
        elapsed = (datetime.now(UTC) - (job.started_at or job.created_at)).total_seconds()
        rate = done / elapsed if elapsed > 0 else None
        self.jobs.set_progress(
            job.id,
            Progress(
                done=done,
                failed=failed,
                total=total,
                rate_per_second=round(rate, 2) if rate else None,
                eta_seconds=round((total - done) / rate, 1) if rate else None,
            ),
        )
        if all(chunk.is_done for chunk in chunks):
            self._finish(job, chunks, failed, imported)

    def _finish(self, job: JobRecord, chunks: list[ImportChunkRow], failed: int, imported: int) -> None:
        deleted = 0
        if job.parameters["mode"] == ImportMode.REPLACE:
            with self.catalogue.change() as change:
                deleted = change.delete_absent(job.id)
        embedded = sum(chunk.embedded for chunk in chunks)
        result = ImportResult(
            rows=imported + failed,
            imported=imported,
            failed=failed,
            deleted=deleted,
            embedded=embedded,
            skipped_columns=skipped_columns(self.store, job.id),
        )
        self.jobs.succeed(job.id, result.model_dump())
        self.clear(job)

    def clear(self, job: JobRecord) -> None:
        """Remove the files of an import that has ended."""
        self.store.remove_tree(chunk_key(job.id, 0).rpartition("/")[0])
        if "upload" in job.parameters:
            self.store.remove_tree(job.parameters["upload"].rpartition("/")[0])

    def fail(self, job: JobRecord, error: LookalikeError) -> None:
        """End an import that can't be done."""
        self.jobs.fail(job.id, error)
        self.clear(job)


def _mark_done(change: CatalogueChange, job_id: str, number: int, prepared: Prepared) -> bool:
    chunk = change.session.get(ImportChunkRow, (job_id, number))
    if chunk is None or chunk.is_done:
        return False
    chunk.is_done, chunk.imported, chunk.embedded = True, len(prepared.items), len(prepared.vectors)
    return True
