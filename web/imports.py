"""POST /v1/imports: a catalogue file, uploaded or on the server already."""

import hashlib
import logging
from typing import Any, BinaryIO, cast

from flask import Response
from flask_openapi import APIBlueprint, Tag
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.datastructures import FileStorage

from shared.errors import ImportEmpty, ImportTooLarge, PathRefused
from shared.job_record import JobRecord
from shared.paths import resolve_below
from shared.schemas import ImportParameters, ImportRequest, Job, JobKind
from web.documentation import PROBLEM_RESPONSES, multipart_or_json
from web.forms import form_fields, is_multipart, json_body, receive_form, uploaded_files
from web.idempotency import once
from web.searches import check_callback
from web.services import Services
from web.waiting import send_job

log = logging.getLogger(__name__)

FILE_FIELD = "file"


def create_imports_api(services: Services) -> APIBlueprint:
    """Create the endpoint that accepts catalogue files."""
    tag = Tag(name="imports", description="Bring a catalogue in")
    api = APIBlueprint("imports", __name__, abp_tags=[tag], abp_responses=PROBLEM_RESPONSES)

    @api.post(
        "/v1/imports",
        summary="Import a catalogue",
        request_body=multipart_or_json(
            ImportParameters,
            {FILE_FIELD: "CSV, NDJSON, Parquet, or a ZIP of one of these and its images."},
            ImportRequest,
        ),
        responses={200: Job, 202: Job},
    )
    def create_import() -> Response:
        """202 with a job whose progress, rate and ETA `GET /v1/jobs/{id}` shows. A bad row never stops the rest;
        `GET /v1/jobs/{id}/errors` lists them.
        """
        upload: FileStorage | None = None
        if is_multipart():
            receive_form(services.settings.import_max_bytes, _too_large(services))
            parameters = ImportParameters.model_validate(form_fields(("columns",)))
            upload = _uploaded_file(services)
        else:
            body = ImportRequest.model_validate(json_body())
            parameters = body
            _check_path(services, body.path)
        check_callback(services, parameters.callback_url)

        def describe() -> dict[str, Any]:
            return {**parameters.model_dump(mode="json"), "file": None if upload is None else _sha256(upload)}

        def create(job_id: str) -> Response:
            uploads = [] if upload is None else [_keep(services, upload)]
            source = {"upload": uploads[0]} if uploads else {}
            options = parameters.model_dump(mode="json", exclude={"callback_url"})
            return enqueue_import(services, job_id, {**options, **source}, uploads, parameters.callback_url)

        return once(services, describe, create)

    return api


def enqueue_import(
    services: Services,
    job_id: str,
    parameters: dict[str, object],
    uploads: list[str],
    callback_url: str | None = None,
) -> Response:
    """Record an import job, send its message, and answer.

    Args:
        services: the parts of this web tier.
        job_id: of the new job.
        parameters: what the job record keeps for the task.
        uploads: keys of the files that came with the request, all in one folder; they go if the job can't be sent.
        callback_url: where the finished job is posted.
    """
    kept: list[str] = []

    def keep(record: JobRecord) -> None:
        services.accepted_imports.keep(record)
        kept.append(record.id)

    def clear() -> None:
        try:
            services.accepted_imports.forget(kept)
        except SQLAlchemyError as error:
            log.warning("Import %s was refused, and will be done all the same: %s", job_id, error)
            return  # it needs its files
        for key in uploads[:1]:
            services.store.remove_tree(key.rpartition("/")[0])

    return send_job(services, job_id, JobKind.IMPORT, parameters, callback_url=callback_url, keep=keep, clear=clear)


def _uploaded_file(services: Services) -> FileStorage:
    """Return the uploaded file, whose size is checked."""
    file = uploaded_files(FILE_FIELD)[0]
    size = file.stream.seek(0, 2)
    file.stream.seek(0)
    _check_size(services, size)
    return file


def _sha256(file: FileStorage) -> str:
    digest = hashlib.file_digest(cast(Any, file.stream), "sha256").hexdigest()
    file.stream.seek(0)
    return digest


def _keep(services: Services, file: FileStorage) -> str:
    """Move an uploaded file to the store and return its key; its last part is the client's file name's ending."""
    ending = "".join(c for c in (file.filename or "").rpartition(".")[2].lower() if c.isalnum())[:8]
    key = f"{services.store.new_upload_folder()}/catalogue.{ending or 'bin'}"
    services.store.put_stream(key, cast(BinaryIO, file.stream))
    return key


def _check_size(services: Services, size: int) -> None:
    if size == 0:
        raise ImportEmpty("The file has no bytes. Send a CSV, NDJSON or Parquet file with one item a row.")
    if size > services.settings.import_max_bytes:
        raise _too_large(services)


def _too_large(services: Services) -> ImportTooLarge:
    limit = services.settings.import_max_bytes
    return ImportTooLarge(
        f"The file has more than {limit:,} bytes, the most that is accepted. Split it.", limit_bytes=limit
    )


def _check_path(services: Services, path: str) -> None:
    root = services.settings.import_root
    if root is None:
        raise PathRefused("This server has no import root (LOOKALIKE_IMPORT_ROOT). Upload the file instead.")
    found = resolve_below(root, path)
    try:
        is_file, size = found.is_file(), found.stat().st_size
    except OSError:  # a name that is too long, a folder that is closed to us
        is_file, size = False, 0
    if not is_file:
        raise PathRefused(f"There is no file {path!r} below the server's import root.")
    _check_size(services, size)
