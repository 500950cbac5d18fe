"""Writing the catalogue: one transaction that other writers wait for."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Executable, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from shared.attributes import AttributeValue, compared_text
from shared.errors import AttributeTypeMismatch
from shared.tables import (
    AttributeRow,
    CatalogueState,
    EmbeddingRow,
    ImportErrorRow,
    ItemAttributeRow,
    ItemImageRow,
    ItemRow,
    ReleaseRow,
    Table,
)


@dataclass(frozen=True)
class ImageRef:
    """An image in the store."""

    sha256: str
    media_type: str


@dataclass(frozen=True)
class ItemChange:
    """An item as it shall be; `images` None leaves its images as they are."""

    id: str
    title: str
    attributes: Mapping[str, AttributeValue]
    images: Sequence[ImageRef] | None


def type_of(value: AttributeValue) -> str:
    """Return the catalogue's word for the type of an attribute's value."""
    return "boolean" if isinstance(value, bool) else "string" if isinstance(value, str) else "number"


class CatalogueChange:
    """What can be done within one change; made by `Catalogue.change`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        # Locks the row until the commit, before anything is read: changes come one after the other.
        session.execute(update(CatalogueState).values(purged_seq=CatalogueState.purged_seq))
        self._seq = session.execute(select(CatalogueState.seq)).scalar_one() + 1
        self._is_dirty = False
        self._insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert

    def close(self) -> None:
        """Give the change its place in the order, if it changed anything that can be searched."""
        if self._is_dirty:
            self._session.execute(update(CatalogueState).values(seq=self._seq))

    def put(self, items: Sequence[ItemChange], as_of: datetime | None = None) -> int:
        """Add items, or make them as given; an item that is so already is not touched.

        Args:
            items: with different ids; an image's bytes must be in the store and its embedding, where there is to
                be one, added before or in this change.
            as_of: when this was asked for; None means now. An item that was written or deleted by a newer request
                stays as that one wanted it.

        Returns:
            How many items were added or changed.

        Raises:
            AttributeTypeMismatch: if a value has another type than its field has in the catalogue.
        """
        as_of = as_of or datetime.now(UTC)
        ids = [item.id for item in items]
        present = {row.id: row for row in self._session.scalars(select(ItemRow).where(ItemRow.id.in_(ids)))}
        due = [item for item in items if item.id not in present or present[item.id].as_of <= as_of]
        self._declare_types(due)
        images = self._images_of(ids)
        changed = [item for item in due if not _is_same(item, present.get(item.id), images.get(item.id, []))]
        if changed:
            self._write_items(changed, images, as_of)
        confirmed = ItemRow.id.in_([item.id for item in due])
        self._session.execute(update(ItemRow).where(confirmed).values(as_of=as_of))
        self._is_dirty |= bool(changed)
        return len(changed)

    def attribute_types(self) -> dict[str, str]:
        """Return the types of the fields, which nobody else can change now."""
        return dict(self._session.execute(select(AttributeRow.name, AttributeRow.type)).all())

    def is_absent(self, item_id: str) -> bool:
        """Tell whether the catalogue has no such item."""
        row = self._session.get(ItemRow, item_id)
        return row is None or row.is_deleted

    def _declare_types(self, items: Sequence[ItemChange]) -> None:
        known = self.attribute_types()
        for item in items:
            for name, value in item.attributes.items():
                if known.setdefault(name, type_of(value)) != type_of(value):
                    raise AttributeTypeMismatch(
                        f"Attribute {name!r} of item {item.id!r} is {value!r}, but {name!r} is a {known[name]} "
                        "in this catalogue. Send it as such, or under another name.",
                        attribute=name,
                        expected=known[name],
                    )
        rows = [{"name": name, "type": type_} for name, type_ in known.items()]
        if rows:
            self._session.execute(self._insert(AttributeRow).on_conflict_do_nothing(), rows)

    def _images_of(self, ids: Collection[str]) -> dict[str, list[ItemImageRow]]:
        images: dict[str, list[ItemImageRow]] = {}
        statement = select(ItemImageRow).where(ItemImageRow.item_id.in_(ids)).order_by(ItemImageRow.position)
        for image in self._session.scalars(statement):
            images.setdefault(image.item_id, []).append(image)
        return images

    def _write_items(
        self, items: Sequence[ItemChange], images: Mapping[str, Sequence[ItemImageRow]], as_of: datetime
    ) -> None:
        """Write items that changed: some statements for all of them, since each costs as much as many rows."""
        common = {"as_of": as_of, "is_deleted": False, "seq": self._seq, "updated_at": datetime.now(UTC)}
        rows = [{"id": item.id, "title": item.title, "attributes": dict(item.attributes), **common} for item in items]
        upsert = self._insert(ItemRow)
        new_values = {name: upsert.excluded[name] for name in ("title", "attributes", *common)}
        self._write(upsert.on_conflict_do_update(index_elements=["id"], set_=new_values), rows)

        ids = [item.id for item in items]
        self._session.execute(delete(ItemAttributeRow).where(ItemAttributeRow.item_id.in_(ids)))
        attributes = [_attribute_row(item.id, name, value) for item in items for name, value in item.attributes.items()]
        self._write(insert(ItemAttributeRow), attributes)

        given = [item for item in items if item.images is not None and not _has_images(item, images.get(item.id, []))]
        self._session.execute(delete(ItemImageRow).where(ItemImageRow.item_id.in_([item.id for item in given])))
        rows = [
            {"item_id": item.id, "position": position, "sha256": image.sha256, "media_type": image.media_type}
            for item in given
            for position, image in enumerate(item.images or ())
        ]
        self._write(insert(ItemImageRow), rows)

    def _write(self, statement: Executable, rows: Sequence[Mapping[str, Any]]) -> None:
        # Past the session, which would look for objects to keep in step with each row.
        if rows:
            self._session.connection().execute(statement, rows)

    def delete(self, ids: Collection[str], as_of: datetime | None = None) -> int:
        """Delete items; returns how many there were. A tombstone tells every index, and older work still to come."""
        statement = select(ItemRow.id).where(ItemRow.id.in_(ids), ItemRow.is_deleted.is_(False))
        found = self._session.scalars(statement).all()
        if found:
            for table in (ItemAttributeRow, ItemImageRow):
                self._session.execute(delete(table).where(table.item_id.in_(found)))
            now = datetime.now(UTC)
            tombstone = {"is_deleted": True, "attributes": {}, "updated_at": now, "as_of": as_of or now}
            self._session.execute(update(ItemRow).where(ItemRow.id.in_(found)).values(seq=self._seq, **tombstone))
            self._is_dirty = True
        return len(found)

    def delete_absent(self, import_job: str, as_of: datetime, page: int = 500) -> int:
        """Delete every item that an import in mode replace does not name.

        All that it does name was put with the import's `as_of`, or is newer; a row that failed keeps its item.

        Returns:
            How many items this import deleted, the same number when it is called again.
        """
        failed = select(ImportErrorRow.item_id).where(
            ImportErrorRow.job_id == import_job, ImportErrorRow.item_id.is_not(None)
        )
        is_absent = (ItemRow.is_deleted.is_(False), ItemRow.as_of < as_of, ItemRow.id.not_in(failed))
        while ids := self._session.scalars(select(ItemRow.id).where(*is_absent).limit(page)).all():
            self.delete(ids, as_of)
        deleted = select(func.count()).select_from(ItemRow).where(ItemRow.is_deleted.is_(True), ItemRow.as_of == as_of)
        return self._session.execute(deleted).scalar_one()

    def add_embeddings(self, encoder_id: str, vectors: Mapping[str, bytes]) -> None:
        """Keep embeddings (little-endian float32) by the hash of their image; a known one stays.

        Every index looks again at the items that own these images: until now it could not hold them.
        """
        known = select(EmbeddingRow.sha256).where(
            EmbeddingRow.encoder_id == encoder_id, EmbeddingRow.sha256.in_(vectors)
        )
        new = vectors.keys() - set(self._session.scalars(known))
        if new:
            rows = [{"encoder_id": encoder_id, "sha256": sha256, "vector": vectors[sha256]} for sha256 in new]
            self._session.execute(insert(EmbeddingRow), rows)
            owners = select(ItemImageRow.item_id).where(ItemImageRow.sha256.in_(new))
            touched = update(ItemRow).where(ItemRow.id.in_(owners)).values(seq=self._seq).returning(ItemRow.id)
            self._is_dirty |= bool(self._session.scalars(touched).all())

    def activate(self, release_id: str, encoder_id: str, manifest: Mapping[str, Any]) -> None:
        """Register a release, if it is new, and let searches use it."""
        row = {"id": release_id, "encoder_id": encoder_id, "manifest": dict(manifest), "created_at": datetime.now(UTC)}
        self._session.execute(self._insert(ReleaseRow).on_conflict_do_nothing(), [row])
        self._session.execute(update(CatalogueState).values(release_id=release_id))

    def purge_tombstones(self, before: datetime) -> int:
        """Forget items that were deleted before a moment, and fields that no item has any more."""
        old = (ItemRow.is_deleted.is_(True), ItemRow.updated_at < before)
        last = self._session.execute(select(func.max(ItemRow.seq)).where(*old)).scalar_one()
        if last is not None:
            # Hosts' clocks differ, so an older seq may be purged later; indexes rely on the highest one.
            is_higher = CatalogueState.purged_seq < last
            self._session.execute(update(CatalogueState).where(is_higher).values(purged_seq=last))
        purged = len(self._session.scalars(delete(ItemRow).where(*old).returning(ItemRow.id)).all())
        used = select(ItemAttributeRow.name).where(ItemAttributeRow.name == AttributeRow.name)
        self._session.execute(delete(AttributeRow).where(~used.exists()))
        return purged

    def insert_new(self, table: type[Table], rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows of a bookkeeping table; those that are there already stay."""
        if rows:
            self._session.execute(self._insert(table).on_conflict_do_nothing(), [dict(row) for row in rows])

    @property
    def session(self) -> Session:
        """The open transaction, for bookkeeping that must commit together with the change."""
        return self._session


def _attribute_row(item_id: str, name: str, value: AttributeValue) -> dict[str, Any]:
    row: dict[str, Any] = {"item_id": item_id, "name": name, "text_value": None, "number_value": None}
    if isinstance(value, str):
        return {**row, "text_value": compared_text(value)}
    return {**row, "number_value": float(value)}


def _has_images(item: ItemChange, images: Sequence[ItemImageRow]) -> bool:
    return item.images is None or [image.sha256 for image in item.images] == [image.sha256 for image in images]


def _is_same(item: ItemChange, row: ItemRow | None, images: Sequence[ItemImageRow]) -> bool:
    return (
        row is not None
        and not row.is_deleted
        and row.title == item.title
        and row.attributes == dict(item.attributes)
        and _has_images(item, images)
    )
