"""Every failure that Lookalike names, in one tree.

    LookalikeError
    ├── InvalidRequest            the caller can mend it
    │   ├── InvalidParameter          invalid_parameter
    │   ├── InvalidFilter             filter_invalid
    │   ├── UnknownFilterField        filter_field_unknown
    │   ├── FilterTypeMismatch        filter_type_mismatch
    │   ├── UrlRefused                url_refused
    │   ├── CallbackNotConfigured     callback_not_configured
    │   ├── PathRefused               path_refused
    │   ├── EncoderNotFound           encoder_not_found
    │   └── IdempotencyKeyReused      idempotency_key_reused
    ├── InvalidImage              the photo can't be searched or indexed
    │   ├── EmptyImage                image_empty
    │   ├── UnsupportedImage          image_unsupported
    │   ├── ImageTooLarge             image_too_large
    │   ├── TooManyPixels             image_too_many_pixels
    │   ├── TooManyParts              image_too_many_parts
    │   ├── BrokenImage               image_broken
    │   └── ImageFetchFailed          image_fetch_failed
    ├── InvalidImport             the catalogue file can't be read
    │   ├── ImportFormatUnknown       import_format_unknown
    │   ├── ImportColumnsMissing      import_columns_missing
    │   ├── ImportEmpty               import_empty
    │   ├── ImportTooLarge            import_too_large
    │   ├── ImportFileBroken          import_file_broken
    │   ├── ArchiveUnsafe             archive_unsafe
    │   └── ArchiveTooLarge           archive_too_large
    ├── InvalidRow                one row of an import is left out
    │   ├── RowInvalid                row_invalid
    │   ├── RowEncoding               row_encoding
    │   ├── DuplicateId               duplicate_id
    │   ├── ImageMissing              image_missing
    │   └── AttributeTypeMismatch     attribute_type_mismatch
    ├── AccessDenied              the caller may not
    │   ├── ApiKeyMissing             api_key_missing
    │   ├── ApiKeyInvalid             api_key_invalid
    │   ├── ScopeMissing              scope_missing
    │   ├── HostRefused               host_refused
    │   └── OriginRefused             origin_refused
    ├── LimitReached              the client takes more than its share
    │   ├── RateLimited               rate_limited
    │   └── TooManyJobs               too_many_jobs
    ├── InvalidBatch              the queries can't be read
    │   ├── BatchEmpty                batch_empty
    │   ├── BatchTooLarge             batch_too_large
    │   └── BatchUnreadable           batch_unreadable
    ├── NotFound
    │   ├── JobNotFound               job_not_found
    │   ├── ItemNotFound              item_not_found
    │   ├── ImageNotFound             image_not_found
    │   ├── ReleaseNotFound           release_not_found
    │   ├── ApiKeyNotFound            api_key_not_found
    │   └── ResultsNotFound           results_not_found
    ├── JobAlreadyFinished            job_already_finished
    ├── ReleaseNotFinished            release_not_finished
    ├── IdempotencyKeyInUse           idempotency_key_in_use
    ├── Unavailable               try again later
    │   ├── QueueFull                 queue_full
    │   ├── RedisUnavailable          redis_unavailable
    │   ├── IndexUnavailable          index_unavailable
    │   ├── StoreFull                 store_full
    │   └── DatabaseUnavailable       database_unavailable
    └── JobFailure                the job ended without an answer
        ├── ReleaseNotBuilt           release_not_built
        ├── WorkerLost                worker_lost
        ├── DeadlineExceeded          deadline_exceeded
        └── Internal                  internal

An exception's docstring is its title; `code` is stable and part of the API; `detail` says what happened
and what to do about it. HTTP statuses live in web/errors.py alone.
"""

from typing import Any, ClassVar


class LookalikeError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = ""

    def __init__(self, detail: str, **members: Any) -> None:
        """Args:
        detail: one or two sentences for the caller: what is wrong and the remedy.
        members: further JSON values for the problem body, such as `known_fields`.
        """
        super().__init__(detail)
        self.detail = detail
        self.members = members

    @classmethod
    def title(cls) -> str:
        """Return the short, constant summary of this kind of failure."""
        return (cls.__doc__ or "").strip().splitlines()[0].rstrip(".")

    def to_wire(self) -> dict[str, Any]:
        """Return the failure as data, as it stands in a job record and in a problem body."""
        return {"code": self.code, "title": self.title(), "detail": self.detail, **self.members}


class InvalidRequest(LookalikeError):
    """The request is not valid."""


class InvalidParameter(InvalidRequest):
    """A parameter is not valid."""

    code = "invalid_parameter"


class InvalidFilter(InvalidRequest):
    """The filter can't be read."""

    code = "filter_invalid"


class UnknownFilterField(InvalidRequest):
    """The filter names a field that the catalogue doesn't have."""

    code = "filter_field_unknown"


class FilterTypeMismatch(InvalidRequest):
    """The filter compares a field with a value of another type."""

    code = "filter_type_mismatch"


class UrlRefused(InvalidRequest):
    """The URL is not one that this server may call."""

    code = "url_refused"


class CallbackNotConfigured(InvalidRequest):
    """This server has no webhook secret, so it can't sign callbacks."""

    code = "callback_not_configured"


class PathRefused(InvalidRequest):
    """The path is outside of what this server may read."""

    code = "path_refused"


class EncoderNotFound(InvalidRequest):
    """There is no such encoder on this server."""

    code = "encoder_not_found"


class IdempotencyKeyReused(InvalidRequest):
    """The idempotency key belongs to another request."""

    code = "idempotency_key_reused"


class InvalidImage(LookalikeError):
    """The image can't be used."""


class EmptyImage(InvalidImage):
    """The image has no bytes."""

    code = "image_empty"


class UnsupportedImage(InvalidImage):
    """The file is not an image of a supported format."""

    code = "image_unsupported"


class ImageTooLarge(InvalidImage):
    """The image has too many bytes."""

    code = "image_too_large"


class TooManyPixels(InvalidImage):
    """The image has too many pixels."""

    code = "image_too_many_pixels"


class TooManyParts(InvalidImage):
    """The image's file is made of too many parts."""

    code = "image_too_many_parts"


class BrokenImage(InvalidImage):
    """The image is truncated or corrupt."""

    code = "image_broken"


class ImageFetchFailed(InvalidImage):
    """The image could not be fetched from its URL."""

    code = "image_fetch_failed"


class InvalidImport(LookalikeError):
    """The catalogue file can't be imported."""


class ImportFormatUnknown(InvalidImport):
    """The file is not CSV, NDJSON, Parquet or a ZIP of these."""

    code = "import_format_unknown"


class ImportColumnsMissing(InvalidImport):
    """The catalogue file lacks a column that an import needs."""

    code = "import_columns_missing"


class ImportEmpty(InvalidImport):
    """The catalogue file has no rows."""

    code = "import_empty"


class ImportTooLarge(InvalidImport):
    """The catalogue file has too many bytes."""

    code = "import_too_large"


class ImportFileBroken(InvalidImport):
    """The catalogue file is truncated or corrupt."""

    code = "import_file_broken"


class ArchiveUnsafe(InvalidImport):
    """The ZIP names files outside of itself."""

    code = "archive_unsafe"


class ArchiveTooLarge(InvalidImport):
    """The ZIP would unpack to far more than it may."""

    code = "archive_too_large"


class InvalidRow(LookalikeError):
    """The row was left out."""


class RowInvalid(InvalidRow):
    """The row can't be read as an item."""

    code = "row_invalid"


class RowEncoding(InvalidRow):
    """The row is not valid UTF-8."""

    code = "row_encoding"


class DuplicateId(InvalidRow):
    """An earlier row has the same id."""

    code = "duplicate_id"


class ImageMissing(InvalidRow):
    """The row's image is not there."""

    code = "image_missing"


class AttributeTypeMismatch(InvalidRow):
    """An attribute has another type than in the catalogue."""

    code = "attribute_type_mismatch"


class AccessDenied(LookalikeError):
    """The caller may not do this."""


class ApiKeyMissing(AccessDenied):
    """An API key is needed."""

    code = "api_key_missing"


class ApiKeyInvalid(AccessDenied):
    """The API key is not good for anything."""

    code = "api_key_invalid"


class ScopeMissing(AccessDenied):
    """The API key is not good for this."""

    code = "scope_missing"


class HostRefused(AccessDenied):
    """A server that is open to this machine alone was called by another name."""

    code = "host_refused"


class OriginRefused(AccessDenied):
    """A page of another site may not change anything here."""

    code = "origin_refused"


class LimitReached(LookalikeError):
    """The client takes more than its share."""


class RateLimited(LimitReached):
    """The client sent too many requests."""

    code = "rate_limited"


class TooManyJobs(LimitReached):
    """The client has too many unfinished jobs."""

    code = "too_many_jobs"


class InvalidBatch(LookalikeError):
    """The queries can't be searched with."""


class BatchEmpty(InvalidBatch):
    """There is no query."""

    code = "batch_empty"


class BatchTooLarge(InvalidBatch):
    """The queries have too many bytes."""

    code = "batch_too_large"


class BatchUnreadable(InvalidBatch):
    """None of the lines can be read as a search."""

    code = "batch_unreadable"


class NotFound(LookalikeError):
    """There is no such thing."""


class JobNotFound(NotFound):
    """There is no such job, or its record has expired."""

    code = "job_not_found"


class ItemNotFound(NotFound):
    """There is no such item."""

    code = "item_not_found"


class ImageNotFound(NotFound):
    """The item has no such image."""

    code = "image_not_found"


class ReleaseNotFound(NotFound):
    """There is no such release."""

    code = "release_not_found"


class ApiKeyNotFound(NotFound):
    """There is no such API key."""

    code = "api_key_not_found"


class ResultsNotFound(NotFound):
    """The job has no results to read."""

    code = "results_not_found"


class JobAlreadyFinished(LookalikeError):
    """The job has ended and can't be cancelled."""

    code = "job_already_finished"


class IdempotencyKeyInUse(LookalikeError):
    """A request with this idempotency key is being accepted at this moment."""

    code = "idempotency_key_in_use"


class ReleaseNotFinished(LookalikeError):
    """The release is not built to its end."""

    code = "release_not_finished"


class Unavailable(LookalikeError):
    """The service can't do this now."""


class QueueFull(Unavailable):
    """Too many jobs wait already."""

    code = "queue_full"


class RedisUnavailable(Unavailable):
    """The queue is out of reach."""

    code = "redis_unavailable"


class IndexUnavailable(Unavailable):
    """The index is out of reach."""

    code = "index_unavailable"


class StoreFull(Unavailable):
    """The store has no room."""

    code = "store_full"


class DatabaseUnavailable(Unavailable):
    """The catalogue database is out of reach."""

    code = "database_unavailable"


class JobFailure(LookalikeError):
    """The job ended without an answer."""


class ReleaseNotBuilt(JobFailure):
    """The release could not be built."""

    code = "release_not_built"


class WorkerLost(JobFailure):
    """Every worker that tried the job died."""

    code = "worker_lost"


class DeadlineExceeded(JobFailure):
    """The job was not done in time."""

    code = "deadline_exceeded"


class Internal(JobFailure):
    """An unforeseen error, logged with the job's id."""

    code = "internal"
