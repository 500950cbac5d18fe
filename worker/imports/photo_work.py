"""What is done with one photo that comes into the catalogue: read it, decode and keep it, embed it with others."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256 as hash_of
from threading import Condition, Lock

import numpy as np

from shared.catalogue import Catalogue
from shared.catalogue_change import ImageRef
from shared.errors import Internal, LookalikeError
from shared.image_header import read_header
from shared.settings import Settings
from shared.store import Store
from worker.decode import decode_pixels
from worker.encoder import Encoder
from worker.imports.images import ImageSource
from worker.index import check_vectors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Photo:
    """A photo as it came, checked by its header."""

    data: bytes
    ref: ImageRef
    pixels: int


class PixelBudget:
    """How many pixels may be decoded at a time, in all threads together."""

    def __init__(self, pixels: int) -> None:
        """Args:
        pixels: most that are decoded at a time; a photo that has more is decoded alone.
        """
        self._limit = pixels
        self._used = 0
        self._turn = Lock()
        self._changed = Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Hold so many pixels for the block, once they are free."""
        # Who waits keeps the others behind: a large photo would wait forever while small ones pass.
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + pixels <= self._limit)
            self._used += pixels
        try:
            yield
        finally:
            with self._changed:
                self._used -= pixels
                self._changed.notify_all()


@dataclass(frozen=True)
class PhotoWork:
    """The single steps; threads may share it.

    Attributes:
        settings: limits of photos.
        catalogue: tells which embeddings are known.
        store: keeps the photos.
        encoder_id: whose embeddings are wanted.
        load_encoder: called only if there is something to embed.
        budget: bounds the memory of decoding.
    """

    settings: Settings
    catalogue: Catalogue
    store: Store
    encoder_id: str
    load_encoder: Callable[[], Encoder]
    budget: PixelBudget

    def read(self, references: Sequence[str], source: ImageSource) -> list[Photo | LookalikeError]:
        """Read photos and check their headers; in place of one that can't be used, give the reason."""
        return [self._read(reference, source) for reference in references]

    def _read(self, reference: str, source: ImageSource) -> Photo | LookalikeError:
        limits = self.settings
        try:
            data = source.read(reference)
            header = read_header(data, max_bytes=limits.upload_max_bytes, max_pixels=limits.image_max_pixels)
        except LookalikeError as error:
            return error
        return Photo(data, ImageRef(hash_of(data).hexdigest(), header.media_type), header.width * header.height)

    def known(self, hashes: Collection[str]) -> set[str]:
        """Return which photos have an embedding already."""
        return self.catalogue.embedded_images(self.encoder_id, list(hashes))

    def keep(self, photos: Sequence[Photo]) -> list[None]:
        """Put photos in the store."""
        self.store.put_images([photo.data for photo in photos])
        return [None] * len(photos)

    def decode_and_keep(self, photos: Sequence[Photo]) -> list[np.ndarray | LookalikeError]:
        """Decode photos, then put those in the store that are not broken.

        Returns:
            For each photo what the network sees of it, uint8 (size, size, 3), or why it can't be decoded.
        """
        decoded = [self._decode(photo) for photo in photos]
        good = [photo.data for photo, pixels in zip(photos, decoded, strict=True) if isinstance(pixels, np.ndarray)]
        self.store.put_images(good)
        return decoded

    def _decode(self, photo: Photo) -> np.ndarray | LookalikeError:
        encoder, limits = self.load_encoder(), self.settings
        try:
            with self.budget.taken(photo.pixels):
                return decode_pixels(
                    photo.data,
                    encoder.transform,
                    max_bytes=limits.upload_max_bytes,
                    max_pixels=limits.image_max_pixels,
                )
        except LookalikeError as error:
            return error

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """Embed photos.

        Args:
            pixels: uint8 (n, size, size, 3).

        Returns:
            float32 (n, dim), rows of L2 norm 1.

        Raises:
            Internal: if the network is out of order.
        """
        encoder = self.load_encoder()
        embeddings = encoder.embed(pixels)  # (n, dim)
        try:
            check_vectors(embeddings, encoder.dim)
        except ValueError as error:
            # Once stored, it would keep every search worker from filling its index.
            log.exception("Encoder %s made an embedding that can't be stored", encoder.id)
            raise Internal(
                f"Encoder {encoder.id} made an embedding that can't be stored: {error}. Check its weights file."
            ) from error
        return embeddings
