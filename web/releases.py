"""Releases: build one in the background, compare it, let searches use it, go back."""

from datetime import datetime

from flask import Response
from flask_openapi import APIBlueprint, Tag
from pydantic import Field

from shared.releases import Release, choose_release, encoder_folder, find_release, registered_releases
from shared.schemas import Job, JobKind, ReleaseInfo, ReleaseList, ReleaseRequest, Wire
from web.documentation import PROBLEM_RESPONSES, json_only
from web.forms import json_body
from web.idempotency import once
from web.searches import check_callback
from web.services import Services
from web.waiting import json_response, send_job


class ReleasePath(Wire):
    """Which release."""

    release_id: str = Field(max_length=128, pattern=r"^[A-Za-z0-9._-]+$")


def create_releases_api(services: Services) -> APIBlueprint:
    """Create the endpoints of releases."""
    tag = Tag(name="releases", description="Encoder and index that searches use")
    api = APIBlueprint("releases", __name__, abp_tags=[tag], abp_responses=PROBLEM_RESPONSES)

    @api.post(
        "/v1/releases",
        summary="Build a release from the catalogue",
        request_body=json_only(ReleaseRequest),
        responses={200: Job, 202: Job},
    )
    def create_release() -> Response:
        """202 with a job that chooses the runtime, embeds the catalogue, calibrates similar hits, builds the index and
        compares it with the active release. Searches go on meanwhile; unless `activate` is set they do so afterwards.
        """
        asked = ReleaseRequest.model_validate(json_body())
        check_callback(services, asked.callback_url)
        if asked.encoder is not None:
            encoder_folder(services.settings.encoder_root, asked.encoder)  # refused now instead of by the worker
        parameters = asked.model_dump(mode="json", exclude={"callback_url"})
        return once(
            services,
            lambda: asked.model_dump(mode="json"),
            lambda job_id: send_job(services, job_id, JobKind.REINDEX, parameters, callback_url=asked.callback_url),
        )

    @api.get("/v1/releases", summary="List releases", responses={200: ReleaseList})
    def list_releases() -> Response:
        """The newest first, with what was measured of each."""
        active = services.catalogue.state().release_id
        found = [_told(release, active) for release in registered_releases(services.catalogue)]
        return json_response(ReleaseList(releases=found).model_dump_json().encode())

    @api.get("/v1/releases/<release_id>", summary="Read a release", responses={200: ReleaseInfo})
    def read_release(path: ReleasePath) -> Response:
        """Its manifest tells what it consists of and what was measured."""
        release = find_release(services.catalogue, path.release_id)
        return json_response(_told(release, services.catalogue.state().release_id).model_dump_json().encode())

    @api.post("/v1/releases/<release_id>/activate", summary="Let searches use a release", responses={200: ReleaseInfo})
    def activate_release(path: ReleasePath) -> Response:
        """Each search worker opens it beside the present one and changes over without a lost search, within seconds.
        It stays until another one is activated, whatever encoder the settings name; so one goes back as well.
        """
        release = choose_release(services.catalogue, find_release(services.catalogue, path.release_id))
        return json_response(_told(release, release.id).model_dump_json().encode())

    return api


def _told(release: Release, active_id: str | None) -> ReleaseInfo:
    built_at = release.manifest.get("built_at")
    return ReleaseInfo(
        id=release.id,
        encoder_id=release.encoder_id,
        runtime=release.runtime,
        is_active=release.id == active_id,
        is_finished=release.is_finished,
        built_at=None if built_at is None else datetime.fromisoformat(built_at),
        manifest=release.manifest,
    )
