"""The tables of the catalogue database.

`catalogue_state` has one row. Every change of the catalogue first takes the next `seq` from it; the row stays
locked until the change commits, so changes become visible in the order of their seq, on SQLite and PostgreSQL
alike. A reader that has applied all items up to seq N misses nothing by asking for those above N.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

# SQLite only counts up by itself in a column that is exactly INTEGER.
RowId = BigInteger().with_variant(Integer, "sqlite")

# Texts are compared by code point on every database, whatever its locale.
ComparedText = Text().with_variant(Text(collation="C"), "postgresql")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, stored in UTC and read back with its time zone on every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Convert to UTC for the database."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        """Give the moment its time zone back, which SQLite drops."""
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Table(DeclarativeBase):
    """Base of the tables below."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        }
    )


class CatalogueState(Table):
    """The one row that orders all changes."""

    __tablename__ = "catalogue_state"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger)
    purged_seq: Mapped[int] = mapped_column(BigInteger)
    release_id: Mapped[str | None] = mapped_column(String(128))


class ReleaseRow(Table):
    """One encoder and one index kind, which its id fixes; building the same id again replaces the manifest."""

    __tablename__ = "release"
    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    encoder_id: Mapped[str] = mapped_column(String(96))
    manifest: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ItemRow(Table):
    """A product; a deleted one stays as a tombstone until workers have seen it go.

    `as_of` is the moment of the newest request that said how the item shall be: work that was asked for earlier but
    is done later must not undo it. `updated_at` is when it was last changed.
    """

    __tablename__ = "item"
    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    title: Mapped[str] = mapped_column(Text)
    attributes: Mapped[dict[str, Any]] = mapped_column(JSON)
    is_deleted: Mapped[bool] = mapped_column(Boolean)
    seq: Mapped[int] = mapped_column(BigInteger, index=True)
    as_of: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ItemImageRow(Table):
    """One image of an item; its id is the image's row in every index."""

    __tablename__ = "item_image"
    __table_args__ = (UniqueConstraint("item_id", "position"), {"sqlite_autoincrement": True})
    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    item_id: Mapped[str] = mapped_column(ForeignKey("item.id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(Integer)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    media_type: Mapped[str] = mapped_column(String(32))


class ItemAttributeRow(Table):
    """One attribute of an item in the form that filters compare; booleans are the numbers 0 and 1."""

    __tablename__ = "item_attribute"
    __table_args__ = (Index(None, "name", "text_value"), Index(None, "name", "number_value"))
    item_id: Mapped[str] = mapped_column(ForeignKey("item.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    text_value: Mapped[str | None] = mapped_column(ComparedText)
    number_value: Mapped[float | None] = mapped_column(Float(53))


class AttributeRow(Table):
    """The type of a field, set by the first item that has it."""

    __tablename__ = "attribute"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    type: Mapped[str] = mapped_column(String(16))


class EmbeddingRow(Table):
    """What one encoder made of one image: little-endian float32, L2 norm 1."""

    __tablename__ = "embedding"
    encoder_id: Mapped[str] = mapped_column(String(96), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    vector: Mapped[bytes] = mapped_column(LargeBinary)


class AcceptedImportRow(Table):
    """An import that has not ended: the fields of its job record, as JSON; see shared/accepted_imports.py."""

    __tablename__ = "accepted_import"
    job_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    fields: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ImportChunkRow(Table):
    """A part of an import; it is done in the same transaction as its items."""

    __tablename__ = "import_chunk"
    job_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    rows: Mapped[int] = mapped_column(Integer)
    attempts: Mapped[int] = mapped_column(Integer)
    is_done: Mapped[bool] = mapped_column(Boolean)
    imported: Mapped[int] = mapped_column(Integer)
    embedded: Mapped[int] = mapped_column(Integer)


class ImportErrorRow(Table):
    """A row that an import left out."""

    __tablename__ = "import_error"
    job_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    line: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    item_id: Mapped[str | None] = mapped_column(Text)
    code: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str] = mapped_column(Text)


class ApiKeyRow(Table):
    """Who may call the API; of the secret only a hash is kept.

    The id is part of the key that clients send, so that one row is read to check it.
    """

    __tablename__ = "api_key"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(128))
    scopes: Mapped[list[str]] = mapped_column(JSON)
    secret_sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    replaces: Mapped[str | None] = mapped_column(String(32))
    overlap_ends_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
