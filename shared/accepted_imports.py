"""Imports that were accepted and have not ended, in the database: a Redis that loses its data loses none of them.

Records of jobs are in Redis alone, and a search that is lost with it is soon sent again. A catalogue file may have come
by night, from a program that sends it once. So each import is noted in the database before it is answered, and its
record is made anew from there, under the same id, if it is not in Redis; the chunks that are done stay done.
"""

import json
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from redis import Redis
from sqlalchemy import Engine, delete, insert, select
from sqlalchemy.exc import SQLAlchemyError

from shared.job_record import JobRecord
from shared.jobs import ACTIVE_KEY, UNFINISHED_KEY, job_key
from shared.schemas import JobStatus
from shared.settings import Settings
from shared.tables import AcceptedImportRow

log = logging.getLogger(__name__)

FORGOTTEN_AT_ONCE = 500

# A younger one may be on its way to Redis still, unless somebody knows its id already.
RESTORED_AFTER = timedelta(minutes=1)

# KEYS: record, active, unfinished. ARGV: id, unix time, seconds to keep the record, then field and value, one by one.
_RESTORE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
for name in string.gmatch(redis.call('HGET', KEYS[1], 'counted_as') or '', '%S+') do
    redis.call('HINCRBY', KEYS[3], name, 1)
end
return 1
"""


class AcceptedImports:
    """Keeps imports until they have ended; safe to use from many processes."""

    def __init__(self, engine: Engine, redis: Redis, settings: Settings) -> None:
        """Args:
        engine: the catalogue's database.
        redis: has the job records.
        settings: say how long records are kept.
        """
        self._engine = engine
        self._redis = redis
        self._settings = settings
        self._restore = redis.register_script(_RESTORE)

    def keep(self, record: JobRecord) -> None:
        """Note an import before its record is written.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: if the database can't be used; nothing is noted.
        """
        fields = {name.decode(): value.decode() for name, value in record.fields.items()}
        row = {"job_id": record.id, "fields": json.dumps(fields), "created_at": datetime.now(UTC)}
        with self._engine.begin() as connection:
            connection.execute(insert(AcceptedImportRow).values(row))

    def forget(self, job_ids: Sequence[str]) -> None:
        """Keep some imports no longer.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: if the database can't be used; `look_after` forgets those that have ended.
        """
        for start in range(0, len(job_ids), FORGOTTEN_AT_ONCE):
            some = job_ids[start : start + FORGOTTEN_AT_ONCE]
            with self._engine.begin() as connection:
                connection.execute(delete(AcceptedImportRow).where(AcceptedImportRow.job_id.in_(some)))

    def end(self, job_id: str) -> bool:
        """Keep an import no longer if its record says that it has ended; its files may go then.

        Returns:
            Whether it has ended. If Redis has lost its record meanwhile it has not: it comes back, and needs its files.
        """
        status = cast("bytes | None", self._redis.hget(job_key(job_id), "status"))
        if status is None or not JobStatus(status.decode()).is_final:
            return False
        try:
            self.forget([job_id])
        except SQLAlchemyError as error:
            log.warning("Import %s has ended, and is not forgotten yet: %s", job_id, error)
        return True

    def restore(self, job_id: str) -> bool:
        """Make the record of an import that is kept anew, if Redis has none; recovery begins it.

        Returns:
            Whether the import is kept, and so has a record now.
        """
        with self._engine.connect() as connection:
            row = connection.execute(select(AcceptedImportRow).where(AcceptedImportRow.job_id == job_id)).first()
        if row is None:
            return False
        self._restore_row(row)
        return True

    def look_after(self) -> None:
        """Make the records of all imports that Redis has lost anew, and forget those that have ended."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(AcceptedImportRow)).all()
        if not rows:
            return
        with self._redis.pipeline(transaction=False) as pipe:
            for row in rows:
                pipe.hget(job_key(row.job_id), "status")
            found = dict(zip(rows, pipe.execute(), strict=True))
        ended = [row.job_id for row, status in found.items() if status and JobStatus(status.decode()).is_final]
        if ended:
            self.forget(ended)
        for row, status in found.items():
            if status is None and datetime.now(UTC) - row.created_at > RESTORED_AFTER:
                self._restore_row(row)

    def _restore_row(self, row: Any) -> None:
        key, fields = job_key(row.job_id), json.loads(row.fields)
        pairs = [text for pair in fields.items() for text in pair]
        arguments = [row.job_id, time.time(), self._settings.job_ttl_seconds, *pairs]
        if self._restore(keys=[key, ACTIVE_KEY, UNFINISHED_KEY], args=arguments):
            log.warning("Redis has lost import %s; its record is made anew", row.job_id)
