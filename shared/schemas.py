"""The wire: every JSON body of the API, as pydantic models. OpenAPI is made from these."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from shared.attributes import AttributeName, AttributeValue, StorableText, StorableValue

ItemId = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:~@+-]*$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("it must be a number, not true or false")
    return value


# Forms send numbers as text, so those are taken too; true would count as 1.
Integer = Annotated[int, BeforeValidator(_no_truth_value)]
Number = Annotated[float, BeforeValidator(_no_truth_value)]

# As group_by: items whose embeddings are nearly the same make a group. No attribute may have such a name.
DUPLICATES = "@duplicates"
Reason = Literal["catalogue_empty", "no_item_matches_filter", "all_below_min_score", "no_similar_item"]


class Wire(BaseModel):
    """A body of the API; unknown fields are refused, so that a typing error is never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Crop(Wire):
    """The part of the upright photo to search with, as fractions of its width and height."""

    x: Number = Field(ge=0, lt=1, description="Left edge.")
    y: Number = Field(ge=0, lt=1, description="Top edge.")
    width: Number = Field(gt=0, le=1)
    height: Number = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _lies_inside(self) -> Self:
        if self.x + self.width > 1.000001 or self.y + self.height > 1.000001:
            raise ValueError("the crop leaves the photo: x + width and y + height may be at most 1")
        return self


class SearchTerms(Wire):
    """What is asked for, whatever it is searched with."""

    k: Integer = Field(10, ge=1, le=100, description="Wanted number of items.")
    min_score: Number | None = Field(None, ge=-1, le=1, description="Leave out hits below this cosine similarity.")
    filter: dict[str, Any] | None = Field(
        None,
        description='Which items may be found, for example {"colour": "red", "price": {"lt": 50}}. '
        "Operators: eq, ne, in, gt, gte, lt, lte; combine with and, or, not.",
        examples=[{"colour": {"in": ["red", "blue"]}, "price": {"lte": 50}}],
    )
    group_by: str | None = Field(
        None,
        min_length=1,
        max_length=64,
        description=f"Attribute whose values make groups, or {DUPLICATES}: items that look nearly the same. Of each "
        "group the best per_group items are hits. An item without the attribute is a group of its own.",
    )
    per_group: Integer = Field(1, ge=1, le=100, description="Most hits of one group; needs group_by.")

    @model_validator(mode="after")
    def _names_its_groups(self) -> Self:
        if self.group_by is None and self.per_group != 1:
            raise ValueError("per_group needs group_by: name an attribute, or @duplicates")
        return self


class SearchParameters(SearchTerms):
    """What a search asks for, apart from its photo."""

    crop: Crop | None = None
    callback_url: str | None = Field(None, max_length=2048, description="Where to POST the finished job.")


class SearchRequest(SearchParameters):
    """A search by image_url or by item_id, as JSON."""

    image_url: str | None = Field(None, min_length=1, max_length=2048, description="Photo to fetch and search with.")
    item_id: ItemId | None = Field(None, description='Search with an item\'s own images ("more like this").')

    @model_validator(mode="after")
    def _names_one_photo(self) -> Self:
        if (self.image_url is None) == (self.item_id is None):
            raise ValueError(
                "name exactly one of image_url and item_id, or upload the photo as multipart field 'image'"
            )
        return self


class SearchLine(SearchTerms):
    """One line of a batch search."""

    id: str | None = Field(None, max_length=256, description="The client's own reference, repeated with the answer.")
    image_url: str | None = Field(None, min_length=1, max_length=2048, description="Photo to fetch and search with.")
    item_id: ItemId | None = Field(None, description="Search with an item's own images.")
    crop: Crop | None = None

    @model_validator(mode="after")
    def _names_one_photo(self) -> Self:
        if (self.image_url is None) == (self.item_id is None):
            raise ValueError("name exactly one of image_url and item_id")
        return self


class BatchRequest(SearchTerms):
    """A batch search with items, all in the same terms."""

    item_ids: list[str] | None = Field(None, min_length=1, description="Items to search with, one query each.")
    all_items: bool = Field(
        False, strict=True, description="Search with every item of the catalogue, in the order of their ids."
    )
    callback_url: str | None = Field(None, max_length=2048, description="Where to POST the finished job.")

    @model_validator(mode="after")
    def _names_its_queries(self) -> Self:
        if (self.item_ids is not None) == self.all_items:
            raise ValueError("name either item_ids or all_items: true, or send NDJSON as application/x-ndjson")
        return self


class JobKind(StrEnum):
    """What a job does."""

    SEARCH = "search"
    IMPORT = "import"
    REINDEX = "reindex"
    BATCH_SEARCH = "batch_search"


class JobStatus(StrEnum):
    """Where a job stands: queued -> running -> succeeded | failed | cancelled; queued -> cancelled | failed."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the job will never change again."""
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


class AnsweredFrom(StrEnum):
    """Where a search's answer came from."""

    ENGINE = "engine"
    EMBEDDING_CACHE = "embedding_cache"
    RESULT_CACHE = "result_cache"
    SIMILAR_RESULT_CACHE = "similar_result_cache"


class Hit(Wire):
    """One found item."""

    rank: int = Field(ge=1)
    item_id: str
    score: float = Field(description="Cosine similarity of the item's best image, in [-1, 1]; higher is better.")
    title: str
    attributes: dict[str, AttributeValue]
    image_url: str = Field(description="Link of the item's best image.")


class SearchResult(Wire):
    """The answer to a search."""

    hits: list[Hit]
    release: str = Field(description="Encoder and index that answered.")
    catalogue_version: int = Field(description="State of the catalogue that was searched; grows with every change.")
    answered_from: AnsweredFrom
    reason: Reason | None = Field(None, description="Why there are no hits.")
    timings_ms: dict[str, float] = Field(
        description="Milliseconds: queue, refresh, fetch, lookup, decode, batch, embed, search, hits; and total."
    )


class ImportMode(StrEnum):
    """What happens to items that the file doesn't name."""

    UPSERT = "upsert"
    REPLACE = "replace"


class ImportParameters(Wire):
    """How to read and apply a catalogue file."""

    mode: ImportMode = Field(
        ImportMode.UPSERT, description="replace also deletes every item that the file doesn't name."
    )
    format: Literal["csv", "ndjson", "parquet", "zip"] | None = Field(None, description="Unset: told from the content.")
    columns: dict[Literal["id", "title", "image"], str] = Field(
        default_factory=dict, description="Names of the file's columns where they differ from id, title and image."
    )
    encoding: str = Field("utf-8", max_length=32, description="Text encoding of CSV and NDJSON.")
    duplicate_min_cosine: Number | None = Field(
        None,
        ge=0.5,
        le=1,
        description="Cosine from which two items count as near-duplicates; unset: as the release was calibrated.",
    )
    callback_url: str | None = Field(None, max_length=2048)


class ImportRequest(ImportParameters):
    """An import of a file that is on the server already, below its import root."""

    path: str = Field(max_length=1024, description="File, relative to the server's import root.")


class NearDuplicate(Wire):
    """An imported item that looks nearly the same as another one."""

    item_id: str
    duplicate_of: str
    score: float = Field(description="Cosine similarity of their most similar images.")


class ImportResult(Wire):
    """What an import did."""

    rows: int
    imported: int = Field(description="Rows whose item was added, changed, or was as the row says or newer.")
    failed: int = Field(description="Rows left out; GET /v1/jobs/{id}/errors tells why.")
    deleted: int = Field(description="Items that mode replace deleted.")
    deletion_skipped: str | None = Field(None, description="Why mode replace deleted nothing, where that is so.")
    embedded: int = Field(description="Images that had to be embedded; the others were known.")
    skipped_columns: list[str] = Field(
        default_factory=list, description="Columns that were not read, since no filter could name them."
    )
    near_duplicates: int | None = Field(
        None, description="Imported items that look nearly the same as another item of the catalogue; null: not known."
    )
    near_duplicate_pairs: list[NearDuplicate] = Field(
        default_factory=list, description="The first 100 of them, each with the item that it is most like."
    )
    duplicate_min_cosine: float | None = Field(None, description="Cosine from which two items count as such.")
    near_duplicates_skipped: str | None = Field(None, description="Why near-duplicates are not known.")


class RowError(Wire):
    """Why one row of an import was left out."""

    line: int = Field(description="Line of the file (row number in a Parquet file), counted from 1.")
    item_id: str | None = None
    code: str
    detail: str


class RowErrorPage(Wire):
    """Some of the rows that an import left out, by line."""

    errors: list[RowError]
    next_cursor: str | None = None


class ReleaseRequest(Wire):
    """How a release shall be built from the catalogue as it is."""

    encoder: str | None = Field(
        None,
        max_length=256,
        description="Folder of a trained encoder below the server's encoder root; unset: the "
        "encoder that the workers' settings name.",
    )
    runtime: Literal["auto", "openvino-int8", "openvino", "torch"] = Field(
        "auto", description="What shall run the network; auto takes the fastest that passes the accuracy gate."
    )
    label: str | None = Field(
        None, max_length=128, description="String attribute that tells which images belong together; unset: chosen."
    )
    recall_target: Number | None = Field(
        None, gt=0, le=1, description="Share of the ten most similar images to be found; 1: exact search."
    )
    memory_budget_bytes: Integer | None = Field(None, ge=1, description="Most memory that the index may keep.")
    index: str | None = Field(
        None, max_length=128, description="FAISS's description of the index, such as IVF256,SQ8; unset: chosen."
    )
    activate: bool = Field(False, description="Let searches use it as soon as it is built.")
    callback_url: str | None = Field(None, max_length=2048)


class ReleaseInfo(Wire):
    """An encoder and an index that searches can use together."""

    id: str
    encoder_id: str
    runtime: str
    is_active: bool
    is_finished: bool = Field(description="Whether it can be activated; an interrupted build goes on when asked again.")
    built_at: datetime | None = None
    manifest: dict[str, Any] = Field(description="Encoder, index, threshold, comparison, and what was measured.")


class ReleaseList(Wire):
    """All releases, the newest first."""

    releases: list[ReleaseInfo]


class ReindexResult(Wire):
    """What building a release did."""

    release: str
    is_active: bool
    embedded: int = Field(description="Images that had to be embedded; the others were known.")
    seconds: dict[str, float] = Field(description="By step.")
    index: dict[str, Any]
    comparison: dict[str, Any] | None = Field(
        None, description="With the release that was active: Precision@5 of both, and how many of their hits agree."
    )


class BatchResult(Wire):
    """What a batch search did."""

    queries: int
    failed: int = Field(description="Queries that have an error in place of hits.")
    seconds: float = Field(description="Since a worker began with it, waiting for other jobs' turns included.")
    releases: list[str] = Field(description="Encoders and indexes that answered, in order; several if one took over.")
    results: str = Field(description="Link of the answers, one JSON object a line.")


class Progress(Wire):
    """How far a long job is."""

    step: str | None = Field(None, description="What is being done, where a job has several steps.")
    done: int
    failed: int
    total: int | None = Field(None, description="Unknown until the file was read through.")
    rate_per_second: float | None = None
    eta_seconds: float | None = None


class JobError(BaseModel):
    """Why a job failed, with a stable code."""

    model_config = ConfigDict(extra="allow", frozen=True)

    code: str
    title: str
    detail: str


class BatchAnswer(Wire):
    """One line of the results of a batch search, in the order of the queries: hits, or an error."""

    line: int = Field(ge=1, description="Line of the request; position in item_ids or among all items.")
    id: str | None = Field(None, description="The client's own reference.")
    item_id: str | None = None
    image_url: str | None = None
    hits: list[Hit] | None = None
    reason: Reason | None = Field(None, description="Why there are no hits.")
    error: JobError | None = Field(None, description="Why this query has no answer; the others have theirs.")


class Delivery(Wire):
    """One try of a webhook callback, or that it was put off."""

    attempt: int
    at: datetime
    paused: bool = Field(False, description="Nothing was sent: this try was put off, since the endpoint is paused.")
    status: int | None = Field(None, description="HTTP status of the answer; null where there was none.")
    error: str | None = None
    next_attempt_at: datetime | None = None


class Job(Wire):
    """A job as clients see it."""

    id: str
    kind: JobKind
    status: JobStatus
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempts: int = 0
    progress: Progress | None = None
    result: SearchResult | ImportResult | ReindexResult | BatchResult | None = None
    error: JobError | None = None
    deliveries: list[Delivery] = Field(default_factory=list, description="Log of the webhook callback.")
    links: dict[str, str] = Field(
        default_factory=dict, description="self; errors of imports, results of batch searches."
    )


class ItemImage(Wire):
    """One image of an item."""

    position: int = Field(ge=0)
    sha256: Sha256
    url: str


class Item(Wire):
    """A product of the catalogue."""

    id: str
    title: str
    attributes: dict[str, AttributeValue]
    images: list[ItemImage]
    updated_at: datetime


class ItemWrite(Wire):
    """An item as it shall be; what is left out is removed, except images: left out, they stay."""

    title: StorableText = Field("", max_length=1000)
    attributes: dict[AttributeName, StorableValue] = Field(default_factory=dict, max_length=100)
    image_urls: list[Annotated[str, StringConstraints(max_length=2048)]] | None = Field(
        None, min_length=1, max_length=16, description="Images to fetch; or upload them as multipart fields 'image'."
    )


class ItemPage(Wire):
    """Some items, by id."""

    items: list[Item]
    next_cursor: str | None = None


class Attribute(Wire):
    """A field that a filter may name."""

    name: str
    type: Literal["string", "number", "boolean"]
    values: list[str] | None = Field(None, description="Most frequent values of a string field.")
    minimum: float | None = None
    maximum: float | None = None


class AttributeList(Wire):
    """The fields of the catalogue."""

    attributes: list[Attribute]


class Problem(BaseModel):
    """An RFC 9457 problem body; `code` is stable."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str | None = None


class Readiness(Wire):
    """Whether the service can take work, part by part."""

    ready: bool
    checks: dict[str, str] = Field(description="`ok`, or what is wrong, for redis and database.")
    warnings: dict[str, str] = Field(
        default_factory=dict, description="What waits, and why, for each queue that no worker serves."
    )
    search_workers: int
    bulk_workers: int
