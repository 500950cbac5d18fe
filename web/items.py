"""Single items: read, write, delete, list, and their images."""

import base64
from typing import Any

from flask import Response, jsonify, request
from flask_openapi import APIBlueprint, Tag
from pydantic import Field, TypeAdapter

from shared.catalogue_change import ItemChange
from shared.errors import ImageNotFound, InvalidParameter, ItemNotFound
from shared.image_header import read_header
from shared.image_metadata import without_metadata
from shared.jobs import new_job_id
from shared.schemas import AttributeList, Item, ItemId, ItemPage, ItemWrite, Job, Wire
from shared.urls import check_url
from web.access import check_link
from web.documentation import PROBLEM_RESPONSES, multipart_or_json, one_of
from web.forms import form_fields, is_multipart, json_body, receive_photos, uploaded_files
from web.imports import enqueue_import
from web.pieces import pieces
from web.services import Services

IMAGE_FIELD = "image"
MAX_IMAGES = 16
_ITEM_ID: TypeAdapter[str] = TypeAdapter(ItemId)


class ItemPath(Wire):
    """Which item."""

    item_id: ItemId


class PageQuery(Wire):
    """Which page."""

    limit: int = Field(50, ge=1, le=500)
    cursor: str | None = Field(None, description="next_cursor of the page before.")


class ImageQuery(Wire):
    """Which image."""

    position: int = Field(0, ge=0, lt=2**31)
    v: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{12,64}$",
        description="Start of the image's SHA-256, 12 digits or more, in links that may be kept for good.",
    )


class ItemForm(Wire):
    """Text fields of an item that comes with its photos."""

    item: ItemWrite = Field(default_factory=lambda: ItemWrite(title=""), description="The item, as JSON.")


def encode_cursor(item_id: str) -> str:
    """Return the opaque cursor that continues behind an item."""
    return base64.urlsafe_b64encode(item_id.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """Return the item that a cursor continues behind.

    Raises:
        InvalidParameter: if it was not made by `encode_cursor`.
    """
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        return _ITEM_ID.validate_python(text)
    except ValueError:  # the base of what base64, decode and pydantic raise
        raise InvalidParameter("cursor must be the next_cursor of the page before.", parameter="cursor") from None


def create_items_api(services: Services) -> APIBlueprint:
    """Create the endpoints of the catalogue's items."""
    tag = Tag(name="items", description="Single products")
    api = APIBlueprint("items", __name__, abp_tags=[tag], abp_responses=PROBLEM_RESPONSES)

    @api.get("/v1/items", summary="List items", responses={200: ItemPage})
    def list_items(query: PageQuery) -> Response:
        """By id; follow `next_cursor` until there is none."""
        items = services.catalogue.page(query.limit, decode_cursor(query.cursor) if query.cursor else None)
        cursor = encode_cursor(items[-1].id) if len(items) == query.limit else None
        return jsonify(ItemPage(items=items, next_cursor=cursor).model_dump(mode="json"))

    @api.get("/v1/items/<item_id>", summary="Read an item", responses={200: Item})
    def read_item(path: ItemPath) -> Response:
        """Title, attributes and images."""
        return jsonify(services.catalogue.item(path.item_id).model_dump(mode="json"))

    @api.put(
        "/v1/items/<item_id>",
        summary="Add or replace an item",
        request_body=multipart_or_json(
            ItemForm, {IMAGE_FIELD: "New photos of the item."}, ItemWrite, at_least=0, at_most=MAX_IMAGES
        ),
        responses={200: one_of(Item, Job), 201: Item, 202: Job},
    )
    def write_item(path: ItemPath) -> Response:
        """With new images: 202 and a job (200 with `Prefer: wait=N`), since they must be embedded first.
        Without: the item at once, 200 or 201 if it is new; its images stay as they are.
        """
        uploads: list[str] = []
        if is_multipart():
            receive_photos(services.settings.upload_max_bytes, at_most=MAX_IMAGES)
            body = ItemForm.model_validate(form_fields(("item",))).item
            uploads = _keep_photos(services) if request.files else []
        else:
            body = ItemWrite.model_validate(json_body())
        for url in body.image_urls or []:
            check_url(url, allow_private=services.settings.allow_private_urls)
        if uploads or body.image_urls:
            parameters = {**body.model_dump(mode="json"), "item_id": path.item_id, "uploads": uploads}
            return enqueue_import(services, new_job_id(), parameters, uploads)
        return _write_now(services, path.item_id, body)

    @api.delete("/v1/items/<item_id>", summary="Delete an item", responses={204: None})
    def delete_item(path: ItemPath) -> tuple[str, int]:
        """The item is gone from every search worker within two seconds."""
        with services.catalogue.change() as change:
            deleted = change.delete([path.item_id])
        if not deleted:
            raise ItemNotFound(f"There is no item {path.item_id!r} in the catalogue.", item_id=path.item_id)
        return "", 204

    @api.get("/v1/items/<item_id>/image", summary="An item's image", responses={200: {"description": "The image."}})
    def read_image(path: ItemPath, query: ImageQuery) -> Response:
        """As it was imported, without camera data; the links of hits and items may be cached for good."""
        try:
            sha256, media_type = services.catalogue.image(path.item_id, query.position)
        except ImageNotFound:
            check_link(False)  # who has neither key nor link is not told which items there are
            raise
        response = Response(content_type=media_type)
        response.set_etag(sha256)
        is_permanent = query.v is not None and sha256.startswith(query.v)
        check_link(is_permanent)
        lifetime = "public, max-age=31536000, immutable" if is_permanent else "no-cache"
        response.headers["Cache-Control"] = lifetime
        response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"  # a shop's own page shows its hits
        if request.if_none_match.contains(sha256):
            response.status_code = 304
            return response
        try:
            image = services.store.image(sha256)
        except FileNotFoundError:
            raise ImageNotFound(f"The image of item {path.item_id!r} is not in the store; import it again.") from None
        # Images of earlier versions are in the store as they came.
        data = image if services.settings.keep_image_metadata else without_metadata(image)
        response.response, response.content_length = pieces(data), len(data)
        return response

    @api.get("/v1/attributes", summary="Fields that a filter may name", responses={200: AttributeList})
    def list_attributes() -> Response:
        """With their types, and their most frequent values or their range."""
        return jsonify(AttributeList(attributes=services.catalogue.attributes()).model_dump(mode="json"))

    return api


def _keep_photos(services: Services) -> list[str]:
    """Check the headers of uploaded photos and move them to the store for the worker; returns their keys."""
    files = uploaded_files(IMAGE_FIELD, at_most=MAX_IMAGES)
    settings = services.settings
    photos = [file.stream.read(settings.upload_max_bytes + 1) for file in files]
    for data in photos:
        read_header(data, max_bytes=settings.upload_max_bytes, max_pixels=settings.image_max_pixels)
    folder = services.store.new_upload_folder()
    keys = [f"{folder}/{number}" for number in range(len(photos))]
    for key, data in zip(keys, photos, strict=True):
        with services.store.writing(key) as file:
            file.write(data)
    return keys


def _write_now(services: Services, item_id: str, body: ItemWrite) -> Response:
    attributes: dict[str, Any] = dict(body.attributes)
    with services.catalogue.change() as change:
        is_new = change.is_absent(item_id)
        change.put([ItemChange(item_id, body.title, attributes, None)])
    response = jsonify(services.catalogue.item(item_id).model_dump(mode="json"))
    response.status_code = 201 if is_new else 200
    return response
