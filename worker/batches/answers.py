"""The answers of a part of a batch search: one line for each query, hits or an error."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from shared.batch_queries import QueryText, parse_line, parse_object
from shared.errors import LookalikeError
from shared.job_record import json_bytes
from shared.result_cache import asked_of
from shared.schemas import SearchLine
from worker.engine import Engine, Query

# Exact searches that wait are searched together, and photos by URL are fetched side by side.
THREADS = 32
NAMES = ("id", "item_id", "image_url")  # by which a client knows its query again
NAME_MAX_CHARACTERS = 2048


@dataclass(frozen=True)
class Answers:
    """What became of some queries: a line of JSON for each, in their order, and how many failed."""

    lines: list[bytes]
    failed: int


def answer(
    queries: Sequence[QueryText], terms: Mapping[str, Any], engine: Engine, still_wanted: Callable[[], None]
) -> Answers:
    """Answer queries with one release; no cache is asked or filled.

    Args:
        queries: lines of a batch search.
        terms: those that all lines share.
        engine: of the release.
        still_wanted: called now and then, by several threads.

    Raises:
        Exception: what `still_wanted` raises, and what fails but for a query's own fault.
    """
    engine.live_index.follow()
    read = [_read(query, terms) for query in queries]
    whole = [found.item_id for _, found in read if isinstance(found, SearchLine) and found.item_id and not found.crop]
    known = engine.item_queries(whole)

    def one(number: int) -> tuple[bytes, bool]:
        still_wanted()
        names, found = read[number]
        try:
            if isinstance(found, LookalikeError):
                raise found
            hits, reason = engine.find(_query(found, known, engine, still_wanted), _asked(found))
        except LookalikeError as error:
            return json_bytes({**names, "error": error.to_wire()}), True
        return json_bytes({**names, "hits": hits, "reason": reason}), False

    with ThreadPoolExecutor(THREADS) as pool:
        try:
            answers = list(pool.map(one, range(len(queries))))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return Answers([line for line, _ in answers], sum(is_failed for _, is_failed in answers))


def refuse(query: QueryText, terms: Mapping[str, Any], error: LookalikeError) -> Answers:
    """Return the answer to a query that is given up."""
    names, _ = _read(query, terms)
    return Answers([json_bytes({**names, "error": error.to_wire()})], failed=1)


def _read(query: QueryText, terms: Mapping[str, Any]) -> tuple[dict[str, Any], SearchLine | LookalikeError]:
    """Return by what a client knows the answer, and the search or why there is none."""
    names: dict[str, Any] = {"line": query.line}
    try:
        fields = parse_object(query.text)
        for name in NAMES:
            if isinstance(value := fields.get(name), str):
                names[name] = value[:NAME_MAX_CHARACTERS]
        return names, parse_line(fields, terms)
    except LookalikeError as error:
        return names, error


def _asked(line: SearchLine) -> dict[str, Any]:
    return asked_of(line.model_dump(mode="json"))


def _query(line: SearchLine, known: Mapping[str, Query], engine: Engine, still_wanted: Callable[[], None]) -> Query:
    crop = line.crop.model_dump(mode="json") if line.crop else None
    if line.item_id is None:
        return engine.query({"image_url": str(line.image_url)}, crop, still_wanted)
    if crop is None and line.item_id in known:
        return known[line.item_id]
    return engine.query({"item_id": line.item_id}, crop, still_wanted)
