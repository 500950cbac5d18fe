"""Running an import: plan, chunks, end. Every step may run twice, on any worker, and counts once."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shared.accepted_imports import AcceptedImports
from shared.catalogue import Catalogue
from shared.catalogue_change import ItemChange, type_of
from shared.errors import AttributeTypeMismatch, IndexUnavailable, LookalikeError, WorkerLost
from shared.job_record import JobRecord
from shared.jobs import Jobs
from shared.queues import TaskSender
from shared.schemas import ImportMode, ImportResult, Progress
from shared.settings import Settings
from shared.store import Store
from shared.tables import ImportChunkRow
from worker.engine import Engine
from worker.fetcher import GuardedFetcher
from worker.imports.intake import Intake, Prepared
from worker.imports.near_duplicates import CannotCompare, find_near_duplicates, imported_items
from worker.imports.plan import Chunks, Totals, chunk_key, plan_import, read_chunk, record_errors, skipped_columns
from worker.imports.rows import CatalogueRow
from worker.imports.rows_alone import prepare_alone
from worker.imports.sources import open_import
from worker.progress import progress_after

log = logging.getLogger(__name__)

# A chunk is begun so many times as often as a single row, should it hold several that kill the worker.
CHUNK_ATTEMPTS_FACTOR = 10
# Of opening an encoder and an index, or searching; none of these is worth failing an import whose items are all there.
CANNOT_COMPARE = (CannotCompare, IndexUnavailable, OSError, ValueError, RuntimeError, MemoryError)
FOLLOW_SECONDS = 0.2


@dataclass(frozen=True)
class ImportRunner:
    """Does the parts of import jobs."""

    settings: Settings
    jobs: Jobs
    catalogue: Catalogue
    store: Store
    fetcher: GuardedFetcher
    intake: Callable[[], Intake]
    engine: Callable[[], Engine]
    tasks: TaskSender
    accepted: AcceptedImports
    go_on: Callable[[str], None]  # told a job's id when a step of it goes on

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
            self.jobs.set_progress(job.id, Progress(done=0, failed=0))
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
            if chunk.attempts > CHUNK_ATTEMPTS_FACTOR * self.settings.job_max_attempts:
                lost = WorkerLost(
                    f"The worker died {chunk.attempts - 1} times while it read this row and its neighbours."
                )
                self._write(job, number, Prepared(rejected=[(row, lost) for row in rows]))
            else:
                with open_import(job.parameters, self.settings, self.store, self.fetcher) as opened:
                    intake = self.intake()  # another one when another release has become active

                    def prepare(some: Sequence[CatalogueRow]) -> Prepared:
                        self.go_on(job.id)
                        return intake.prepare(some, opened.images)

                    if chunk.attempts == 1:
                        prepared = prepare(rows)
                    else:  # the worker died over one of them, or of something else
                        tries = self.settings.job_max_attempts
                        prepared = prepare_alone(self.store, job.id, number, tries, rows, prepare)
                self._write(job, number, prepared, intake.encoder_id)
        self.report(job)

    def _write(self, job: JobRecord, number: int, prepared: Prepared, encoder_id: str | None = None) -> None:
        """Commit items, embeddings, errors and the chunk's end together, unless another worker was faster."""
        with self.catalogue.change() as change:
            chunk = change.session.get(ImportChunkRow, (job.id, number))
            if chunk is None or chunk.is_done:
                return
            items, rejected = _fitting(prepared, change.attribute_types())
            chunk.is_done, chunk.imported, chunk.embedded = True, len(items), len(prepared.vectors)
            if encoder_id is not None:
                change.add_embeddings(encoder_id, prepared.vectors)
            change.put(items, as_of=job.created_at)
            record_errors(change, job.id, rejected)

    def report(self, job: JobRecord) -> None:
        """Show the progress of an import, and end it if all is done."""
        counter = Chunks(self.catalogue)
        totals, failed = counter.totals(job.id), counter.failed_rows(job.id)
        failed_later = totals.rows_done - totals.imported
        total, done = totals.rows + failed - failed_later, totals.imported + failed
        elapsed = (datetime.now(UTC) - (job.started_at or job.created_at)).total_seconds()
        progress = progress_after(elapsed, done, total, failed=failed)
        self.jobs.set_progress(job.id, progress)
        if totals.open_chunks == 0:
            self._finish(job, totals, failed, progress)

    def _finish(self, job: JobRecord, totals: Totals, failed: int, progress: Progress) -> None:
        deleted, deletion_skipped = 0, None
        if job.parameters["mode"] == ImportMode.REPLACE:
            deletion_skipped = self._reason_to_delete_nothing(job, totals.imported)
            with self.catalogue.change() as change:
                if self.jobs.is_cancelled(job.id):
                    return self.clear(job)
                if deletion_skipped is None:
                    deleted = change.delete_absent(job.id, job.created_at)
        self.jobs.set_progress(job.id, progress.model_copy(update={"step": "near_duplicates"}))
        near_duplicates = self._near_duplicates(job, totals.imported)
        if near_duplicates is None:
            return self.clear(job)
        result = ImportResult(
            rows=totals.imported + failed,
            imported=totals.imported,
            failed=failed,
            deleted=deleted,
            deletion_skipped=deletion_skipped,
            embedded=totals.embedded,
            skipped_columns=skipped_columns(self.store, job.id),
            **near_duplicates,
        )
        self.jobs.set_progress(job.id, progress)
        self.jobs.succeed(job.id, result.model_dump())
        return self.clear(job)

    def _near_duplicates(self, job: JobRecord, imported: int) -> dict[str, Any] | None:
        """Return what the result tells of near-duplicates; None if the import was cancelled meanwhile.

        Whatever is in the way of comparing, the items are imported: the result says why it was left out.
        """
        asked = job.parameters.get("duplicate_min_cosine")  # a job of before the upgrade has none
        if not imported:
            return {"near_duplicates": 0, "duplicate_min_cosine": asked}
        if job.attempts > self.settings.job_max_attempts:
            return {"near_duplicates_skipped": f"The worker died {job.attempts - 1} times before the import ended."}

        def goes_on() -> bool:
            self.go_on(job.id)
            return not self.jobs.is_cancelled(job.id)

        if not goes_on():
            return None
        try:
            engine = self.engine()
            while engine.live_index.follow() < self.catalogue.state().seq:  # a step of it, or another process is at it
                if not goes_on():
                    return None
                time.sleep(FOLLOW_SECONDS)
            min_cosine: float = engine.release.min_cosine if asked is None else asked
            items = imported_items(job.id, self.catalogue, self.store)
            found = find_near_duplicates(items, imported, engine.live_index, min_cosine, goes_on)
        except CANNOT_COMPARE as error:
            log.warning("Near-duplicates of import %s are not known: %s", job.id, error)
            return {"near_duplicates_skipped": str(error) or type(error).__name__}
        if found is None:
            return None
        if not found.known:
            return {"near_duplicates_skipped": f"None of the items is in the index of release {engine.release.id} yet."}
        return {
            "near_duplicates": found.count,
            "near_duplicate_pairs": found.pairs,
            "duplicate_min_cosine": min_cosine,
        }

    def _reason_to_delete_nothing(self, job: JobRecord, imported: int) -> str | None:
        """Rows that can't be read may be those of items that are to stay: when in doubt, nothing is deleted."""
        nameless = Chunks(self.catalogue).rows_without_id(job.id)
        if nameless:
            return f"{nameless} rows have no id that can be read, and may name items that are to stay. Mend them first."
        if not imported:
            return "No row could be imported, and an empty catalogue is hardly what was wanted."
        return None

    def clear(self, job: JobRecord) -> None:
        """Remove the files of an import that has ended, and keep it no longer."""
        if not self.accepted.end(job.id):
            return  # Redis has lost it: it comes back, and needs them
        self.store.remove_tree(chunk_key(job.id, 0).rpartition("/")[0])
        if "upload" in job.parameters:
            self.store.remove_tree(job.parameters["upload"].rpartition("/")[0])

    def fail(self, job: JobRecord, error: LookalikeError) -> None:
        """End an import that can't be done."""
        self.jobs.fail(job.id, error)
        self.clear(job)


RowError = tuple[int, str | None, str, str]


def _fitting(prepared: Prepared, types: Mapping[str, str]) -> tuple[list[ItemChange], list[RowError]]:
    """Return the items to write, and all rows to leave out as (line, item id, code, detail).

    An attribute's type may have been set by somebody else since the import was planned.
    """
    items: list[ItemChange] = []
    rejected = list(prepared.rejected)
    for row, item in prepared.items:
        wrong = [name for name, value in item.attributes.items() if types.get(name, type_of(value)) != type_of(value)]
        if wrong:
            kind = types[wrong[0]]
            detail = f"{wrong[0]!r} is a {kind} in this catalogue. Send it as such, or rename the column."
            rejected.append((row, AttributeTypeMismatch(detail)))
        else:
            items.append(item)
    return items, [(row.line, row.item_id, error.code, error.detail) for row, error in rejected]
