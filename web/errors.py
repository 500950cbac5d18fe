"""Every failing path answers with an RFC 9457 problem body; this module alone knows HTTP statuses."""

import logging
from functools import partial
from time import monotonic
from typing import IO, Any
from urllib.parse import quote

from flask import Flask, Response, request
from pydantic import ValidationError
from redis.exceptions import RedisError
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from shared import errors
from shared.errors import LookalikeError
from shared.schemas import Problem

log = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2
# Many clients send all of a body before they look for an answer, and see a broken connection if nobody takes it.
UNREAD_MAX_BYTES = 256 * 1024 * 1024
UNREAD_MAX_SECONDS = 30

# The most derived class that stands here decides.
STATUSES: dict[type[LookalikeError], int] = {
    errors.InvalidRequest: 422,
    errors.UrlRefused: 422,
    errors.InvalidImage: 422,
    errors.UnsupportedImage: 415,
    errors.ImageTooLarge: 413,
    errors.TooManyPixels: 413,
    errors.InvalidImport: 422,
    errors.ImportFormatUnknown: 415,
    errors.ImportTooLarge: 413,
    errors.ArchiveTooLarge: 413,
    errors.InvalidRow: 422,
    errors.ApiKeyMissing: 401,
    errors.ApiKeyInvalid: 401,
    errors.AccessDenied: 403,
    errors.LimitReached: 429,
    errors.InvalidBatch: 422,
    errors.BatchTooLarge: 413,
    errors.NotFound: 404,
    errors.JobAlreadyFinished: 409,
    errors.ReleaseNotFinished: 409,
    errors.IdempotencyKeyInUse: 409,
    errors.Unavailable: 503,
    errors.JobFailure: 500,
}

# Stable codes for what Flask itself refuses.
HTTP_CODES = {
    400: "bad_request",
    404: "route_not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    415: "media_type_unsupported",
    416: "range_not_satisfiable",
}


def status_of(error: type[LookalikeError]) -> int:
    """Return the HTTP status of a kind of failure."""
    return next(STATUSES[kind] for kind in error.__mro__ if kind in STATUSES)


def problem_response(status: int, code: str, title: str, detail: str, **members: Any) -> Response:
    """Build the answer to a request that failed."""
    instance = quote(request.path, safe="/:@!$&'()*+,;=~")  # a URI reference, as RFC 9457 has it
    problem = Problem(
        type="about:blank", title=title, status=status, detail=detail, code=code, instance=instance, **members
    )
    response = Response(problem.model_dump_json(exclude_none=True), status=status, content_type=PROBLEM_TYPE)
    if status in (429, 503):
        response.headers["Retry-After"] = str(members.get("retry_after_seconds", RETRY_AFTER_SECONDS))
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="Lookalike"'
    response.call_on_close(partial(_discard, request.environ["wsgi.input"]))
    return response


def _discard(body: IO[bytes]) -> None:
    """Take what the client still sends, after it was answered: it may stop or go on, and sees the answer."""
    taken, ends_at = 0, monotonic() + UNREAD_MAX_SECONDS
    try:
        while taken < UNREAD_MAX_BYTES and monotonic() < ends_at and (part := body.read(64 * 1024)):
            taken += len(part)
    except OSError:
        log.debug("The client hung up after it was refused")


def validation_response(error: ValidationError) -> Response:
    """Build the answer to parameters that pydantic refused, naming each of them."""
    problems = []
    for entry in error.errors(include_url=False, include_context=False):
        where = ".".join(str(part) for part in entry["loc"]) or "body"
        problems.append({"parameter": where, "message": entry["msg"].removeprefix("Value error, ")})
    detail = "; ".join(f"{entry['parameter']}: {entry['message']}" for entry in problems)
    kind = errors.InvalidParameter
    return problem_response(422, kind.code, kind.title(), detail, errors=problems)


def register_error_handlers(app: Flask) -> None:
    """Translate every failure of this application, ours and others', in one place."""

    @app.errorhandler(LookalikeError)
    def handle_ours(error: LookalikeError) -> Response:
        members = {name: value for name, value in error.to_wire().items() if name not in ("code", "title", "detail")}
        return problem_response(status_of(type(error)), error.code, error.title(), error.detail, **members)

    app.register_error_handler(ValidationError, validation_response)

    @app.errorhandler(RedisError)
    def handle_redis(error: Exception) -> Response:
        log.warning("Redis failed: %s", error)
        return handle_ours(errors.RedisUnavailable("Redis can't be used now. Try again in a moment."))

    @app.errorhandler(OperationalError)
    @app.errorhandler(ProgrammingError)  # of a database that is not migrated yet
    @app.errorhandler(InterfaceError)
    @app.errorhandler(PoolTimeout)
    def handle_database(error: Exception) -> Response:
        log.warning("The database failed: %s", error)
        return handle_ours(errors.DatabaseUnavailable("The catalogue can't be read now. Try again in a moment."))

    @app.errorhandler(HTTPException)
    def handle_flask(error: HTTPException) -> BaseResponse:
        if error.response is not None:
            return error.get_response(request.environ)
        status = error.code or 500
        code = HTTP_CODES.get(status, "http_error")
        response = problem_response(status, code, error.name, error.description or error.name)
        for name, value in error.get_headers(request.environ):
            if name.lower() == "allow":
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def handle_unforeseen(error: Exception) -> Response:
        log.exception("Unforeseen error at %s %s", request.method, request.path)
        kind = errors.Internal
        return problem_response(500, kind.code, kind.title(), "The server failed; its log has the reason.")
