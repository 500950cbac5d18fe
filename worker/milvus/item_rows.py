"""What Milvus must hold of the catalogue's items, as the database has them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Engine, select, tuple_

from shared.attributes import AttributeValue
from shared.tables import EmbeddingRow, ItemImageRow, ItemRow
from worker.index.vector_index import NORM_TOLERANCE, Vectors
from worker.milvus.expressions import stored_attributes

ITEMS_AT_ONCE = 200


@dataclass(frozen=True)
class ImageRow:
    """An image of an item, with its embedding, float32 (dim,), of L2 norm 1."""

    id: int
    item_id: str
    sha256: str
    vector: Vectors
    attributes: Mapping[str, AttributeValue]

    def to_fields(self) -> dict[str, Any]:
        """Return it as Milvus keeps it."""
        known = {"id": self.id, "item_id": self.item_id, "sha256": self.sha256, "vector": self.vector}
        return {**known, **stored_attributes(self.item_id, self.attributes)}


def changed_items(engine: Engine, above: int, up_to: int, page: int = ITEMS_AT_ONCE) -> Iterator[tuple[list[str], int]]:
    """Yield pages of the items whose seq is in (above, up_to], deleted ones too, with the seq of the page's last."""
    last = (above, "\U0010ffff")  # behind every item of that seq
    while True:
        place = tuple_(ItemRow.seq, ItemRow.id)
        statement = select(ItemRow.id, ItemRow.seq).where(ItemRow.seq <= up_to, place > last)
        with engine.connect() as connection:
            found = connection.execute(statement.order_by(ItemRow.seq, ItemRow.id).limit(page)).all()
        if not found:
            return
        last = (found[-1].seq, found[-1].id)
        yield [row.id for row in found], found[-1].seq


def item_rows(engine: Engine, encoder_id: str, dim: int, item_ids: Sequence[str]) -> dict[int, ImageRow]:
    """Return the rows of some items by id, of those images that the encoder has embedded.

    An embedding that is not of this length, or not of L2 norm 1, is left out.
    """
    image = ItemImageRow
    statement = (
        select(image.id, image.item_id, image.sha256, EmbeddingRow.vector, ItemRow.attributes)
        .join(EmbeddingRow, EmbeddingRow.sha256 == image.sha256)
        .join(ItemRow, ItemRow.id == image.item_id)
        .where(image.item_id.in_(item_ids), EmbeddingRow.encoder_id == encoder_id)
    )
    with engine.connect() as connection:
        found = connection.execute(statement).all()
    rows = {}
    for row in found:
        vector = np.frombuffer(row.vector, "<f4").astype(np.float32)
        if vector.shape == (dim,) and abs(np.linalg.norm(vector) - 1) <= NORM_TOLERANCE:
            rows[row.id] = ImageRow(row.id, row.item_id, row.sha256, vector, row.attributes)
    return rows
