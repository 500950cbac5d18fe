"""Reading the catalogue: items, attributes, and what an index must hold."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, func, select, tuple_
from sqlalchemy.orm import Session

from shared.catalogue_change import CatalogueChange
from shared.errors import ImageNotFound, ItemNotFound
from shared.schemas import Attribute, Item, ItemImage
from shared.tables import (
    AttributeRow,
    EmbeddingRow,
    ImportErrorRow,
    ItemAttributeRow,
    ItemImageRow,
    ItemRow,
)

LISTED_VALUES = 50
_READ_STATE = "SELECT seq, purged_seq, release_id FROM catalogue_state"


@dataclass(frozen=True)
class State:
    """Which catalogue and which release a search would see now."""

    seq: int
    purged_seq: int
    release_id: str | None


@dataclass(frozen=True)
class IndexedItem:
    """What an index must hold of an item; no rows where it was deleted or awaits its embeddings."""

    item_id: str
    rows: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True)
class HitRow:
    """What a result tells of an image's item."""

    item_id: str
    position: int
    title: str
    attributes: dict[str, Any]


def image_link(item_id: str, position: int, sha256: str) -> str:
    """Return the link of an item's image; the hash lets clients keep it for good."""
    return f"/v1/items/{item_id}/image?position={position}&v={sha256[:12]}"


class Catalogue:
    """The items, their images and attributes, as committed."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._described: tuple[int, list[Attribute]] | None = None

    @contextmanager
    def change(self) -> Iterator[CatalogueChange]:
        """Change the catalogue in one transaction; other changes wait, so keep it short.

        The change is visible, whole, once the block has ended, and gone if it raises.
        """
        with Session(self.engine) as session, session.begin():
            change = CatalogueChange(session)
            yield change
            change.close()

    def state(self) -> State:
        """Return the present state; one read of one row."""
        with self.engine.connect() as connection:
            # Each search asks twice, and to make this statement of its columns takes twice as long as to run it.
            return State(*connection.exec_driver_sql(_READ_STATE).one())

    def item(self, item_id: str) -> Item:
        """Return one item.

        Raises:
            ItemNotFound: if there is none, or it was deleted.
        """
        with Session(self.engine) as session:
            row = session.get(ItemRow, item_id)
            if row is None or row.is_deleted:
                raise ItemNotFound(f"There is no item {item_id!r} in the catalogue.", item_id=item_id)
            return self._items(session, [row])[0]

    def page(self, limit: int, after: str | None) -> list[Item]:
        """Return up to `limit` items in the order of their ids, from the first one behind `after`."""
        statement = select(ItemRow).where(ItemRow.is_deleted.is_(False)).order_by(ItemRow.id).limit(limit)
        if after is not None:
            statement = statement.where(ItemRow.id > after)
        with Session(self.engine) as session:
            return self._items(session, session.scalars(statement).all())

    @staticmethod
    def _items(session: Session, rows: Sequence[ItemRow]) -> list[Item]:
        images: dict[str, list[ItemImage]] = {row.id: [] for row in rows}
        statement = select(ItemImageRow).where(ItemImageRow.item_id.in_(images)).order_by(ItemImageRow.position)
        for image in session.scalars(statement):
            link = image_link(image.item_id, image.position, image.sha256)
            images[image.item_id].append(ItemImage(position=image.position, sha256=image.sha256, url=link))
        return [
            Item(
                id=row.id,
                title=row.title,
                attributes=row.attributes,
                images=images[row.id],
                updated_at=row.updated_at,
            )
            for row in rows
        ]

    def image(self, item_id: str, position: int) -> tuple[str, str]:
        """Return SHA-256 and media type of an item's image.

        Raises:
            ImageNotFound: if the item or the position doesn't exist.
        """
        columns = (ItemImageRow.sha256, ItemImageRow.media_type)
        statement = select(*columns).where(ItemImageRow.item_id == item_id, ItemImageRow.position == position)
        with self.engine.connect() as connection:
            row = connection.execute(statement).one_or_none()
        if row is None:
            raise ImageNotFound(f"Item {item_id!r} has no image at position {position}.", item_id=item_id)
        return row.sha256, row.media_type

    def attribute_types(self) -> dict[str, str]:
        """Return "string", "number" or "boolean" for each field that a filter may name."""
        with self.engine.connect() as connection:
            return dict(connection.execute(select(AttributeRow.name, AttributeRow.type)).all())

    def attributes(self) -> list[Attribute]:
        """Describe each field: its most frequent values, or its range. Computed once per catalogue state."""
        seq = self.state().seq
        if self._described is None or self._described[0] != seq:
            self._described = (seq, self._describe_attributes())
        return self._described[1]

    def _describe_attributes(self) -> list[Attribute]:
        name, text, number = ItemAttributeRow.name, ItemAttributeRow.text_value, ItemAttributeRow.number_value
        frequency = func.count().label("frequency")
        with self.engine.connect() as connection:
            types = connection.execute(select(AttributeRow.name, AttributeRow.type).order_by(AttributeRow.name)).all()
            ranges = {
                row.name: (row.low, row.high)
                for row in connection.execute(
                    select(name, func.min(number).label("low"), func.max(number).label("high")).group_by(name)
                )
            }
            described = []
            for field, type_ in types:
                if field not in ranges:
                    continue
                if type_ == "string":
                    top = select(text, frequency).where(name == field).group_by(text)
                    values = connection.execute(top.order_by(frequency.desc(), text).limit(LISTED_VALUES)).all()
                    described.append(Attribute(name=field, type="string", values=[row[0] for row in values]))
                else:
                    low, high = ranges[field] if type_ == "number" else (None, None)
                    described.append(Attribute(name=field, type=type_, minimum=low, maximum=high))
        return described

    def embeddings(self, encoder_id: str, hashes: Sequence[str]) -> dict[str, bytes]:
        """Return the stored embeddings, little-endian float32, of those images that have one."""
        statement = select(EmbeddingRow.sha256, EmbeddingRow.vector)
        statement = statement.where(EmbeddingRow.encoder_id == encoder_id, EmbeddingRow.sha256.in_(hashes))
        with self.engine.connect() as connection:
            return dict(connection.execute(statement).all())

    def item_ids(self, limit: int, after: str | None) -> list[str]:
        """Return the ids of up to `limit` items in their order, from the first one behind `after`."""
        statement = select(ItemRow.id).where(ItemRow.is_deleted.is_(False)).order_by(ItemRow.id).limit(limit)
        if after is not None:
            statement = statement.where(ItemRow.id > after)
        with self.engine.connect() as connection:
            return list(connection.execute(statement).scalars())

    def embedded_images(self, encoder_id: str, hashes: Sequence[str]) -> set[str]:
        """Return which of these images an encoder has embedded already."""
        statement = select(EmbeddingRow.sha256)
        statement = statement.where(EmbeddingRow.encoder_id == encoder_id, EmbeddingRow.sha256.in_(hashes))
        with self.engine.connect() as connection:
            return set(connection.execute(statement).scalars())

    def images_to_embed(self, encoder_id: str, limit: int, after: str = "") -> list[str]:
        """Return up to `limit` hashes of images that an encoder has not embedded yet, in order, from behind `after`."""
        known = select(EmbeddingRow.sha256).where(
            EmbeddingRow.encoder_id == encoder_id, EmbeddingRow.sha256 == ItemImageRow.sha256
        )
        statement = select(ItemImageRow.sha256).where(~known.exists(), ItemImageRow.sha256 > after)
        with self.engine.connect() as connection:
            found = connection.execute(statement.distinct().order_by(ItemImageRow.sha256).limit(limit))
            return list(found.scalars())

    def changed_items(self, encoder_id: str, above: int, up_to: int, page: int = 1000) -> Iterator[list[IndexedItem]]:
        """Yield pages of the items whose seq is in (above, up_to], as an index must hold them now."""
        behind_last = ItemRow.seq > above
        while True:
            items = select(ItemRow.id, ItemRow.seq).where(ItemRow.seq <= up_to, behind_last)
            with self.engine.connect() as connection:
                found = connection.execute(items.order_by(ItemRow.seq, ItemRow.id).limit(page)).all()
                if not found:
                    return
                rows: dict[str, list[tuple[int, bytes]]] = {row.id: [] for row in found}
                images = (
                    select(ItemImageRow.item_id, ItemImageRow.id, EmbeddingRow.vector)
                    .join(EmbeddingRow, EmbeddingRow.sha256 == ItemImageRow.sha256)
                    .where(ItemImageRow.item_id.in_(rows), EmbeddingRow.encoder_id == encoder_id)
                )
                for item_id, row_id, vector in connection.execute(images):
                    rows[item_id].append((row_id, vector))
            yield [IndexedItem(item_id, tuple(images)) for item_id, images in rows.items()]
            behind_last = tuple_(ItemRow.seq, ItemRow.id) > tuple_(found[-1].seq, found[-1].id)

    def image_rows(self, condition: ColumnElement[bool]) -> list[int]:
        """Return the index rows of the images of all items that meet a compiled filter."""
        statement = select(ItemImageRow.id).join(ItemRow, ItemRow.id == ItemImageRow.item_id).where(condition)
        with self.engine.connect() as connection:
            return list(connection.execute(statement).scalars())

    def hit_rows(self, rows: Sequence[int]) -> dict[int, tuple[HitRow, str]]:
        """Return what a result tells of each index row, with the link of its image; gone rows are left out."""
        image = ItemImageRow
        columns = (image.id, image.item_id, image.position, image.sha256, ItemRow.title, ItemRow.attributes)
        statement = select(*columns).join(ItemRow, ItemRow.id == image.item_id).where(image.id.in_(rows))
        with self.engine.connect() as connection:
            return {
                row.id: (
                    HitRow(row.item_id, row.position, row.title, row.attributes),
                    image_link(row.item_id, row.position, row.sha256),
                )
                for row in connection.execute(statement)
            }

    def row_errors(self, job_id: str, limit: int, after_line: int) -> list[ImportErrorRow]:
        """Return rows that an import left out, by line, from the first one behind `after_line`."""
        statement = select(ImportErrorRow).where(ImportErrorRow.job_id == job_id, ImportErrorRow.line > after_line)
        with Session(self.engine, expire_on_commit=False) as session:
            return list(session.scalars(statement.order_by(ImportErrorRow.line).limit(limit)))
