"""From rows to a committed change: read the photos, embed those that are new, write all in one transaction."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256 as hash_of
from itertools import islice
from threading import Lock

from PIL.Image import Image

from shared.catalogue import Catalogue
from shared.catalogue_change import ImageRef, ItemChange
from shared.errors import Internal, LookalikeError
from shared.image_header import read_header
from shared.settings import Settings
from shared.store import Store
from worker.decode import decode_image
from worker.encoder import Encoder
from worker.imports.images import ImageSource
from worker.imports.rows import CatalogueRow
from worker.index import check_vectors

log = logging.getLogger(__name__)

READERS = 8  # photos by URL mostly wait for the network
PHOTOS_AT_ONCE = 32  # whose files are in memory together
PIXELS_AT_ONCE = 50_000_000  # that are decoded together: 200 MB, since Pillow keeps four bytes of each


@dataclass(frozen=True)
class Photo:
    """A photo as it came, checked by its header."""

    data: bytes
    ref: ImageRef
    pixels: int


@dataclass(frozen=True)
class Taken:
    """What became of some photos.

    Attributes:
        outcomes: for each photo where it is kept, or why it can't be used.
        vectors: new embeddings, little-endian float32, by image hash.
    """

    outcomes: list[ImageRef | LookalikeError]
    vectors: dict[str, bytes]


@dataclass
class Prepared:
    """Rows that are ready to be written."""

    items: list[tuple[CatalogueRow, ItemChange]] = field(default_factory=list)
    rejected: list[tuple[CatalogueRow, LookalikeError]] = field(default_factory=list)
    vectors: dict[str, bytes] = field(default_factory=dict)


class Intake:
    """Prepares items with their photos for the catalogue. Threads may share it, and take turns with large memory."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        store: Store,
        encoder_id: str,
        load_encoder: Callable[[], Encoder],
        pixels_at_once: int = PIXELS_AT_ONCE,
    ) -> None:
        """Args:
        settings: limits of photos.
        catalogue: tells which embeddings are known.
        store: keeps the photos.
        encoder_id: whose embeddings are wanted.
        load_encoder: called only if there is something to embed.
        pixels_at_once: most pixels that are decoded at a time; a larger photo is decoded alone.
        """
        self._settings = settings
        self._catalogue = catalogue
        self._store = store
        self.encoder_id = encoder_id
        self._load_encoder = load_encoder
        self._pixels_at_once = pixels_at_once
        self._decoding = Lock()

    def prepare(self, rows: Sequence[CatalogueRow], source: ImageSource) -> Prepared:
        """Read, check, keep and embed the photos of some rows.

        Returns:
            The items to write, the rows whose photo can't be used, and the new embeddings by image hash.
        """
        images: dict[int, list[ImageRef]] = {number: [] for number in range(len(rows))}
        errors: dict[int, LookalikeError] = {}
        vectors: dict[str, bytes] = {}
        # The first photos of all rows, then the second ones: of a row whose first can't be used, no other is read.
        places = sorted((position, number) for number, row in enumerate(rows) for position in range(len(row.images)))
        waiting = iter(places)
        while batch := list(islice(waiting, PHOTOS_AT_ONCE)):
            wanted = [(number, rows[number].images[position]) for position, number in batch if number not in errors]
            taken = self.take([reference for _, reference in wanted], source)
            for (number, _), outcome in zip(wanted, taken.outcomes, strict=True):
                if isinstance(outcome, LookalikeError):
                    errors.setdefault(number, outcome)
                else:
                    images[number].append(outcome)
            vectors |= taken.vectors
        prepared = Prepared()
        for number, row in enumerate(rows):
            if number in errors:
                prepared.rejected.append((row, errors[number]))
            else:
                prepared.items.append((row, ItemChange(row.item_id, row.title, row.attributes, images[number])))
                prepared.vectors |= {ref.sha256: vectors[ref.sha256] for ref in images[number] if ref.sha256 in vectors}
        return prepared

    def take(self, references: Sequence[str], source: ImageSource) -> Taken:
        """Read, check, keep and embed some photos; their files are in memory together, so take PHOTOS_AT_ONCE."""
        with ThreadPoolExecutor(READERS) as pool:
            read = list(pool.map(lambda reference: self._read(reference, source), references))
            photos = {photo.ref.sha256: photo for photo in read if isinstance(photo, Photo)}
            known = self._catalogue.embedded_images(self.encoder_id, list(photos))
            list(pool.map(self._store.put_image, (photos[sha256].data for sha256 in known)))
            new = [photo for sha256, photo in photos.items() if sha256 not in known]
            errors: dict[str, LookalikeError] = {}
            vectors: dict[str, bytes] = {}
            for group in _groups(new, self._pixels_at_once):
                with self._decoding:
                    vectors |= self._embed(group, pool, errors)
        outcomes = [errors.get(photo.ref.sha256, photo.ref) if isinstance(photo, Photo) else photo for photo in read]
        return Taken(outcomes, vectors)

    def _read(self, reference: str, source: ImageSource) -> Photo | LookalikeError:
        settings = self._settings
        try:
            data = source.read(reference)
            header = read_header(data, max_bytes=settings.upload_max_bytes, max_pixels=settings.image_max_pixels)
        except LookalikeError as error:
            return error
        return Photo(data, ImageRef(hash_of(data).hexdigest(), header.media_type), header.width * header.height)

    def _embed(self, group: list[Photo], pool: Executor, errors: dict[str, LookalikeError]) -> dict[str, bytes]:
        """Decode, keep and embed photos; those that turn out to be broken get their error."""
        uprights: dict[str, Image] = {}
        for photo, upright in zip(group, pool.map(self._decode_and_keep, group), strict=True):
            if isinstance(upright, LookalikeError):
                errors[photo.ref.sha256] = upright
            else:
                uprights[photo.ref.sha256] = upright
        if not uprights:
            return {}
        encoder = self._load_encoder()
        embeddings = encoder.encode(list(uprights.values()))  # (n, dim)
        try:
            check_vectors(embeddings, encoder.dim)
        except ValueError as error:
            # Once stored, it would keep every search worker from filling its index.
            log.exception("Encoder %s made an embedding that can't be stored", encoder.id)
            raise Internal(
                f"Encoder {encoder.id} made an embedding that can't be stored: {error}. Check its weights file."
            ) from error
        return {sha256: row.astype("<f4").tobytes() for sha256, row in zip(uprights, embeddings, strict=True)}

    def _decode_and_keep(self, photo: Photo) -> Image | LookalikeError:
        """Decode a photo before it is kept, so that a broken one never gets to the catalogue."""
        settings = self._settings
        try:
            upright = decode_image(
                photo.data, max_bytes=settings.upload_max_bytes, max_pixels=settings.image_max_pixels
            )
        except LookalikeError as error:
            return error
        self._store.put_image(photo.data)
        return upright


def _groups(photos: Iterable[Photo], max_pixels: int) -> Iterator[list[Photo]]:
    """Cut photos into groups of so many pixels at most; a photo that has more is a group of its own."""
    group: list[Photo] = []
    for photo in photos:
        if group and sum(other.pixels for other in group) + photo.pixels > max_pixels:
            yield group
            group = []
        group.append(photo)
    if group:
        yield group
