"""Running a batch search: part by part, in turns with other jobs. Every part may be done twice, and counts once."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import monotonic

from redis.exceptions import RedisError

from shared.batch_files import (
    BatchState,
    alone_key,
    clear_queries,
    part_key,
    read_state,
    write_answered,
    write_state,
)
from shared.batch_queries import QueryText
from shared.catalogue import Catalogue
from shared.errors import ReleaseNotBuilt, WorkerLost
from shared.job_record import JobRecord
from shared.jobs import Jobs
from shared.queues import TaskSender
from shared.schemas import BatchResult, Progress
from shared.store import Store
from worker.batches.answers import Answers, answer, refuse
from worker.batches.plan import Plan, plan_batch, read_part
from worker.encoder import EncoderUnavailable
from worker.engine import Engine
from worker.one_by_one import OneByOne
from worker.progress import progress_after

log = logging.getLogger(__name__)

# After so long it goes behind what waits on its queue: no import waits for a table of all items.
TURN_SECONDS = 10.0
CHECK_SECONDS = 1.0


@dataclass(frozen=True)
class BatchRunner:
    """Does the turns of batch searches."""

    jobs: Jobs
    catalogue: Catalogue
    store: Store
    engine: Callable[[], Engine]
    tasks: TaskSender
    max_attempts: int
    go_on: Callable[[str], None]  # told the job's id when a query is begun alone

    def run(self, job: JobRecord, still_wanted: Callable[[], None]) -> None:
        """Answer parts from the first one that is not answered, for one turn; end the job, or send its next turn.

        Args:
            job: as it was started.
            still_wanted: what it raises ends the turn.

        Raises:
            ReleaseNotBuilt: if the active release can't be opened.
        """
        still_wanted = _now_and_then(still_wanted)
        state = read_state(self.store, job.id)
        if state is None:
            self.jobs.set_progress(job.id, Progress(step="plan", done=0, failed=0))
            state = BatchState()
        plan = plan_batch(job, self.catalogue, self.store)
        turn_ends = monotonic() + TURN_SECONDS
        has_crashed = job.attempts > 1 or self.store.exists(alone_key(job.id, state.parts))
        while state.parts < len(plan.parts):
            state = self._answer_part(job, plan, state, still_wanted, has_crashed)
            if has_crashed:  # it has come further since: only dying over the same queries is held against it
                self.jobs.count_first_attempt(job.id)
                has_crashed = False
            if state.parts < len(plan.parts) and monotonic() > turn_ends:
                return self._send_next_turn(job)
        return self._finish(job, state)

    def _answer_part(
        self, job: JobRecord, plan: Plan, state: BatchState, still_wanted: Callable[[], None], has_crashed: bool
    ) -> BatchState:
        """Write the answers of the next part with the release that is active now; return what is done then."""
        try:
            engine = self.engine()
        except EncoderUnavailable as error:
            raise ReleaseNotBuilt(str(error)) from error
        queries = read_part(job, plan, state.parts, self.store)
        if has_crashed:
            answers = self._answer_alone(job, state.parts, queries, engine, still_wanted)
        else:
            answers = answer(queries, job.parameters["terms"], engine, still_wanted)
        with self.store.writing(part_key(job.id, state.parts)) as file:
            file.writelines(line + b"\n" for line in answers.lines)
        is_new = engine.release.id not in state.releases
        state = replace(
            state,
            parts=state.parts + 1,
            queries=state.queries + len(answers.lines),
            failed=state.failed + answers.failed,
            releases=(*state.releases, engine.release.id) if is_new else state.releases,
        )
        write_state(self.store, job.id, state)
        progress = progress_after(_seconds_of(job), state.queries, plan.queries, failed=state.failed, step="search")
        self.jobs.set_progress(job.id, progress)
        return state

    def _answer_alone(
        self,
        job: JobRecord,
        number: int,
        queries: Sequence[QueryText],
        engine: Engine,
        still_wanted: Callable[[], None],
    ) -> Answers:
        """Answer the queries of a part one by one, since the worker died over them; give up one that kills it."""
        terms, lines, failed = job.parameters["terms"], [], 0
        with OneByOne(self.store, alone_key(job.id, number), self.max_attempts) as alone:
            if alone.is_news:  # the death is held against the query, not against the job
                self.jobs.return_attempt(job.id)
            lost = WorkerLost(f"The worker died over this query {self.max_attempts} times in all.")
            for query in queries:
                self.go_on(job.id)
                if alone.may_begin(str(query.line)):
                    part = answer([query], terms, engine, still_wanted)
                else:
                    part = refuse(query, terms, lost)
                lines += part.lines
                failed += part.failed
        return Answers(lines, failed)

    def _send_next_turn(self, job: JobRecord) -> None:
        self.jobs.return_attempt(job.id)  # this turn has ended well, and the next one counts as begun again
        try:
            self.tasks.send("search_batch", job.id)
        except RedisError as error:
            log.warning("Batch search %s waits for recovery: %s", job.id, error)

    def _finish(self, job: JobRecord, state: BatchState) -> None:
        write_answered(self.store, job.id, state)
        result = BatchResult(
            queries=state.queries,
            failed=state.failed,
            seconds=round(_seconds_of(job), 3),
            releases=list(state.releases),
            results=job.links["results"],
        )
        self.jobs.succeed(job.id, result.model_dump(mode="json"))
        clear_queries(self.store, job)


def _seconds_of(job: JobRecord) -> float:
    return (datetime.now(UTC) - (job.started_at or job.created_at)).total_seconds()


def _now_and_then(check: Callable[[], None]) -> Callable[[], None]:
    """Return what may be called for every query, by several threads, and asks once in a while."""
    next_at = monotonic()

    def checked() -> None:
        nonlocal next_at
        if monotonic() >= next_at:
            next_at = monotonic() + CHECK_SECONDS
            check()

    return checked
