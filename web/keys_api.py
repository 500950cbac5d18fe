"""Managing API keys over the API; for admins."""

from datetime import UTC, datetime, timedelta

from flask import Response
from flask_openapi import APIBlueprint, Tag
from pydantic import Field

from shared.schemas import Wire
from shared.webhook_secrets import signing_secrets
from web.api_keys import ApiKey, Scope
from web.documentation import PROBLEM_RESPONSES, json_only
from web.forms import json_body
from web.services import Services
from web.waiting import json_response


class KeyRequest(Wire):
    """A key to be made."""

    name: str = Field(min_length=1, max_length=128, description="Whose it is, for people.")
    scopes: list[Scope] = Field(min_length=1, max_length=3, description="search, catalogue, admin (everything).")
    expires_in_days: int | None = Field(None, ge=1, le=3660, description="Unset: it does not expire.")


class RotateRequest(Wire):
    """How a key is replaced."""

    overlap_seconds: int = Field(86_400, ge=0, le=30 * 86_400, description="For so long the old key is good as well.")


class KeyInfo(Wire):
    """A key, without its secret."""

    id: str
    name: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = Field(None, description="To the minute.")
    replaces: str | None = Field(None, description="Id of the key that it took the place of.")


class NewKey(KeyInfo):
    """A key that was just made."""

    key: str = Field(description="What its owner sends as `Authorization: Bearer`. It is shown this once.")
    webhook_secret: str | None = Field(None, description="Verifies the callbacks of its jobs; null: there are none.")


class KeyList(Wire):
    """All keys, the newest first."""

    keys: list[KeyInfo]


class KeyPath(Wire):
    """Which key."""

    key_id: str = Field(pattern=r"^[0-9a-f]{12}$")


def create_keys_api(services: Services) -> APIBlueprint:
    """Create the endpoints that manage keys."""
    tag = Tag(name="keys", description="Who may call the API")
    api = APIBlueprint("keys", __name__, abp_tags=[tag], abp_responses=PROBLEM_RESPONSES)
    keys = services.api_keys

    def made(key: ApiKey, text: str) -> Response:
        secret = next(iter(signing_secrets(services.settings, key.id)), None)
        body = NewKey.model_validate(_told(key) | {"key": text, "webhook_secret": secret}).model_dump_json()
        response = json_response(body.encode())
        response.status_code = 201
        response.headers["Cache-Control"] = "no-store"
        return response

    @api.post("/v1/keys", summary="Make a key", request_body=json_only(KeyRequest), responses={201: NewKey})
    def create_key() -> Response:
        """The answer holds the key itself, this once."""
        asked = KeyRequest.model_validate(json_body())
        days = asked.expires_in_days
        expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
        return made(*keys.create(asked.name, list(dict.fromkeys(asked.scopes)), expires_at))

    @api.get("/v1/keys", summary="List keys", responses={200: KeyList})
    def list_keys() -> Response:
        """Revoked and expired ones too, with when each was last used."""
        found = [KeyInfo.model_validate(_told(key)) for key in keys.all()]
        return json_response(KeyList(keys=found).model_dump_json().encode())

    @api.delete("/v1/keys/<key_id>", summary="Revoke a key", responses={200: KeyInfo})
    def revoke_key(path: KeyPath) -> Response:
        """It is refused everywhere within five seconds."""
        return json_response(KeyInfo.model_validate(_told(keys.revoke(path.key_id))).model_dump_json().encode())

    @api.post(
        "/v1/keys/<key_id>/rotate",
        summary="Replace a key",
        request_body=json_only(RotateRequest),
        responses={201: NewKey},
    )
    def rotate_key(path: KeyPath) -> Response:
        """A new key of the same name and scopes. The old one is good for a while yet, and for so long the callbacks of
        the new one's jobs are signed with the secrets of both.
        """
        asked = RotateRequest.model_validate(json_body())
        return made(*keys.rotate(path.key_id, timedelta(seconds=asked.overlap_seconds)))

    return api


def _told(key: ApiKey) -> dict[str, object]:
    return {name: getattr(key, name) for name in KeyInfo.model_fields} | {"scopes": list(key.scopes)}
