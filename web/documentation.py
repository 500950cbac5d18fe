"""The OpenAPI document: what the endpoints' own schemas don't say by themselves."""

from typing import Any

from flask_openapi import MediaType, RequestBody
from pydantic import BaseModel

from shared.errors import InvalidRequest, LimitReached, Unavailable
from web.errors import PROBLEM_TYPE, status_of

REFERENCE = "#/components/schemas/{model}"
_PROBLEM = {PROBLEM_TYPE: {"schema": {"$ref": REFERENCE.format(model="Problem")}}}
# What any endpoint may answer with.
PROBLEM_RESPONSES: dict[int | str, Any] = {
    status_of(InvalidRequest): {
        "description": "The request is not valid; `detail` names the remedy.",
        "content": _PROBLEM,
    },
    status_of(LimitReached): {
        "description": "More than one client's share; come again after the seconds that `Retry-After` names.",
        "content": _PROBLEM,
    },
    status_of(Unavailable): {
        "description": "Try again after the seconds that `Retry-After` names.",
        "content": _PROBLEM,
    },
    "default": {"description": "Any other failure; `code` is stable.", "content": _PROBLEM},
}


def component_schemas(*models: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schemas of models, and of all that they hold, for `components.schemas`."""
    schemas: dict[str, Any] = {}
    for model in models:
        schema = model.model_json_schema(ref_template=REFERENCE)
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    return schemas


def one_of(*models: type[BaseModel]) -> dict[str, Any]:
    """Describe an answer that is one of several models, each of which another endpoint answers with too."""
    schemas = [{"$ref": REFERENCE.format(model=model.__name__)} for model in models]
    return {"content": {"application/json": {"schema": {"anyOf": schemas}}}}


def json_only(body: type[BaseModel]) -> RequestBody:
    """Describe a body that is a JSON object."""
    schema = {"$ref": REFERENCE.format(model=body.__name__)}
    return RequestBody(content={"application/json": MediaType.model_validate({"schema": schema})})


def multipart_or_json(
    fields: type[BaseModel], files: dict[str, str], body: type[BaseModel], *, at_least: int = 1, at_most: int = 1
) -> RequestBody:
    """Describe a body that is either a form with files or a JSON object.

    Args:
        fields: model of the form's text fields.
        files: file fields and what each of them is.
        body: model of the JSON object.
        at_least: how often each file field must come; 0 or 1.
        at_most: how often it may come.
    """
    properties = fields.model_json_schema(ref_template=REFERENCE)["properties"]
    file: dict[str, Any] = {"type": "string", "format": "binary"}
    kind = file if at_most == 1 else {"type": "array", "items": file, "maxItems": at_most}
    binary = {name: {**kind, "description": text} for name, text in files.items()}
    form = {"type": "object", "properties": {**binary, **properties}, "required": list(files) if at_least else []}
    return RequestBody(
        content={
            "multipart/form-data": MediaType.model_validate({"schema": form}),
            "application/json": MediaType.model_validate({"schema": {"$ref": REFERENCE.format(model=body.__name__)}}),
        }
    )


def ndjson_or_json(line: type[BaseModel], body: type[BaseModel]) -> RequestBody:
    """Describe a body that is either lines of JSON, each of one model, or a JSON object of another."""
    kinds = {"application/x-ndjson": line, "application/json": body}
    return RequestBody(
        content={
            media_type: MediaType.model_validate({"schema": {"$ref": REFERENCE.format(model=model.__name__)}})
            for media_type, model in kinds.items()
        }
    )


def ndjson(line: type[BaseModel]) -> dict[str, Any]:
    """Describe an answer that is lines of JSON, each of one model."""
    schema = {"$ref": REFERENCE.format(model=line.__name__)}
    return {"description": line.__doc__, "content": {"application/x-ndjson": {"schema": schema}}}
