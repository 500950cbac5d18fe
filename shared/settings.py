"""All settings: read once from the environment (and `.env`), frozen, each with its unit in its name."""

import base64
import binascii
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.contradictions import contradictions

ENV_PREFIX = "LOOKALIKE_"

MIB = 1024 * 1024
GIB = 1024 * MIB
MIN_SECRET_BYTES = 16

_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")


class InvalidSettings(SystemExit):
    """The environment holds values that can't be used; the message names each of them."""


class Settings(BaseSettings):
    """What an operator can set. docs/settings.md and .env.example list the same fields, by test."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_file=".env",
        env_ignore_empty=True,  # `NAME=` in .env or in a compose file means unset
        frozen=True,
        extra="ignore",
        hide_input_in_errors=False,
    )

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        pattern=r"^(rediss?|unix)://",
        validation_alias=AliasChoices("REDIS_URL"),
        description="Redis or Valkey server for the queue, job records and caches.",
    )
    database_url: str = Field(
        "sqlite:///var/lookalike.sqlite3",
        pattern=r"^(sqlite|postgresql(\+psycopg)?|postgres)://",
        validation_alias=AliasChoices("DATABASE_URL"),
        description="SQL database of items, embeddings and releases: sqlite:///file or postgresql://.",
    )
    store_url: str = Field(
        "var/store",
        description="fsspec folder or URL (for example s3://bucket/prefix) of images and uploaded catalogues.",
    )
    encoder_root: Path | None = Field(
        None, description="Folder on the server with trained encoders that releases may be built of; unset: none."
    )
    import_root: Path | None = Field(
        None, description="Folder on the server whose catalogue files clients may import by path; unset: none."
    )
    web_bind: str = Field("127.0.0.1:8000", description="Address and port that the web tier listens on.")
    web_threads: int = Field(
        272,
        ge=2,
        le=1024,
        description="Threads of one web process; each waiting client holds one, up to three quarters.",
    )

    access: Literal["auto", "keys", "open"] = Field(
        "auto",
        description="Whether requests need an API key: keys always, open never, "
        "auto unless this machine alone reaches web.",
    )
    trusted_proxies: int = Field(
        0, ge=0, le=10, description="Proxies in front of web that add the client's address to X-Forwarded-For; 0: none."
    )
    allowed_origins: str | None = Field(
        None,
        description="Origins whose pages may call the API from a browser, separated by commas; unset: its own alone.",
    )

    client_max_searches_per_minute: int = Field(
        6000, ge=0, description="Most searches that one client may send in a minute; 0: any number."
    )
    client_max_bulk_jobs_per_minute: int = Field(
        60, ge=0, description="Most imports, batch searches and releases of one client in a minute; 0: any number."
    )
    client_max_requests_per_minute: int = Field(
        30_000, ge=0, description="Most other requests that one client may send in a minute; 0: any number."
    )
    client_max_unfinished_searches: int = Field(
        1000, ge=0, description="Most jobs of one client that wait or run on the search queue; 0: any number."
    )
    client_max_unfinished_bulk_jobs: int = Field(
        100, ge=0, description="Most jobs of one client that wait or run on the bulk queue; 0: any number."
    )
    search_queue_max_messages: int = Field(
        5000, ge=0, description="Most messages that wait on the search queue; 0: any number."
    )
    bulk_max_unfinished_jobs: int = Field(
        1000, ge=0, description="Most jobs of all clients that wait or run on the bulk queue; 0: any number."
    )

    encoder: Literal[
        "tf_efficientnet_lite0", "tf_efficientnet_lite2", "resnet50", "resnet101", "efficientnet_b4", "vit_b_16"
    ] = Field("tf_efficientnet_lite0", description="Backbone that turns images into embeddings.")
    encoder_weights_path: Path | None = Field(
        None,
        description="Weights file (.safetensors or .pth) or folder of a trained encoder; unset: the backbone's own.",
    )
    encoder_threads: int = Field(2, ge=1, le=64, description="CPU threads of all forward passes of a worker.")
    encoder_runtime: Literal["auto", "openvino-int8", "openvino", "torch"] = Field(
        "auto", description="What runs the encoder of a new release; auto: the fastest that passes the accuracy gate."
    )
    encoder_cache_path: Path = Field(
        Path("var/encoders"),
        description="Local folder of compiled encoders and index snapshots; may be deleted at any time.",
    )
    index_url: str | None = Field(
        None,
        pattern=r"^(https?://.+|[^:]+\.db)$",
        description="Milvus for the index: http://host:19530, or a local file .db; unset: FAISS in the worker.",
    )
    index_token: SecretStr | None = Field(
        None, description="What Milvus asks for, user:password or an API key; unset: nothing."
    )
    index_kept_snapshots: int = Field(
        2, ge=1, le=100, description="How many builds of an index stay on a worker's disk, the present one included."
    )
    batch_max_images: int = Field(4, ge=1, le=256, description="Most photos of one forward pass of a search worker.")
    waiting_max_images: int = Field(
        64, ge=1, le=4096, description="Most photos that wait for the model of a search worker; further ones hold on."
    )

    upload_max_bytes: int = Field(20 * MIB, ge=1024, description="Largest photo that is accepted.")
    image_max_pixels: int = Field(50_000_000, ge=1, description="Largest width x height of a photo.")
    keep_image_metadata: bool = Field(
        False,
        description="Keep and return what files of items' images tell besides the picture, such as camera and place.",
    )
    import_max_bytes: int = Field(
        2 * GIB, ge=1024, description="Largest catalogue file, or batch of queries, that is accepted."
    )
    import_unpacked_max_bytes: int = Field(8 * GIB, ge=1024, description="Most bytes that a ZIP may unpack to.")
    import_chunk_rows: int = Field(
        256,
        ge=1,
        le=10_000,
        description="Most rows of one import task, and about as many photos; the unit of resumption.",
    )

    job_ttl_seconds: int = Field(86_400, ge=60, description="How long a finished job and its result can be read.")
    search_deadline_seconds: int = Field(120, ge=1, description="A search that is not done by then fails.")
    job_lease_seconds: int = Field(15, ge=2, description="A running job whose worker is silent this long is run again.")
    job_step_max_seconds: int = Field(
        3000, ge=2, description="An import or batch search without a sign for so long hangs: its process ends."
    )
    job_max_attempts: int = Field(3, ge=1, le=20, description="How often a job is tried before it fails.")
    wait_max_seconds: int = Field(30, ge=0, le=300, description="Longest `?wait=` and `Prefer: wait=`.")
    retry_after_seconds: int = Field(1, ge=1, description="What Retry-After advises to clients that poll.")

    cache_ttl_seconds: int = Field(3600, ge=0, description="How long embeddings and results are cached; 0: not at all.")
    similar_min_cosine: float | None = Field(
        None,
        ge=0.5,
        le=1.0,
        description="Cosine from which embeddings share a result; unset: as the release was calibrated; 1: equal ones.",
    )
    refresh_interval_seconds: float = Field(
        0.5, gt=0, le=2, description="How often a search worker looks for catalogue changes."
    )

    allow_private_urls: bool = Field(
        False, description="Let image_url and callback_url name loopback and private addresses."
    )
    fetch_timeout_seconds: float = Field(10, gt=0, le=120, description="Longest fetch of an image by URL.")
    webhook_secret: SecretStr | None = Field(
        None, description="Signs callbacks (Standard Webhooks, `whsec_` + base64); unset: callbacks are refused."
    )
    webhook_secret_previous: SecretStr | None = Field(
        None,
        description="Signs callbacks as well, until their receivers know the present secret; unset: one signature.",
    )
    webhook_timeout_seconds: float = Field(10, gt=0, le=60, description="Longest wait for a callback's answer.")
    webhook_max_attempts: int = Field(8, ge=1, le=20, description="How often a callback is tried.")
    webhook_backoff_seconds: float = Field(
        5, gt=0, description="Wait before the second try of a callback; doubles with each further try."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level that is logged.")
    log_format: Literal["text", "json"] = Field(
        "text", description="Form of log lines: text for people, json for one object a line."
    )
    traces_url: str | None = Field(
        None,
        pattern=r"^https?://.+",
        description="Where an OpenTelemetry collector takes traces (OTLP over HTTP); unset: none are made.",
    )

    @property
    def origins(self) -> frozenset[str]:
        """The origins of `allowed_origins`."""
        return frozenset(_listed(self.allowed_origins))

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, origins: str | None) -> str | None:
        """Refuse what no browser sends as its origin, and `*`: who may call is to be said one by one."""
        for origin in _listed(origins):
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is no origin such as https://shop.example, in lower case and without a path"
                )
        return origins

    @field_validator("webhook_secret", "webhook_secret_previous")
    @classmethod
    def _can_sign(cls, secret: SecretStr | None) -> SecretStr | None:
        """Refuse what Standard Webhooks can't sign with; said at the start, not at the first callback."""
        if secret is not None:
            prefix, _, key = secret.get_secret_value().partition("_")
            try:
                is_usable = prefix == "whsec" and len(base64.b64decode(key, validate=True)) >= MIN_SECRET_BYTES
            except binascii.Error:
                is_usable = False
            if not is_usable:
                raise ValueError(
                    f"it must be whsec_ and the base64 of at least {MIN_SECRET_BYTES} random bytes, "
                    "such as `openssl rand -base64 32` prints"
                )
        return secret


def variable_name(field: str) -> str:
    """Return the environment variable that sets `field`."""
    return field.upper() if field in ("redis_url", "database_url") else f"{ENV_PREFIX}{field.upper()}"


def _listed(text: str | None) -> list[str]:
    """Return what stands between commas."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _without_password(value: Any) -> Any:
    """Return a value as it may be shown: an address without what stands before its last @, or in `password=`."""
    if not isinstance(value, str):
        return value
    value = re.sub(r"(?is)^([a-z][a-z0-9+.-]*://)?.*@", r"\1***@", value)
    return re.sub(r"(?i)(password=)[^&]*", r"\1***", value)


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        InvalidSettings: naming every bad variable, its value without passwords, and what is wrong with it; or those
            that contradict each other.
    """
    try:
        settings = Settings()
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            field = str(problem["loc"][0])
            name = field if field.isupper() else variable_name(field)
            is_secret = re.search("secret|token", field.lower())
            value = "(hidden)" if is_secret else repr(_without_password(problem.get("input")))
            lines.append(f"  {name} = {value}: {problem['msg'].removeprefix('Value error, ')}")
        raise InvalidSettings("These settings can't be used:\n" + "\n".join(lines)) from None
    if lines := contradictions(settings, variable_name):
        raise InvalidSettings("These settings contradict each other:\n" + "\n".join(f"  {line}" for line in lines))
    return settings
