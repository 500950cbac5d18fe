"""What an index asks of the catalogue database most often, in statements that are prepared once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Engine, bindparam, select

from shared.catalogue import Catalogue, State
from shared.tables import CatalogueState, EmbeddingRow, ItemImageRow
from worker.index.vector_index import NORM_TOLERANCE, Hashes, Page, Rows

# The tables themselves: the statement that every search sends takes a third of the time that it takes by its model.
_STATE, _IMAGE = CatalogueState.__table__.c, ItemImageRow.__table__.c
EMBEDDINGS_AT_ONCE = 1000
READ_STATE = select(_STATE.seq, _STATE.purged_seq, _STATE.release_id)
READ_IMAGES = (
    select(_IMAGE.id, _IMAGE.sha256, _IMAGE.item_id)
    .where(_IMAGE.id > bindparam("above"))
    .order_by(_IMAGE.id)
    .limit(bindparam("page"))
)


@dataclass(frozen=True)
class Images:
    """Some images of the catalogue.

    Attributes:
        rows: int64 (n,), their rows in every index, ascending.
        hashes: uint8 (n, 32), their SHA-256.
        item_ids: n, whose they are.
    """

    rows: Rows
    hashes: Hashes
    item_ids: list[str]


def embedded_pages(catalogue: Catalogue, encoder_id: str, dim: int) -> Iterator[Page]:
    """Yield rows, hashes and stored embeddings of all images that an encoder has embedded; no image is read.

    An embedding that is not of this length, or not of L2 norm 1, is left out.
    """
    for images in IndexedImages(catalogue.engine).pages(EMBEDDINGS_AT_ONCE):
        hashes = [sha256.tobytes().hex() for sha256 in images.hashes]
        known = catalogue.embeddings(encoder_id, hashes)
        embedded = np.array([len(known.get(sha256, b"")) == 4 * dim for sha256 in hashes])
        raw = b"".join(known[sha256] for sha256, is_there in zip(hashes, embedded, strict=True) if is_there)
        vectors = np.frombuffer(raw, "<f4").reshape(-1, dim).astype(np.float32)
        is_unit = np.abs(np.linalg.norm(vectors, axis=1) - 1) <= NORM_TOLERANCE
        yield images.rows[embedded][is_unit], images.hashes[embedded][is_unit], vectors[is_unit]


def embeddings_of_items(catalogue: Catalogue, encoder_id: str, item_ids: Sequence[str]) -> dict[str, list[bytes]]:
    """Return the stored embeddings, little-endian float32, of the images of those items that have one."""
    statement = (
        select(ItemImageRow.item_id, EmbeddingRow.vector)
        .join(EmbeddingRow, EmbeddingRow.sha256 == ItemImageRow.sha256)
        .where(ItemImageRow.item_id.in_(item_ids), EmbeddingRow.encoder_id == encoder_id)
    )
    found: dict[str, list[bytes]] = {}
    with catalogue.engine.connect() as connection:
        for item_id, vector in connection.execute(statement):
            found.setdefault(item_id, []).append(vector)
    return found


class IndexedImages:
    """Reads the catalogue's images, embedded or not."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def state(self) -> State:
        """Return the catalogue's present state."""
        with self._engine.connect() as connection:
            return State(*connection.execute(READ_STATE).one())

    def pages(self, page: int = 10_000) -> Iterator[Images]:
        """Yield all images; one that is added or removed meanwhile may be among them or not."""
        above = 0
        while True:
            with self._engine.connect() as connection:
                found = connection.execute(READ_IMAGES, {"above": above, "page": page}).all()
            if not found:
                return
            rows, hashes, item_ids = zip(*found, strict=True)
            raw = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, 32)
            yield Images(np.array(rows, dtype=np.int64), raw, list(item_ids))
            above = rows[-1]
