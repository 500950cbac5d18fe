"""Planning an import: check the whole file, then cut its rows in chunks that can be done, and done again, alone."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from shared.catalogue import Catalogue
from shared.catalogue_change import CatalogueChange
from shared.errors import ImportFileBroken
from shared.store import Store
from shared.tables import ImportChunkRow, ImportErrorRow
from worker.imports.attributes import convert_rows, infer_types
from worker.imports.catalogue import CatalogueReader
from worker.imports.rows import CatalogueRow, RejectedRow, Row

ERRORS_AT_ONCE = 1000
# A file with more is not the catalogue that it was meant to be.
MAX_BAD_ROWS = 100_000


def chunk_key(job_id: str, number: int) -> str:
    """Return the store's key of a chunk's rows."""
    return f"imports/{job_id}/{number:06d}.ndjson"


def _notes_key(job_id: str) -> str:
    return f"imports/{job_id}/notes.json"


def skipped_columns(store: Store, job_id: str) -> list[str]:
    """Return the columns that a planned import doesn't read."""
    try:
        with store.open(_notes_key(job_id)) as file:
            return list(json.load(file)["skipped_columns"])
    except FileNotFoundError:
        return []


def plan_import(reader: CatalogueReader, job_id: str, chunk_rows: int, catalogue: Catalogue, store: Store) -> None:
    """Read a catalogue file through; record its bad rows as they come, and at the end its chunks, all at once.

    Safe to run again: the same file gives the same chunks, and those that are recorded stay as they are.
    """
    types = infer_types(reader, catalogue.attribute_types(), values_are_text=reader.values_are_text)
    sizes: list[int] = []
    bad_rows = _BadRows(catalogue, job_id)
    good = bad_rows.left_out_of(convert_rows(reader, types))
    for chunk in _cut(good, chunk_rows):
        with store.writing(chunk_key(job_id, len(sizes))) as file:
            file.writelines(json.dumps(asdict(row), separators=(",", ":")).encode() + b"\n" for row in chunk)
        sizes.append(len(chunk))
    with store.writing(_notes_key(job_id)) as file:
        file.write(json.dumps({"skipped_columns": reader.skipped_columns}).encode())
    with catalogue.change() as change:
        counters = {"attempts": 0, "is_done": False, "imported": 0, "embedded": 0}
        change.insert_new(
            ImportChunkRow,
            [{"job_id": job_id, "number": number, "rows": size, **counters} for number, size in enumerate(sizes)],
        )


def _cut(rows: Iterable[CatalogueRow], most: int) -> Iterator[list[CatalogueRow]]:
    """Cut rows in chunks of so many at most, each of which ends with the row that brings it as many photos."""
    chunk: list[CatalogueRow] = []
    photos = 0
    for row in rows:
        chunk.append(row)
        photos += len(row.images)
        # Photos by URL of slow hosts: a chunk must end long before its lease does.
        if len(chunk) == most or photos >= most:
            yield chunk
            chunk, photos = [], 0
    if chunk:
        yield chunk


class _BadRows:
    """Records the rows that can't be read, some at a time: a file may have any number of them."""

    def __init__(self, catalogue: Catalogue, job_id: str) -> None:
        self._catalogue = catalogue
        self._job_id = job_id
        self._waiting: list[RejectedRow] = []
        self._count = 0

    def left_out_of(self, rows: Iterable[Row]) -> Iterator[CatalogueRow]:
        """Yield the good rows, and record the others by the end.

        Raises:
            ImportFileBroken: if there are too many bad ones.
        """
        for row in rows:
            if isinstance(row, CatalogueRow):
                yield row
                continue
            self._waiting.append(row)
            if len(self._waiting) == ERRORS_AT_ONCE:
                self._record()
            if self._count > MAX_BAD_ROWS:
                raise ImportFileBroken(
                    f"More than {MAX_BAD_ROWS} rows can't be read; the last is line {row.line}: {row.error.detail}"
                )
        self._record()

    def _record(self) -> None:
        self._count += len(self._waiting)
        rows = [(row.line, row.item_id, row.error.code, row.error.detail) for row in self._waiting]
        with self._catalogue.change() as change:
            record_errors(change, self._job_id, rows)
        self._waiting.clear()


def record_errors(change: CatalogueChange, job_id: str, errors: Iterable[tuple[int, str | None, str, str]]) -> None:
    """Record rows that were left out, as (line, item id, code, detail)."""
    names = ("line", "item_id", "code", "detail")
    change.insert_new(ImportErrorRow, [{"job_id": job_id, **dict(zip(names, error, strict=True))} for error in errors])


def read_chunk(store: Store, job_id: str, number: int) -> list[CatalogueRow]:
    """Return the rows of a planned chunk."""
    with store.open(chunk_key(job_id, number)) as file:
        rows = [json.loads(line) for line in file]
    return [CatalogueRow(**{**row, "images": tuple(row["images"])}) for row in rows]


@dataclass(frozen=True)
class Totals:
    """Sums over the chunks of an import.

    Attributes:
        rows: of all chunks.
        rows_done: of the chunks that are done.
        imported: of those, the ones that were not left out.
        embedded: images that had to be embedded.
        open_chunks: how many chunks are not done.
    """

    rows: int
    rows_done: int
    imported: int
    embedded: int
    open_chunks: int


class Chunks:
    """Reads and counts the chunks of imports."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._engine = catalogue.engine

    def all(self, job_id: str) -> list[ImportChunkRow]:
        """Return the chunks of an import, by number; none before it is planned."""
        statement = select(ImportChunkRow).where(ImportChunkRow.job_id == job_id).order_by(ImportChunkRow.number)
        with Session(self._engine, expire_on_commit=False) as session:
            return list(session.scalars(statement))

    def totals(self, job_id: str) -> Totals:
        """Add up the chunks of an import; in the database, since every chunk asks and there may be thousands."""
        chunk = ImportChunkRow
        sums = (
            chunk.rows,
            case((chunk.is_done, chunk.rows), else_=0),
            chunk.imported,
            chunk.embedded,
            case((chunk.is_done, 0), else_=1),
        )
        statement = select(*(func.coalesce(func.sum(value), 0) for value in sums)).where(chunk.job_id == job_id)
        with Session(self._engine) as session:
            return Totals(*session.execute(statement).one())

    def begin(self, job_id: str, number: int) -> ImportChunkRow | None:
        """Count a try of a chunk and return it; None if there is no such chunk."""
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            chunk = session.get(ImportChunkRow, (job_id, number))
            if chunk is not None and not chunk.is_done:
                chunk.attempts += 1
            return chunk

    def rows_without_id(self, job_id: str) -> int:
        """Return how many of the rows that were left out have no id that could be read."""
        nameless = (ImportErrorRow.job_id == job_id, ImportErrorRow.item_id.is_(None))
        with Session(self._engine) as session:
            return session.execute(select(func.count()).select_from(ImportErrorRow).where(*nameless)).scalar_one()

    def left_out_lines(self, job_id: str, first: int, last: int) -> set[int]:
        """Return which lines of a range of the file were left out."""
        row = ImportErrorRow
        statement = select(row.line).where(row.job_id == job_id, row.line.between(first, last))
        with Session(self._engine) as session:
            return set(session.scalars(statement))

    def failed_rows(self, job_id: str) -> int:
        """Return how many rows of an import were left out so far."""
        statement = select(func.count()).select_from(ImportErrorRow).where(ImportErrorRow.job_id == job_id)
        with Session(self._engine) as session:
            return session.execute(statement).scalar_one()
