"""POST /v1/searches/batch: many searches in one job, with queries of the client's or all items of the catalogue."""

import hashlib
import io
import json
from collections.abc import Callable
from itertools import islice
from typing import Any, BinaryIO, cast

from flask import Response, request
from flask_openapi import APIBlueprint, Tag
from pydantic import Field
from werkzeug.exceptions import RequestEntityTooLarge

from shared.batch_queries import parse_line, parse_object, read_lines
from shared.errors import BatchEmpty, BatchTooLarge, BatchUnreadable, InvalidParameter
from shared.schemas import BatchRequest, Job, JobKind, SearchLine, Wire
from web.documentation import PROBLEM_RESPONSES, ndjson_or_json
from web.forms import JSON_MAX_BYTES, json_body
from web.idempotency import REPLAYED, once
from web.searches import check_callback, check_terms
from web.services import Services
from web.waiting import send_job

NDJSON_TYPES = ("application/x-ndjson", "application/ndjson", "application/jsonl")
# If none of so many lines can be read, and there are more, the worker is to find out about those.
LOOKED_AT_LINES = 100


class CallbackQuery(Wire):
    """Where the finished job is posted; of a JSON body, the field of that name."""

    callback_url: str | None = Field(None, max_length=2048, description="With NDJSON: where to POST the finished job.")


def create_batches_api(services: Services) -> APIBlueprint:
    """Create the endpoint that accepts batch searches."""
    tag = Tag(name="batches", description="Many searches in one job")
    api = APIBlueprint("batches", __name__, abp_tags=[tag], abp_responses=PROBLEM_RESPONSES)

    @api.post(
        "/v1/searches/batch",
        summary="Search with many queries, or with every item",
        request_body=ndjson_or_json(SearchLine, BatchRequest),
        responses={200: Job, 202: Job},
    )
    def create_batch(query: CallbackQuery) -> Response:
        """202 with a job whose progress, rate and ETA `GET /v1/jobs/{id}` shows; its answers are at
        `GET /v1/jobs/{id}/results`. A query that can't be answered never stops the rest.
        """
        if request.mimetype in NDJSON_TYPES:
            check_callback(services, query.callback_url)
            return _send_upload(services, _keep(services, lambda key: _receive(services, key)), query.callback_url)
        body = BatchRequest.model_validate(_json_body())
        callback_url = body.callback_url or query.callback_url
        check_callback(services, callback_url)
        check_terms(services, body)
        terms = body.model_dump(mode="json", exclude={"item_ids", "all_items", "callback_url"})

        def create(job_id: str) -> Response:
            if body.item_ids is None:
                return _send(services, job_id, {"all_items": True, "terms": terms}, callback_url)
            lines = b"".join(json.dumps({"item_id": item_id}).encode() + b"\n" for item_id in body.item_ids)
            upload = _keep(services, lambda key: services.store.put_stream(key, io.BytesIO(lines)))
            return _send(services, job_id, {"upload": upload, "terms": terms}, callback_url)

        return once(services, lambda: {**body.model_dump(mode="json"), "callback_url": callback_url}, create)

    return api


def _send_upload(services: Services, upload: str, callback_url: str | None) -> Response:
    """Make the job of queries that are kept already; they go where an idempotency key has made it before."""

    def describe() -> dict[str, Any]:
        with services.store.open(upload) as file:
            return {"queries": hashlib.file_digest(cast(Any, file), "sha256").hexdigest(), "callback_url": callback_url}

    def create(job_id: str) -> Response:
        return _send(services, job_id, {"upload": upload, "terms": {}}, callback_url)

    try:
        response = once(services, describe, create)
    except Exception:
        _clear(services, upload)
        raise
    if REPLAYED in response.headers:
        _clear(services, upload)
    return response


def _send(services: Services, job_id: str, parameters: dict[str, Any], callback_url: str | None) -> Response:
    def clear() -> None:
        if "upload" in parameters:
            _clear(services, parameters["upload"])

    kind = JobKind.BATCH_SEARCH
    return send_job(services, job_id, kind, parameters, callback_url=callback_url, clear=clear)


def _clear(services: Services, upload: str) -> None:
    services.store.remove_tree(upload.rpartition("/")[0])


def _keep(services: Services, write: Callable[[str], None]) -> str:
    """Put queries in the store and return their key; if that fails nothing stays."""
    folder = services.store.new_upload_folder()
    key = f"{folder}/queries.ndjson"
    try:
        write(key)
    except BaseException:
        services.store.remove_tree(folder)
        raise
    return key


def _receive(services: Services, key: str) -> None:
    """Keep the request's lines as they come, whatever their number, and look at the first of them."""
    limit = services.settings.import_max_bytes
    request.max_content_length = limit
    try:
        services.store.put_stream(key, cast(BinaryIO, request.stream))
    except RequestEntityTooLarge:
        raise BatchTooLarge(
            f"The queries have more than {limit:,} bytes, the most that is accepted (LOOKALIKE_IMPORT_MAX_BYTES). "
            "Send them in parts.",
            limit_bytes=limit,
        ) from None
    _require_a_query(services, key)


def _require_a_query(services: Services, key: str) -> None:
    """Refuse lines of which none can be read, as far as the first ones tell.

    Raises:
        BatchEmpty: if there is none but blank ones.
        BatchUnreadable: naming the first one, and what is wrong with it.
    """
    first: str | None = None
    with services.store.open(key) as file:
        lines = read_lines(file)
        for query in islice(lines, LOOKED_AT_LINES):
            try:
                parse_line(parse_object(query.text), {})
                return
            except InvalidParameter as error:
                first = first or f"Line {query.line}: {error.detail}"
        if first is None:
            raise BatchEmpty('There is no query. Send one JSON object a line, such as {"item_id": "a"}.')
        if next(lines, None) is None:
            raise BatchUnreadable(first)


def _json_body() -> dict[str, Any]:
    if not request.is_json:
        raise InvalidParameter(
            "Send queries as NDJSON with Content-Type: application/x-ndjson, or a JSON object with application/json."
        )
    try:
        return json_body()
    except RequestEntityTooLarge:
        raise BatchTooLarge(
            f"The JSON has more than {JSON_MAX_BYTES:,} bytes. Send the queries as NDJSON, one a line, with "
            "Content-Type: application/x-ndjson.",
            limit_bytes=JSON_MAX_BYTES,
        ) from None
