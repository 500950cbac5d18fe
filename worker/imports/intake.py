"""From rows to a committed change: read the photos, embed those that are new, write all in one transaction."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256 as hash_of

import numpy as np
from PIL.Image import Image

from shared.catalogue import Catalogue
from shared.catalogue_change import ImageRef, ItemChange
from shared.errors import LookalikeError
from shared.image_header import read_header
from shared.settings import Settings
from shared.store import Store
from worker.decode import decode_image
from worker.encoder import Encoder
from worker.imports.images import ImageSource
from worker.imports.rows import CatalogueRow

READERS = 8  # photos by URL mostly wait for the network
EMBED_BATCH = 32


@dataclass(frozen=True)
class Photo:
    """A photo in the store; `upright` only where it must be embedded."""

    ref: ImageRef
    upright: Image | None


@dataclass
class Prepared:
    """Rows that are ready to be written."""

    items: list[tuple[CatalogueRow, ItemChange]] = field(default_factory=list)
    rejected: list[tuple[CatalogueRow, LookalikeError]] = field(default_factory=list)
    vectors: dict[str, bytes] = field(default_factory=dict)


class Intake:
    """Prepares items with their photos for the catalogue."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        store: Store,
        encoder_id: str,
        load_encoder: Callable[[], Encoder],
    ) -> None:
        """Args:
        settings: limits of photos.
        catalogue: tells which embeddings are known.
        store: keeps the photos.
        encoder_id: whose embeddings are wanted.
        load_encoder: called only if there is something to embed.
        """
        self._settings = settings
        self._catalogue = catalogue
        self._store = store
        self.encoder_id = encoder_id
        self._load_encoder = load_encoder

    def prepare(self, rows: Sequence[CatalogueRow], source: ImageSource) -> Prepared:
        """Read, check, keep and embed the photos of some rows.

        Returns:
            The items to write, the rows whose photo can't be used, and the new embeddings by image hash.
        """
        prepared = Prepared()
        uprights: dict[str, Image] = {}
        with ThreadPoolExecutor(READERS) as pool:
            outcomes = pool.map(lambda row: self._photos(row, source), rows)
            for row, outcome in zip(rows, outcomes, strict=True):
                if isinstance(outcome, LookalikeError):
                    prepared.rejected.append((row, outcome))
                    continue
                change = ItemChange(row.item_id, row.title, row.attributes, [photo.ref for photo in outcome])
                prepared.items.append((row, change))
                uprights.update({photo.ref.sha256: photo.upright for photo in outcome if photo.upright is not None})
        prepared.vectors = self.embed(uprights)
        return prepared

    def embed(self, uprights: dict[str, Image]) -> dict[str, bytes]:
        """Return the embeddings of decoded photos as little-endian float32 bytes, by image hash."""
        if not uprights:
            return {}
        encoder, hashes = self._load_encoder(), list(uprights)
        vectors: dict[str, bytes] = {}
        for start in range(0, len(hashes), EMBED_BATCH):
            batch = hashes[start : start + EMBED_BATCH]
            embeddings = encoder.encode([uprights[sha256] for sha256 in batch])  # (b, dim)
            vectors.update(zip(batch, (row.astype(np.dtype("<f4")).tobytes() for row in embeddings), strict=True))
        return vectors

    def decode(self, data: bytes) -> Image:
        """Decode a photo of the catalogue."""
        settings = self._settings
        return decode_image(data, max_bytes=settings.upload_max_bytes, max_pixels=settings.image_max_pixels)

    def _photos(self, row: CatalogueRow, source: ImageSource) -> list[Photo] | LookalikeError:
        try:
            photos = [source.read(reference) for reference in row.images]
            return list(self._keep(photos))
        except LookalikeError as error:
            return error

    def _keep(self, photos: Iterable[bytes]) -> Iterable[Photo]:
        for data in photos:
            settings = self._settings
            header = read_header(data, max_bytes=settings.upload_max_bytes, max_pixels=settings.image_max_pixels)
            sha256 = hash_of(data).hexdigest()
            is_known = bool(self._catalogue.embedded_images(self.encoder_id, [sha256]))
            # A photo is decoded before it is kept: a broken one never gets to the catalogue.
            upright = None if is_known else self.decode(data)
            self._store.put_image(data)
            yield Photo(ImageRef(sha256, header.media_type), upright)
