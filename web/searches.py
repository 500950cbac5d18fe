"""POST /v1/searches: by uploaded photo, by image_url, by item_id."""

import hashlib
import time
from typing import Any

from flask import Response
from flask_openapi import APIBlueprint, Tag

from shared.errors import CallbackNotConfigured
from shared.filters import check_field, compile_filter
from shared.image_header import read_header
from shared.job_record import json_bytes
from shared.result_cache import ResultCache, asked_of
from shared.schemas import DUPLICATES, AnsweredFrom, Job, JobKind, SearchParameters, SearchRequest, SearchTerms
from shared.urls import check_url
from web.access import caller
from web.documentation import PROBLEM_RESPONSES, multipart_or_json
from web.forms import form_fields, is_multipart, json_body, receive_photos, uploaded_files
from web.idempotency import once
from web.request_log import origin
from web.services import Services
from web.waiting import accepts_cached, job_response, send_job

IMAGE_FIELD = "image"


def create_searches_api(services: Services) -> APIBlueprint:
    """Create the endpoint that accepts searches."""
    tag = Tag(name="searches", description="Find similar items")
    api = APIBlueprint("searches", __name__, abp_tags=[tag], abp_responses=PROBLEM_RESPONSES)

    @api.post(
        "/v1/searches",
        summary="Search by photo, by URL or by item",
        request_body=multipart_or_json(SearchParameters, {IMAGE_FIELD: "The photo."}, SearchRequest),
        responses={200: Job, 202: Job},
    )
    def create_search() -> Response:
        """202 with a job to poll. 200 with the finished job where `Prefer: wait=N` was enough, or where the answer
        to the same photo and parameters was known already. `Cache-Control: no-cache` asks for a fresh answer.
        """
        started = time.perf_counter()
        image: bytes | None = None
        if is_multipart():
            receive_photos(services.settings.upload_max_bytes)
            parameters = SearchParameters.model_validate(form_fields(("filter", "crop")))
            image = _uploaded_photo(services)
            source: dict[str, Any] = {"sha256": hashlib.sha256(image).hexdigest()}
        else:
            body = SearchRequest.model_validate(json_body())
            parameters = body
            source = {"image_url": body.image_url} if body.image_url else {"item_id": body.item_id}
        _check(services, parameters, source)
        asked = asked_of(parameters.model_dump(mode="json"))
        job_parameters: dict[str, Any] = {**asked, "source": source, "use_caches": accepts_cached()}
        callback_url = parameters.callback_url

        def create(job_id: str) -> Response:
            known = _known_result(services, source, asked) if accepts_cached() else None
            if known is None:
                return send_job(
                    services, job_id, JobKind.SEARCH, job_parameters, image=image, callback_url=callback_url
                )
            elapsed_ms = round((time.perf_counter() - started) * 1000, 3)
            result = json_bytes({**known, "timings_ms": {"total": elapsed_ms}})
            return job_response(
                services.jobs.create_succeeded(
                    JobKind.SEARCH,
                    job_parameters,
                    result,
                    job_id=job_id,
                    callback_url=callback_url,
                    owner=caller().owner,
                    origin=origin(),
                )
            )

        return once(services, lambda: {**asked, "source": source, "callback_url": callback_url}, create)

    return api


def _uploaded_photo(services: Services) -> bytes:
    files = uploaded_files(IMAGE_FIELD)
    limit = services.settings.upload_max_bytes
    data = files[0].stream.read(limit + 1)
    read_header(data, max_bytes=limit, max_pixels=services.settings.image_max_pixels)
    return data


def _check(services: Services, parameters: SearchParameters, source: dict[str, Any]) -> None:
    """Refuse now what a worker would have to refuse later."""
    check_terms(services, parameters)
    if source.get("item_id"):
        services.catalogue.item(source["item_id"])
    if source.get("image_url"):
        check_url(source["image_url"], allow_private=services.settings.allow_private_urls)
    check_callback(services, parameters.callback_url)


def check_terms(services: Services, terms: SearchTerms) -> None:
    """Refuse a filter or a group that the catalogue doesn't know.

    Raises:
        InvalidRequest: naming the remedy.
    """
    groups = None if terms.group_by == DUPLICATES else terms.group_by
    if not terms.filter and groups is None:
        return
    types = services.catalogue.attribute_types()
    if terms.filter:
        compile_filter(terms.filter, types)
    if groups is not None:
        check_field(groups, types)


def check_callback(services: Services, callback_url: str | None) -> None:
    """Refuse a callback that could not be delivered.

    Raises:
        CallbackNotConfigured: if this server has no secret to sign with.
        UrlRefused: if the URL is not one that it may call.
    """
    if callback_url is None:
        return
    check_url(callback_url, allow_private=services.settings.allow_private_urls)
    if services.settings.webhook_secret is None:
        raise CallbackNotConfigured("Set LOOKALIKE_WEBHOOK_SECRET on the server, or poll the job instead.")


def _known_result(services: Services, source: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any] | None:
    if "image_url" in source:
        return None  # the same URL may show another photo by now
    state = services.catalogue.state()
    if state.release_id is None:
        return None
    name, value = next(iter(source.items()))
    result = services.results.get(ResultCache.key(state.release_id, state.seq, f"{name}:{value}", asked))
    if result is None:
        return None
    return {**result, "answered_from": AnsweredFrom.RESULT_CACHE.value}
